import { bytesToHex, hex } from '../base/index.ts';
import {
  PAGE_DATA_FLAGS,
  PAGE_DATA_TYPES,
  PLATFORM_TYPES,
  RELOCATABLE_REGION_FLAGS,
  REQUIRED_MEMORY_FLAGS,
} from '../igvm/index.ts';
import type { IgvmHeader, StructuredHeader } from '../igvm/index.ts';
import { policyWords } from './policy.ts';

/** Guest-physical addresses in a column: 48 bits, wider where the address is. */
export const gpaText = (gpa: bigint): string => hex(gpa, 12);
export const maskText = (mask: number): string => `mask ${hex(mask)}`.padEnd(9);

const PRINTABLE_ASCII = /^[ -~]*$/;

/**
 * The columns of a directive's line after its name: what it says, never where it stands in the file, so
 * that listings of two files differ only where the guests do. `contents` is the column for file data.
 */
export function columnsOf(header: IgvmHeader, contents: string): string[] {
  switch (header.type) {
    case 'SUPPORTED_PLATFORM': {
      const name = PLATFORM_TYPES[header.platformType] ?? `type ${header.platformType}`;
      return [
        maskText(header.compatibilityMask),
        name,
        `version ${header.platformVersion}, vtl ${header.highestVtl}, shared gpa boundary ${hex(header.sharedGpaBoundary)}`,
      ];
    }
    case 'GUEST_POLICY':
      return [maskText(header.compatibilityMask), hex(header.policy), policyWords(header.policy)];
    case 'RELOCATABLE_REGION':
      return [
        gpaText(header.relocationRegionGpa),
        maskText(header.compatibilityMask),
        `${hex(header.relocationRegionSize)} bytes, vp ${header.vpIndex}, vtl ${header.vtl}`,
        `to ${hex(header.minimumRelocationGpa)}-${hex(header.maximumRelocationGpa)} by ${hex(header.relocationAlignment)}`,
        ...flagWords(header.flags, RELOCATABLE_REGION_FLAGS),
      ];
    case 'PAGE_TABLE_RELOCATION':
      return [
        gpaText(header.gpa),
        maskText(header.compatibilityMask),
        `${hex(header.size)} bytes, ${hex(header.usedSize)} used, vp ${header.vpIndex}, vtl ${header.vtl}`,
      ];
    case 'CORIM_DOCUMENT':
    case 'CORIM_SIGNATURE':
      return [maskText(header.compatibilityMask), `${header.sizeBytes} bytes`, contents];
    case 'CCA_POLICY':
      return [
        maskText(header.compatibilityMask),
        `zeros ${hex(header.attributesRequiredZeroes)}, ones ${hex(header.attributesRequiredOnes)}`,
        `hash ${header.hashAlgorithm}, lfa ${header.lfaPolicy}`,
      ];
    case 'VERSION_STRING':
      return [JSON.stringify(header.text)];
    case 'PARAMETER_AREA':
      return [`area ${header.parameterAreaIndex}`, `${hex(header.numberOfBytes)} bytes`, contents];
    case 'PAGE_DATA':
      return [gpaText(header.gpa), maskText(header.compatibilityMask), pageKind(header).padEnd(10), contents];
    case 'PARAMETER_INSERT':
      return [gpaText(header.gpa), maskText(header.compatibilityMask), `area ${header.parameterAreaIndex}`];
    case 'VP_CONTEXT':
      return [gpaText(header.gpa), maskText(header.compatibilityMask), `vp ${header.vpIndex}`, contents];
    case 'REQUIRED_MEMORY':
      return [
        gpaText(header.gpa),
        maskText(header.compatibilityMask),
        `${hex(header.numberOfBytes)} bytes`,
        ...flagWords(header.flags, REQUIRED_MEMORY_FLAGS),
      ];
    case 'ERROR_RANGE':
      return [gpaText(header.gpa), maskText(header.compatibilityMask), `${hex(header.sizeBytes)} bytes`];
    case 'SNP_ID_BLOCK':
      return [
        maskText(header.compatibilityMask),
        `ld ${bytesToHex(header.ld.subarray(0, 8))}, svn ${header.guestSvn}`,
        `family ${idText(header.familyId)}, image ${idText(header.imageId)}`,
        header.authorKeyEnabled ? 'author key' : 'no author key',
      ];
    case 'VBS_MEASUREMENT':
      return [
        maskText(header.compatibilityMask),
        `digest ${bytesToHex(header.bootMeasurementDigest.subarray(0, 8))}, svn ${header.securityVersion}`,
        `product ${header.productId}, module ${header.moduleId}, policy ${hex(header.policyFlags)}`,
      ];
    case 'UNKNOWN':
      return [
        header.name
          ? `${header.name} with ${header.body.length} bytes, which its structure does not have`
          : `type ${hex(header.rawType)}, ${header.body.length} bytes`,
        bytesToHex(header.body.subarray(0, 16)) + (header.body.length > 16 ? '…' : ''),
      ];
    default:
      return [`area ${header.parameterAreaIndex}`, `offset ${hex(header.byteOffset)}`];
  }
}

/** `NORMAL unmeasured 2M`. */
export function pageKind(header: StructuredHeader<'PAGE_DATA'>): string {
  const words: string[] = [PAGE_DATA_TYPES[header.dataType] ?? `TYPE_${header.dataType}`];
  if (header.flags & PAGE_DATA_FLAGS.unmeasured) words.push('unmeasured');
  if (header.flags & PAGE_DATA_FLAGS.shared) words.push('shared');
  if (header.flags & PAGE_DATA_FLAGS.is2mbPage) words.push('2M');
  const unknown =
    header.flags & ~(PAGE_DATA_FLAGS.unmeasured | PAGE_DATA_FLAGS.shared | PAGE_DATA_FLAGS.is2mbPage);
  if (unknown) words.push(`flags ${hex(unknown >>> 0)}`);
  return words.join(' ');
}

function flagWords(flags: number, names: Readonly<Record<string, number>>): string[] {
  const words = Object.entries(names).flatMap(([name, bit]) => (flags & bit ? [name] : []));
  const unknown = flags & ~Object.values(names).reduce((all, bit) => all | bit, 0);
  if (unknown) words.push(`flags ${hex(unknown >>> 0)}`);
  return words.length > 0 ? [words.join(' ')] : [];
}

/** Family and image ids are 16 bytes, by custom ASCII with zeros after it. */
export function idText(id: Uint8Array): string {
  let end = id.length;
  while (end > 0 && id[end - 1] === 0) end--;
  const text = String.fromCharCode(...id.subarray(0, end));
  return end > 0 && PRINTABLE_ASCII.test(text) ? JSON.stringify(text) : bytesToHex(id);
}
