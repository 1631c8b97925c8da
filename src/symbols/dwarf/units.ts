import { Cursor, type SectionData } from '../cursor.ts';
import * as D from './constants.ts';
import { formValue, readForm, resolveString, type Encoding, type FormValue } from './forms.ts';
import { AbbreviationTable, type Abbreviation } from './abbreviations.ts';
import { rangesOf } from './ranges.ts';
import type { DwarfSections } from './sections.ts';

/** What a unit's header and the place it stands in say. */
interface UnitHeader extends Encoding {
  readonly offset: number;
  readonly entries: number;
  readonly end: number;
  readonly abbreviations: AbbreviationTable;
}

/** A unit of .debug_info: its header and the attributes of its root entry. */
export class Unit implements Encoding {
  readonly version: number;
  readonly dwarf64: boolean;
  readonly addressSize: number;
  /** Place in the list of units. */
  readonly index: number;
  /** Offsets in .debug_info: of the unit header, of the root entry, and of the end of the unit. */
  readonly offset: number;
  readonly entries: number;
  readonly end: number;
  readonly abbreviations: AbbreviationTable;
  /** Offset of the line program in .debug_line. */
  readonly lineOffset: number | undefined;
  /** DW_AT_low_pc as a table address: the base of the unit's range lists; 0 if absent. */
  readonly lowPc: number;
  readonly stringOffsetsBase: number | undefined;
  readonly addressBase: number | undefined;
  readonly rangeListsBase: number | undefined;
  readonly root: ReadonlyMap<number, FormValue>;
  private readonly sections: DwarfSections;

  constructor(
    sections: DwarfSections,
    header: UnitHeader,
    root: ReadonlyMap<number, FormValue>,
    index: number,
  ) {
    this.sections = sections;
    this.root = root;
    this.index = index;
    this.version = header.version;
    this.dwarf64 = header.dwarf64;
    this.addressSize = header.addressSize;
    this.offset = header.offset;
    this.entries = header.entries;
    this.end = header.end;
    this.abbreviations = header.abbreviations;
    this.stringOffsetsBase = this.number(D.DW_AT_str_offsets_base);
    this.addressBase = this.number(D.DW_AT_addr_base) ?? this.number(D.DW_AT_GNU_addr_base);
    this.rangeListsBase = this.number(D.DW_AT_rnglists_base) ?? this.number(D.DW_AT_GNU_ranges_base);
    this.lineOffset = this.number(D.DW_AT_stmt_list);
    const low = root.get(D.DW_AT_low_pc);
    this.lowPc = (low && resolveAddress(sections, this, low)) ?? 0;
  }

  /** DW_AT_name and DW_AT_comp_dir; empty if absent. */
  get name(): string {
    return this.text(D.DW_AT_name);
  }

  get compDir(): string {
    return this.text(D.DW_AT_comp_dir);
  }

  /** DW_AT_language (DW_LANG_*), 0 if absent. */
  get language(): number {
    return this.number(D.DW_AT_language) ?? 0;
  }

  /** Whether the root entry claims code ranges. */
  get hasRanges(): boolean {
    return this.root.has(D.DW_AT_ranges) || this.root.has(D.DW_AT_high_pc);
  }

  private number(attribute: number): number | undefined {
    const value = this.root.get(attribute)?.value;
    return value !== undefined && Number.isSafeInteger(value) ? value : undefined;
  }

  private text(attribute: number): string {
    const value = this.root.get(attribute);
    const info = this.sections.get('info');
    return (value && info && resolveString(this.sections, info, value, this, this.stringOffsetsBase)) ?? '';
  }
}

/** After so many unreadable units the rest of .debug_info is given up. */
const MAX_BROKEN_UNITS = 1000;

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
  let broken = 0;
  try {
    while (cursor.pos < info.bytes.length) {
      sections.spend('units');
      const offset = cursor.pos;
      const { end, dwarf64 } = cursor.unitLength();
      try {
        const start = { offset, body: cursor.pos, end, dwarf64 };
        const unit = readUnit(sections, info, start, units.length, (at) => {
          let table = tables.get(at);
          if (!table) tables.set(at, (table = new AbbreviationTable(sections, abbrev, at)));
          return table;
        });
        if (unit) {
          units.push(unit);
          rangesOf(sections, unit, unit.root, (low, high) => onRange(low, high, unit.index));
        }
      } catch (error) {
        sections.note(error);
        if (++broken > MAX_BROKEN_UNITS)
          cursor.fail('dwarf-limit', `more than ${MAX_BROKEN_UNITS} units are broken`);
      }
      cursor.pos = end;
    }
  } catch (error) {
    sections.note(error);
  }
  return units;
}

function readUnit(
  sections: DwarfSections,
  info: SectionData,
  start: { offset: number; body: number; end: number; dwarf64: boolean },
  index: number,
  tableAt: (offset: number) => AbbreviationTable,
): Unit | undefined {
  const { offset, body, end, dwarf64 } = start;
  const cursor = new Cursor(info, body, end);
  const version = cursor.u16();
  if (version < 2 || version > 5) cursor.fail('dwarf-version', `DWARF version ${version} is not supported`);
  let addressSize: number;
  let abbreviationOffset: number;
  if (version >= 5) {
    const unitType = cursor.u8();
    addressSize = cursor.u8();
    abbreviationOffset = cursor.offset(dwarf64);
    if (unitType === D.DW_UT_type || unitType === D.DW_UT_split_type) return undefined;
    if (unitType === D.DW_UT_skeleton || unitType === D.DW_UT_split_compile) cursor.skip(8);
  } else {
    abbreviationOffset = cursor.offset(dwarf64);
    addressSize = cursor.u8();
  }
  if (addressSize !== 8)
    cursor.fail('dwarf-address-size', `addresses of ${addressSize} bytes are not x86-64`);
  const entries = cursor.pos;
  const abbreviations = tableAt(abbreviationOffset);
  const header: UnitHeader = { version, dwarf64, addressSize, offset, entries, end, abbreviations };
  const code = cursor.uleb();
  if (code === 0) return undefined;
  const root = abbreviations.get(code);
  if (!root) return cursor.fail('dwarf-abbreviation', `abbreviation ${code} of the unit is not declared`);
  return new Unit(sections, header, readAttributes(cursor, root, header), index);
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
