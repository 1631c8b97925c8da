/** The files of samples/mini-svsm, and where things are in it. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { SymbolImage, initSymbols } from '../../src/symbols/index.ts';

export const ROOT = new URL('../../', import.meta.url);
export const SAMPLES = new URL('samples/', ROOT);
const FOLDER = new URL('mini-svsm/', SAMPLES);

export const sampleFile = (name: string): Uint8Array => readFileSync(new URL(name, FOLDER));

/** The variants, with the number each has in `BROKEN` (broken.rs). */
export const BROKEN = {
  'no-pvalidate': 1,
  'wrong-page-size': 2,
  'unregistered-ghcb': 3,
  'no-rmpadjust': 4,
} as const;
export type Broken = keyof typeof BROKEN;

const DEMANGLER = new URL('node_modules/gecko-profiler-demangle/index_bg.wasm', ROOT);
export const loadDemangler = (): Promise<void> => initSymbols(new Uint8Array(readFileSync(DEMANGLER)));

/** With the source map of samples/.vscode/launch.json, `${workspaceFolder}` being samples/. */
export const sampleSymbols = (): SymbolImage =>
  new SymbolImage({
    name: 'mini-svsm.elf',
    bytes: sampleFile('mini-svsm.elf'),
    sourceMap: [{ from: '/cvm-samples', to: fileURLToPath(SAMPLES).replace(/\/$/, '') }],
  });

/** Run-time address of a symbol that must be there once. */
export function addressOf(image: SymbolImage, name: string): bigint {
  const found = image.symbolByName(name);
  if (found.length !== 1) throw new Error(`${found.length} symbols are named ${name}`);
  return found[0]!.address;
}
