/**
 * A COCONUT-SVSM image built outside the repository: `CVM_SVSM` names a folder with `coconut-qemu.igvm` and
 * `README.txt`, which has igvmmeasure's output for each `*.igvm` of the folder.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { parseIgvm, platforms, writeIgvm } from '../../src/igvm/index.ts';
import { measureIgvm } from '../../src/measure/index.ts';

const folder = process.env['CVM_SVSM'] ?? '';
const readme = join(folder, 'README.txt');

/** `igvmmeasure './x.igvm'` / `Launch Digest: …` pairs. */
function expected(): [string, string][] {
  const text = readFileSync(readme, 'utf8');
  const found = new Map<string, string>();
  for (const match of text.matchAll(/igvmmeasure '(?:out\/)?([^']+)'\s+Launch Digest: ([0-9A-F]{96})/g))
    found.set(match[1]!, match[2]!.toLowerCase());
  return [...found].filter(([name]) => existsSync(join(folder, name)));
}

describe.runIf(folder !== '' && existsSync(readme))('COCONUT-SVSM', () => {
  it('reads without findings, writes identically, measures as igvmmeasure does', () => {
    const images = expected();
    expect(images.length).toBeGreaterThan(0);
    for (const [name, digest] of images) {
      const bytes = new Uint8Array(readFileSync(join(folder, name)));
      const file = parseIgvm(bytes);
      expect(file.diagnostics.filter(({ severity }) => severity !== 'hint' && severity !== 'info')).toEqual(
        [],
      );
      expect(platforms(file).map(({ platformType }) => platformType)).toContain('SEV_SNP');
      expect(Buffer.compare(writeIgvm(file), bytes)).toBe(0);
      for (const profile of ['file-order', 'igvmmeasure', 'qemu-kvm'] as const)
        expect(
          bytesToHex(measureIgvm(file, { platformType: 'SEV_SNP', profile }, nodeCrypto).digest),
          name,
        ).toBe(digest);
    }
  });
});
