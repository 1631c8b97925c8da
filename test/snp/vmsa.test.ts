/** The VMSA table against the offsets of Linux's `struct sev_es_save_area`, and its way into a processor and back. */
import { describe, expect, it } from 'vitest';
import { fieldBytes } from '../../src/base/index.ts';
import {
  VMSA,
  VMSA_SIZE,
  describeSegmentAttributes,
  describeVmsaField,
  exitCodeName,
  loadVmsa,
  readVmsa,
  refuseVmsa,
  storeVmsa,
  writeVmsa,
} from '../../src/snp/index.ts';
import { PlainMachine } from '../x86/support/plain-machine.ts';

function randomBytes(length: number, seed: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 24;
  });
}

/** What a processor does not keep: it stays in the VMSA. */
const NOT_KEPT = [
  /^reserved_/,
  /^dr\d_addr_mask$/,
  /^br_|^last_excp_/,
  /^guest_/,
  /^reg_prot_nonce$/,
  /^sev_features$|^vintr_ctrl$|^virtual_tom$|^tlb_id$|^pcpu_id$|^event_inj$/,
  /^x87_ds$|^x87_cs$/,
  /^lbr_|ibs/,
];
const isKept = (name: string): boolean => !NOT_KEPT.some((pattern) => pattern.test(name));

describe('VMSA', () => {
  it('has every byte in exactly one field', () => {
    const covered = new Uint8Array(VMSA_SIZE);
    for (const field of VMSA.fields) for (let i = 0; i < field.size; i++) covered[field.offset + i]!++;
    expect(covered.every((count) => count === 1)).toBe(true);
  });

  // arch/x86/include/asm/svm.h, struct sev_es_save_area (its comments and reserved_0x… names give the offsets).
  it.each([
    ['es.selector', 0x00],
    ['cs.attributes', 0x12],
    ['ss.limit', 0x24],
    ['gdtr.base', 0x68],
    ['tr.base', 0x98],
    ['pl0_ssp', 0xa0],
    ['u_cet', 0xc0],
    ['vmpl', 0xca],
    ['cpl', 0xcb],
    ['efer', 0xd0],
    ['xss', 0x140],
    ['cr4', 0x148],
    ['cr3', 0x150],
    ['cr0', 0x158],
    ['dr7', 0x160],
    ['dr6', 0x168],
    ['rflags', 0x170],
    ['rip', 0x178],
    ['dr0_addr_mask', 0x1a0],
    ['rsp', 0x1d8],
    ['s_cet', 0x1e0],
    ['rax', 0x1f8],
    ['star', 0x200],
    ['kernel_gs_base', 0x220],
    ['cr2', 0x240],
    ['g_pat', 0x268],
    ['last_excp_to', 0x290],
    ['pkru', 0x2e8],
    ['tsc_aux', 0x2ec],
    ['guest_tsc_scale', 0x2f0],
    ['rcx', 0x308],
    ['rdx', 0x310],
    ['rbx', 0x318],
    ['rbp', 0x328],
    ['r8', 0x340],
    ['r15', 0x378],
    ['guest_exit_info_1', 0x390],
    ['guest_nrip', 0x3a8],
    ['sev_features', 0x3b0],
    ['vintr_ctrl', 0x3b8],
    ['guest_exit_code', 0x3c0],
    ['virtual_tom', 0x3c8],
    ['event_inj', 0x3e0],
    ['xcr0', 0x3e8],
    ['x87_dp', 0x400],
    ['mxcsr', 0x408],
    ['x87_fcw', 0x410],
    ['x87_rip', 0x418],
    ['st0', 0x420],
    ['xmm0', 0x470],
    ['ymm0_hi', 0x570],
    ['lbr_stack', 0x670],
  ] as const)('%s is at 0x%s', (name, offset) => {
    expect(VMSA.field(name).offset).toBe(offset);
  });

  it('loads and stores every field a processor keeps, and leaves the others alone', () => {
    const machine = new PlainMachine();
    const cpu = machine.cpu();
    const source = randomBytes(VMSA_SIZE, 1);
    // What cannot be anything: RFLAGS bit 1 and its upper half, two bits of CPL, the VMPL of the processor.
    writeVmsa(source, 'rflags', 0x0024_4ed7n);
    writeVmsa(source, 'cpl', 3n);
    writeVmsa(source, 'vmpl', 0n);
    loadVmsa(cpu, source);
    const filled = source.slice();
    storeVmsa(cpu, filled);
    expect(Buffer.compare(filled, source)).toBe(0);

    const fresh = new Uint8Array(VMSA_SIZE);
    storeVmsa(cpu, fresh);
    for (const field of VMSA.fields) {
      const stored = Buffer.from(fieldBytes(fresh, field)).toString('hex');
      if (isKept(field.name))
        expect(stored, field.name).toBe(Buffer.from(fieldBytes(source, field)).toString('hex'));
      else if (field.name === 'vintr_ctrl')
        expect(readVmsa(fresh, field.name)).toBe(readVmsa(source, field.name) & 0x400n);
      else expect(stored, field.name).toMatch(/^0*$/);
    }
  });

  it('keeps the interrupt shadow in VINTR_CTRL bit 10', () => {
    const cpu = new PlainMachine().cpu();
    const vmsa = new Uint8Array(VMSA_SIZE);
    writeVmsa(vmsa, 'vintr_ctrl', 0x400n);
    loadVmsa(cpu, vmsa);
    const stored = new Uint8Array(VMSA_SIZE);
    storeVmsa(cpu, stored);
    expect(readVmsa(stored, 'vintr_ctrl')).toBe(0x400n);
  });

  it('refuses anything but 4096 bytes', () => {
    const cpu = new PlainMachine().cpu();
    expect(() => loadVmsa(cpu, new Uint8Array(4095))).toThrow(/4096/);
    expect(() => storeVmsa(cpu, new Uint8Array(0))).toThrow(/4096/);
  });
});

