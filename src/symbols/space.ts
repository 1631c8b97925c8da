import {
  SymbolImage,
  type FunctionRange,
  type ImageOptions,
  type InlineFrame,
  type LineInfo,
  type SourceFile,
  type SymbolHit,
  type SymbolInfo,
} from './image.ts';
import { matchSources } from './paths.ts';

export interface LineAddresses {
  /** Lowest first, one for each contiguous piece of code of the line (so one for each inlined copy). */
  readonly addresses: bigint[];
  /** The line actually meant: the one asked for, or the next one with code. */
  readonly line: number;
  /** The source files that matched, as `sources()` names them. */
  readonly files: string[];
}

/**
 * Several images at once (loader, kernel, user programs). A question about an address goes to the images
 * in the order they were added, those whose segments cover it first come first served; images may overlap
 * (programs of different address spaces): then ask the `SymbolImage` that applies instead.
 */
export class SymbolSpace {
  private readonly list: SymbolImage[] = [];

  get images(): readonly SymbolImage[] {
    return this.list;
  }

  /** Throws `CvmError` (`elf-*`) if the bytes are not an ELF64 x86-64 file. */
  add(options: ImageOptions): SymbolImage {
    const image = new SymbolImage(options);
    this.list.push(image);
    return image;
  }

  remove(image: SymbolImage): void {
    const index = this.list.indexOf(image);
    if (index >= 0) this.list.splice(index, 1);
  }

  /** The first image with a loadable segment at the address. */
  imageAt(address: bigint): SymbolImage | undefined {
    for (const image of this.list) if (image.contains(address)) return image;
    return undefined;
  }

  private first<T>(address: bigint, ask: (image: SymbolImage) => T | undefined): T | undefined {
    for (const image of this.list) {
      if (!image.contains(address)) continue;
      const answer = ask(image);
      if (answer !== undefined) return answer;
    }
    return undefined;
  }

  symbolAt(address: bigint): SymbolHit | undefined {
    return this.first(address, (image) => image.symbolAt(address));
  }

  /** See `SymbolImage.symbolByName`; matches of all images. */
  symbolByName(name: string): SymbolInfo[] {
    return this.list.flatMap((image) => image.symbolByName(name));
  }

  /** For completion: up to `limit` symbols whose name or path suffix starts with `prefix`. */
  lookup(prefix: string, limit: number): SymbolInfo[] {
    return this.list.flatMap((image) => image.lookup(prefix, limit)).slice(0, limit);
  }

  lineAt(address: bigint): LineInfo | undefined {
    return this.first(address, (image) => image.lineAt(address));
  }

  functionAt(address: bigint): FunctionRange | undefined {
    return this.first(address, (image) => image.functionAt(address));
  }

  /** See `SymbolImage.inlineFramesAt`. */
  inlineFramesAt(address: bigint): InlineFrame[] {
    return this.imageAt(address)?.inlineFramesAt(address) ?? [];
  }

  /** See `SymbolImage.afterPrologue`; `address` itself when no image covers it. */
  afterPrologue(address: bigint): bigint {
    return this.imageAt(address)?.afterPrologue(address) ?? address;
  }

  sources(): SourceFile[] {
    return this.list.flatMap((image) => image.sources());
  }

  /**
   * The source files a path names over all images: the exact path (mapped or recorded), else a suffix in
   * whole segments, else the one that shares the longest tail. `ambiguous` has the candidates if several
   * are equally good, and then nothing matched.
   */
  matchSource(file: string): { files: string[]; ambiguous: string[] } {
    return matchSources(file, this.sources());
  }

  /**
   * Where to stop for a line of a source file. When the line has no code the next line of the file with
   * code is taken, as gdb does. `undefined` if no file matches or nothing follows.
   */
  addressesOf(file: string, line: number): LineAddresses | undefined {
    const { files } = this.matchSource(file);
    if (files.length === 0) return undefined;
    const found = this.list.flatMap((image) => image.addressesOfFiles(files, line) ?? []);
    if (found.length === 0) return undefined;
    const best = found.reduce((least, { line: at }) => Math.min(least, at), Infinity);
    const addresses = found.filter((one) => one.line === best).flatMap((one) => one.addresses);
    return {
      addresses: [...new Set(addresses)].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0)),
      line: best,
      files,
    };
  }

  /** Lines (and columns, 0 if unknown) between two lines, both included, where a breakpoint can be set; sorted. */
  breakpointLocations(file: string, fromLine: number, toLine: number): { line: number; column: number }[] {
    const { files } = this.matchSource(file);
    if (files.length === 0) return [];
    const seen = new Map<number, { line: number; column: number }>();
    for (const image of this.list)
      for (const location of image.locationsOfFiles(files, fromLine, toLine))
        seen.set(location.line * 0x10000 + location.column, location);
    return [...seen.keys()].sort((a, b) => a - b).map((key) => seen.get(key)!);
  }
}
