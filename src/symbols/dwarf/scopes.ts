import { Cursor } from '../cursor.ts';
import { flattenIntervals, intervalAt, type Intervals } from '../intervals.ts';
import * as D from './constants.ts';
import { formValue, readForm, resolveString, type FormValue } from './forms.ts';
import { rangesOf } from './ranges.ts';
import type { DwarfSections } from './sections.ts';
import { readAttributes, type Unit } from './units.ts';

/** A function, or a copy of one inlined into another, of one unit. */
export interface Scope {
  readonly inlined: boolean;
  /** The scope around an inlined one, as an index; -1 for a function. */
  readonly parent: number;
  /** Offset in .debug_info of its entry. */
  readonly entry: number;
  /** DW_AT_call_file (a file register value), call_line and call_column: where it was inlined; 0 if unknown. */
  readonly callFile: number;
  readonly callLine: number;
  readonly callColumn: number;
}

/** The functions and inlined copies of one unit, by address. */
export interface ScopeTable {
  readonly scopes: readonly Scope[];
  /** Innermost scope at each address. */
  readonly intervals: Intervals;
  /** Lowest start and highest end of each scope, table addresses. */
  readonly low: Float64Array;
  readonly high: Float64Array;
}

/** Deepest tree of entries followed; real ones stay under a hundred. */
const MAX_DEPTH = 4096;

/**
 * Walks the entries of a unit and collects DW_TAG_subprogram and DW_TAG_inlined_subroutine with code
 * (DWARF 5, 3.3). A broken tree keeps what came before, with a diagnostic. Throws `CvmError` `dwarf-limit`.
 */
export function readScopes(sections: DwarfSections, unit: Unit): ScopeTable {
  const scopes: Scope[] = [];
  const starts: number[] = [];
  const ends: number[] = [];
  const owners: number[] = [];
  try {
    const cursor = new Cursor(sections.get('info')!, unit.entries, unit.end);
    const scratch = formValue();
    /** Scope in force at each depth. */
    const around: number[] = [];
    let current = -1;
    while (cursor.pos < unit.end) {
      const entry = cursor.pos;
      const code = cursor.uleb();
      if (code === 0) {
        if (around.length <= 1) break;
        current = around.pop()!;
        continue;
      }
      sections.spend('entries');
      const abbreviation = unit.abbreviations.get(code);
      if (!abbreviation) return cursor.fail('dwarf-abbreviation', `abbreviation ${code} is not declared`);
      const { tag, specs } = abbreviation;
      let inside = current;
      if (tag === D.DW_TAG_subprogram || tag === D.DW_TAG_inlined_subroutine) {
        const values = readAttributes(cursor, abbreviation, unit);
        const id = scopes.length;
        rangesOf(sections, unit, values, (start, end) => {
          starts.push(start);
          ends.push(end);
          owners.push(id);
        });
        if (owners[owners.length - 1] === id) {
          const inlined = tag === D.DW_TAG_inlined_subroutine;
          const number = (attribute: number): number => values.get(attribute)?.value ?? 0;
          scopes.push({
            inlined,
            parent: inlined ? current : -1,
            entry,
            callFile: number(D.DW_AT_call_file),
            callLine: number(D.DW_AT_call_line),
            callColumn: number(D.DW_AT_call_column),
          });
          inside = id;
        }
      } else
        for (let i = 0; i < specs.length; i += 3)
          readForm(cursor, specs[i + 1]!, unit, specs[i + 2]!, scratch);
      if (abbreviation.hasChildren) {
        if (around.length >= MAX_DEPTH) cursor.fail('dwarf-depth', 'entries are nested too deeply');
        around.push(current);
        current = inside;
      } else if (around.length === 0) break;
    }
  } catch (error) {
    sections.note(error);
  }
  const low = new Float64Array(scopes.length).fill(Infinity);
  const high = new Float64Array(scopes.length).fill(-Infinity);
  owners.forEach((id, i) => {
    low[id] = Math.min(low[id]!, starts[i]!);
    high[id] = Math.max(high[id]!, ends[i]!);
  });
  return { scopes, intervals: flattenIntervals(starts, ends, owners), low, high };
}

/** The innermost scope at an address, or -1. */
export function scopeAt(table: ScopeTable, address: number): number {
  const index = intervalAt(table.intervals, address);
  return index < 0 ? -1 : table.intervals.ids[index]!;
}

/**
 * Linkage name, or else plain name, of the function an entry is, or is a copy of: follows
 * DW_AT_abstract_origin and DW_AT_specification. `unitOf` finds the unit holding an offset of .debug_info.
 */
export function scopeName(
  sections: DwarfSections,
  unit: Unit,
  entry: number,
  unitOf: (offset: number) => Unit | undefined,
): string | undefined {
  let plain: string | undefined;
  try {
    let at = entry;
    let holder: Unit | undefined = unit;
    for (let hops = 0; holder && hops < 8; hops++) {
      const cursor = new Cursor(sections.get('info')!, at, holder.end);
      const abbreviation = holder.abbreviations.get(cursor.uleb());
      if (!abbreviation) return plain;
      const values = readAttributes(cursor, abbreviation, holder);
      const { stringOffsetsBase } = holder;
      const text = (value: FormValue | undefined): string | undefined =>
        value && resolveString(sections, cursor.section, value, holder!, stringOffsetsBase);
      const linkage = text(values.get(D.DW_AT_linkage_name) ?? values.get(D.DW_AT_MIPS_linkage_name));
      if (linkage) return linkage;
      plain ??= text(values.get(D.DW_AT_name)) || undefined;
      const next = values.get(D.DW_AT_abstract_origin) ?? values.get(D.DW_AT_specification);
      if (next?.class === 'reference') at = holder.offset + next.value;
      else if (next?.class === 'infoReference') {
        at = next.value;
        holder = unitOf(at);
      } else return plain;
    }
  } catch (error) {
    sections.note(error);
  }
  return plain;
}
