import { bytesToHex, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { LARGE_PAGE_SIZE, PAGE_DATA_FLAGS, PAGE_SIZE, dataOf } from '../igvm/index.ts';
import type { IgvmFile, IgvmHeader, Section, StructuredHeader } from '../igvm/index.ts';
import { columnsOf, gpaText, maskText, pageKind } from './columns.ts';

/** What stands on a line. Header numbers are indices in `IgvmFile.headers`, both ends included. */
export interface ListingLine {
  readonly kind: 'title' | 'blank' | 'file' | 'directive' | 'unread';
  readonly first: number;
  readonly last: number;
  /** Lines with the same key in address order make one run: an outline entry and a fold. */
  readonly runKey?: string;
  /** For pages: address of the first byte and of the byte after the last. */
  readonly start?: bigint;
  readonly end?: bigint;
}

export interface Listing {
  readonly text: string;
  readonly lines: readonly ListingLine[];
}

export interface ListingOptions {
  /**
   * With more directives than this, adjacent pages of one kind share a line, cut at every 2 MiB of address
   * space so that a change shows where it is. Default 20,000.
   */
  readonly coalesceAbove?: number;
}

/** Bound of lines, whatever the file asks for; a last line says what was left out. */
const MAX_LINES = 500_000;
const COALESCE_ABOVE = 20_000;
const NAME_WIDTH = 18;

const SECTIONS: Readonly<Record<Section, string>> = {
  platform: '# Platforms',
  initialization: '# Initialization',
  directive: '# Directives',
};

/**
 * The listing of an IGVM file: the fixed header, then one line a directive in file order, in sections. It
 * holds no file offsets, no positions and no running digests: inserting a page changes one line.
 */
export function renderListing(file: IgvmFile, crypto: Crypto, options: ListingOptions = {}): Listing {
  return new Writer(file, crypto, options).run();
}

/** A page's place in a run: adjacent pages with equal keys can share a line. */
function pageRun(header: IgvmHeader): { key: string; start: bigint; end: bigint } | undefined {
  if (header.type !== 'PAGE_DATA') return undefined;
  const size = header.flags & PAGE_DATA_FLAGS.is2mbPage ? LARGE_PAGE_SIZE : PAGE_SIZE;
  return {
    key: `${header.compatibilityMask}/${pageKind(header)}/${header.fileOffset !== 0}`,
    start: header.gpa,
    end: header.gpa + BigInt(size),
  };
}

class Writer {
  private readonly file: IgvmFile;
  private readonly crypto: Crypto;
  private readonly coalesce: boolean;
  private readonly texts: string[] = [];
  private readonly lines: ListingLine[] = [];

  constructor(file: IgvmFile, crypto: Crypto, options: ListingOptions) {
    this.file = file;
    this.crypto = crypto;
    this.coalesce = file.headers.length > (options.coalesceAbove ?? COALESCE_ABOVE);
  }

  run(): Listing {
    this.fixedHeader();
    const { headers, unread } = this.file;
    let section: Section | undefined;
    for (let index = 0; index < headers.length;) {
      const header = headers[index]!;
      if (header.section !== section) {
        section = header.section;
        this.put('', { kind: 'blank', first: -1, last: -1 });
        this.put(SECTIONS[section], { kind: 'title', first: index, last: index });
      }
      if (this.lines.length >= MAX_LINES) {
        this.put(`# ${headers.length - index} more directives are not listed`, {
          kind: 'unread',
          first: index,
          last: headers.length - 1,
        });
        break;
      }
      const last = this.coalesce ? this.endOfRun(index) : index;
      if (last > index) this.pages(index, last);
      else this.directive(header);
      index = last + 1;
    }
    if (unread.length > 0) {
      const text = `# ${unread.length} bytes of headers from file offset ${hex(unread.fileOffset)} could not be read`;
      this.put(text, { kind: 'unread', first: -1, last: -1 });
    }
    return { text: this.texts.join('\n') + '\n', lines: this.lines };
  }

  private put(text: string, line: ListingLine): void {
    this.texts.push(text);
    this.lines.push(line);
  }

  private row(name: string, columns: readonly string[]): string {
    return [name.padEnd(NAME_WIDTH), ...columns.filter((column) => column !== '')].join('  ').trimEnd();
  }

  private fixedHeader(): void {
    const { header } = this.file;
    const none = { first: -1, last: -1 };
    this.put('# IGVM file', { kind: 'title', ...none });
    const architecture = header.architecture ?? `architecture ${header.rawArchitecture}`;
    this.put(this.row('IGVM', [`version ${header.version}`, architecture, `${header.pageSize} byte pages`]), {
      kind: 'file',
      ...none,
    });
  }

  private directive(header: IgvmHeader): void {
    const name = header.ignorable ? `${header.type}?` : header.type;
    const run = pageRun(header);
    this.put(this.row(name, columnsOf(header, this.contents(header))), {
      kind: 'directive',
      first: header.index,
      last: header.index,
      ...(run ? { runKey: run.key, start: run.start, end: run.end } : {}),
    });
  }

  /** Index of the last header that goes on the line of `first`. */
  private endOfRun(first: number): number {
    const { headers } = this.file;
    const start = pageRun(headers[first]!);
    if (!start) return first;
    let last = first;
    for (let end = start.end; last + 1 < headers.length; last++) {
      const next = pageRun(headers[last + 1]!);
      if (!next || next.key !== start.key || next.start !== end || end % BigInt(LARGE_PAGE_SIZE) === 0n)
        break;
      end = next.end;
    }
    return last;
  }

  private pages(first: number, last: number): void {
    const header = this.file.headers[first] as StructuredHeader<'PAGE_DATA'>;
    const run = pageRun(header)!;
    const end = pageRun(this.file.headers[last]!)!.end;
    const columns = [gpaText(header.gpa), maskText(header.compatibilityMask), pageKind(header).padEnd(10)];
    columns.push(this.contentsOfRun(first, last), `x ${last - first + 1} pages to ${gpaText(end)}`);
    this.put(this.row('PAGE_DATA', columns), {
      kind: 'directive',
      first,
      last,
      runKey: run.key,
      start: run.start,
      end,
    });
  }

  /** `zeros`, or the beginning of the SHA-384 of the data: for a page, of PAGE_INFO's contents. */
  private contents(header: IgvmHeader): string {
    if (!('fileOffset' in header)) return '';
    if (header.fileOffset === 0) return header.type === 'VP_CONTEXT' ? 'no data' : 'zeros';
    if (!header.data) return 'missing';
    const data = dataOf(this.file, header.data);
    return shortHash(this.crypto.sha384(data));
  }

  private contentsOfRun(first: number, last: number): string {
    const chunks: Uint8Array[] = [];
    for (let index = first; index <= last; index++) {
      const header = this.file.headers[index] as StructuredHeader<'PAGE_DATA'>;
      if (header.data) chunks.push(dataOf(this.file, header.data));
      else if (header.fileOffset !== 0) return 'missing';
    }
    return chunks.length === 0 ? 'zeros' : shortHash(this.crypto.sha384(...chunks));
  }
}

const shortHash = (hash: Uint8Array) => `sha384 ${bytesToHex(hash.subarray(0, 8))}`;
