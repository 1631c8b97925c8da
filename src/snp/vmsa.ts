/**
 * The VM save area of SEV-ES and SEV-SNP as one table (APM vol. 2, appendix B, table B-4), and the way
 * of every register between it and a processor context.
 */
import { CvmError, hex, readField, structure, writeField } from '../base/index.ts';
import type { FieldRow } from '../base/index.ts';
import { SEGMENT_NAMES, STATE, gpr, segment } from '../x86/index.ts';
import type { Cpu } from '../x86/index.ts';

export const VMSA_SIZE = 4096;

const segmentRows = SEGMENT_NAMES.flatMap((name, index): FieldRow[] => [
  [index * 16, `${name}.selector`, 'u16'],
  [index * 16 + 2, `${name}.attributes`, 'u16'],
  [index * 16 + 4, `${name}.limit`, 'u32'],
  [index * 16 + 8, `${name}.base`, 'u64'],
]);

const numbered = (count: number, at: number, step: number, name: (i: number) => string): FieldRow[] =>
  Array.from({ length: count }, (_, i): FieldRow => [at + i * step, name(i), step === 8 ? 'u64' : step]);

/** Every byte of the VMSA has a row: 4096 bytes without a gap. */
export const VMSA = structure('VMSA', VMSA_SIZE, [
  ...segmentRows,
  [0x0a0, 'pl0_ssp', 'u64'],
  [0x0a8, 'pl1_ssp', 'u64'],
  [0x0b0, 'pl2_ssp', 'u64'],
  [0x0b8, 'pl3_ssp', 'u64'],
  [0x0c0, 'u_cet', 'u64'],
  [0x0c8, 'reserved_0c8', 2],
  [0x0ca, 'vmpl', 'u8'],
  [0x0cb, 'cpl', 'u8'],
  [0x0cc, 'reserved_0cc', 4],
  [0x0d0, 'efer', 'u64'],
  [0x0d8, 'reserved_0d8', 104],
  [0x140, 'xss', 'u64'],
  [0x148, 'cr4', 'u64'],
  [0x150, 'cr3', 'u64'],
  [0x158, 'cr0', 'u64'],
  [0x160, 'dr7', 'u64'],
  [0x168, 'dr6', 'u64'],
  [0x170, 'rflags', 'u64'],
  [0x178, 'rip', 'u64'],
  ...numbered(4, 0x180, 8, (i) => `dr${i}`),
  ...numbered(4, 0x1a0, 8, (i) => `dr${i}_addr_mask`),
  [0x1c0, 'reserved_1c0', 24],
  [0x1d8, 'rsp', 'u64'],
  [0x1e0, 's_cet', 'u64'],
  [0x1e8, 'ssp', 'u64'],
  [0x1f0, 'isst_addr', 'u64'],
  [0x1f8, 'rax', 'u64'],
  [0x200, 'star', 'u64'],
  [0x208, 'lstar', 'u64'],
  [0x210, 'cstar', 'u64'],
  [0x218, 'sfmask', 'u64'],
  [0x220, 'kernel_gs_base', 'u64'],
  [0x228, 'sysenter_cs', 'u64'],
  [0x230, 'sysenter_esp', 'u64'],
  [0x238, 'sysenter_eip', 'u64'],
  [0x240, 'cr2', 'u64'],
  [0x248, 'reserved_248', 32],
  [0x268, 'g_pat', 'u64'],
  [0x270, 'dbgctl', 'u64'],
  [0x278, 'br_from', 'u64'],
  [0x280, 'br_to', 'u64'],
  [0x288, 'last_excp_from', 'u64'],
  [0x290, 'last_excp_to', 'u64'],
  [0x298, 'reserved_298', 80],
  [0x2e8, 'pkru', 'u32'],
  [0x2ec, 'tsc_aux', 'u32'],
  [0x2f0, 'guest_tsc_scale', 'u64'],
  [0x2f8, 'guest_tsc_offset', 'u64'],
  [0x300, 'reg_prot_nonce', 'u64'],
  [0x308, 'rcx', 'u64'],
  [0x310, 'rdx', 'u64'],
  [0x318, 'rbx', 'u64'],
  [0x320, 'reserved_320', 8],
  [0x328, 'rbp', 'u64'],
  [0x330, 'rsi', 'u64'],
  [0x338, 'rdi', 'u64'],
  ...numbered(8, 0x340, 8, (i) => `r${i + 8}`),
  [0x380, 'reserved_380', 16],
  [0x390, 'guest_exit_info_1', 'u64'],
  [0x398, 'guest_exit_info_2', 'u64'],
  [0x3a0, 'guest_exit_int_info', 'u64'],
  [0x3a8, 'guest_nrip', 'u64'],
  [0x3b0, 'sev_features', 'u64'],
  [0x3b8, 'vintr_ctrl', 'u64'],
  [0x3c0, 'guest_exit_code', 'u64'],
  [0x3c8, 'virtual_tom', 'u64'],
  [0x3d0, 'tlb_id', 'u64'],
  [0x3d8, 'pcpu_id', 'u64'],
  [0x3e0, 'event_inj', 'u64'],
  [0x3e8, 'xcr0', 'u64'],
  [0x3f0, 'reserved_3f0', 16],
  [0x400, 'x87_dp', 'u64'],
  [0x408, 'mxcsr', 'u32'],
  [0x40c, 'x87_ftw', 'u16'],
  [0x40e, 'x87_fsw', 'u16'],
  [0x410, 'x87_fcw', 'u16'],
  [0x412, 'x87_fop', 'u16'],
  [0x414, 'x87_ds', 'u16'],
  [0x416, 'x87_cs', 'u16'],
  [0x418, 'x87_rip', 'u64'],
  ...numbered(8, 0x420, 10, (i) => `st${i}`),
  ...numbered(16, 0x470, 16, (i) => `xmm${i}`),
  ...numbered(16, 0x570, 16, (i) => `ymm${i}_hi`),
  [0x670, 'lbr_stack', 256],
  [0x770, 'lbr_select', 'u64'],
  [0x778, 'ibs_fetch_ctl', 'u64'],
  [0x780, 'ibs_fetch_linaddr', 'u64'],
  [0x788, 'ibs_op_ctl', 'u64'],
  [0x790, 'ibs_op_rip', 'u64'],
  [0x798, 'ibs_op_data', 'u64'],
  [0x7a0, 'ibs_op_data2', 'u64'],
  [0x7a8, 'ibs_op_data3', 'u64'],
  [0x7b0, 'ibs_dc_linaddr', 'u64'],
  [0x7b8, 'bp_ibstgt_rip', 'u64'],
  [0x7c0, 'ic_ibs_extd_ctl', 'u64'],
  [0x7c8, 'reserved_7c8', 2104],
]);

