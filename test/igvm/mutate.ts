/** Damaging IGVM files: by chance, and by structure with the checksum put right again. */
import { parseIgvm, specOf } from '../../src/igvm/index.ts';
import type { IgvmHeader } from '../../src/igvm/index.ts';
import { fixCrc } from './random.ts';
import type { Random } from './random.ts';

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Cuts the file or changes bytes anywhere; the checksum is left to be wrong. */
export function mutateBlindly(original: Uint8Array, random: Random): Uint8Array {
  if (random.chance(30)) return original.slice(0, random.below(original.length + 1));
  const bytes = original.slice();
  const reach = random.chance(70) ? Math.min(bytes.length, 2048) : bytes.length;
  for (let n = 1 + random.below(8); n > 0; n--)
    bytes[random.below(reach)] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.next() & 0xff]);
  return bytes;
}

const NUMBERS = [
  0, 1, 2, 3, 4, 7, 8, 0xff, 0x1000, 0xfff, 0x20_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_f000,
];
const BIG_NUMBERS = [
  ...NUMBERS.map(BigInt),
  0x400_0000n,
  0x400_1000n,
  1n << 52n,
  0xffff_ffff_f000n,
  (1n << 63n) - 1n,
  (1n << 64n) - 0x1000n,
  (1n << 64n) - 1n,
];

/** Changes what the structure says: lengths, types, masks, offsets, counts, order. The checksum is right. */
export function mutateByStructure(original: Uint8Array, random: Random): Uint8Array {
  let bytes: Uint8Array = original.slice();
  for (let n = 1 + random.below(3); n > 0; n--) bytes = oneChange(bytes, random);
  return fixCrc(bytes);
}

function oneChange(bytes: Uint8Array, random: Random): Uint8Array {
  const data = view(bytes);
  const { headers } = parseIgvm(bytes);
  if (headers.length === 0 || random.chance(8)) {
    // A field of the fixed header.
    const at = 4 * (1 + random.below(7));
    if (at + 4 <= bytes.length && at !== 20)
      data.setUint32(
        at,
        random.pick([...NUMBERS, bytes.length, data.getUint32(at, true) ^ (1 << random.below(31))]),
        true,
      );
    return bytes;
  }
  const header = random.pick(headers);
  switch (random.below(10)) {
    case 0:
      data.setUint32(
        header.offset,
        random.pick([...NUMBERS, 0x100, 0x101, 0x107, 0x302, 0x306, 0x313, 0x400, 0x401]),
        true,
      );
      return bytes;
    case 1:
      data.setUint32(
        header.offset + 4,
        random.pick([...NUMBERS, 16, 20, 24, 696, header.length, 20 * header.length]),
        true,
      );
      return bytes;
    case 2:
      return swapHeaders(bytes, header, random.pick(headers));
    case 3:
      // One header becomes a copy of another of the same size: duplicates of what may occur once.
      for (const other of headers)
        if (other.length === header.length && random.chance(30)) {
          bytes.copyWithin(header.offset, other.offset, other.offset + other.length);
          break;
        }
      return bytes;
    default:
      return changeField(bytes, header, random);
  }
}

function changeField(bytes: Uint8Array, header: IgvmHeader, random: Random): Uint8Array {
  if (header.type === 'UNKNOWN' || header.type === 'VERSION_STRING') {
    if (header.length > 8) bytes[header.offset + 8 + random.below(header.length - 8)] = random.next();
    return bytes;
  }
  const data = view(bytes);
  const field = random.pick(specOf(header.type).structure.fields);
  const at = header.offset + 8 + field.offset;
  switch (field.type) {
    case 'u8':
      data.setUint8(at, random.pick(NUMBERS) & 0xff);
      break;
    case 'u16':
      data.setUint16(at, random.pick(NUMBERS) & 0xffff, true);
      break;
    case 'u32':
      data.setUint32(at, random.chance(20) ? random.below(bytes.length + 8192) : random.pick(NUMBERS), true);
      break;
    case 'u64':
      data.setBigUint64(at, random.pick(BIG_NUMBERS), true);
      break;
    case 'bytes':
      bytes[at + random.below(field.size)] = random.next();
  }
  return bytes;
}

function swapHeaders(bytes: Uint8Array, a: IgvmHeader, b: IgvmHeader): Uint8Array {
  const [first, second] = a.offset < b.offset ? [a, b] : [b, a];
  if (first === second) return bytes;
  const out = bytes.slice();
  const between = bytes.subarray(first.offset + first.length, second.offset);
  let at = first.offset;
  for (const part of [
    bytes.subarray(second.offset, second.offset + second.length),
    between,
    bytes.subarray(first.offset, first.offset + first.length),
  ]) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
