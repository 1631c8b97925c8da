/** GUIDs as UEFI stores them: the first three parts little-endian. */
import { bytesToHex, hexToBytes } from '../base/index.ts';

/** 16 bytes of the text form `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`. */
export function guidBytes(text: string): Uint8Array {
  const bytes = hexToBytes(text.replaceAll('-', ''));
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** Lower-case text form of 16 bytes. */
export function guidText(bytes: Uint8Array): string {
  const copy = bytes.slice(0, 16);
  copy.subarray(0, 4).reverse();
  copy.subarray(4, 6).reverse();
  copy.subarray(6, 8).reverse();
  return bytesToHex(copy).replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}