/** An integer field of a VMSA. */
export const readVmsa = (vmsa: Uint8Array, name: string): bigint => readField(vmsa, VMSA.field(name));
export const writeVmsa = (vmsa: Uint8Array, name: string, value: bigint): void =>
  writeField(vmsa, VMSA.field(name), value);

/** VMSA fields that are one 8-byte field of the processor state (DR6 … CR3 included). */
const WIDE: readonly (readonly [field: string, state: number])[] = [
  ['pl0_ssp', STATE.pl0Ssp],
  ['pl1_ssp', STATE.pl1Ssp],
  ['pl2_ssp', STATE.pl2Ssp],
  ['pl3_ssp', STATE.pl3Ssp],
  ['u_cet', STATE.uCet],
  ['efer', STATE.efer],
  ['xss', STATE.xss],
  ['cr4', STATE.cr4],
  ['cr3', STATE.cr3],
  ['cr0', STATE.cr0],
  ['cr2', STATE.cr2],
  ['dr7', STATE.dr7],
  ['dr6', STATE.dr6],
  ['rip', STATE.rip],
  ['dr0', STATE.dr0],
  ['dr1', STATE.dr1],
  ['dr2', STATE.dr2],
  ['dr3', STATE.dr3],
  ['s_cet', STATE.sCet],
  ['ssp', STATE.ssp],
  ['isst_addr', STATE.interruptSspTable],
  ['star', STATE.star],
  ['lstar', STATE.lstar],
  ['cstar', STATE.cstar],
  ['sfmask', STATE.sfmask],
  ['kernel_gs_base', STATE.kernelGsBase],
  ['sysenter_cs', STATE.sysenterCs],
  ['sysenter_esp', STATE.sysenterEsp],
  ['sysenter_eip', STATE.sysenterEip],
  ['g_pat', STATE.pat],
  ['dbgctl', STATE.debugCtl],
  ['xcr0', STATE.xcr0],
  ['x87_dp', STATE.fdp],
  ['x87_rip', STATE.fip],
  ...['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'].map((name, i) => [name, gpr(i)] as const),
  ...Array.from({ length: 8 }, (_, i) => [`r${i + 8}`, gpr(i + 8)] as const),
];
const DOUBLE_WORDS: typeof WIDE = [
  ['pkru', STATE.pkru],
  ['tsc_aux', STATE.tscAux],
  ['mxcsr', STATE.mxcsr],
];
const WORDS: typeof WIDE = [
  ['x87_ftw', STATE.ftw],
  ['x87_fsw', STATE.fsw],
  ['x87_fcw', STATE.fcw],
  ['x87_fop', STATE.fop],
];
/** `[VMSA offset, state offset, bytes]` of the register files. */
const BLOCKS: readonly (readonly [vmsa: number, state: number, size: number])[] = [
  ...Array.from({ length: 8 }, (_, i) => [0x420 + i * 10, STATE.st + i * 16, 10] as const),
  ...Array.from({ length: 16 }, (_, i) => [0x470 + i * 16, STATE.ymm + i * 32, 16] as const),
  ...Array.from({ length: 16 }, (_, i) => [0x570 + i * 16, STATE.ymm + i * 32 + 16, 16] as const),
];

const need = (vmsa: Uint8Array): void => {
  if (vmsa.length !== VMSA_SIZE)
    throw new CvmError('vmsa-size', `a VMSA has ${VMSA_SIZE} bytes, not ${vmsa.length}`);
};

