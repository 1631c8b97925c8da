import {
  CvmError,
  bytesToHex,
  hex,
  readField,
  structure,
  type Diagnostic,
  type Structure,
} from '../base/index.ts';
import { stringAt, type SectionData } from './cursor.ts';
import { inflateZlib } from './inflate.ts';

/** System V gABI 4.3, "ELF header": Elf64_Ehdr. */
const EHDR = structure('Elf64_Ehdr', 64, [
  [0, 'e_ident', 16],
  [16, 'e_type', 'u16'],
  [18, 'e_machine', 'u16'],
  [20, 'e_version', 'u32'],
  [24, 'e_entry', 'u64'],
  [32, 'e_phoff', 'u64'],
  [40, 'e_shoff', 'u64'],
  [48, 'e_flags', 'u32'],
  [52, 'e_ehsize', 'u16'],
  [54, 'e_phentsize', 'u16'],
  [56, 'e_phnum', 'u16'],
  [58, 'e_shentsize', 'u16'],
  [60, 'e_shnum', 'u16'],
  [62, 'e_shstrndx', 'u16'],
]);
/** gABI "Sections": Elf64_Shdr. */
const SHDR = structure('Elf64_Shdr', 64, [
  [0, 'sh_name', 'u32'],
  [4, 'sh_type', 'u32'],
  [8, 'sh_flags', 'u64'],
  [16, 'sh_addr', 'u64'],
  [24, 'sh_offset', 'u64'],
  [32, 'sh_size', 'u64'],
  [40, 'sh_link', 'u32'],
  [44, 'sh_info', 'u32'],
  [48, 'sh_addralign', 'u64'],
  [56, 'sh_entsize', 'u64'],
]);
/** gABI "Program Header": Elf64_Phdr. */
const PHDR = structure('Elf64_Phdr', 56, [
  [0, 'p_type', 'u32'],
  [4, 'p_flags', 'u32'],
  [8, 'p_offset', 'u64'],
  [16, 'p_vaddr', 'u64'],
  [24, 'p_paddr', 'u64'],
  [32, 'p_filesz', 'u64'],
  [40, 'p_memsz', 'u64'],
  [48, 'p_align', 'u64'],
]);

const SHT_NOTE = 7;
const SHT_NOBITS = 8;
const SHF_COMPRESSED = 0x800;
const PT_NOTE = 4;
const ELFCOMPRESS_ZLIB = 1;
const NT_GNU_BUILD_ID = 3;

const MAX_SECTIONS = 1 << 17;
const MAX_SEGMENTS = 1 << 16;
/** zlib cannot expand more than this (one 258-byte copy in two bits). */
const ZLIB_MAX_RATIO = 1032;
const MAX_INFLATED = 512 << 20;

export interface ElfSection {
  readonly index: number;
  readonly name: string;
  /** sh_type (SHT_*). */
  readonly type: number;
  /** sh_flags (SHF_*). */
  readonly flags: bigint;
  readonly address: bigint;
  /** File offset and size in bytes, as declared (`data` clips them to the file). */
  readonly offset: number;
  readonly size: number;
  readonly link: number;
  readonly info: number;
  readonly entrySize: number;
}

export interface ElfSegment {
  /** p_type (PT_*; 1 is PT_LOAD). */
  readonly type: number;
  /** p_flags: 1 execute, 2 write, 4 read. */
  readonly flags: number;
  readonly offset: number;
  readonly virtualAddress: bigint;
  readonly physicalAddress: bigint;
  readonly fileSize: number;
  /** Bytes in memory; may exceed any exact number in a hostile file, so a bigint. */
  readonly memorySize: bigint;
}

export interface ElfFile {
  readonly bytes: Uint8Array;
  /** e_type: 2 ET_EXEC, 3 ET_DYN, 1 ET_REL. */
  readonly type: number;
  readonly entry: bigint;
  readonly sections: readonly ElfSection[];
  readonly segments: readonly ElfSegment[];
  /** Lower-case hex of the NT_GNU_BUILD_ID note. */
  readonly buildId: string | undefined;
  /** What was wrong but survivable. Grows while sections are read. */
  readonly diagnostics: Diagnostic[];
  section(name: string): ElfSection | undefined;
  /**
   * The bytes of a section (a view; decompressed if SHF_COMPRESSED zlib or `.zdebug_*`), clipped to the
   * file; `undefined`, with a diagnostic, if they cannot be had.
   */
  data(section: ElfSection): SectionData | undefined;
}

const refuse = (code: string, message: string, fileOffset: number): never => {
  throw new CvmError(code, message, { fileOffset });
};

/** Reader of one table entry: exact number, or 2^53 (which lies outside every file) where the value is not. */
const reader = (bytes: Uint8Array, table: Structure, base: number) => ({
  big: (name: string): bigint => readField(bytes, table.field(name), base),
  num: (name: string): number => {
    const value = readField(bytes, table.field(name), base);
    return value > 0x1f_ffff_ffff_ffffn ? 2 ** 53 : Number(value);
  },
});

