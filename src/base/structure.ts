/**
 * A structure of a specification as one table, from which reading, writing and display all come.
 * Little-endian, as every structure in this field is.
 */
export type FieldType = 'u8' | 'u16' | 'u32' | 'u64' | 'bytes';

export interface Field {
  readonly name: string;
  readonly offset: number;
  /** Size in bytes; implied by `type` except for `bytes`. */
  readonly size: number;
  readonly type: FieldType;
  /** Where the specification says so. */
  readonly source?: string;
}

export interface Structure {
  readonly name: string;
  readonly size: number;
  readonly fields: readonly Field[];
  readonly field: (name: string) => Field;
}

const SIZES: Record<Exclude<FieldType, 'bytes'>, number> = { u8: 1, u16: 2, u32: 4, u64: 8 };

/** One row of a structure's table: `[offset, name, type]`; a number as type is a byte count. */
export type FieldRow = readonly [
  offset: number,
  name: string,
  type: Exclude<FieldType, 'bytes'> | number,
  source?: string,
];

/** Builds a structure from its table; throws at load time when rows overlap or leave the structure. */
export function structure(name: string, size: number, rows: readonly FieldRow[]): Structure {
  const byName = new Map<string, Field>();
  const fields = rows.map(([offset, fieldName, type, source]): Field => {
    const field: Field =
      typeof type === 'number'
        ? { name: fieldName, offset, size: type, type: 'bytes', source }
        : { name: fieldName, offset, size: SIZES[type], type, source };
    if (byName.has(fieldName)) throw new Error(`${name}: field ${fieldName} appears twice`);
    byName.set(fieldName, field);
    return field;
  });
  let end = 0;
  for (const field of [...fields].sort((a, b) => a.offset - b.offset)) {
    if (field.offset < end || field.offset + field.size > size)
      throw new Error(`${name}: field ${field.name} overlaps or leaves the structure`);
    end = field.offset + field.size;
  }
  return {
    name,
    size,
    fields,
    field: (fieldName) => {
      const field = byName.get(fieldName);
      if (!field) throw new Error(`${name} has no field ${fieldName}`);
      return field;
    },
  };
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Value of an integer field; `base` is the structure's offset in `bytes`. */
export function readField(bytes: Uint8Array, field: Field, base = 0): bigint {
  const at = base + field.offset;
  switch (field.type) {
    case 'u8':
      return BigInt(bytes[at]!);
    case 'u16':
      return BigInt(view(bytes).getUint16(at, true));
    case 'u32':
      return BigInt(view(bytes).getUint32(at, true));
    case 'u64':
      return view(bytes).getBigUint64(at, true);
    case 'bytes':
      throw new Error(`field ${field.name} is not an integer`);
  }
}

/** Writes an integer field, truncating to its width. */
export function writeField(bytes: Uint8Array, field: Field, value: bigint, base = 0): void {
  const at = base + field.offset;
  switch (field.type) {
    case 'u8':
      bytes[at] = Number(value & 0xffn);
      return;
    case 'u16':
      view(bytes).setUint16(at, Number(value & 0xffffn), true);
      return;
    case 'u32':
      view(bytes).setUint32(at, Number(value & 0xffff_ffffn), true);
      return;
    case 'u64':
      view(bytes).setBigUint64(at, BigInt.asUintN(64, value), true);
      return;
    case 'bytes':
      throw new Error(`field ${field.name} is not an integer`);
  }
}

/** The bytes of a field (a copy). */
export const fieldBytes = (bytes: Uint8Array, field: Field, base = 0): Uint8Array =>
  bytes.slice(base + field.offset, base + field.offset + field.size);
