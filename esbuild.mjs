// Builds every entry point into dist/: `node esbuild.mjs [--watch] [--minify]`.
// Node bundles are CommonJS (VS Code's extension host, worker_threads, the command line); browser
// bundles go to dist/web/. Every bundle is self-contained: the package ships without node_modules.
/* global WebAssembly */
import { build, context } from 'esbuild';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(fileURLToPath(import.meta.url));
const watch = process.argv.includes('--watch');

/**
 * WebAssembly inside npm packages, inlined. iced-x86's npm build reads its module with node:fs and
 * takes TextDecoder from node:util; wasm-bindgen's "bundler" target imports `.wasm` as an ES module.
 * Both become: bytes in the bundle, compiled synchronously when the module is first used.
 */
const inlineWasm = {
  name: 'inline-wasm',
  setup(pluginBuild) {
    pluginBuild.onLoad({ filter: /iced_x86\.js$/ }, async ({ path }) => {
      const source = await readFile(path, 'utf8');
      const patched = source
        .replace('const { TextDecoder, TextEncoder } = require(`util`);', '')
        .replace(/const path = require\('path'\)\.join\(__dirname, 'iced_x86_bg\.wasm'\);\s*/, '')
        .replace("require('fs').readFileSync(path)", "require('./iced_x86_bg.wasm?bytes')");
      if (/require\(['"`](fs|path|util)['"`]\)/.test(patched))
        throw new Error(`${path}: its loader is not the one this build knows how to inline`);
      return { contents: patched, loader: 'js' };
    });
    pluginBuild.onResolve({ filter: /\.wasm\?bytes$/ }, async ({ path, resolveDir, kind }) => {
      const file = path.replace(/\?bytes$/, '');
      if (file.startsWith('.')) return { path: join(resolveDir, file), namespace: 'wasm-bytes' };
      const resolved = await pluginBuild.resolve(file, { resolveDir, kind });
      return { path: resolved.path, errors: resolved.errors, namespace: 'wasm-bytes' };
    });
    pluginBuild.onLoad({ filter: /.*/, namespace: 'wasm-bytes' }, async ({ path }) => ({
      contents: `const text = ${JSON.stringify((await readFile(path)).toString('base64'))};
        const binary = atob(text);
        const bytes = new Uint8Array(binary.length);
        for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
        module.exports = bytes;`,
      loader: 'js',
    }));
    pluginBuild.onLoad({ filter: /\.wasm$/, namespace: 'file' }, async ({ path }) => {
      const module = await WebAssembly.compile(await readFile(path));
      const from = [...new Set(WebAssembly.Module.imports(module).map((entry) => entry.module))];
      const names = WebAssembly.Module.exports(module).map((entry) => entry.name);
      const bytes = `./${path.split(/[\\/]/).at(-1)}?bytes`;
      return {
        contents: [
          `import bytes from ${JSON.stringify(bytes)};`,
          ...from.map((specifier, i) => `import * as from${i} from ${JSON.stringify(specifier)};`),
          `const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), {`,
          ...from.map((specifier, i) => `  ${JSON.stringify(specifier)}: from${i},`),
          `});`,
          ...names.map((name, i) => `const value${i} = exports[${JSON.stringify(name)}];`),
          `export { ${names.map((name, i) => `value${i} as ${name}`).join(', ')} };`,
        ].join('\n'),
        resolveDir: dirname(path),
        loader: 'js',
      };
    });
  },
};

const common = {
  absWorkingDir: root,
  bundle: true,
  sourcemap: true,
  sourcesContent: false,
  minify: process.argv.includes('--minify'),
  target: 'es2022',
  logLevel: 'warning',
  legalComments: 'none',
  plugins: [inlineWasm],
};
const node = { ...common, platform: 'node', format: 'cjs', external: ['vscode'] };
const web = {
  ...common,
  platform: 'browser',
  external: ['vscode'],
  define: { global: 'globalThis' },
  // vscode-languageclient's and vscode-languageserver's "browser" exports.
  conditions: ['browser'],
};

/** Entry point -> output. An entry that is not in the tree is an error, not a skipped bundle. */
const targets = [
  { ...node, entryPoints: ['src/extension/main.ts'], outfile: 'dist/extension.cjs' },
  { ...node, entryPoints: ['src/extension/debug-worker.ts'], outfile: 'dist/debug-worker.cjs' },
  { ...node, entryPoints: ['src/extension/language-server.ts'], outfile: 'dist/language-server.cjs' },
  {
    ...node,
    entryPoints: ['src/cli/main.ts'],
    outfile: 'dist/cvm.cjs',
    banner: { js: '#!/usr/bin/env node' },
  },
  { ...web, format: 'cjs', entryPoints: ['src/extension/web.ts'], outfile: 'dist/web/extension.cjs' },
  {
    ...web,
    format: 'iife',
    entryPoints: ['src/extension/web-debug-worker.ts'],
    outfile: 'dist/web/debug-worker.js',
  },
  {
    ...web,
    format: 'iife',
    entryPoints: ['src/extension/web-language-server.ts'],
    outfile: 'dist/web/language-server.js',
  },
];

await mkdir(join(root, 'dist/web'), { recursive: true });
for (const target of targets) {
  try {
    if (watch) await (await context(target)).watch();
    else await build(target);
  } catch {
    // esbuild has printed what is wrong; the other bundles are still worth having.
    process.exitCode = 1;
  }
}
if (existsSync(join(root, 'dist/cvm.cjs'))) await chmod(join(root, 'dist/cvm.cjs'), 0o755);
