/** P-384 keys as files bring them: SEC 1 and PKCS #8 private keys, SPKI public keys, certificates; PEM or DER. */
import { CvmError, bytesToHex } from '../base/index.ts';
import type { Crypto, RsaPublicKey } from '../base/index.ts';
import { equalBytes } from './checks.ts';
import { DerReader, TAG, contextTag } from './der.ts';
import { decodePem, isPem } from './pem.ts';

export const OID = {
  ecPublicKey: '1.2.840.10045.2.1',
  p384: '1.3.132.0.34',
  rsaEncryption: '1.2.840.113549.1.1.1',
} as const;
const COORDINATE = 48;

export interface P384PrivateKey {
  /** 48 bytes, big-endian. */
  readonly scalar: Uint8Array;
  /** Uncompressed point of SEC 1, 97 bytes. */
  readonly publicKey: Uint8Array;
}

/** A public key of a certificate or an SPKI file. */
export type PublicKey =
  | { readonly type: 'p384'; readonly point: Uint8Array }
  | { readonly type: 'rsa'; readonly rsa: RsaPublicKey }
  | { readonly type: 'other'; readonly algorithm: string };

const wrong = (message: string): CvmError => new CvmError('key-invalid', message);

/**
 * The private key in a file: PEM `EC PRIVATE KEY` (SEC 1) or `PRIVATE KEY` (PKCS #8), or either as DER.
 *
 * @throws CvmError `key-invalid` if it is no P-384 key, or its public half is that of another; `pem-invalid`,
 *   `der-invalid` if the file is damaged.
 */
export function readP384PrivateKey(bytes: Uint8Array, crypto: Crypto): P384PrivateKey {
  let parsed: { scalar: Uint8Array; publicKey: Uint8Array | undefined } | undefined;
  if (isPem(bytes)) {
    const blocks = decodePem(bytes);
    for (const block of blocks) {
      if (block.label === 'EC PRIVATE KEY')
        parsed = readSec1(new DerReader(block.bytes, 'private key'), false);
      else if (block.label === 'PRIVATE KEY') parsed = readPkcs8(block.bytes);
      else if (block.label === 'ENCRYPTED PRIVATE KEY')
        throw wrong('the private key is encrypted; decrypt it first (openssl pkey -in KEY -out PLAIN)');
      if (parsed) break;
    }
    if (!parsed)
      throw wrong(
        `the file has no private key of an elliptic curve, only ${blocks.map(({ label }) => label).join(', ')}`,
      );
  } else {
    // PKCS #8 has an algorithm where SEC 1 has an octet string.
    const outer = new DerReader(bytes, 'private key').enter('the private key');
    outer.small('its version', 1);
    parsed = outer.peek(TAG.sequence)
      ? readPkcs8(bytes)
      : readSec1(new DerReader(bytes, 'private key'), false);
  }
  const publicKey = crypto.signatures.p384PublicKey(parsed.scalar);
  if (parsed.publicKey && !equalBytes(parsed.publicKey, publicKey))
    throw wrong('the public key stored with the private key is that of another');
  return { scalar: parsed.scalar, publicKey };
}

/** RFC 5208 / 5958 OneAsymmetricKey. */
function readPkcs8(bytes: Uint8Array) {
  const reader = new DerReader(bytes, 'private key').enter('the private key');
  reader.small('its version', 1);
  const algorithm = reader.enter('its algorithm');
  const oid = algorithm.oid('its algorithm');
  if (oid !== OID.ecPublicKey) throw wrong(`the private key is no elliptic-curve key (algorithm ${oid})`);
  requireP384(algorithm.oid('its curve'));
  const inner = reader.next('its key', TAG.octetString);
  return readSec1(reader.inside(inner), true);
}

/** RFC 5915 ECPrivateKey. */
function readSec1(outer: DerReader, curveKnown: boolean) {
  const reader = outer.enter('the private key');
  reader.small('its version', 1);
  const scalar = reader.next('its number', TAG.octetString).content;
  let named = curveKnown;
  if (reader.peek(contextTag(0))) {
    requireP384(reader.enter('its curve', contextTag(0)).oid('its curve'));
    named = true;
  }
  if (!named) throw wrong('the private key does not name its curve');
  if (scalar.length !== COORDINATE)
    throw wrong(`the private key has ${scalar.length} bytes; one of P-384 has ${COORDINATE}`);
  const publicKey = reader.peek(contextTag(1))
    ? reader.enter('its public key', contextTag(1)).bits('its public key').content
    : undefined;
  return { scalar, publicKey };
}

function requireP384(curve: string): void {
  if (curve !== OID.p384)
    throw wrong(
      `the key is on curve ${CURVES[curve] ?? curve}; ID blocks and CoRIM signatures here need P-384`,
    );
}
const CURVES: Readonly<Record<string, string>> = {
  '1.2.840.10045.3.1.7': 'P-256',
  '1.3.132.0.35': 'P-521',
  '1.3.132.0.10': 'secp256k1',
};

/** SubjectPublicKeyInfo (RFC 5280 §4.1). */
export function readPublicKeyInfo(reader: DerReader): PublicKey {
  const info = reader.enter('the public key');
  const algorithm = info.enter('its algorithm');
  const oid = algorithm.oid('its algorithm');
  if (oid === OID.ecPublicKey) {
    const curve = algorithm.oid('its curve');
    const point = info.bits('the public key').content;
    if (curve !== OID.p384) return { type: 'other', algorithm: CURVES[curve] ?? curve };
    if (point.length !== 2 * COORDINATE + 1 || point[0] !== 4)
      throw info.error('the point of P-384 is not in uncompressed form');
    return { type: 'p384', point };
  }
  if (oid !== OID.rsaEncryption) return { type: 'other', algorithm: oid };
  const key = info.inside(info.next('the public key', TAG.bitString), 1).enter('the RSA key');
  return {
    type: 'rsa',
    rsa: { modulus: key.unsigned('the modulus'), exponent: key.unsigned('the exponent') },
  };
}

/** The point of a P-384 key in a `PUBLIC KEY` file or of a private key, PEM or DER. @throws as above. */
export function readP384PublicKey(bytes: Uint8Array, crypto: Crypto): Uint8Array {
  const blocks = isPem(bytes) ? decodePem(bytes) : [{ label: 'PUBLIC KEY', bytes }];
  const block = blocks.find(({ label }) => label === 'PUBLIC KEY');
  if (!block) return readP384PrivateKey(bytes, crypto).publicKey;
  const key = readPublicKeyInfo(new DerReader(block.bytes, 'public key'));
  if (key.type !== 'p384') throw wrong('the public key is not on P-384');
  return key.point;
}

/**
 * r and s of a DER `ECDSA-Sig-Value`, as openssl and HSMs give them: 96 bytes. Raw 96 bytes are taken as they are.
 * @throws CvmError `der-invalid`.
 */
export function readP384Signature(bytes: Uint8Array): Uint8Array {
  if (bytes.length === 2 * COORDINATE && bytes[0] !== TAG.sequence) return bytes;
  const outer = new DerReader(bytes, 'signature');
  const reader = outer.enter('the signature');
  outer.end();
  const signature = new Uint8Array(2 * COORDINATE);
  for (const [index, name] of ['r', 's'].entries()) {
    const number = reader.unsigned(name);
    if (number.length > COORDINATE)
      throw reader.error(`${name} has ${number.length} bytes (${bytesToHex(number.subarray(0, 4))}…)`);
    signature.set(number, (index + 1) * COORDINATE - number.length);
  }
  reader.end();
  return signature;
}
