/**
 * Rebuilds the sample in a folder elsewhere and compares every byte. Needs the recorded toolchain
 * (samples/mini-svsm/toolchain.txt); without it nothing is compared, and the output says so.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { BROKEN, ROOT, sampleFile } from './sample.ts';

const root = fileURLToPath(ROOT);

test(
  'a rebuild gives the committed bytes, wherever the checkout is',
  { timeout: 300_000 },
  ({ annotate }) => {
    const check = spawnSync('bash', ['scripts/build-samples.sh', '--check'], { cwd: root, encoding: 'utf8' });
    expect([0, 3]).toContain(check.status);
    if (check.status === 3) {
      const note = `REBUILD NOT CHECKED, the recorded toolchain is not here:\n${check.stderr}`;
      console.warn(note);
      return annotate(note, 'warning');
    }
    const folder = mkdtempSync(join(tmpdir(), 'cvm-samples-'));
    try {
      for (const part of ['src', 'scripts', 'samples'])
        cpSync(join(root, part), join(folder, part), { recursive: true });
      mkdirSync(join(root, '.cache'), { recursive: true });
      // core comes from the compiler's sources, not from the checkout: building it once is enough.
      for (const part of ['node_modules', '.cache']) symlinkSync(join(root, part), join(folder, part));
      const out = join(folder, 'out');
      const build = spawnSync('bash', ['scripts/build-samples.sh', out], { cwd: folder, encoding: 'utf8' });
      expect(build.stderr.replace(/^building core.*\n/, '')).toBe('');
      expect(build.status).toBe(0);
      const files = [
        'mini-svsm.elf',
        'mini-svsm.igvm',
        ...Object.keys(BROKEN).map((name) => `broken/${name}.igvm`),
      ];
      for (const name of files) {
        const same = readFileSync(join(out, name)).equals(sampleFile(name));
        expect([name, same]).toEqual([name, true]);
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
);
