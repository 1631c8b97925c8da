/** Reading a file that is not held in memory: its headers, and the small data that the headers' rules look at. */
import { CvmError } from '../base/index.ts';
import type { RandomAccess } from '../base/index.ts';
import { VBS_VP_CONTEXT_HEADER, VBS_VP_CONTEXT_REGISTER } from './contexts.ts';
import { readNumber } from './codec.ts';
import { parseIgvm } from './read.ts';
import { HEADERS, IGVM_FIXED_HEADER_V2, IGVM_MAGIC, OPTIONAL_BIT, PAGE_SIZE } from './tables.ts';
import type { IgvmFile } from './types.ts';

/** The format's own limit. */
const MAX_BYTES = 0xffff_ffff;
/** What is read of VP contexts, all together; they are a page each, VBS ones a few hundred bytes. */
const CONTEXT_LIMIT = 1 << 26;

/**
 * Reads headers and VP contexts only. `bytes` of the result is as long as the file and holds zeros wherever the file
 * has other data: memory that is never touched takes no room. Give the views of it to a `rangedCrypto` over the same
 * file, which reads what they stand for.
 *
 * @throws CvmError `file-too-large` for more than 4 GiB, and what `access.read` throws.
 */
export function parseSparseIgvm(access: RandomAccess): IgvmFile {
  if (access.size > MAX_BYTES)
    throw new CvmError('file-too-large', `the file has ${access.size} bytes; the format's limit is 4 GiB`);
  const bytes = new Uint8Array(access.size);
  const fill = (offset: number, length: number): void => {
    const end = Math.min(offset + length, bytes.length);
    if (offset < end) access.read(offset, bytes.subarray(offset, end));
  };
  fill(0, IGVM_FIXED_HEADER_V2.size);
  const view = new DataView(bytes.buffer);
  if (bytes.length < IGVM_FIXED_HEADER_V2.size || view.getUint32(0, true) !== IGVM_MAGIC)
    return parseIgvm(bytes);
  const start = view.getUint32(8, true);
  fill(start, view.getUint32(12, true));
  contexts(bytes, view, start, Math.min(start + view.getUint32(12, true), bytes.length), fill);
  return parseIgvm(bytes);
}

function contexts(
  bytes: Uint8Array,
  view: DataView,
  start: number,
  end: number,
  fill: (offset: number, length: number) => void,
): void {
  const { type, structure } = HEADERS.VP_CONTEXT;
  const fileOffset = structure.field('fileOffset').offset;
  let left = CONTEXT_LIMIT;
  for (let at = start; at + 8 <= end;) {
    const length = view.getUint32(at + 4, true);
    if (
      view.getUint32(at, true) % OPTIONAL_BIT === type &&
      length === structure.size &&
      at + 8 + length <= end
    ) {
      const offset = view.getUint32(at + 8 + fileOffset, true);
      if (offset !== 0 && left > 0) {
        fill(offset, PAGE_SIZE);
        left -= PAGE_SIZE;
        // A list of VBS registers may be longer than a page.
        if (offset + VBS_VP_CONTEXT_HEADER.size <= bytes.length) {
          const count = readNumber(bytes, VBS_VP_CONTEXT_HEADER, 'registerCount', offset);
          const size = VBS_VP_CONTEXT_HEADER.size + count * VBS_VP_CONTEXT_REGISTER.size;
          if (size > PAGE_SIZE && size <= 1 << 20) {
            fill(offset, size);
            left -= size;
          }
        }
      }
    }
    at += 8 + Math.ceil(length / 8) * 8;
  }
}
