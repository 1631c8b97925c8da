import { beforeAll, describe, expect, it } from 'vitest';
import { readLineHeader } from '../../src/symbols/dwarf/line-header.ts';
import {
  ROW_END_SEQUENCE,
  ROW_IS_STMT,
  rowAt,
  runLineProgram,
} from '../../src/symbols/dwarf/line-program.ts';
import { DwarfSections } from '../../src/symbols/dwarf/sections.ts';
import { fromTableAddress } from '../../src/symbols/cursor.ts';
import { readElf, SymbolSpace, type SymbolImage } from '../../src/symbols/index.ts';
import { fixture, fixtureNames, loadDemangler, parsePlace, table } from './oracle.ts';

const open = (name: string, bias = 0n): { space: SymbolSpace; image: SymbolImage } => {
  const space = new SymbolSpace();
  return { space, image: space.add({ name, bytes: fixture(name), bias }) };
};

/** Rows of a fixture by sequence, from readelf. Discarded functions (left at 0) are not of the image. */
function sequences(name: string): { address: bigint; line: string; isStmt: boolean }[][] {
  const all: { address: bigint; line: string; isStmt: boolean }[][] = [[]];
  for (const row of table(name, 'rows')) {
    const [address, line, mark] = row.split(' ');
    all[all.length - 1]!.push({ address: BigInt(address!), line: line!, isStmt: mark === 'x' });
    if (line === '-') all.push([]);
  }
  return all.filter((rows) => rows.length > 0 && rows[0]!.address >= 0x1000n);
}

describe('line tables', () => {
  beforeAll(loadDemangler);

  it.each(fixtureNames)('gives every byte of .text of %s the line addr2line gives it', (name) => {
    const { space, image } = open(name);
    const text = image.elf.section('.text')!;
    const runs = table(name, 'lines').map((row) => {
      const [address, place] = row.split('\t');
      return { address: BigInt(address!), ...parsePlace(place!) };
    });
    let run = 0;
    for (let address = text.address; address < text.address + BigInt(text.size); address++) {
      while (run + 1 < runs.length && runs[run + 1]!.address <= address) run++;
      const expected = runs[run]!;
      const found = space.lineAt(address);
      const where = `${name} ${address.toString(16)}`;
      expect([where, found?.line ?? 0]).toEqual([where, expected.line]);
      if (expected.line !== 0) expect([where, found?.file]).toEqual([where, expected.file]);
      if (!found) continue;
      expect(found.range[0] <= address && address < found.range[1]).toBe(true);
      expect(found.image).toBe(image);
    }
    expect(image.diagnostics).toEqual([]);
  });

  it.each(fixtureNames)('gives the inlined functions of %s as addr2line -i does', (name) => {
    const { space, image } = open(name);
    const text = image.elf.section('.text')!;
    const runs = table(name, 'frames').map((row) => row.split(' '));
    let run = 0;
    let deepest = 0;
    for (let address = text.address; address < text.address + BigInt(text.size); address++) {
      while (run + 1 < runs.length && BigInt(runs[run + 1]![0]!) <= address) run++;
      const [, ...expected] = runs[run]!;
      const frames = space.inlineFramesAt(address);
      const found = frames.flatMap(({ rawName, file, line }) => [
        rawName,
        `${file.slice(file.lastIndexOf('/') + 1) || '??'}:${line || '?'}`,
      ]);
      const where = `${name} ${address.toString(16)}`;
      // Without DWARF functions (assembly) addr2line falls back to the symbol table; of a row without a
      // line it gives the unit's name or nothing.
      if (frames.length === 0) expect([where, expected.length]).toEqual([where, 2]);
      else if (frames[0]!.line !== 0) expect([where, ...found]).toEqual([where, ...expected]);
      expect(frames.map(({ inlined }) => inlined)).toEqual(frames.map((_, i) => i < frames.length - 1));
      for (const { range } of frames) expect(range[0] <= address && address < range[1]).toBe(true);
      deepest = Math.max(deepest, frames.length);
    }
    expect(deepest).toBeGreaterThanOrEqual(name === 'cpp' ? 1 : 2);
    expect(image.diagnostics).toEqual([]);
  });

  it.each(fixtureNames)('decodes every row of %s as readelf does', (name) => {
    const elf = readElf(fixture(name));
    const sections = new DwarfSections(elf, elf.diagnostics);
    const line = sections.get('line')!;
    const rows: string[] = [];
    for (let offset = 0; offset < line.bytes.length;) {
      const header = readLineHeader(sections, offset, '/', 'x');
      const decoded = runLineProgram(sections, header, (address) => address !== 0);
      decoded.firstRow.forEach((first, sequence) => {
        for (let row = first; row < decoded.endRow[sequence]!; row++) {
          const flags = decoded.flags[row]!;
          const end = (flags & ROW_END_SEQUENCE) !== 0;
          const address = fromTableAddress(decoded.address[row]!).toString(16);
          rows.push(`0x${address} ${end ? '-' : decoded.line[row]} ${flags & ROW_IS_STMT ? 'x' : '-'}`);
        }
      });
      offset = header.end;
    }
    const expected = sequences(name).flatMap((sequence) =>
      sequence.map((row) => `0x${row.address.toString(16)} ${row.line} ${row.isStmt ? 'x' : '-'}`),
    );
    expect(rows.sort()).toEqual(expected.sort());
  });

  it('moves everything by the bias', () => {
    const bias = 0xffff_8000_0000_0000n;
    const { space } = open('gcc5');
    const { space: moved } = open('gcc5', bias);
    const text = readElf(fixture('gcc5')).section('.text')!.address;
    expect(moved.lineAt(text)).toBeUndefined();
    expect(moved.lineAt(text + bias)!.line).toBe(space.lineAt(text)!.line);
    expect(moved.lineAt(text + bias)!.range[0]).toBe(space.lineAt(text)!.range[0] + bias);
    expect(moved.addressesOf('inline.c', 9)!.addresses).toEqual(
      space.addressesOf('inline.c', 9)!.addresses.map((address) => address + bias),
    );
    expect(moved.symbolByName('sum')[0]!.address).toBe(space.symbolByName('sum')[0]!.address + bias);
  });

  it('records MD5 sums where the compiler wrote them, and only there', () => {
    const of = (name: string) => open(name).space.sources();
    // clang writes MD5 in version 5 tables; `md5sum inline.h`.
    expect(of('clang5').find(({ path }) => path === '/build/guest/inline.h')!.md5).toMatch(/^[0-9a-f]{32}$/);
    expect(of('gcc5').every(({ md5 }) => md5 === undefined)).toBe(true);
  });
});

