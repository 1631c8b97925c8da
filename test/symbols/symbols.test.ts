import { beforeAll, describe, expect, it } from 'vitest';
import { demangle, shortName, SymbolSpace } from '../../src/symbols/index.ts';
import { nameSegments } from '../../src/symbols/demangle.ts';
import { flattenIntervals, intervalAt } from '../../src/symbols/intervals.ts';
import { fixture, fixtureNames, loadDemangler, random, table } from './oracle.ts';

const open = (...names: string[]): SymbolSpace => {
  const space = new SymbolSpace();
  for (const name of names) space.add({ name, bytes: fixture(name) });
  return space;
};

/** nm's table: address, type letter, raw name, demangled name. */
const nm = (name: string) =>
  table(name, 'symbols').map((row) => {
    const [, address, type, raw, demangled] = /^([0-9a-f]+) (.) (.*)\|(.*)$/.exec(row)!;
    return { address: BigInt(`0x${address}`), type: type!, raw: raw!, demangled: demangled! };
  });

beforeAll(loadDemangler);

describe('symbols', () => {
  it.each(fixtureNames)('has every symbol of %s that nm lists, demangled alike', (name) => {
    const space = open(name);
    for (const { address, raw, demangled } of nm(name)) {
      const [found, ...more] = space.symbolByName(raw);
      expect(more).toEqual([]);
      expect(found).toMatchObject({ rawName: raw, address });
      // binutils writes the turbofish of Rust v0 generics, rustc's own demangler does not have to.
      expect(found!.name.replaceAll('::<', '<')).toBe(demangled.replaceAll('::<', '<'));
    }
  });

  it.each(fixtureNames)('finds the function around every byte of .text of %s', (name) => {
    const space = open(name);
    const text = space.images[0]!.elf.section('.text')!;
    const functions = nm(name).filter(({ type }) => 'tTwW'.includes(type));
    for (let address = text.address; address < text.address + BigInt(text.size); address++) {
      const hit = space.symbolAt(address);
      if (!hit) continue; // padding between functions
      const before = functions.filter((one) => one.address <= address).pop()!;
      // A label without size inside a function with one does not hide the function.
      if (before.raw === 'inner_label') expect(hit.name).toBe('asm_entry');
      else expect(hit.rawName).toBe(before.raw);
      expect(hit.address + hit.offset).toBe(address);
      expect(hit.offset < hit.size).toBe(true);
      expect(space.functionAt(address)).toMatchObject({
        name: hit.name,
        start: hit.address,
        end: hit.address + hit.size,
      });
    }
  });

  it('lets assembly labels without a size answer up to the next symbol', () => {
    const space = open('gcc5');
    const at = (name: string, offset: bigint) =>
      space.symbolAt(space.symbolByName(name)[0]!.address + offset)?.name;
    expect(at('unsized', 0n)).toBe('unsized');
    expect(at('unsized', 1n)).toBe('unsized');
    expect(at('unsized', 2n)).toBe('second_unsized');
    expect(at('second_unsized', 0n)).toBe('second_unsized');
    expect(at('second_unsized', 1n)).toBeUndefined();
    expect(at('table', 5n)).toBe('table');
    expect(space.functionAt(space.symbolByName('table')[0]!.address)).toBeUndefined();
  });

  it('finds Rust and C++ names by any part of their path', () => {
    for (const name of ['rust-legacy', 'rust-v0']) {
      const space = open(name);
      const all = (query: string) => space.symbolByName(query).map((one) => one.address);
      const [twice] = all('twice');
      expect(twice).toBeDefined();
      expect(all('gate::twice')).toEqual([twice]);
      expect(all('mini::gate::twice')).toEqual([twice]);
      expect(all('te::twice')).toEqual([]);
      const [method] = all('Door::open');
      expect(method).toBeDefined();
      expect(all('gate::Door::open')).toEqual([method]);
      expect(all('<mini::gate::Door as mini::gate::Open>::open')).toEqual([method]);
      expect(all('nothing')).toEqual([]);
    }
    const legacy = open('rust-legacy');
    expect(legacy.symbolByName('mini::gate::twice::h192328e6eac754d4')).toHaveLength(1);
    expect(legacy.symbolByName('mini::gate::twice::h0000000000000000')).toHaveLength(0);
    const cpp = open('cpp');
    expect(cpp.symbolByName('shapes::measure')[0]!.name).toBe(
      'shapes::measure(shapes::Box<int> const&, unsigned char)',
    );
    expect(cpp.symbolByName('Box::area')).toHaveLength(1);
    expect(cpp.symbolByName('area')).toHaveLength(1);
  });

  it('completes by prefix of the name or of a path suffix', () => {
    const names = (prefix: string, limit = 10) =>
      open('rust-v0')
        .lookup(prefix, limit)
        .map((one) => one.name);
    expect(names('mini::gate::tw')).toEqual(['mini::gate::twice::<mini::gate::Door>']);
    expect(names('gate::tw')).toEqual(['mini::gate::twice::<mini::gate::Door>']);
    expect(names('_sta')).toEqual(['_start']);
    expect(names('', 2)).toHaveLength(2);
    expect(names('zzz')).toEqual([]);
  });

  it('keeps several images apart, the first added answering where they overlap', () => {
    const space = open('gcc4', 'gcc5', 'clang4');
    const [high, low] = space.images;
    const start = space.symbolByName('_start').map(({ image }) => image.name);
    expect(start).toEqual(['gcc4', 'gcc5', 'clang4']);
    expect(space.imageAt(0xffffffff80000150n)).toBe(high);
    expect(space.symbolAt(0x400150n)!.image).toBe(low);
    const places = space.addressesOf('inline.c', 12)!;
    expect(places.addresses.length).toBeGreaterThanOrEqual(3);
    expect(places.addresses).toEqual([...places.addresses].sort((a, b) => (a < b ? -1 : 1)));
    space.remove(low!);
    expect(space.symbolAt(0x400150n)!.image.name).toBe('clang4');
    expect(space.imageAt(0x1234n)).toBeUndefined();
    expect(space.lineAt((1n << 64n) - 1n)).toBeUndefined();
  });

  it('answers 200,000 lookups a second by a wide margin of the machine', () => {
    const space = open('gcc5');
    const text = space.images[0]!.elf.section('.text')!;
    const start = process.hrtime.bigint();
    let found = 0;
    for (let i = 0; i < 100_000; i++) {
      const address = text.address + BigInt(i % text.size);
      if (space.lineAt(address)) found++;
      if (space.symbolAt(address)) found++;
    }
    expect(found).toBeGreaterThan(150_000);
    // 200,000 lookups; a loaded machine gets three times as long.
    expect(Number(process.hrtime.bigint() - start) / 1e9).toBeLessThan(3);
  });
});

