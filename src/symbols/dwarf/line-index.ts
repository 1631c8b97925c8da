import { flattenIntervals, intervalAt, type Intervals } from '../intervals.ts';
import { mapSource, type SourceMap } from '../paths.ts';
import { DW_LANG_Mips_Assembler } from './constants.ts';
import { hasOpcodes, readLineHeader, type LineHeader } from './line-header.ts';
import { ROW_END_SEQUENCE, ROW_IS_STMT, ROW_PROLOGUE_END, rowAt, runLineProgram } from './line-program.ts';
import type { LineTable } from './line-program.ts';
import { readAranges } from './ranges.ts';
import type { DwarfSections } from './sections.ts';
import { Cursor } from '../cursor.ts';
import { readUnits, type Unit } from './units.ts';

/** A line program, its header and rows read when first needed; `undefined` after an attempt that failed. */
interface Program {
  readonly offset: number;
  /** The first unit that names it. */
  readonly unit: Unit | undefined;
  header: LineHeader | undefined | 'unread';
  table: LineTable | undefined | 'unread';
  /** File register -> file id; made with the header. */
  fileIds: Uint32Array;
}

export interface LineHit {
  readonly program: number;
  readonly fileId: number;
  /** 0 where the compiler attributes the code to no line. */
  readonly line: number;
  readonly column: number;
  readonly isStmt: boolean;
  /** Table addresses. */
  readonly start: number;
  readonly end: number;
}

export interface SourceRecord {
  /** As recorded: absolute where the compiler says so, normalised. */
  readonly recorded: string;
  /** After the source map. */
  readonly path: string;
  md5: string | undefined;
}

/**
 * Lines of one image. Opening reads unit headers only; a program's header is read when its files are asked
 * for, its rows when an address in it or a line of one of its files is.
 */
export class LineIndex {
  readonly units: Unit[];
  readonly files: SourceRecord[] = [];
  private readonly sections: DwarfSections;
  private readonly inImage: (address: number) => boolean;
  private readonly sourceMap: SourceMap;
  private readonly fileByPath = new Map<string, number>();
  private readonly programs: Program[] = [];
  private readonly byRange: Intervals;
  /** Programs no unit vouches for with ranges. */
  private readonly loose: number[] = [];
  private looseRanges: Intervals | undefined;
  private programsByFile: Map<number, number[]> | undefined;
  private readonly unitRanges: Intervals;
  /** Offset in .debug_line -> program. */
  private readonly programOf = new Map<number, number>();

  constructor(sections: DwarfSections, inImage: (address: number) => boolean, sourceMap: SourceMap) {
    this.sections = sections;
    this.inImage = inImage;
    this.sourceMap = sourceMap;
    const starts: number[] = [];
    const ends: number[] = [];
    const owners: number[] = [];
    const claimed = new Set<number>();
    const claim = (start: number, end: number, unit: number): void => {
      if (!inImage(start)) return;
      starts.push(start);
      ends.push(end);
      owners.push(unit);
      claimed.add(unit);
    };
    this.units = readUnits(sections, claim);
    if (this.units.some((unit) => unit.lineOffset !== undefined && !unit.hasRanges)) {
      const byOffset = new Map(this.units.map((unit) => [unit.offset, unit]));
      readAranges(sections, (start, end, offset) => {
        const unit = byOffset.get(offset);
        if (unit && !unit.hasRanges) claim(start, end, unit.index);
      });
    }
    this.unitRanges = flattenIntervals(starts, ends, owners);

    const vouched = new Set<number>();
    const unitProgram = this.units.map((unit) => {
      if (unit.lineOffset === undefined) return -1;
      let program = this.programOf.get(unit.lineOffset);
      if (program === undefined) program = this.addProgram(unit.lineOffset, unit);
      // All its ranges may be of discarded functions: then the program has no code of the image either.
      if (unit.hasRanges || claimed.has(unit.index)) vouched.add(program);
      return program;
    });
    this.findOrphans();
    this.programs.forEach((_, index) => {
      if (!vouched.has(index) && hasOpcodes(sections, this.programs[index]!.offset)) this.loose.push(index);
    });
    const withLines = owners.flatMap((unit, i) => (unitProgram[unit]! >= 0 ? [i] : []));
    this.byRange = flattenIntervals(
      withLines.map((i) => starts[i]!),
      withLines.map((i) => ends[i]!),
      withLines.map((i) => unitProgram[owners[i]!]!),
    );
  }

