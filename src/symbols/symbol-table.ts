import type { Diagnostic } from '../base/index.ts';
import { MAX_STRING, stringAt } from './cursor.ts';
import type { ElfFile, ElfSection } from './elf.ts';
import { flattenIntervals, intervalAt, type Intervals } from './intervals.ts';

const SHT_SYMTAB = 2;
const SHT_DYNSYM = 11;
const SYM_SIZE = 24;
const SHN_ABS = 0xfff1;
const SHN_LORESERVE = 0xff00;
const STT_NOTYPE = 0;
const STT_OBJECT = 1;
const STT_FUNC = 2;
const STT_SECTION = 3;
const STT_FILE = 4;
const STT_TLS = 6;
const STT_GNU_IFUNC = 10;
const STB_LOCAL = 0;
const STB_WEAK = 2;
const SHF_ALLOC = 2n;

export type SymbolKind = 'function' | 'object' | 'other';

/**
 * The defined, named symbols of `.symtab` (or `.dynsym` without one) as parallel arrays, sorted by nothing;
 * an index into them is a symbol id. gABI 4.3 "Symbol Table", Elf64_Sym.
 */
export class SymbolTable {
  readonly count: number;
  /** Table addresses (see `Cursor.address`), link-time. */
  readonly address: Float64Array;
  /** st_size as declared; 0 where the assembler gave none. */
  readonly size: Float64Array;
  private readonly info: Uint8Array;
  private readonly section: Uint16Array;
  private readonly nameOffset: Uint32Array;
  private readonly strings: Uint8Array;
  private readonly sections: readonly ElfSection[];
  private intervals: Intervals | undefined;

  constructor(elf: ElfFile, diagnostics: Diagnostic[]) {
    this.sections = elf.sections;
    const table =
      elf.sections.find((section) => section.type === SHT_SYMTAB && section.size >= SYM_SIZE) ??
      elf.sections.find((section) => section.type === SHT_DYNSYM);
    const data = table && elf.data(table);
    const stringSection = table && elf.sections[table.link];
    this.strings = (stringSection && elf.data(stringSection)?.bytes) ?? new Uint8Array(0);
    if (
      table &&
      (!data || this.strings.length === 0 || (table.entrySize !== 0 && table.entrySize !== SYM_SIZE))
    )
      diagnostics.push({
        severity: 'warning',
        code: 'elf-symtab',
        message: `The symbol table ${table.name} or its string table cannot be read.`,
        offset: Math.min(table.offset, elf.bytes.length),
        length: 0,
      });
    const total = data && this.strings.length > 0 ? Math.floor(data.bytes.length / SYM_SIZE) : 0;
    this.address = new Float64Array(total);
    this.size = new Float64Array(total);
    this.info = new Uint8Array(total);
    this.section = new Uint16Array(total);
    this.nameOffset = new Uint32Array(total);
    let count = 0;
    // Real tables give each name to a few symbols at most; a hostile one shares a long one among all.
    let nameBytes = 4 * this.strings.length + (1 << 20);
    const view = data && new DataView(data.bytes.buffer, data.bytes.byteOffset, data.bytes.byteLength);
    for (let index = 0; view && index < total; index++) {
      const at = index * SYM_SIZE;
      const name = view.getUint32(at, true);
      const info = view.getUint8(at + 4);
      const section = view.getUint16(at + 6, true);
      const type = info & 15;
      if (section === 0 || type === STT_SECTION || type === STT_FILE || type === STT_TLS) continue;
      if (name >= this.strings.length || this.strings[name] === 0) continue;
      const nul = this.strings.subarray(name, name + MAX_STRING).indexOf(0);
      nameBytes -= nul < 0 ? MAX_STRING : nul;
      if (nameBytes < 0) break;
      const address = view.getInt32(at + 12, true) * 0x1_0000_0000 + view.getUint32(at + 8, true);
      const size = view.getUint32(at + 20, true) * 0x1_0000_0000 + view.getUint32(at + 16, true);
      if (!Number.isSafeInteger(address) || !Number.isSafeInteger(address + size)) continue;
      this.address[count] = address;
      this.size[count] = size;
      this.info[count] = info;
      this.section[count] = section;
      this.nameOffset[count] = name;
      count++;
    }
    if (nameBytes < 0)
      diagnostics.push({
        severity: 'warning',
        code: 'elf-symtab',
        message: `Only ${count} symbols were read: the names of all would be far longer than their table.`,
        offset: Math.min(table!.offset, elf.bytes.length),
        length: 0,
      });
    this.count = count;
  }

