/**
 * The rules of the format. Severity `error` where the igvm crate 0.5 refuses the file, `warning` for what the
 * format asks for and no loader checks (or only some), `hint` for what is merely odd.
 */
import { hex } from '../base/index.ts';
import type { Structure } from '../base/index.ts';
import { specOf } from './codec.ts';
import { claimedData } from './data.ts';
import type { Findings } from './findings.ts';
import { findOverlaps } from './overlap.ts';
import { platformMap } from './platforms.ts';
import { PLATFORM_TYPES } from './tables.ts';
import type { PlatformType } from './tables.ts';
import type { IgvmFile, IgvmHeader } from './types.ts';
import { InitializationRules } from './validate-initialization.ts';
import { DirectiveRules } from './validate-directives.ts';

/** What the rules of the single headers need to know about the file. */
export interface ValidationContext {
  readonly file: Omit<IgvmFile, 'diagnostics'>;
  readonly byMask: ReadonlyMap<number, PlatformType>;
  readonly findings: Findings;
}

export function validate(file: Omit<IgvmFile, 'diagnostics'>, findings: Findings): void {
  const context: ValidationContext = { file, byMask: platformMap(file.headers), findings };
  checkPlatforms(file, findings);
  const initialization = new InitializationRules(context);
  const directives = new DirectiveRules(context, initialization);
  const declared = platformMasks(file.headers);
  let versionStrings = 0;
  for (const header of file.headers) {
    checkReserved(header, findings);
    checkMask(header, declared, findings);
    checkData(header, context);
    if (header.type === 'UNKNOWN') checkUnknown(header, findings);
    else if (header.type === 'VERSION_STRING') {
      if (++versionStrings > 1)
        findings.header(
          'error',
          'igvm-version-string',
          header,
          'a file may have one VERSION_STRING; this is one more',
        );
      if (!isUtf8(header.body))
        findings.header('error', 'igvm-version-string', header, 'the VERSION_STRING is not UTF-8');
    } else if (header.section === 'initialization') initialization.check(header);
    else directives.check(header);
  }
  initialization.finish();
  findOverlaps(file.headers, findings);
  const dataStart = file.header.variableHeaderOffset + file.header.variableHeaderSize;
  if (dataStart === file.bytes.length)
    findings.add(
      'warning',
      'igvm-no-data',
      'the file has no data after its headers; the igvm crate refuses such a file',
      12,
      4,
    );
}

function platformMasks(headers: readonly IgvmHeader[]): number {
  let mask = 0;
  for (const header of headers) if (header.type === 'SUPPORTED_PLATFORM') mask |= header.compatibilityMask;
  return mask;
}

/** X64 platforms, AARCH64 platforms; VSM isolation is both. */
const ARM_ONLY: ReadonlySet<PlatformType> = new Set(['CCA']);
const ANY_ARCHITECTURE: ReadonlySet<PlatformType> = new Set(['VSM_ISOLATION']);
const NO_BOUNDARY: ReadonlySet<PlatformType> = new Set(['NATIVE', 'VSM_ISOLATION']);

function checkPlatforms(file: Omit<IgvmFile, 'diagnostics'>, findings: Findings): void {
  const seenTypes = new Set<number>();
  const seenMasks = new Set<number>();
  for (const header of file.headers) {
    if (header.type !== 'SUPPORTED_PLATFORM') continue;
    const mask = header.compatibilityMask;
    if (mask === 0 || (mask & (mask - 1)) !== 0)
      findings.field(
        'error',
        'igvm-platform-mask',
        header,
        'compatibilityMask',
        `a platform's mask has one bit; this one is ${hex(mask)}`,
      );
    else if (seenMasks.has(mask))
      findings.field(
        'warning',
        'igvm-platform-mask',
        header,
        'compatibilityMask',
        `mask ${hex(mask)} already stands for another platform`,
      );
    seenMasks.add(mask);
    if (header.highestVtl !== 0 && header.highestVtl !== 2)
      findings.field(
        'error',
        'igvm-platform-vtl',
        header,
        'highestVtl',
        `the highest VTL is 0 or 2, not ${header.highestVtl}`,
      );
    if (seenTypes.has(header.platformType))
      findings.field(
        'error',
        'igvm-platform-twice',
        header,
        'platformType',
        'this platform type is declared twice',
      );
    seenTypes.add(header.platformType);
    const type = PLATFORM_TYPES[header.platformType];
    if (type === undefined) {
      findings.field(
        'error',
        'igvm-platform-type',
        header,
        'platformType',
        `platform type ${header.platformType} is not known`,
      );
      continue;
    }
    if (header.platformVersion !== 1)
      findings.field(
        'error',
        'igvm-platform-version',
        header,
        'platformVersion',
        `platform version ${header.platformVersion} is not known; 1 is`,
      );
    if (NO_BOUNDARY.has(type) && header.sharedGpaBoundary !== 0n)
      findings.field(
        'error',
        'igvm-platform-boundary',
        header,
        'sharedGpaBoundary',
        `${type} has no shared GPA boundary; the field must be 0`,
      );
    const wanted = ARM_ONLY.has(type) ? 'AARCH64' : 'X64';
    if (
      !ANY_ARCHITECTURE.has(type) &&
      file.header.architecture !== undefined &&
      file.header.architecture !== wanted
    )
      findings.field(
        'error',
        'igvm-platform-architecture',
        header,
        'platformType',
        `${type} is a platform of ${wanted}; the file is for ${file.header.architecture}`,
      );
  }
  if (seenTypes.size === 0)
    findings.add(
      'error',
      'igvm-no-platform',
      'the file declares no platform',
      file.header.variableHeaderOffset,
      0,
    );
}

