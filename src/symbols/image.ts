import type { Diagnostic } from '../base/index.ts';
import { fromTableAddress, toTableAddress } from './cursor.ts';
import { canDemangle, demangle, demangleBudget, nameSegments, shortName } from './demangle.ts';
import { LineIndex } from './dwarf/line-index.ts';
import { ScopeIndex } from './dwarf/scope-index.ts';
import { DwarfSections } from './dwarf/sections.ts';
import { readElf, type ElfFile } from './elf.ts';
import { flattenIntervals, intervalAt, type Intervals } from './intervals.ts';
import { matchSources, type SourceMap } from './paths.ts';
import { SymbolTable, type SymbolKind } from './symbol-table.ts';

const PT_LOAD = 1;
const ET_REL = 1;

export interface ImageOptions {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Added to the file's addresses to get those of the running guest; 0 for ET_EXEC images at their place. */
  readonly bias?: bigint;
  readonly sourceMap?: SourceMap;
}

export interface SymbolInfo {
  /** Demangled, without the hash of legacy Rust names. */
  readonly name: string;
  readonly rawName: string;
  readonly kind: SymbolKind;
  /** Run-time address of the symbol. */
  readonly address: bigint;
  /** Bytes; for a symbol without a size, as far as it answers for addresses. */
  readonly size: bigint;
  readonly image: SymbolImage;
}

/** A symbol and how far behind its start the address asked for lies. */
export interface SymbolHit extends SymbolInfo {
  readonly offset: bigint;
}

export interface LineInfo {
  /** Path after the source map. */
  readonly file: string;
  /** 1-based; 0 where the compiler attributes the code to no line of the file. */
  readonly line: number;
  /** 1-based; 0 when only the line is known. */
  readonly column: number;
  readonly isStmt: boolean;
  readonly image: SymbolImage;
  /** Run-time addresses [start, end) of the row. */
  readonly range: readonly [start: bigint, end: bigint];
}

export interface SourceFile {
  /** Path after the source map, and as the compiler recorded it. */
  readonly path: string;
  readonly recorded: string;
  /** MD5 of the source at compile time, lower-case hex, where recorded (DWARF 5 from clang and rustc). */
  readonly md5?: string;
  readonly image: SymbolImage;
}

export interface FunctionRange {
  readonly name: string;
  readonly rawName: string;
  /** Run-time addresses [start, end). */
  readonly start: bigint;
  readonly end: bigint;
  readonly image: SymbolImage;
}

/** One level of the functions inlined into each other at an address. */
export interface InlineFrame {
  /** Demangled, without hash; empty if the debug information names nothing. */
  readonly name: string;
  readonly rawName: string;
  /** False for the last level only: the function that was really called. */
  readonly inlined: boolean;
  /** Where this level is: of the innermost the line of the address, of the others that of the inlined call. */
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** Run-time extent [start, end) over all pieces of this level. */
  readonly range: readonly [start: bigint, end: bigint];
  readonly image: SymbolImage;
}

/** Symbols and lines of one ELF file at one place. All addresses in and out are run-time addresses. */
export class SymbolImage {
  readonly name: string;
  readonly elf: ElfFile;
  readonly bias: bigint;
  readonly sourceMap: SourceMap;
  /** What could not be read; grows as parts are read on demand. */
  readonly diagnostics: Diagnostic[];
  private readonly segments: Intervals;
  private table: SymbolTable | undefined;
  private readonly dwarf: DwarfSections;
  private lineIndex: LineIndex | undefined;
  private scopeIndex: ScopeIndex | undefined;
  private readonly names: (string | undefined)[] = [];
  private readonly demangling = demangleBudget();
  private byLastSegment: Map<string, number[]> | undefined;

  /** Throws `CvmError` if `bytes` is not an ELF64 x86-64 file; everything behind the header is lenient and lazy. */
  constructor(options: ImageOptions) {
    this.name = options.name;
    this.elf = readElf(options.bytes);
    this.bias = options.bias ?? 0n;
    this.sourceMap = options.sourceMap ?? [];
    this.diagnostics = this.elf.diagnostics;
    this.dwarf = new DwarfSections(this.elf, this.diagnostics);
    const loads = this.elf.segments.filter((segment) => segment.type === PT_LOAD && segment.memorySize > 0n);
    const bounded = loads.filter((segment) => segment.memorySize < 1n << 47n);
    this.segments = flattenIntervals(
      bounded.map((segment) => toTableAddress(segment.virtualAddress)),
      bounded.map((segment) => toTableAddress(segment.virtualAddress) + Number(segment.memorySize)),
      bounded.map((_, i) => i),
    );
    if (this.elf.type === ET_REL)
      this.diagnostics.push({
        severity: 'warning',
        code: 'elf-relocatable',
        message: 'This is a relocatable object; its addresses and lines are those before linking.',
        offset: 16,
        length: 2,
      });
    if (!canDemangle())
      this.diagnostics.push({
        severity: 'info',
        code: 'symbols-no-demangler',
        message: 'Names are shown mangled: initSymbols() was not called.',
        offset: 0,
        length: 0,
      });
  }

