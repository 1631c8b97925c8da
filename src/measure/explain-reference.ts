/** What differs between an image and a reference, in words, and whether that explains the expected digest. */
import { CvmError, bytesToHex, hex } from '../base/index.ts';
import type { IgvmFile } from '../igvm/index.ts';
import type { CauseCategory } from './explain-hypotheses.ts';
import { PageTrace } from './explain-pages.ts';
import type { Page, PageStore } from './explain-pages.ts';
import type { Search } from './explain-search.ts';
import { measureIgvm } from './measure.ts';
import type { MeasureOptions, Measurement } from './measure.ts';
import { compareTraces } from './trace-diff.ts';
import type { PageDifference, TraceEntry } from './trace-diff.ts';

/** What is known to be good. */
export type Reference =
  | { readonly kind: 'image'; readonly file: IgvmFile }
  | { readonly kind: 'trace'; readonly entries: readonly TraceEntry[] };

interface Task {
  readonly image: readonly Page[];
  readonly file: IgvmFile;
  readonly reference: Reference;
  readonly base: Measurement;
  readonly options: MeasureOptions;
  readonly search: Search;
  readonly store: PageStore;
  readonly notes: string[];
}

const contentsKey = (gpa: bigint, pageType: string, hash: Uint8Array): string =>
  `${gpa}/${pageType}/${bytesToHex(hash)}`;

/** The pages of the reference; those of a trace borrow their bytes from the image where the image has them. */
export function referencePages(
  reference: Reference,
  image: readonly Page[],
  options: MeasureOptions,
  store: PageStore,
): Page[] {
  if (reference.kind === 'image')
    return store.pages(measureIgvm(reference.file, options, store.crypto).operations);
  const known = new Map(
    image.map((page) => [contentsKey(page.gpa, page.pageType, store.contentsHash(page)), page]),
  );
  return reference.entries.map(
    ({ gpa, pageType, contentsHash, directive }) =>
      known.get(contentsKey(gpa, pageType, contentsHash)) ?? {
        gpa,
        pageType,
        data: undefined,
        contents: contentsHash,
        directive,
      },
  );
}

/** A list of pages as a trace. */
export function entriesOf(pages: readonly Page[], store: PageStore): TraceEntry[] {
  const trace = new PageTrace(store, pages);
  return pages.map((page, index) => ({
    directive: page.directive,
    gpa: page.gpa,
    pageType: page.pageType,
    contentsHash: store.contentsHash(page),
    digest: trace.after(index + 1),
  }));
}

/** Where two pages' bytes part: `byte 0x123 is 0x41, in the reference 0x40 (3 bytes differ)`. */
export function firstByte(mine: Uint8Array | undefined, other: Uint8Array | undefined): string | undefined {
  let first = -1;
  let count = 0;
  for (let i = 0; i < 4096; i++)
    if ((mine?.[i] ?? 0) !== (other?.[i] ?? 0)) {
      if (first < 0) first = i;
      count++;
    }
  if (first < 0) return undefined;
  const more = count === 1 ? 'the only byte that differs' : `${count} bytes differ`;
  return `byte ${hex(first)} is ${hex(mine?.[first] ?? 0, 2)}, in the reference ${hex(other?.[first] ?? 0, 2)} (${more})`;
}

/** Completes "the image with …": undoes the difference. */
export function differenceWords(
  { kind, gpa, image, reference }: PageDifference,
  imagePages: readonly Page[],
  referenceList: readonly Page[],
  name: (directive: number) => string,
): string {
  const mine = image === undefined ? undefined : imagePages[image]!;
  const other = reference === undefined ? undefined : referenceList[reference]!;
  const where = `${hex(gpa)}${mine ? ` (${name(mine.directive)})` : ''}`;
  switch (kind) {
    case 'contents': {
      const known = mine && other && !mine.contents && !other.contents;
      const bytes = known ? firstByte(mine.data, other.data) : undefined;
      return `the reference's contents of the page at ${where}${bytes ? `: ${bytes}` : ''}`;
    }
    case 'type':
      return `the page at ${where} of type ${other!.pageType.toUpperCase()}, as in the reference, instead of ${mine!.pageType.toUpperCase()}`;
    case 'moved':
      return `the page at ${where} in the place the reference has it (page ${reference! + 1}, here page ${image! + 1})`;
    case 'added':
      return `the page at ${where} left out, which the reference does not have`;
    case 'missing':
      return `the page at ${where} that the reference has (its directive ${other!.directive}, ${other!.pageType.toUpperCase()}) and the image lacks`;
  }
}

const CATEGORIES: Readonly<Record<PageDifference['kind'], CauseCategory>> = {
  contents: 'page-contents',
  type: 'page-type',
  moved: 'page-order',
  added: 'page-added',
  missing: 'page-missing',
};

