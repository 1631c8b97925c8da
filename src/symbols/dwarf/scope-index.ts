import { lastAtOrBelow } from '../intervals.ts';
import type { LineIndex } from './line-index.ts';
import { readScopes, scopeAt, scopeName, type ScopeTable } from './scopes.ts';
import type { DwarfSections } from './sections.ts';
import type { Unit } from './units.ts';

/** One function at an address; those inlined into another say where. Table addresses. */
export interface ScopeLevel {
  /** Linkage name or plain name; empty if the debug information has none. */
  readonly rawName: string;
  readonly inlined: boolean;
  /** Extent [start, end) over all pieces. */
  readonly start: number;
  readonly end: number;
  /** For inlined ones: file id of `LineIndex.files` (-1 if unknown), line and column of the call. */
  readonly callFileId: number;
  readonly callLine: number;
  readonly callColumn: number;
}

/** Functions and inlined copies of one image; a unit's entries are walked when an address in it is asked for. */
export class ScopeIndex {
  private readonly sections: DwarfSections;
  private readonly lines: LineIndex;
  private readonly tables = new Map<Unit, ScopeTable | undefined>();
  private unitOffsets: Float64Array | undefined;

  constructor(sections: DwarfSections, lines: LineIndex) {
    this.sections = sections;
    this.lines = lines;
  }

  /** The functions at an address, innermost first; the last is not inlined. Empty where nothing is known. */
  at(address: number): ScopeLevel[] {
    const unit = this.lines.unitAt(address);
    const table = unit && this.table(unit);
    const levels: ScopeLevel[] = [];
    if (!table) return levels;
    for (let id = scopeAt(table, address); id >= 0; id = table.scopes[id]!.parent) {
      const { entry, inlined, callFile, callLine, callColumn } = table.scopes[id]!;
      levels.push({
        rawName: scopeName(this.sections, unit, entry, (offset) => this.unitOf(offset)) ?? '',
        inlined,
        start: table.low[id]!,
        end: table.high[id]!,
        // Without DW_AT_call_* (strict DWARF 2) nothing is known, not even file 0.
        callFileId: callFile > 0 || callLine > 0 ? this.lines.fileOf(unit, callFile) : -1,
        callLine,
        callColumn,
      });
    }
    return levels;
  }

  private table(unit: Unit): ScopeTable | undefined {
    if (!this.tables.has(unit)) {
      let table: ScopeTable | undefined;
      try {
        table = readScopes(this.sections, unit);
      } catch (error) {
        this.sections.note(error);
      }
      this.tables.set(unit, table);
    }
    return this.tables.get(unit);
  }

  /** The unit that holds an offset of .debug_info. */
  private unitOf(offset: number): Unit | undefined {
    const { units } = this.lines;
    this.unitOffsets ??= Float64Array.from(units, (unit) => unit.offset);
    const unit = units[lastAtOrBelow(this.unitOffsets, offset)];
    return unit && offset < unit.end ? unit : undefined;
  }
}
