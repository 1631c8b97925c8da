import { beforeAll, describe, expect, it } from 'vitest';
import { CvmError } from '../../src/base/index.ts';
import { readElf, SymbolSpace } from '../../src/symbols/index.ts';
import { fixture, loadDemangler, random } from './oracle.ts';

/** Asks everything of an image; returns whether it was opened. Anything thrown but CvmError is a failure. */
function exercise(bytes: Uint8Array): boolean {
  const space = new SymbolSpace();
  try {
    space.add({ name: 'hostile', bytes });
  } catch (error) {
    expect(error).toBeInstanceOf(CvmError);
    const { fileOffset } = (error as CvmError).place;
    expect(fileOffset).toBeGreaterThanOrEqual(0);
    expect(fileOffset).toBeLessThanOrEqual(bytes.length);
    return false;
  }
  const [image] = space.images;
  const base = image!.extent?.[0] ?? 0x400000n;
  for (let i = 0n; i < 0x240n; i += 3n) {
    space.lineAt(base + i);
    space.symbolAt(base + i);
    space.functionAt(base + i);
    space.inlineFramesAt(base + i);
  }
  space.sources();
  space.symbolByName('sum').forEach(({ address }) => space.afterPrologue(address));
  space.lookup('s', 10);
  space.addressesOf('inline.c', 9);
  space.addressesOf('inline.h', 1);
  space.breakpointLocations('inline.c', 1, 1000);
  for (const section of image!.elf.sections.slice(0, 50)) image!.elf.data(section);
  expect(image!.diagnostics.length).toBeLessThanOrEqual(450);
  for (const { code, message } of image!.diagnostics) {
    expect(code).toMatch(/^(elf|dwarf|symbols)-/);
    expect(message.endsWith('.')).toBe(true);
  }
  return true;
}

const names = ['gcc2', 'gcc3', 'gcc4', 'gcc5', 'clang4', 'clang5', 'rust-v0', 'zlib', 'zgnu', 'cpp'];
const extremes = [0, 1, 0x7f, 0x80, 0xff, 0xfe];

describe('hostile ELF files', () => {
  beforeAll(loadDemangler);

  it('500 mutated files give CvmError or partial tables, quickly', () => {
    const next = random(20261121);
    const heap = process.memoryUsage().rss;
    let opened = 0;
    let slowest = 0;
    for (let round = 0; round < 500; round++) {
      let bytes = fixture(names[round % names.length]!);
      const poke = (start: number, size: number, times: number): void => {
        for (let i = 0; i < times; i++) {
          const at = start + (next() % Math.max(1, size));
          if (at < bytes.length) bytes[at] = next() & 1 ? extremes[next() % extremes.length]! : next();
        }
      };
      const { sections } = readElf(bytes);
      const debug = sections.filter(({ name }) => /^\.z?debug_/.test(name));
      const kind = round % 5;
      if (kind === 0) bytes = bytes.slice(0, next() % bytes.length);
      else if (kind === 1) poke(16, 48, 1 + (next() % 3));
      else if (kind === 2) {
        // Section headers.
        const table = Number(new DataView(bytes.buffer).getBigUint64(40, true));
        poke(table, sections.length * 64, 1 + (next() % 6));
      } else {
        const picked = debug[next() % debug.length]!;
        // Headers of sections sit at their start: half the time only there.
        poke(picked.offset, next() & 1 ? picked.size : Math.min(picked.size, 48), 1 + (next() % 8));
      }
      const start = process.hrtime.bigint();
      if (exercise(bytes)) opened++;
      slowest = Math.max(slowest, Number(process.hrtime.bigint() - start) / 1e6);
    }
    expect(opened).toBeGreaterThan(300);
    expect(slowest).toBeLessThan(2000);
    expect(process.memoryUsage().rss - heap).toBeLessThan(400 << 20);
  });

  it('truncation at every 7th length gives CvmError or partial tables', () => {
    const whole = fixture('gcc5');
    for (let length = 0; length < whole.length; length += 7) exercise(whole.slice(0, length));
  });

  /** A file of one made-up section, under the name of a DWARF section of a real file. */
  const withSection = (name: string, content: Uint8Array, base = fixture('clang5')): Uint8Array => {
    const elf = readElf(base);
    const bytes = new Uint8Array(base.length + content.length);
    bytes.set(base);
    bytes.set(content, base.length);
    const view = new DataView(bytes.buffer);
    const header = Number(view.getBigUint64(40, true)) + 64 * elf.section(name)!.index;
    view.setBigUint64(header + 24, BigInt(base.length), true);
    view.setBigUint64(header + 32, BigInt(content.length), true);
    return bytes;
  };

  it('is not slowed down by sections made to be slow', () => {
    const start = process.hrtime.bigint();
    const fill = (size: number, ...pattern: number[]): Uint8Array =>
      Uint8Array.from({ length: size }, (_, i) => pattern[i % pattern.length]!);
    // Abbreviations without end, base-address entries without end, strings without end, rows without end.
    exercise(withSection('.debug_abbrev', fill(2 << 20, 2, 0x11, 1, 3, 8, 0, 0)));
    exercise(withSection('.debug_abbrev', fill(2 << 20, 0x81, 0x80, 0)));
    exercise(withSection('.debug_rnglists', fill(2 << 20, 5, 0, 0, 0, 0, 0, 0, 0, 0)));
    exercise(withSection('.debug_line_str', fill(2 << 20, 0x41)));
    exercise(withSection('.debug_info', fill(2 << 20, 0)));
    exercise(withSection('.debug_info', fill(2 << 20, 8, 0, 0, 0, 4, 0, 0, 0, 0, 0, 8, 1)));
    const line = readElf(fixture('clang5'));
    const original = line.data(line.section('.debug_line')!)!.bytes;
    const rows = new Uint8Array(4 << 20).fill(0x20);
    rows.set(original.subarray(0, original.length - 60));
    new DataView(rows.buffer).setUint32(0, rows.length - 4, true);
    exercise(withSection('.debug_line', rows));
    // 80,000 symbols that share one name of two megabytes.
    const symbols = new Uint8Array(24 * 80_000);
    const view = new DataView(symbols.buffer);
    for (let i = 0; i < 80_000; i++) {
      view.setUint32(24 * i, 1 + i, true);
      view.setUint32(24 * i + 4, 0x0001_0012, true);
      view.setUint32(24 * i + 8, 0x400000 + i, true);
    }
    exercise(withSection('.symtab', symbols, withSection('.strtab', fill(2 << 20, 0x41))));
    // Directory and file counts of 2^63.
    const counts = original.slice();
    for (let at = 12; at < 90; at++) {
      const copy = counts.slice();
      copy.fill(0xff, at, at + 8);
      copy[at + 8] = 0x7f;
      exercise(withSection('.debug_line', copy));
    }
    expect(Number(process.hrtime.bigint() - start) / 1e9).toBeLessThan(15);
  });
});
