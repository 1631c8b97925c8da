/**
 * The room of listings: an IGVM file as text a person reads and compares, with hovers, outline, folding,
 * definitions and diagnostics, and as a summary; served over LSP. It views what `igvm/` parsed and `measure/`
 * computed. It never parses bytes itself, never hashes a measurement a second way and never launches a guest.
 */
import type { Crypto } from '../base/index.ts';
import type { IgvmFile } from '../igvm/index.ts';
import { renderListing } from './text.ts';
import type { ListingOptions } from './text.ts';

export { openImage, imageDiagnostics } from './image.ts';
export type { Image, ImagePlatform, MeasurementResult } from './image.ts';
export { renderListing } from './text.ts';
export type { Listing, ListingLine, ListingOptions } from './text.ts';
export { hoverText } from './hover.ts';
export { folds, outline } from './outline.ts';
export type { Fold, OutlineEntry, OutlineKind } from './outline.ts';
export { summarize } from './summary.ts';
export { policyAbi, policyBits, policyWords } from './policy.ts';
export { hexDump } from './hexdump.ts';
export { diffImages } from './diff.ts';
export type { DigestDifference, DirectiveDifference, FieldDifference, ImageDifference } from './diff.ts';
export {
  TOKEN_TYPES,
  findAddress,
  inlayDigests,
  parseAddress,
  platformLenses,
  semanticTokens,
} from './features.ts';
export type { AddressHit, InlayDigest, PlatformLens, Token } from './features.ts';
export { startLanguageServer } from './server.ts';
export * from './protocol.ts';

/** The text of a file's listing, as the editor shows it and `cvm list` prints it. */
export const listingText = (file: IgvmFile, crypto: Crypto, options?: ListingOptions): string =>
  renderListing(file, crypto, options).text;
