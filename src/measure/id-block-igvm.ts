/**
 * ID blocks in IGVM files: `IGVM_VHS_SNP_ID_BLOCK` has the fields of both structures, each key with one u32 more after
 * its curve, and no policy: that is the GUEST_POLICY of the same platform (0 if there is none, as QEMU has it).
 */
import { CvmError, hex, writeField } from '../base/index.ts';
import { choosePlatform, makeHeader, platforms, writeIgvm } from '../igvm/index.ts';
import type { IgvmFile, IgvmHeader, StructuredHeader } from '../igvm/index.ts';
import { allZero } from './checks.ts';
import { ID_AUTH, authField, authNumber, decodeIdBlock, encodeIdBlock } from './id-block.ts';
import type { SignedIdBlock } from './id-block.ts';
import { SNP_PUBLIC_KEY, SNP_SIGNATURE } from './snp-signature.ts';

/** An ID block found in a file. */
export interface EmbeddedIdBlock {
  readonly header: StructuredHeader<'SNP_ID_BLOCK'>;
  /** As QEMU hands it to the firmware, but with the version of the header (QEMU writes 1). */
  readonly signed: SignedIdBlock;
  /** `author_key_enabled` of the header, which QEMU ignores: there the author counts if his key begins with non-zero. */
  readonly authorKeyFlag: number;
  /** The two extra u32s and the reserved bytes of the header, all of which must be 0. */
  readonly reservedSet: boolean;
  readonly diagnosticOffset: number;
}

/** The compatibility mask of the file's SNP platform. @throws CvmError `igvm-no-platform`. */
export const snpMask = (file: Pick<IgvmFile, 'headers'>, mask?: number): number => {
  const declared = platforms(file).find(
    (platform) => platform.platformType === 'SEV_SNP' && platform.compatibilityMask === mask,
  );
  return (declared ?? choosePlatform(file, 'SEV_SNP')).compatibilityMask;
};

/** The guest policy of a platform; `undefined` if the file has none for it. */
export function guestPolicy(file: Pick<IgvmFile, 'headers'>, mask: number): bigint | undefined {
  for (const header of file.headers)
    if (header.type === 'GUEST_POLICY' && (header.compatibilityMask & mask) !== 0) return header.policy;
  return undefined;
}

/** Every ID block of a platform, in file order. */
export function idBlocksOf(file: Pick<IgvmFile, 'headers'>, mask: number): EmbeddedIdBlock[] {
  const policy = guestPolicy(file, mask) ?? 0n;
  return file.headers.filter((header) => isIdBlock(header, mask)).map((header) => fromHeader(header, policy));
}

const isIdBlock = (header: IgvmHeader, mask: number): header is StructuredHeader<'SNP_ID_BLOCK'> =>
  header.type === 'SNP_ID_BLOCK' && (header.compatibilityMask & mask) !== 0;

function fromHeader(header: StructuredHeader<'SNP_ID_BLOCK'>, policy: bigint): EmbeddedIdBlock {
  const auth = new Uint8Array(ID_AUTH.size);
  writeField(auth, ID_AUTH.field('ID_KEY_ALGO'), BigInt(header.idKeyAlgorithm));
  writeField(auth, ID_AUTH.field('AUTHOR_KEY_ALGO'), BigInt(header.authorKeyAlgorithm));
  const signature = (name: string, r: Uint8Array, s: Uint8Array): void => {
    const base = ID_AUTH.field(name).offset;
    auth.set(r, base + SNP_SIGNATURE.field('R').offset);
    auth.set(s, base + SNP_SIGNATURE.field('S').offset);
  };
  const key = (name: string, curve: number, x: Uint8Array, y: Uint8Array): void => {
    const base = ID_AUTH.field(name).offset;
    writeField(auth, SNP_PUBLIC_KEY.field('CURVE'), BigInt(curve), base);
    auth.set(x, base + SNP_PUBLIC_KEY.field('QX').offset);
    auth.set(y, base + SNP_PUBLIC_KEY.field('QY').offset);
  };
  signature('ID_BLOCK_SIG', header.idKeySignatureR, header.idKeySignatureS);
  key('ID_KEY', header.idPublicKeyCurve, header.idPublicKeyQx, header.idPublicKeyQy);
  signature('ID_KEY_SIG', header.authorKeySignatureR, header.authorKeySignatureS);
  key('AUTHOR_KEY', header.authorPublicKeyCurve, header.authorPublicKeyQx, header.authorPublicKeyQy);
  const block = encodeIdBlock({
    digest: header.ld,
    familyId: header.familyId,
    imageId: header.imageId,
    version: header.version,
    guestSvn: header.guestSvn,
    policy,
  });
  return {
    header,
    signed: { block, auth, authorKeyEnabled: auth[ID_AUTH.field('AUTHOR_KEY').offset] !== 0 },
    authorKeyFlag: header.authorKeyEnabled,
    reservedSet:
      header.idPublicKeyReserved !== 0 || header.authorPublicKeyReserved !== 0 || !allZero(header.reserved),
    diagnosticOffset: header.offset,
  };
}