  /** The name as in the file. */
  rawName(id: number): string {
    return stringAt(this.strings, this.nameOffset[id]!);
  }

  kind(id: number): SymbolKind {
    const type = this.info[id]! & 15;
    return type === STT_FUNC || type === STT_GNU_IFUNC
      ? 'function'
      : type === STT_OBJECT
        ? 'object'
        : 'other';
  }

  /** Whether the value is an address of the image (SHN_ABS values are mostly constants of the linker script). */
  isAddress(id: number): boolean {
    return this.section[id] !== SHN_ABS;
  }

  /** The symbol covering an address: its id and the range it answers for. */
  at(address: number): { id: number; start: number; end: number } | undefined {
    const intervals = (this.intervals ??= this.build());
    const index = intervalAt(intervals, address);
    if (index < 0) return undefined;
    const id = intervals.ids[index]!;
    const start = this.address[id]!;
    const end = this.size[id]! > 0 ? start + this.size[id]! : intervals.ends[index]!;
    return { id, start, end };
  }

  /** Lower is better, for symbols at one address: functions before objects, global before local. */
  private rank(id: number): number {
    const type = this.info[id]! & 15;
    const bind = this.info[id]! >> 4;
    return (
      (type === STT_FUNC || type === STT_GNU_IFUNC ? 0 : type === STT_NOTYPE ? 8 : 4) +
      (bind === STB_LOCAL ? 2 : bind === STB_WEAK ? 1 : 0)
    );
  }

  private build(): Intervals {
    const ids = Array.from({ length: this.count }, (_, id) => id).filter((id) => this.isAddress(id));
    ids.sort(
      (a, b) =>
        this.address[a]! - this.address[b]! ||
        this.size[b]! - this.size[a]! ||
        this.rank(a) - this.rank(b) ||
        a - b,
    );
    // Aliases (same address and size) leave only the best one in the address index.
    const sized: number[] = [];
    for (const id of ids) {
      if (this.size[id] === 0) continue;
      const last = sized[sized.length - 1];
      if (last !== undefined && this.address[last] === this.address[id] && this.size[last] === this.size[id])
        continue;
      sized.push(id);
    }
    const starts = sized.map((id) => this.address[id]!);
    const ends = sized.map((id) => this.address[id]! + this.size[id]!);
    const covered = flattenIntervals(starts, ends, sized);

    // A symbol without a size (assembly labels) answers up to whatever comes next, inside its section,
    // and only where no sized symbol does.
    for (let i = 0; i < ids.length; i++) {
      const id = ids[i]!;
      const address = this.address[id]!;
      if (this.size[id] !== 0 || intervalAt(covered, address) >= 0) continue;
      if (i > 0 && this.size[ids[i - 1]!] === 0 && this.address[ids[i - 1]!] === address) continue;
      let next = i + 1;
      while (next < ids.length && this.address[ids[next]!] === address) next++;
      const section = this.section[id]! < SHN_LORESERVE ? this.sections[this.section[id]!] : undefined;
      if (!section || !(section.flags & SHF_ALLOC)) continue;
      const sectionStart = Number(BigInt.asIntN(64, section.address));
      const sectionEnd = sectionStart + section.size;
      if (address < sectionStart || address >= sectionEnd) continue;
      const end = next < ids.length ? Math.min(sectionEnd, this.address[ids[next]!]!) : sectionEnd;
      starts.push(address);
      ends.push(end);
      sized.push(id);
      i = next - 1;
    }
    return flattenIntervals(starts, ends, sized);
  }
}