  private addProgram(offset: number, unit: Unit | undefined): number {
    const index = this.programs.length;
    this.programs.push({ offset, unit, header: 'unread', table: 'unread', fileIds: new Uint32Array(0) });
    this.programOf.set(offset, index);
    return index;
  }

  /** Line programs that no unit refers to: images with .debug_line only, or a damaged .debug_info. */
  private findOrphans(): void {
    const line = this.sections.get('line');
    if (!line) return;
    try {
      const cursor = new Cursor(line);
      while (cursor.pos < line.bytes.length) {
        this.sections.spend('units');
        const offset = cursor.pos;
        cursor.pos = cursor.unitLength().end;
        if (!this.programOf.has(offset)) this.addProgram(offset, undefined);
      }
    } catch (error) {
      this.sections.note(error);
    }
  }

  private header(index: number): LineHeader | undefined {
    const program = this.programs[index]!;
    if (program.header === 'unread') {
      program.header = undefined;
      try {
        program.header = readLineHeader(
          this.sections,
          program.offset,
          program.unit?.compDir ?? '',
          program.unit?.name ?? '',
        );
        this.internFiles(program);
      } catch (error) {
        this.sections.note(error);
      }
    }
    return program.header;
  }

  private internFiles(program: Program): void {
    const { files } = program.header as LineHeader;
    program.fileIds = Uint32Array.from(files, ({ path, md5 }) => {
      let id = this.fileByPath.get(path);
      if (id === undefined) {
        id = this.files.length;
        this.fileByPath.set(path, id);
        this.files.push({ recorded: path, path: mapSource(this.sourceMap, path), md5 });
      }
      this.files[id]!.md5 ??= md5;
      return id;
    });
  }

  private table(index: number): LineTable | undefined {
    const program = this.programs[index]!;
    if (program.table === 'unread') {
      program.table = undefined;
      const header = this.header(index);
      if (header) {
        const known = header.files.length;
        try {
          program.table = runLineProgram(this.sections, header, this.inImage);
          if (header.files.length !== known) this.internFiles(program);
        } catch (error) {
          this.sections.note(error);
        }
      }
    }
    return program.table;
  }

  /** The unit whose claimed ranges contain an address. */
  unitAt(address: number): Unit | undefined {
    const index = intervalAt(this.unitRanges, address);
    return index < 0 ? undefined : this.units[this.unitRanges.ids[index]!];
  }

  /** The file a unit's line table has under a register value, as DW_AT_call_file uses it; -1 if none. */
  fileOf(unit: Unit, register: number): number {
    const program = unit.lineOffset === undefined ? undefined : this.programOf.get(unit.lineOffset);
    if (program === undefined || !this.header(program)) return -1;
    return this.programs[program]!.fileIds[register] ?? -1;
  }

  private rowIn(program: number, address: number): LineHit | undefined {
    const table = this.table(program);
    const hit = table && rowAt(table, address);
    if (!hit) return undefined;
    return {
      program,
      fileId: this.programs[program]!.fileIds[table.file[hit.row]!] ?? -1,
      line: table.line[hit.row]!,
      column: table.column[hit.row]!,
      isStmt: (table.flags[hit.row]! & ROW_IS_STMT) !== 0,
      start: hit.start,
      end: hit.end,
    };
  }

  /** The row that answers for an address. */
  at(address: number): LineHit | undefined {
    const index = intervalAt(this.byRange, address);
    const hit = index < 0 ? undefined : this.rowIn(this.byRange.ids[index]!, address);
    if (hit || this.loose.length === 0) return hit;
    if (!this.looseRanges) {
      const starts: number[] = [];
      const ends: number[] = [];
      const owners: number[] = [];
      for (const program of this.loose) {
        const table = this.table(program);
        table?.sequenceStart.forEach((start, i) => {
          starts.push(start);
          ends.push(table.sequenceEnd[i]!);
          owners.push(program);
        });
      }
      this.looseRanges = flattenIntervals(starts, ends, owners);
    }
    const looseIndex = intervalAt(this.looseRanges, address);
    return looseIndex < 0 ? undefined : this.rowIn(this.looseRanges.ids[looseIndex]!, address);
  }

  /** Reads every program's header, so that `files` is complete. */
  readAllFiles(): readonly SourceRecord[] {
    if (!this.programsByFile) {
      this.programsByFile = new Map();
      for (let index = 0; index < this.programs.length; index++) {
        if (!this.header(index)) continue;
        for (const id of new Set(this.programs[index]!.fileIds)) {
          const list = this.programsByFile.get(id);
          if (list) list.push(index);
          else this.programsByFile.set(id, [index]);
        }
      }
    }
    return this.files;
  }

