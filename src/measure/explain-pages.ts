/** Lists of measured pages that are hashed again only from where they differ: what the search of `explain` runs on. */
import type { Crypto } from '../base/index.ts';
import type { LaunchOperation } from '../igvm/index.ts';
import { LAUNCH_DIGEST_SIZE, contentsHash, extendLaunchDigest } from '../snp/index.ts';
import type { SnpPageType } from '../snp/index.ts';
import { measuredPage } from './snp.ts';

/** One page as SNP_LAUNCH_UPDATE takes it. Two pages that are equal are one object of their store. */
export interface Page {
  readonly gpa: bigint;
  readonly pageType: SnpPageType;
  /** At most 4096 bytes, zeros to follow; `undefined`: zeros, or not hashed. */
  readonly data: Uint8Array | undefined;
  /** Index of the header (or part of an OVMF launch) it comes from; -1: none. */
  readonly directive: number;
  /** Virtual processor of a VMSA. */
  readonly vpIndex?: number;
  /** A page of a parameter area. */
  readonly parameter?: boolean;
  /** The VMSA of a vCPU that the file has no context for. */
  readonly reset?: boolean;
  /** PAGE_INFO.CONTENTS of a page whose bytes are not known (it comes from a trace). */
  readonly contents?: Uint8Array;
}

/** Thrown when the effort is spent; never leaves this room. */
export class EffortSpent extends Error {}

/** Makes pages, remembers the hashes of their contents, and counts the work. */
export class PageStore {
  readonly crypto: Crypto;
  /** PAGE_INFO and contents hashes so far. */
  hashes = 0;
  /** Digests compared so far. */
  tried = 0;
  /** Hashes after which `EffortSpent` is thrown; may be moved. */
  limit: number;
  private readonly contents = new WeakMap<Page, Uint8Array>();
  private readonly byData = new WeakMap<ArrayBufferLike, Map<string, Uint8Array>>();
  private zeroPage: Uint8Array | undefined;

  constructor(crypto: Crypto, limit: number) {
    this.crypto = crypto;
    this.limit = limit;
  }

  private spend(): void {
    if (++this.hashes > this.limit) throw new EffortSpent();
  }

  /** The pages that a launch measures, in order. */
  pages(operations: readonly LaunchOperation[]): Page[] {
    const pages: Page[] = [];
    for (const operation of operations) {
      const page = measuredPage(operation);
      if (!page) continue;
      pages.push({
        ...page,
        directive: operation.directive,
        ...(operation.kind === 'vp-context' ? { vpIndex: operation.vpIndex } : {}),
        ...(operation.kind === 'vp-context' && operation.reset ? { reset: true } : {}),
        ...(operation.kind === 'parameter-page' ? { parameter: true } : {}),
      });
    }
    return pages;
  }

  contentsHash(page: Page): Uint8Array {
    let hash = this.contents.get(page);
    if (!hash) this.contents.set(page, (hash = this.hashContents(page)));
    return hash;
  }

  private hashContents({ pageType, data, contents }: Page): Uint8Array {
    if (contents) return contents;
    if (pageType !== 'normal' && pageType !== 'vmsa') return contentsHash(pageType, undefined, this.crypto);
    if (!data) return (this.zeroPage ??= contentsHash('normal', undefined, this.crypto));
    // The same bytes of the file are read again and again, by each profile.
    let known = this.byData.get(data.buffer);
    if (!known) this.byData.set(data.buffer, (known = new Map()));
    const key = `${data.byteOffset}/${data.length}`;
    let hash = known.get(key);
    if (!hash) {
      this.spend();
      known.set(key, (hash = contentsHash('normal', data, this.crypto)));
    }
    return hash;
  }

  extend(digest: Uint8Array, page: Page): Uint8Array {
    this.spend();
    const { gpa, pageType } = page;
    return extendLaunchDigest(digest, { gpa, pageType, contents: this.contentsHash(page) }, this.crypto);
  }
}

export const samePage = (a: Page, b: Page): boolean =>
  a === b ||
  (a.gpa === b.gpa &&
    a.pageType === b.pageType &&
    a.contents === b.contents &&
    (a.data === b.data ||
      (a.data !== undefined &&
        b.data !== undefined &&
        a.data.buffer === b.data.buffer &&
        a.data.byteOffset === b.data.byteOffset &&
        a.data.length === b.data.length)));

/** A list of pages with its running digests, against which variations of it are cheap. */
export class PageTrace {
  readonly pages: readonly Page[];
  /** After page i at 48 (i + 1); the start at 0. */
  private readonly running: Uint8Array;

  constructor(store: PageStore, pages: readonly Page[], like?: PageTrace) {
    this.pages = pages;
    this.running = new Uint8Array((pages.length + 1) * LAUNCH_DIGEST_SIZE);
    const shared = like ? like.commonPrefix(pages) : 0;
    if (like) this.running.set(like.running.subarray(0, (shared + 1) * LAUNCH_DIGEST_SIZE));
    let digest = this.after(shared);
    for (let i = shared; i < pages.length; i++) {
      digest = store.extend(digest, pages[i]!);
      this.running.set(digest, (i + 1) * LAUNCH_DIGEST_SIZE);
    }
  }

  /** The digest after the first `count` pages. */
  after(count: number): Uint8Array {
    return this.running.subarray(count * LAUNCH_DIGEST_SIZE, (count + 1) * LAUNCH_DIGEST_SIZE);
  }

  get digest(): Uint8Array {
    return this.after(this.pages.length);
  }

  commonPrefix(pages: readonly Page[]): number {
    const most = Math.min(pages.length, this.pages.length);
    let count = 0;
    while (count < most && samePage(pages[count]!, this.pages[count]!)) count++;
    return count;
  }

  /** The digest of a variation: only what follows the first difference is hashed. */
  digestOf(store: PageStore, pages: readonly Page[]): Uint8Array {
    store.tried++;
    const shared = this.commonPrefix(pages);
    let digest = this.after(shared);
    for (let i = shared; i < pages.length; i++) digest = store.extend(digest, pages[i]!);
    return digest;
  }
}

export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
