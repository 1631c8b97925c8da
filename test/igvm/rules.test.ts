/** Each rule of the format, broken once: the finding's severity, code and place. */
import { describe, expect, it } from 'vitest';
import type { Severity } from '../../src/base/index.ts';
import { IgvmBuilder, parseIgvm, specOf } from '../../src/igvm/index.ts';
import type { BuilderOptions, StructuredType } from '../../src/igvm/index.ts';
import { Random, fixCrc, vbsContext } from './random.ts';

const SNP = 1;
const VSM = 2;
const DATA = new Uint8Array(4096).fill(1);

const good = (options?: BuilderOptions): IgvmBuilder =>
  new IgvmBuilder(options).platform('SEV_SNP', SNP).platform('VSM_ISOLATION', VSM);
const arm = (): IgvmBuilder => new IgvmBuilder({ version: 2, architecture: 'AARCH64' }).platform('CCA', 1);

interface Rule {
  readonly title: string;
  readonly severity: Severity;
  readonly code: string;
  /** Type of the header at fault (the last one of it) and its field. */
  readonly at?: readonly [StructuredType, string];
  readonly build: (builder: IgvmBuilder) => IgvmBuilder;
  readonly from?: () => IgvmBuilder;
}

const rule = (
  severity: Severity,
  code: string,
  at: Rule['at'],
  build: Rule['build'],
  from?: Rule['from'],
  title = `${code} ${at?.join('.') ?? ''}`,
): Rule => ({ severity, code, at, build, from, title });

const empty = (): IgvmBuilder => new IgvmBuilder();
const context = (builder: IgvmBuilder): IgvmBuilder =>
  builder.vpContext(0n, VSM, vbsContext(new Random(1), 3), { unpadded: true });

