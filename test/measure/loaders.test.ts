/** Where loaders and tools diverge (docs/measurement.md has the same list): each exception, by hand. */
import { describe, expect, it } from 'vitest';
import { CvmError, bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, PROFILES, parseIgvm } from '../../src/igvm/index.ts';
import type { PlatformType, ProfileName } from '../../src/igvm/index.ts';
import { RESET_EIP, initialVmsa, measureIgvm, measurementSteps } from '../../src/measure/index.ts';
import type { MeasureOptions } from '../../src/measure/index.ts';
import { writeVmsa } from '../../src/snp/index.ts';
import { TYPE, page, sha256, sha384, slowLaunchDigest, tdxAdd, tdxExtend } from './slow.ts';
import type { SlowPage } from './slow.ts';

const SNP = 1;
const ES = 2;
const SEV = 4;
const NATIVE = 8;
const TDX = 16;
const VSM = 32;
const KVM_GPA = 0xffff_ffff_f000n;

const image = (): IgvmBuilder =>
  new IgvmBuilder()
    .platform('SEV_SNP', SNP)
    .platform('SEV_ES', ES)
    .platform('SEV', SEV)
    .platform('NATIVE', NATIVE)
    .platform('TDX', TDX)
    .platform('VSM_ISOLATION', VSM)
    .guestPolicy(0x30000n, SNP);

const measure = (
  builder: IgvmBuilder,
  profile: ProfileName,
  platformType: PlatformType = 'SEV_SNP',
  options: MeasureOptions = {},
) =>
  measureIgvm(
    parseIgvm(builder.build()),
    { profile, platformType: platformType as 'SEV_SNP', ...options },
    nodeCrypto,
  );
const digest = (...args: Parameters<typeof measure>): string => bytesToHex(measure(...args).digest);
const code = (...args: Parameters<typeof measure>): string => {
  try {
    measure(...args);
  } catch (error) {
    if (error instanceof CvmError) return error.place.name ?? error.code;
    throw error;
  }
  return 'measured';
};
const SNP_PROFILES = Object.keys(PROFILES) as ProfileName[];

describe('an empty page', () => {
  const builder = image().page(0x1000n, SNP);
  const zero = ['igvmmeasure-native-zero', 'cloud-hypervisor-kvm'];
  it.each(SNP_PROFILES)('%s', (profile) => {
    const expected: SlowPage = zero.includes(profile)
      ? [TYPE.ZERO, 0x1000n]
      : [TYPE.NORMAL, 0x1000n, page(0)];
    expect(digest(builder, profile)).toBe(slowLaunchDigest([expected]));
  });
  it('that is unmeasured, or has data of zeros, is what it says', () => {
    for (const profile of SNP_PROFILES) {
      expect(digest(image().page(0x1000n, SNP, undefined, { unmeasured: true }), profile)).toBe(
        slowLaunchDigest([[TYPE.UNMEASURED, 0x1000n]]),
      );
      expect(digest(image().page(0x1000n, SNP, page(0)), profile)).toBe(
        slowLaunchDigest([[TYPE.NORMAL, 0x1000n, page(0)]]),
      );
    }
  });
});

describe('a parameter insert of three pages', () => {
  const builder = image().parameterArea(0, 0x3000n).parameterInsert(0x8000n, SNP, 0);
  const one = ['igvmmeasure', 'igvmmeasure-native-zero', 'cloud-hypervisor-mshv'];
  it.each(SNP_PROFILES)('%s', (profile) => {
    const pages: SlowPage[] = [0x8000n, 0x9000n, 0xa000n].map((gpa) => [TYPE.UNMEASURED, gpa]);
    expect(digest(builder, profile)).toBe(
      slowLaunchDigest(one.includes(profile) ? pages.slice(0, 1) : pages),
    );
  });
});

