/** CoRIM documents and signatures in IGVM files (headers 0x104 and 0x105). */
import { CvmError } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { dataOf, makeHeader, writeIgvm } from '../igvm/index.ts';
import type { IgvmFile, IgvmHeader, StructuredHeader } from '../igvm/index.ts';
import type { Verdict } from './checks.ts';
import { checkCorim, readCorim } from './corim.ts';
import type { Corim } from './corim.ts';
import { readCoseSign1, verifyCoseSign1 } from './cose.ts';
import type { CoseSign1 } from './cose.ts';
import type { MeasuredPlatform } from './measure.ts';

type CorimHeader = StructuredHeader<'CORIM_DOCUMENT'> | StructuredHeader<'CORIM_SIGNATURE'>;

/** What a file holds for one platform. */
export interface EmbeddedCorim {
  readonly document: StructuredHeader<'CORIM_DOCUMENT'>;
  readonly bytes: Uint8Array;
  readonly signature: StructuredHeader<'CORIM_SIGNATURE'> | undefined;
  readonly signatureBytes: Uint8Array | undefined;
}

/** The document of a platform, and its signature. */
export function corimOf(file: Pick<IgvmFile, 'bytes' | 'headers'>, mask: number): EmbeddedCorim | undefined {
  const of = (header: CorimHeader): boolean => (header.compatibilityMask & mask) !== 0;
  let document: StructuredHeader<'CORIM_DOCUMENT'> | undefined;
  let signature: StructuredHeader<'CORIM_SIGNATURE'> | undefined;
  for (const header of file.headers) {
    if (header.type === 'CORIM_DOCUMENT' && of(header)) document ??= header;
    if (header.type === 'CORIM_SIGNATURE' && of(header)) signature ??= header;
  }
  if (!document) return undefined;
  return {
    document,
    bytes: document.data ? dataOf(file, document.data) : new Uint8Array(),
    signature,
    signatureBytes: signature?.data && dataOf(file, signature.data),
  };
}

export interface CorimVerdict extends Verdict {
  readonly corim: Corim;
  readonly cose: CoseSign1 | undefined;
}

/**
 * Verifies a document against the image's digest and, where there is a signature and a key, that too.
 * @throws CvmError `cbor-invalid`, `corim-invalid`, `cose-invalid` with the place in the file.
 */
export function verifyCorim(
  found: Pick<EmbeddedCorim, 'bytes' | 'signatureBytes'> & {
    readonly document?: StructuredHeader<'CORIM_DOCUMENT'>;
    readonly signature?: StructuredHeader<'CORIM_SIGNATURE'> | undefined;
  },
  image: { readonly platform: MeasuredPlatform; readonly digest: Uint8Array },
  publicKey: Uint8Array | undefined,
  crypto: Crypto,
): CorimVerdict {
  const corim = readCorim(found.bytes, found.document?.data?.fileOffset ?? 0);
  const checks = [...checkCorim(corim, image.platform, image.digest).checks];
  let cose: CoseSign1 | undefined;
  if (found.signatureBytes) {
    cose = readCoseSign1(found.signatureBytes, found.signature?.data?.fileOffset ?? 0);
    checks.push(...verifyCoseSign1(cose, found.bytes, publicKey, crypto).checks);
  } else
    checks.push({
      name: 'corim-signature',
      result: publicKey ? 'fail' : 'skipped',
      message: publicKey ? 'a key is given, but the document is not signed' : 'the document is not signed',
    });
  return { ok: checks.every(({ result }) => result !== 'fail'), checks, corim, cose };
}

/**
 * The file with a document, and perhaps its signature, for one platform. They go to the end of the initialization
 * headers, their bytes to the end of the file; nothing else changes.
 *
 * @throws CvmError `corim-exists` if the platform has one and `replace` is not set (the bytes of a replaced one stay
 *   in the file, unnamed); `igvm-unwritable`, `igvm-too-large`.
 */
export function embedCorim(
  file: IgvmFile,
  mask: number,
  document: Uint8Array,
  signature: Uint8Array | undefined,
  replace = false,
): Uint8Array {
  const present = corimOf(file, mask);
  if (present && !replace)
    throw new CvmError(
      'corim-exists',
      'the file has a CoRIM document for this platform; it can be replaced',
      {
        fileOffset: present.document.offset,
      },
    );
  const kept = file.headers.filter(
    (header) =>
      !(
        (header.type === 'CORIM_DOCUMENT' || header.type === 'CORIM_SIGNATURE') &&
        (header.compatibilityMask & mask) !== 0
      ),
  );
  const added = signature ? [document, signature] : [document];
  const bytes = new Uint8Array(file.bytes.length + added.reduce((sum, { length }) => sum + length, 0));
  bytes.set(file.bytes);
  let fileOffset = file.bytes.length;
  const headers: IgvmHeader[] = added.map((data, index) => {
    bytes.set(data, fileOffset);
    const header = makeHeader(index === 0 ? 'CORIM_DOCUMENT' : 'CORIM_SIGNATURE', {
      compatibilityMask: mask,
      fileOffset,
      sizeBytes: data.length,
    });
    fileOffset += data.length;
    return header;
  });
  const firstDirective = kept.findIndex(({ section }) => section === 'directive');
  kept.splice(firstDirective < 0 ? kept.length : firstDirective, 0, ...headers);
  const header = {
    ...file.header,
    totalFileSize: file.header.totalFileSize + bytes.length - file.bytes.length,
  };
  return writeIgvm({ bytes, header, headers: kept, unread: file.unread });
}