const RULES: readonly Rule[] = [
  rule('error', 'igvm-no-platform', undefined, (b) => b, empty),
  rule('error', 'igvm-platform-mask', ['SUPPORTED_PLATFORM', 'compatibilityMask'], (b) =>
    b.platform('TDX', 12),
  ),
  rule('error', 'igvm-platform-mask', ['SUPPORTED_PLATFORM', 'compatibilityMask'], (b) =>
    b.platform('TDX', 0),
  ),
  rule('warning', 'igvm-platform-mask', ['SUPPORTED_PLATFORM', 'compatibilityMask'], (b) =>
    b.platform('TDX', SNP),
  ),
  rule('error', 'igvm-platform-vtl', ['SUPPORTED_PLATFORM', 'highestVtl'], (b) =>
    b.platform('TDX', 4, { highestVtl: 1 }),
  ),
  rule('error', 'igvm-platform-twice', ['SUPPORTED_PLATFORM', 'platformType'], (b) =>
    b.platform('SEV_SNP', 4),
  ),
  rule('error', 'igvm-platform-version', ['SUPPORTED_PLATFORM', 'platformVersion'], (b) =>
    b.platform('TDX', 4, { platformVersion: 2 }),
  ),
  rule('error', 'igvm-platform-type', ['SUPPORTED_PLATFORM', 'platformType'], (b) =>
    b.add('SUPPORTED_PLATFORM', { compatibilityMask: 4, platformType: 7, platformVersion: 1 }),
  ),
  rule('error', 'igvm-platform-boundary', ['SUPPORTED_PLATFORM', 'sharedGpaBoundary'], (b) =>
    b.platform('NATIVE', 4, { sharedGpaBoundary: 1n }),
  ),
  rule('error', 'igvm-platform-architecture', ['SUPPORTED_PLATFORM', 'platformType'], (b) =>
    b.platform('CCA', 4),
  ),
  rule(
    'error',
    'igvm-platform-architecture',
    ['SUPPORTED_PLATFORM', 'platformType'],
    (b) => b.platform('SEV_SNP', 4),
    arm,
  ),

  rule('error', 'igvm-reserved', ['GUEST_POLICY', 'reserved'], (b) =>
    b.add('GUEST_POLICY', { compatibilityMask: SNP, reserved: 1 }),
  ),
  rule('error', 'igvm-reserved', ['PAGE_DATA', 'reserved'], (b) =>
    b.add('PAGE_DATA', { compatibilityMask: SNP, reserved: 1 }),
  ),
  rule('error', 'igvm-reserved', ['REQUIRED_MEMORY', 'reserved'], (b) =>
    b.add('REQUIRED_MEMORY', { compatibilityMask: SNP, reserved: 1 }),
  ),
  rule('error', 'igvm-reserved', ['CORIM_DOCUMENT', 'reserved'], (b) =>
    b.add('CORIM_DOCUMENT', { compatibilityMask: SNP, reserved: 1 }),
  ),
  rule('warning', 'igvm-reserved', ['SNP_ID_BLOCK', 'reserved'], (b) =>
    b.add('SNP_ID_BLOCK', { compatibilityMask: SNP, reserved: Uint8Array.of(0, 1, 0) }),
  ),
  rule('warning', 'igvm-reserved', ['PAGE_DATA', 'flags'], (b) =>
    b.add('PAGE_DATA', { compatibilityMask: SNP, flags: 8 }),
  ),
  rule('hint', 'igvm-mask', ['PAGE_DATA', 'compatibilityMask'], (b) => b.page(0n, 0x10)),
  rule('hint', 'igvm-mask', ['PAGE_DATA', 'compatibilityMask'], (b) => b.page(0n, 0)),

  rule('error', 'igvm-alignment', ['RELOCATABLE_REGION', 'relocationAlignment'], (b) =>
    context(b).add('RELOCATABLE_REGION', { compatibilityMask: VSM, relocationRegionSize: 0x1000n }),
  ),
  rule('error', 'igvm-alignment', ['RELOCATABLE_REGION', 'minimumRelocationGpa'], (b) =>
    context(b).add('RELOCATABLE_REGION', {
      compatibilityMask: VSM,
      relocationAlignment: 0x2000n,
      relocationRegionSize: 0x1000n,
      minimumRelocationGpa: 0x1000n,
    }),
  ),
  rule('error', 'igvm-page-table-size', ['PAGE_TABLE_RELOCATION', 'usedSize'], (b) =>
    context(b).add('PAGE_TABLE_RELOCATION', { compatibilityMask: VSM, size: 0x1000n, usedSize: 0x2000n }),
  ),
  rule('error', 'igvm-page-table-twice', ['PAGE_TABLE_RELOCATION', 'compatibilityMask'], (b) =>
    context(b)
      .add('PAGE_TABLE_RELOCATION', { compatibilityMask: VSM, size: 0x1000n })
      .add('PAGE_TABLE_RELOCATION', { compatibilityMask: VSM, gpa: 0x9000n, size: 0x1000n }),
  ),
  rule('error', 'igvm-relocation-overlap', ['PAGE_TABLE_RELOCATION', 'gpa'], (b) =>
    context(b)
      .add('RELOCATABLE_REGION', {
        compatibilityMask: VSM,
        relocationAlignment: 0x1000n,
        relocationRegionSize: 0x3000n,
      })
      .add('PAGE_TABLE_RELOCATION', { compatibilityMask: VSM, gpa: 0x2000n, size: 0x1000n }),
  ),
  rule('error', 'igvm-relocation-context', ['PAGE_TABLE_RELOCATION', 'vpIndex'], (b) =>
    context(b).add('PAGE_TABLE_RELOCATION', { compatibilityMask: VSM, vtl: 2, size: 0x1000n }),
  ),
  rule('error', 'igvm-vtl', ['PAGE_TABLE_RELOCATION', 'vtl'], (b) =>
    context(b).add('PAGE_TABLE_RELOCATION', { compatibilityMask: VSM, vtl: 3, size: 0x1000n }),
  ),
  rule(
    'error',
    'igvm-cca-policy',
    ['CCA_POLICY', 'attributesRequiredOnes'],
    (b) =>
      b.add('CCA_POLICY', { compatibilityMask: 1, attributesRequiredOnes: 3n, attributesRequiredZeroes: 2n }),
    arm,
  ),
  rule(
    'error',
    'igvm-cca-policy',
    ['CCA_POLICY', 'compatibilityMask'],
    (b) => b.add('CCA_POLICY', { compatibilityMask: 2 }),
    arm,
  ),
  rule('error', 'igvm-header-architecture', ['CCA_POLICY', 'compatibilityMask'], (b) =>
    b.add('CCA_POLICY', { compatibilityMask: SNP }),
  ),
  rule('error', 'igvm-corim', ['CORIM_SIGNATURE', 'compatibilityMask'], (b) =>
    b.add('CORIM_SIGNATURE', { compatibilityMask: SNP }, { data: DATA }),
  ),
  rule('error', 'igvm-corim', ['CORIM_DOCUMENT', 'compatibilityMask'], (b) =>
    b
      .add('CORIM_DOCUMENT', { compatibilityMask: SNP }, { data: DATA })
      .add('CORIM_DOCUMENT', { compatibilityMask: SNP | VSM }, { data: DATA }),
  ),
  rule('error', 'igvm-version-string', undefined, (b) => b.versionString('a').versionString('b')),
  rule(
    'error',
    'igvm-version-string',
    undefined,
    (b) => b.raw(0x107, Uint8Array.of(0xff)),
    undefined,
    'not UTF-8',
  ),

  rule('error', 'igvm-alignment', ['PAGE_DATA', 'gpa'], (b) => b.page(0x800n, SNP)),
  rule('error', 'igvm-page-type', ['PAGE_DATA', 'dataType'], (b) =>
    b.add('PAGE_DATA', { compatibilityMask: SNP, dataType: 4 }),
  ),
  rule('error', 'igvm-data-range', ['PAGE_DATA', 'fileOffset'], (b) =>
    b.add('PAGE_DATA', { compatibilityMask: SNP, fileOffset: 0x1000_0000 }),
  ),
  rule('error', 'igvm-data-range', ['PAGE_DATA', 'fileOffset'], (b) =>
    b.add('PAGE_DATA', { compatibilityMask: SNP, fileOffset: 8 }),
  ),
  rule('warning', 'igvm-alignment', ['PAGE_DATA', 'gpa'], (b) =>
    b.add('PAGE_DATA', { gpa: 0x1000n, compatibilityMask: SNP, flags: 1 }),
  ),
  rule('warning', 'igvm-large-page', ['PAGE_DATA', 'flags'], (b) =>
    b.add('PAGE_DATA', { compatibilityMask: SNP, flags: 1 }, { data: DATA }),
  ),
  rule('warning', 'igvm-page-overlap', ['PAGE_DATA', 'gpa'], (b) =>
    b
      .page(0x1000n, SNP | VSM)
      .page(0x3000n, SNP)
      .page(0x1000n, VSM),
  ),
  rule('warning', 'igvm-page-overlap', ['PARAMETER_INSERT', 'gpa'], (b) =>
    b.page(0x2000n, SNP).parameterArea(0, 0x2000n).parameterInsert(0x1000n, SNP, 0),
  ),
  rule('error', 'igvm-alignment', ['PARAMETER_AREA', 'numberOfBytes'], (b) => b.parameterArea(0, 0x1001n)),
  rule('error', 'igvm-area-index', ['PARAMETER_AREA', 'parameterAreaIndex'], (b) =>
    b.parameterArea(5, 0x1000n).parameterArea(5, 0x1000n),
  ),
  rule('error', 'igvm-area-index', ['MADT', 'parameterAreaIndex'], (b) => b.parameter('MADT', 0)),
  rule('error', 'igvm-area-index', ['SLIT', 'parameterAreaIndex'], (b) =>
    b.parameterArea(0, 0x1000n).parameterInsert(0n, SNP, 0).parameter('SLIT', 0),
  ),
  rule('error', 'igvm-area-index', ['PARAMETER_INSERT', 'parameterAreaIndex'], (b) =>
    b.parameterArea(0, 0x1000n).parameterInsert(0n, SNP, 0).parameterInsert(0x1000n, VSM, 0),
  ),
  rule('warning', 'igvm-parameter-offset', ['VP_COUNT', 'byteOffset'], (b) =>
    b.parameterArea(0, 0x1000n).parameter('VP_COUNT', 0, 0xffd),
  ),
  rule('error', 'igvm-insert-in-page-tables', ['PARAMETER_INSERT', 'gpa'], (b) =>
    context(b)
      .add('PAGE_TABLE_RELOCATION', { compatibilityMask: VSM, gpa: 0x5000n, size: 0x2000n })
      .parameterArea(0, 0x1000n)
      .parameterInsert(0x6000n, VSM, 0),
  ),
  rule('error', 'igvm-context-platform', ['VP_CONTEXT', 'compatibilityMask'], (b) =>
    b.vpContext(0n, SNP | VSM, DATA),
  ),
  rule('error', 'igvm-context-platform', ['VP_CONTEXT', 'compatibilityMask'], (b) =>
    b.platform('TDX', 4).vpContext(0n, 4, DATA),
  ),
  rule('error', 'igvm-alignment', ['VP_CONTEXT', 'gpa'], (b) => b.vpContext(8n, SNP, DATA)),
  rule('error', 'igvm-data-range', ['VP_CONTEXT', 'fileOffset'], (b) =>
    b.add('VP_CONTEXT', { compatibilityMask: SNP }),
  ),
  rule('error', 'igvm-context-data', ['VP_CONTEXT', 'fileOffset'], (b) =>
    b.platform('NATIVE', 4).vpContext(0n, 4, DATA),
  ),
  rule('error', 'igvm-context-data', ['VP_CONTEXT', 'fileOffset'], (b) =>
    b.vpContext(0n, VSM, new Uint8Array(4), { unpadded: true }),
  ),
  rule(
    'error',
    'igvm-header-architecture',
    ['VP_CONTEXT', 'compatibilityMask'],
    (b) => b.platform('NATIVE', 2).vpContext(0n, 2, new Uint8Array(232)),
    arm,
  ),
  rule('error', 'igvm-alignment', ['ERROR_RANGE', 'gpa'], (b) =>
    b.add('ERROR_RANGE', { compatibilityMask: SNP, gpa: 1n }),
  ),
  rule('warning', 'igvm-alignment', ['ERROR_RANGE', 'sizeBytes'], (b) =>
    b.add('ERROR_RANGE', { compatibilityMask: SNP, sizeBytes: 1 }),
  ),
  rule('error', 'igvm-alignment', ['REQUIRED_MEMORY', 'numberOfBytes'], (b) =>
    b.requiredMemory(0n, SNP, 100),
  ),
  rule('error', 'igvm-unknown-header', undefined, (b) => b.raw(0x3a0, new Uint8Array(8))),
  rule(
    'info',
    'igvm-unknown-header',
    undefined,
    (b) => b.raw(0x8000_03a0, new Uint8Array(8)),
    undefined,
    'optional',
  ),
  rule('error', 'igvm-header-length', undefined, (b) => b.raw(0x302, new Uint8Array(16))),
  rule('error', 'igvm-type-range', undefined, (b) => b.raw(0x500, new Uint8Array(8))),
];

