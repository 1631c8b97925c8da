/** Reading and writing a header's body by its table. */
import { readField, writeField } from '../base/index.ts';
import type { Field, Structure } from '../base/index.ts';
import { HEADERS } from './tables.ts';
import type { HeaderSpec } from './tables.ts';
import type { AnyStructuredHeader, HeaderCommon, StructuredType } from './types.ts';

/** u8..u32 as number, u64 as bigint, byte arrays as views. */
export type FieldValue = number | bigint | Uint8Array;

export const specOf = (type: StructuredType): HeaderSpec => HEADERS[type];

const byNumber = new Map<number, StructuredType>();
for (const name of Object.keys(HEADERS) as StructuredType[]) byNumber.set(HEADERS[name].type, name);

/** Name of a header type number (optional bit already removed). */
export const typeName = (type: number): StructuredType | undefined => byNumber.get(type);

/** One object of the right shape for each type: copying it is several times faster than adding properties. */
const templates = new Map<StructuredType, Readonly<Record<string, unknown>>>();

/** A header of `type` with every property in place and zero (byte arrays empty), to be filled in. */
export function blankHeader(type: StructuredType): Record<string, unknown> {
  let template = templates.get(type);
  if (!template) {
    const fields = specOf(type).structure.fields.map((field) => [field.name, blankValue(field)] as const);
    const common: HeaderCommon = {
      index: -1,
      section: 'directive',
      rawType: 0,
      ignorable: false,
      offset: 0,
      length: 0,
      padding: undefined,
      data: undefined,
    };
    template = { ...common, type, ...Object.fromEntries(fields) };
    templates.set(type, template);
  }
  return { ...template };
}

function blankValue(field: Field): FieldValue {
  if (field.type === 'bytes') return EMPTY;
  return field.type === 'u64' ? 0n : 0;
}
const EMPTY = new Uint8Array();

/** Reads every field of `table` at `base` into `into`. One view for the whole file keeps large files fast. */
export function readFields(
  table: Structure,
  bytes: Uint8Array,
  view: DataView,
  base: number,
  into: Record<string, unknown>,
): void {
  for (const field of table.fields) {
    const at = base + field.offset;
    switch (field.type) {
      case 'u8':
        into[field.name] = bytes[at]!;
        break;
      case 'u16':
        into[field.name] = view.getUint16(at, true);
        break;
      case 'u32':
        into[field.name] = view.getUint32(at, true);
        break;
      case 'u64':
        into[field.name] = view.getBigUint64(at, true);
        break;
      case 'bytes':
        into[field.name] = bytes.subarray(at, at + field.size);
    }
  }
}

/** Writes every field of `values` that `table` names; the others stay as they are in `bytes`. */
export function writeFields(
  table: Structure,
  bytes: Uint8Array,
  base: number,
  values: Readonly<Record<string, unknown>>,
): void {
  for (const field of table.fields) {
    const value = values[field.name];
    if (value === undefined) continue;
    if (value instanceof Uint8Array) bytes.set(value.subarray(0, field.size), base + field.offset);
    else writeField(bytes, field, BigInt(value as number | bigint), base);
  }
}

/** An integer field of a structure in file data, as a number. */
export const readNumber = (bytes: Uint8Array, table: Structure, field: string, base: number): number =>
  Number(readField(bytes, table.field(field), base));

export interface HeaderFieldRow {
  readonly field: Field;
  /** Absolute file offset of the field. */
  readonly offset: number;
  readonly value: FieldValue;
}

/** The fields of a header with their places in the file, for display. */
export function headerFields(header: AnyStructuredHeader): HeaderFieldRow[] {
  const values = header as unknown as Readonly<Record<string, FieldValue>>;
  return specOf(header.type).structure.fields.map((field) => ({
    field,
    offset: header.offset + 8 + field.offset,
    value: values[field.name]!,
  }));
}
