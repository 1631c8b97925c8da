/**
 * The mistakes that `explain` looks for, as data: each a transformation of the list of measured pages. A
 * hypothesis of scope `all` changes the list in one of a few ways; one of scope `each` tries every page (or pair
 * of pages) in turn.
 */
import { hex } from '../base/index.ts';
import type { Page } from './explain-pages.ts';
import { VMSA_HYPOTHESES } from './explain-vmsa.ts';

/** What kind of mistake; stable words, also in JSON. */
export type CauseCategory =
  | 'loader-profile'
  | 'vcpu-count'
  | 'cpu-signature'
  | 'sev-features'
  | 'vmsa-field'
  | 'vmsa-gpa'
  | 'vmsa-set'
  | 'zero-pages'
  | 'page-type'
  | 'parameter-pages'
  | 'page-order'
  | 'pages-swapped'
  | 'page-missing'
  | 'page-added'
  | 'page-contents'
  | 'page-address'
  | 'other-platform'
  | 'ovmf-build'
  | 'vmm-type'
  | 'kernel-hashes'
  | 'launch-mode'
  | 'reference-image';

export interface Variation {
  /** Completes "the expected digest is that of the image with …". */
  readonly words: string;
  /** The first directive it concerns; -1: none in particular. */
  readonly directive: number;
  readonly gpa?: bigint;
  readonly pages: () => readonly Page[];
}

/** Names a directive in a sentence. */
export type Namer = (directive: number) => string;

export interface Hypothesis {
  readonly category: CauseCategory;
  readonly scope: 'all' | 'each';
  readonly variations: (pages: readonly Page[], name: Namer) => Iterable<Variation>;
}

/** A hypothesis that changes some pages and leaves their number and order. */
export function changePages(
  category: CauseCategory,
  words: string,
  change: (page: Page) => Page,
): Hypothesis {
  return {
    category,
    scope: 'all',
    *variations(pages) {
      const changed = pages.map(change);
      const first = changed.findIndex((page, index) => page !== pages[index]);
      if (first < 0) return;
      const { directive, gpa } = pages[first]!;
      yield { words, directive, gpa, pages: () => changed };
    },
  };
}

function reorder(words: string, order: (pages: readonly Page[]) => Page[]): Hypothesis {
  return {
    category: 'page-order',
    scope: 'all',
    *variations(pages) {
      const changed = order(pages);
      const first = changed.findIndex((page, index) => page !== pages[index]);
      if (first < 0) return;
      yield { words, directive: changed[first]!.directive, gpa: changed[first]!.gpa, pages: () => changed };
    },
  };
}

function drop(category: CauseCategory, words: string, gone: (page: Page) => boolean): Hypothesis {
  return {
    category,
    scope: 'all',
    *variations(pages) {
      const first = pages.find(gone);
      if (!first) return;
      const left = pages.filter((page) => !gone(page));
      yield { words, directive: first.directive, gpa: first.gpa, pages: () => left };
    },
  };
}

const byGpa = (a: Page, b: Page): number => (a.gpa < b.gpa ? -1 : a.gpa > b.gpa ? 1 : 0);
const isVmsa = (page: Page): boolean => page.pageType === 'vmsa';
const split = (pages: readonly Page[], last: (page: Page) => boolean): Page[] => [
  ...pages.filter((page) => !last(page)),
  ...pages.filter(last),
];
const zeros = (data: Uint8Array | undefined): boolean => !data || data.every((byte) => byte === 0);

