/** Mistakes planted at random in random images; what `explainDigest` says of them is counted. */
import { describe, expect, it } from 'vitest';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import type { IgvmFile } from '../../src/igvm/index.ts';
import {
  explainDigest,
  launchDigestTrace,
  measureIgvm,
  traceFromJson,
  traceToJson,
} from '../../src/measure/index.ts';
import type { CauseCategory, Explanation, MeasureOptions } from '../../src/measure/index.ts';
import { writeVmsa } from '../../src/snp/index.ts';
import { Random, randomFile } from '../igvm/random.ts';

/** What a guest image is made of, so that a mistake can be made in it. */
interface Recipe {
  policy: bigint;
  /** `null`: no data. */
  pages: { gpa: bigint; data: Uint8Array | null; unmeasured: boolean }[];
  special: boolean;
  vmsas: Uint8Array[];
}

const SIGNATURES = { 'EPYC-Milan': 0xa00f11, 'EPYC-Genoa': 0xa10f10, EPYC: 0x800f12 };

function recipe(random: Random): Recipe {
  let gpa = BigInt(random.below(0x1000)) << 12n;
  const pages = Array.from({ length: 4 + random.below(36) }, () => {
    gpa += 0x1000n * BigInt(random.chance(70) ? 1 : 1 + random.below(50));
    return {
      gpa,
      data: random.chance(25) ? null : random.bytes(4096),
      unmeasured: random.chance(10),
    };
  });
  pages[0]!.data = random.bytes(4096);
  pages[0]!.unmeasured = false;
  pages[1]!.data = null;
  pages[1]!.unmeasured = false;
  const vmsas = Array.from({ length: random.chance(80) ? 1 : 2 }, () => {
    const vmsa = new Uint8Array(4096);
    writeVmsa(vmsa, 'rip', BigInt(random.next()));
    writeVmsa(vmsa, 'efer', 0x1000n);
    writeVmsa(vmsa, 'cr0', 0x31n);
    writeVmsa(vmsa, 'rdx', BigInt(SIGNATURES['EPYC-Milan']));
    writeVmsa(vmsa, 'sev_features', 1n);
    return vmsa;
  });
  return { policy: 0x30000n, pages, special: random.chance(70), vmsas };
}

function build({ policy, pages, special, vmsas }: Recipe): IgvmFile {
  const builder = new IgvmBuilder({ version: 2 }).platform('SEV_SNP', 1).guestPolicy(policy, 1);
  builder.parameterArea(0, 0x2000n).parameter('VP_COUNT', 0);
  for (const { gpa, data, unmeasured } of pages) builder.page(gpa, 1, data ?? undefined, { unmeasured });
  if (special)
    builder
      .page(1n << 40n, 1, undefined, { dataType: 'SECRETS' })
      .page((1n << 40n) + 0x1000n, 1, undefined, { dataType: 'CPUID_DATA' });
  builder.parameterInsert(1n << 41n, 1, 0);
  vmsas.forEach((data, vpIndex) => builder.vpContext(0xffff_ffff_f000n, 1, data, { vpIndex }));
  return parseIgvm(builder.build());
}

interface Plant {
  /** What the machine did. */
  expected: Uint8Array;
  /** What the user has and asks. */
  image: IgvmFile;
  options?: MeasureOptions;
  /** The image (or its trace) that the machine had. */
  reference?: IgvmFile;
}

const QEMU: MeasureOptions = { profile: 'qemu-kvm' };
const digest = (file: IgvmFile, options: MeasureOptions): Uint8Array =>
  measureIgvm(file, options, nodeCrypto).digest;

