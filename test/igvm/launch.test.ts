import { describe, expect, it } from 'vitest';
import { CvmError } from '../../src/base/index.ts';
import {
  IgvmBuilder,
  choosePlatform,
  launchOperations,
  parseIgvm,
  requireComplete,
} from '../../src/igvm/index.ts';
import type { LaunchOperation, ProfileName } from '../../src/igvm/index.ts';

const SNP = 1;
const NATIVE = 2;
const page = (fill: number): Uint8Array => new Uint8Array(4096).fill(fill);

function plan(builder: IgvmBuilder, profile: ProfileName = 'file-order') {
  const file = parseIgvm(builder.build());
  return launchOperations(file, { ...choosePlatform(file), profile });
}

/** An operation in a word: what reaches the guest, and where. */
function word(operation: LaunchOperation): string {
  switch (operation.kind) {
    case 'page':
      return `${operation.pageType} ${operation.gpa.toString(16)}${operation.data ? `=${operation.data[0]}` : ''}${operation.shared ? ' shared' : ''}`;
    case 'parameter-page':
      return `area${operation.area}+${operation.offset.toString(16)} ${operation.gpa.toString(16)}`;
    case 'vp-context':
      return `vp${operation.vpIndex} ${operation.format} ${operation.gpa.toString(16)}`;
    default:
      return operation.kind;
  }
}
const words = (builder: IgvmBuilder, profile?: ProfileName): string[] =>
  plan(builder, profile).operations.map(word);

const snp = (): IgvmBuilder => new IgvmBuilder().platform('SEV_SNP', SNP).platform('NATIVE', NATIVE);

describe('file order', () => {
  it('lists what applies to the platform, in file order', () => {
    const builder = snp()
      .guestPolicy(0x30000n, SNP)
      .page(0x1000n, SNP, page(1))
      .page(0x1000n, NATIVE, page(2))
      .vpContext(0xffff_ffff_f000n, SNP, page(3), { vpIndex: 1 })
      .page(0x2000n, SNP | NATIVE, undefined, { unmeasured: true })
      .page(0x3000n, SNP, page(4), { dataType: 'SECRETS', unmeasured: true })
      .page(0x4000n, SNP, page(5), { dataType: 'CPUID_DATA' })
      .page(0x5000n, SNP, page(6), { shared: true })
      .requiredMemory(0x10_0000n, SNP, 0x2000)
      .parameterArea(7, 0x2000n)
      .parameter('VP_COUNT', 7, 8)
      .parameterInsert(0x9000n, SNP, 7);
    expect(words(builder)).toEqual([
      'policy',
      'normal 1000=1',
      'vp1 snp-vmsa fffffffff000',
      'unmeasured 2000',
      'secrets 3000=4',
      'cpuid 4000=5',
      'normal 5000=6 shared',
      'required-memory',
      'parameter-area',
      'parameter',
      'area7+0 9000',
      'area7+1000 a000',
    ]);
  });

  it('expands 2 MiB pages into 512, with and without data', () => {
    const data = new Uint8Array(0x20_0000);
    data.fill(9, 0x1ff000);
    const builder = snp()
      .add('PAGE_DATA', { gpa: 0x20_0000n, compatibilityMask: SNP, flags: 1 }, { data })
      .add('PAGE_DATA', { gpa: 0x40_0000n, compatibilityMask: SNP, flags: 1 });
    const list = words(builder);
    expect(list.length).toBe(1024);
    expect(list[511]).toBe('normal 3ff000=9');
    expect(list[512]).toBe('normal 400000');
    expect(list[1023]).toBe('normal 5ff000');
    // QEMU has the first 4 KiB from the igvm library, and zeros.
    const qemu = words(builder, 'qemu-kvm');
    expect(qemu[0]).toBe('normal 200000=0');
    expect(qemu[511]).toBe('normal 3ff000');
  });
});

