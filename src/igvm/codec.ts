/** Reading and writing a header's body by its table. */
import { readField, writeField } from '../base/index.ts';
import type { Field, Structure } from '../base/index.ts';
import { HEADERS } from './tables.ts';
import type { HeaderSpec } from './tables.ts';
import type { AnyStructuredHeader, StructuredType } from './types.ts';

/** u8..u32 as number, u64 as bigint, byte arrays as views. */
export type FieldValue = number | bigint | Uint8Array;

export const specOf = (type: StructuredType): HeaderSpec => HEADERS[type];

const byNumber = new Map<number, StructuredType>();
for (const name of Object.keys(HEADERS) as StructuredType[]) byNumber.set(HEADERS[name].type, name);

/** Name of a header type number (optional bit already removed). */
export const typeName = (type: number): StructuredType | undefined => byNumber.get(type);

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