  /**
   * Calls `visit` for each row of one of the files that starts code, in address order within a sequence;
   * `starts` is false for rows a later row at the same address replaces. A row of another file or line
   * that starts a statement calls `visit` with line -1.
   */
  visitRows(
    fileIds: ReadonlySet<number>,
    visit: (line: number, column: number, address: number, flags: number, replaced: boolean) => void,
  ): void {
    this.readAllFiles();
    const programs = new Set<number>();
    for (const id of fileIds) for (const program of this.programsByFile!.get(id) ?? []) programs.add(program);
    for (const index of [...programs].sort((a, b) => a - b)) {
      const table = this.table(index);
      if (!table) continue;
      const wanted = Array.from(this.programs[index]!.fileIds, (id) => fileIds.has(id));
      for (let sequence = 0; sequence < table.firstRow.length; sequence++) {
        visit(-1, 0, 0, ROW_END_SEQUENCE, false);
        const end = table.endRow[sequence]! - 1;
        for (let row = table.firstRow[sequence]!; row < end; row++) {
          const address = table.address[row]!;
          const line = wanted[table.file[row]!] ? table.line[row]! : -1;
          visit(line, table.column[row]!, address, table.flags[row]!, table.address[row + 1] === address);
        }
      }
    }
  }

  /**
   * Where the first line >= `line` with statements begins: the first statement row of each run of rows of
   * that line. `functionOf` names the function of an address. Optimised code may have statement rows that a
   * later row at the same address replaces: they count only in functions without a better one.
   */
  addressesOf(
    fileIds: ReadonlySet<number>,
    line: number,
    functionOf: (address: number) => number | undefined,
  ): { line: number; addresses: number[] } | undefined {
    let best = Infinity;
    let found: number[] = [];
    let replacedOnly: number[] = [];
    let inRun = false;
    this.visitRows(fileIds, (rowLine, _column, address, flags, replaced) => {
      if (flags & ROW_END_SEQUENCE) inRun = false;
      const isStmt = (flags & ROW_IS_STMT) !== 0;
      if (rowLine < line || rowLine > best || rowLine === 0) {
        if (isStmt && !replaced && rowLine !== 0) inRun = false;
        return;
      }
      if (!isStmt) return;
      if (rowLine < best) {
        best = rowLine;
        found = [];
        replacedOnly = [];
        inRun = false;
      }
      if (replaced) replacedOnly.push(address);
      else {
        if (!inRun) found.push(address);
        inRun = true;
      }
    });
    if (best === Infinity) return undefined;
    const served = new Set(found.map(functionOf));
    const addresses = new Set([
      ...found,
      ...replacedOnly.filter((address) => !served.has(functionOf(address))),
    ]);
    return { line: best, addresses: [...addresses] };
  }

  /** Statement rows of lines `from` to `to`, each (line, column) once, sorted. */
  locations(fileIds: ReadonlySet<number>, from: number, to: number): { line: number; column: number }[] {
    const seen = new Set<number>();
    this.visitRows(fileIds, (line, column, _address, flags, replaced) => {
      if (line >= from && line <= to && line > 0 && flags & ROW_IS_STMT && !replaced)
        seen.add(line * 0x10000 + column);
    });
    return [...seen]
      .sort((a, b) => a - b)
      .map((key) => ({ line: Math.floor(key / 0x10000), column: key % 0x10000 }));
  }

  /**
   * Where a function's body begins by the line table: its first row marked prologue_end, else (if
   * `framed`: the code does set up a frame) its second row. `undefined` if neither is inside [start, end).
   */
  afterPrologue(start: number, end: number, framed: boolean): number | undefined {
    const hit = this.at(start);
    if (!hit || this.programs[hit.program]!.unit?.language === DW_LANG_Mips_Assembler) return undefined;
    const table = this.table(hit.program)!;
    let row = rowAt(table, start)!.row;
    let second: number | undefined;
    for (; row < table.address.length && !(table.flags[row]! & ROW_END_SEQUENCE); row++) {
      const address = table.address[row]!;
      if (address >= end) break;
      if (address < start) continue;
      if (table.flags[row]! & ROW_PROLOGUE_END) return address;
      if (address > start && table.line[row] !== 0) second ??= address;
    }
    return framed ? second : undefined;
  }
}
