import { describe, expect, it } from 'vitest';
import { CvmError } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import {
  IgvmBuilder,
  PROFILES,
  launchOperations,
  parseIgvm,
  platforms,
  requireComplete,
  writeIgvm,
} from '../../src/igvm/index.ts';
import type { ProfileName } from '../../src/igvm/index.ts';
import { MEASURED_PLATFORMS, launchDigestTrace, measureIgvm } from '../../src/measure/index.ts';
import { Random, randomFile } from './random.ts';
import { mutateBlindly, mutateByStructure } from './mutate.ts';

/** Runs `action`; what it may throw is a CvmError of one of `codes`. */
function door(codes: readonly string[], action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof CvmError) || !codes.includes(error.code)) throw error;
  }
}

const MEASURE_DOOR = ['igvm-no-platform', 'measure-no-platform', 'igvm-not-launchable'];

/** Everything a mutant goes through. Returns the longest list of operations. */
function exercise(bytes: Uint8Array): number {
  const file = parseIgvm(bytes);
  expect(file.headers.length).toBeLessThanOrEqual(bytes.length / 8);
  expect(file.diagnostics.length).toBeLessThanOrEqual(1001);
  for (const { offset, length, message } of file.diagnostics) {
    expect(message).not.toBe('');
    expect(offset).toBeGreaterThanOrEqual(0);
    expect(length).toBeGreaterThanOrEqual(0);
  }
  for (const header of file.headers) {
    expect(header.offset + header.length).toBeLessThanOrEqual(bytes.length);
    if (header.data) expect(header.data.fileOffset + header.data.length).toBeLessThanOrEqual(bytes.length);
  }
  let longest = 0;
  for (const platform of platforms(file).slice(0, 8))
    for (const profile of Object.keys(PROFILES) as ProfileName[]) {
      const plan = launchOperations(file, { ...platform, profile });
      longest = Math.max(longest, plan.operations.length);
      for (const operation of plan.operations)
        if (operation.kind === 'page' && operation.data && operation.data.length !== 4096)
          throw new Error(`a page of ${operation.data.length} bytes`);
      door(['igvm-not-launchable'], () => requireComplete(plan));
    }
  for (const platformType of MEASURED_PLATFORMS)
    door(MEASURE_DOOR, () => measureIgvm(file, { platformType }, nodeCrypto));
  door(MEASURE_DOOR, () => measureIgvm(file, { platformType: 'SEV', profile: 'igvmmeasure' }, nodeCrypto));
  const expanded = { profile: 'qemu-kvm', vcpus: 3, cpuSignature: 1 } as const;
  door(MEASURE_DOOR, () => measureIgvm(file, { ...expanded, platformType: 'SEV_SNP' }, nodeCrypto));
  door(MEASURE_DOOR, () => launchDigestTrace(file, { profile: 'qemu-kvm' }, nodeCrypto));
  door(['igvm-unwritable', 'igvm-too-large'], () => {
    const written = writeIgvm(file);
    expect(written.length).toBe(bytes.length);
  });
  return longest;
}

describe('damaged files', () => {
  const kinds = { blindly: mutateBlindly, 'by structure, checksum right': mutateByStructure };
  for (const [kind, mutate] of Object.entries(kinds))
    it(`1,200 mutants ${kind}: diagnosed or read, never thrown, bounded`, () => {
      const random = new Random(kind.length);
      let diagnosed = 0;
      for (let n = 0; n < 1200; n++) {
        const bytes = mutate(randomFile(n % 150), random);
        const begun = process.hrtime.bigint();
        try {
          exercise(bytes);
        } catch (error) {
          throw new Error(`mutant ${n}: ${String(error)}`, { cause: error });
        }
        expect(Number(process.hrtime.bigint() - begun) / 1e9, `mutant ${n} took too long`).toBeLessThan(10);
        if (parseIgvm(bytes).diagnostics.some(({ severity }) => severity === 'error')) diagnosed++;
      }
      expect(diagnosed).toBeGreaterThan(600);
    });

  it('files made to be expensive', () => {
    const random = new Random(5);
    // A megabyte of the smallest headers, of zeros, and of noise, behind a correct fixed header.
    for (const fill of ['zeros', 'noise'] as const) {
      const bytes = randomFile(1).slice(0, 24);
      const file = new Uint8Array(1 << 20);
      file.set(bytes);
      if (fill === 'noise') file.set(random.bytes(file.length - 24), 24);
      new DataView(file.buffer).setUint32(4, 1, true);
      new DataView(file.buffer).setUint32(8, 24, true);
      new DataView(file.buffer).setUint32(12, file.length - 24, true);
      exercise(file);
    }
  });

  it('headers that point at the same data again and again', () => {
    const many = (add: (builder: IgvmBuilder, n: number) => IgvmBuilder): Uint8Array => {
      const builder = new IgvmBuilder()
        .platform('SEV_SNP', 1)
        .platform('VSM_ISOLATION', 2)
        .platform('NATIVE', 4);
      for (let n = 0; n < 5000; n++) add(builder, n);
      // Something to point at: a VBS context that claims the rest of the file.
      const registers = new Uint8Array(1 << 20);
      registers.set([0xff, 0xff, 0xff, 0xff]);
      return builder.vpContext(0n, 2, registers, { unpadded: true }).build();
    };
    const fileOffset = 300_000;
    const begun = process.hrtime.bigint();
    for (const file of [
      many((b) => b.add('VP_CONTEXT', { compatibilityMask: 2, fileOffset })),
      many((b) => b.add('VP_CONTEXT', { compatibilityMask: 4, fileOffset })),
      many((b) => b.add('ERROR_RANGE', { compatibilityMask: 3, sizeBytes: 0x7fff_f000 })),
      many((b, n) => b.parameterArea(n, 1n << 25n).parameterInsert(0n, 3, n)),
      many((b) => b.add('RELOCATABLE_REGION', { compatibilityMask: 2, relocationAlignment: 4096n })),
      many((b) => b.add('SNP_ID_BLOCK', { compatibilityMask: 1 })),
    ])
      exercise(file);
    expect(Number(process.hrtime.bigint() - begun) / 1e9).toBeLessThan(40);
  });
});