/**
 * Loads every register a `Cpu` has from a VMSA, as VMRUN does. What the state lacks (address masks, last
 * branch and IBS registers, exit fields) stays in the VMSA. RFLAGS bit 1 is forced to 1.
 */
export function loadVmsa(cpu: Cpu, vmsa: Uint8Array): void {
  need(vmsa);
  for (let i = 0; i < SEGMENT_NAMES.length; i++)
    cpu.memory.u8.set(vmsa.subarray(i * 16, i * 16 + 16), cpu.base + segment(i));
  for (const [name, at] of WIDE) cpu.setU64(at, readVmsa(vmsa, name));
  for (const [name, at] of DOUBLE_WORDS) cpu.setU32(at, Number(readVmsa(vmsa, name)));
  for (const [name, at] of WORDS) cpu.setU16(at, Number(readVmsa(vmsa, name)));
  for (const [from, to, size] of BLOCKS) cpu.memory.u8.set(vmsa.subarray(from, from + size), cpu.base + to);
  cpu.rflags = Number(readVmsa(vmsa, 'rflags') & 0xffff_ffffn);
  cpu.cpl = Number(readVmsa(vmsa, 'cpl')) & 3;
  cpu.nextRip = cpu.rip;
  cpu.setU32(STATE.interruptShadow, Number((readVmsa(vmsa, 'vintr_ctrl') >> 10n) & 1n));
  cpu.updateMode();
  cpu.flushTlb();
}

/** Writes every register of a `Cpu` into its VMSA, as an exit does; leaves all other bytes. */
export function storeVmsa(cpu: Cpu, vmsa: Uint8Array): void {
  need(vmsa);
  for (let i = 0; i < SEGMENT_NAMES.length; i++) {
    const at = cpu.base + segment(i);
    vmsa.set(cpu.memory.u8.subarray(at, at + 16), i * 16);
  }
  for (const [name, at] of WIDE) writeVmsa(vmsa, name, cpu.u64(at));
  for (const [name, at] of DOUBLE_WORDS) writeVmsa(vmsa, name, BigInt(cpu.u32(at)));
  for (const [name, at] of WORDS) writeVmsa(vmsa, name, BigInt(cpu.u16(at)));
  for (const [to, from, size] of BLOCKS)
    vmsa.set(cpu.memory.u8.subarray(cpu.base + from, cpu.base + from + size), to);
  writeVmsa(vmsa, 'rflags', BigInt(cpu.rflags));
  writeVmsa(vmsa, 'cpl', BigInt(cpu.cpl));
  writeVmsa(vmsa, 'vmpl', BigInt(cpu.vmpl));
  const interrupts = readVmsa(vmsa, 'vintr_ctrl') & ~(1n << 10n);
  writeVmsa(vmsa, 'vintr_ctrl', interrupts | (BigInt(cpu.u32(STATE.interruptShadow) & 1) << 10n));
}

const EFER_ALLOWED = 0x3f_fd01n;

/**
 * Why VMRUN would refuse this VMSA with VMEXIT_INVALID (APM vol. 2, §15.5.1 "Canonicalization and
 * Consistency Checks"; SNP: §15.36.16), as a sentence that names the field, or undefined.
 */
export function refuseVmsa(vmsa: Uint8Array, vmpl: number): string | undefined {
  const field = (name: string): bigint => readVmsa(vmsa, name);
  const efer = field('efer');
  const cr0 = field('cr0');
  const cr4 = field('cr4');
  if ((efer & 0x1000n) === 0n) return `efer ${hex(efer)} has SVME clear`;
  if (efer & ~EFER_ALLOWED) return `efer ${hex(efer)} has reserved bits set`;
  if ((cr0 & 0x6000_0000n) === 0x2000_0000n) return `cr0 ${hex(cr0)} has NW set and CD clear`;
  for (const name of ['cr0', 'dr6', 'dr7', 'rflags'])
    if (field(name) >> 32n) return `${name} ${hex(field(name))} has bits 63:32 set`;
  if (cr4 >> 32n) return `cr4 ${hex(cr4)} has bits 63:32 set`;
  if (field('cr3') >> 52n) return `cr3 ${hex(field('cr3'))} has bits 63:52 set`;
  const paging = (cr0 & 0x8000_0000n) !== 0n;
  if (paging && (cr0 & 1n) === 0n) return `cr0 ${hex(cr0)} has PG without PE`;
  if (paging && (efer & 0x100n) !== 0n) {
    if ((cr4 & 0x20n) === 0n) return `long mode without cr4.PAE (cr4 ${hex(cr4)})`;
    const cs = field('cs.attributes');
    if ((cs & 0x600n) === 0x600n) return `cs.attributes ${hex(cs)} has L and D both set`;
  }
  if (field('vmpl') !== BigInt(vmpl)) return `vmpl is ${field('vmpl')}, not ${vmpl}`;
  if ((field('sev_features') & 1n) === 0n)
    return `sev_features ${hex(field('sev_features'))} has SNPActive clear`;
  return undefined;
}