/** Reserved fields that the igvm crate requires to be zero; the others are ours to warn about. */
const CRATE_CHECKS: ReadonlySet<string> = new Set([
  'GUEST_POLICY.reserved',
  'CCA_POLICY.reserved',
  'CCA_POLICY.reserved2',
  'PAGE_TABLE_RELOCATION.reserved',
  'CORIM_DOCUMENT.reserved',
  'CORIM_SIGNATURE.reserved',
  'PAGE_DATA.reserved',
  'REQUIRED_MEMORY.reserved',
]);

const reservedCache = new Map<Structure, readonly string[]>();
function reservedFields(table: Structure): readonly string[] {
  let names = reservedCache.get(table);
  if (!names) {
    names = table.fields.map((field) => field.name).filter((name) => /reserved/i.test(name));
    reservedCache.set(table, names);
  }
  return names;
}

function checkReserved(header: IgvmHeader, findings: Findings): void {
  if (header.type === 'UNKNOWN' || header.type === 'VERSION_STRING') return;
  const values = header as unknown as Readonly<Record<string, number | Uint8Array>>;
  for (const name of reservedFields(specOf(header.type).structure)) {
    const value = values[name]!;
    const zero = typeof value === 'number' ? value === 0 : value.every((byte) => byte === 0);
    if (!zero) {
      const severity = CRATE_CHECKS.has(`${header.type}.${name}`) ? 'error' : 'warning';
      findings.field(severity, 'igvm-reserved', header, name, 'a reserved field must be zero');
    }
  }
}

function checkMask(header: IgvmHeader, declared: number, findings: Findings): void {
  if (!('compatibilityMask' in header) || header.type === 'SUPPORTED_PLATFORM') return;
  const extra = (header.compatibilityMask & ~declared) >>> 0;
  if (header.compatibilityMask === 0)
    findings.field('hint', 'igvm-mask', header, 'compatibilityMask', 'mask 0: no platform loads this');
  else if (extra !== 0)
    findings.field(
      'hint',
      'igvm-mask',
      header,
      'compatibilityMask',
      `no platform is declared for mask ${hex(extra)}`,
    );
}

function checkUnknown(header: Extract<IgvmHeader, { type: 'UNKNOWN' }>, findings: Findings): void {
  if (header.name !== undefined) return; // Its wrong length is already reported.
  const what = `header type ${hex(header.rawType)} is not known`;
  if (header.ignorable)
    findings.header('info', 'igvm-unknown-header', header, `${what}; its optional bit lets a loader skip it`);
  else
    findings.header(
      'error',
      'igvm-unknown-header',
      header,
      `${what} and not optional: a loader refuses the file`,
    );
}

function checkData(header: IgvmHeader, { file, byMask, findings }: ValidationContext): void {
  const claim = claimedData(file.bytes, header, byMask);
  if (!claim) return;
  const dataStart = file.header.variableHeaderOffset + file.header.variableHeaderSize;
  if (claim.fileOffset < dataStart)
    findings.field(
      'error',
      'igvm-data-range',
      header,
      'fileOffset',
      `file offset ${hex(claim.fileOffset)} is before the file data, which starts at ${hex(dataStart)}`,
    );
  const end = claim.fileOffset + claim.length;
  if (end <= file.bytes.length) return;
  // The igvm crate (and QEMU with it) takes the first 4 KiB of a 2 MiB page only.
  const severity =
    header.type === 'PAGE_DATA' && claim.fileOffset + 4096 <= file.bytes.length ? 'warning' : 'error';
  findings.field(
    severity,
    'igvm-data-range',
    header,
    'fileOffset',
    `the data would end at ${hex(end)}; the file ends at ${hex(file.bytes.length)}`,
  );
}

function isUtf8(bytes: Uint8Array): boolean {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  try {
    for (let at = 0; at < bytes.length; at += 1 << 16)
      decoder.decode(bytes.subarray(at, at + (1 << 16)), { stream: true });
    decoder.decode();
    return true;
  } catch {
    return false;
  }
}

/** A header that is neither unknown nor free text. */
export type Ruled = Exclude<IgvmHeader, { type: 'UNKNOWN' | 'VERSION_STRING' }>;
export type Of<T extends Ruled['type']> = Extract<Ruled, { type: T }>;