describe('QEMU', () => {
  it('inserts a parameter area before the page run it follows', () => {
    const builder = snp()
      .parameterArea(0, 0x1000n)
      .parameterArea(1, 0x1000n)
      .page(0x1000n, SNP, page(1))
      .page(0x2000n, SNP, page(2))
      .parameterInsert(0x8000n, SNP, 0)
      // Next address, same kind, but not the next directive: a run of its own.
      .page(0x3000n, SNP, page(3))
      .page(0x9000n, SNP, page(4))
      .parameterInsert(0xa000n, SNP, 1);
    expect(words(builder, 'qemu-kvm').slice(2)).toEqual([
      'area0+0 8000',
      'normal 1000=1',
      'normal 2000=2',
      'normal 3000=3',
      'area1+0 a000',
      'normal 9000=4',
    ]);
    expect(words(builder).slice(2)).toEqual([
      'normal 1000=1',
      'normal 2000=2',
      'area0+0 8000',
      'normal 3000=3',
      'normal 9000=4',
      'area1+0 a000',
    ]);
  });

  it('puts VMSAs last, one for each vCPU, at the address KVM gives them', () => {
    const builder = snp()
      .vpContext(0x5000n, SNP, page(1), { vpIndex: 1 })
      .vpContext(0xffff_ffff_f000n, SNP, page(2))
      .vpContext(0xffff_ffff_f000n, SNP, page(3))
      .page(0x1000n, SNP, page(4));
    const { operations, diagnostics } = plan(builder, 'qemu-kvm');
    expect(operations.map(word)).toEqual([
      'normal 1000=4',
      'vp0 snp-vmsa fffffffff000',
      'vp1 snp-vmsa fffffffff000',
    ]);
    const first = operations[1]!;
    expect(first.kind === 'vp-context' && first.data[0]).toBe(3);
    expect(diagnostics.map(({ code }) => code)).toEqual(['igvm-qemu-vmsa']);
  });

  it('refuses a second ID block', () => {
    const builder = snp()
      .add('SNP_ID_BLOCK', { compatibilityMask: SNP })
      .add('SNP_ID_BLOCK', { compatibilityMask: SNP });
    expect(plan(builder, 'qemu-kvm').diagnostics.map(({ code }) => code)).toEqual(['igvm-id-block-twice']);
    expect(words(builder)).toEqual(['id-block', 'id-block']);
  });

  it('warns of headers that QEMU does not know', () => {
    const builder = snp()
      .parameterArea(0, 0x1000n)
      .parameter('DEVICE_TREE', 0)
      .parameterInsert(0x1000n, SNP, 0);
    expect(plan(builder, 'qemu-kvm').diagnostics.map(({ code }) => code)).toEqual(['igvm-qemu-unsupported']);
    expect(plan(builder).diagnostics).toEqual([]);
  });
});

describe('choosing a platform', () => {
  it('takes the strongest that QEMU supports, or the one asked for', () => {
    const file = parseIgvm(
      new IgvmBuilder()
        .platform('NATIVE', 1)
        .platform('TDX', 2)
        .platform('SEV', 4)
        .platform('SEV_ES', 8)
        .build(),
    );
    expect(choosePlatform(file).platformType).toBe('SEV_ES');
    expect(choosePlatform(file, 'TDX').compatibilityMask).toBe(2);
    expect(() => choosePlatform(file, 'SEV_SNP')).toThrow(/compatible supported platform/);
    const tdx = parseIgvm(new IgvmBuilder().platform('TDX', 2).build());
    expect(() => choosePlatform(tdx)).toThrow(CvmError);
  });
});

describe('files that cannot be launched', () => {
  const refused = (builder: IgvmBuilder): string => {
    const { code, place } = capture(() => requireComplete(plan(builder)));
    expect(code).toBe('igvm-not-launchable');
    return place.name!;
  };
  const capture = (action: () => unknown): CvmError => {
    try {
      action();
    } catch (error) {
      if (error instanceof CvmError) return error;
    }
    throw new Error('nothing was refused');
  };

  it('is said with the finding, never by a shorter list alone', () => {
    expect(refused(snp().page(0x1234n, SNP))).toBe('igvm-alignment');
    expect(refused(snp().add('PAGE_DATA', { gpa: 0n, compatibilityMask: SNP, fileOffset: 1 << 30 }))).toBe(
      'igvm-data-range',
    );
    expect(refused(snp().add('VP_CONTEXT', { gpa: 0n, compatibilityMask: SNP }))).toBe('igvm-data-range');
    expect(refused(snp().parameterInsert(0n, SNP, 3))).toBe('igvm-area-index');
    expect(refused(snp().parameter('MADT', 3))).toBe('igvm-area-index');
    expect(refused(snp().raw(0x3f0, new Uint8Array(8)))).toBe('igvm-unknown-header');
    expect(refused(snp().parameterArea(0, 1n << 40n))).toBe('igvm-area-size');
    expect(refused(snp().add('PAGE_DATA', { compatibilityMask: SNP, dataType: 9 }))).toBe('igvm-page-type');
  });

  it('more than 8 GiB of pages', () => {
    const builder = snp();
    for (let n = 0; n < 4097; n++)
      builder.add('PAGE_DATA', { gpa: BigInt(n) << 21n, compatibilityMask: SNP, flags: 1 });
    expect(refused(builder)).toBe('igvm-too-many-pages');
  });
});