const PLANTS: Record<string, { causes: CauseCategory[]; plant: (random: Random) => Plant }> = {
  'wrong vCPU count': {
    causes: ['vcpu-count'],
    plant(random) {
      const image = build(recipe(random));
      const cpuSignature = random.pick(Object.values(SIGNATURES));
      const vcpus = 3 + random.below(60);
      return { image, options: QEMU, expected: digest(image, { ...QEMU, vcpus, cpuSignature }) };
    },
  },
  'DebugSwap set by the kernel': {
    causes: ['sev-features'],
    plant(random) {
      const made = recipe(random);
      const image = build(made);
      for (const vmsa of made.vmsas) writeVmsa(vmsa, 'sev_features', 0x21n);
      return { image, options: QEMU, expected: digest(build(made), QEMU) };
    },
  },
  "another loader's zero pages": {
    causes: ['zero-pages', 'loader-profile'],
    plant(random) {
      const image = build(recipe(random));
      return { image, options: QEMU, expected: digest(image, { profile: 'cloud-hypervisor-kvm' }) };
    },
  },
  'another loader': {
    causes: ['loader-profile', 'page-order', 'parameter-pages'],
    plant(random) {
      const image = build(recipe(random));
      const profile = random.pick(['cloud-hypervisor-mshv', 'igvmmeasure', 'file-order'] as const);
      return { image, options: QEMU, expected: digest(image, { profile }) };
    },
  },
  'one flipped byte in one page': {
    causes: ['page-contents'],
    plant(random) {
      const made = recipe(random);
      const reference = build(made);
      const page = random.pick(made.pages.filter(({ data, unmeasured }) => data && !unmeasured));
      page.data = page.data!.slice();
      page.data[random.below(4096)]! ^= 1 << random.below(8);
      return { image: build(made), options: QEMU, reference, expected: digest(reference, QEMU) };
    },
  },
  'two pages swapped': {
    causes: ['pages-swapped', 'page-order'],
    plant(random) {
      const made = recipe(random);
      const image = build(made);
      const i = random.below(made.pages.length - 1);
      const j = i + 1 + random.below(made.pages.length - 1 - i);
      const [a, b] = [made.pages[i]!, made.pages[j]!];
      const { pages } = made;
      made.pages = pages.map((page) => (page === a ? b : page === b ? a : page));
      return { image, options: QEMU, expected: digest(build(made), QEMU) };
    },
  },
  'contents of two pages swapped': {
    causes: ['pages-swapped'],
    plant(random) {
      const made = recipe(random);
      const image = build(made);
      const full = made.pages.filter(({ data, unmeasured }) => data && !unmeasured);
      const a = full[0]!;
      const b = full.at(-1)!;
      if (a === b) return PLANTS['contents of two pages swapped']!.plant(random);
      [a.data, b.data] = [b.data, a.data];
      return { image, options: QEMU, expected: digest(build(made), QEMU) };
    },
  },
  'wrong vCPU model': {
    causes: ['cpu-signature'],
    plant(random) {
      const made = recipe(random);
      const image = build(made);
      for (const vmsa of made.vmsas) writeVmsa(vmsa, 'rdx', BigInt(SIGNATURES['EPYC-Genoa']));
      return { image, options: QEMU, expected: digest(build(made), QEMU) };
    },
  },
  'a directive missing': {
    causes: ['page-missing', 'parameter-pages', 'page-added', 'zero-pages'],
    plant(random) {
      const made = recipe(random);
      const image = build(made);
      made.pages.splice(random.below(made.pages.length), 1);
      return { image, options: QEMU, expected: digest(build(made), QEMU) };
    },
  },
  'DebugSwap and another vCPU count': {
    causes: ['sev-features', 'vcpu-count'],
    plant(random) {
      const made = recipe(random);
      const image = build(made);
      for (const vmsa of made.vmsas) writeVmsa(vmsa, 'sev_features', 0x21n);
      const vcpus = 3 + random.below(20);
      const cpuSignature = SIGNATURES['EPYC-Genoa'];
      return { image, options: QEMU, expected: digest(build(made), { ...QEMU, vcpus, cpuSignature }) };
    },
  },
};

/** Images of each plant. */
const IMAGES = Number(process.env['CVM_EXPLAIN_IMAGES'] ?? 4);

export interface Score {
  named: number;
  /** Named something that was not planted. */
  wrong: number;
  silent: number;
}

