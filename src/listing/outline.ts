import { hex } from '../base/index.ts';
import { PAGE_SIZE } from '../igvm/index.ts';
import type { IgvmHeader } from '../igvm/index.ts';
import { columnsOf, pageKind } from './columns.ts';
import type { Image } from './image.ts';
import type { Listing } from './text.ts';

export type OutlineKind = 'section' | 'pages' | 'processor' | 'parameter' | 'platform' | 'other';

export interface OutlineEntry {
  readonly name: string;
  readonly detail: string;
  readonly kind: OutlineKind;
  /** Zero-based lines, both ends included. */
  readonly first: number;
  readonly last: number;
  readonly children: readonly OutlineEntry[];
}

export interface Fold {
  readonly first: number;
  readonly last: number;
}

/** Consecutive lines of adjacent pages of one kind: what a reader sees as one thing. */
function runEnd({ lines }: Listing, first: number): number {
  let last = first;
  for (let next = lines[first + 1]; next; next = lines[last + 1]) {
    const line = lines[last]!;
    if (next.runKey === undefined || next.runKey !== line.runKey || next.start !== line.end) break;
    last++;
  }
  return last;
}

/** Sections with what they hold; a run of adjacent pages is one entry. */
export function outline(image: Image, listing: Listing): OutlineEntry[] {
  const { lines } = listing;
  const sections: OutlineEntry[] = [];
  for (let line = 0; line < lines.length; line++) {
    if (lines[line]!.kind !== 'title') continue;
    let end = line;
    while (end + 1 < lines.length && !['title', 'blank'].includes(lines[end + 1]!.kind)) end++;
    const children: OutlineEntry[] = [];
    for (let at = line + 1; at <= end;) {
      const last = runEnd(listing, at);
      children.push(entry(image, listing, at, last));
      at = last + 1;
    }
    const name = sectionName(image, listing, line);
    sections.push({ name, detail: '', kind: 'section', first: line, last: end, children });
  }
  return sections;
}

function sectionName(image: Image, { lines }: Listing, line: number): string {
  const header = image.file.headers[lines[line]!.first];
  if (!header) return 'File';
  return { platform: 'Platforms', initialization: 'Initialization', directive: 'Directives' }[header.section];
}

function entry(image: Image, { lines }: Listing, first: number, last: number): OutlineEntry {
  const line = lines[first]!;
  const common = { first, last, children: [] };
  const header = image.file.headers[line.first];
  if (!header)
    return { ...common, name: line.kind === 'file' ? 'Fixed header' : 'Unread', detail: '', kind: 'other' };
  if (header.type === 'PAGE_DATA' && line.start !== undefined) {
    const end = lines[last]!.end!;
    const pages = (end - line.start) / BigInt(PAGE_SIZE);
    return {
      ...common,
      name: `${hex(line.start, 12)} ${pageKind(header)}`,
      detail: `${pages} ${pages === 1n ? 'page' : 'pages'}`,
      kind: 'pages',
    };
  }
  return {
    ...common,
    name: header.type,
    detail: columnsOf(header, '').filter(Boolean).slice(0, 3).join('  '),
    kind: kindOf(header),
  };
}

function kindOf(header: IgvmHeader): OutlineKind {
  if (header.type === 'VP_CONTEXT') return 'processor';
  if (header.type === 'SUPPORTED_PLATFORM') return 'platform';
  return 'parameterAreaIndex' in header ? 'parameter' : 'other';
}

/** Sections, and runs of at least four lines of pages. */
export function folds(listing: Listing): Fold[] {
  const { lines } = listing;
  const found: Fold[] = [];
  for (let line = 0; line < lines.length;) {
    if (lines[line]!.kind === 'title') {
      let end = line;
      while (end + 1 < lines.length && !['title', 'blank'].includes(lines[end + 1]!.kind)) end++;
      if (end > line) found.push({ first: line, last: end });
    }
    const last = runEnd(listing, line);
    if (last - line >= 3) found.push({ first: line, last });
    line = last + 1;
  }
  return found;
}
