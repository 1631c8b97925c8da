/** Signing an ID block. Signatures are deterministic (RFC 6979): the same keys and block give the same bytes. */
import { CvmError, writeField } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { ID_AUTH, encodeIdBlock } from './id-block.ts';
import type { IdBlock, SignedIdBlock } from './id-block.ts';
import type { P384PrivateKey } from './p384-keys.ts';
import { ALGORITHM_P384_SHA384, pointForFirmware, signatureForFirmware } from './snp-signature.ts';

export interface IdKeys {
  readonly idKey: P384PrivateKey;
  /** Signs the ID key, if there is one. */
  readonly authorKey?: P384PrivateKey | undefined;
}

export function signIdBlock(block: IdBlock, keys: IdKeys, crypto: Crypto): SignedIdBlock {
  const { idKey, authorKey } = keys;
  const { signatures } = crypto;
  const bytes = encodeIdBlock(block);
  return assembleIdBlock(bytes, {
    idKey: idKey.publicKey,
    idSignature: signatures.p384Sign(idKey.scalar, bytes),
    authorKey: authorKey?.publicKey,
    authorSignature: authorKey && signatures.p384Sign(authorKey.scalar, signedIdKey(idKey.publicKey)),
  });
}

/** What the author signs: the 1028 bytes of the ID key in the firmware's form. */
export const signedIdKey = (publicKey: Uint8Array): Uint8Array => pointForFirmware(publicKey);

/** Keys as points of 97 bytes, signatures as 96 bytes. */
export interface IdAuthParts {
  readonly idKey: Uint8Array;
  readonly idSignature: Uint8Array;
  readonly authorKey?: Uint8Array | undefined;
  readonly authorSignature?: Uint8Array | undefined;
}

/**
 * Puts together what was signed elsewhere (an HSM). Nothing is verified.
 * @throws CvmError `id-block-field` if only one of the author's key and signature is given.
 */
export function assembleIdBlock(block: Uint8Array, parts: IdAuthParts): SignedIdBlock {
  const { idKey, idSignature, authorKey, authorSignature } = parts;
  if ((authorKey === undefined) !== (authorSignature === undefined))
    throw new CvmError('id-block-field', "the author's key and signature belong together; one is missing");
  const auth = new Uint8Array(ID_AUTH.size);
  const put = (name: string, value: Uint8Array): void => auth.set(value, ID_AUTH.field(name).offset);
  writeField(auth, ID_AUTH.field('ID_KEY_ALGO'), BigInt(ALGORITHM_P384_SHA384));
  put('ID_BLOCK_SIG', signatureForFirmware(idSignature));
  put('ID_KEY', pointForFirmware(idKey));
  if (authorKey && authorSignature) {
    writeField(auth, ID_AUTH.field('AUTHOR_KEY_ALGO'), BigInt(ALGORITHM_P384_SHA384));
    put('ID_KEY_SIG', signatureForFirmware(authorSignature));
    put('AUTHOR_KEY', pointForFirmware(authorKey));
  }
  return { block, auth, authorKeyEnabled: authorKey !== undefined };
}
