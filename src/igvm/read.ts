/** Reading an IGVM file: bytes to typed headers, whatever state the bytes are in. */
import { hex } from '../base/index.ts';
import { blankHeader, readFields, specOf, typeName } from './codec.ts';
import { crc32 } from './crc32.ts';
import { dataRange } from './data.ts';
import { Findings } from './findings.ts';
import {
  ARCHITECTURES,
  IGVM_FIXED_HEADER,
  IGVM_FIXED_HEADER_V2,
  IGVM_MAGIC,
  OPTIONAL_BIT,
  PAGE_SIZE,
  VERSION_STRING_TYPE,
} from './tables.ts';
import type { DataRange, FixedHeader, HeaderCommon, IgvmFile, IgvmHeader, Section } from './types.ts';
import { platformMap } from './platforms.ts';
import { validate } from './validate.ts';

const NOTHING: DataRange = { fileOffset: 0, length: 0 };

/**
 * Reads an IGVM file. Never throws: a damaged file yields all that can be read, and `diagnostics` say what
 * is wrong, with file offsets. Severity `error` is what the igvm crate refuses, `warning` what loaders
 * disagree about or the format forbids without a loader checking it, `hint` what is merely odd.
 * File data is not copied; memory is proportional to the number of headers.
 */
export function parseIgvm(bytes: Uint8Array): IgvmFile {
  const findings = new Findings();
  const header = readFixedHeader(bytes, findings);
  if (header.magic !== IGVM_MAGIC || bytes.length < header.size)
    return { bytes, header, headers: [], unread: NOTHING, diagnostics: findings.finish() };
  const { headers, unread } = readHeaders(bytes, header, findings);
  attachData(bytes, headers);
  const file = { bytes, header, headers, unread };
  validate(file, findings);
  return { ...file, diagnostics: findings.finish() };
}

/** The bytes a header's data range names: a view, not a copy. */
export const dataOf = (file: Pick<IgvmFile, 'bytes'>, range: DataRange): Uint8Array =>
  file.bytes.subarray(range.fileOffset, range.fileOffset + range.length);

/** Where the variable headers stand in the file, clipped to what the file has. */
export function headerSection(bytes: Uint8Array, header: FixedHeader): { start: number; end: number } {
  const start = Math.min(header.variableHeaderOffset, bytes.length);
  return { start, end: Math.min(header.variableHeaderOffset + header.variableHeaderSize, bytes.length) };
}

function readFixedHeader(bytes: Uint8Array, findings: Findings): FixedHeader {
  // A file shorter than the header reads as if zeros followed; the finding says so.
  const head = new Uint8Array(IGVM_FIXED_HEADER_V2.size);
  head.set(bytes.subarray(0, head.length));
  const raw: Record<string, number> = {};
  readFields(IGVM_FIXED_HEADER_V2, head, new DataView(head.buffer), 0, raw);
  const version = raw['formatVersion']!;
  const size = version >= 2 ? IGVM_FIXED_HEADER_V2.size : IGVM_FIXED_HEADER.size;
  const rawArchitecture = version >= 2 ? raw['architecture']! : 0;
  const header: FixedHeader = {
    magic: raw['magic']!,
    version,
    size,
    architecture: ARCHITECTURES[rawArchitecture],
    rawArchitecture,
    pageSize: version >= 2 ? raw['pageSize']! : PAGE_SIZE,
    variableHeaderOffset: raw['variableHeaderOffset']!,
    variableHeaderSize: raw['variableHeaderSize']!,
    totalFileSize: raw['totalFileSize']!,
    crc32: raw['checksum']!,
    computedCrc32: 0,
  };
  const error = (code: string, message: string, offset: number, length = 4): void =>
    findings.add('error', code, message, offset, length);
  if (bytes.length < size) {
    error(
      'igvm-truncated',
      `the file has ${bytes.length} bytes; an IGVM fixed header needs ${size}`,
      0,
      bytes.length,
    );
    return header;
  }
  if (header.magic !== IGVM_MAGIC) {
    error('igvm-bad-magic', `the file does not start with "IGVM" but with ${hex(header.magic, 8)}`, 0);
    return header;
  }
  checkFixedHeader(bytes, header, error);
  const { start, end } = headerSection(bytes, header);
  head.fill(0, 20, 24);
  const computedCrc32 = crc32(head.subarray(0, size), bytes.subarray(start, end));
  if (computedCrc32 !== header.crc32)
    error(
      'igvm-checksum',
      `the checksum is ${hex(header.crc32, 8)} but the headers give ${hex(computedCrc32, 8)}: they were changed or damaged`,
      20,
    );
  return { ...header, computedCrc32 };
}

function checkFixedHeader(
  bytes: Uint8Array,
  header: FixedHeader,
  error: (code: string, message: string, offset: number, length?: number) => void,
): void {
  if (header.version !== 1 && header.version !== 2)
    error('igvm-version', `format version ${header.version} is not known; 1 and 2 are`, 4);
  if (header.architecture === undefined)
    error('igvm-architecture', `architecture ${header.rawArchitecture} is not known`, 24);
  if (header.pageSize !== PAGE_SIZE)
    error('igvm-page-size', `page size ${header.pageSize} is not supported; 4096 is`, 28);
  if (header.totalFileSize !== bytes.length)
    error(
      'igvm-file-size',
      `the header says the file has ${header.totalFileSize} bytes; it has ${bytes.length}`,
      16,
    );
  const start = header.variableHeaderOffset;
  const end = start + header.variableHeaderSize;
  if (start < header.size)
    error('igvm-header-offset', `the variable headers start inside the fixed header, at ${hex(start)}`, 8);
  else if (start % 8 !== 0)
    error(
      'igvm-header-offset',
      `the variable headers start at ${hex(start)}, which is not a multiple of 8`,
      8,
    );
  if (end > bytes.length)
    error('igvm-header-size', `the variable headers end at ${hex(end)}, past the end of the file`, 12);
}

