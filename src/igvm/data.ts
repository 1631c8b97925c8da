/** Where the file data of a header is and how long it ought to be. */
import { LARGE_PAGE_SIZE, PAGE_DATA_FLAGS, PAGE_SIZE } from './tables.ts';
import type { PlatformType } from './tables.ts';
import { VBS_VP_CONTEXT_HEADER, VBS_VP_CONTEXT_REGISTER } from './contexts.ts';
import { readNumber } from './codec.ts';
import type { DataRange, IgvmHeader, StructuredHeader } from './types.ts';

/** File offset and byte count that a header claims; `undefined` if it names no data (`file_offset` 0). */
export function claimedData(
  bytes: Uint8Array,
  header: IgvmHeader,
  byMask: ReadonlyMap<number, PlatformType>,
): { fileOffset: number; length: number } | undefined {
  switch (header.type) {
    case 'PAGE_DATA':
      if (header.fileOffset === 0) return undefined;
      return {
        fileOffset: header.fileOffset,
        length: header.flags & PAGE_DATA_FLAGS.is2mbPage ? LARGE_PAGE_SIZE : PAGE_SIZE,
      };
    case 'PARAMETER_AREA':
      if (header.fileOffset === 0) return undefined;
      return { fileOffset: header.fileOffset, length: Number(header.numberOfBytes) };
    case 'CORIM_DOCUMENT':
    case 'CORIM_SIGNATURE':
      if (header.fileOffset === 0) return undefined;
      return { fileOffset: header.fileOffset, length: header.sizeBytes };
    case 'VP_CONTEXT':
      if (header.fileOffset === 0) return undefined;
      return { fileOffset: header.fileOffset, length: contextLength(bytes, header, byMask) };
    default:
      return undefined;
  }
}

/** `claimedData`, clipped to the file. */
export function dataRange(
  bytes: Uint8Array,
  header: IgvmHeader,
  byMask: ReadonlyMap<number, PlatformType>,
): DataRange | undefined {
  const claim = claimedData(bytes, header, byMask);
  if (!claim || claim.fileOffset >= bytes.length) return undefined;
  const length = Math.min(claim.length, bytes.length - claim.fileOffset);
  return length > 0 ? { fileOffset: claim.fileOffset, length } : undefined;
}

/** A VBS context says how many registers it has; every other platform's context is one 4 KiB page. */
function contextLength(
  bytes: Uint8Array,
  header: StructuredHeader<'VP_CONTEXT'>,
  byMask: ReadonlyMap<number, PlatformType>,
): number {
  if (byMask.get(header.compatibilityMask) !== 'VSM_ISOLATION') return PAGE_SIZE;
  if (header.fileOffset + VBS_VP_CONTEXT_HEADER.size > bytes.length) return VBS_VP_CONTEXT_HEADER.size;
  const count = readNumber(bytes, VBS_VP_CONTEXT_HEADER, 'registerCount', header.fileOffset);
  return VBS_VP_CONTEXT_HEADER.size + count * VBS_VP_CONTEXT_REGISTER.size;
}
