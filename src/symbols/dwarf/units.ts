import { Cursor, type SectionData } from '../cursor.ts';
import * as D from './constants.ts';
import { formValue, readForm, resolveString, type Encoding, type FormValue } from './forms.ts';
import { rangesOf, type RangeSink } from './ranges.ts';
import type { DwarfSections } from './sections.ts';

/** One abbreviation declaration (DWARF 5, 7.5.3). */
export interface Abbreviation {
  readonly tag: number;
  readonly hasChildren: boolean;
  /** Triples: attribute, form, implicit constant. */
  readonly specs: readonly number[];
}

/** An abbreviation table, read only as far as codes have been asked for (a hostile file shares long ones). */
export class AbbreviationTable {
  private readonly cursor: Cursor;
  private readonly sections: DwarfSections;
  private readonly known = new Map<number, Abbreviation>();
  private complete = false;

  constructor(sections: DwarfSections, section: SectionData, offset: number) {
    this.sections = sections;
    this.cursor = new Cursor(section, offset);
  }

  get(code: number): Abbreviation | undefined {
    let found = this.known.get(code);
    while (!found && !this.complete) {
      const read = this.cursor.uleb();
      if (read === 0) {
        this.complete = true;
        break;
      }
      this.sections.spend('abbreviations');
      const abbreviation = this.readOne();
      if (!this.known.has(read)) this.known.set(read, abbreviation);
      found = this.known.get(code);
    }
    return found;
  }

  private readOne(): Abbreviation {
    const { cursor } = this;
    const tag = cursor.uleb();
    const hasChildren = cursor.u8() !== 0;
    const specs: number[] = [];
    for (;;) {
      const attribute = cursor.uleb();
      const form = cursor.uleb();
      const implicit = form === D.DW_FORM_implicit_const ? cursor.sleb() : 0;
      if (attribute === 0 && form === 0) return { tag, hasChildren, specs };
      this.sections.spend('abbreviations', 0.25);
      specs.push(attribute, form, implicit);
    }
  }
}

/** A unit of .debug_info: its header and what its root entry says. Names and ranges are resolved. */
export interface Unit extends Encoding {
  readonly index: number;
  /** Section offsets: of the unit header, of the root entry, and of the end of the unit. */
  readonly offset: number;
  readonly entries: number;
  readonly end: number;
  readonly abbreviations: AbbreviationTable;
  readonly name: string;
  readonly compDir: string;
  /** DW_AT_language (DW_LANG_*), 0 if absent. */
  readonly language: number;
  /** Offset of the line program in .debug_line. */
  readonly lineOffset: number | undefined;
  /** DW_AT_low_pc as a table address: the base of the unit's range lists; 0 if absent. */
  readonly lowPc: number;
  readonly stringOffsetsBase: number | undefined;
  readonly addressBase: number | undefined;
  readonly rangeListsBase: number | undefined;
  readonly hasRanges: boolean;
}

/**
 * Reads every unit header of .debug_info and its root entry; nothing below the root is touched.
 * `onRange(start, end, unit)` gets the code ranges each unit claims. A unit that cannot be read gives a
 * diagnostic and is left out; a header that cannot be read ends the list.
 */
export function readUnits(
  sections: DwarfSections,
  onRange: (start: number, end: number, unit: number) => void,
): Unit[] {
  const units: Unit[] = [];
  const info = sections.get('info');
  const abbrev = sections.get('abbrev');
  if (!info || !abbrev) return units;
  const tables = new Map<number, AbbreviationTable>();
  const cursor = new Cursor(info);
  try {
    while (cursor.pos < info.bytes.length) {
      sections.spend('units');
      const offset = cursor.pos;
      const { end, dwarf64 } = cursor.unitLength();
      try {
        const unit = readUnit(sections, info, offset, cursor.pos, end, dwarf64, units.length, (at) => {
          let table = tables.get(at);
          if (!table) tables.set(at, (table = new AbbreviationTable(sections, abbrev, at)));
          return table;
        });
        if (unit) {
          units.push(unit.unit);
          unit.ranges((start, stop) => onRange(start, stop, unit.unit.index));
        }
      } catch (error) {
        sections.note(error);
      }
      cursor.pos = end;
    }
  } catch (error) {
    sections.note(error);
  }
  return units;
}

type WithRanges = { unit: Unit; ranges: (sink: RangeSink) => void };

