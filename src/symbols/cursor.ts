import { CvmError } from '../base/index.ts';

/** Bytes of a section, and where they lie in the file (start of the section's bytes, even if compressed). */
export interface SectionData {
  readonly name: string;
  readonly bytes: Uint8Array;
  readonly fileOffset: number;
}

const utf8 = new TextDecoder('utf-8', { ignoreBOM: true });

/** Text of `bytes[start, end)`; invalid UTF-8 becomes U+FFFD. */
export const decodeText = (bytes: Uint8Array, start: number, end: number): string =>
  utf8.decode(bytes.subarray(start, end));

/** Longest string taken from a string table; the longest mangled Rust names are some 10 KB. */
export const MAX_STRING = 16_384;

/** NUL-terminated string at `at`; empty when `at` is outside, cut at the end of the bytes or `max` bytes. */
export function stringAt(bytes: Uint8Array, at: number, max = MAX_STRING): string {
  if (!(at >= 0 && at < bytes.length)) return '';
  const limit = Math.min(bytes.length, at + max);
  // Searching only up to the limit keeps tables without any NUL cheap.
  const nul = bytes.subarray(at, limit).indexOf(0);
  return decodeText(bytes, at, nul < 0 ? limit : at + nul);
}

/**
 * Reads a section front to back, little-endian. Every read is checked against `end`; what lies outside,
 * or does not fit an exact number, throws `CvmError` `dwarf-truncated` / `dwarf-value` with the file offset.
 */
export class Cursor {
  readonly section: SectionData;
  readonly bytes: Uint8Array;
  private readonly view: DataView;
  pos: number;
  end: number;

  constructor(section: SectionData, pos = 0, end = section.bytes.length) {
    this.section = section;
    this.bytes = section.bytes;
    this.view = new DataView(section.bytes.buffer, section.bytes.byteOffset, section.bytes.byteLength);
    this.pos = pos;
    this.end = Math.min(end, section.bytes.length);
    if (!(pos >= 0 && pos <= this.end)) this.fail('dwarf-truncated', `offset ${pos} is outside the section`);
  }

  fail(code: string, what: string): never {
    throw new CvmError(code, `${this.section.name}: ${what}.`, {
      name: this.section.name,
      fileOffset: this.section.fileOffset + Math.max(0, Math.min(this.pos, this.bytes.length)),
    });
  }

  private take(size: number): number {
    const at = this.pos;
    if (!(size >= 0 && size <= this.end - at))
      this.fail('dwarf-truncated', `${size} bytes are needed, ${Math.max(0, this.end - at)} are left`);
    this.pos = at + size;
    return at;
  }

  u8(): number {
    if (this.pos >= this.end) this.take(1);
    return this.bytes[this.pos++]!;
  }

  i8(): number {
    return (this.u8() << 24) >> 24;
  }

  u16(): number {
    return this.view.getUint16(this.take(2), true);
  }

  u24(): number {
    const at = this.take(3);
    return this.bytes[at]! | (this.bytes[at + 1]! << 8) | (this.bytes[at + 2]! << 16);
  }

  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }

  /** Unsigned 64-bit offset, length or count; throws unless exact (below 2^53). */
  u64(): number {
    const at = this.take(8);
    const value = this.view.getUint32(at + 4, true) * 0x1_0000_0000 + this.view.getUint32(at, true);
    if (value > Number.MAX_SAFE_INTEGER)
      this.fail('dwarf-value', 'a 64-bit length or offset is beyond any file');
    return value;
  }

  /**
   * 64-bit address as a signed number (so the upper half of the canonical space is negative and every
   * canonical 48-bit address is exact), or NaN where it is not exact.
   */
  address(): number {
    const at = this.take(8);
    const value = this.view.getInt32(at + 4, true) * 0x1_0000_0000 + this.view.getUint32(at, true);
    return Number.isSafeInteger(value) ? value : NaN;
  }

  /** Section offset of the unit's format: 4 or 8 bytes. */
  offset(dwarf64: boolean): number {
    return dwarf64 ? this.u64() : this.u32();
  }

  /** ULEB128; at most 10 bytes. Values from 2^53 up are rounded, which no caller accepts as an index. */
  uleb(): number {
    let byte = this.u8();
    if (byte < 0x80) return byte;
    let value = byte & 0x7f;
    let factor = 128;
    for (let i = 1; i < 10; i++) {
      byte = this.u8();
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return value;
      factor *= 128;
    }
    // Longer padding is legal but nothing writes it.
    return this.fail('dwarf-leb128', 'a LEB128 number is longer than 10 bytes');
  }

  sleb(): number {
    let value = 0;
    let factor = 1;
    for (let i = 0; i < 10; i++) {
      const byte = this.u8();
      value += (byte & 0x7f) * factor;
      factor *= 128;
      if (byte < 0x80) return byte & 0x40 ? value - factor : value;
    }
    return this.fail('dwarf-leb128', 'a LEB128 number is longer than 10 bytes');
  }

  skip(size: number): void {
    this.take(size);
  }

  /** Skips a NUL-terminated string and returns its start. */
  skipString(): number {
    const start = this.pos;
    const nul = this.bytes.subarray(start, this.end).indexOf(0);
    if (nul < 0) this.fail('dwarf-truncated', 'a string has no end');
    this.pos = start + nul + 1;
    return start;
  }

  string(): string {
    const start = this.skipString();
    return decodeText(this.bytes, start, Math.min(this.pos - 1, start + MAX_STRING));
  }

  /** DWARF initial length; returns where the unit ends (DWARF 5, 7.4). */
  unitLength(): { end: number; dwarf64: boolean } {
    const first = this.u32();
    const dwarf64 = first === 0xffff_ffff;
    if (!dwarf64 && first >= 0xffff_fff0)
      this.fail('dwarf-unit-length', 'the unit length is a reserved value');
    const length = dwarf64 ? this.u64() : first;
    if (length > this.end - this.pos)
      this.fail(
        'dwarf-unit-length',
        `a unit of ${length} bytes does not fit the ${this.end - this.pos} left`,
      );
    return { end: this.pos + length, dwarf64 };
  }
}

/** Link-time address of the tables (a signed number, see `Cursor.address`) of a 64-bit address; NaN if not exact. */
export function toTableAddress(address: bigint): number {
  const value = Number(BigInt.asIntN(64, address));
  return Number.isSafeInteger(value) ? value : NaN;
}

/** The unsigned 64-bit address of a table address. */
export const fromTableAddress = (value: number): bigint => BigInt.asUintN(64, BigInt(value));
