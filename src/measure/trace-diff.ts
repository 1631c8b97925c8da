/** Two digest traces side by side: where they part, and every page that differs. */
import { CvmError, bytesToHex, hex, hexToBytes } from '../base/index.ts';
import { SNP_PAGE_TYPES } from '../snp/index.ts';
import type { SnpPageType } from '../snp/index.ts';

/** One measured page of a trace; `DigestStep` is one. */
export interface TraceEntry {
  readonly directive: number;
  readonly gpa: bigint;
  readonly pageType: SnpPageType;
  readonly contentsHash: Uint8Array;
  /** The launch digest after this page. */
  readonly digest: Uint8Array;
}

export type PageDifferenceKind = 'contents' | 'type' | 'moved' | 'missing' | 'added';

/** `missing`: the reference has the page and the image does not; `added`: the reverse. Indices are into the traces. */
export interface PageDifference {
  readonly kind: PageDifferenceKind;
  readonly gpa: bigint;
  readonly image?: number;
  readonly reference?: number;
}

export interface TraceDifference {
  /** Index of the first page after which the digests differ; `undefined`: the traces are equal. */
  readonly first: number | undefined;
  /** In the order of the image, what is missing last. */
  readonly pages: readonly PageDifference[];
}

const keyOf = (entry: TraceEntry): string =>
  `${entry.gpa}/${entry.pageType}/${bytesToHex(entry.contentsHash)}`;

/** Indices of the longest increasing subsequence. */
function increasing(values: readonly number[]): Set<number> {
  const tails: number[] = [];
  const before: number[] = [];
  for (let i = 0; i < values.length; i++) {
    let low = 0;
    let high = tails.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[tails[middle]!]! < values[i]!) low = middle + 1;
      else high = middle;
    }
    before[i] = low > 0 ? tails[low - 1]! : -1;
    tails[low] = i;
  }
  const kept = new Set<number>();
  for (let at = tails.at(-1) ?? -1; at >= 0; at = before[at]!) kept.add(at);
  return kept;
}

/** Takes the first index queued under a key. */
function take(queues: Map<string, number[]>, key: string): number | undefined {
  const queue = queues.get(key);
  const index = queue?.shift();
  if (queue?.length === 0) queues.delete(key);
  return index;
}

function queuesOf(entries: readonly TraceEntry[], indices: Iterable<number>, key: (e: TraceEntry) => string) {
  const queues = new Map<string, number[]>();
  for (const index of indices) {
    const at = key(entries[index]!);
    const queue = queues.get(at);
    if (queue) queue.push(index);
    else queues.set(at, [index]);
  }
  return queues;
}

/** Compares two traces: equal pages are paired first, then pages at one address; the rest is added or missing. */
export function compareTraces(
  image: readonly TraceEntry[],
  reference: readonly TraceEntry[],
): TraceDifference {
  let from = 0;
  const least = Math.min(image.length, reference.length);
  while (from < least && bytesToHex(image[from]!.digest) === bytesToHex(reference[from]!.digest)) from++;
  if (from === image.length && from === reference.length) return { first: undefined, pages: [] };

  const rest = (length: number) => Array.from({ length: length - from }, (_, i) => from + i);
  const exact = queuesOf(reference, rest(reference.length), keyOf);
  const pairs: { image: number; reference: number }[] = [];
  let loose: number[] = [];
  for (const index of rest(image.length)) {
    const match = take(exact, keyOf(image[index]!));
    if (match === undefined) loose.push(index);
    else pairs.push({ image: index, reference: match });
  }
  const found: PageDifference[] = [];
  const inOrder = increasing(pairs.map((pair) => pair.reference));
  pairs.forEach((pair, index) => {
    if (!inOrder.has(index)) found.push({ kind: 'moved', gpa: image[pair.image]!.gpa, ...pair });
  });
  const unpaired = [...exact.values()].flat().sort((a, b) => a - b);
  const byAddress = queuesOf(reference, unpaired, ({ gpa }) => `${gpa}`);
  loose = loose.filter((index) => {
    const { gpa, pageType } = image[index]!;
    const match = take(byAddress, `${gpa}`);
    if (match === undefined) return true;
    const kind = reference[match]!.pageType === pageType ? 'contents' : 'type';
    found.push({ kind, gpa, image: index, reference: match });
    return false;
  });
  for (const index of loose) found.push({ kind: 'added', gpa: image[index]!.gpa, image: index });
  found.sort((a, b) => a.image! - b.image!);
  for (const index of [...byAddress.values()].flat().sort((a, b) => a - b))
    found.push({ kind: 'missing', gpa: reference[index]!.gpa, reference: index });
  return { first: from, pages: found };
}

