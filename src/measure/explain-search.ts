/** The search for the change of a launch that gives an expected digest: single changes first, then pairs. */
import { bytesToHex } from '../base/index.ts';
import { HYPOTHESES } from './explain-hypotheses.ts';
import type { CauseCategory, Hypothesis, Namer, Variation } from './explain-hypotheses.ts';
import { EffortSpent, PageTrace, equalBytes } from './explain-pages.ts';
import type { Page, PageStore } from './explain-pages.ts';
import { knownSignatures, vcpuChains } from './explain-vmsa.ts';

/** One way to launch the image; the first of a list is what the user asked for. */
export interface Launch {
  readonly category: CauseCategory;
  /** Completes "the image with …". */
  readonly words: string;
  /** The number of vCPUs, where it is another than asked for. */
  readonly vcpus?: number;
  /** `undefined`: this loader refuses the image. */
  readonly pages: () => readonly Page[] | undefined;
}

/** A change, or several together, that gives the expected digest. */
export interface Cause {
  /** The category of each change. */
  readonly categories: readonly CauseCategory[];
  /** What was changed; each completes "the image with …". */
  readonly changes: readonly string[];
  /** One sentence. */
  readonly sentence: string;
  /** Index of the header (or part of the OVMF launch) concerned; -1: none in particular. */
  readonly directive: number;
  readonly gpa?: bigint;
  readonly evidence: readonly string[];
}

interface Change {
  readonly category: CauseCategory;
  readonly words: string;
  readonly directive: number;
  readonly gpa?: bigint;
}

const MOST_VCPUS = 512;
/** Where a second change is tried too. */
const FEWER_VCPUS = 64;

export interface SearchOptions {
  readonly store: PageStore;
  readonly expected: Uint8Array;
  readonly name: Namer;
  /** A CPU signature that the user named, besides the known ones. */
  readonly signature?: number;
  /** Hypotheses of scope `each` about the launch asked for, which only its loader can work out. */
  readonly own?: readonly Hypothesis[];
}

const vmsaCount = (pages: readonly Page[]): number =>
  pages.filter(({ pageType }) => pageType === 'vmsa').length;
const vcpuWords = (vcpus: number, instead: number): string =>
  `${vcpus} vCPU${vcpus === 1 ? '' : 's'} instead of ${instead}`;

export class Search {
  readonly causes: Cause[] = [];
  /** Whether everything was tried that there is to try. */
  complete = true;
  private readonly options: SearchOptions;
  private readonly signatures: readonly number[];
  /** vCPUs of the launch that was asked for. */
  private has: number | undefined;

  constructor(options: SearchOptions) {
    this.options = options;
    const known = knownSignatures().map(({ signature }) => signature);
    const { signature } = options;
    this.signatures = signature === undefined ? known : [signature, ...known.filter((s) => s !== signature)];
  }

  get found(): boolean {
    return this.causes.length > 0;
  }

  matches(digest: Uint8Array): boolean {
    return equalBytes(digest, this.options.expected);
  }

  /** Runs `action` with a share of the effort; false if that did not do. */
  within(hashes: number, action: () => void): boolean {
    const { store } = this.options;
    const whole = store.limit;
    store.limit = Math.min(whole, store.hashes + hashes);
    try {
      action();
      return true;
    } catch (error) {
      if (!(error instanceof EffortSpent)) throw error;
      this.complete = false;
      return false;
    } finally {
      store.limit = whole;
    }
  }

  report(given: readonly Change[], trace?: PageTrace, pages?: readonly Page[]): void {
    // Of several numbers of vCPUs the last is meant.
    const changes = given.filter(
      ({ category }, index) =>
        category !== 'vcpu-count' || !given.slice(index + 1).some((later) => later.category === 'vcpu-count'),
    );
    const words = changes.map((change) => change.words);
    const place = changes.find(({ directive }) => directive >= 0);
    const evidence = [`measured again with this, the digest is ${bytesToHex(this.options.expected)}`];
    if (trace && pages) {
      const shared = trace.commonPrefix(pages);
      evidence.push(
        shared === 0
          ? 'the digests part at the first page'
          : `the digests agree up to page ${shared} of ${trace.pages.length}, where both are ${bytesToHex(trace.after(shared))}`,
      );
    }
    this.causes.push({
      categories: changes.map(({ category }) => category),
      changes: words,
      sentence: `The expected digest is that of the image with ${words.join(', and ')}.`,
      directive: place?.directive ?? -1,
      ...(place?.gpa !== undefined && { gpa: place.gpa }),
      evidence,
    });
  }

  private variationsOf(hypothesis: Hypothesis, trace: PageTrace): Iterable<Variation> {
    return hypothesis.variations(trace.pages, this.options.name);
  }

  private try(
    hypothesis: Hypothesis,
    variation: Variation,
    trace: PageTrace,
    before: readonly Change[],
  ): void {
    const pages = variation.pages();
    if (!this.matches(trace.digestOf(this.options.store, pages))) return;
    const { words, directive, gpa } = variation;
    const change = { category: hypothesis.category, words, directive, ...(gpa !== undefined && { gpa }) };
    this.report([...before, change], trace, pages);
  }

  /** Other numbers of vCPUs. */
  vcpus(
    trace: PageTrace,
    before: readonly Change[],
    most = before.length > 0 ? FEWER_VCPUS : MOST_VCPUS,
  ): void {
    const { store } = this.options;
    const has = (this.has ??= vmsaCount(trace.pages));
    const now = vmsaCount(trace.pages);
    for (const { kept, count, page, words } of vcpuChains(trace.pages, this.signatures)) {
      let digest = trace.digestOf(store, kept);
      for (let vcpus = count; ; vcpus++) {
        if (vcpus !== now && this.matches(digest)) {
          const title = `${vcpuWords(vcpus, has)}${vcpus > count ? words : ''}`;
          this.report(
            [...before, { category: 'vcpu-count', words: title, directive: page.directive, gpa: page.gpa }],
            trace,
            kept,
          );
          return;
        }
        if (vcpus >= most) break;
        digest = store.extend(digest, page);
        store.tried++;
      }
    }
  }

