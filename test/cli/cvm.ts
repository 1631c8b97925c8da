/** Runs the built command line as a program. */
import { spawn } from 'node:child_process';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
export const SAMPLE = join(ROOT, 'samples/mini-svsm/mini-svsm.igvm');
export const SAMPLE_ELF = join(ROOT, 'samples/mini-svsm/mini-svsm.elf');
export const broken = (name: string): string => join(ROOT, `samples/mini-svsm/broken/${name}.igvm`);
const BUNDLE = join(ROOT, 'dist/cvm.cjs');

export interface Result {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export function start(...args: string[]): ChildProcessWithoutNullStreams {
  if (!existsSync(BUNDLE)) throw new Error('dist/cvm.cjs is not there: npm run build');
  return spawn(process.execPath, [BUNDLE, ...args], { cwd: ROOT });
}

export function finish(child: ChildProcessWithoutNullStreams): Promise<Result> {
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  return new Promise((resolve) =>
    child.on('close', (code) =>
      resolve({
        code,
        stdout: Buffer.concat(stdout).toString('utf8'),
        stderr: Buffer.concat(stderr).toString('utf8'),
      }),
    ),
  );
}

export const cvm = (...args: string[]): Promise<Result> => finish(start(...args));