function readUnit(
  sections: DwarfSections,
  info: SectionData,
  offset: number,
  body: number,
  end: number,
  dwarf64: boolean,
  index: number,
  tableAt: (offset: number) => AbbreviationTable,
): WithRanges | undefined {
  const cursor = new Cursor(info, body, end);
  const version = cursor.u16();
  if (version < 2 || version > 5) cursor.fail('dwarf-version', `DWARF version ${version} is not supported`);
  let unitType = D.DW_UT_compile;
  let addressSize: number;
  let abbreviationOffset: number;
  if (version >= 5) {
    unitType = cursor.u8();
    addressSize = cursor.u8();
    abbreviationOffset = cursor.offset(dwarf64);
    if (unitType === D.DW_UT_skeleton || unitType === D.DW_UT_split_compile) cursor.skip(8);
    else if (unitType === D.DW_UT_type || unitType === D.DW_UT_split_type) return undefined;
  } else {
    abbreviationOffset = cursor.offset(dwarf64);
    addressSize = cursor.u8();
  }
  if (addressSize !== 8)
    cursor.fail('dwarf-address-size', `addresses of ${addressSize} bytes are not x86-64`);
  const encoding: Encoding = { version, dwarf64, addressSize };
  const entries = cursor.pos;
  const abbreviations = tableAt(abbreviationOffset);
  const code = cursor.uleb();
  if (code === 0) return undefined;
  const root = abbreviations.get(code);
  if (!root) return cursor.fail('dwarf-abbreviation', `abbreviation ${code} of the unit is not declared`);
  const values = readAttributes(cursor, root, encoding);
  const number = (attribute: number): number | undefined => {
    const value = values.get(attribute)?.value;
    return value !== undefined && Number.isSafeInteger(value) ? value : undefined;
  };
  const stringOffsetsBase = number(D.DW_AT_str_offsets_base);
  const text = (attribute: number): string => {
    const value = values.get(attribute);
    return (value && resolveString(sections, cursor, value, encoding, stringOffsetsBase)) ?? '';
  };
  const partial: Unit = {
    ...encoding,
    index,
    offset,
    entries,
    end,
    abbreviations,
    name: text(D.DW_AT_name),
    compDir: text(D.DW_AT_comp_dir),
    language: number(D.DW_AT_language) ?? 0,
    lineOffset: number(D.DW_AT_stmt_list),
    lowPc: 0,
    stringOffsetsBase,
    addressBase: number(D.DW_AT_addr_base) ?? number(D.DW_AT_GNU_addr_base),
    rangeListsBase: number(D.DW_AT_rnglists_base) ?? number(D.DW_AT_GNU_ranges_base),
    hasRanges: values.has(D.DW_AT_ranges) || values.has(D.DW_AT_high_pc),
  };
  const low = values.get(D.DW_AT_low_pc);
  const lowPc = low ? resolveAddress(sections, partial, low) : undefined;
  const unit: Unit = { ...partial, lowPc: lowPc ?? 0 };
  return { unit, ranges: (sink) => rangesOf(sections, unit, values, sink) };
}

/** All attributes of the entry whose abbreviation code has just been read. */
export function readAttributes(
  cursor: Cursor,
  entry: Abbreviation,
  encoding: Encoding,
): Map<number, FormValue> {
  const values = new Map<number, FormValue>();
  for (let i = 0; i < entry.specs.length; i += 3) {
    const value = formValue();
    readForm(cursor, entry.specs[i + 1]!, encoding, entry.specs[i + 2]!, value);
    if (!values.has(entry.specs[i]!)) values.set(entry.specs[i]!, value);
  }
  return values;
}

/** The address of an address-class value; `undefined` if it is not one or not canonical. */
export function resolveAddress(sections: DwarfSections, unit: Unit, value: FormValue): number | undefined {
  if (value.class === 'address') return Number.isNaN(value.value) ? undefined : value.value;
  return value.class === 'addressIndex' ? addressAtIndex(sections, unit, value.value) : undefined;
}

/** Entry `index` of the unit's part of .debug_addr. */
export function addressAtIndex(sections: DwarfSections, unit: Unit, index: number): number | undefined {
  const table = sections.get('addr');
  const at = (unit.addressBase ?? (unit.version >= 5 ? (unit.dwarf64 ? 16 : 8) : 0)) + 8 * index;
  if (!table || !(at + 8 <= table.bytes.length)) return undefined;
  const address = new Cursor(table, at).address();
  return Number.isNaN(address) ? undefined : address;
}
