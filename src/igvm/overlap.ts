/** Pages that two directives give to the same platform. */
import { hex } from '../base/index.ts';
import type { Findings } from './findings.ts';
import { LARGE_PAGE_SIZE, PAGE_DATA_FLAGS, PAGE_SIZE } from './tables.ts';
import type { IgvmHeader } from './types.ts';

/** Page numbers are below 2^52, so numbers hold them exactly. */
const pageNumber = (gpa: bigint): number => Number(gpa >> 12n);

/** Reports PAGE_DATA and PARAMETER_INSERT directives that overlap an earlier one for a platform they share. */
export function findOverlaps(headers: readonly IgvmHeader[], findings: Findings): void {
  const areas = new Map<number, bigint>();
  const starts: number[] = [];
  const ends: number[] = [];
  const masks: number[] = [];
  const sources: number[] = [];
  let allMasks = 0;
  const add = (index: number, gpa: bigint, pages: number, mask: number): void => {
    starts.push(pageNumber(gpa));
    ends.push(pageNumber(gpa) + pages);
    masks.push(mask);
    sources.push(index);
    allMasks |= mask;
  };
  for (const header of headers) {
    if (header.type === 'PARAMETER_AREA') areas.set(header.parameterAreaIndex, header.numberOfBytes);
    else if (header.type === 'PAGE_DATA')
      add(
        header.index,
        header.gpa,
        header.flags & PAGE_DATA_FLAGS.is2mbPage ? LARGE_PAGE_SIZE / PAGE_SIZE : 1,
        header.compatibilityMask,
      );
    else if (header.type === 'PARAMETER_INSERT') {
      const size = areas.get(header.parameterAreaIndex);
      if (size) add(header.index, header.gpa, pageNumber(size), header.compatibilityMask);
    }
  }
  const order = new Uint32Array(starts.length).map((_, index) => index);
  // The usual file lists its pages in rising order.
  if (starts.some((start, index) => index > 0 && start < starts[index - 1]!))
    order.sort((a, b) => starts[a]! - starts[b]!);
  const reported = new Set<number>();
  for (let bit = 0; bit < 32; bit++) {
    const mask = 1 << bit;
    if (!(allMasks & mask)) continue;
    let reach = -1;
    let reachedBy = -1;
    for (const at of order) {
      if (!(masks[at]! & mask)) continue;
      if (starts[at]! < reach) {
        const later = Math.max(sources[at]!, sources[reachedBy]!);
        if (!reported.has(later)) {
          reported.add(later);
          const gpa = BigInt(starts[at]!) << 12n;
          findings.field(
            'warning',
            'igvm-page-overlap',
            headers[later]!,
            'gpa',
            `page ${hex(gpa)} is given twice to the platform of mask ${hex(mask >>> 0)}`,
          );
        }
      }
      if (ends[at]! > reach) {
        reach = ends[at]!;
        reachedBy = at;
      }
    }
  }
}