/**
 * Reads the headers of an ELF64 little-endian x86-64 file (gABI 4.3 and the x86-64 psABI).
 * Throws `CvmError` (`elf-truncated`, `elf-magic`, `elf-class`, `elf-endian`, `elf-machine`, with the file
 * offset) for anything else; damage behind the ELF header gives diagnostics and the part that can be read.
 */
export function readElf(bytes: Uint8Array): ElfFile {
  if (bytes.length < 4 || bytes[0] !== 0x7f || bytes[1] !== 0x45 || bytes[2] !== 0x4c || bytes[3] !== 0x46)
    refuse('elf-magic', 'This is not an ELF file: it does not start with 7F "ELF".', 0);
  if (bytes.length < EHDR.size)
    refuse('elf-truncated', `The ELF header needs 64 bytes, the file has ${bytes.length}.`, bytes.length);
  if (bytes[4] !== 2) refuse('elf-class', 'This ELF file is not 64-bit (EI_CLASS is not ELFCLASS64).', 4);
  if (bytes[5] !== 1) refuse('elf-endian', 'This ELF file is not little-endian (EI_DATA).', 5);
  const header = reader(bytes, EHDR, 0);
  const machine = header.num('e_machine');
  if (machine !== 62)
    refuse('elf-machine', `This ELF file is for machine ${machine}; only x86-64 (62) is supported.`, 18);

  const diagnostics: Diagnostic[] = [];
  const warn = (code: string, message: string, offset: number, length = 0): void => {
    if (diagnostics.length < 200) diagnostics.push({ severity: 'warning', code, message, offset, length });
  };

  const tableRoom = (offset: number, entry: number): number =>
    offset >= bytes.length ? 0 : Math.floor((bytes.length - offset) / entry);
  const count = (what: string, at: number, declared: number, offset: number, entry: number, cap: number) => {
    const room = Math.min(tableRoom(offset, entry), cap);
    if (declared > room)
      warn('elf-table', `The ${what} table declares ${declared} entries; only ${room} can be read.`, at, 8);
    return Math.min(declared, room);
  };

  const sectionTable = header.num('e_shoff');
  let sectionCount = header.num('e_shnum');
  let nameTable = header.num('e_shstrndx');
  let segmentCount = header.num('e_phnum');
  const hasSections = sectionTable !== 0 && header.num('e_shentsize') === SHDR.size;
  if (sectionTable !== 0 && !hasSections)
    warn('elf-shentsize', `Section headers of ${header.num('e_shentsize')} bytes are not Elf64_Shdr.`, 58, 2);
  if (hasSections && tableRoom(sectionTable, SHDR.size) > 0) {
    // Extended numbering: what does not fit 16 bits is in section header 0.
    const zero = reader(bytes, SHDR, sectionTable);
    if (sectionCount === 0) sectionCount = zero.num('sh_size');
    if (nameTable === 0xffff) nameTable = zero.num('sh_link');
    if (segmentCount === 0xffff) segmentCount = zero.num('sh_info');
  }
  sectionCount = hasSections ? count('section', 60, sectionCount, sectionTable, SHDR.size, MAX_SECTIONS) : 0;
  const segmentTable = header.num('e_phoff');
  if (segmentCount > 0 && header.num('e_phentsize') !== PHDR.size) {
    warn('elf-phentsize', `Program headers of ${header.num('e_phentsize')} bytes are not Elf64_Phdr.`, 54, 2);
    segmentCount = 0;
  }
  segmentCount = count('segment', 56, segmentCount, segmentTable, PHDR.size, MAX_SEGMENTS);

  const raw = Array.from({ length: sectionCount }, (_, index): ElfSection & { nameOffset: number } => {
    const entry = reader(bytes, SHDR, sectionTable + index * SHDR.size);
    return {
      index,
      name: '',
      nameOffset: entry.num('sh_name'),
      type: entry.num('sh_type'),
      flags: entry.big('sh_flags'),
      address: entry.big('sh_addr'),
      offset: entry.num('sh_offset'),
      size: entry.num('sh_size'),
      link: entry.num('sh_link'),
      info: entry.num('sh_info'),
      entrySize: entry.num('sh_entsize'),
    };
  });
  const strings = raw[nameTable];
  const names =
    strings && strings.type !== SHT_NOBITS ? clip(bytes, strings.offset, strings.size) : undefined;
  if (sectionCount > 0 && !names)
    warn('elf-shstrtab', 'There is no readable section name table, so no section can be found.', 62, 2);
  const sections = raw.map(({ nameOffset, ...section }): ElfSection => {
    const at = sectionTable + section.index * SHDR.size;
    if (section.type !== SHT_NOBITS && section.type !== 0 && section.offset + section.size > bytes.length)
      warn(
        'elf-section-bounds',
        `Section ${section.index} reaches beyond the end of the file.`,
        at,
        SHDR.size,
      );
    return { ...section, name: names ? stringAt(names, nameOffset, 256) : '' };
  });

  const segments = Array.from({ length: segmentCount }, (_, index): ElfSegment => {
    const entry = reader(bytes, PHDR, segmentTable + index * PHDR.size);
    return {
      type: entry.num('p_type'),
      flags: entry.num('p_flags'),
      offset: entry.num('p_offset'),
      virtualAddress: entry.big('p_vaddr'),
      physicalAddress: entry.big('p_paddr'),
      fileSize: entry.num('p_filesz'),
      memorySize: entry.big('p_memsz'),
    };
  });

  const byName = new Map<string, ElfSection>();
  for (const section of sections) if (!byName.has(section.name)) byName.set(section.name, section);
  const cache = new Map<number, SectionData | undefined>();
  let inflated = 0;

  const read = (section: ElfSection): SectionData | undefined => {
    if (section.type === SHT_NOBITS) return undefined;
    const stored = clip(bytes, section.offset, section.size);
    if (!stored) return undefined;
    const plain = { name: section.name, bytes: stored, fileOffset: section.offset };
    const gnuStyle = section.name.startsWith('.zdebug_');
    if (!(section.flags & BigInt(SHF_COMPRESSED)) && !gnuStyle) return plain;
    const cannot = (why: string): undefined => {
      warn(
        'elf-compressed',
        `Section ${section.name} cannot be decompressed: ${why}`,
        section.offset,
        section.size,
      );
      return undefined;
    };
    const headerSize = gnuStyle ? 12 : 24;
    if (stored.length < headerSize) return cannot('its header is cut off.');
    const view = new DataView(stored.buffer, stored.byteOffset, stored.byteLength);
    if (gnuStyle && view.getUint32(0, false) !== 0x5a4c4942) return cannot('it does not start with "ZLIB".');
    if (!gnuStyle && view.getUint32(0, true) !== ELFCOMPRESS_ZLIB)
      return cannot(
        `compression type ${view.getUint32(0, true)} is not zlib; rebuild with zlib or uncompressed debug sections.`,
      );
    const declared = gnuStyle ? view.getBigUint64(4, false) : view.getBigUint64(8, true);
    if (declared > BigInt(ZLIB_MAX_RATIO * stored.length) || Number(declared) + inflated > MAX_INFLATED)
      return cannot(`its declared size ${declared} is more than its data can hold or than is allowed.`);
    inflated += Number(declared);
    try {
      return { ...plain, bytes: inflateZlib(stored.subarray(headerSize), Number(declared)) };
    } catch (error) {
      if (error instanceof CvmError) return cannot(error.message);
      throw error;
    }
  };

  const data = (section: ElfSection): SectionData | undefined => {
    if (!cache.has(section.index)) cache.set(section.index, read(section));
    return cache.get(section.index);
  };

  return {
    bytes,
    type: header.num('e_type'),
    entry: header.big('e_entry'),
    sections,
    segments,
    buildId: findBuildId(bytes, sections, segments),
    diagnostics,
    section: (name) => byName.get(name),
    data,
  };
}

