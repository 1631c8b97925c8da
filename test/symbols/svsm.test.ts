import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { SymbolSpace, normalizePath } from '../../src/symbols/index.ts';
import { addr2line, inlineChains, installed, loadDemangler, random } from './oracle.ts';

/** A folder with svsm.elf, bldr.elf and userinit.elf of a COCONUT-SVSM build. */
const folder = process.env['CVM_SVSM'];

/** address -> `basename line` of every row that has a line, by readelf. Rows replaced at their address: last wins. */
function decodedRows(elf: string): Map<bigint, string> {
  const output = execFileSync('readelf', ['--debug-dump=decodedline', '-W', elf], {
    maxBuffer: 1 << 30,
    stdio: ['ignore', 'pipe', 'ignore'],
  }).toString();
  const rows = new Map<bigint, string>();
  for (const match of output.matchAll(/^(\S.*?)\s+(\d+|-)\s+(0x[0-9a-f]+)/gm))
    if (match[2] !== '-') rows.set(BigInt(match[3]!), `${match[1]} ${match[2]}`);
  return rows;
}

describe.runIf(folder !== undefined)('COCONUT-SVSM', () => {
  beforeAll(loadDemangler);

  it.each(['svsm.elf', 'bldr.elf', 'userinit.elf'])(
    '%s: lines as addr2line and readelf have them',
    (name) => {
      const path = join(folder!, name);
      expect(existsSync(path)).toBe(true);
      expect(['addr2line', 'readelf'].filter((program) => !installed(program))).toEqual([]);
      const bytes = new Uint8Array(readFileSync(path));

      const start = process.hrtime.bigint();
      const space = new SymbolSpace();
      const image = space.add({ name, bytes });
      const text = image.elf.section('.text')!;
      space.lineAt(text.address + 0x1000n);
      space.symbolAt(text.address + 0x1000n);
      const opening = Number(process.hrtime.bigint() - start) / 1e6;
      expect(opening).toBeLessThan(1000);

      const next = random(2000);
      const addresses = Array.from({ length: 2000 }, () => text.address + BigInt(next() % text.size));
      // binutils 2.40 names the unit's primary file where functions of an #included .c or .h are meant;
      // the rows of readelf settle those.
      const rows = decodedRows(path);
      let settled = 0;
      let withLine = 0;
      let inlined = 0;
      addr2line(path, addresses).forEach((expected, i) => {
        const address = addresses[i]!;
        const found = space.lineAt(address);
        const where = address.toString(16);
        expect([where, found?.line ?? 0]).toEqual([where, expected.line]);
        if (expected.line === 0) return;
        withLine++;
        if (normalizePath(found!.file) === expected.file) return;
        settled++;
        const base = found!.file.slice(found!.file.lastIndexOf('/') + 1);
        expect([where, rows.get(found!.range[0])]).toEqual([where, `${base} ${found!.line}`]);
      });
      const chains = inlineChains(path, addresses.slice(0, 500));
      addresses.slice(0, 500).forEach((address, i) => {
        const ours = space.inlineFramesAt(address).map(({ rawName, line }) => `${rawName} ${line}`);
        if (ours.length > 0)
          expect([address.toString(16), ...ours]).toEqual([address.toString(16), ...chains[i]!]);
        if (ours.length > 1) inlined++;
      });
      expect(inlined).toBeGreaterThan(name === 'svsm.elf' ? 50 : 100);
      expect(withLine).toBeGreaterThan(1000);
      expect(settled).toBeLessThan(40);
      expect(image.diagnostics).toEqual([]);
      console.log(
        `${name}: ${opening.toFixed(0)} ms to the first line and symbol; ${withLine} of 2000 have lines; ` +
          `${settled} files settled by readelf`,
      );
    },
  );
});