function toHeader(signed: SignedIdBlock, mask: number): StructuredHeader<'SNP_ID_BLOCK'> {
  const { digest, ...block } = decodeIdBlock(signed.block);
  const signature = (name: string) => {
    const bytes = authField(signed.auth, name);
    requireZero(name, bytes.subarray(2 * 72));
    return { r: bytes.slice(0, 72), s: bytes.slice(72, 144) };
  };
  const key = (name: string) => {
    const bytes = authField(signed.auth, name);
    requireZero(name, bytes.subarray(4 + 2 * 72));
    const curve = new DataView(bytes.buffer).getUint32(0, true);
    return { curve, x: bytes.slice(4, 76), y: bytes.slice(76, 148) };
  };
  for (const { name } of ID_AUTH.fields)
    if (name.startsWith('RESERVED')) requireZero(name, authField(signed.auth, name));
  const [idSignature, authorSignature] = [signature('ID_BLOCK_SIG'), signature('ID_KEY_SIG')];
  const [idKey, authorKey] = [key('ID_KEY'), key('AUTHOR_KEY')];
  return makeHeader('SNP_ID_BLOCK', {
    compatibilityMask: mask,
    authorKeyEnabled: signed.authorKeyEnabled ? 1 : 0,
    ld: digest,
    familyId: block.familyId,
    imageId: block.imageId,
    version: block.version,
    guestSvn: block.guestSvn,
    idKeyAlgorithm: authNumber(signed.auth, 'ID_KEY_ALGO'),
    authorKeyAlgorithm: authNumber(signed.auth, 'AUTHOR_KEY_ALGO'),
    idKeySignatureR: idSignature.r,
    idKeySignatureS: idSignature.s,
    idPublicKeyCurve: idKey.curve,
    idPublicKeyQx: idKey.x,
    idPublicKeyQy: idKey.y,
    authorKeySignatureR: authorSignature.r,
    authorKeySignatureS: authorSignature.s,
    authorPublicKeyCurve: authorKey.curve,
    authorPublicKeyQx: authorKey.x,
    authorPublicKeyQy: authorKey.y,
  });
}

function requireZero(name: string, bytes: Uint8Array): void {
  if (!allZero(bytes))
    throw new CvmError(
      'id-block-field',
      `${name} of the ID authentication has bytes set that an IGVM file cannot hold`,
      { name },
    );
}

export interface EmbedOptions {
  /** Of the SNP platform it is for; default: the file's. */
  readonly compatibilityMask?: number | undefined;
  /** Takes the place of the file's ID block. Without it, a second one is refused. */
  readonly replace?: boolean | undefined;
}

/**
 * The file with an ID block: in the place of the one it replaces, else behind the last header. Nothing else of the
 * file changes, whatever its version. The digest is not compared with the image: verifyIdBlock does.
 *
 * @throws CvmError `id-block-exists` if there is one and `replace` is not set; `id-block-policy` if the block's policy
 *   is not the file's, which is the one that the firmware will be given; `id-block-field` if the authentication holds
 *   what the header cannot; `igvm-no-platform`, `igvm-unwritable`, `igvm-too-large`.
 */
export function embedIdBlock(file: IgvmFile, signed: SignedIdBlock, options: EmbedOptions = {}): Uint8Array {
  const mask = snpMask(file, options.compatibilityMask);
  const { policy } = decodeIdBlock(signed.block);
  const filePolicy = guestPolicy(file, mask);
  if ((filePolicy ?? 0n) !== policy)
    throw new CvmError(
      'id-block-policy',
      `the ID block is signed for guest policy ${hex(policy)}, but the file has ${
        filePolicy === undefined ? 'none' : hex(filePolicy)
      }: the firmware would refuse the launch`,
    );
  const added = toHeader(signed, mask);
  const present = file.headers.filter((header) => isIdBlock(header, mask));
  const [first] = present;
  if (first && !options.replace)
    throw new CvmError('id-block-exists', 'the file has an ID block already; it can be replaced', {
      fileOffset: first.offset,
    });
  const headers: IgvmHeader[] = file.headers.filter((header) => header === first || !isIdBlock(header, mask));
  if (first) headers[headers.indexOf(first)] = { ...added, padding: first.padding };
  else headers.push(added);
  return writeIgvm({ ...file, headers });
}
