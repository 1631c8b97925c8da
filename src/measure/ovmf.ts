/**
 * The tables at the end of an OVMF image (or of an SVSM binary made like one) that a VMM reads to launch it:
 * the GUIDed footer table, the SEV metadata and the TDX metadata (edk2 `OvmfPkg/ResetVector`).
 */
import { CvmError, hex, structure, readField } from '../base/index.ts';
import { guidText } from './guid.ts';

const FOUR_GB = 0x1_0000_0000;
const FOOTER_GUID = '96b582de-1fb2-45f7-baea-a366c55a082d';
const SEV_HASH_TABLE_GUID = '7255371f-3a3b-4b04-927b-1da6efa8d454';
const SEV_ES_RESET_BLOCK_GUID = '00f771de-1a7e-4fcb-890e-68c77e2fb44e';
const SEV_METADATA_GUID = 'dc886566-984a-4798-a75e-5585a7bf67cc';
const TDX_METADATA_GUID = 'e47a6535-984a-4798-865e-4685a7bf8ec2';
const SVSM_INFO_GUID = 'a789a612-0597-4c4b-a49f-cbb1fe9d1ddd';

/** Size and GUID, behind the entry's data. */
const ENTRY_HEADER = 18;
/** The footer ends this far before the end of the image (the reset vector is behind it). */
const BEHIND_FOOTER = 32;

const SEV_METADATA = structure('OVMF_SEV_METADATA', 16, [
  [0, 'signature', 4],
  [4, 'size', 'u32'],
  [8, 'version', 'u32'],
  [12, 'numItems', 'u32'],
]);
const SEV_SECTION = structure('OVMF_SEV_METADATA_SECTION', 12, [
  [0, 'gpa', 'u32'],
  [4, 'size', 'u32'],
  [8, 'type', 'u32'],
]);
const TDX_METADATA = structure('TDVF_DESCRIPTOR', 16, [
  [0, 'signature', 4],
  [4, 'length', 'u32'],
  [8, 'version', 'u32'],
  [12, 'numberOfSections', 'u32'],
]);
const TDX_SECTION = structure('TDVF_SECTION', 32, [
  [0, 'dataOffset', 'u32'],
  [4, 'rawDataSize', 'u32'],
  [8, 'memoryAddress', 'u64'],
  [16, 'memoryDataSize', 'u64'],
  [24, 'type', 'u32'],
  [28, 'attributes', 'u32'],
]);

export const SEV_SECTION_TYPES = {
  1: 'SEC_MEM',
  2: 'SECRETS',
  3: 'CPUID',
  4: 'SVSM_CAA',
  0x10: 'KERNEL_HASHES',
} as const;
export type SevSectionType = (typeof SEV_SECTION_TYPES)[keyof typeof SEV_SECTION_TYPES];

export interface SevSection {
  readonly gpa: number;
  /** Bytes. */
  readonly size: number;
  /** `undefined` for a number edk2 does not define; `rawType` has it. */
  readonly type: SevSectionType | undefined;
  readonly rawType: number;
}

export interface TdxSection {
  readonly dataOffset: number;
  readonly rawDataSize: number;
  readonly gpa: bigint;
  readonly memorySize: bigint;
  readonly type: number;
  /** Bit 0: extended into MRTD. Bit 1: TDH.MEM.PAGE.AUG, not added at launch. */
  readonly attributes: number;
}

const fail = (message: string, fileOffset?: number): CvmError =>
  new CvmError('ovmf-format', message, fileOffset === undefined ? {} : { fileOffset });

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Entries of the footer table by GUID; empty if the image has none. */
function footerTable(bytes: Uint8Array): Map<string, Uint8Array> {
  const table = new Map<string, Uint8Array>();
  const footer = bytes.length - BEHIND_FOOTER - ENTRY_HEADER;
  if (footer < 0 || guidText(bytes.subarray(footer + 2)) !== FOOTER_GUID) return table;
  const size = view(bytes).getUint16(footer, true) - ENTRY_HEADER;
  const start = footer - size;
  if (size < 0 || start < 0) return table;
  for (let end = footer; end - start >= ENTRY_HEADER;) {
    const header = end - ENTRY_HEADER;
    const length = view(bytes).getUint16(header, true);
    if (length < ENTRY_HEADER || end - length < start)
      throw fail(`an entry of the OVMF footer table has the impossible size ${length}`, header);
    table.set(guidText(bytes.subarray(header + 2)), bytes.subarray(end - length, header));
    end -= length;
  }
  return table;
}

/** An OVMF image, its tables read on demand. Views of `bytes`, no copies. */
export class OvmfImage {
  readonly bytes: Uint8Array;
  private readonly table: ReadonlyMap<string, Uint8Array>;

