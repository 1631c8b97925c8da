import { describe, expect, it } from 'vitest';
import { CvmError } from '../../src/base/index.ts';
import { readElf } from '../../src/symbols/index.ts';
import { fixture, fixtureNames, table } from './oracle.ts';

const refused = (bytes: Uint8Array): CvmError => {
  try {
    readElf(bytes);
  } catch (error) {
    expect(error).toBeInstanceOf(CvmError);
    return error as CvmError;
  }
  throw new Error('was not refused');
};
const patched = (at: number, value: number): Uint8Array => {
  const bytes = fixture('gcc5');
  bytes[at] = value;
  return bytes;
};

describe('readElf', () => {
  it.each(fixtureNames)('reads the sections and build id of %s as readelf does', (name) => {
    const elf = readElf(fixture(name));
    expect(elf.diagnostics).toEqual([]);
    const rows = elf.sections
      .slice(1)
      .map((section) =>
        [
          section.name,
          section.address.toString(16).padStart(16, '0'),
          section.offset.toString(16).padStart(6, '0'),
          section.size.toString(16).padStart(6, '0'),
        ].join(' '),
      );
    if (elf.buildId) rows.push(`build-id ${elf.buildId}`);
    expect(rows).toEqual(table(name, 'sections'));
  });

  it('refuses what is not an ELF64 little-endian x86-64 file, naming the offset', () => {
    expect(refused(new Uint8Array(0))).toMatchObject({ code: 'elf-magic', place: { fileOffset: 0 } });
    expect(refused(new TextEncoder().encode('#!/bin/sh\n'))).toMatchObject({ code: 'elf-magic' });
    expect(refused(fixture('gcc5').subarray(0, 63))).toMatchObject({
      code: 'elf-truncated',
      place: { fileOffset: 63 },
    });
    expect(refused(patched(4, 1))).toMatchObject({ code: 'elf-class', place: { fileOffset: 4 } });
    expect(refused(patched(5, 2))).toMatchObject({ code: 'elf-endian', place: { fileOffset: 5 } });
    // EM_AARCH64
    expect(refused(patched(18, 183))).toMatchObject({ code: 'elf-machine', place: { fileOffset: 18 } });
    expect(refused(patched(18, 183)).message).toContain('183');
  });

  it('keeps what can be read of a file with a damaged section table', () => {
    const elf = readElf(patched(61, 0xff));
    expect(elf.diagnostics.map(({ code, offset }) => [code, offset])).toEqual([['elf-table', 60]]);
    expect(elf.section('.text')).toBeDefined();
  });

  it('finds no sections, but segments, in a file without a section table', () => {
    const bytes = fixture('gcc5');
    bytes.fill(0, 40, 48);
    bytes.fill(0, 60, 64);
    const elf = readElf(bytes);
    expect(elf.sections).toEqual([]);
    expect(elf.segments.some((segment) => segment.type === 1)).toBe(true);
    expect(elf.buildId).toBe(readElf(fixture('gcc5')).buildId);
  });

  it('reads compressed debug sections as the uncompressed ones', () => {
    const plain = readElf(fixture('gcc5'));
    const zlib = readElf(fixture('zlib'));
    const gnu = readElf(fixture('zgnu'));
    const gnuPlain = readElf(fixture('gcc4'));
    const bytes = (elf: ReturnType<typeof readElf>, name: string) => elf.data(elf.section(name)!)!.bytes;
    let compressed = 0;
    for (const section of plain.sections.filter(({ name }) => name.startsWith('.debug_'))) {
      if (zlib.section(section.name)!.flags & 0x800n) compressed++;
      expect(bytes(zlib, section.name)).toEqual(bytes(plain, section.name));
    }
    for (const section of gnu.sections.filter(({ name }) => name.startsWith('.zdebug_'))) {
      compressed++;
      expect(bytes(gnu, section.name)).toEqual(bytes(gnuPlain, section.name.replace('.z', '.')));
    }
    expect(compressed).toBeGreaterThan(4);
  });

  it('says which compression it cannot read', () => {
    const bytes = fixture('zlib');
    const info = readElf(bytes).sections.find((section) => section.flags & 0x800n)!;
    bytes[info.offset] = 2; // ELFCOMPRESS_ZSTD
    const elf = readElf(bytes);
    expect(elf.data(elf.section(info.name)!)).toBeUndefined();
    expect(elf.diagnostics[0]).toMatchObject({ code: 'elf-compressed', offset: info.offset });
    expect(elf.diagnostics[0]!.message).toContain('not zlib');
  });

  it('does not allocate what a compressed section only claims to hold', () => {
    const bytes = fixture('zlib');
    const info = readElf(bytes).sections.find((section) => section.flags & 0x800n)!;
    new DataView(bytes.buffer).setBigUint64(info.offset + 8, 1n << 40n, true);
    const elf = readElf(bytes);
    expect(elf.data(elf.section(info.name)!)).toBeUndefined();
    expect(elf.diagnostics[0]).toMatchObject({ code: 'elf-compressed' });
  });
});
