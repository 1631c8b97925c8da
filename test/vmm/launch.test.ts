/** Launching: what the loader puts into the guest, the digest, and what is refused. */
import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import { measureIgvm } from '../../src/measure/index.ts';
import { decodeCpuidPage } from '../../src/snp/index.ts';
import { createMachine } from '../../src/vmm/index.ts';
import type { MachineOptions } from '../../src/vmm/index.ts';
import { AT, MASK, VMSA_GPA, guestImage, longModeVmsa, machineOf } from './guest.ts';
import type { GuestOptions } from './guest.ts';

const PARAMETERS = BigInt(AT.parameters);
const withParameters: GuestOptions = {
  build: (builder) =>
    builder
      .parameterArea(0, 4096n)
      .parameterArea(1, 4096n)
      .parameterArea(2, 4096n)
      .parameterArea(3, 4096n)
      .parameter('VP_COUNT', 0, 0)
      .parameter('ENVIRONMENT_INFO', 0, 4)
      .parameter('COMMAND_LINE', 0, 16)
      .parameter('MEMORY_MAP', 1)
      .parameter('MADT', 2)
      .parameter('DEVICE_TREE', 3)
      .parameterInsert(PARAMETERS, MASK, 0)
      .parameterInsert(PARAMETERS + 0x1000n, MASK, 1)
      .parameterInsert(PARAMETERS + 0x2000n, MASK, 2)
      .parameterInsert(PARAMETERS + 0x3000n, MASK, 3)
      .requiredMemory(0x1_4000_0000n, MASK, 0x20_0000),
};

const read = (options: Partial<MachineOptions>, page: number, guest = withParameters): DataView => {
  const { machine } = machineOf(guestImage('hlt', guest), options);
  const { bytes, readable } = machine.readPhysical(PARAMETERS + BigInt(page) * 0x1000n, 4096, 'private');
  expect(readable).toBe(4096);
  return new DataView(bytes.buffer);
};

describe('parameters', () => {
  it('VP_COUNT, ENVIRONMENT_INFO (memory_is_shared) and the command line stand where they are asked for', () => {
    const view = read({ vcpus: 3, commandLine: 'a=1' }, 0);
    expect(view.getUint32(0, true)).toBe(3);
    expect(view.getUint32(4, true)).toBe(1);
    expect(new TextDecoder().decode(view.buffer.slice(16, 20))).toBe('a=1\0');
  });

  /** Rows of IGVM_VHS_MEMORY_MAP_ENTRY up to the terminator. */
  const rows = (view: DataView): bigint[][] => {
    const found: bigint[][] = [];
    for (let at = 0; view.getBigUint64(at + 8, true) !== 0n; at += 24)
      found.push([
        view.getBigUint64(at, true),
        view.getBigUint64(at + 8, true),
        BigInt(view.getUint16(at + 16, true)),
      ]);
    return found;
  };
  it('the memory map is sorted, of type MEMORY, and has the hole of q35', () => {
    expect(rows(read({ memory: 64 << 20 }, 1))).toEqual([[0n, 0x4000n, 0n]]);
    expect(rows(read({ memory: 2 ** 32 }, 1))).toEqual([
      [0n, 0x8_0000n, 0n],
      [0x10_0000n, 0x8_0000n, 0n],
    ]);
  });

  it('the MADT is an ACPI table with one enabled local APIC for each vCPU', () => {
    const view = read({ vcpus: 4 }, 2);
    const bytes = new Uint8Array(view.buffer);
    expect(new TextDecoder().decode(bytes.subarray(0, 4))).toBe('APIC');
    const length = view.getUint32(4, true);
    expect(bytes.subarray(0, length).reduce((sum, byte) => sum + byte, 0) & 0xff).toBe(0);
    expect(view.getUint32(36, true)).toBe(0xfee0_0000);
    const entries: number[][] = [];
    for (let at = 44; at < length; at += bytes[at + 1]!) entries.push([...bytes.subarray(at, at + 8)]);
    expect(entries).toEqual([0, 1, 2, 3].map((id) => [0, 8, id, id, 1, 0, 0, 0]));
  });

  it('the device tree is empty', () => {
    expect(new Uint8Array(read({}, 3).buffer).every((byte) => byte === 0)).toBe(true);
  });

  it('one that does not fit is refused with its name', () => {
    const image = guestImage('hlt', {
      build: (b) => b.parameterArea(0, 4096n).parameter('VP_COUNT', 0, 4094),
    });
    expect(() => machineOf(image)).toThrow(/VP_COUNT.*4094/);
  });
});

