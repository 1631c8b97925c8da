/** Why the digest of an OVMF guest is not the expected one. */
import { CvmError, bytesToHex, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import type { CauseCategory } from './explain-hypotheses.ts';
import { explanation, DEFAULT_EFFORT } from './explain.ts';
import type { Explanation } from './explain.ts';
import { PageStore, PageTrace, equalBytes } from './explain-pages.ts';
import type { Page } from './explain-pages.ts';
import { differenceWords, entriesOf, referencePages } from './explain-reference.ts';
import { Search } from './explain-search.ts';
import type { Launch } from './explain-search.ts';
import { VMM_TYPES } from './initial-vmsa.ts';
import { OVMF_MODES, measureOvmf, signatureOf } from './ovmf-launch.ts';
import type { OvmfLaunch, OvmfMeasurement, OvmfMode } from './ovmf-launch.ts';
import { compareTraces } from './trace-diff.ts';
import type { TraceEntry } from './trace-diff.ts';

export interface ExplainOvmfOptions {
  readonly expected: Uint8Array;
  /** Other OVMF images that may have been used instead. */
  readonly candidates?: readonly { readonly name: string; readonly bytes: Uint8Array }[];
  /** The trace that the expected digest comes from. */
  readonly reference?: readonly TraceEntry[];
  readonly effort?: number;
}

/** A command line that was taken from a file has its newline; one typed twice may have blanks. */
function otherAppends(append: string): string[] {
  const variants = [
    `${append}\n`,
    append.trim(),
    `${append} `,
    ` ${append}`,
    append.replace(/\s+/g, ' ').trim(),
  ];
  return [...new Set(variants)].filter((variant) => variant !== append);
}

interface Other {
  readonly category: CauseCategory;
  readonly words: string;
  readonly launch: OvmfLaunch;
}

/** The launches that differ in one option from the asked-for one. */
function others(launch: OvmfLaunch, options: ExplainOvmfOptions): Other[] {
  const list: Other[] = [];
  const add = (category: CauseCategory, words: string, change: Partial<OvmfLaunch>): void =>
    void list.push({ category, words, launch: { ...launch, ...change } });
  const without = (...names: (keyof OvmfLaunch)[]): OvmfLaunch =>
    Object.fromEntries(
      Object.entries(launch).filter(([name]) => !names.includes(name as keyof OvmfLaunch)),
    ) as unknown as OvmfLaunch;
  const { kernel, initrd, append } = launch;
  if (kernel) {
    list.push({
      category: 'kernel-hashes',
      words: 'no kernel hashes (kernel, initrd and command line not measured)',
      launch: without('kernel', 'initrd', 'append'),
    });
    if (initrd) list.push({ category: 'kernel-hashes', words: 'no initrd', launch: without('initrd') });
    if (append) {
      list.push({ category: 'kernel-hashes', words: 'no kernel command line', launch: without('append') });
      for (const other of otherAppends(append))
        add('kernel-hashes', `the kernel command line ${JSON.stringify(other)}`, { append: other });
    }
    if (initrd && append)
      list.push({
        category: 'kernel-hashes',
        words: 'neither initrd nor kernel command line',
        launch: without('initrd', 'append'),
      });
  }
  for (const { name, bytes } of options.candidates ?? [])
    add('ovmf-build', `the OVMF image ${name} instead`, { ovmf: bytes });
  for (const vmmType of VMM_TYPES)
    if (vmmType !== (launch.vmmType ?? 'QEMU')) add('vmm-type', `VMM type ${vmmType}`, { vmmType });
  for (const mode of OVMF_MODES)
    if (mode !== launch.mode) add('launch-mode', `mode ${mode} instead of ${launch.mode}`, { mode });
  return list;
}

/** The OVMF image alone: if the digests agree up to its end, it is not the cause. */
function pagesOf(measurement: OvmfMeasurement, store: PageStore): Page[] | undefined {
  return measurement.steps ? store.pages(measurement.operations) : undefined;
}

const isSnp = (mode: OvmfMode): boolean => mode !== 'sev' && mode !== 'seves';

/**
 * As `explainDigest`, for a guest that boots from OVMF: other vCPU counts, models and VMMs, guest features, missing
 * or other kernel hashes, the other OVMF images given, and whatever can go wrong with a list of pages.
 *
 * @throws CvmError as `measureOvmf` does.
 */
export function explainOvmf(launch: OvmfLaunch, options: ExplainOvmfOptions, crypto: Crypto): Explanation {
  const { expected, reference } = options;
  const base = measureOvmf(launch, crypto);
  const store = new PageStore(crypto, options.effort ?? DEFAULT_EFFORT);
  const name = (part: number): string => base.parts[part]?.name ?? 'no part';
  const signature = signatureOf(launch);
  const search = new Search({ store, expected, name, ...(signature !== undefined && { signature }) });
  const notes: string[] = [];
  const done = (): Explanation => explanation(search, store, { expected, measured: base.digest, notes });
  store.tried++;
  if (equalBytes(base.digest, expected)) return done();
  const alternatives = others(launch, options);
  const measured = (one: OvmfLaunch): OvmfMeasurement | undefined => {
    try {
      return measureOvmf(one, crypto);
    } catch (error) {
      if (error instanceof CvmError) return undefined;
      throw error;
    }
  };
  // Without a list of pages (SEV, SEV-ES) only whole launches are compared.
  if (!isSnp(launch.mode) || expected.length !== 48) {
    const counts = Array.from({ length: 64 }, (_, i): Other => {
      const words = `${i + 1} vCPUs instead of ${launch.vcpus ?? 0}`;
      return { category: 'vcpu-count', words, launch: { ...launch, vcpus: i + 1 } };
    });
    for (const one of [...counts, ...alternatives]) {
      store.tried++;
      const other = measured(one.launch);
      if (other && search.matches(other.digest)) {
        search.report([{ category: one.category, words: one.words, directive: -1 }]);
        return done();
      }
    }
    notes.push('only whole launches are compared for SEV and SEV-ES');
    return done();
  }
  const image = pagesOf(base, store)!;
  if (reference) fromTrace(image, reference, search, store, name, notes);
  if (search.found) return done();
  // A second vCPU shows how further ones start; the search varies their number.
  const toLaunch = (one: OvmfLaunch): readonly Page[] | undefined => {
    const result = measured(one);
    return result && pagesOf(result, store);
  };
  const launches: Launch[] = [
    { category: 'vcpu-count', words: '', pages: () => image },
    ...alternatives
      .filter(({ launch: { mode } }) => isSnp(mode))
      .map(({ category, words, launch: one }): Launch => ({ category, words, pages: () => toLaunch(one) })),
  ];
  if (launch.vcpus === 1 && launch.mode === 'snp') {
    // The chain of vCPU counts starts from two.
    const two = { ...launch, vcpus: 2 };
    launches.splice(1, 0, { category: 'vcpu-count', words: '', vcpus: 2, pages: () => toLaunch(two) });
    for (const { category, words, launch: one } of alternatives)
      if (one.mode === 'snp')
        launches.push({ category, words, vcpus: 2, pages: () => toLaunch({ ...one, vcpus: 2 }) });
  }
  for (const one of alternatives) {
    if (isSnp(one.launch.mode)) continue;
    const other = measured(one.launch);
    if (other && search.matches(other.digest))
      search.report([{ category: one.category, words: one.words, directive: -1 }]);
  }
  if (!search.found) search.run(launches);
  if (!search.found) {
    const last = [...image].reverse().find(({ directive }) => base.parts[directive]?.name === 'OVMF image');
    notes.push(
      'other contents of OVMF, kernel, initrd or command line cannot be found from a digest: name the other files as candidates, or give a reference trace' +
        (last ? `; after the OVMF image the digest is ${digestAfter(image, last, store)}` : ''),
    );
  }
  return done();
}

function digestAfter(image: readonly Page[], last: Page, store: PageStore): string {
  const trace = new PageTrace(new PageStore(store.crypto, Infinity), image);
  return bytesToHex(trace.after(image.indexOf(last) + 1));
}

function fromTrace(
  image: readonly Page[],
  entries: readonly TraceEntry[],
  search: Search,
  store: PageStore,
  name: (part: number) => string,
  notes: string[],
): void {
  const pages = referencePages({ kind: 'trace', entries }, image, {}, store);
  const trace = new PageTrace(store, pages);
  const { first, pages: differences } = compareTraces(entriesOf(image, store), entriesOf(pages, store));
  if (first === undefined) {
    notes.push('the reference trace and this launch are measured alike, page by page');
    return;
  }
  if (!search.matches(trace.digest)) {
    notes.push(`the reference trace ends in another digest than expected: ${bytesToHex(trace.digest)}`);
    return;
  }
  const one = differences[0]!;
  const parts = [
    ...new Set(
      differences.flatMap(({ image: at }) => (at === undefined ? [] : [name(image[at]!.directive)])),
    ),
  ];
  const directive = one.image === undefined ? -1 : image[one.image]!.directive;
  const build = differences.length > 1 && parts.length === 1 && parts[0] === 'OVMF image';
  const category: CauseCategory = build
    ? 'ovmf-build'
    : parts.length === 1 && parts[0]!.startsWith('kernel hashes')
      ? 'kernel-hashes'
      : 'page-contents';
  const words =
    differences.length === 1 || category === 'kernel-hashes'
      ? differenceWords(one, image, pages, name)
      : `${differences.length} pages as in the reference (${parts.join(', ') || 'pages that are missing here'}), the first at ${hex(one.gpa)}`;
  search.report([{ category, words, directive, gpa: one.gpa }], new PageTrace(store, image), pages);
}
