/**
 * CPUID of the processors this machine can be, as KVM and QEMU would give them to an SNP guest (QEMU
 * `target/i386/cpu.c`, model table; `sev.c`, snp_cpuid_info_fill). One row a function.
 */
import { CvmError } from '../base/index.ts';
import type { CpuidFunction } from '../snp/index.ts';

type Registers = readonly [eax: number, ebx: number, ecx: number, edx: number];
interface Row {
  readonly leaf: number;
  readonly subleaf: number;
  readonly values: Registers;
  /** XCR0_IN of the CPUID page. */
  readonly xcr0?: bigint;
}

export interface CpuModel {
  readonly name: string;
  readonly familyModelStepping: number;
  readonly physicalAddressBits: number;
  readonly encryptionBit: number;
  readonly hasRmpQuery: boolean;
  readonly rows: (vcpus: number, apicId: number) => readonly Row[];
}

const bits = (...positions: number[]): number =>
  positions.reduce((value, position) => value | (1 << position), 0) >>> 0;

/** Four characters as a register holds them. */
const letters = (text: string): number =>
  [...text].reduce((value, letter, i) => value | (letter.charCodeAt(0) << (8 * i)), 0) >>> 0;
const brand = (text: string, part: number): Registers => {
  const piece = text.padEnd(48, '\0').slice(part * 16, part * 16 + 16);
  return [0, 4, 8, 12].map((at) => letters(piece.slice(at, at + 4))) as unknown as Registers;
};

const VENDOR: readonly [number, number, number] = [letters('Auth'), letters('cAMD'), letters('enti')];
const shiftFor = (count: number): number => Math.ceil(Math.log2(Math.max(1, count)));

/** fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2. */
const LEAF1_EDX = bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26);
// A Milan without what the processor here does not execute yet, so that no guest is led into it: AVX
// and what needs it (fma f16c avx2 vaes vpclmulqdq), sse4a, clzero.

/** sse3 pclmulqdq ssse3 cx16 pcid sse4.1 sse4.2 x2apic movbe popcnt aes xsave rdrand hypervisor. */
const LEAF1_ECX = bits(0, 1, 9, 13, 17, 19, 20, 21, 22, 23, 25, 26, 30, 31);
/** fsgsbase bmi1 smep bmi2 erms invpcid rdseed adx smap clflushopt clwb sha-ni. */
const LEAF7_EBX = bits(0, 3, 7, 8, 9, 10, 18, 19, 20, 23, 24, 29);
/** umip rdpid. */
const LEAF7_ECX = bits(2, 22);
/** fsrm. */
const LEAF7_EDX = bits(4);
/** syscall nx mmxext ffxsr pdpe1gb rdtscp lm, and leaf 1's common bits. */
const EXTENDED_EDX =
  (bits(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17, 23, 24) | bits(11, 20, 22, 25, 26, 27, 29)) >>>
  0;
/** lahf cmp-legacy cr8-legacy abm misalignsse 3dnowprefetch osvw topoext perfctr-core. */
const EXTENDED_ECX = bits(0, 1, 4, 5, 7, 8, 9, 22, 23);
/** invlpgb xsaveerptr wbnoinvd ibpb ibrs stibp ssbd. */
const CAPACITY_EBX = bits(2, 3, 9, 12, 14, 15, 24);

