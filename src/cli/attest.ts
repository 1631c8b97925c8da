/** What the commands on ID blocks, reports and CoRIMs share: their files, their options, how a verdict is printed. */
import { writeFileSync } from 'node:fs';
import { CvmError, bytesToHex, hexToBytes } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { isEndorsementKey, fromBase64, measureIgvm, readCertificates } from '../measure/index.ts';
import type { Certificate, Check, MeasureOptions, ReportCertificates, Verdict } from '../measure/index.ts';
import type { IgvmFile } from '../igvm/index.ts';
import { EXIT } from './exit-codes.ts';
import { MEASURE_OPTIONS, integer, withUsage } from './measure-options.ts';
import { igvmOptions } from './measure.ts';
import { usageError } from './options.ts';
import type { Options, Values } from './options.ts';
import { complain, print } from './output.ts';

/** Keys, certificates, reports, blocks: all are far smaller. */
const MAX_SMALL_FILE = 16 << 20;

export const text = { type: 'string' } as const;
export const texts = { type: 'string', multiple: true } as const;
export const flag = { type: 'boolean' } as const;

/** How an image is measured: as `cvm measure` takes it. */
export const IMAGE_OPTIONS: Options = Object.fromEntries(
  Object.entries(MEASURE_OPTIONS).filter(([name]) => name === 'loader' || name.startsWith('vcpu')),
);
export const CERTIFICATE_OPTIONS: Options = { cert: texts, at: text, 'any-root': flag };

export const readSmall = (path: string): Promise<Uint8Array> => nodeHost.files.readFile(path, MAX_SMALL_FILE);

/** Writes a file of ours. @throws CvmError `file-unwritable`. */
export function save(path: string, bytes: Uint8Array): void {
  try {
    writeFileSync(path, bytes);
  } catch (error) {
    throw new CvmError('file-unwritable', `cannot write ${path}: ${(error as Error).message}`, {
      name: path,
    });
  }
}

/** `--output`. @throws CvmError `usage`. */
export function outputOf(values: Values): string {
  const path = values.output;
  if (typeof path !== 'string' || path === '') throw usageError('--output FILE is missing');
  return path;
}

export const pathOf = (values: Values, name: string): string | undefined =>
  typeof values[name] === 'string' ? (values[name] as string) : undefined;

/** Bytes in hexadecimal, or base64 where the length is known. @throws CvmError `usage`. */
export function bytesOf(values: Values, name: string, size: number): Uint8Array | undefined {
  const given = values[name];
  if (given === undefined) return undefined;
  const digits = String(given).trim();
  const bytes = /^(0x)?([0-9a-fA-F]{2})+$/.test(digits)
    ? hexToBytes(digits.replace(/^0x/, ''))
    : fromBase64(digits);
  if (bytes?.length === size) return bytes;
  throw usageError(`--${name} must be ${size} bytes in hexadecimal or base64, not '${digits.slice(0, 40)}'`);
}

export const policyOf = (values: Values): bigint | undefined =>
  integer('policy', values.policy, (1n << 64n) - 1n);

export function svnOf(values: Values, name: string): number | undefined {
  const value = integer(name, values[name], 0xffff_ffffn);
  return value === undefined ? undefined : Number(value);
}

/** The SNP launch digest of an image, as the options say it is loaded. */
export function snpDigest(file: IgvmFile, values: Values): Uint8Array {
  const options: MeasureOptions = { ...igvmOptions(values), platformType: 'SEV_SNP' };
  return withUsage(() => measureIgvm(file, options, nodeHost.crypto)).digest;
}

/** The certificates of `--cert` and of the report's own table. @throws CvmError `certificate-missing`. */
export async function certificatesOf(
  values: Values,
  others: readonly Uint8Array[] = [],
): Promise<ReportCertificates> {
  const all: Certificate[] = [];
  for (const path of (values.cert as string[] | undefined) ?? [])
    all.push(...readCertificates(await readSmall(path)));
  for (const bytes of others) {
    // The host may put anything there; what is no certificate is not one that could verify.
    try {
      all.push(...readCertificates(bytes));
    } catch (error) {
      if (!(error instanceof CvmError)) throw error;
    }
  }
  const leaf = all.find(isEndorsementKey);
  if (!leaf)
    throw new CvmError(
      'certificate-missing',
      'no VCEK or VLEK is given: --cert FILE (more than once; PEM or DER) for it and its issuers',
    );
  return { leaf, issuers: all.filter((certificate) => certificate !== leaf) };
}

/** `--at`: a day, a time, `now` (default) or `any`. @throws CvmError `usage`. */
export function dateOf(values: Values): string | undefined {
  const at = values.at === undefined ? 'now' : String(values.at);
  if (at === 'any') return undefined;
  if (at === 'now') return `${new Date().toISOString().slice(0, 19)}Z`;
  if (/^\d{4}-\d\d-\d\d$/.test(at)) return `${at}T00:00:00Z`;
  if (/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/.test(at)) return at;
  throw usageError(`--at must be a day (2026-11-21), a time (2026-11-21T12:00:00Z), now or any, not '${at}'`);
}

const MARKS: Readonly<Record<Check['result'], string>> = {
  pass: 'ok      ',
  fail: 'FAILED  ',
  warning: 'warning ',
  skipped: 'skipped ',
};

/** Prints a verdict, as JSON with whatever else is known; returns the exit code: 0, or 1 if a check failed. */
export function printVerdict(verdict: Verdict, values: Values, more: object = {}): number {
  if (values.json) print(toJson({ ok: verdict.ok, checks: verdict.checks, ...more }));
  else {
    for (const { name, result, message } of verdict.checks) print(`${MARKS[result]}${name}: ${message}`);
    if (!verdict.ok) complain('cvm: not verified');
  }
  return verdict.ok ? EXIT.success : EXIT.differs;
}

/** Bytes as hexadecimal, 64-bit numbers as `0x…`. */
export const toJson = (value: object): string =>
  JSON.stringify(
    value,
    (_, entry: unknown) => {
      if (entry instanceof Uint8Array) return bytesToHex(entry);
      return typeof entry === 'bigint' ? `0x${entry.toString(16)}` : entry;
    },
    2,
  );

/** `name   value` lines. */
export function printRows(rows: readonly (readonly [string, string | number | undefined])[]): void {
  const width = Math.max(...rows.map(([name]) => name.length)) + 2;
  for (const [name, value] of rows) if (value !== undefined) print(`${name.padEnd(width)}${value}`);
}
