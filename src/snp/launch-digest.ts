/**
 * The SNP launch digest: `LD' = SHA384(PAGE_INFO)` for each page given to SNP_LAUNCH_UPDATE, from zeros
 * (SEV-SNP Firmware ABI, "SNP_LAUNCH_UPDATE", structure PAGE_INFO). The secure firmware of the machine and
 * the measuring tools use this one definition.
 */
import { CvmError, structure } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';

/** PAGE_INFO of the SEV-SNP Firmware ABI. */
export const PAGE_INFO = structure('PAGE_INFO', 0x70, [
  [0x00, 'DIGEST_CUR', 48],
  [0x30, 'CONTENTS', 48],
  [0x60, 'LENGTH', 'u16'],
  [0x62, 'PAGE_TYPE', 'u8'],
  [0x63, 'IMI_PAGE', 'u8'],
  [0x64, 'RESERVED', 'u8'],
  [0x65, 'VMPL1_PERMS', 'u8'],
  [0x66, 'VMPL2_PERMS', 'u8'],
  [0x67, 'VMPL3_PERMS', 'u8'],
  [0x68, 'GPA', 'u64'],
]);

/** Offsets by name, looked up once: this is the hot path of every measurement. */
const AT = Object.fromEntries(PAGE_INFO.fields.map(({ name, offset }) => [name, offset])) as Record<
  | 'DIGEST_CUR'
  | 'CONTENTS'
  | 'LENGTH'
  | 'PAGE_TYPE'
  | 'IMI_PAGE'
  | 'VMPL1_PERMS'
  | 'VMPL2_PERMS'
  | 'VMPL3_PERMS'
  | 'GPA',
  number
>;
const NO_PERMISSIONS = [0, 0, 0] as const;

/** PAGE_TYPE of SNP_LAUNCH_UPDATE. */
export const SNP_PAGE_TYPES = {
  normal: 1,
  vmsa: 2,
  zero: 3,
  unmeasured: 4,
  secrets: 5,
  cpuid: 6,
} as const;
export type SnpPageType = keyof typeof SNP_PAGE_TYPES;

/** Bytes of a launch digest and of a contents hash. */
export const LAUNCH_DIGEST_SIZE = 48;

const PAGE_SIZE = 4096;
const ZERO_HASH = new Uint8Array(LAUNCH_DIGEST_SIZE);
const ZEROS = new Uint8Array(PAGE_SIZE);

/**
 * What stands in PAGE_INFO.CONTENTS: SHA-384 of the 4 KiB page for NORMAL and VMSA, 48 zero bytes for the
 * rest. Shorter `data` is followed by zeros; `undefined` is a page of zeros.
 *
 * @throws CvmError `snp-page-size` for more than 4096 bytes.
 */
export function contentsHash(
  pageType: SnpPageType,
  data: Uint8Array | undefined,
  crypto: Crypto,
): Uint8Array {
  if (pageType !== 'normal' && pageType !== 'vmsa') return ZERO_HASH.slice();
  const size = data?.length ?? 0;
  if (size > PAGE_SIZE)
    throw new CvmError('snp-page-size', `a page has at most 4096 bytes of contents, not ${size}`);
  if (!data) return crypto.sha384(ZEROS);
  return size === PAGE_SIZE ? crypto.sha384(data) : crypto.sha384(data, ZEROS.subarray(size));
}

export interface LaunchPage {
  readonly pageType: SnpPageType;
  readonly gpa: bigint;
  /** `contentsHash` of the page. */
  readonly contents: Uint8Array;
  /** Part of the initial migration image. Default false. */
  readonly imiPage?: boolean;
  /** VMPL1, VMPL2, VMPL3 permissions given at launch. Default none. */
  readonly vmplPermissions?: readonly [number, number, number];
}

/** The launch digest after one more page. */
export function extendLaunchDigest(digest: Uint8Array, page: LaunchPage, crypto: Crypto): Uint8Array {
  const info = new Uint8Array(PAGE_INFO.size);
  info.set(digest, AT.DIGEST_CUR);
  info.set(page.contents, AT.CONTENTS);
  const [vmpl1, vmpl2, vmpl3] = page.vmplPermissions ?? NO_PERMISSIONS;
  info[AT.PAGE_TYPE] = SNP_PAGE_TYPES[page.pageType];
  info[AT.IMI_PAGE] = page.imiPage ? 1 : 0;
  info[AT.VMPL1_PERMS] = vmpl1;
  info[AT.VMPL2_PERMS] = vmpl2;
  info[AT.VMPL3_PERMS] = vmpl3;
  const view = new DataView(info.buffer);
  view.setUint16(AT.LENGTH, PAGE_INFO.size, true);
  view.setBigUint64(AT.GPA, BigInt.asUintN(64, page.gpa), true);
  return crypto.sha384(info);
}
