/** Building an IGVM file from scratch. */
import { CvmError } from '../base/index.ts';
import { blankHeader, specOf, writeFields } from './codec.ts';
import { crc32 } from './crc32.ts';
import { bodyLength, paddingLength, writeHeader } from './write.ts';
import {
  ARCHITECTURES,
  IGVM_FIXED_HEADER,
  IGVM_FIXED_HEADER_V2,
  IGVM_MAGIC,
  OPTIONAL_BIT,
  PAGE_DATA_FLAGS,
  PAGE_DATA_TYPES,
  PAGE_SIZE,
  PLATFORM_TYPES,
  VERSION_STRING_TYPE,
} from './tables.ts';
import type { Architecture, PageDataType, ParameterType, PlatformType } from './tables.ts';
import type { HeaderFields, IgvmHeader, Section, StructuredHeader, StructuredType } from './types.ts';

export interface BuilderOptions {
  /** Default 1. */
  readonly version?: 1 | 2;
  /** Default X64; AARCH64 needs version 2. */
  readonly architecture?: Architecture;
}

export interface HeaderOptions {
  /** File data; its place goes into `fileOffset` (and its size into `sizeBytes` where there is such a field). */
  readonly data?: Uint8Array;
  /** Sets bit 31 of the type. */
  readonly ignorable?: boolean;
}

interface Entry {
  readonly header: IgvmHeader;
  readonly data: Uint8Array | undefined;
}

const SECTIONS: readonly Section[] = ['platform', 'initialization', 'directive'];
const sectionFor = (type: number): Section =>
  type <= 0x100 ? 'platform' : type <= 0x300 ? 'initialization' : 'directive';

/**
 * A header on its own, for `IgvmBuilder` or to put among the headers given to `writeIgvm`. Fields that are
 * not given are zero.
 */
export function makeHeader<T extends StructuredType>(
  type: T,
  fields: Partial<HeaderFields<T>>,
  ignorable = false,
): StructuredHeader<T> {
  const spec = specOf(type);
  const header = Object.assign(blankHeader(type), common(spec.type, ignorable));
  for (const field of spec.structure.fields)
    if (field.type === 'bytes') header[field.name] = new Uint8Array(field.size);
  for (const [name, value] of Object.entries(fields)) {
    spec.structure.field(name);
    if (value !== undefined) header[name] = value;
  }
  return header as unknown as StructuredHeader<T>;
}

const common = (type: number, ignorable: boolean) => ({
  index: -1,
  section: sectionFor(type),
  rawType: type + (ignorable ? OPTIONAL_BIT : 0),
  ignorable,
  offset: 0,
  length: 0,
  padding: undefined,
  data: undefined,
});

/**
 * Collects headers and lays out a file: the three sections in order (each in the order of the calls), then
 * the file data in the order of the headers, each piece once for each header that brings it. The caller
 * decides what is valid; `parseIgvm` of the result says what is not.
 */
export class IgvmBuilder {
  readonly version: 1 | 2;
  readonly architecture: Architecture;
  private readonly entries: Entry[] = [];

  /** @throws CvmError `igvm-version` for an AARCH64 file of version 1. */
  constructor(options: BuilderOptions = {}) {
    this.version = options.version ?? 1;
    this.architecture = options.architecture ?? 'X64';
    if (this.version === 1 && this.architecture !== 'X64')
      throw new CvmError('igvm-version', 'a version 1 file is always X64; ask for version 2');
  }

  /** Any header by its name in `HEADERS`; fields not given are zero. */
  add<T extends StructuredType>(
    type: T,
    fields: Partial<HeaderFields<T>>,
    options: HeaderOptions = {},
  ): this {
    const header = makeHeader(type, fields, options.ignorable) as unknown as IgvmHeader;
    this.entries.push({ header, data: options.data });
    return this;
  }

  /** Any header by number, with a body of any bytes; `rawType` may have bit 31 set. */
  raw(rawType: number, body: Uint8Array): this {
    const type = rawType % OPTIONAL_BIT;
    const header = {
      ...common(type, rawType >= OPTIONAL_BIT),
      type: 'UNKNOWN',
      name: undefined,
      body,
    } as const;
    this.entries.push({ header, data: undefined });
    return this;
  }

  platform(
    type: PlatformType,
    compatibilityMask: number,
    fields: { highestVtl?: number; sharedGpaBoundary?: bigint; platformVersion?: number } = {},
  ): this {
    return this.add('SUPPORTED_PLATFORM', {
      compatibilityMask,
      platformType: PLATFORM_TYPES.indexOf(type),
      platformVersion: 1,
      ...fields,
    });
  }

  guestPolicy(policy: bigint, compatibilityMask: number): this {
    return this.add('GUEST_POLICY', { policy, compatibilityMask });
  }

