import type { Severity } from '../base/index.ts';

/** URI scheme of listing documents; see {@link listingUri}. */
export const LISTING_SCHEME = 'igvm-listing';
/** Language id of listing documents. */
export const LISTING_LANGUAGE = 'igvm-listing';

/** Requests of the client beyond LSP, all about an IGVM file by its own URI (not its listing's). */
export const ListingRequest = 'cvm/listing';
export const SummaryRequest = 'cvm/summary';
/** Where a guest-physical address is in a file's listing. */
export const AddressRequest = 'cvm/address';
/** Notification of the client: the file's bytes changed, forget what is known of it. */
export const ChangedNotification = 'cvm/changed';
/** Request of the server, for files it cannot read itself: `{ uri, maxBytes }` -> `{ base64 }`. */
export const ReadFileRequest = 'cvm/readFile';

export interface FileParams {
  readonly uri: string;
}
export interface AddressParams extends FileParams {
  /** As a person writes it. */
  readonly address: string;
}
export interface AddressResult {
  /** Zero-based line of the listing; absent if the file has nothing there, or the address is none. */
  readonly line?: number;
}
export interface ListingResult {
  readonly text: string;
}
export interface ReadFileParams extends FileParams {
  readonly maxBytes: number;
}
export interface ReadFileResult {
  readonly base64: string;
}

/** Largest IGVM file read into memory, in bytes. */
export const MAX_IGVM_BYTES = 1024 * 1024 * 1024;

/**
 * URI of the listing of the IGVM file at `source`: the same path with the listing's extension, so
 * that tabs and language association work, and the file's own URI as query.
 */
export function listingUri(source: string): string {
  const path = source.replace(/^[a-z][a-z0-9+.-]*:(\/\/[^/]*)?/i, '').replace(/[?#].*$/, '');
  const named = path.replace(/\.igvm$/i, '');
  return `${LISTING_SCHEME}:${named}.igvm-listing?${encodeURIComponent(source)}`;
}

/** URI of the IGVM file a listing document shows; undefined for any other URI. */
export function sourceOfListing(uri: string): string | undefined {
  if (!uri.startsWith(`${LISTING_SCHEME}:`)) return undefined;
  const query = /\?([^#]*)/.exec(uri)?.[1];
  return query === undefined ? undefined : decodeURIComponent(query);
}

/** What the custom editor shows; plain data, numbers beyond 2^53 as hexadecimal strings. */
export interface IgvmSummary {
  readonly fileBytes: number;
  readonly header?: {
    readonly version: number;
    readonly architecture: string;
    readonly pageSize: number;
    readonly crc: string;
    readonly crcValid: boolean;
    readonly directives: number;
    /** Size of the variable headers and of the page contents, in bytes. */
    readonly headerBytes: number;
    readonly dataBytes: number;
  };
  readonly versionString?: string;
  readonly platforms: readonly PlatformSummary[];
  readonly diagnostics: readonly SummaryDiagnostic[];
}

export interface SummaryDiagnostic {
  readonly severity: Severity;
  readonly code: string;
  readonly message: string;
  readonly offset: number;
  /** Zero-based line in the listing. */
  readonly line?: number;
}

export interface PlatformSummary {
  /** Compatibility mask of the directives that apply: one bit. */
  readonly mask: number;
  /** Field name of the platform type in `igvm_defs`, e.g. `SEV_SNP`. */
  readonly type: string;
  readonly title: string;
  readonly highestVtl: number;
  readonly sharedGpaBoundary: string;
  /** Expected launch digest, lower-case hexadecimal; or why there is none. */
  readonly digest?: string;
  readonly digestAlgorithm?: string;
  readonly digestProblem?: string;
  readonly policy?: PolicySummary;
  readonly idBlock?: IdBlockSummary;
  readonly processors: readonly ProcessorSummary[];
  readonly regions: readonly RegionSummary[];
}

export interface PolicySummary {
  readonly value: string;
  /** Minimum firmware ABI the guest accepts, `major.minor`. */
  readonly abi: string;
  readonly bits: readonly { readonly name: string; readonly set: boolean; readonly meaning: string }[];
}

export interface IdBlockSummary {
  readonly launchDigest: string;
  /** Whether the digest the block was signed for is this file's. */
  readonly matches?: boolean;
  readonly familyId: string;
  readonly imageId: string;
  readonly guestSvn: number;
  readonly policy?: string;
  readonly authorKey: boolean;
}

export interface ProcessorSummary {
  readonly index: number;
  readonly gpa: string;
  /** Guest state in one line: mode and entry point. */
  readonly description: string;
}

/** A kind of page in the memory map; each has its own colour. */
export type RegionKind =
  | 'data'
  | 'zero'
  | 'unmeasured'
  | 'shared'
  | 'secrets'
  | 'cpuid'
  | 'vmsa'
  | 'parameter'
  | 'required'
  | 'error';

export interface RegionSummary {
  readonly kind: RegionKind;
  /** First address and address after the last, hexadecimal with `0x`. */
  readonly start: string;
  readonly end: string;
  readonly pages: number;
  readonly title: string;
  /** Zero-based line in the listing. */
  readonly line?: number;
}
