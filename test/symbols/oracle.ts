/** What binutils says of an ELF file: committed tables of the fixtures, and live runs where installed. */
import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { initSymbols, normalizePath } from '../../src/symbols/index.ts';

export const FIXTURES = fileURLToPath(new URL('fixtures/', import.meta.url));
export const fixtureNames = readdirSync(FIXTURES)
  .filter((name) => name.endsWith('.elf'))
  .map((name) => name.slice(0, -4));
export const fixture = (name: string): Uint8Array => new Uint8Array(readFileSync(`${FIXTURES}${name}.elf`));
export const table = (name: string, kind: 'frames' | 'lines' | 'rows' | 'sections' | 'symbols'): string[] =>
  readFileSync(`${FIXTURES}${name}.${kind}`, 'utf8').split('\n').filter(Boolean);

const WASM = fileURLToPath(
  new URL('../../node_modules/gecko-profiler-demangle/index_bg.wasm', import.meta.url),
);
export const loadDemangler = (): Promise<void> => initSymbols(new Uint8Array(readFileSync(WASM)));

/** Whether a program can be run; tests that need it say so when they cannot. */
export function installed(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

export interface Place {
  readonly file: string;
  readonly line: number;
}

/** `file:line` of addr2line; a line `?` is 0, a file `??` is empty. */
export function parsePlace(text: string): Place {
  const match = /^(.*):(\d+|\?)(?: \(discriminator \d+\))?$/.exec(text)!;
  return {
    file: match[1] === '??' ? '' : normalizePath(match[1]!),
    line: match[2] === '?' ? 0 : Number(match[2]),
  };
}

/** addr2line's answer for each address. */
export function addr2line(elf: string, addresses: readonly bigint[]): Place[] {
  const input = addresses.map((address) => address.toString(16)).join('\n');
  const output = execFileSync('addr2line', ['-e', elf], { input: `${input}\n`, maxBuffer: 1 << 28 });
  return output.toString().trimEnd().split('\n').map(parsePlace);
}

/** `addr2line -i -f`: for each address `name line` of every level, innermost first. */
export function inlineChains(elf: string, addresses: readonly bigint[]): string[][] {
  const input = addresses.map((address) => address.toString(16)).join('\n');
  const output = execFileSync('addr2line', ['-e', elf, '-a', '-i', '-f'], {
    input: `${input}\n`,
    maxBuffer: 1 << 28,
  });
  const chains: string[][] = [];
  const lines = output.toString().trimEnd().split('\n');
  for (let i = 0; i < lines.length;)
    if (/^0x[0-9a-f]+$/.test(lines[i]!)) {
      chains.push([]);
      i++;
    } else {
      chains[chains.length - 1]!.push(`${lines[i]} ${parsePlace(lines[i + 1]!).line}`);
      i += 2;
    }
  return chains;
}

/** Deterministic numbers below 2^32 (mulberry32). */
export function random(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t;
    return (t ^ (t >>> 14)) >>> 0;
  };
}