describe('lines -> addresses', () => {
  it('finds the line in every inlined copy', () => {
    // `twice` (inline.h:2) is inlined into sum, store, discarded and _start; each copy has a statement row.
    for (const name of ['gcc5', 'clang4', 'gcc4']) {
      const { space } = open(name);
      const { addresses, line } = space.addressesOf('inline.h', 2)!;
      expect(line).toBe(2);
      const inside = addresses.map((address) => space.functionAt(address)!.name);
      expect(new Set(inside)).toEqual(new Set(['sum', 'store', 'discarded', '_start']));
      expect(addresses).toEqual([...addresses].sort((a, b) => (a < b ? -1 : 1)));
      for (const address of addresses) expect(table(name, 'rows')).toContain(`0x${address.toString(16)} 2 x`);
    }
  });

  it('leaves out functions the linker discarded', () => {
    const { space } = open('clang5');
    const { addresses } = space.addressesOf('inline.h', 2)!;
    expect(addresses.map((address) => space.functionAt(address)!.name)).not.toContain('discarded');
    expect(addresses.every((address) => address >= 0xffffffff80000000n)).toBe(true);
  });

  it('slides to the next line with code', () => {
    const { space } = open('gcc5');
    // Lines 10 and 11 of inline.c: a brace and nothing; line 12 is `return s`.
    expect(space.addressesOf('inline.c', 10)).toMatchObject({ line: 12 });
    expect(space.addressesOf('/build/guest/inline.c', 10)!.files).toEqual(['/build/guest/inline.c']);
    expect(space.addressesOf('inline.c', 999)).toBeUndefined();
    expect(space.addressesOf('nowhere.c', 1)).toBeUndefined();
  });

  it('offers only lines with statement rows as breakpoint locations', () => {
    for (const name of ['gcc5', 'gcc2', 'clang4']) {
      const { space } = open(name);
      const lines = new Set(space.breakpointLocations('inline.c', 1, 99).map(({ line }) => line));
      const expected = new Set<number>();
      const { image } = open(name);
      const text = image.elf.section('.text')!;
      for (let address = text.address; address < text.address + BigInt(text.size); address++) {
        const hit = space.lineAt(address);
        if (hit?.isStmt && hit.range[0] === address && hit.file.endsWith('/inline.c') && hit.line > 0)
          expected.add(hit.line);
      }
      expect(lines).toEqual(expected);
      expect(space.breakpointLocations('inline.c', 7, 9).map(({ line }) => line)).toEqual(
        expect.arrayContaining([7, 8, 9].filter((line) => expected.has(line))),
      );
    }
  });

  it('applies the source map both ways', () => {
    const space = new SymbolSpace();
    const sourceMap = [{ from: '/build/guest', to: '/home/me/guest' }];
    space.add({ name: 'x', bytes: fixture('gcc5'), sourceMap });
    expect(space.sources().map(({ path, recorded }) => [path, recorded])).toContainEqual([
      '/home/me/guest/inline.c',
      '/build/guest/inline.c',
    ]);
    const wanted = space.addressesOf('/home/me/guest/inline.c', 9)!;
    expect(wanted.line).toBe(9);
    expect(space.lineAt(wanted.addresses[0]!)!.file).toBe('/home/me/guest/inline.c');
    expect(space.addressesOf('/build/guest/inline.c', 9)).toEqual(wanted);
    expect(space.addressesOf('/other/root/guest/inline.c', 9)).toEqual(wanted);
  });

  it('puts function breakpoints behind the prologue', () => {
    const lineAfter = (name: string, symbol: string): number => {
      const { space } = open(name);
      const [match] = space.symbolByName(symbol);
      const address = space.afterPrologue(match!.address);
      expect(space.functionAt(address)!.name).toBe(match!.name);
      return space.lineAt(address)!.line;
    };
    // gcc -O0 sets up RBP: the second row, `int s = 0` and `sink = value`.
    expect(lineAfter('gcc5', 'sum')).toBe(7);
    expect(lineAfter('gcc5', 'store')).toBe(16);
    // clang and rustc mark prologue_end.
    expect(lineAfter('clang4', 'discarded')).toBe(2);
    expect(lineAfter('rust-v0', 'twice')).toBe(25);
    // gcc -O2 has no prologue to skip, nor has assembly.
    for (const [name, symbol] of [
      ['gcc4', 'sum'],
      ['gcc5', 'asm_entry'],
    ] as const) {
      const { space } = open(name);
      const { address } = space.symbolByName(symbol)[0]!;
      expect(space.afterPrologue(address)).toBe(address);
    }
  });
});