describe('memory after launch', () => {
  const { machine } = machineOf(guestImage('hlt', withParameters));
  it('loaded and parameter pages are validated, with permissions for VMPL0 only', () => {
    for (const gpa of [AT.code, AT.secrets, AT.cpuid, AT.parameters])
      expect(machine.rmp.entry(BigInt(gpa))).toMatchObject({
        assigned: true,
        validated: true,
        immutable: false,
        pageSize: 4096,
        permissions: [0x1f, 0, 0, 0],
      });
  });
  it('other memory is not assigned; required memory outside RAM exists', () => {
    expect(machine.rmp.entry(BigInt(AT.free))).toMatchObject({ assigned: false, validated: false });
    expect(machine.rmp.entry(0x1_4000_0000n)).toMatchObject({ assigned: false });
    expect(machine.rmp.entry(0x1_4020_0000n)).toBeUndefined();
  });
  it('the ranges sum up what is assigned', () => {
    const ranges = machine.rmp.ranges();
    expect(ranges[0]).toMatchObject({ gpa: 0x1000n, pages: 8 });
    expect(ranges.reduce((sum, { pages }) => sum + pages, 0)).toBe(14);
    expect(machine.rmp.ranges(1)).toHaveLength(1);
  });
  it('the CPUID page is filled with what the processor has', () => {
    const functions = decodeCpuidPage(machine.readPhysical(BigInt(AT.cpuid), 4096, 'private').bytes);
    const find = (leaf: number, subleaf = 0) =>
      functions.find((row) => row.leaf === leaf && row.subleaf === subleaf)!;
    // C-bit 51; one physical address bit less; SEV, SEV-ES, SEV-SNP.
    expect(find(0x8000_001f)).toMatchObject({ eax: 0x1a, ebx: 51 | (1 << 6) });
    expect(find(0x8000_0008).eax & 0xff).toBe(48);
    // x87 and SSE: 0x240 bytes. No AVX, FMA, F16C, AVX2: the processor does not execute them yet.
    expect(find(0xd)).toMatchObject({ eax: 3, ebx: 0x240, ecx: 0x240, xcr0: 1n });
    expect(find(1).ecx & ((1 << 12) | (1 << 28) | (1 << 29))).toBe(0);
    expect(find(7).ebx & (1 << 5)).toBe(0);
    // x2APIC and XSAVE; SMEP and SMAP; no CET_SS.
    expect(find(1).ecx & ((1 << 21) | (1 << 26))).toBe((1 << 21) | (1 << 26));
    expect(find(7).ebx & ((1 << 7) | (1 << 20))).toBe((1 << 7) | (1 << 20));
    expect(find(7).ecx & (1 << 7)).toBe(0);
    expect(find(1).eax).toBe(0xa00f11);
  });
  it('the registers are those of the VMSA, bit for bit', () => {
    const given = longModeVmsa(AT.code, { dr7: 0x455n, r12: 0x1122_3344_5566_7788n });
    const image = guestImage('hlt', { vmsa: { dr7: 0x455n, r12: 0x1122_3344_5566_7788n } });
    const vmsa = machineOf(image).machine;
    expect(Buffer.compare(vmsa.vmsa(vmsa.current), given)).toBe(0);
  });
});

describe('launch digest', () => {
  it.each(['qemu-kvm', 'file-order', 'igvmmeasure'] as const)(
    'is what measuring the file gives (%s)',
    (profile) => {
      const image = guestImage('hlt', withParameters);
      const expected = measureIgvm(image, { platformType: 'SEV_SNP', profile }, nodeCrypto).digest;
      expect(bytesToHex(machineOf(image, { profile }).machine.launchDigest)).toBe(bytesToHex(expected));
    },
  );
  it('does not depend on memory size, vCPUs or seed', () => {
    const image = guestImage('hlt', withParameters);
    const digest = (options: Partial<MachineOptions>): string =>
      bytesToHex(machineOf(image, options).machine.launchDigest);
    expect(digest({ memory: 128 << 20, vcpus: 2, seed: 7 })).toBe(digest({}));
  });
  it('must match an ID block', () => {
    const image = (ld: Uint8Array) =>
      guestImage('hlt', { build: (builder) => builder.add('SNP_ID_BLOCK', { compatibilityMask: MASK, ld }) });
    expect(() => machineOf(image(new Uint8Array(48)))).toThrow(/ID block/);
    const digest = machineOf(guestImage('hlt')).machine.launchDigest;
    expect(() => machineOf(image(digest))).not.toThrow();
  });
});

describe('what is refused, by name', () => {
  const builder = (): IgvmBuilder => new IgvmBuilder().platform('SEV_SNP', MASK).guestPolicy(0x3_0000n, MASK);
  const launch = (built: IgvmBuilder, options: Partial<MachineOptions> = {}) =>
    createMachine({
      image: parseIgvm(built.build()),
      crypto: nodeCrypto,
      vcpus: 1,
      memory: 32 << 20,
      ...options,
    });

  it.each([
    ['no SNP platform', () => launch(new IgvmBuilder().platform('NATIVE', MASK)), /SEV_SNP/],
    ['no VP context', () => launch(builder().page(0n, MASK)), /no VP context/],
    [
      'a page twice',
      () => launch(builder().page(0x1000n, MASK).page(0x1000n, MASK)),
      /PAGE_DATA.*0x1000.*already/,
    ],
    [
      'a VP context for a vCPU that is not there',
      () => launch(builder().vpContext(VMSA_GPA, MASK, longModeVmsa(0), { vpIndex: 1 })),
      /VP_CONTEXT.*vCPU 1.*1 vCPU$/,
    ],
    [
      'a VMSA that VMRUN refuses',
      () => launch(builder().vpContext(VMSA_GPA, MASK, longModeVmsa(0, { efer: 0xd00n }))),
      /VMEXIT_INVALID: efer 0xd00/,
    ],
    [
      'a SEV feature it lacks',
      () => launch(builder().vpContext(VMSA_GPA, MASK, longModeVmsa(0, { sev_features: 0x203n }))),
      /SEV features vTOM SecureTSC/,
    ],
    [
      'a policy of the future',
      () => launch(new IgvmBuilder().platform('SEV_SNP', MASK).guestPolicy(1n << 40n, MASK)),
      /policy/,
    ],
    ['no vCPU', () => launch(builder(), { vcpus: 0 }), /vCPUs/],
    ['too little memory', () => launch(builder(), { memory: 4096 }), /memory/],
    ['an unknown processor', () => launch(builder(), { cpuModel: '486' }), /486.*EPYC-Milan-v2/],
  ] as const)('%s', (_what, attempt, message) => expect(attempt).toThrow(message));
});