describe('order', () => {
  // Falling addresses, an insert behind a run, a VMSA in the middle.
  const builder = image()
    .parameterArea(0, 0x1000n)
    .page(0x5000n, SNP, page(5))
    .page(0x6000n, SNP, page(6))
    .parameterInsert(0x3000n, SNP, 0)
    .vpContext(KVM_GPA, SNP, page(9))
    .page(0x1000n, SNP, page(1));
  const five: SlowPage = [TYPE.NORMAL, 0x5000n, page(5)];
  const six: SlowPage = [TYPE.NORMAL, 0x6000n, page(6)];
  const insert: SlowPage = [TYPE.UNMEASURED, 0x3000n];
  const vmsa: SlowPage = [TYPE.VMSA, KVM_GPA, page(9)];
  const one: SlowPage = [TYPE.NORMAL, 0x1000n, page(1)];
  const file = [five, six, insert, vmsa, one];
  const expected: Record<ProfileName, SlowPage[]> = {
    'file-order': file,
    'hyper-v': file,
    igvmmeasure: file,
    'igvmmeasure-native-zero': file,
    'qemu-kvm': [insert, five, six, one, vmsa],
    'cloud-hypervisor-kvm': [five, six, insert, one, vmsa],
    'cloud-hypervisor-mshv': [one, insert, five, six, vmsa],
  };
  it.each(SNP_PROFILES)('%s', (profile) => {
    expect(digest(builder, profile)).toBe(slowLaunchDigest(expected[profile]));
  });
});

describe('a page with the shared flag', () => {
  const builder = image().page(0x1000n, SNP, page(1)).page(0x2000n, SNP, page(2), { shared: true });
  const skipped = ['file-order', 'hyper-v'];
  it.each(SNP_PROFILES)('%s', (profile) => {
    const both: SlowPage[] = [
      [TYPE.NORMAL, 0x1000n, page(1)],
      [TYPE.NORMAL, 0x2000n, page(2)],
    ];
    expect(digest(builder, profile)).toBe(
      slowLaunchDigest(skipped.includes(profile) ? both.slice(0, 1) : both),
    );
  });
});

describe("another platform's VMSA", () => {
  const builder = image().vpContext(KVM_GPA, ES, page(7)).vpContext(KVM_GPA, SNP, page(9));
  const taken = ['igvmmeasure', 'igvmmeasure-native-zero'];
  it.each(SNP_PROFILES)('%s', (profile) => {
    const both: SlowPage[] = [
      [TYPE.VMSA, KVM_GPA, page(7)],
      [TYPE.VMSA, KVM_GPA, page(9)],
    ];
    expect(digest(builder, profile)).toBe(slowLaunchDigest(taken.includes(profile) ? both : both.slice(1)));
  });
});

describe('a 2 MiB page', () => {
  const data = new Uint8Array(0x20_0000);
  for (let n = 0; n < 512; n++) data.fill(n & 0xff, n * 4096, (n + 1) * 4096);
  data.fill(0x77, 0, 4096);
  const gpa = (n: number): bigint => 0x20_0000n + BigInt(n) * 4096n;
  const large = (contents?: Uint8Array): IgvmBuilder =>
    image().add(
      'PAGE_DATA',
      { gpa: 0x20_0000n, compatibilityMask: SNP, flags: 1 },
      contents ? { data: contents } : {},
    );
  const pages = (contents: (n: number) => Uint8Array, type: number = TYPE.NORMAL): SlowPage[] =>
    Array.from({ length: 512 }, (_, n) =>
      type === TYPE.NORMAL ? [type, gpa(n), contents(n)] : [type, gpa(n)],
    );
  const all = pages((n) => data.subarray(n * 4096, (n + 1) * 4096));
  const first = pages((n) => (n === 0 ? page(0x77) : page(0)));

  it('with data', () => {
    expect(digest(large(data), 'file-order')).toBe(slowLaunchDigest(all));
    expect(digest(large(data), 'qemu-kvm')).toBe(slowLaunchDigest(first));
    for (const profile of ['hyper-v', 'cloud-hypervisor-kvm', 'cloud-hypervisor-mshv'] as const)
      expect(digest(large(data), profile)).toBe(slowLaunchDigest(all.slice(0, 1)));
    for (const profile of ['igvmmeasure', 'igvmmeasure-native-zero'] as const)
      expect(code(large(data), profile)).toBe('igvm-large-page');
  });

  it('without data', () => {
    const zeros = pages(() => page(0));
    for (const profile of ['file-order', 'qemu-kvm', 'igvmmeasure'] as const)
      expect(digest(large(), profile)).toBe(slowLaunchDigest(zeros));
    expect(digest(large(), 'igvmmeasure-native-zero')).toBe(
      slowLaunchDigest(pages(() => page(0), TYPE.ZERO)),
    );
    expect(digest(large(), 'hyper-v')).toBe(slowLaunchDigest(zeros.slice(0, 1)));
    expect(digest(large(), 'cloud-hypervisor-kvm')).toBe(slowLaunchDigest([[TYPE.ZERO, gpa(0)]]));
  });
});

