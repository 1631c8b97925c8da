/**
 * The SNP launch digest: `LD' = SHA384(PAGE_INFO)` for each page given to SNP_LAUNCH_UPDATE, from zeros
 * (SEV-SNP Firmware ABI, "SNP_LAUNCH_UPDATE", structure PAGE_INFO). The secure firmware of the machine and
 * the measuring tools use this one definition.
 */
import { CvmError, structure, writeField } from '../base/index.ts';
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
  return data ? crypto.sha384(data, ZEROS.subarray(size)) : crypto.sha384(ZEROS);
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
  info.set(digest, PAGE_INFO.field('DIGEST_CUR').offset);
  info.set(page.contents, PAGE_INFO.field('CONTENTS').offset);
  const put = (name: string, value: number | bigint): void =>
    writeField(info, PAGE_INFO.field(name), BigInt(value));
  put('LENGTH', PAGE_INFO.size);
  put('PAGE_TYPE', SNP_PAGE_TYPES[page.pageType]);
  put('IMI_PAGE', page.imiPage ? 1 : 0);
  const [vmpl1, vmpl2, vmpl3] = page.vmplPermissions ?? [0, 0, 0];
  put('VMPL1_PERMS', vmpl1);
  put('VMPL2_PERMS', vmpl2);
  put('VMPL3_PERMS', vmpl3);
  put('GPA', page.gpa);
  return crypto.sha384(info);
}
