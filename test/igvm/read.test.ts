import { describe, expect, it } from 'vitest';
import {
  IgvmBuilder,
  headerFields,
  makeHeader,
  parseIgvm,
  platforms,
  writeIgvm,
} from '../../src/igvm/index.ts';
import { slowCrc32 } from './random.ts';

/** A version 1 file laid out by hand from the tables of igvm_defs: one platform, one policy, one page. */
function handmade(): Uint8Array {
  const bytes = new Uint8Array(24 + 24 + 24 + 32 + 4096);
  const view = new DataView(bytes.buffer);
  const u32 = (at: number, ...values: number[]): void =>
    values.forEach((value, i) => view.setUint32(at + 4 * i, value, true));
  bytes.set([0x49, 0x47, 0x56, 0x4d]); // "IGVM"
  u32(4, 1, 24, 80, bytes.length);
  u32(24, 0x1, 16, 0x4); // SUPPORTED_PLATFORM, mask 4
  bytes.set([2, 2, 1, 0], 36); // VTL 2, SEV_SNP, version 1
  view.setBigUint64(40, 0x8000_0000_0000n, true);
  u32(48, 0x101, 16);
  view.setBigUint64(56, 0x30000n, true);
  u32(64, 0x4, 0);
  u32(72, 0x302, 24);
  view.setBigUint64(80, 0xffff_f000n, true);
  u32(88, 0x4, 104, 0x2);
  view.setUint16(100, 3, true);
  bytes.fill(0xaa, 104);
  u32(20, slowCrc32(bytes.subarray(0, 104)));
  return bytes;
}

describe('reading', () => {
  it('gives the fields where igvm_defs places them', () => {
    const file = parseIgvm(handmade());
    expect(file.diagnostics).toEqual([]);
    expect(file.header).toEqual({
      magic: 0x4d564749,
      version: 1,
      size: 24,
      architecture: 'X64',
      rawArchitecture: 0,
      pageSize: 4096,
      variableHeaderOffset: 24,
      variableHeaderSize: 80,
      totalFileSize: 4200,
      crc32: file.header.computedCrc32,
      computedCrc32: file.header.crc32,
    });
    expect(platforms(file)).toEqual([
      {
        platformType: 'SEV_SNP',
        rawPlatformType: 2,
        compatibilityMask: 4,
        highestVtl: 2,
        platformVersion: 1,
        sharedGpaBoundary: 0x8000_0000_0000n,
        directive: 0,
      },
    ]);
    expect(file.headers[2]).toEqual({
      index: 2,
      section: 'directive',
      type: 'PAGE_DATA',
      rawType: 0x302,
      ignorable: false,
      offset: 72,
      length: 32,
      padding: undefined,
      gpa: 0xffff_f000n,
      compatibilityMask: 4,
      fileOffset: 104,
      flags: 2,
      dataType: 3,
      reserved: 0,
      data: { fileOffset: 104, length: 4096 },
    });
  });

  it('is what the builder writes', () => {
    const built = new IgvmBuilder()
      .platform('SEV_SNP', 4, { highestVtl: 2, sharedGpaBoundary: 0x8000_0000_0000n })
      .guestPolicy(0x30000n, 4)
      .page(0xffff_f000n, 4, new Uint8Array(4096).fill(0xaa), { unmeasured: true, dataType: 'CPUID_XF' })
      .build();
    expect(Buffer.compare(built, handmade())).toBe(0);
  });

  it('knows where each field is', () => {
    const header = parseIgvm(handmade()).headers[2]!;
    if (header.type !== 'PAGE_DATA') throw new Error('not PAGE_DATA');
    expect(headerFields(header).map(({ field, offset, value }) => [field.name, offset, value])).toEqual([
      ['gpa', 80, 0xffff_f000n],
      ['compatibilityMask', 88, 4],
      ['fileOffset', 92, 104],
      ['flags', 96, 2],
      ['dataType', 100, 3],
      ['reserved', 102, 0],
    ]);
  });

  it('reads an ignorable header of a known type as that type', () => {
    const bytes = new IgvmBuilder()
      .platform('NATIVE', 1)
      .add(
        'REQUIRED_MEMORY',
        { gpa: 0x1000n, compatibilityMask: 1, numberOfBytes: 0x1000 },
        { ignorable: true },
      )
      .raw(0x8000_03ff, Uint8Array.of(1, 2, 3))
      .versionString('1.0')
      .build();
    const { headers } = parseIgvm(bytes);
    expect(
      headers.map(({ type, rawType, ignorable, section }) => [type, rawType, ignorable, section]),
    ).toEqual([
      ['SUPPORTED_PLATFORM', 0x1, false, 'platform'],
      ['VERSION_STRING', 0x107, false, 'initialization'],
      ['REQUIRED_MEMORY', 0x8000_0305, true, 'directive'],
      ['UNKNOWN', 0x8000_03ff, true, 'directive'],
    ]);
    const version = headers[1]!;
    expect(version.type === 'VERSION_STRING' && version.text).toBe('1.0');
  });

  it('takes what is there from a file cut at every byte', () => {
    const whole = handmade();
    const complete = parseIgvm(whole).headers.length;
    for (let size = 0; size < whole.length; size += size < 110 ? 1 : 257) {
      const file = parseIgvm(whole.subarray(0, size));
      const expected = [48, 72, 104].filter((end) => size >= end).length;
      expect(file.headers.length, `cut at ${size}`).toBe(expected);
      expect(file.headers.length).toBeLessThanOrEqual(complete);
      expect(
        file.diagnostics.some(({ severity }) => severity === 'error'),
        `cut at ${size}`,
      ).toBe(true);
      if (size >= 24) expect(Buffer.compare(writeIgvm(file), whole.subarray(0, size))).toBe(0);
    }
  });

  it('a view into a larger buffer reads as the file alone does', () => {
    const outer = new Uint8Array(5000);
    outer.set(handmade(), 301);
    const file = parseIgvm(outer.subarray(301, 301 + handmade().length));
    expect(file.diagnostics).toEqual([]);
    expect(Buffer.compare(writeIgvm(file), handmade())).toBe(0);
  });
});

describe('making headers', () => {
  it('refuses fields the table does not have', () => {
    expect(() => makeHeader('PAGE_DATA', { nonsense: 1 } as never)).toThrow(/no field nonsense/);
  });
});
