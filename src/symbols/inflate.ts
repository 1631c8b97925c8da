import { CvmError } from '../base/index.ts';

/** Base length/distance and extra bits (RFC 1951, 3.2.5). */
const LENGTH_BASE = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195,
  227, 258,
];
const LENGTH_EXTRA = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097,
  6145, 8193, 12289, 16385, 24577,
];
const DISTANCE_EXTRA = [
  0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13,
];
const CODE_LENGTH_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
const MAX_BITS = 15;

/** Direct table over 15 bits of input: `symbol << 4 | bits`, 0 where no code. */
function huffman(lengths: ArrayLike<number>, count: number): Uint16Array {
  const perLength = new Uint16Array(MAX_BITS + 1);
  let longest = 0;
  for (let i = 0; i < count; i++) {
    perLength[lengths[i]!]!++;
    longest = Math.max(longest, lengths[i]!);
  }
  perLength[0] = 0;
  const next = new Uint16Array(MAX_BITS + 2);
  let code = 0;
  for (let bits = 1; bits <= MAX_BITS; bits++) {
    code = (code + perLength[bits - 1]!) << 1;
    next[bits] = code;
    if (code + perLength[bits]! > 1 << bits) throw new CvmError('inflate-codes', 'Over-full Huffman code.');
  }
  const table = new Uint16Array(1 << Math.max(1, longest));
  for (let symbol = 0; symbol < count; symbol++) {
    const bits = lengths[symbol]!;
    if (bits === 0) continue;
    let canonical = next[bits]!++;
    let reversed = 0;
    for (let i = 0; i < bits; i++, canonical >>= 1) reversed = (reversed << 1) | (canonical & 1);
    for (let at = reversed; at < table.length; at += 1 << bits) table[at] = (symbol << 4) | bits;
  }
  return table;
}

/**
 * Inflates a zlib stream (RFC 1950/1951) into exactly `size` bytes, synchronously: compressed debug
 * sections must be readable where only the asynchronous DecompressionStream exists.
 * Throws `CvmError` `inflate-*` on anything malformed; the Adler-32 trailer is not checked.
 */
export function inflateZlib(input: Uint8Array, size: number): Uint8Array {
  if (input.length < 2 || (input[0]! & 15) !== 8 || ((input[0]! << 8) | input[1]!) % 31 || input[1]! & 32)
    throw new CvmError('inflate-header', 'The compressed data does not start with a zlib header.');
  const out = new Uint8Array(size);
  let outAt = 0;
  let at = 2;
  let hold = 0;
  let held = 0;

  const need = (count: number): void => {
    while (held < count) {
      // Zero bits beyond the end let the last code be looked up whole; `held` going past is caught below.
      if (at > input.length + 4)
        throw new CvmError('inflate-truncated', 'The compressed data ends too early.');
      hold |= (input[at++] ?? 0) << held;
      held += 8;
    }
  };
  const bits = (count: number): number => {
    if (count === 0) return 0;
    need(count);
    const value = hold & ((1 << count) - 1);
    hold >>>= count;
    held -= count;
    return value;
  };
  const decode = (table: Uint16Array): number => {
    need(MAX_BITS);
    const entry = table[hold & (table.length - 1)]!;
    const length = entry & 15;
    if (length === 0) throw new CvmError('inflate-code', 'The compressed data contains an unused code.');
    hold >>>= length;
    held -= length;
    return entry >> 4;
  };
  const overflow = (): never => {
    throw new CvmError('inflate-size', `The compressed data holds more than the ${size} bytes declared.`);
  };

  const lengths = new Uint8Array(320);
  for (let last = 0; !last;) {
    last = bits(1);
    const kind = bits(2);
    if (kind === 0) {
      at -= held >> 3;
      hold = held = 0;
      if (at + 4 > input.length)
        throw new CvmError('inflate-truncated', 'The compressed data ends too early.');
      const length = input[at]! | (input[at + 1]! << 8);
      at += 4;
      if (at + length > input.length)
        throw new CvmError('inflate-truncated', 'The compressed data ends too early.');
      if (outAt + length > size) overflow();
      out.set(input.subarray(at, at + length), outAt);
      outAt += length;
      at += length;
      continue;
    }
    if (kind === 3) throw new CvmError('inflate-block', 'The compressed data has a reserved block type.');
    let literals: Uint16Array;
    let distances: Uint16Array;
    if (kind === 1) {
      lengths.fill(8, 0, 144).fill(9, 144, 256).fill(7, 256, 280).fill(8, 280, 288);
      literals = huffman(lengths, 288);
      distances = huffman(new Uint8Array(30).fill(5), 30);
    } else {
      const literalCount = bits(5) + 257;
      const distanceCount = bits(5) + 1;
      const codeCount = bits(4) + 4;
      lengths.fill(0);
      for (let i = 0; i < codeCount; i++) lengths[CODE_LENGTH_ORDER[i]!] = bits(3);
      const codes = huffman(lengths, 19);
      lengths.fill(0);
      for (let i = 0; i < literalCount + distanceCount;) {
        const symbol = decode(codes);
        if (symbol < 16) {
          lengths[i++] = symbol;
          continue;
        }
        if (symbol === 16 && i === 0)
          throw new CvmError('inflate-codes', 'The compressed data repeats a code length before the first.');
        const value = symbol === 16 ? lengths[i - 1]! : 0;
        const repeat = symbol === 16 ? 3 + bits(2) : symbol === 17 ? 3 + bits(3) : 11 + bits(7);
        if (i + repeat > literalCount + distanceCount)
          throw new CvmError('inflate-codes', 'The compressed data has too many code lengths.');
        lengths.fill(value, i, i + repeat);
        i += repeat;
      }
      literals = huffman(lengths, literalCount);
      distances = huffman(lengths.subarray(literalCount), distanceCount);
    }
    for (;;) {
      const symbol = decode(literals);
      if (symbol < 256) {
        if (outAt >= size) overflow();
        out[outAt++] = symbol;
        continue;
      }
      if (symbol === 256) break;
      if (symbol > 285) throw new CvmError('inflate-code', 'The compressed data contains an unused code.');
      const length = LENGTH_BASE[symbol - 257]! + bits(LENGTH_EXTRA[symbol - 257]!);
      const distanceSymbol = decode(distances);
      if (distanceSymbol > 29)
        throw new CvmError('inflate-code', 'The compressed data contains an unused code.');
      const distance = DISTANCE_BASE[distanceSymbol]! + bits(DISTANCE_EXTRA[distanceSymbol]!);
      if (distance > outAt)
        throw new CvmError('inflate-distance', 'The compressed data refers to bytes before its start.');
      if (outAt + length > size) overflow();
      for (let i = 0; i < length; i++, outAt++) out[outAt] = out[outAt - distance]!;
    }
  }
  if (outAt !== size)
    throw new CvmError('inflate-size', `The compressed data holds ${outAt} bytes, not the ${size} declared.`);
  return out;
}