  /** Every hypothesis of scope `all`. */
  changes(trace: PageTrace, before: readonly Change[] = []): void {
    for (const hypothesis of HYPOTHESES)
      if (hypothesis.scope === 'all')
        for (const variation of this.variationsOf(hypothesis, trace))
          this.try(hypothesis, variation, trace, before);
  }

  /** The pair that is met most: what the kernel sets in every VMSA, and how many there are. */
  private featuresAndVcpus(trace: PageTrace): void {
    for (const hypothesis of HYPOTHESES)
      if (hypothesis.category === 'sev-features')
        for (const { words, directive, pages } of this.variationsOf(hypothesis, trace)) {
          const changed = new PageTrace(this.options.store, pages(), trace);
          this.vcpus(changed, [{ category: hypothesis.category, words, directive }]);
          if (this.found) return;
        }
  }

  /** Two hypotheses of scope `all`, or one and a number of vCPUs. */
  pairs(trace: PageTrace, before: readonly Change[] = []): void {
    const all = HYPOTHESES.filter(({ scope }) => scope === 'all');
    // The costly ones (whole pages) first and the cheap ones (VMSAs) on top: most of the list is hashed once.
    for (let first = all.length - 1; first >= 0; first--)
      for (const variation of this.variationsOf(all[first]!, trace)) {
        const { words, directive, gpa } = variation;
        const change = {
          category: all[first]!.category,
          words,
          directive,
          ...(gpa !== undefined && { gpa }),
        };
        const changed = new PageTrace(this.options.store, variation.pages(), trace);
        this.vcpus(changed, [...before, change]);
        for (let second = 0; second < first; second++)
          for (const next of this.variationsOf(all[second]!, changed)) {
            this.try(all[second]!, next, changed, [...before, change]);
            if (this.found) return;
          }
      }
  }

  /** Every hypothesis of scope `each`, in turns, so that one with many tries does not starve the others. */
  each(trace: PageTrace, before: readonly Change[], hashes: number): void {
    const own = before.length === 0 ? (this.options.own ?? []) : [];
    const each = HYPOTHESES.filter(({ scope }) => scope === 'each');
    const running = [...own, ...each].map((hypothesis) => ({
      hypothesis,
      variations: this.variationsOf(hypothesis, trace)[Symbol.iterator](),
    }));
    const { store } = this.options;
    const end = Math.min(store.limit, store.hashes + hashes);
    const turn = Math.max(4096, Math.floor(hashes / 64));
    while (running.length > 0 && !this.found) {
      const one = running.shift()!;
      const until = store.hashes + turn;
      while (store.hashes < until) {
        if (store.hashes >= end) {
          this.complete = false;
          return;
        }
        const next = one.variations.next();
        if (next.done) break;
        this.try(one.hypothesis, next.value, trace, before);
        if (this.found) return;
      }
      if (store.hashes >= until) running.push(one);
    }
  }

  /**
   * The whole search over some ways to launch. The causes that one stage finds are all kept, the most likely first;
   * after a stage that finds one the search ends.
   */
  run(launches: readonly Launch[]): void {
    const { store } = this.options;
    const effort = store.limit - store.hashes;
    const traces: { trace: PageTrace; before: readonly Change[] }[] = [];
    const seen = new Set<string>();
    const stage = (share: number, action: () => void): void => {
      if (!this.found) this.within(effort * share, action);
    };
    stage(1, () => {
      for (const [index, launch] of launches.entries()) {
        const pages = launch.pages();
        if (!pages) continue;
        const trace = new PageTrace(store, pages, traces[0]?.trace);
        store.tried++;
        const key = bytesToHex(trace.digest);
        if (seen.has(key)) continue;
        seen.add(key);
        const before = index === 0 ? [] : [{ category: launch.category, words: launch.words, directive: -1 }];
        traces.push({ trace, before });
        if (index === 0) {
          this.vcpus(trace, before);
          this.changes(trace);
        } else {
          if (this.matches(trace.digest)) this.report(before, traces[0]?.trace, pages);
          if (!this.found) this.vcpus(trace, before, MOST_VCPUS);
        }
      }
    });
    const base = traces[0];
    if (!base) return;
    stage(0.2, () => {
      for (const { trace, before } of traces.slice(1)) this.changes(trace, before);
    });
    stage(0.2, () => this.featuresAndVcpus(base.trace));
    stage(1, () => this.each(base.trace, [], effort * 0.3));
    stage(0.3, () => this.pairs(base.trace));
    stage(0.1, () => {
      for (const { trace, before } of traces.slice(1)) if (!this.found) this.pairs(trace, before);
    });
    for (const { trace, before } of traces.slice(1))
      stage(1, () => this.each(trace, before, (effort * 0.2) / traces.length));
    stage(1, () => {
      for (const hypothesis of HYPOTHESES.filter(({ scope }) => scope === 'all'))
        for (const { words, directive, gpa, pages } of this.variationsOf(hypothesis, base.trace)) {
          if (this.found) return;
          const changed = new PageTrace(store, pages(), base.trace);
          const change = {
            category: hypothesis.category,
            words,
            directive,
            ...(gpa !== undefined && { gpa }),
          };
          this.each(changed, [change], (store.limit - store.hashes) / 8);
        }
    });
  }
}