/** `bytes[offset, offset+size)` as far as the file goes; `undefined` when it starts outside. */
function clip(bytes: Uint8Array, offset: number, size: number): Uint8Array | undefined {
  if (offset > bytes.length) return undefined;
  return bytes.subarray(offset, Math.min(bytes.length, offset + size));
}

function findBuildId(
  bytes: Uint8Array,
  sections: readonly ElfSection[],
  segments: readonly ElfSegment[],
): string | undefined {
  const notes = [
    ...sections.filter((section) => section.type === SHT_NOTE).map(({ offset, size }) => ({ offset, size })),
    ...segments
      .filter((segment) => segment.type === PT_NOTE)
      .map(({ offset, fileSize }) => ({ offset, size: fileSize })),
  ];
  for (const { offset, size } of notes.slice(0, 64)) {
    const data = clip(bytes, offset, size);
    if (!data) continue;
    const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    for (let at = 0; at + 12 <= data.length;) {
      const nameSize = view.getUint32(at, true);
      const descSize = view.getUint32(at + 4, true);
      const nameAt = at + 12;
      const descAt = nameAt + Math.ceil(nameSize / 4) * 4;
      if (descAt + descSize > data.length) break;
      if (
        view.getUint32(at + 8, true) === NT_GNU_BUILD_ID &&
        nameSize === 4 &&
        stringAt(data, nameAt, 4) === 'GNU'
      )
        return descSize <= 64 ? bytesToHex(data.subarray(descAt, descAt + descSize)) : undefined;
      at = descAt + Math.ceil(descSize / 4) * 4;
    }
  }
  return undefined;
}

/** One line for a message: `ET_EXEC, entry 0x…`. */
export const describeElf = (elf: ElfFile): string =>
  `${['ET_NONE', 'ET_REL', 'ET_EXEC', 'ET_DYN', 'ET_CORE'][elf.type] ?? `type ${elf.type}`}, entry ${hex(elf.entry)}`;