const ask = ({ image, expected, options, reference }: Plant, effort = 400_000): Explanation =>
  explainDigest(
    image,
    { ...options, expected, effort, ...(reference && { reference: { kind: 'image', file: reference } }) },
    nodeCrypto,
  );

const scores: Record<string, Score> = {};

describe('planted mistakes', () => {
  for (const [title, { causes, plant }] of Object.entries(PLANTS))
    it(title, () => {
      const score = (scores[title] = { named: 0, wrong: 0, silent: 0 });
      const missed: string[] = [];
      for (let seed = 0; seed < IMAGES; seed++) {
        const random = new Random(seed * 7919 + title.length);
        const one = plant(random);
        const explained = ask(one);
        const [cause] = explained.causes;
        if (explained.matches) throw new Error(`seed ${seed}: the plant changed nothing`);
        if (!cause) score.silent++;
        else if (cause.categories.every((category) => causes.includes(category))) score.named++;
        else score.wrong++;
        if (!cause || score.wrong > 0) missed.push(`seed ${seed}: ${cause?.sentence ?? 'silent'}`);
      }
      if (process.env['CVM_EXPLAIN_IMAGES']) console.log(title, JSON.stringify(score));
      expect(missed).toEqual([]);
    });

  it('a policy changed: the digest is the same, and the explanation says so', () => {
    for (let seed = 0; seed < IMAGES; seed++) {
      const made = recipe(new Random(seed));
      const reference = build(made);
      const image = build({ ...made, policy: 0xb0000n });
      const explained = ask({ image, reference, options: QEMU, expected: digest(reference, QEMU) });
      expect(explained.matches).toBe(true);
      expect(explained.causes).toEqual([]);
      expect(explained.notes.join()).toMatch(
        /policy is 0xb0000, the reference's is 0x30000.*does not change the digest/,
      );
    }
  });

  it('nothing wrong: no cause', () => {
    for (let seed = 0; seed < 4 * IMAGES; seed++) {
      const image = parseIgvm(randomFile(seed, { architecture: 'X64' }));
      const explained = ask({ image, options: { profile: 'file-order' }, expected: digest(image, {}) });
      expect(explained.matches).toBe(true);
      expect(explained.causes).toEqual([]);
    }
  });

  it('a digest of something else: no cause, and the reason why none can be named', () => {
    for (let seed = 0; seed < Math.min(IMAGES, 12); seed++) {
      const random = new Random(seed);
      const image = build(recipe(random));
      const explained = ask({ image, options: QEMU, expected: random.bytes(48) }, 30_000);
      expect(explained.causes).toEqual([]);
      expect(explained.notes.join()).toContain('give the image or the trace');
    }
  });

  it('a reference trace names the page as well as the reference image, without its bytes', () => {
    const { plant } = PLANTS['one flipped byte in one page']!;
    for (let seed = 0; seed < IMAGES; seed++) {
      const { image, reference, expected } = plant(new Random(seed));
      const { steps } = launchDigestTrace(reference!, QEMU, nodeCrypto);
      const entries = traceFromJson(JSON.parse(JSON.stringify({ trace: traceToJson(steps) })));
      const options = { ...QEMU, expected, effort: 100_000 };
      const byTrace = explainDigest(image, { ...options, reference: { kind: 'trace', entries } }, nodeCrypto);
      const byImage = explainDigest(
        image,
        { ...options, reference: { kind: 'image', file: reference! } },
        nodeCrypto,
      );
      expect(byTrace.causes[0]!.directive).toBe(byImage.causes[0]!.directive);
      expect(byImage.causes[0]!.sentence).toMatch(
        /byte 0x[0-9a-f]+ is 0x.., in the reference 0x.. \(the only byte/,
      );
    }
  });

  it('the digest of another platform of the same file', () => {
    const image = parseIgvm(randomFile(3, { architecture: 'X64' }));
    const expected = digest(image, { platformType: 'TDX' });
    const { causes } = explainDigest(image, { platformType: 'SEV_SNP', expected }, nodeCrypto);
    expect(causes[0]!.sentence).toContain('platform TDX (not SEV_SNP)');
  });
});
