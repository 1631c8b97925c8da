// Runs a TypeScript program of the repository: bundled by esbuild, so that any Node.js runs it.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { build } from 'esbuild';

const [file, ...args] = process.argv.slice(2);
const folder = join(process.cwd(), '.cache/run-ts');
mkdirSync(folder, { recursive: true });
const outfile = join(folder, `${basename(file, '.ts')}.mjs`);
await build({
  entryPoints: [file],
  outfile,
  bundle: true,
  platform: 'node',
  format: 'esm',
  packages: 'external',
  logLevel: 'error',
});
process.exit(
  spawnSync(process.execPath, ['--expose-gc', outfile, ...args], { stdio: 'inherit' }).status ?? 1,
);
