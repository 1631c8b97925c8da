/** PEM (RFC 7468): text around base64 around DER. */
import { CvmError } from '../base/index.ts';

export interface PemBlock {
  /** `CERTIFICATE`, `EC PRIVATE KEY`, … */
  readonly label: string;
  readonly bytes: Uint8Array;
}

/** Larger files are no keys and no certificates. */
export const MAX_PEM_BYTES = 1 << 20;
const MAX_BLOCKS = 64;

/** Whether a file looks like PEM text rather than DER. */
export const isPem = (bytes: Uint8Array): boolean =>
  new TextDecoder('latin1').decode(bytes.subarray(0, MAX_PEM_BYTES)).includes('-----BEGIN ');

/**
 * The blocks of a PEM file, in order; text around them is ignored.
 * @throws CvmError `pem-invalid` with the offset of the block.
 */
export function decodePem(bytes: Uint8Array): PemBlock[] {
  if (bytes.length > MAX_PEM_BYTES)
    throw new CvmError('pem-invalid', `a PEM file of ${bytes.length} bytes; the limit is ${MAX_PEM_BYTES}`);
  const text = new TextDecoder('latin1').decode(bytes);
  const blocks: PemBlock[] = [];
  let at = 0;
  for (;;) {
    const start = text.indexOf('-----BEGIN ', at);
    if (start < 0) return blocks;
    const fail = (why: string): CvmError => new CvmError('pem-invalid', why, { fileOffset: start });
    const labelEnd = text.indexOf('-----', start + 11);
    const label = labelEnd < 0 ? '' : text.slice(start + 11, labelEnd);
    if (!/^[A-Z0-9 ]{1,40}$/.test(label)) throw fail('a PEM block begins without a label');
    const footer = `-----END ${label}-----`;
    const end = text.indexOf(footer, labelEnd + 5);
    if (end < 0) throw fail(`the PEM block ${label} has no end`);
    const body = text.slice(labelEnd + 5, end);
    if (/proc-type:/i.test(body))
      throw fail(`the PEM block ${label} is encrypted; decrypt it first (openssl pkey -in KEY -out PLAIN)`);
    const decoded = fromBase64(body.replace(/\s+/g, ''));
    if (!decoded) throw fail(`the PEM block ${label} is not base64`);
    blocks.push({ label, bytes: decoded });
    if (blocks.length > MAX_BLOCKS) throw fail(`more than ${MAX_BLOCKS} PEM blocks`);
    at = end + footer.length;
  }
}

/** `undefined` for anything but canonical base64. */
export function fromBase64(text: string): Uint8Array | undefined {
  if (text.length % 4 !== 0 || !/^[A-Za-z0-9+/]*={0,2}$/.test(text)) return undefined;
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

export function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
}
