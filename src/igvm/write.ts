/** Writing an IGVM file, losslessly: what was read and not changed comes out byte for byte. */
import { CvmError, hex } from '../base/index.ts';
import { specOf, writeFields } from './codec.ts';
import { crc32 } from './crc32.ts';
import { headerSection } from './read.ts';
import { IGVM_FIXED_HEADER, IGVM_FIXED_HEADER_V2, IGVM_MAGIC } from './tables.ts';
import type { IgvmFile, IgvmHeader } from './types.ts';

/** What `writeIgvm` needs: a file as read, perhaps with some of its headers replaced, added or removed. */
export type IgvmModel = Pick<IgvmFile, 'bytes' | 'header' | 'headers' | 'unread'>;

/**
 * The bytes of a file. The headers are written from their fields; the file data, the bytes between the fixed
 * and the variable headers and whatever could not be read come from `bytes`. When the headers take more or
 * less room than before, the file data moves and the `fileOffset`s that point into it move with it. A correct
 * checksum is kept correct; a wrong one is kept as it is.
 *
 * @throws CvmError `igvm-unwritable` if `header` is not that of an IGVM file or places the variable headers
 *   inside itself; `igvm-too-large` if the file would exceed 4 GiB.
 */
export function writeIgvm(model: IgvmModel): Uint8Array {
  const { bytes, header } = model;
  if (header.magic !== IGVM_MAGIC || bytes.length < header.size)
    throw new CvmError('igvm-unwritable', 'this is not an IGVM file, so it cannot be written as one');
  const { start, end } = headerSection(bytes, header);
  if (start < header.size)
    throw new CvmError(
      'igvm-unwritable',
      `the variable headers start inside the fixed header, at ${hex(start)}`,
      {
        fileOffset: 8,
      },
    );
  let size = model.unread.length;
  for (const one of model.headers) size += 8 + bodyLength(one) + paddingLength(one);
  const moved = size - (end - start);
  const total = bytes.length + moved;
  if (total > 0xffff_ffff)
    throw new CvmError('igvm-too-large', `the file would have ${total} bytes; the format's limit is 4 GiB`);

  const out = new Uint8Array(total);
  out.set(bytes.subarray(0, start));
  let at = start;
  for (const one of model.headers)
    at = writeHeader(out, at, one, (offset) => (offset >= end ? offset + moved : offset));
  out.set(bytes.subarray(model.unread.fileOffset, model.unread.fileOffset + model.unread.length), at);
  out.set(bytes.subarray(end), end + moved);

  const table = header.size === IGVM_FIXED_HEADER_V2.size ? IGVM_FIXED_HEADER_V2 : IGVM_FIXED_HEADER;
  writeFields(table, out, 0, {
    magic: header.magic,
    formatVersion: header.version,
    variableHeaderOffset: header.variableHeaderOffset,
    variableHeaderSize: header.variableHeaderSize + moved,
    totalFileSize: header.totalFileSize + moved,
    checksum: 0,
    architecture: header.rawArchitecture,
    pageSize: header.pageSize,
  });
  const checksum =
    header.crc32 === header.computedCrc32
      ? crc32(out.subarray(0, header.size), out.subarray(start, end + moved))
      : header.crc32;
  writeFields(table, out, 0, { checksum });
  return out;
}

export const bodyLength = (header: IgvmHeader): number =>
  'body' in header ? header.body.length : specOf(header.type).structure.size;

export const paddingLength = (header: IgvmHeader): number =>
  header.padding ? header.padding.length : (8 - (bodyLength(header) % 8)) % 8;

/** Writes one header at `at`; returns where the next one starts. */
export function writeHeader(
  out: Uint8Array,
  at: number,
  header: IgvmHeader,
  relocate: (fileOffset: number) => number,
): number {
  const length = bodyLength(header);
  const view = new DataView(out.buffer, out.byteOffset, out.byteLength);
  view.setUint32(at, header.rawType, true);
  view.setUint32(at + 4, length, true);
  const body = at + 8;
  if ('body' in header) out.set(header.body, body);
  else {
    writeFields(specOf(header.type).structure, out, body, header as unknown as Record<string, unknown>);
    if ('fileOffset' in header) {
      const moved = relocate(header.fileOffset);
      if (moved !== header.fileOffset)
        writeFields(specOf(header.type).structure, out, body, { fileOffset: moved });
    }
  }
  if (header.padding) out.set(header.padding, body + length);
  return body + length + paddingLength(header);
}