const SECTION_NAMES = ['platform', 'initialization', 'directive'] as const;

/** 0, 1, 2 for the three sections of `IGVM_VHT_RANGE_*`; -1 for a type in none of them. */
function sectionOf(type: number): number {
  if (type >= 0x1 && type <= 0x100) return 0;
  if (type >= 0x101 && type <= 0x200) return 1;
  return type >= 0x301 && type <= 0x400 ? 2 : -1;
}

function readHeaders(
  bytes: Uint8Array,
  fixed: FixedHeader,
  findings: Findings,
): { headers: IgvmHeader[]; unread: DataRange } {
  const headers: IgvmHeader[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { start, end } = headerSection(bytes, fixed);
  let at = start;
  let stage = 0;
  while (at < end) {
    if (end - at < 8) {
      findings.add(
        'error',
        'igvm-truncated-header',
        `${end - at} bytes are left over after the last header`,
        at,
        end - at,
      );
      break;
    }
    const rawType = view.getUint32(at, true);
    const bodyLength = view.getUint32(at + 4, true);
    if (bodyLength > end - at - 8) {
      const has = end - at - 8;
      findings.add(
        'error',
        'igvm-truncated-header',
        `a header of type ${hex(rawType)} claims ${bodyLength} bytes; ${has} are left`,
        at,
        8,
      );
      break;
    }
    const type = rawType % OPTIONAL_BIT;
    let stageHere = sectionOf(type);
    if (stageHere < 0) {
      findings.add(
        'error',
        'igvm-type-range',
        `header type ${hex(rawType)} is in no section of the format`,
        at,
        4,
      );
      stageHere = stage;
    }
    const bodyEnd = at + 8 + bodyLength;
    const next = Math.min(at + 8 + Math.ceil(bodyLength / 8) * 8, end);
    const common: HeaderCommon = {
      index: headers.length,
      section: SECTION_NAMES[stageHere] as Section,
      rawType,
      ignorable: rawType >= OPTIONAL_BIT,
      offset: at,
      length: next - at,
      padding: oddPadding(bytes, bodyEnd, next, bodyLength),
      data: undefined,
    };
    const header = readHeader(bytes, view, type, bodyLength, common, findings);
    headers.push(header);
    if (stageHere < stage)
      findings.header(
        'error',
        'igvm-section-order',
        header,
        `a ${common.section} header follows ${SECTION_NAMES[stage]} headers; the sections must come in order`,
      );
    stage = Math.max(stage, stageHere);
    if (common.padding)
      findings.add(
        'warning',
        'igvm-padding',
        'the padding after this header must be zeros up to a multiple of 8 bytes',
        bodyEnd,
        next - bodyEnd,
      );
    at = next;
  }
  return { headers, unread: { fileOffset: at, length: end - at } };
}

/** The padding between a body and the next header, if it is not what the format asks for. */
function oddPadding(bytes: Uint8Array, from: number, to: number, bodyLength: number): Uint8Array | undefined {
  if (to - from === (8 - (bodyLength % 8)) % 8) {
    let sum = 0;
    for (let i = from; i < to; i++) sum |= bytes[i]!;
    if (sum === 0) return undefined;
  }
  return bytes.subarray(from, to);
}

/** A hostile file may have one string of hundreds of megabytes. */
const TEXT_LIMIT = 1 << 16;

function readHeader(
  bytes: Uint8Array,
  view: DataView,
  type: number,
  bodyLength: number,
  common: HeaderCommon,
  findings: Findings,
): IgvmHeader {
  const at = common.offset + 8;
  const name = typeName(type);
  if (name !== undefined) {
    const table = specOf(name).structure;
    if (bodyLength === table.size) {
      const header = blankHeader(name);
      header['index'] = common.index;
      header['section'] = common.section;
      header['rawType'] = common.rawType;
      header['ignorable'] = common.ignorable;
      header['offset'] = common.offset;
      header['length'] = common.length;
      header['padding'] = common.padding;
      readFields(table, bytes, view, at, header);
      return header as unknown as IgvmHeader;
    }
    findings.add(
      'error',
      'igvm-header-length',
      `${name} has ${bodyLength} bytes; ${table.name} has ${table.size}`,
      common.offset + 4,
      4,
    );
  }
  const body = bytes.subarray(at, at + bodyLength);
  if (type === VERSION_STRING_TYPE)
    return {
      ...common,
      type: 'VERSION_STRING',
      body,
      text: new TextDecoder().decode(body.subarray(0, TEXT_LIMIT)),
    };
  return { ...common, type: 'UNKNOWN', name, body };
}

/** Second pass: what a VP context's data is depends on the platforms the file declares. */
function attachData(bytes: Uint8Array, headers: IgvmHeader[]): void {
  const byMask = platformMap(headers);
  for (const header of headers) {
    const data = dataRange(bytes, header, byMask);
    if (data) (header as { data: DataRange | undefined }).data = data;
  }
}
