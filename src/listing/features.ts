/** What the editor adds to a listing's text: tokens, digests at the end of lines, a lens per platform, addresses. */
import { bytesToHex, hex } from '../base/index.ts';
import {
  LARGE_PAGE_SIZE,
  PAGE_DATA_FLAGS,
  PAGE_DATA_TYPES,
  PAGE_SIZE,
  PLATFORM_TYPES,
} from '../igvm/index.ts';
import type { IgvmHeader } from '../igvm/index.ts';
import type { DigestStep, DigestTrace } from '../measure/index.ts';
import type { Image } from './image.ts';
import { lineOfHeader } from './places.ts';
import type { Listing } from './text.ts';

export const TOKEN_TYPES = ['comment', 'keyword', 'number', 'string', 'enumMember', 'modifier'] as const;

export interface Token {
  readonly line: number;
  readonly start: number;
  readonly length: number;
  /** Index in `TOKEN_TYPES`. */
  readonly type: number;
}

const ENUM_MEMBERS = [...PAGE_DATA_TYPES, ...PLATFORM_TYPES, 'X64', 'AARCH64'].join('|');
const TOKEN = new RegExp(
  [
    `(?<comment>^#.*)`,
    `(?<keyword>^[A-Z][A-Z0-9_]*\\??)`,
    `(?<string>"(?:[^"\\\\]|\\\\.)*")`,
    `(?<number>\\b0x[0-9a-f]+\\b|(?<=sha384 )[0-9a-f]+)`,
    `(?<enumMember>\\b(?:${ENUM_MEMBERS})\\b)`,
    `(?<modifier>\\b(?:unmeasured|shared|2M|zeros|missing)\\b)`,
  ].join('|'),
  'g',
);

/** Tokens of some lines (`last` included), in order. */
export function semanticTokens(lines: readonly string[], first = 0, last = lines.length - 1): Token[] {
  const tokens: Token[] = [];
  for (let line = first; line <= Math.min(last, lines.length - 1); line++)
    for (const match of lines[line]!.matchAll(TOKEN)) {
      const type = TOKEN_TYPES.findIndex((name) => match.groups?.[name] !== undefined);
      if (match[0].length > 0) tokens.push({ line, start: match.index, length: match[0].length, type });
    }
  return tokens;
}

const stepIndices = new WeakMap<DigestTrace, Map<number, number>>();

/** The last step of a directive, by an index made once. */
function stepOf(steps: DigestTrace, directive: number): DigestStep | undefined {
  let indices = stepIndices.get(steps);
  if (!indices) {
    indices = new Map();
    for (let index = 0; index < steps.length; index++) indices.set(steps.at(index)!.directive, index);
    stepIndices.set(steps, indices);
  }
  const index = indices.get(directive);
  return index === undefined ? undefined : steps.at(index);
}

export interface InlayDigest {
  readonly line: number;
  /** Behind the line. */
  readonly label: string;
  readonly tooltip: string;
}

/** The SNP launch digest after each directive that adds to it, for lines `first` to `last`. */
export function inlayDigests(image: Image, listing: Listing, first: number, last: number): InlayDigest[] {
  const platform = image.platforms.find(({ platform: { platformType } }) => platformType === 'SEV_SNP');
  const measured = platform?.measurement;
  if (!platform || !measured || 'problem' in measured || !measured.steps) return [];
  const found: InlayDigest[] = [];
  for (let line = first; line <= Math.min(last, listing.lines.length - 1); line++) {
    const at = listing.lines[line]!;
    const step = at.kind === 'directive' ? stepOf(measured.steps, at.last) : undefined;
    if (!step) continue;
    const digest = bytesToHex(step.digest);
    const tooltip = `${platform.title} launch digest after this directive:\n${digest}`;
    found.push({ line, label: `→ ${digest.slice(0, 12)}`, tooltip });
  }
  return found;
}

export interface PlatformLens {
  readonly line: number;
  readonly title: string;
  readonly mask: number;
  readonly digest: string | undefined;
  readonly launchable: boolean;
}

/** One lens for each platform that is measured, above its SUPPORTED_PLATFORM. */
export function platformLenses(image: Image, listing: Listing): PlatformLens[] {
  return image.platforms.flatMap((platform): PlatformLens[] => {
    const line = lineOfHeader(listing, platform.platform.directive);
    const { measurement, mask } = platform;
    if (line === undefined || !measurement) return [];
    const launchable = platform.platform.platformType === 'SEV_SNP';
    if ('problem' in measurement)
      return [{ line, title: `no digest: ${measurement.problem}`, mask, digest: undefined, launchable }];
    const digest = bytesToHex(measurement.digest);
    const title = `${measurement.name} ${digest.slice(0, 16)}…`;
    return [{ line, title, mask, digest, launchable }];
  });
}

export interface AddressHit {
  readonly line: number;
  /** First address of what was found. */
  readonly gpa: bigint;
  readonly name: string;
}

/** A guest-physical address as a person writes it; `undefined` if it is none. */
export function parseAddress(text: string): bigint | undefined {
  const digits = text.trim().replaceAll('_', '').replaceAll('`', '');
  const match = /^(?:gpa:)?(?:0x)?([0-9a-f]{1,16})h?$/i.exec(digits);
  return match ? BigInt(`0x${match[1]}`) : undefined;
}

function sizeOf(header: IgvmHeader, areas: ReadonlyMap<number, bigint>): bigint {
  switch (header.type) {
    case 'PAGE_DATA':
      return BigInt(header.flags & PAGE_DATA_FLAGS.is2mbPage ? LARGE_PAGE_SIZE : PAGE_SIZE);
    case 'PARAMETER_INSERT':
      return areas.get(header.parameterAreaIndex) ?? BigInt(PAGE_SIZE);
    case 'REQUIRED_MEMORY':
      return BigInt(header.numberOfBytes);
    case 'ERROR_RANGE':
      return BigInt(header.sizeBytes);
    case 'PAGE_TABLE_RELOCATION':
      return header.size;
    default:
      return BigInt(PAGE_SIZE);
  }
}

/** Every directive whose memory has the address: pages first, then what only names memory. */
export function findAddress(image: Image, listing: Listing, gpa: bigint, most = 50): AddressHit[] {
  const areas = new Map<number, bigint>();
  const hits: (AddressHit & { page: boolean })[] = [];
  for (const header of image.file.headers) {
    if (header.type === 'PARAMETER_AREA') areas.set(header.parameterAreaIndex, header.numberOfBytes);
    if (!('gpa' in header) || gpa < header.gpa || gpa >= header.gpa + sizeOf(header, areas)) continue;
    const line = lineOfHeader(listing, header.index);
    if (line === undefined) continue;
    const page = header.type !== 'REQUIRED_MEMORY';
    hits.push({ line, gpa: header.gpa, name: `${hex(header.gpa, 12)} ${header.type}`, page });
    if (hits.length >= most) break;
  }
  return hits
    .sort((a, b) => Number(b.page) - Number(a.page))
    .map(({ line, gpa: at, name }) => ({ line, gpa: at, name }));
}