describe('igvmmeasure --native-zero', () => {
  it('gives the digest of Cloud Hypervisor on KVM, and not that of QEMU', () => {
    const builder = image().page(0x1000n, SNP, page(1)).page(0x2000n, SNP).vpContext(KVM_GPA, SNP, page(9));
    const zero = digest(builder, 'igvmmeasure-native-zero');
    expect(zero).toBe(digest(builder, 'cloud-hypervisor-kvm'));
    expect(zero).not.toBe(digest(builder, 'qemu-kvm'));
    expect(digest(builder, 'igvmmeasure')).toBe(digest(builder, 'qemu-kvm'));
  });
});

describe('VMSAs on KVM', () => {
  const vmsa = new Uint8Array(4096);
  writeVmsa(vmsa, 'sev_features', 0x21n);
  const builder = image()
    .vpContext(KVM_GPA, SNP | 0, vmsa)
    .page(0x1000n, SNP, page(1));
  const reset = initialVmsa({ vmm: 'QEMU', eip: RESET_EIP, signature: 0x80_0f12, sevFeatures: 0x21n });
  const first: SlowPage[] = [
    [TYPE.NORMAL, 0x1000n, page(1)],
    [TYPE.VMSA, KVM_GPA, vmsa],
  ];

  it('are one for each vCPU; those the file lacks are the reset state with the features of the first', () => {
    const options = { vcpus: 3, cpuSignature: 0x80_0f12 };
    expect(digest(builder, 'qemu-kvm')).toBe(slowLaunchDigest(first));
    expect(digest(builder, 'qemu-kvm', 'SEV_SNP', { vcpus: 1 })).toBe(slowLaunchDigest(first));
    expect(digest(builder, 'qemu-kvm', 'SEV_SNP', options)).toBe(
      slowLaunchDigest([...first, [TYPE.VMSA, KVM_GPA, reset], [TYPE.VMSA, KVM_GPA, reset]]),
    );
    const { operations } = measure(builder, 'qemu-kvm', 'SEV_SNP', options);
    const contexts = operations.flatMap((operation) =>
      operation.kind === 'vp-context' ? [[operation.vpIndex, operation.reset ?? false]] : [],
    );
    expect(contexts).toEqual([
      [0, false],
      [1, true],
      [2, true],
    ]);
  });

  it('need the signature of the CPU, a vCPU for each context, and a loader that is known', () => {
    expect(code(builder, 'qemu-kvm', 'SEV_SNP', { vcpus: 2 })).toBe('measure-cpu-type');
    expect(code(builder, 'cloud-hypervisor-kvm', 'SEV_SNP', { vcpus: 2, cpuSignature: 1 })).toBe(
      'not-implemented',
    );
    expect(code(builder, 'cloud-hypervisor-kvm', 'SEV_SNP', { vcpus: 1 })).toBe('measured');
    const second = image().vpContext(KVM_GPA, SNP, vmsa, { vpIndex: 5 });
    expect(code(second, 'qemu-kvm', 'SEV_SNP', { vcpus: 2, cpuSignature: 1 })).toBe('igvm-vp-index');
    expect(code(builder, 'qemu-kvm', 'SEV_SNP', { vcpus: 0 })).toBe('measure-usage');
    expect(code(builder, 'qemu-kvm', 'SEV_SNP', { vcpus: 5000 })).toBe('measure-usage');
  });

  it('stand at 0xFFFFFFFFF000 whatever the file says; Hyper-V and MSHV take its address', () => {
    const moved = image().vpContext(0x7000n, SNP, page(9));
    for (const profile of SNP_PROFILES) {
      const kvm = profile === 'qemu-kvm' || profile === 'cloud-hypervisor-kvm';
      expect(digest(moved, profile), profile).toBe(
        slowLaunchDigest([[TYPE.VMSA, kvm ? KVM_GPA : 0x7000n, page(9)]]),
      );
    }
  });

  it('of other VPs than the first are pages of zeros on MSHV', () => {
    const two = image().vpContext(0x7000n, SNP, page(9)).vpContext(0x8000n, SNP, page(8), { vpIndex: 1 });
    expect(digest(two, 'cloud-hypervisor-mshv')).toBe(
      slowLaunchDigest([
        [TYPE.VMSA, 0x7000n, page(9)],
        [TYPE.VMSA, 0x8000n, page(0)],
      ]),
    );
  });
});