/** Exactly two pages, each with what the other has in the reference. */
function swap(
  differences: readonly PageDifference[],
  image: readonly TraceEntry[],
  reference: readonly TraceEntry[],
): readonly [PageDifference, PageDifference] | undefined {
  const [a, b] = differences;
  if (differences.length !== 2 || a!.kind !== 'contents' || b!.kind !== 'contents') return undefined;
  const hash = (entry: TraceEntry): string => bytesToHex(entry.contentsHash);
  const crossed =
    hash(image[a!.image!]!) === hash(reference[b!.reference!]!) &&
    hash(image[b!.image!]!) === hash(reference[a!.reference!]!);
  return crossed ? [a!, b!] : undefined;
}

/** Exactly two pages in each other's place. */
function exchange(
  mine: readonly TraceEntry[],
  theirs: readonly TraceEntry[],
): readonly [number, number] | undefined {
  if (mine.length !== theirs.length) return undefined;
  const key = ({ gpa, pageType, contentsHash }: TraceEntry): string =>
    contentsKey(gpa, pageType, contentsHash);
  const odd: number[] = [];
  for (let index = 0; index < mine.length && odd.length < 3; index++)
    if (key(mine[index]!) !== key(theirs[index]!)) odd.push(index);
  const [a, b] = odd;
  if (a === undefined || b === undefined || odd.length !== 2) return undefined;
  return key(mine[a]!) === key(theirs[b]!) && key(mine[b]!) === key(theirs[a]!) ? [a, b] : undefined;
}

const MOST_WORDS = 8;

/** Whether the reference gives the expected digest, as it is or launched otherwise; then what differs is the cause. */
export function explainReference(task: Task): void {
  const { image, file, reference, base, options, search, store, notes } = task;
  const name = (directive: number): string =>
    directive < 0 ? 'no directive' : `#${directive} ${file.headers[directive]?.type ?? 'header'}`;
  let pages: Page[];
  try {
    // The reference's own platform of this type.
    const { compatibilityMask: _, ...rest } = options;
    const platformType = base.platform.platformType as MeasureOptions['platformType'];
    pages = referencePages(reference, image, { ...rest, ...(platformType && { platformType }) }, store);
  } catch (error) {
    if (!(error instanceof CvmError)) throw error;
    notes.push(`the reference cannot be measured: ${error.message}`);
    return;
  }
  const trace = new PageTrace(store, pages);
  const mine = entriesOf(image, store);
  const theirs = entriesOf(pages, store);
  const difference = compareTraces(mine, theirs);
  if (difference.first === undefined) {
    notes.push('the reference and the image are measured alike, page by page');
    return;
  }
  const changes = pageChanges(difference.pages, image, pages, mine, theirs, name);
  if (search.matches(trace.digest)) {
    search.report(changes, new PageTrace(store, image), pages);
    return;
  }
  notes.push(
    `the reference gives another digest than expected too: ${bytesToHex(trace.digest)}; it parts from the image at page ${difference.first + 1} of ${image.length}`,
  );
  // The reference, launched otherwise.
  search.within(store.limit / 8, () => {
    search.vcpus(trace, changes);
    if (!search.found) search.changes(trace, changes);
  });
  if (search.found) return;
  // One of several differences alone.
  const whole = new PageTrace(store, image);
  for (const one of difference.pages) {
    if ((one.kind !== 'contents' && one.kind !== 'type') || search.found) continue;
    const changed = [...image];
    changed[one.image!] = pages[one.reference!]!;
    if (search.matches(whole.digestOf(store, changed)))
      search.report(pageChanges([one], image, pages, mine, theirs, name), whole, changed);
  }
}

interface PageChange {
  readonly category: CauseCategory;
  readonly words: string;
  readonly directive: number;
  readonly gpa: bigint;
}

function pageChanges(
  differences: readonly PageDifference[],
  image: readonly Page[],
  reference: readonly Page[],
  mine: readonly TraceEntry[],
  theirs: readonly TraceEntry[],
  name: (directive: number) => string,
): PageChange[] {
  const directiveOf = (one: PageDifference): number =>
    one.image === undefined ? -1 : image[one.image]!.directive;
  const order = exchange(mine, theirs);
  if (order && differences.every(({ kind }) => kind === 'moved')) {
    const [a, b] = [image[order[0]]!, image[order[1]]!];
    const words = `the order of the pages at ${hex(a.gpa)} (${name(a.directive)}) and ${hex(b.gpa)} (${name(b.directive)}) swapped`;
    return [{ category: 'pages-swapped', words, directive: a.directive, gpa: a.gpa }];
  }
  const pair = swap(differences, mine, theirs);
  if (pair) {
    const [a, b] = pair;
    const words = `the contents of the pages at ${hex(a.gpa)} (${name(directiveOf(a))}) and ${hex(b.gpa)} (${name(directiveOf(b))}) swapped`;
    return [{ category: 'pages-swapped', words, directive: directiveOf(a), gpa: a.gpa }];
  }
  const changes = differences.slice(0, MOST_WORDS).map((one) => ({
    category: CATEGORIES[one.kind],
    words: differenceWords(one, image, reference, name),
    directive: directiveOf(one),
    gpa: one.gpa,
  }));
  if (differences.length > MOST_WORDS) {
    const { directive, gpa } = changes[0]!;
    const words = `${differences.length - MOST_WORDS} more pages as in the reference`;
    changes.push({ category: 'reference-image', words, directive, gpa });
  }
  return changes;
}