  versionString(text: string): this {
    return this.raw(VERSION_STRING_TYPE, new TextEncoder().encode(text));
  }

  /** PAGE_DATA of one 4 KiB page; shorter data is padded with zeros, none means no file data. */
  page(
    gpa: bigint,
    compatibilityMask: number,
    data?: Uint8Array,
    kind: { dataType?: PageDataType; unmeasured?: boolean; shared?: boolean } = {},
  ): this {
    const flags =
      (kind.unmeasured ? PAGE_DATA_FLAGS.unmeasured : 0) | (kind.shared ? PAGE_DATA_FLAGS.shared : 0);
    const dataType = PAGE_DATA_TYPES.indexOf(kind.dataType ?? 'NORMAL');
    return this.add('PAGE_DATA', { gpa, compatibilityMask, flags, dataType }, { data: data && padded(data) });
  }

  /** PAGE_DATA for consecutive 4 KiB pages from `gpa` on, the last one padded with zeros. */
  pages(
    gpa: bigint,
    compatibilityMask: number,
    data: Uint8Array,
    kind: { dataType?: PageDataType; unmeasured?: boolean; shared?: boolean } = {},
  ): this {
    for (let at = 0; at < data.length; at += PAGE_SIZE)
      this.page(gpa + BigInt(at), compatibilityMask, data.subarray(at, at + PAGE_SIZE), kind);
    return this;
  }

  /** VP_CONTEXT; the data is padded to 4 KiB unless `unpadded` (VBS registers). */
  vpContext(
    gpa: bigint,
    compatibilityMask: number,
    data: Uint8Array,
    options: { vpIndex?: number; unpadded?: boolean } = {},
  ): this {
    return this.add(
      'VP_CONTEXT',
      { gpa, compatibilityMask, vpIndex: options.vpIndex ?? 0 },
      { data: options.unpadded ? data : padded(data) },
    );
  }

  parameterArea(parameterAreaIndex: number, numberOfBytes: bigint, initialData?: Uint8Array): this {
    return this.add('PARAMETER_AREA', { parameterAreaIndex, numberOfBytes }, { data: initialData });
  }

  parameter(type: ParameterType, parameterAreaIndex: number, byteOffset = 0): this {
    return this.add(type, { parameterAreaIndex, byteOffset });
  }

  parameterInsert(gpa: bigint, compatibilityMask: number, parameterAreaIndex: number): this {
    return this.add('PARAMETER_INSERT', { gpa, compatibilityMask, parameterAreaIndex });
  }

  requiredMemory(gpa: bigint, compatibilityMask: number, numberOfBytes: number, flags = 0): this {
    return this.add('REQUIRED_MEMORY', { gpa, compatibilityMask, numberOfBytes, flags });
  }

  /** @throws CvmError `igvm-too-large` if the file would exceed 4 GiB. */
  build(): Uint8Array {
    const entries = SECTIONS.flatMap((section) =>
      this.entries.filter((entry) => entry.header.section === section),
    );
    const table = this.version === 1 ? IGVM_FIXED_HEADER : IGVM_FIXED_HEADER_V2;
    let variableHeaderSize = 0;
    for (const { header } of entries) variableHeaderSize += 8 + bodyLength(header) + paddingLength(header);
    const dataStart = table.size + variableHeaderSize;
    let total = dataStart;
    for (const { data } of entries) total += data?.length ?? 0;
    if (total > 0xffff_ffff)
      throw new CvmError('igvm-too-large', `the file would have ${total} bytes; the format's limit is 4 GiB`);

    const out = new Uint8Array(total);
    let at = table.size;
    let dataAt = dataStart;
    for (const { header, data } of entries) {
      let placed = header;
      if (data) {
        placed = { ...header, fileOffset: dataAt } as IgvmHeader;
        if (placed.type === 'CORIM_DOCUMENT' || placed.type === 'CORIM_SIGNATURE')
          placed = { ...placed, sizeBytes: data.length };
        out.set(data, dataAt);
        dataAt += data.length;
      }
      at = writeHeader(out, at, placed, (offset) => offset);
    }
    writeFields(table, out, 0, {
      magic: IGVM_MAGIC,
      formatVersion: this.version,
      variableHeaderOffset: table.size,
      variableHeaderSize,
      totalFileSize: total,
      checksum: 0,
      architecture: ARCHITECTURES.indexOf(this.architecture),
      pageSize: PAGE_SIZE,
    });
    writeFields(table, out, 0, { checksum: crc32(out.subarray(0, dataStart)) });
    return out;
  }
}

function padded(data: Uint8Array): Uint8Array {
  if (data.length % PAGE_SIZE === 0 && data.length > 0) return data;
  const page = new Uint8Array(Math.max(1, Math.ceil(data.length / PAGE_SIZE)) * PAGE_SIZE);
  page.set(data);
  return page;
}