describe('demangling', () => {
  it.each([
    // Rust RFC 2603 and rustc-demangle's own examples; Itanium C++ ABI 5.1.
    ['_RNvNtCs1234_7mycrate3foo3bar', 'mycrate::foo::bar'],
    ['_ZN4core3fmt9Formatter3pad17h0123456789abcdefE', 'core::fmt::Formatter::pad'],
    [
      '_ZN71_$LT$Test$u20$$u2b$$u20$$u27$static$u20$as$u20$foo..Bar$LT$Test$GT$$GT$3bar17h930b740aa94f1d3aE',
      "<Test + 'static as foo::Bar<Test>>::bar",
    ],
    ['_ZNSt6vectorIiSaIiEE9push_backERKi', 'std::vector<int, std::allocator<int> >::push_back(int const&)'],
    ['startup_64', 'startup_64'],
    ['_Z', '_Z'],
    ['_R', '_R'],
    ['_ZN', '_ZN'],
  ])('%s', (raw, expected) => expect(shortName(demangle(raw))).toBe(expected));

  it('survives hostile names', () => {
    const hostile = [
      `_Z${'N'.repeat(4000)}`,
      `_Z1f${'P'.repeat(8000)}i`,
      `_RI${'I'.repeat(4000)}`,
      `_R${'Y'.repeat(7000)}`,
      `_Z1fI${'S_'.repeat(3000)}E`,
      // Each level pairs the one before: 270 bytes that stand for a gigabyte.
      `_Z1f1AIiiE${Array.from({ length: 26 }, (_, i) => i.toString(36).toUpperCase())
        .map((level) => `S_IS${level}_S${level}_E`)
        .join('')}`,
    ];
    const next = random(5);
    const letters = 'NSIEPKRTLFDvi0123456789_ZabBJXMGsC';
    for (let i = 0; i < 400; i++)
      hostile.push(
        (i & 1 ? '_Z' : '_R') + Array.from({ length: 60 }, () => letters[next() % letters.length]).join(''),
      );
    const start = process.hrtime.bigint();
    for (const raw of hostile) expect(demangle(raw).length).toBeLessThanOrEqual(1 << 20);
    expect(Number(process.hrtime.bigint() - start) / 1e9).toBeLessThan(3);
    // And still works afterwards.
    expect(demangle('_Z3foov')).toBe('foo()');
  });

  it.each([
    ['svsm::cpu::Foo<u8>::bar', ['svsm', 'cpu', 'Foo', 'bar']],
    ['<svsm::X as core::fmt::Debug>::fmt', ['svsm', 'X', 'fmt']],
    ['shapes::measure(shapes::Box<int> const&, unsigned char)', ['shapes', 'measure']],
    ['a::{{closure}}', ['a', '{{closure}}']],
    ['main', ['main']],
  ])('splits %s', (name, segments) => expect(nameSegments(name)).toEqual(segments));
});

describe('flattened intervals', () => {
  it('agree with a slow search for the last-starting interval around each point', () => {
    const next = random(11);
    for (let round = 0; round < 60; round++) {
      const count = 1 + (next() % 20);
      const starts = Array.from({ length: count }, () => next() % 60);
      const ends = starts.map((start) => start + (next() % 25));
      const ids = starts.map((_, i) => i);
      const flat = flattenIntervals(starts, ends, ids);
      for (let point = -1; point < 90; point++) {
        const around = ids.filter((i) => starts[i]! <= point && point < ends[i]!);
        around.sort((a, b) => starts[a]! - starts[b]! || ends[b]! - ends[a]! || a - b);
        const index = intervalAt(flat, point);
        expect(index < 0 ? undefined : flat.ids[index]).toBe(around.pop());
      }
    }
  });
});
