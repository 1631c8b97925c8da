import { Cursor } from '../cursor.ts';
import * as D from './constants.ts';
import type { FormValue } from './forms.ts';
import type { DwarfSections } from './sections.ts';
import { addressAtIndex, resolveAddress, type Unit } from './units.ts';

export type RangeSink = (start: number, end: number) => void;

/**
 * The code ranges an entry claims by DW_AT_ranges, or DW_AT_low_pc and DW_AT_high_pc (DWARF 5, 2.17).
 * Empty ranges and those with addresses that are not canonical are left out. A broken list throws.
 */
export function rangesOf(
  sections: DwarfSections,
  unit: Unit,
  values: ReadonlyMap<number, FormValue>,
  sink: RangeSink,
): void {
  const take: RangeSink = (start, end) => {
    sections.spend('ranges');
    if (Number.isSafeInteger(start) && Number.isSafeInteger(end) && start < end) sink(start, end);
  };
  const list = values.get(D.DW_AT_ranges);
  if (list) {
    if (unit.version >= 5) rangeList(sections, unit, list, take);
    else oldRangeList(sections, unit, list, take);
    return;
  }
  const low = values.get(D.DW_AT_low_pc);
  const high = values.get(D.DW_AT_high_pc);
  const start = low && resolveAddress(sections, unit, low);
  if (start === undefined || !high) return;
  // A constant high_pc is a size (DWARF 4 on), an address is an address.
  const end = high.class === 'constant' ? start + high.value : resolveAddress(sections, unit, high);
  if (end !== undefined) take(start, end);
}

/** .debug_ranges (DWARF 4, 2.17.3). */
function oldRangeList(sections: DwarfSections, unit: Unit, list: FormValue, take: RangeSink): void {
  const section = sections.get('ranges');
  if (!section) return;
  const cursor = new Cursor(section, list.value + (list.class === 'offset' ? (unit.rangeListsBase ?? 0) : 0));
  let base = unit.lowPc;
  for (;;) {
    const start = cursor.address();
    const end = cursor.address();
    if (start === 0 && end === 0) return;
    if (start === -1) base = end;
    else take(base + start, base + end);
  }
}

/** .debug_rnglists (DWARF 5, 7.25). */
function rangeList(sections: DwarfSections, unit: Unit, list: FormValue, take: RangeSink): void {
  const section = sections.get('rnglists');
  if (!section) return;
  let at = list.value;
  if (list.class === 'listIndex') {
    const table = unit.rangeListsBase ?? (unit.dwarf64 ? 20 : 12);
    at = table + new Cursor(section, table + at * (unit.dwarf64 ? 8 : 4)).offset(unit.dwarf64);
  }
  const cursor = new Cursor(section, at);
  const indexed = (): number => addressAtIndex(sections, unit, cursor.uleb()) ?? NaN;
  let base = unit.lowPc;
  for (;;) {
    const kind = cursor.u8();
    switch (kind) {
      case 0: // DW_RLE_end_of_list
        return;
      case 1: // DW_RLE_base_addressx
        base = indexed();
        break;
      case 2: {
        // DW_RLE_startx_endx
        const start = indexed();
        take(start, indexed());
        break;
      }
      case 3: {
        // DW_RLE_startx_length
        const start = indexed();
        take(start, start + cursor.uleb());
        break;
      }
      case 4: {
        // DW_RLE_offset_pair
        const start = base + cursor.uleb();
        take(start, base + cursor.uleb());
        break;
      }
      case 5: // DW_RLE_base_address
        base = cursor.address();
        break;
      case 6: {
        // DW_RLE_start_end
        const start = cursor.address();
        take(start, cursor.address());
        break;
      }
      case 7: {
        // DW_RLE_start_length
        const start = cursor.address();
        take(start, start + cursor.uleb());
        break;
      }
      default:
        cursor.fail('dwarf-range-list', `range list entry kind ${kind} is not known`);
    }
    // Entries that only set the base cost work too.
    sections.spend('ranges', 0.25);
  }
}

/** .debug_aranges (DWARF 5, 6.1.2): calls `onRange(start, end, offset of the unit in .debug_info)`. */
export function readAranges(
  sections: DwarfSections,
  onRange: (start: number, end: number, unitOffset: number) => void,
): void {
  const section = sections.get('aranges');
  if (!section) return;
  try {
    const cursor = new Cursor(section);
    while (cursor.pos < section.bytes.length) {
      const start = cursor.pos;
      const { end, dwarf64 } = cursor.unitLength();
      const set = new Cursor(section, cursor.pos, end);
      cursor.pos = end;
      const version = set.u16();
      const unitOffset = set.offset(dwarf64);
      const addressSize = set.u8();
      const segmentSize = set.u8();
      if (version !== 2 || addressSize !== 8 || segmentSize !== 0) continue;
      // Tuples are aligned to twice the address size from the start of the set.
      set.pos = start + Math.ceil((set.pos - start) / 16) * 16;
      while (set.pos + 16 <= end) {
        const address = set.address();
        const length = set.address();
        if (address === 0 && length === 0) break;
        sections.spend('ranges');
        if (Number.isSafeInteger(address + length) && length > 0)
          onRange(address, address + length, unitOffset);
      }
    }
  } catch (error) {
    sections.note(error);
  }
}
