import type { IgvmFile } from '../igvm/index.ts';
import { lineOfHeader } from './places.ts';
import type { Listing } from './text.ts';

/** Line that declares the parameter area of the directive on `line`. */
export function definitionLine(file: IgvmFile, listing: Listing, line: number): number | undefined {
  const at = listing.lines[line];
  const header = at?.kind === 'directive' ? file.headers[at.first] : undefined;
  if (!header || !('parameterAreaIndex' in header)) return undefined;
  for (let index = header.index; index >= 0; index--) {
    const candidate = file.headers[index]!;
    if (candidate.type === 'PARAMETER_AREA' && candidate.parameterAreaIndex === header.parameterAreaIndex)
      return lineOfHeader(listing, index);
  }
  return undefined;
}