describe('VMRUN consistency checks (APM vol. 2, §15.5.1)', () => {
  const good = (): Uint8Array => {
    const vmsa = new Uint8Array(VMSA_SIZE);
    writeVmsa(vmsa, 'efer', 0x1d00n);
    writeVmsa(vmsa, 'cr0', 0x8005_0033n);
    writeVmsa(vmsa, 'cr4', 0x20n);
    writeVmsa(vmsa, 'cs.attributes', 0xa9bn & ~0x400n);
    writeVmsa(vmsa, 'sev_features', 1n);
    return vmsa;
  };
  it('accepts a sound VMSA', () => expect(refuseVmsa(good(), 0)).toBeUndefined());
  it.each([
    ['efer', 0xd00n, /SVME/],
    ['efer', 0x1d02n, /reserved/],
    ['cr0', 0x2000_0033n, /NW/],
    ['cr0', 0x1_8005_0033n, /63:32/],
    ['cr0', 0x8005_0032n, /PG without PE/],
    ['cr4', 0n, /PAE/],
    ['cr3', 1n << 52n, /63:52/],
    ['dr6', 1n << 32n, /dr6/],
    ['dr7', 1n << 32n, /dr7/],
    ['cs.attributes', 0xe9bn, /L and D/],
    ['vmpl', 1n, /vmpl is 1/],
    ['sev_features', 0n, /SNPActive/],
  ] as const)('refuses %s = %s', (name, value, message) => {
    const vmsa = good();
    writeVmsa(vmsa, name, value);
    expect(refuseVmsa(vmsa, 0)).toMatch(message);
  });
});

describe('fields in words', () => {
  it.each([
    ['sev_features', 0x29n, 'SNPActive RestrictedInjection DebugSwap'],
    ['cr0', 0x31n, 'PE ET NE'],
    ['efer', 0x1800n, 'NXE SVME'],
    ['rflags', 0x3202n, 'IF, IOPL 3'],
    ['g_pat', 0x0007_0406_0007_0406n, 'WB WT UC- UC WB WT UC- UC'],
    ['guest_exit_code', 0x403n, 'VMGEXIT (0x403)'],
    ['guest_exit_code', 0xffff_ffff_ffff_ffffn, 'invalid'],
    ['event_inj', 0x8000_0b0dn, 'exception vector 13, error code 0x0'],
    ['virtual_tom', 0n, 'C-bit addressing'],
    ['vmpl', 2n, 'VMPL2'],
    ['xcr0', 7n, 'x87 SSE AVX'],
    ['cr4', 1n << 27n, 'bit 27'],
    ['cr0', 0n, 'none'],
  ] as const)('%s = %s: %s', (name, value, text) => expect(describeVmsaField(name, value)).toBe(text));

  it('has nothing to add to a plain number', () => expect(describeVmsaField('rip', 5n)).toBeUndefined());

  it.each([
    [0xc9b, 'readable code, accessed, DPL 0, present, 32-bit default, 4 KiB granularity'],
    [0xa9b, 'readable code, accessed, DPL 0, present, 64-bit, 4 KiB granularity'],
    [0xa93, 'writable data, accessed, DPL 0, present, 64-bit, 4 KiB granularity'],
    [0x8b, 'busy TSS, DPL 0, present'],
    [0x82, 'LDT, DPL 0, present'],
    [0, 'unused'],
  ])('segment attributes 0x%s', (attributes, text) =>
    expect(describeSegmentAttributes(attributes)).toBe(text),
  );

  it.each([
    [0x72, 'CPUID (0x72)'],
    [0x404, 'PAGE_NOT_VALIDATED (0x404)'],
    [0x8000_0013, 'SNP_AP_CREATION (0x80000013)'],
    [0x10, 'WRITE_CR0 (0x10)'],
    [0x4e, 'EXCP_14 (0x4e)'],
    [0x90, 'CR0_WRITE_TRAP (0x90)'],
    [0x1234, '0x1234'],
  ])('exit code 0x%s', (code, name) => expect(exitCodeName(code)).toBe(name));
});
