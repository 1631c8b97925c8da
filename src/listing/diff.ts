/** Two images compared: directive by directive as the listing shows them, and digest by digest. */
import { bytesToHex, hex } from '../base/index.ts';
import { dataOf, headerFields } from '../igvm/index.ts';
import type { IgvmFile, IgvmHeader } from '../igvm/index.ts';
import { compareTraces } from '../measure/index.ts';
import type { PageDifferenceKind, TraceEntry } from '../measure/index.ts';
import { columnsOf } from './columns.ts';
import type { Image, ImagePlatform } from './image.ts';

export interface FieldDifference {
  readonly field: string;
  readonly left: string;
  readonly right: string;
}

export interface DirectiveDifference {
  readonly kind: 'changed' | 'removed' | 'added' | 'moved';
  /** Indices in the headers of the left and of the right file. */
  readonly left?: number;
  readonly right?: number;
  /** The directive in words, without its contents. */
  readonly leftText?: string;
  readonly rightText?: string;
  /** Fields of a changed directive; file offsets are left out. */
  readonly fields: readonly FieldDifference[];
  /** Where the contents of a changed directive part. */
  readonly contents?: {
    /** Offset of the first byte that differs, and how many do. */
    readonly offset: number;
    readonly bytes: number;
    readonly left: string;
    readonly right: string;
  };
}

export interface DigestDifference {
  readonly platform: string;
  readonly left: string | undefined;
  readonly right: string | undefined;
  readonly equal: boolean;
  /** The first measured page after which the launch digests differ. */
  readonly first?: {
    readonly page: number;
    readonly left?: { readonly directive: number; readonly gpa: string };
    readonly right?: { readonly directive: number; readonly gpa: string };
    /** The digest up to which both agree. */
    readonly agreed: string;
  };
  readonly pages: readonly { readonly kind: PageDifferenceKind; readonly gpa: string }[];
}

export interface ImageDifference {
  readonly equal: boolean;
  readonly header: readonly FieldDifference[];
  readonly directives: readonly DirectiveDifference[];
  readonly digests: readonly DigestDifference[];
}

const describe = (header: IgvmHeader): string =>
  [header.type, ...columnsOf(header, '')]
    .map((column) => column.trim())
    .filter((column) => column !== '')
    .join('  ');

/** The same address or parameter area: the same thing, changed. */
function place(header: IgvmHeader): string {
  if (header.type === 'VP_CONTEXT') return `${header.type}/${header.vpIndex}/${header.compatibilityMask}`;
  if ('gpa' in header) return `${header.type}/${header.gpa}`;
  if ('parameterAreaIndex' in header) return `${header.type}/${header.parameterAreaIndex}`;
  if (header.type === 'SUPPORTED_PLATFORM') return `${header.type}/${header.platformType}`;
  return header.type;
}

const contentsOf = (file: IgvmFile, header: IgvmHeader): Uint8Array =>
  header.data ? dataOf(file, header.data) : new Uint8Array();

function take(queues: Map<string, number[]>, key: string): number | undefined {
  const queue = queues.get(key);
  const found = queue?.shift();
  if (queue?.length === 0) queues.delete(key);
  return found;
}

function queue(headers: readonly IgvmHeader[], key: (header: IgvmHeader) => string): Map<string, number[]> {
  const queues = new Map<string, number[]>();
  for (const header of headers) {
    const at = key(header);
    const list = queues.get(at);
    if (list) list.push(header.index);
    else queues.set(at, [header.index]);
  }
  return queues;
}

/** Members of the longest increasing subsequence. */
function inOrder(values: readonly number[]): Set<number> {
  const tails: number[] = [];
  const before: number[] = [];
  values.forEach((value, index) => {
    let low = 0;
    let high = tails.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (values[tails[middle]!]! < value) low = middle + 1;
      else high = middle;
    }
    before[index] = low > 0 ? tails[low - 1]! : -1;
    tails[low] = index;
  });
  const kept = new Set<number>();
  for (let at = tails.at(-1) ?? -1; at >= 0; at = before[at]!) kept.add(at);
  return kept;
}

/** Everything that differs between two images; `left` is the older one in the words that are used. */
export function diffImages(left: Image, right: Image): ImageDifference {
  const header = fixedHeader(left.file, right.file);
  const directives = diffDirectives(left, right);
  const digests = diffDigests(left, right);
  const equal = header.length === 0 && directives.length === 0 && digests.every((digest) => digest.equal);
  return { equal, header, directives, digests };
}

function fixedHeader(left: IgvmFile, right: IgvmFile): FieldDifference[] {
  const rows = (['version', 'rawArchitecture', 'pageSize'] as const).map((field) => ({
    field,
    left: `${left.header[field]}`,
    right: `${right.header[field]}`,
  }));
  const unread = { field: 'unread', left: `${left.unread.length}`, right: `${right.unread.length}` };
  return [...rows, unread].filter((row) => row.left !== row.right);
}

