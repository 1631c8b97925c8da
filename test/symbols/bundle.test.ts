import { build } from 'esbuild';
import { fileURLToPath } from 'node:url';
import vm from 'node:vm';
import { describe, expect, it } from 'vitest';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));

describe('bundling', () => {
  it.each(['node', 'browser'] as const)('demangles in an esbuild bundle for %s', async (platform) => {
    const { outputFiles, warnings } = await build({
      stdin: {
        contents: `
          import wasm from 'gecko-profiler-demangle/index_bg.wasm';
          import { initSymbols, demangle } from './src/symbols/index.ts';
          globalThis.answer = initSymbols(wasm).then(() => demangle('_ZN3foo3barEv'));`,
        resolveDir: ROOT,
      },
      bundle: true,
      write: false,
      format: 'iife',
      platform,
      target: 'es2022',
      loader: { '.wasm': 'binary' },
      logLevel: 'silent',
    });
    expect(warnings).toEqual([]);
    // A worker's globals and nothing of node.
    const scope: Record<string, unknown> = { WebAssembly, TextEncoder, TextDecoder, Uint8Array, atob };
    if (platform === 'node') scope['Buffer'] = Buffer;
    vm.runInNewContext(outputFiles[0]!.text, scope);
    expect(await scope['answer']).toBe('foo::bar()');
  });
});