describe('SEV and SEV-ES', () => {
  const MASK = ES | SEV;
  const builder = image()
    .parameterArea(0, 0x1000n)
    .vpContext(KVM_GPA, ES, page(9))
    .page(0x1000n, MASK, page(1))
    .page(0x2000n, MASK)
    .page(0x3000n, MASK, page(3), { unmeasured: true })
    .parameterInsert(0x9000n, MASK, 0);

  it('hash 4096 zeros for an empty page under QEMU, nothing for unmeasured ones; SEV-ES adds its VMSAs', () => {
    const pages = [page(1), page(0)];
    expect(digest(builder, 'qemu-kvm', 'SEV')).toBe(sha256(...pages).toString('hex'));
    expect(digest(builder, 'qemu-kvm', 'SEV_ES')).toBe(sha256(...pages, page(9)).toString('hex'));
    const reset = initialVmsa({ vmm: 'QEMU', eip: RESET_EIP, signature: 0x80_0f12, sevFeatures: 0n });
    const es = image().page(0x1000n, ES, page(1));
    expect(digest(es, 'qemu-kvm', 'SEV_ES', { vcpus: 2, cpuSignature: 0x80_0f12 })).toBe(
      sha256(page(1), reset, reset).toString('hex'),
    );
  });

  it('hash nothing for an empty page and the data of unmeasured ones under igvmmeasure', () => {
    // It takes the VMSA on plain SEV, too.
    const pages = [page(9), page(1), page(3)];
    expect(digest(builder, 'igvmmeasure', 'SEV_ES')).toBe(sha256(...pages).toString('hex'));
    expect(digest(builder, 'igvmmeasure', 'SEV')).toBe(sha256(...pages).toString('hex'));
  });

  it('have no secrets and CPUID pages, and plain SEV no VP context, under QEMU', () => {
    for (const platform of ['SEV', 'SEV_ES'] as const)
      expect(code(image().page(0x1000n, MASK, page(1), { dataType: 'SECRETS' }), 'qemu-kvm', platform)).toBe(
        'igvm-page-type',
      );
    expect(code(image().vpContext(0n, SEV, page(1)), 'qemu-kvm', 'SEV')).toBe('igvm-context-platform');
  });
});