describe('the rules', () => {
  it('find nothing wrong with the files they are broken in', () => {
    for (const from of [good, arm]) {
      const { diagnostics } = parseIgvm(from().page(0x10_0000n, 1, DATA).build());
      expect(diagnostics).toEqual([]);
    }
  });

  for (const { title, severity, code, at, build, from } of RULES)
    it(`${severity}: ${title}`, () => {
      const file = parseIgvm(
        build((from ?? good)())
          .page(0x10_0000n, 1, DATA)
          .build(),
      );
      const found = file.diagnostics.filter(
        (diagnostic) => diagnostic.code === code && diagnostic.severity === severity,
      );
      expect(found.length, JSON.stringify(file.diagnostics)).toBeGreaterThan(0);
      if (!at) return;
      const [type, field] = at;
      const { offset, size } = specOf(type).structure.field(field);
      const places = file.headers
        .filter((header) => header.type === type)
        .map((header) => header.offset + 8 + offset);
      // The page that is added to every file is never the one at fault.
      expect(places).toContain(found[0]!.offset);
      expect(found[0]!.length).toBe(size);
    });

  const damaged = (change: (view: DataView, bytes: Uint8Array) => void): string[] => {
    const bytes = good({ version: 2 }).page(0n, SNP, DATA).build();
    change(new DataView(bytes.buffer), bytes);
    return parseIgvm(fixCrc(bytes)).diagnostics.map(({ code }) => code);
  };

  it('of the fixed header', () => {
    expect(damaged((view) => view.setUint32(0, 0, true))).toContain('igvm-bad-magic');
    expect(damaged((view) => view.setUint32(4, 3, true))).toContain('igvm-version');
    expect(damaged((view) => view.setUint32(8, 16, true))).toContain('igvm-header-offset');
    expect(damaged((view) => view.setUint32(8, 36, true))).toContain('igvm-header-offset');
    expect(damaged((view) => view.setUint32(12, 1 << 20, true))).toContain('igvm-header-size');
    expect(damaged((view) => view.setUint32(16, 1, true))).toEqual(['igvm-file-size']);
    expect(damaged((view) => view.setUint32(24, 2, true))).toEqual(['igvm-architecture']);
    expect(damaged((view) => view.setUint32(28, 8192, true))).toEqual(['igvm-page-size']);
    const bytes = good().page(0n, SNP, DATA).build();
    bytes[30] ^= 1;
    expect(parseIgvm(bytes).diagnostics.map(({ code }) => code)).toContain('igvm-checksum');
    expect(parseIgvm(good().build()).diagnostics.map(({ code }) => code)).toEqual(['igvm-no-data']);
  });

  it('of the order of sections', () => {
    const bytes = good().page(0n, SNP, DATA).build();
    // Exchange the second platform (24 bytes at 48) and the page (32 bytes at 72).
    const platform = bytes.slice(48, 72);
    bytes.copyWithin(48, 72, 104);
    bytes.set(platform, 80);
    expect(parseIgvm(fixCrc(bytes)).diagnostics).toMatchObject([
      { severity: 'error', code: 'igvm-section-order', offset: 80 },
    ]);
  });
});
