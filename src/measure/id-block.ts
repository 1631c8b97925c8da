/**
 * ID block and ID authentication (SEV-SNP Firmware ABI, "ID_BLOCK", "ID_AUTH"): what the owner of a guest signs so that
 * the firmware launches that guest and no other. Structures here; signing and verifying in their own files.
 */
import { CvmError, fieldBytes, readField, structure, writeField } from '../base/index.ts';
import type { Crypto, Structure } from '../base/index.ts';

export const ID_BLOCK = structure('SNP_ID_BLOCK', 96, [
  [0x00, 'LD', 48],
  [0x30, 'FAMILY_ID', 16],
  [0x40, 'IMAGE_ID', 16],
  [0x50, 'VERSION', 'u32'],
  [0x54, 'GUEST_SVN', 'u32'],
  [0x58, 'POLICY', 'u64'],
]);
export const ID_AUTH = structure('SNP_ID_AUTH', 4096, [
  [0x000, 'ID_KEY_ALGO', 'u32'],
  [0x004, 'AUTHOR_KEY_ALGO', 'u32'],
  [0x008, 'RESERVED_008', 56],
  [0x040, 'ID_BLOCK_SIG', 512],
  [0x240, 'ID_KEY', 1028],
  [0x644, 'RESERVED_644', 60],
  [0x680, 'ID_KEY_SIG', 512],
  [0x880, 'AUTHOR_KEY', 1028],
  [0xc84, 'RESERVED_C84', 892],
]);
/** The only version the firmware knows. */
export const ID_BLOCK_VERSION = 1;

export interface IdBlock {
  /** Launch digest, 48 bytes. */
  readonly digest: Uint8Array;
  readonly familyId: Uint8Array;
  readonly imageId: Uint8Array;
  readonly version: number;
  readonly guestSvn: number;
  readonly policy: bigint;
}

/** An ID block as SNP_LAUNCH_FINISH takes it. */
export interface SignedIdBlock {
  /** 96 bytes. */
  readonly block: Uint8Array;
  /** 4096 bytes. */
  readonly auth: Uint8Array;
  /** SNP_LAUNCH_FINISH.AUTH_KEY_EN: the author's key counts. It stands in neither structure. */
  readonly authorKeyEnabled: boolean;
}

/** @throws CvmError `id-block-size`. */
export function decodeIdBlock(bytes: Uint8Array): IdBlock {
  requireSize(bytes, ID_BLOCK);
  return {
    digest: fieldBytes(bytes, ID_BLOCK.field('LD')),
    familyId: fieldBytes(bytes, ID_BLOCK.field('FAMILY_ID')),
    imageId: fieldBytes(bytes, ID_BLOCK.field('IMAGE_ID')),
    version: Number(readField(bytes, ID_BLOCK.field('VERSION'))),
    guestSvn: Number(readField(bytes, ID_BLOCK.field('GUEST_SVN'))),
    policy: readField(bytes, ID_BLOCK.field('POLICY')),
  };
}

/** @throws CvmError `id-block-field` if a field does not have the size of its place. */
export function encodeIdBlock(block: IdBlock): Uint8Array {
  const bytes = new Uint8Array(ID_BLOCK.size);
  const put = (name: string, value: Uint8Array): void => {
    const { offset, size } = ID_BLOCK.field(name);
    if (value.length !== size)
      throw new CvmError('id-block-field', `${name} of an ID block has ${size} bytes, not ${value.length}`);
    bytes.set(value, offset);
  };
  put('LD', block.digest);
  put('FAMILY_ID', block.familyId);
  put('IMAGE_ID', block.imageId);
  writeField(bytes, ID_BLOCK.field('VERSION'), BigInt(block.version));
  writeField(bytes, ID_BLOCK.field('GUEST_SVN'), BigInt(block.guestSvn));
  writeField(bytes, ID_BLOCK.field('POLICY'), block.policy);
  return bytes;
}

/** An ID block with zeros where nothing is said: version 1, SVN 0. */
export const makeIdBlock = (
  block: Pick<IdBlock, 'digest' | 'policy'> & Partial<Omit<IdBlock, 'version'>>,
): IdBlock => ({
  familyId: new Uint8Array(16),
  imageId: new Uint8Array(16),
  guestSvn: 0,
  ...block,
  version: ID_BLOCK_VERSION,
});

/** A field of the ID authentication. @throws CvmError `id-block-size`. */
export function authField(auth: Uint8Array, name: string): Uint8Array {
  requireSize(auth, ID_AUTH);
  return fieldBytes(auth, ID_AUTH.field(name));
}
export const authNumber = (auth: Uint8Array, name: 'ID_KEY_ALGO' | 'AUTHOR_KEY_ALGO'): number =>
  Number(readField(auth, ID_AUTH.field(name)));

/** SHA-384 of a public key as ID_AUTH holds it (1028 bytes): ID_KEY_DIGEST and AUTHOR_KEY_DIGEST of a report. */
export const keyDigest = (key: Uint8Array, crypto: Crypto): Uint8Array => crypto.sha384(key);

function requireSize(bytes: Uint8Array, table: Structure): void {
  if (bytes.length !== table.size)
    throw new CvmError('id-block-size', `${table.name} has ${table.size} bytes; ${bytes.length} are there`, {
      fileOffset: Math.min(bytes.length, table.size),
    });
}