  /** Whether a loadable segment covers the address. */
  contains(address: bigint): boolean {
    return intervalAt(this.segments, this.toTable(address)) >= 0;
  }

  /** Run-time extent [low, high) of the loadable segments. */
  get extent(): readonly [bigint, bigint] | undefined {
    const { starts, ends } = this.segments;
    if (starts.length === 0) return undefined;
    return [this.fromTable(starts[0]!), this.fromTable(ends[ends.length - 1]!)];
  }

  symbolAt(address: bigint): SymbolHit | undefined {
    const at = this.toTable(address);
    const hit = this.symbols.at(at);
    if (!hit) return undefined;
    return {
      ...this.symbolInfo(hit.id),
      size: BigInt(hit.end - hit.start),
      offset: BigInt(at - hit.start),
    };
  }

  /**
   * Every symbol a name means: equal to the raw name, the demangled name with or without hash, or a suffix
   * of its path in whole segments (`bldr_main`, `svsm::svsm_start`); exact matches hide suffix matches.
   */
  symbolByName(name: string): SymbolInfo[] {
    const wanted = nameSegments(demangle(name));
    const short = shortName(name);
    const hash = /::(h[0-9a-f]{16})$/.exec(name)?.[1] ?? '';
    const exact: number[] = [];
    const suffix: number[] = [];
    for (const id of this.nameIndex().get(wanted[wanted.length - 1]!) ?? []) {
      const raw = this.symbols.rawName(id);
      if (!raw.includes(hash)) continue;
      const full = this.displayName(id);
      if (raw === name || full === short) exact.push(id);
      else {
        const segments = nameSegments(full);
        if (
          segments.length >= wanted.length &&
          wanted.every((part, i) => part === segments[segments.length - wanted.length + i])
        )
          suffix.push(id);
      }
    }
    return (exact.length > 0 ? exact : suffix).map((id) => this.symbolInfo(id));
  }

  /** Up to `limit` symbols whose name, or a path suffix of it, starts with `prefix`; whole-name matches first. */
  lookup(prefix: string, limit: number): SymbolInfo[] {
    const first: number[] = [];
    const second: number[] = [];
    const inner = `::${prefix}`;
    for (let id = 0; id < this.symbols.count && first.length < limit; id++) {
      const name = this.displayName(id);
      if (name.startsWith(prefix)) first.push(id);
      else if (second.length < limit && name.includes(inner)) second.push(id);
    }
    return [...first, ...second].slice(0, limit).map((id) => this.symbolInfo(id));
  }

  lineAt(address: bigint): LineInfo | undefined {
    const hit = this.lines.at(this.toTable(address));
    if (!hit) return undefined;
    return {
      file: this.lines.files[hit.fileId]?.path ?? '',
      line: hit.line,
      column: hit.column,
      isStmt: hit.isStmt,
      image: this,
      range: [this.fromTable(hit.start), this.fromTable(hit.end)],
    };
  }

  /** Source files of the line tables, in the order met. Reads every line table header once. */
  sources(): SourceFile[] {
    return this.lines.readAllFiles().map(({ path, recorded, md5 }) => ({
      path,
      recorded,
      ...(md5 === undefined ? {} : { md5 }),
      image: this,
    }));
  }

  /**
   * The source files a path names (after the source map, or as recorded), by the rules of `SymbolSpace.matchSource`;
   * `ambiguous` lists the equally good candidates when no single one can be chosen.
   */
  matchSource(file: string): { files: string[]; ambiguous: string[] } {
    return matchSources(file, this.lines.readAllFiles());
  }

  private fileIds(files: readonly string[]): Set<number> {
    const paths = new Set(files);
    const ids = new Set<number>();
    this.lines.readAllFiles().forEach((record, id) => {
      if (paths.has(record.path)) ids.add(id);
    });
    return ids;
  }

  /** See `SymbolSpace.addressesOf`; `files` are paths as `sources()` gives them. */
  addressesOfFiles(
    files: readonly string[],
    line: number,
  ): { line: number; addresses: bigint[] } | undefined {
    const found = this.lines.addressesOf(
      this.fileIds(files),
      line,
      (address) => this.symbols.at(address)?.start,
    );
    if (!found) return undefined;
    const addresses = found.addresses.map((address) => this.fromTable(address));
    return { line: found.line, addresses: addresses.sort((a, b) => (a < b ? -1 : 1)) };
  }

  /** See `SymbolSpace.breakpointLocations`. */
  locationsOfFiles(files: readonly string[], from: number, to: number): { line: number; column: number }[] {
    return this.lines.locations(this.fileIds(files), from, to);
  }