const ALL: readonly Hypothesis[] = [
  changePages(
    'zero-pages',
    'every page without data given as type ZERO (Cloud Hypervisor on KVM and igvmmeasure --native-zero do that) instead of NORMAL',
    (page) =>
      page.pageType === 'normal' && !page.data && !page.parameter ? { ...page, pageType: 'zero' } : page,
  ),
  changePages(
    'zero-pages',
    'every page of zeros, with or without data in the file, given as type ZERO instead of NORMAL',
    (page) =>
      page.pageType === 'normal' && zeros(page.data) ? { ...page, pageType: 'zero', data: undefined } : page,
  ),
  changePages(
    'zero-pages',
    'every page without data given as type NORMAL (as QEMU does) instead of ZERO',
    (page) => (page.pageType === 'zero' ? { ...page, pageType: 'normal', data: undefined } : page),
  ),
  changePages('zero-pages', 'every page without data given as UNMEASURED', (page) =>
    !page.parameter && (page.pageType === 'zero' || (page.pageType === 'normal' && !page.data))
      ? { ...page, pageType: 'unmeasured' }
      : page,
  ),
  drop(
    'zero-pages',
    'the pages without data left out',
    (page) => !page.parameter && (page.pageType === 'zero' || (page.pageType === 'normal' && !page.data)),
  ),
  changePages('page-type', 'the unmeasured pages measured', (page) =>
    page.pageType === 'unmeasured' && !page.parameter ? { ...page, pageType: 'normal' } : page,
  ),
  changePages('parameter-pages', 'the parameter pages given as type ZERO', (page) =>
    page.parameter ? { ...page, pageType: 'zero' } : page,
  ),
  changePages('parameter-pages', 'the parameter pages measured as NORMAL pages of zeros', (page) =>
    page.parameter ? { ...page, pageType: 'normal', data: undefined } : page,
  ),
  drop('parameter-pages', 'the parameter pages left out', (page) => page.parameter === true),
  ...(['secrets', 'cpuid'] as const).flatMap((type) => [
    ...(['unmeasured', 'zero', 'normal'] as const).map((other) =>
      changePages('page-type', `the ${type} page given as type ${other.toUpperCase()}`, (page) =>
        page.pageType === type ? { ...page, pageType: other } : page,
      ),
    ),
    drop('page-missing', `the ${type} page left out`, (page) => page.pageType === type),
    reorder(`the ${type} page last, before the VMSAs only`, (pages) =>
      split(
        split(pages, (page) => page.pageType === type),
        isVmsa,
      ),
    ),
  ]),
  drop('page-missing', 'the unmeasured pages left out', (page) => page.pageType === 'unmeasured'),
  reorder('the VMSAs last, as KVM measures them at LAUNCH_FINISH', (pages) => split(pages, isVmsa)),
  reorder('the VMSAs first', (pages) => split(pages, (page) => !isVmsa(page))),
  reorder('the pages sorted by address, VMSAs last', (pages) =>
    split([...pages].sort(byGpa), (page) => isVmsa(page)),
  ),
  reorder('the pages sorted by address, VMSAs among them', (pages) => [...pages].sort(byGpa)),
  reorder('the pages sorted by address, in descending order', (pages) =>
    [...pages].sort((a, b) => byGpa(b, a)),
  ),
  reorder('the pages in reverse order', (pages) => [...pages].reverse()),
  reorder('the parameter pages before all others', (pages) => split(pages, (page) => !page.parameter)),
  reorder('the parameter pages after all others but the VMSAs', (pages) =>
    split(
      split(pages, (page) => page.parameter === true),
      isVmsa,
    ),
  ),
];

const at = (page: Page, name: Namer): string => `${hex(page.gpa)} (${name(page.directive)})`;

function replaced(pages: readonly Page[], index: number, ...by: Page[]): Page[] {
  return [...pages.slice(0, index), ...by, ...pages.slice(index + 1)];
}

function swapped(pages: readonly Page[], i: number, j: number): Page[] {
  const out = [...pages];
  out[i] = pages[j]!;
  out[j] = pages[i]!;
  return out;
}

/** A hypothesis about one page; from the last page back, where a try costs the least. */
function eachPage(
  category: CauseCategory,
  variation: (page: Page, name: Namer) => { words: string; pages: Page[] } | undefined,
): Hypothesis {
  return {
    category,
    scope: 'each',
    *variations(pages, name) {
      for (let index = pages.length - 1; index >= 0; index--) {
        const page = pages[index]!;
        const change = variation(page, name);
        if (change)
          yield {
            words: change.words,
            directive: page.directive,
            gpa: page.gpa,
            pages: () => replaced(pages, index, ...change.pages),
          };
      }
    },
  };
}

