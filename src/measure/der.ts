/**
 * DER (X.690) as far as certificates and keys need it: definite lengths, low tag numbers, one pass, no recursion.
 *
 * Written here rather than taken from a library: the libraries read BER, which has many spellings of one value,
 * recurse as deep as the input says, and do not tell where an input is wrong.
 */
import { CvmError, hex } from '../base/index.ts';

export const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  null: 0x05,
  oid: 0x06,
  utf8String: 0x0c,
  sequence: 0x30,
  set: 0x31,
  printableString: 0x13,
  ia5String: 0x16,
  utcTime: 0x17,
  generalizedTime: 0x18,
} as const;
/** `[n]`, constructed. */
export const contextTag = (number: number): number => 0xa0 | number;

export interface DerValue {
  /** The identifier octet. */
  readonly tag: number;
  /** Offset of the identifier octet in the outermost input. */
  readonly offset: number;
  readonly content: Uint8Array;
  /** Identifier, length and content. */
  readonly bytes: Uint8Array;
}

/** Reads values one after the other. Every error is a CvmError `der-invalid` with the offset in the input. */
export class DerReader {
  private readonly bytes: Uint8Array;
  private readonly base: number;
  private readonly name: string;
  private at = 0;

  /** `name` is what the input is, for errors: `certificate`; `base` where it stands in the outermost input. */
  constructor(bytes: Uint8Array, name: string, base = 0) {
    this.bytes = bytes;
    this.name = name;
    this.base = base;
  }

  get done(): boolean {
    return this.at === this.bytes.length;
  }

  /** Whether the next value has this tag. */
  peek(tag: number): boolean {
    return this.bytes[this.at] === tag;
  }

  next(what: string, tag?: number): DerValue {
    const start = this.at;
    const { bytes } = this;
    const found = bytes[start];
    if (found === undefined) throw this.error(`${what} is missing`);
    if (tag !== undefined && found !== tag)
      throw this.error(`${what} has tag ${hex(found)}, not ${hex(tag)}`, this.base + start);
    if ((found & 0x1f) === 0x1f) throw this.error(`${what} has a multi-byte tag`, this.base + start);
    const { length, end } = this.length(start + 1, what);
    if (length > bytes.length - end)
      throw this.error(`${what} claims ${length} bytes; ${bytes.length - end} are left`, this.base + start);
    this.at = end + length;
    return {
      tag: found,
      offset: this.base + start,
      content: bytes.subarray(end, end + length),
      bytes: bytes.subarray(start, end + length),
    };
  }

  /** The inside of the next value, which is constructed. */
  enter(what: string, tag: number = TAG.sequence): DerReader {
    const value = this.next(what, tag);
    return this.inside(value);
  }

  /** A reader of the content of a value that this reader gave. */
  inside(value: DerValue, skip = 0): DerReader {
    const start = value.offset + value.bytes.length - value.content.length + skip;
    return new DerReader(value.content.subarray(skip), this.name, start);
  }

  oid(what: string): string {
    const value = this.next(what, TAG.oid);
    const text = oidText(value.content);
    if (text === undefined) throw this.error(`${what} is no object identifier`, value.offset);
    return text;
  }

  /** A non-negative integer as big-endian bytes without a sign byte. */
  unsigned(what: string): Uint8Array {
    const value = this.next(what, TAG.integer);
    const { content } = value;
    const minimal = content.length > 0 && !(content.length > 1 && content[0] === 0 && content[1]! < 0x80);
    if (!minimal || content[0]! >= 0x80) throw this.error(`${what} is no non-negative integer`, value.offset);
    return content[0] === 0 && content.length > 1 ? content.subarray(1) : content;
  }

  /** An integer from 0 to `most`, which is below 2^32. */
  small(what: string, most: number): number {
    const offset = this.base + this.at;
    const bytes = this.unsigned(what);
    const value = bytes.length > 4 ? Infinity : bytes.reduce((sum, byte) => sum * 256 + byte, 0);
    if (value > most) throw this.error(`${what} is over ${most}`, offset);
    return value;
  }

  /** A bit string of whole bytes. */
  bits(what: string): DerValue {
    const value = this.next(what, TAG.bitString);
    if (value.content[0] !== 0) throw this.error(`${what} is no bit string of whole bytes`, value.offset);
    return { ...value, content: value.content.subarray(1) };
  }

  /** @throws CvmError `der-invalid` if something follows. */
  end(): void {
    if (!this.done) throw this.error(`${this.bytes.length - this.at} bytes too many`);
  }

  /** `offset` in the outermost input; default: where the next value would be. */
  error(message: string, offset = this.base + this.at): CvmError {
    return new CvmError('der-invalid', `${this.name}: ${message}`, { fileOffset: offset });
  }

  private length(at: number, what: string): { length: number; end: number } {
    const first = this.bytes[at];
    if (first === undefined) throw this.error(`${what} has no length`, this.base + at);
    if (first < 0x80) return { length: first, end: at + 1 };
    const count = first & 0x7f;
    if (count === 0 || count > 3)
      throw this.error(`${what} has a length of an unsupported form`, this.base + at);
    if (at + 1 + count > this.bytes.length)
      throw this.error(`the length of ${what} is cut off`, this.base + at);
    let length = 0;
    for (let i = 1; i <= count; i++) length = length * 256 + this.bytes[at + i]!;
    if (length < 0x80 || length < 2 ** (8 * (count - 1)))
      throw this.error(`${what} has a length of more bytes than it needs`, this.base + at);
    return { length, end: at + 1 + count };
  }
}

/** Longest dotted form made; AMD's have 10 parts. */
const MAX_OID = 32;

function oidText(content: Uint8Array): string | undefined {
  if (content.length === 0 || content.length > MAX_OID || content.at(-1)! >= 0x80) return undefined;
  const parts: bigint[] = [];
  let value = 0n;
  for (const byte of content) {
    if (value === 0n && byte === 0x80) return undefined;
    value = (value << 7n) | BigInt(byte & 0x7f);
    if (byte >= 0x80) continue;
    if (parts.length === 0) {
      const top = value < 80n ? value / 40n : 2n;
      parts.push(top, value - 40n * top);
    } else parts.push(value);
    value = 0n;
  }
  return parts.join('.');
}
