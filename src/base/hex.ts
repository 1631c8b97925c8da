/** Lower-case hexadecimal of a number or bigint, with `0x`, padded to `digits`. */
export const hex = (value: number | bigint, digits = 0): string =>
  `0x${value.toString(16).padStart(digits, '0')}`;

/** Lower-case hexadecimal of bytes, in memory order, without separators. */
export function bytesToHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

/** Bytes of a hexadecimal string in memory order; throws `RangeError` on anything else. */
export function hexToBytes(text: string): Uint8Array {
  if (!/^([0-9a-fA-F]{2})*$/.test(text))
    throw new RangeError(`not a hexadecimal byte string: ${text.slice(0, 40)}`);
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) bytes[i] = parseInt(text.slice(2 * i, 2 * i + 2), 16);
  return bytes;
}