describe('MRTD', () => {
  const builder = image()
    .parameterArea(0, 0x1000n)
    .page(0x1000n, TDX, page(1))
    .page(0x2000n, TDX, page(2))
    .page(0x3000n, TDX, page(3), { unmeasured: true })
    .parameterInsert(0x4000n, TDX, 0)
    .page(0x8000n, TDX, page(8));
  const add = tdxAdd;
  const extend = (n: number): Buffer => tdxExtend(BigInt(n) << 12n, page(n));

  it('in one pass: each page is added, then extended', () => {
    const records = [
      add(0x1000n),
      extend(1),
      add(0x2000n),
      extend(2),
      add(0x3000n),
      add(0x4000n),
      add(0x8000n),
      extend(8),
    ];
    expect(digest(builder, 'file-order', 'TDX')).toBe(sha384(...records).toString('hex'));
  });

  it('in two passes: a region is added, then extended', () => {
    const records = [
      add(0x1000n),
      add(0x2000n),
      extend(1),
      extend(2),
      add(0x3000n),
      add(0x4000n),
      add(0x8000n),
      extend(8),
    ];
    expect(digest(builder, 'file-order', 'TDX', { tdxOrder: 'two-pass' })).toBe(
      sha384(...records).toString('hex'),
    );
  });

  it('of 2 MiB pages without data', () => {
    const many = new IgvmBuilder().platform('TDX', TDX);
    for (const n of [1n, 2n]) many.add('PAGE_DATA', { gpa: n << 21n, compatibilityMask: TDX, flags: 1 });
    const expected = Array.from({ length: 1024 }, (_, n) => {
      const gpa = 0x20_0000n + BigInt(n) * 4096n;
      return Buffer.concat([add(gpa), tdxExtend(gpa, page(0))]);
    });
    expect(digest(many, 'file-order', 'TDX')).toBe(sha384(...expected).toString('hex'));
  });
});

describe('platforms a loader does not launch', () => {
  it('are refused with its name', () => {
    const builder = image().page(0x1000n, TDX | VSM | SEV | SNP, page(1));
    expect(code(builder, 'qemu-kvm', 'TDX')).toBe('igvm-loader-platform');
    expect(code(builder, 'cloud-hypervisor-kvm', 'SEV')).toBe('igvm-loader-platform');
    expect(code(builder, 'hyper-v', 'SEV')).toBe('igvm-loader-platform');
    expect(code(builder, 'igvmmeasure', 'VSM_ISOLATION')).toBe('igvm-loader-platform');
    expect(code(builder, 'hyper-v', 'VSM_ISOLATION')).toBe('measured');
    expect(code(image().page(0n, SNP, page(1), { dataType: 'CPUID_XF' }), 'cloud-hypervisor-kvm')).toBe(
      'igvm-page-type',
    );
  });

  it('and headers it does not know are said', () => {
    const builder = image().parameterArea(0, 0x1000n).parameter('DEVICE_TREE', 0);
    const codes = measure(builder, 'cloud-hypervisor-kvm').diagnostics.map((finding) => finding.code);
    expect(codes).toContain('igvm-loader-unsupported');
  });
});

describe('the running digest of every platform', () => {
  it('ends with the digest', () => {
    const builder = image()
      .parameterArea(0, 0x1000n)
      .page(0x1000n, SNP | ES | SEV | TDX | VSM, page(1))
      .page(0x2000n, SNP | ES | SEV | TDX | VSM, undefined, { unmeasured: true })
      .page(0x3000n, SNP | ES | SEV | TDX | VSM)
      .vpContext(KVM_GPA, ES, page(9))
      .parameterInsert(0x4000n, SNP | ES | SEV | TDX | VSM, 0);
    for (const platform of ['SEV_SNP', 'SEV_ES', 'SEV', 'TDX', 'VSM_ISOLATION'] as const) {
      const measured = measure(builder, 'file-order', platform);
      const steps = [...measurementSteps(measured, nodeCrypto)];
      expect(steps.length, platform).toBeGreaterThanOrEqual(2);
      expect(bytesToHex(steps.at(-1)!.digest), platform).toBe(bytesToHex(measured.digest));
      const hash = platform === 'SEV_SNP' || platform === 'TDX' ? sha384 : sha256;
      const first = steps.find((step) => step.gpa === 0x1000n)!;
      expect(bytesToHex(first.contentsHash!), platform).toBe(hash(page(1)).toString('hex'));
      expect(steps.find((step) => step.gpa === 0x4000n)?.contentsHash).toBeUndefined();
    }
  });
});