/** One page of `cvm measure --trace --json`; `contents` is null where they are not measured. */
export interface TraceJsonEntry {
  readonly directive: number;
  readonly gpa: string;
  readonly pageType: SnpPageType;
  readonly contents: string | null;
  readonly digest: string;
}

export function traceToJson(entries: Iterable<TraceEntry>): TraceJsonEntry[] {
  return [...entries].map(({ directive, gpa, pageType, contentsHash, digest }) => ({
    directive,
    gpa: hex(gpa),
    pageType,
    contents: contentsHash.some((byte) => byte !== 0) ? bytesToHex(contentsHash) : null,
    digest: bytesToHex(digest),
  }));
}

/** A trace may have a page for each 4 KiB of 8 GiB. */
const MAX_ENTRIES = 1 << 21;

/**
 * The trace in the output of `cvm measure --trace --json`: an object with a list `steps`, or that list.
 *
 * @throws CvmError `measure-trace` if it is none.
 */
export function traceFromJson(value: unknown): TraceEntry[] {
  const object = value as { trace?: unknown; steps?: unknown } | null;
  const list = Array.isArray(value) ? (value as unknown[]) : (object?.steps ?? object?.trace);
  const fail = (what: string) => new CvmError('measure-trace', `this is no digest trace: ${what}`);
  if (!Array.isArray(list)) throw fail('it has no list named steps');
  if (list.length > MAX_ENTRIES) throw fail(`it has ${list.length} pages`);
  return list.map((one: Readonly<Record<string, unknown>> | null, index) => {
    const bytes = (what: string, value: unknown): Uint8Array => {
      const text = value ?? '0'.repeat(96);
      if (typeof text !== 'string' || !/^[0-9a-f]{96}$/i.test(text))
        throw fail(`page ${index} has no ${what} of 96 hexadecimal digits`);
      return hexToBytes(text);
    };
    const gpa = one?.['gpa'];
    const pageType = pageTypeOf(one?.['pageType'] ?? one?.['kind']);
    const directive = one?.['directive'] ?? one?.['part'];
    if (typeof gpa !== 'string' || !/^0x[0-9a-f]{1,16}$/i.test(gpa)) throw fail(`page ${index} has no gpa`);
    if (!pageType) throw fail(`page ${index} has no page type of SEV-SNP`);
    return {
      directive: typeof directive === 'number' ? directive : -1,
      gpa: BigInt(gpa),
      pageType,
      contentsHash: bytes('contents hash', one?.['contents'] ?? one?.['contentsHash']),
      digest: bytes('digest', one?.['digest'] ?? ''),
    };
  });
}

/** `normal`, or in words that end with it (`PAGE_DATA normal`). */
function pageTypeOf(text: unknown): SnpPageType | undefined {
  if (typeof text !== 'string') return undefined;
  if (text.startsWith('VP_CONTEXT')) return 'vmsa';
  if (text === 'PARAMETER_INSERT') return 'unmeasured';
  const last = text.slice(text.lastIndexOf(' ') + 1).replace('cpuid-xf', 'cpuid');
  return Object.hasOwn(SNP_PAGE_TYPES, last) ? (last as SnpPageType) : undefined;
}
