// Builds every entry point: `node esbuild.mjs [--watch] [--minify]`.
import { build, context } from 'esbuild';
import { existsSync } from 'node:fs';

const watch = process.argv.includes('--watch');
const common = {
  bundle: true,
  sourcemap: true,
  minify: process.argv.includes('--minify'),
  target: 'es2022',
  logLevel: 'warning',
  legalComments: 'none',
};
const node = { ...common, platform: 'node' };
const web = { ...common, platform: 'browser', define: { global: 'globalThis' } };

const targets = [
  {
    ...node,
    entryPoints: ['src/extension/main.ts'],
    outfile: 'dist/extension.cjs',
    format: 'cjs',
    external: ['vscode'],
  },
  { ...node, entryPoints: ['src/cli/main.ts'], outfile: 'dist/cvm.cjs', format: 'cjs' },
].filter((target) => target.entryPoints.every((entry) => existsSync(entry)));
void web;

for (const target of targets) {
  if (watch) await (await context(target)).watch();
  else await build(target);
}
