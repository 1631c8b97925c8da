/**
 * The firmware's form of P-384 signatures and public keys (SEV-SNP Firmware ABI, "Signature Formats"): numbers are
 * little-endian and take 72 bytes; ours are big-endian in 48.
 */
import { fieldBytes, readField, structure, writeField } from '../base/index.ts';
import { allZero } from './checks.ts';

/** "ECDSA P-384 with SHA-384 Signature Format". */
export const SNP_SIGNATURE = structure('ECDSA_SIGNATURE', 512, [
  [0x000, 'R', 72],
  [0x048, 'S', 72],
  [0x090, 'RESERVED_90', 368],
]);
/** "ECDSA P-384 Public Key". */
export const SNP_PUBLIC_KEY = structure('ECDSA_PUBLIC_KEY', 0x404, [
  [0x000, 'CURVE', 'u32'],
  [0x004, 'QX', 72],
  [0x04c, 'QY', 72],
  [0x094, 'RESERVED_94', 880],
]);
export const CURVE_P384 = 2;
/** "Encodings for the SIGNATURE_ALGO": ECDSA P-384 with SHA-384. */
export const ALGORITHM_P384_SHA384 = 1;

const NUMBER = 48;

/** A 48-byte big-endian number in 72 bytes, little-endian. */
export function toFirmwareNumber(number: Uint8Array): Uint8Array {
  const field = new Uint8Array(72);
  field.set(number.slice().reverse());
  return field;
}

/** The reverse; `undefined` if the number needs more than 48 bytes. */
export function fromFirmwareNumber(field: Uint8Array): Uint8Array | undefined {
  return allZero(field.subarray(NUMBER)) ? field.slice(0, NUMBER).reverse() : undefined;
}

/** r then s, 96 bytes; `undefined` if one is too long or a reserved byte is set. */
export function signatureOfFirmware(bytes: Uint8Array): Uint8Array | undefined {
  const r = fromFirmwareNumber(fieldBytes(bytes, SNP_SIGNATURE.field('R')));
  const s = fromFirmwareNumber(fieldBytes(bytes, SNP_SIGNATURE.field('S')));
  if (!r || !s || !allZero(fieldBytes(bytes, SNP_SIGNATURE.field('RESERVED_90')))) return undefined;
  return Uint8Array.from([...r, ...s]);
}

export function signatureForFirmware(signature: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(SNP_SIGNATURE.size);
  bytes.set(toFirmwareNumber(signature.subarray(0, NUMBER)), SNP_SIGNATURE.field('R').offset);
  bytes.set(toFirmwareNumber(signature.subarray(NUMBER)), SNP_SIGNATURE.field('S').offset);
  return bytes;
}

/** The uncompressed point, 97 bytes; `undefined` if the curve is another or the form is violated. */
export function pointOfFirmware(bytes: Uint8Array): Uint8Array | undefined {
  const x = fromFirmwareNumber(fieldBytes(bytes, SNP_PUBLIC_KEY.field('QX')));
  const y = fromFirmwareNumber(fieldBytes(bytes, SNP_PUBLIC_KEY.field('QY')));
  const curve = readField(bytes, SNP_PUBLIC_KEY.field('CURVE'));
  const reserved = fieldBytes(bytes, SNP_PUBLIC_KEY.field('RESERVED_94'));
  if (!x || !y || curve !== BigInt(CURVE_P384) || !allZero(reserved)) return undefined;
  return Uint8Array.from([4, ...x, ...y]);
}

export function pointForFirmware(point: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(SNP_PUBLIC_KEY.size);
  writeField(bytes, SNP_PUBLIC_KEY.field('CURVE'), BigInt(CURVE_P384));
  bytes.set(toFirmwareNumber(point.subarray(1, 1 + NUMBER)), SNP_PUBLIC_KEY.field('QX').offset);
  bytes.set(toFirmwareNumber(point.subarray(1 + NUMBER)), SNP_PUBLIC_KEY.field('QY').offset);
  return bytes;
}