function diffDirectives(left: Image, right: Image): DirectiveDifference[] {
  const keys = (image: Image) => (header: IgvmHeader) => {
    const data = contentsOf(image.file, header);
    const hash = data.length > 0 ? bytesToHex(image.crypto.sha256(data)) : '';
    return `${header.rawType}/${fieldsKey(header)}/${hash}`;
  };
  const leftKeys = left.file.headers.map(keys(left));
  const rightKeys = right.file.headers.map(keys(right));
  // The pairs at both ends need no search.
  const exact = new Map<string, number[]>();
  leftKeys.forEach((key, index) => {
    const list = exact.get(key);
    if (list) list.push(index);
    else exact.set(key, [index]);
  });
  const pairs: { left: number; right: number }[] = [];
  const loose: IgvmHeader[] = [];
  for (const header of right.file.headers) {
    const match = take(exact, rightKeys[header.index]!);
    if (match === undefined) loose.push(header);
    else pairs.push({ left: match, right: header.index });
  }
  const found: DirectiveDifference[] = [];
  const kept = inOrder(pairs.map((pair) => pair.left));
  pairs.forEach((pair, index) => {
    if (kept.has(index)) return;
    const text = describe(right.file.headers[pair.right]!);
    found.push({ kind: 'moved', ...pair, leftText: text, rightText: text, fields: [] });
  });
  const unpaired = [...exact.values()]
    .flat()
    .sort((a, b) => a - b)
    .map((index) => left.file.headers[index]!);
  const byPlace = queue(unpaired, place);
  for (const header of loose) {
    const match = take(byPlace, place(header));
    if (match === undefined)
      found.push({ kind: 'added', right: header.index, rightText: describe(header), fields: [] });
    else found.push(changed(left.file, right.file, left.file.headers[match]!, header));
  }
  for (const index of [...byPlace.values()].flat())
    found.push({ kind: 'removed', left: index, leftText: describe(left.file.headers[index]!), fields: [] });
  return found.sort((a, b) => (a.right ?? a.left!) - (b.right ?? b.left!));
}

/** Every field but the file offset, which changes with the layout of the file and says nothing of the guest. */
function fieldsKey(header: IgvmHeader): string {
  if ('body' in header) return bytesToHex(header.body);
  return headerFields(header)
    .filter(({ field }) => field.name !== 'fileOffset')
    .map(({ value }) => valueText(value))
    .join(' ');
}

const valueText = (value: number | bigint | Uint8Array): string =>
  value instanceof Uint8Array ? bytesToHex(value) : hex(value);

function changed(leftFile: IgvmFile, rightFile: IgvmFile, a: IgvmHeader, b: IgvmHeader): DirectiveDifference {
  const fields: FieldDifference[] = [];
  if ('body' in a || 'body' in b) {
    const body = (header: IgvmHeader) => ('body' in header ? bytesToHex(header.body) : '');
    if (body(a) !== body(b)) fields.push({ field: 'body', left: body(a), right: body(b) });
  } else {
    const others = new Map(headerFields(b).map(({ field, value }) => [field.name, valueText(value)]));
    for (const { field, value } of headerFields(a)) {
      const [mine, theirs] = [valueText(value), others.get(field.name)];
      if (field.name !== 'fileOffset' && theirs !== undefined && mine !== theirs)
        fields.push({ field: field.name, left: mine, right: theirs });
    }
  }
  if (a.rawType !== b.rawType) fields.push({ field: 'type', left: hex(a.rawType), right: hex(b.rawType) });
  const contents = contentsDifference(contentsOf(leftFile, a), contentsOf(rightFile, b));
  return {
    kind: 'changed',
    left: a.index,
    right: b.index,
    leftText: describe(a),
    rightText: describe(b),
    fields,
    ...(contents && { contents }),
  };
}

function contentsDifference(a: Uint8Array, b: Uint8Array): DirectiveDifference['contents'] {
  let offset = -1;
  let bytes = 0;
  for (let i = 0; i < Math.max(a.length, b.length); i++)
    if (a[i] !== b[i]) {
      if (offset < 0) offset = i;
      bytes++;
    }
  if (offset < 0) return undefined;
  const some = (data: Uint8Array) => bytesToHex(data.subarray(offset, offset + 8)) || 'none';
  return { offset, bytes, left: some(a), right: some(b) };
}

function diffDigests(left: Image, right: Image): DigestDifference[] {
  const pairs = new Map<string, { left?: ImagePlatform; right?: ImagePlatform }>();
  const put = (side: 'left' | 'right', platforms: readonly ImagePlatform[]) => {
    for (const platform of platforms) {
      const pair = pairs.get(platform.title) ?? {};
      pair[side] ??= platform;
      pairs.set(platform.title, pair);
    }
  };
  put('left', left.platforms);
  put('right', right.platforms);
  return [...pairs].flatMap(([platform, pair]): DigestDifference[] => {
    const digest = (one: ImagePlatform | undefined) => {
      const measured = one?.measurement;
      return measured && 'digest' in measured ? bytesToHex(measured.digest) : undefined;
    };
    const [a, b] = [digest(pair.left), digest(pair.right)];
    if (a === undefined && b === undefined) return [];
    const equal = a === b;
    return [{ platform, left: a, right: b, equal, ...(equal ? { pages: [] } : divergence(pair)) }];
  });
}

const MOST_PAGES = 1000;

function divergence(pair: {
  left?: ImagePlatform;
  right?: ImagePlatform;
}): Pick<DigestDifference, 'first' | 'pages'> {
  const steps = (one: ImagePlatform | undefined): TraceEntry[] | undefined => {
    const measured = one?.measurement;
    return measured && 'steps' in measured && measured.steps ? [...measured.steps] : undefined;
  };
  const [a, b] = [steps(pair.left), steps(pair.right)];
  if (!a || !b) return { pages: [] };
  // The right file is the image, the left one the reference.
  const { first, pages } = compareTraces(b, a);
  const at = (entry: TraceEntry | undefined) => entry && { directive: entry.directive, gpa: hex(entry.gpa) };
  const [x, y] = [at(a[first!]), at(b[first!])];
  return {
    ...(first !== undefined && {
      first: {
        page: first,
        ...(x && { left: x }),
        ...(y && { right: y }),
        agreed: first > 0 ? bytesToHex(a[first - 1]!.digest) : '0'.repeat(96),
      },
    }),
    pages: pages.slice(0, MOST_PAGES).map(({ kind, gpa }) => ({ kind, gpa: hex(gpa) })),
  };
}
