/** Arguments of the commands, checked. */
import { parseArgs } from 'node:util';
import type { ParseArgsConfig } from 'node:util';
import { CvmError } from '../base/index.ts';

export type Options = NonNullable<ParseArgsConfig['options']>;
export type Values = Record<string, string | boolean | (string | boolean)[] | undefined>;

export const usageError = (message: string): CvmError => new CvmError('usage', message);

/** @throws CvmError `usage`. */
export function parse(
  args: readonly string[],
  options: Options,
  files: number,
): { values: Values; files: string[] } {
  let parsed: { values: Values; positionals: string[] };
  try {
    parsed = parseArgs({
      args: [...args],
      options: { ...options, help: { type: 'boolean', short: 'h' } },
      allowPositionals: true,
      strict: true,
    }) as { values: Values; positionals: string[] };
  } catch (error) {
    throw usageError((error as Error).message.replace(/\. To specify a positional.*$/s, ''));
  }
  const { values, positionals } = parsed;
  if (values.help) return { values, files: positionals };
  if (positionals.length < files)
    throw usageError(files === 1 ? 'a FILE is missing' : `${files} FILEs are needed`);
  if (positionals.length > files)
    throw usageError(
      files === 0
        ? 'this command takes no file'
        : `${files === 1 ? 'one FILE' : `${files} FILEs`} only, not '${positionals[files]}' too`,
    );
  return { values, files: positionals };
}

/** A whole number, with `_` or `k`, `M`, `G` (thousands) allowed. @throws CvmError `usage`. */
export function count(name: string, text: unknown, least: number, most: number): number | undefined {
  if (text === undefined) return undefined;
  const match = /^([0-9][0-9_]{0,18})([kMG]?)$/.exec(String(text));
  const unit = { '': 1, k: 1e3, M: 1e6, G: 1e9 }[match?.[2] ?? ''] ?? 1;
  const value = match ? Number(match[1]!.replaceAll('_', '')) * unit : NaN;
  if (!Number.isSafeInteger(value) || value < least || value > most)
    throw usageError(`--${name} must be a number from ${least} to ${most}, not '${String(text)}'`);
  return value;
}
