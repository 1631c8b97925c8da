import type { IgvmFile } from '../igvm/index.ts';
import type { Listing } from './text.ts';

/** Line that shows a header; headers are in order on the lines, so by binary search. */
export function lineOfHeader({ lines }: Listing, index: number): number | undefined {
  let low = 0;
  let high = lines.length - 1;
  let found: number | undefined;
  while (low <= high) {
    const middle = (low + high) >> 1;
    // Lines without headers stand in the way: look left to the nearest that has one.
    let at = middle;
    while (at >= low && lines[at]!.kind !== 'directive') at--;
    if (at < low) {
      low = middle + 1;
      continue;
    }
    const line = lines[at]!;
    if (index < line.first) high = at - 1;
    else if (index > line.last) low = middle + 1;
    else {
      found = at;
      break;
    }
  }
  return found;
}

/** Line that a finding at a file offset belongs to: its header's, or that of the fixed header. */
export function lineOfOffset(file: IgvmFile, listing: Listing, offset: number): number {
  const { headers, unread } = file;
  const firstHeader = headers[0]?.offset ?? unread.fileOffset;
  if (offset < firstHeader || headers.length === 0) return fixedHeaderLine(listing);
  if (unread.length > 0 && offset >= unread.fileOffset) {
    const last = listing.lines.length - 1;
    if (listing.lines[last]?.kind === 'unread') return last;
  }
  let low = 0;
  let high = headers.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (headers[middle]!.offset <= offset) low = middle;
    else high = middle - 1;
  }
  return lineOfHeader(listing, low) ?? fixedHeaderLine(listing);
}

const fixedHeaderLine = ({ lines }: Listing) =>
  Math.max(
    0,
    lines.findIndex(({ kind }) => kind === 'file'),
  );
