/** What reading an IGVM file yields. */
import type { Diagnostic } from '../base/index.ts';
import type { Architecture, FieldsOf, HEADERS, PlatformType } from './tables.ts';

export type Section = 'platform' | 'initialization' | 'directive';

/** A range of the file, in absolute bytes. */
export interface DataRange {
  readonly fileOffset: number;
  readonly length: number;
}

/** What every variable header has beside its own fields. */
export interface HeaderCommon {
  /** Position among the headers of the file. */
  readonly index: number;
  readonly section: Section;
  /** The type as it stands in the file, optional bit included. */
  readonly rawType: number;
  /** Bit 31 of the type: a loader that does not know the header may skip it. */
  readonly ignorable: boolean;
  /** File offset of the type/length pair, and bytes up to the next header (padding included). */
  readonly offset: number;
  readonly length: number;
  /** The padding bytes, only where they are not the zeros the format asks for. */
  readonly padding: Uint8Array | undefined;
  /** The file data the header names, as far as the file has it; `undefined` if it names none. */
  readonly data: DataRange | undefined;
}

export type StructuredType = keyof typeof HEADERS;
/** The values of one header's fields, named as in igvm_defs but in camel case. */
export type HeaderFields<T extends StructuredType> = FieldsOf<(typeof HEADERS)[T]['rows']>;
export type StructuredHeader<T extends StructuredType> = HeaderCommon & {
  readonly type: T;
} & HeaderFields<T>;
export type AnyStructuredHeader = { [T in StructuredType]: StructuredHeader<T> }[StructuredType];

/** 0x107: a label of the file's owner. */
export interface VersionStringHeader extends HeaderCommon {
  readonly type: 'VERSION_STRING';
  readonly body: Uint8Array;
  /** `body` (its first 64 KiB) as UTF-8, damaged sequences replaced. */
  readonly text: string;
}

/** A header of unknown type, or of a known type (`name`) whose length does not fit its structure. */
export interface UnknownHeader extends HeaderCommon {
  readonly type: 'UNKNOWN';
  readonly name: StructuredType | undefined;
  readonly body: Uint8Array;
}

/** Discriminated by `type`. */
export type IgvmHeader = AnyStructuredHeader | VersionStringHeader | UnknownHeader;
export type HeaderType = IgvmHeader['type'];

/** `IGVM_FIXED_HEADER` or `IGVM_FIXED_HEADER_V2`; a version 1 file means X64 and 4 KiB pages. */
export interface FixedHeader {
  readonly magic: number;
  readonly version: number;
  /** 24 or 32. */
  readonly size: number;
  /** `undefined` for a number igvm_defs does not know; `rawArchitecture` has it. */
  readonly architecture: Architecture | undefined;
  readonly rawArchitecture: number;
  readonly pageSize: number;
  readonly variableHeaderOffset: number;
  readonly variableHeaderSize: number;
  readonly totalFileSize: number;
  /** As stored. */
  readonly crc32: number;
  /** Over the fixed header (checksum as 0) and the variable headers. */
  readonly computedCrc32: number;
}

export interface IgvmFile {
  /** The whole file. Nothing below copies it: bodies and data are views. */
  readonly bytes: Uint8Array;
  readonly header: FixedHeader;
  /** In file order. */
  readonly headers: readonly IgvmHeader[];
  /** The end of the variable headers that could not be read as headers (length 0 in a sound file). */
  readonly unread: DataRange;
  readonly diagnostics: readonly Diagnostic[];
}

/** One SUPPORTED_PLATFORM header. */
export interface Platform {
  /** `undefined` for a number igvm_defs does not know; `rawPlatformType` has it. */
  readonly platformType: PlatformType | undefined;
  readonly rawPlatformType: number;
  readonly compatibilityMask: number;
  readonly highestVtl: number;
  readonly platformVersion: number;
  readonly sharedGpaBoundary: bigint;
  /** Index in `headers`. */
  readonly directive: number;
}