describe('line programs by the letter of DWARF 5, 6.2', () => {
  /** A .debug_line of one version 4 program, in a stand-in for an ELF file. */
  const run = (
    program: number[],
    setup: Partial<Record<'minimum' | 'operations' | 'base' | 'range', number>>,
  ) => {
    const header = [
      ...[setup.minimum ?? 1, setup.operations ?? 1, 1, (setup.base ?? 1) & 255, setup.range ?? 15],
      ...[13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1],
      ...[0, 0x61, 0, 0, 0, 0, 0],
    ];
    const body = [4, 0, header.length, 0, 0, 0, ...header, ...program];
    const bytes = Uint8Array.from([body.length, 0, 0, 0, ...body]);
    const elf = { ...readElf(fixture('gcc5')), data: () => ({ name: '.debug_line', bytes, fileOffset: 0 }) };
    const sections = new DwarfSections(elf, elf.diagnostics);
    const decoded = runLineProgram(sections, readLineHeader(sections, 0, '/', 'a'), () => true);
    return { decoded, rows: Array.from(decoded.address, (address, i) => [address, decoded.line[i]]) };
  };
  const end = [0, 1, 1];

  it('advances by special opcodes, const_add_pc and fixed_advance_pc', () => {
    // opcode = (line advance - line_base) + line_range * operation advance + opcode_base (6.2.5.1)
    const special = (line: number, advance: number): number => line - 1 + 15 * advance + 13;
    const { rows } = run(
      [2, 0xb9, 0x04, special(2, 0), special(2, 3), special(1, 8), 8, 1, 9, 0x34, 0x12, 1, 2, 2, ...end],
      {},
    );
    const constant = Math.floor((255 - 13) / 15);
    expect(rows).toEqual([
      [0x239, 3],
      [0x23c, 5],
      [0x244, 6],
      [0x244 + constant, 6],
      [0x244 + constant + 0x1234, 6],
      [0x244 + constant + 0x1234 + 2, 6],
    ]);
  });

  it('counts operations inside instructions on a VLIW machine', () => {
    // Three operations of a 16-byte bundle: address moves when op_index passes 2 (6.2.5.1).
    const { rows } = run([1, 2, 2, 1, 2, 2, 1, 2, 5, 1, ...end], { minimum: 16, operations: 3 });
    expect(rows.map(([address]) => address)).toEqual([0, 0, 16, 48, 48]);
  });

  it('goes back in line, toggles is_stmt, and skips opcodes it does not know', () => {
    const { rows, decoded } = run(
      [3, 0x63, 1, 6, 3, 0x9d, 0x7f, 2, 4, 1, 0, 3, 0x80, 1, 2, 12, 7, 2, 1, ...end],
      {},
    );
    expect(rows).toEqual([
      [0, 100 - 100 + ((1 - 29) >>> 0)],
      [4, (1 - 29 - 99) >>> 0],
      [5, (1 - 29 - 99) >>> 0],
    ]);
    expect(Array.from(decoded.flags)).toEqual([ROW_IS_STMT, 0, ROW_END_SEQUENCE]);
  });

  it('lets the last of several rows at an address answer for it', () => {
    const { decoded } = run([1, 3, 5, 1, 2, 4, 3, 1, 1, 2, 4, ...end], {});
    expect(decoded.line[rowAt(decoded, 0)!.row]).toBe(6);
    expect(decoded.line[rowAt(decoded, 3)!.row]).toBe(6);
    expect(decoded.line[rowAt(decoded, 4)!.row]).toBe(7);
    expect(rowAt(decoded, 8)).toBeUndefined();
  });
});