  /** @throws CvmError `ovmf-format` for an empty image, one over 4 GiB, or a broken footer table. */
  constructor(bytes: Uint8Array) {
    if (bytes.length === 0 || bytes.length >= FOUR_GB) throw fail(`${bytes.length} bytes are no OVMF image`);
    this.bytes = bytes;
    this.table = footerTable(bytes);
  }

  /** Where the image starts when it ends at 4 GiB. */
  get gpa(): number {
    return FOUR_GB - this.bytes.length;
  }

  private number(guid: string): number | undefined {
    const entry = this.table.get(guid);
    return entry && entry.length >= 4 ? view(entry).getUint32(0, true) : undefined;
  }

  /** First instruction of an AP under SEV-ES and SEV-SNP. */
  get apResetEip(): number | undefined {
    return this.number(SEV_ES_RESET_BLOCK_GUID);
  }

  /** Where the kernel hash table goes. */
  get hashTableGpa(): number | undefined {
    return this.number(SEV_HASH_TABLE_GUID);
  }

  /** An SVSM binary's first instruction, from its start. */
  get svsmLaunchOffset(): number | undefined {
    return this.number(SVSM_INFO_GUID);
  }

  /**
   * Sections of the SEV metadata, in order; none if the image has no such metadata.
   *
   * @throws CvmError `ovmf-format`
   */
  get sevSections(): readonly SevSection[] {
    const fromEnd = this.number(SEV_METADATA_GUID);
    if (fromEnd === undefined) return [];
    const start = this.within(this.bytes.length - fromEnd, SEV_METADATA.size, 'SEV metadata');
    const read = (name: string): number => Number(readField(this.bytes, SEV_METADATA.field(name), start));
    this.checkSignature(start, 'ASEV', 'SEV metadata');
    if (read('version') !== 1) throw fail(`SEV metadata of version ${read('version')}, not 1`, start);
    const count = read('numItems');
    const needed = SEV_METADATA.size + count * SEV_SECTION.size;
    if (needed > read('size')) throw fail(`the SEV metadata has no room for its ${count} sections`, start);
    this.within(start, needed, 'SEV metadata');
    return Array.from({ length: count }, (_, index) => {
      const at = start + SEV_METADATA.size + index * SEV_SECTION.size;
      const field = (name: string): number => Number(readField(this.bytes, SEV_SECTION.field(name), at));
      const rawType = field('type');
      const type = (SEV_SECTION_TYPES as Readonly<Record<number, SevSectionType>>)[rawType];
      return { gpa: field('gpa'), size: field('size'), rawType, type };
    });
  }

  /**
   * Sections of the TDX metadata (TDX Virtual Firmware Design Guide, §11), in order.
   *
   * @throws CvmError `ovmf-format`, also if the image has none.
   */
  get tdxSections(): readonly TdxSection[] {
    const fromEnd = this.number(TDX_METADATA_GUID);
    if (fromEnd === undefined) throw fail('the image has no TDX metadata');
    const start = this.within(this.bytes.length - fromEnd, TDX_METADATA.size, 'TDX metadata');
    const read = (name: string): number => Number(readField(this.bytes, TDX_METADATA.field(name), start));
    this.checkSignature(start, 'TDVF', 'TDX metadata');
    if (read('version') !== 1) throw fail(`TDX metadata of version ${read('version')}, not 1`, start);
    const count = read('numberOfSections');
    this.within(start, TDX_METADATA.size + count * TDX_SECTION.size, 'TDX metadata');
    return Array.from({ length: count }, (_, index) => {
      const at = start + TDX_METADATA.size + index * TDX_SECTION.size;
      const field = (name: string): bigint => readField(this.bytes, TDX_SECTION.field(name), at);
      const section = {
        dataOffset: Number(field('dataOffset')),
        rawDataSize: Number(field('rawDataSize')),
        gpa: field('memoryAddress'),
        memorySize: field('memoryDataSize'),
        type: Number(field('type')),
        attributes: Number(field('attributes')),
      };
      if (section.rawDataSize > 0) this.within(section.dataOffset, section.rawDataSize, 'TDX section');
      return section;
    });
  }

  private within(start: number, size: number, what: string): number {
    if (start < 0 || start + size > this.bytes.length)
      throw fail(`the ${what} (${size} bytes at offset ${hex(start)}) leaves the image`);
    return start;
  }

  private checkSignature(start: number, signature: string, what: string): void {
    const found = String.fromCharCode(...this.bytes.subarray(start, start + 4));
    if (found !== signature) throw fail(`the ${what} lacks its signature '${signature}'`, start);
  }
}