const MILAN: CpuModel = {
  name: 'EPYC-Milan-v2',
  familyModelStepping: 0x00a0_0f11,
  physicalAddressBits: 48,
  encryptionBit: 51,
  hasRmpQuery: false,
  rows: (vcpus, apicId) => {
    const row = (leaf: number, subleaf: number, ...values: Registers): Row => ({ leaf, subleaf, values });
    const name = 'AMD EPYC-Milan-v2 Processor';
    const shift = shiftFor(vcpus);
    // x87 and SSE need 576 bytes (APM vol. 2, §11.5.2).
    const xsave = { xcr0: 1n };
    return [
      row(0x0, 0, 0x10, ...VENDOR),
      row(
        0x1,
        0,
        0x00a0_0f11,
        ((apicId << 24) | (vcpus << 16) | (8 << 8)) >>> 0,
        LEAF1_ECX,
        (LEAF1_EDX | (vcpus > 1 ? bits(28) : 0)) >>> 0,
      ),
      row(0x2, 0, 0, 0, 0, 0),
      row(0x5, 0, 0, 0, 0, 0),
      row(0x6, 0, 4, 0, 0, 0),
      row(0x7, 0, 0, LEAF7_EBX, LEAF7_ECX, LEAF7_EDX),
      row(0xb, 0, 0, 1, 0x100, apicId),
      row(0xb, 1, shift, vcpus, 0x201, apicId),
      { ...row(0xd, 0, 0x3, 0x240, 0x240, 0), ...xsave },
      { ...row(0xd, 1, 0xf, 0x240, 0, 0), ...xsave },
      row(0x8000_0000, 0, 0x8000_001f, ...VENDOR),
      row(0x8000_0001, 0, 0x00a0_0f11, 0, EXTENDED_ECX, EXTENDED_EDX),
      row(0x8000_0002, 0, ...brand(name, 0)),
      row(0x8000_0003, 0, ...brand(name, 1)),
      row(0x8000_0004, 0, ...brand(name, 2)),
      row(0x8000_0005, 0, 0xff40_ff40, 0xff40_ff40, 0x2008_0140, 0x2008_0140),
      row(0x8000_0006, 0, 0, 0x4200_4200, 0x0200_8140, 0x0080_9140),
      row(0x8000_0007, 0, 0, 0, 0, 0),
      row(0x8000_0008, 0, 0x3030, CAPACITY_EBX, (shift << 12) | (vcpus - 1), 7),
      row(0x8000_000a, 0, 0, 0, 0, 0),
      row(0x8000_0019, 0, 0, 0, 0, 0),
      row(0x8000_001a, 0, 6, 0, 0, 0),
      row(0x8000_001d, 0, 0x121, 0x01c0_003f, 0x3f, 1),
      row(0x8000_001d, 1, 0x122, 0x01c0_003f, 0x3f, 1),
      row(0x8000_001d, 2, 0x143, 0x01c0_003f, 0x3ff, 2),
      row(0x8000_001d, 3, (((vcpus - 1) << 14) | 0x163) >>> 0, 0x03c0_003f, 0x7fff, 1),
      row(0x8000_001e, 0, apicId, apicId, 0, 0),
      // SEV, SEV-ES, SEV-SNP; C-bit 51, one physical address bit less.
      row(0x8000_001f, 0, bits(1, 3, 4), 51 | (1 << 6), 0, 0),
    ];
  },
};

const MODELS: readonly CpuModel[] = [MILAN];

/** @throws CvmError `cpu-model` naming the models there are. */
export function cpuModel(name = MILAN.name): CpuModel {
  const model = MODELS.find((each) => each.name === name);
  if (!model)
    throw new CvmError(
      'cpu-model',
      `there is no processor model ${name}; known: ${MODELS.map((m) => m.name).join(', ')}`,
      {
        name: 'cpuModel',
      },
    );
  return model;
}

/** The functions of the CPUID page, as seen from APIC ID 0. */
export function cpuidFunctions(model: CpuModel, vcpus: number): CpuidFunction[] {
  return model.rows(vcpus, 0).map(({ leaf, subleaf, values, xcr0 }) => ({
    leaf,
    subleaf,
    xcr0: xcr0 ?? 0n,
    xss: 0n,
    eax: values[0],
    ebx: values[1],
    ecx: values[2],
    edx: values[3],
  }));
}

const KVM_SIGNATURE: Registers = [0x4000_0001, letters('KVMK'), letters('VMKV'), letters('M')];

/** What the host answers to a CPUID request: zeros for a function it does not know, as KVM does. */
export function hostCpuid(
  model: CpuModel,
  vcpus: number,
  apicId: number,
  leaf: number,
  subleaf: number,
): Registers {
  if (leaf === 0x4000_0000) return KVM_SIGNATURE;
  if (leaf === 0x4000_0001) return [0, 0, 0, 0];
  const rows = model.rows(vcpus, apicId).filter((row) => row.leaf === leaf);
  const row = rows.find((each) => each.subleaf === subleaf) ?? (rows.length === 1 ? rows[0] : undefined);
  if (!row) return [0, 0, 0, 0];
  return row.values;
}