/** Two pages, nearest pairs first; `swap` gives the new list, or nothing where a swap changes nothing. */
function eachPair(
  words: string,
  swap: (pages: readonly Page[], i: number, j: number) => (() => Page[]) | undefined,
): Hypothesis {
  return {
    category: 'pages-swapped',
    scope: 'each',
    *variations(pages, name) {
      for (let distance = 1; distance < pages.length; distance++)
        for (let j = pages.length - 1; j >= distance; j--) {
          const i = j - distance;
          const changed = swap(pages, i, j);
          if (!changed) continue;
          const [a, b] = [pages[i]!, pages[j]!];
          yield {
            words: `${words} ${at(a, name)} and ${at(b, name)} swapped`,
            directive: a.directive,
            gpa: a.gpa,
            pages: changed,
          };
        }
    },
  };
}

const EACH: readonly Hypothesis[] = [
  {
    category: 'page-missing',
    scope: 'each',
    *variations(pages, name) {
      // All pages of one directive.
      const spans = new Map<number, Page[]>();
      for (const page of pages) {
        const known = spans.get(page.directive);
        if (known) known.push(page);
        else spans.set(page.directive, [page]);
      }
      for (const [directive, [first]] of [...spans].reverse())
        yield {
          words: `${name(directive)} at gpa ${hex(first!.gpa)} left out`,
          directive,
          gpa: first!.gpa,
          pages: () => pages.filter((page) => page.directive !== directive),
        };
    },
  },
  eachPage('page-missing', (page, name) => ({ words: `the page at ${at(page, name)} left out`, pages: [] })),
  eachPage('page-added', (page, name) => ({
    words: `the page at ${at(page, name)} given twice`,
    pages: [page, page],
  })),
  eachPage('zero-pages', (page, name) =>
    page.pageType === 'normal' && zeros(page.data)
      ? {
          words: `the page of zeros at ${at(page, name)} given as type ZERO`,
          pages: [{ ...page, pageType: 'zero', data: undefined }],
        }
      : undefined,
  ),
  eachPage('page-contents', (page, name) =>
    page.pageType === 'normal' && page.data
      ? { words: `zeros in the page at ${at(page, name)}`, pages: [{ ...page, data: undefined }] }
      : undefined,
  ),
  ...(['normal', 'unmeasured', 'zero', 'secrets', 'cpuid'] as const).map((type) =>
    eachPage('page-type', (page, name) =>
      page.pageType === type || page.pageType === 'vmsa' || (type === 'zero' && !page.data)
        ? undefined
        : {
            words: `the page at ${at(page, name)} of type ${type.toUpperCase()} instead of ${page.pageType.toUpperCase()}`,
            pages: [{ ...page, pageType: type }],
          },
    ),
  ),
  eachPair('the order of the pages at', (pages, i, j) => () => swapped(pages, i, j)),
  eachPair('the contents of the pages at', (pages, i, j) => {
    const [a, b] = [pages[i]!, pages[j]!];
    if (a.pageType !== 'normal' || b.pageType !== 'normal' || a.data === b.data) return undefined;
    return () => {
      const out = [...pages];
      out[i] = { ...a, data: b.data };
      out[j] = { ...b, data: a.data };
      return out;
    };
  }),
  {
    category: 'page-address',
    scope: 'each',
    *variations(pages, name) {
      for (let index = pages.length - 1; index >= 0; index--)
        for (let bit = 12; bit < 52; bit++) {
          const page = pages[index]!;
          const gpa = page.gpa ^ (1n << BigInt(bit));
          yield {
            words: `the page of ${name(page.directive)} at gpa ${hex(gpa)} instead of ${hex(page.gpa)}`,
            directive: page.directive,
            gpa: page.gpa,
            pages: () => replaced(pages, index, { ...page, gpa }),
          };
        }
    },
  },
];

/** In the order in which they are tried: what happens most and costs the least first. */
export const HYPOTHESES: readonly Hypothesis[] = [...VMSA_HYPOTHESES, ...ALL, ...EACH].sort(
  (a, b) => Number(a.scope === 'each') - Number(b.scope === 'each'),
);
