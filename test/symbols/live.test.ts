import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SymbolSpace } from '../../src/symbols/index.ts';
import { FIXTURES, addr2line, installed, loadDemangler } from './oracle.ts';

const NEEDED = ['cc', 'addr2line', 'nm'];

/** What this machine's own compiler writes, against this machine's binutils (the fixtures test the rest). */
describe('files compiled now', () => {
  const missing = NEEDED.filter((program) => !installed(program));
  let folder = '';
  beforeAll(async () => {
    await loadDemangler();
    folder = mkdtempSync(join(tmpdir(), 'symbols-'));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const variants = [2, 3, 4, 5].flatMap((version) =>
    ['-O0', '-O2', '-Os -ffunction-sections'].map((flags) => ({ version, flags })),
  );
  it.each(variants)('agree with addr2line and nm: DWARF $version, $flags', ({ version, flags }) => {
    if (missing.length > 0) {
      console.warn(`Not compared with a compiler on this machine: ${missing.join(', ')} not installed.`);
      return;
    }
    const elf = join(folder, `v${version}${flags.replaceAll(' ', '')}`);
    execFileSync('cc', [
      ...['-nostdlib', '-static', '-ffreestanding', '-fno-stack-protector', '-g', `-gdwarf-${version}`],
      ...flags.split(' '),
      ...[`${FIXTURES}inline.c`, `${FIXTURES}entry.S`, '-o', elf],
    ]);
    const space = new SymbolSpace();
    const image = space.add({ name: elf, bytes: new Uint8Array(readFileSync(elf)) });
    const text = image.elf.section('.text')!;
    const addresses = Array.from({ length: text.size }, (_, i) => text.address + BigInt(i));
    addr2line(elf, addresses).forEach((expected, i) => {
      const found = space.lineAt(addresses[i]!);
      const where = `${addresses[i]!.toString(16)}`;
      expect([where, found?.line ?? 0]).toEqual([where, expected.line]);
      if (expected.line !== 0) expect([where, found!.file]).toEqual([where, expected.file]);
    });
    for (const line of execFileSync('nm', ['--defined-only', elf]).toString().trim().split('\n')) {
      const [address, , name] = line.split(' ');
      expect(space.symbolByName(name!).map((one) => one.address)).toEqual([BigInt(`0x${address}`)]);
    }
    expect(image.diagnostics).toEqual([]);
  });
});
