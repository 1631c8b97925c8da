/** MRTD of a TD that boots from OVMF: the sections of its TDX metadata (TDX Virtual Firmware Design Guide, §11). */
import { CvmError, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { OvmfImage } from './ovmf.ts';
import type { TdxSection } from './ovmf.ts';
import type { OvmfPart } from './ovmf-launch.ts';
import { MrtdHash } from './tdx.ts';
import type { TdxOrder } from './tdx.ts';

const PAGE_SIZE = 4096;
const SIZE_LIMIT = 1n << 30n;
const MR_EXTEND = 1;
const PAGE_AUG = 2;
const TD_HOB = 2;

/** TDVF section types. */
const TYPES: Readonly<Record<number, string>> = {
  0: 'BFV',
  1: 'CFV',
  2: 'TD_HOB',
  3: 'TempMem',
  4: 'PermMem',
  5: 'Payload',
  6: 'PayloadParam',
};

export interface TdvfMeasurement {
  readonly algorithm: 'SHA-384';
  /** MRTD, 48 bytes. */
  readonly digest: Uint8Array;
  /** The sections that are added at launch, in order; the name says whether one is measured. */
  readonly parts: readonly OvmfPart[];
}

/**
 * MRTD of an OVMF image. Sections with attribute PAGE_AUG are not added at launch; those without MR.EXTEND are
 * added and not measured.
 *
 * @throws CvmError `ovmf-format` for an image without TDX metadata, a section off the 4 KiB grid or over 1 GiB,
 *   or a measured TD HOB, which is different on every machine.
 */
export function measureTdvf(ovmf: Uint8Array, crypto: Crypto, order: TdxOrder = 'one-pass'): TdvfMeasurement {
  const image = new OvmfImage(ovmf);
  const hash = new MrtdHash(crypto);
  const parts: OvmfPart[] = [];
  let total = 0n;
  for (const section of image.tdxSections) {
    if (section.attributes & PAGE_AUG) continue;
    check(section);
    if ((total += section.memorySize) > SIZE_LIMIT)
      throw new CvmError('ovmf-format', 'the TDX sections have over 1 GiB of pages');
    const measured = (section.attributes & MR_EXTEND) !== 0;
    const type = TYPES[section.type] ?? `type ${section.type}`;
    const size = Number(section.memorySize);
    parts.push({ name: measured ? type : `${type} (not measured)`, gpa: section.gpa, size });
    const data = image.bytes.subarray(section.dataOffset, section.dataOffset + section.rawDataSize);
    const extend = (offset: number): void =>
      hash.extendPage(section.gpa + BigInt(offset), data.subarray(offset, offset + PAGE_SIZE));
    for (let offset = 0; offset < size; offset += PAGE_SIZE) {
      hash.addPage(section.gpa + BigInt(offset));
      if (measured && order === 'one-pass') extend(offset);
    }
    if (measured && order === 'two-pass')
      for (let offset = 0; offset < size; offset += PAGE_SIZE) extend(offset);
  }
  return { algorithm: 'SHA-384', digest: hash.digest(), parts };
}

function check(section: TdxSection): void {
  const where = `the TDX section at gpa ${hex(section.gpa)}`;
  if (section.gpa & 0xfffn || section.memorySize & 0xfffn)
    throw new CvmError('ovmf-format', `${where} does not begin and end on a page`);
  if (BigInt(section.rawDataSize) > section.memorySize)
    throw new CvmError('ovmf-format', `${where} has more data than memory`);
  if (section.type === TD_HOB && section.attributes & MR_EXTEND)
    throw new CvmError('ovmf-format', `${where} is a measured TD HOB: its contents are the machine's`);
}
