/** Random IGVM files for property, fuzz and peer tests: the same file for the same seed. */
import { IgvmBuilder, PARAMETER_TYPES } from '../../src/igvm/index.ts';
import type { Architecture } from '../../src/igvm/index.ts';

/** mulberry32: small, deterministic, good enough to vary a test. */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  next(): number {
    this.state = (this.state + 0x6d2b79f5) >>> 0;
    let t = this.state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  below(limit: number): number {
    return this.next() % limit;
  }

  chance(percent: number): boolean {
    return this.below(100) < percent;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  u64(): bigint {
    return (BigInt(this.next()) << 32n) | BigInt(this.next());
  }

  bytes(size: number): Uint8Array {
    const out = new Uint8Array(size);
    for (let i = 0; i < size; i++) out[i] = this.next();
    return out;
  }
}

/** CRC-32 bit by bit, so that tests do not check the table against itself. */
export function slowCrc32(...chunks: Uint8Array[]): number {
  let crc = 0xffffffff;
  for (const chunk of chunks)
    for (const byte of chunk) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
    }
  return ~crc >>> 0;
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Puts the right checksum into a file whose fixed header is whole. */
export function fixCrc(bytes: Uint8Array): Uint8Array {
  const data = view(bytes);
  const size = data.getUint32(4, true) >= 2 ? 32 : 24;
  if (bytes.length < size) return bytes;
  const start = data.getUint32(8, true);
  data.setUint32(20, 0, true);
  const end = Math.min(start + data.getUint32(12, true), bytes.length);
  const headers = start <= end ? bytes.subarray(start, end) : new Uint8Array();
  data.setUint32(20, slowCrc32(bytes.subarray(0, size), headers), true);
  return bytes;
}

/** Puts `gap` (a multiple of 8 bytes) between the fixed and the variable headers, and `tail` after the data. */
export function withGaps(bytes: Uint8Array, gap: Uint8Array, tail: Uint8Array): Uint8Array {
  const start = view(bytes).getUint32(8, true);
  const out = new Uint8Array(bytes.length + gap.length + tail.length);
  out.set(bytes.subarray(0, start));
  out.set(gap, start);
  out.set(bytes.subarray(start), start + gap.length);
  out.set(tail, bytes.length + gap.length);
  view(out).setUint32(8, start + gap.length, true);
  view(out).setUint32(16, out.length, true);
  return fixCrc(out);
}

export const MASKS = { NATIVE: 1, VSM: 2, SNP: 4, TDX: 8, SEV: 16, SEV_ES: 32, CCA: 1 } as const;

/** A VBS context of some registers, as it stands in file data. */
export function vbsContext(random: Random, count: number, architecture: Architecture = 'X64'): Uint8Array {
  const data = new Uint8Array(4 + 32 * count);
  view(data).setUint32(0, count, true);
  // Hyper-V register names the igvm crate knows: RIP, CR3, PAT, RSP; PC, X0, TTBR0_EL1, CPSR.
  const names =
    architecture === 'X64'
      ? [0x00020010, 0x00040002, 0x00080004, 0x00020004]
      : [0x00020022, 0x00020000, 0x00040005, 0x00020023];
  for (let i = 0; i < count; i++) {
    const at = 4 + 32 * i;
    view(data).setUint32(at + 1, names[i % names.length]!, true);
    view(data).setBigUint64(at + 16, random.u64(), true);
  }
  return data;
}

export interface RandomFileOptions {
  /** Unknown, ignorable and VERSION_STRING headers too, which the igvm crate refuses. Default true. */
  readonly exotic?: boolean;
  readonly architecture?: Architecture;
}

/** A valid file with headers of all types, in random number and order. */
export function randomFile(seed: number, options: RandomFileOptions = {}): Uint8Array {
  const random = new Random(seed);
  const exotic = options.exotic ?? true;
  const architecture = options.architecture ?? (random.chance(20) ? 'AARCH64' : 'X64');
  const version = architecture === 'AARCH64' || random.chance(50) ? 2 : 1;
  const builder = new IgvmBuilder({ version, architecture });
  return (architecture === 'X64' ? x64File : armFile)(builder, random, exotic).build();
}

function armFile(builder: IgvmBuilder, random: Random, exotic: boolean): IgvmBuilder {
  builder.platform('CCA', MASKS.CCA).platform('VSM_ISOLATION', MASKS.VSM);
  const ones = random.u64();
  builder.add('CCA_POLICY', {
    compatibilityMask: MASKS.CCA,
    attributesRequiredOnes: ones,
    attributesRequiredZeroes: ~ones & random.u64() & 0xffff_ffff_ffff_ffffn,
    hashAlgorithm: random.below(3),
    lfaPolicy: random.below(2),
  });
  directives(builder, random, exotic, MASKS.CCA | MASKS.VSM);
  builder.vpContext(0n, MASKS.CCA, random.bytes(80));
  builder.vpContext(0n, MASKS.VSM, vbsContext(random, 1 + random.below(4), 'AARCH64'), { unpadded: true });
  return builder;
}

function x64File(builder: IgvmBuilder, random: Random, exotic: boolean): IgvmBuilder {
  const { NATIVE, VSM, SNP, TDX, SEV, SEV_ES } = MASKS;
  builder
    .platform('NATIVE', NATIVE)
    .platform('VSM_ISOLATION', VSM)
    .platform('SEV_SNP', SNP, { sharedGpaBoundary: random.u64() })
    .platform('TDX', TDX, { highestVtl: 2 })
    .platform('SEV', SEV)
    .platform('SEV_ES', SEV_ES);
  builder.guestPolicy(random.u64(), SNP | TDX);
  if (random.chance(40)) {
    builder.add('CORIM_DOCUMENT', { compatibilityMask: SNP }, { data: random.bytes(1 + random.below(200)) });
    builder.add('CORIM_SIGNATURE', { compatibilityMask: SNP }, { data: random.bytes(1 + random.below(200)) });
  }
  if (random.chance(30)) {
    const gpa = BigInt(0x100 + random.below(0x1000)) << 16n;
    builder.add('RELOCATABLE_REGION', {
      compatibilityMask: VSM,
      flags: random.below(8),
      relocationAlignment: 0x10000n,
      relocationRegionGpa: gpa,
      relocationRegionSize: 0x1000n * BigInt(1 + random.below(50)),
      minimumRelocationGpa: 0n,
      maximumRelocationGpa: 0x1_0000_0000n,
    });
    builder.add('PAGE_TABLE_RELOCATION', {
      compatibilityMask: VSM,
      gpa: gpa + 0x10_0000n,
      size: 0x8000n,
      usedSize: 0x1000n * BigInt(random.below(9)),
    });
  }
  directives(builder, random, exotic, 63);
  for (let vp = random.below(3); vp > 0; vp--)
    builder.vpContext(0xffff_ffff_f000n, random.chance(70) ? SNP : SEV_ES, random.bytes(1648), {
      vpIndex: vp,
    });
  builder.vpContext(0n, VSM, vbsContext(random, 1 + random.below(6)), { unpadded: true });
  const native = random.bytes(232);
  native.fill(0, 154, 158);
  builder.vpContext(0n, random.chance(50) ? NATIVE : SEV, native);
  return builder;
}

function directives(builder: IgvmBuilder, random: Random, exotic: boolean, allMasks: number): void {
  const open: number[] = [];
  let nextArea = random.below(3);
  if (exotic && random.chance(50)) builder.versionString('v1.2.3-é'.repeat(random.below(4)));
  for (let n = 2 + random.below(30); n > 0; n--) {
    const gpa = BigInt(random.below(1 << 20)) << 12n;
    const mask = 1 + random.below(allMasks);
    switch (random.below(exotic ? 12 : 10)) {
      case 0:
      case 1:
      case 2:
      case 3: {
        const special = (mask & MASKS.VSM) === 0 && random.chance(20);
        builder.page(gpa, mask, random.chance(25) ? undefined : random.bytes(4096), {
          dataType: special ? random.pick(['SECRETS', 'CPUID_DATA', 'CPUID_XF'] as const) : 'NORMAL',
          unmeasured: random.chance(20),
          shared: random.chance(10),
        });
        break;
      }
      case 4: {
        const pages = 1 + random.below(3);
        builder.parameterArea(
          nextArea,
          BigInt(pages * 4096),
          random.chance(50) ? random.bytes(pages * 4096) : undefined,
        );
        open.push(nextArea++);
        break;
      }
      case 5:
        if (open.length > 0)
          builder.parameterInsert(gpa + (1n << 40n), mask, open.splice(random.below(open.length), 1)[0]!);
        break;
      case 6:
        if (open.length > 0)
          builder.parameter(random.pick(PARAMETER_TYPES), random.pick(open), random.below(4000));
        break;
      case 7:
        builder.requiredMemory(gpa, mask, 4096 * random.below(1000), random.below(2));
        break;
      case 8:
        builder.add('ERROR_RANGE', { gpa, compatibilityMask: mask, sizeBytes: 4096 * (1 + random.below(4)) });
        break;
      case 9:
        if (random.chance(50))
          builder.add('SNP_ID_BLOCK', {
            compatibilityMask: mask,
            authorKeyEnabled: random.below(2),
            ld: random.bytes(48),
            guestSvn: random.next(),
            idKeyAlgorithm: 1,
            authorKeyAlgorithm: 1,
            idKeySignatureR: random.bytes(72),
            idPublicKeyCurve: 2,
            idPublicKeyQx: random.bytes(72),
            authorPublicKeyQy: random.bytes(72),
          });
        else
          builder.add('VBS_MEASUREMENT', {
            compatibilityMask: mask,
            productId: random.next(),
            bootMeasurementDigest: random.bytes(64),
            signature: random.bytes(256),
            publicKey: random.bytes(512),
          });
        break;
      case 10:
        builder.raw(0x80000000 + 0x320 + random.below(0x40), random.bytes(random.below(40)));
        break;
      case 11:
        builder.add('PAGE_DATA', { gpa, compatibilityMask: mask, flags: 2 }, { ignorable: true });
        break;
    }
  }
  builder.page(0xffff_f000n, allMasks, random.bytes(4096));
}