  /** The function enclosing an address, by the symbol table, else by DW_TAG_subprogram. */
  functionAt(address: bigint): FunctionRange | undefined {
    const at = this.toTable(address);
    const hit = this.symbols.at(at);
    if (hit && this.symbols.kind(hit.id) === 'object') return undefined;
    const level = hit ? undefined : this.scopes.at(at).pop();
    const found = hit ? { ...hit, rawName: this.symbols.rawName(hit.id) } : level;
    if (!found) return undefined;
    return {
      name: shortName(demangle(found.rawName, this.demangling)),
      rawName: found.rawName,
      start: this.fromTable(found.start),
      end: this.fromTable(found.end),
      image: this,
    };
  }

  /**
   * The functions inlined into each other at an address, innermost first, as `addr2line -i` gives them;
   * empty where the debug information knows no function.
   */
  inlineFramesAt(address: bigint): InlineFrame[] {
    const line = this.lineAt(address);
    let place = { file: line?.file ?? '', line: line?.line ?? 0, column: line?.column ?? 0 };
    return this.scopes.at(this.toTable(address)).map((level) => {
      const frame: InlineFrame = {
        name: shortName(demangle(level.rawName, this.demangling)),
        rawName: level.rawName,
        inlined: level.inlined,
        ...place,
        range: [this.fromTable(level.start), this.fromTable(level.end)],
        image: this,
      };
      const file = this.lines.files[level.callFileId]?.path ?? '';
      place = { file, line: level.callLine, column: level.callColumn };
      return frame;
    });
  }

  /**
   * Where a breakpoint on the function at `address` belongs: behind its prologue, by the row marked
   * prologue_end, else the second row if the code sets up RBP; `address` itself where neither is known.
   */
  afterPrologue(address: bigint): bigint {
    const range = this.functionAt(address);
    const start = this.toTable(address);
    const end = range ? this.toTable(range.end) : start + 4096;
    const found = this.lines.afterPrologue(start, end, this.setsUpFrame(address));
    return found === undefined ? address : this.fromTable(found);
  }

  /** Bytes of the file at a run-time address; shorter, or empty, where the file has none. */
  codeAt(address: bigint, length: number): Uint8Array {
    const link = BigInt.asUintN(64, address - this.bias);
    for (const segment of this.elf.segments) {
      const offset = link - segment.virtualAddress;
      if (segment.type !== PT_LOAD || offset < 0n || offset >= BigInt(segment.fileSize)) continue;
      const start = segment.offset + Number(offset);
      return this.elf.bytes.subarray(start, Math.min(start + length, segment.offset + segment.fileSize));
    }
    return new Uint8Array(0);
  }

  /** `push %rbp; mov %rsp,%rbp`, in either encoding, perhaps behind ENDBR64. */
  private setsUpFrame(address: bigint): boolean {
    const code = this.codeAt(address, 8);
    const at = code[0] === 0xf3 && code[1] === 0x0f && code[2] === 0x1e && code[3] === 0xfa ? 4 : 0;
    const [push, rex, mov, modrm] = code.subarray(at, at + 4);
    return (
      push === 0x55 && rex === 0x48 && ((mov === 0x89 && modrm === 0xe5) || (mov === 0x8b && modrm === 0xec))
    );
  }

  private get symbols(): SymbolTable {
    return (this.table ??= new SymbolTable(this.elf, this.diagnostics));
  }

  private get lines(): LineIndex {
    return (this.lineIndex ??= new LineIndex(
      this.dwarf,
      (address) => this.segments.starts.length === 0 || intervalAt(this.segments, address) >= 0,
      this.sourceMap,
    ));
  }

  private get scopes(): ScopeIndex {
    return (this.scopeIndex ??= new ScopeIndex(this.dwarf, this.lines));
  }

  private displayName(id: number): string {
    return (this.names[id] ??= shortName(demangle(this.symbols.rawName(id), this.demangling)));
  }

  private symbolInfo(id: number): SymbolInfo {
    return {
      name: this.displayName(id),
      rawName: this.symbols.rawName(id),
      kind: this.symbols.kind(id),
      address: this.symbols.isAddress(id)
        ? this.fromTable(this.symbols.address[id]!)
        : fromTableAddress(this.symbols.address[id]!),
      size: BigInt(this.symbols.size[id]!),
      image: this,
    };
  }

  private nameIndex(): Map<string, number[]> {
    if (!this.byLastSegment) {
      this.byLastSegment = new Map();
      for (let id = 0; id < this.symbols.count; id++) {
        const segments = nameSegments(this.displayName(id));
        const last = segments[segments.length - 1]!;
        const list = this.byLastSegment.get(last);
        if (list) list.push(id);
        else this.byLastSegment.set(last, [id]);
      }
    }
    return this.byLastSegment;
  }

  private toTable(address: bigint): number {
    return toTableAddress(this.bias === 0n ? address : address - this.bias);
  }

  private fromTable(address: number): bigint {
    const link = fromTableAddress(address);
    return this.bias === 0n ? link : BigInt.asUintN(64, link + this.bias);
  }
}
