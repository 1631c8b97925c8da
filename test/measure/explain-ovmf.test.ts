/** Mistakes planted in launches of OVMF guests. */
import { describe, expect, it } from 'vitest';
import { nodeCrypto } from '../../src/base/node.ts';
import { explainOvmf, measureOvmf, traceFromJson, traceToJson } from '../../src/measure/index.ts';
import type { CauseCategory, ExplainOvmfOptions, OvmfLaunch, VmmType } from '../../src/measure/index.ts';
import { Random } from '../igvm/random.ts';
import { ovmfImage } from './ovmf-image.ts';

const TYPES = ['EPYC-v4', 'EPYC-Rome', 'EPYC-Milan', 'EPYC-Genoa', 'EPYC-Turin'];

function launchOf(random: Random): OvmfLaunch {
  const noise = random.bytes(1 << 16);
  const ovmf = ovmfImage({
    size: 1 << 16,
    fill: (index) => noise[index]!,
    hashTableGpa: 0x81_0c00,
    resetEip: 0x80_b004,
    sections: [
      [0x80_0000, 0x3000, 1],
      [0x80_d000, 0x1000, 2],
      [0x80_e000, 0x1000, 3],
      [0x81_0000, 0x1000, 0x10],
    ],
  });
  return {
    mode: 'snp',
    ovmf,
    vcpus: 1 + random.below(8),
    vcpuType: random.pick(TYPES),
    kernel: random.bytes(100),
    initrd: random.bytes(100),
    append: 'console=ttyS0 root=/dev/vda',
  };
}

interface Mistake {
  readonly cause: CauseCategory;
  /** What the machine did with the launch the user believes in. */
  readonly actual: (launch: OvmfLaunch, random: Random) => OvmfLaunch;
  readonly options?: (actual: OvmfLaunch) => Partial<ExplainOvmfOptions>;
}

const another = <T>(random: Random, list: readonly T[], not: T): T =>
  random.pick(list.filter((one) => one !== not));
const otherBuild = (launch: OvmfLaunch, random: Random): OvmfLaunch => ({
  ...launch,
  ovmf: launchOf(random).ovmf,
});
const traceOf = (launch: OvmfLaunch): ExplainOvmfOptions['reference'] =>
  traceFromJson({ steps: traceToJson(measureOvmf(launch, nodeCrypto).steps!) });

const MISTAKES: Record<string, Mistake> = {
  'wrong vCPU count': {
    cause: 'vcpu-count',
    actual: (launch, random) => ({ ...launch, vcpus: launch.vcpus! + 1 + random.below(60) }),
  },
  'too many vCPUs': {
    cause: 'vcpu-count',
    actual: (launch, random) => ({ ...launch, vcpus: random.below(launch.vcpus!) }),
  },
  'wrong vCPU model': {
    cause: 'cpu-signature',
    actual: (launch, random) => ({ ...launch, vcpuType: another(random, TYPES, launch.vcpuType!) }),
  },
  DebugSwap: { cause: 'sev-features', actual: (launch) => ({ ...launch, guestFeatures: 0x21n }) },
  'a missing kernel hash': {
    cause: 'kernel-hashes',
    actual: ({ kernel: _, initrd: __, append: ___, ...launch }) => launch,
  },
  'no initrd': { cause: 'kernel-hashes', actual: ({ initrd: _, ...launch }) => launch },
  'a newline in the command line': {
    cause: 'kernel-hashes',
    actual: (launch) => ({ ...launch, append: `${launch.append}\n` }),
  },
  'another VMM': {
    cause: 'vmm-type',
    actual: (launch, random) => ({ ...launch, vmmType: random.pick<VmmType>(['ec2', 'gce']) }),
  },
  'OVMF from another build, which is given as a candidate': {
    cause: 'ovmf-build',
    actual: otherBuild,
    options: ({ ovmf }) => ({ candidates: [{ name: 'other/OVMF.fd', bytes: ovmf }] }),
  },
  'OVMF from another build, by its trace': {
    cause: 'ovmf-build',
    actual: otherBuild,
    options: (actual) => ({ reference: traceOf(actual) }),
  },
};

const IMAGES = Number(process.env['CVM_EXPLAIN_IMAGES'] ?? 3);

describe('planted mistakes', () => {
  for (const [title, { cause, actual, options }] of Object.entries(MISTAKES))
    it(title, () => {
      for (let seed = 0; seed < IMAGES; seed++) {
        const random = new Random(seed * 7919 + title.length);
        const launch = launchOf(random);
        const happened = actual(launch, random);
        const { digest } = measureOvmf(happened, nodeCrypto);
        const explained = explainOvmf(
          launch,
          { expected: digest, effort: 300_000, ...options?.(happened) },
          nodeCrypto,
        );
        expect(explained.matches).toBe(false);
        expect(explained.causes[0]?.categories, `seed ${seed}: ${explained.causes[0]?.sentence}`).toEqual([
          cause,
        ]);
      }
    });

  it('another count and model together', () => {
    const launch = { ...launchOf(new Random(5)), vcpus: 1 };
    const { digest } = measureOvmf({ ...launch, vcpus: 7, guestFeatures: 0x21n }, nodeCrypto);
    const { causes } = explainOvmf(launch, { expected: digest }, nodeCrypto);
    expect(new Set(causes[0]!.categories)).toEqual(new Set(['vcpu-count', 'sev-features']));
    expect(causes[0]!.sentence).toContain('7 vCPUs instead of 1');
  });

  it('nothing wrong: no cause; another build without it: no cause, and what is needed', () => {
    for (let seed = 0; seed < IMAGES; seed++) {
      const random = new Random(seed);
      const launch = launchOf(random);
      const { digest } = measureOvmf(launch, nodeCrypto);
      expect(explainOvmf(launch, { expected: digest }, nodeCrypto)).toMatchObject({
        matches: true,
        causes: [],
      });
      const other = measureOvmf(otherBuild(launch, random), nodeCrypto).digest;
      const lost = explainOvmf(launch, { expected: other, effort: 20_000 }, nodeCrypto);
      expect(lost.causes).toEqual([]);
      expect(lost.notes.join()).toContain('name the other files as candidates');
    }
  });

  it('SEV and SEV-ES: whole launches', () => {
    const launch: OvmfLaunch = { ...launchOf(new Random(1)), mode: 'seves', vcpus: 2 };
    const { digest } = measureOvmf({ ...launch, vcpus: 5 }, nodeCrypto);
    const { causes } = explainOvmf(launch, { expected: digest }, nodeCrypto);
    expect(causes[0]!.sentence).toContain('5 vCPUs instead of 2');
  });
});
