import { stringAt, Cursor, type SectionData } from '../cursor.ts';
import * as D from './constants.ts';
import type { DwarfSections } from './sections.ts';

/** What a form's value means before it is resolved (DWARF 5, 7.5.5). */
export type ValueClass =
  | 'none'
  | 'address'
  | 'addressIndex'
  | 'constant'
  | 'flag'
  | 'block'
  | 'string'
  | 'strp'
  | 'lineStrp'
  | 'stringIndex'
  | 'reference'
  | 'infoReference'
  | 'offset'
  | 'listIndex'
  | 'foreign';

/** What the encoding of values depends on. */
export interface Encoding {
  readonly version: number;
  readonly dwarf64: boolean;
  readonly addressSize: number;
}

/** One attribute value. Reused between reads: copy what is kept. */
export interface FormValue {
  class: ValueClass;
  /** Number, address, section offset, index or unit-relative reference; for blocks and inline strings their offset. */
  value: number;
  /** Bytes of a block. */
  length: number;
}

export const formValue = (): FormValue => ({ class: 'none', value: 0, length: 0 });

/** Reads one value of `form` at the cursor. Throws `CvmError` `dwarf-form` for a form nobody defined. */
export function readForm(
  cursor: Cursor,
  form: number,
  encoding: Encoding,
  implicit: number,
  out: FormValue,
): void {
  const set = (kind: ValueClass, value: number): void => {
    out.class = kind;
    out.value = value;
  };
  const block = (length: number): void => {
    set('block', cursor.pos);
    out.length = length;
    cursor.skip(length);
  };
  switch (form) {
    case D.DW_FORM_addr:
      if (encoding.addressSize !== 8) cursor.fail('dwarf-address-size', 'addresses are not 8 bytes');
      return set('address', cursor.address());
    case D.DW_FORM_data1:
      return set('constant', cursor.u8());
    case D.DW_FORM_data2:
      return set('constant', cursor.u16());
    case D.DW_FORM_data4:
      // DWARF 2 and 3 had no sec_offset form: data4/data8 are also section offsets there.
      return set('constant', cursor.u32());
    case D.DW_FORM_data8:
      return set('constant', cursor.address());
    case D.DW_FORM_data16:
      return block(16);
    case D.DW_FORM_sdata:
      return set('constant', cursor.sleb());
    case D.DW_FORM_udata:
      return set('constant', cursor.uleb());
    case D.DW_FORM_implicit_const:
      return set('constant', implicit);
    case D.DW_FORM_flag:
      return set('flag', cursor.u8());
    case D.DW_FORM_flag_present:
      return set('flag', 1);
    case D.DW_FORM_block1:
      return block(cursor.u8());
    case D.DW_FORM_block2:
      return block(cursor.u16());
    case D.DW_FORM_block4:
      return block(cursor.u32());
    case D.DW_FORM_block:
    case D.DW_FORM_exprloc:
      return block(cursor.uleb());
    case D.DW_FORM_string:
      return set('string', cursor.skipString());
    case D.DW_FORM_strp:
      return set('strp', cursor.offset(encoding.dwarf64));
    case D.DW_FORM_line_strp:
      return set('lineStrp', cursor.offset(encoding.dwarf64));
    case D.DW_FORM_strx:
    case D.DW_FORM_GNU_str_index:
      return set('stringIndex', cursor.uleb());
    case D.DW_FORM_strx1:
      return set('stringIndex', cursor.u8());
    case D.DW_FORM_strx2:
      return set('stringIndex', cursor.u16());
    case D.DW_FORM_strx3:
      return set('stringIndex', cursor.u24());
    case D.DW_FORM_strx4:
      return set('stringIndex', cursor.u32());
    case D.DW_FORM_addrx:
    case D.DW_FORM_GNU_addr_index:
      return set('addressIndex', cursor.uleb());
    case D.DW_FORM_addrx1:
      return set('addressIndex', cursor.u8());
    case D.DW_FORM_addrx2:
      return set('addressIndex', cursor.u16());
    case D.DW_FORM_addrx3:
      return set('addressIndex', cursor.u24());
    case D.DW_FORM_addrx4:
      return set('addressIndex', cursor.u32());
    case D.DW_FORM_ref1:
      return set('reference', cursor.u8());
    case D.DW_FORM_ref2:
      return set('reference', cursor.u16());
    case D.DW_FORM_ref4:
      return set('reference', cursor.u32());
    case D.DW_FORM_ref8:
      return set('reference', cursor.u64());
    case D.DW_FORM_ref_udata:
      return set('reference', cursor.uleb());
    case D.DW_FORM_ref_addr:
      // DWARF 2 wrote an address-sized offset here.
      return set('infoReference', encoding.version <= 2 ? cursor.u64() : cursor.offset(encoding.dwarf64));
    case D.DW_FORM_sec_offset:
      return set('offset', cursor.offset(encoding.dwarf64));
    case D.DW_FORM_rnglistx:
    case D.DW_FORM_loclistx:
      return set('listIndex', cursor.uleb());
    case D.DW_FORM_ref_sig8:
    case D.DW_FORM_ref_sup8:
      cursor.skip(8);
      return set('foreign', 0);
    case D.DW_FORM_ref_sup4:
      cursor.skip(4);
      return set('foreign', 0);
    case D.DW_FORM_strp_sup:
    case D.DW_FORM_GNU_ref_alt:
    case D.DW_FORM_GNU_strp_alt:
      return set('foreign', cursor.offset(encoding.dwarf64));
    case D.DW_FORM_indirect: {
      const actual = cursor.uleb();
      if (actual === D.DW_FORM_indirect || actual === D.DW_FORM_implicit_const)
        cursor.fail('dwarf-form', 'an indirect form names another indirect form');
      return readForm(cursor, actual, encoding, 0, out);
    }
    default:
      cursor.fail('dwarf-form', `attribute form 0x${form.toString(16)} is not known`);
  }
}

/** Text of a string-class value read from section `inline`; `undefined` if it is none or lies in a file we do not have. */
export function resolveString(
  sections: DwarfSections,
  inline: SectionData,
  value: FormValue,
  encoding: Encoding,
  stringOffsetsBase: number | undefined,
): string | undefined {
  switch (value.class) {
    case 'string':
      return stringAt(inline.bytes, value.value);
    case 'strp':
      return sections.get('str') && stringAt(sections.get('str')!.bytes, value.value);
    case 'lineStrp':
      return sections.get('line_str') && stringAt(sections.get('line_str')!.bytes, value.value);
    case 'stringIndex': {
      const offsets = sections.get('str_offsets');
      const strings = sections.get('str');
      if (!offsets || !strings) return undefined;
      // Without DW_AT_str_offsets_base the first table of the section is meant, behind its header.
      const base = stringOffsetsBase ?? (encoding.version >= 5 ? (encoding.dwarf64 ? 16 : 8) : 0);
      const at = base + value.value * (encoding.dwarf64 ? 8 : 4);
      if (at + (encoding.dwarf64 ? 8 : 4) > offsets.bytes.length) return undefined;
      return stringAt(strings.bytes, new Cursor(offsets, at).offset(encoding.dwarf64));
    }
    default:
      return undefined;
  }
}
