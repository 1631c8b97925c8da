/**
 * The public-key operations of `host.ts` without any host: for a browser, where the platform's own are
 * asynchronous, and for what node:crypto does not have (signatures with the nonce of RFC 6979).
 *
 * Elliptic curves come from `@noble/curves`: audited, maintained, plain JavaScript that runs anywhere, and the
 * only such library with RFC 6979 on P-384. RSA is verification only, of 4096-bit keys with small exponents:
 * a few big-integer multiplications, for which no library is worth its weight.
 */
import { p384 } from '@noble/curves/nist.js';
import { sha384 } from '@noble/hashes/sha2.js';
import { CvmError } from './errors.ts';
import type { RsaPublicKey, Signatures } from './host.ts';

const SIGNATURE_SIZE = 96;
const HASH_SIZE = 48;
/** Largest modulus and exponent taken on, in bytes: AMD's are 512 and 3. */
const MAX_MODULUS = 1024;
const MAX_EXPONENT = 8;

export const portableSignatures: Signatures = {
  p384PublicKey(privateKey) {
    checkPrivateKey(privateKey);
    return p384.getPublicKey(privateKey, false);
  },
  p384Sign(privateKey, message) {
    checkPrivateKey(privateKey);
    return p384.sign(message, privateKey, { prehash: true, lowS: false });
  },
  p384Verify(publicKey, message, signature) {
    if (signature.length !== SIGNATURE_SIZE || publicKey.length !== 97) return false;
    try {
      return p384.verify(signature, message, publicKey, { prehash: true, lowS: false });
    } catch {
      // A point that is not on the curve, or r and s out of range.
      return false;
    }
  },
  rsaPssVerify,
};

function checkPrivateKey(privateKey: Uint8Array): void {
  if (!p384.utils.isValidSecretKey(privateKey))
    throw new CvmError('key-invalid', 'the private key is not a number from 1 to the order of P-384');
}

/** RSASSA-PSS-VERIFY (RFC 8017 §8.1.2) with SHA-384 and MGF1 on SHA-384. */
function rsaPssVerify(
  key: RsaPublicKey,
  message: Uint8Array,
  signature: Uint8Array,
  saltLength: number,
): boolean {
  const modulusBytes = withoutLeadingZeros(key.modulus);
  const exponentBytes = withoutLeadingZeros(key.exponent);
  if (modulusBytes.length > MAX_MODULUS || exponentBytes.length > MAX_EXPONENT) return false;
  if (signature.length !== modulusBytes.length) return false;
  const modulus = toBigInt(modulusBytes);
  const value = toBigInt(signature);
  if (modulus < 3n || modulus % 2n === 0n || value >= modulus) return false;
  const bits = modulus.toString(2).length - 1;
  const encoded = toBytes(power(value, toBigInt(exponentBytes), modulus), Math.ceil(bits / 8));
  return encoded !== undefined && emsaPssVerify(message, encoded, bits, saltLength);
}

/** EMSA-PSS-VERIFY (RFC 8017 §9.1.2). */
function emsaPssVerify(message: Uint8Array, encoded: Uint8Array, bits: number, saltLength: number): boolean {
  const length = encoded.length;
  if (saltLength < 0 || length < HASH_SIZE + saltLength + 2 || encoded[length - 1] !== 0xbc) return false;
  const maskedLength = length - HASH_SIZE - 1;
  const hash = encoded.subarray(maskedLength, length - 1);
  const unused = 8 * length - bits;
  if (encoded[0]! >> (8 - unused) !== 0) return false;
  const mask = mgf1(hash, maskedLength);
  const block = encoded.slice(0, maskedLength).map((byte, i) => byte ^ mask[i]!);
  block[0]! &= 0xff >> unused;
  const saltAt = maskedLength - saltLength;
  if (block[saltAt - 1] !== 1 || block.subarray(0, saltAt - 1).some((byte) => byte !== 0)) return false;
  const salted = new Uint8Array(8 + HASH_SIZE + saltLength);
  salted.set(sha384(message), 8);
  salted.set(block.subarray(saltAt), 8 + HASH_SIZE);
  return sha384(salted).every((byte, i) => byte === hash[i]);
}

/** MGF1 on SHA-384 (RFC 8017 §B.2.1). */
function mgf1(seed: Uint8Array, length: number): Uint8Array {
  const mask = new Uint8Array(length);
  const input = new Uint8Array(seed.length + 4);
  input.set(seed);
  for (let counter = 0, at = 0; at < length; counter++, at += HASH_SIZE) {
    new DataView(input.buffer).setUint32(seed.length, counter);
    mask.set(sha384(input).subarray(0, length - at), at);
  }
  return mask;
}

function power(base: bigint, exponent: bigint, modulus: bigint): bigint {
  let result = 1n;
  for (let left = exponent, square = base % modulus; left > 0n; left >>= 1n) {
    if (left & 1n) result = (result * square) % modulus;
    square = (square * square) % modulus;
  }
  return result;
}

function withoutLeadingZeros(bytes: Uint8Array): Uint8Array {
  const first = bytes.findIndex((byte) => byte !== 0);
  return first < 0 ? bytes.subarray(bytes.length) : bytes.subarray(first);
}

function toBigInt(bytes: Uint8Array): bigint {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text === '' ? 0n : BigInt(`0x${text}`);
}

/** Big-endian, `undefined` if it does not fit. */
function toBytes(value: bigint, length: number): Uint8Array | undefined {
  const text = value.toString(16).padStart(2 * length, '0');
  if (text.length > 2 * length) return undefined;
  return Uint8Array.from({ length }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
}
