/** X.509 certificates (RFC 5280), as far as AMD's chains and their signatures go. Bytes in, values out: no clock. */
import { bytesToHex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { equalBytes } from './checks.ts';
import { DerReader, TAG, contextTag } from './der.ts';
import type { DerValue } from './der.ts';
import { readP384Signature, readPublicKeyInfo } from './p384-keys.ts';
import type { PublicKey } from './p384-keys.ts';
import { decodePem, isPem } from './pem.ts';

export interface Certificate {
  readonly bytes: Uint8Array;
  /** What is signed. */
  readonly tbs: Uint8Array;
  readonly serialNumber: string;
  /** DER of the names: they are compared as bytes. */
  readonly issuer: Uint8Array;
  readonly subject: Uint8Array;
  /** `CN` of the names, empty if there is none. */
  readonly issuerName: string;
  readonly subjectName: string;
  /** `2022-09-24T00:55:28Z`: such times order as text. */
  readonly notBefore: string;
  readonly notAfter: string;
  readonly publicKey: PublicKey;
  /** DER of the SubjectPublicKeyInfo. */
  readonly publicKeyInfo: Uint8Array;
  readonly signatureAlgorithm: SignatureAlgorithm;
  readonly signature: Uint8Array;
  /** `cA` of the basic constraints; `undefined` if there are none. */
  readonly isAuthority: boolean | undefined;
  /** By object identifier: the bytes inside the octet string. */
  readonly extensions: ReadonlyMap<string, Uint8Array>;
  /** Critical extensions that nothing here knows (RFC 5280 §4.2: the certificate must be refused). */
  readonly unknownCritical: readonly string[];
}

export type SignatureAlgorithm =
  | { readonly type: 'rsa-pss-sha384'; readonly saltLength: number }
  | { readonly type: 'ecdsa-sha384' }
  | { readonly type: 'other'; readonly algorithm: string };

const SHA384 = '2.16.840.1.101.3.4.2.2';
const RSASSA_PSS = '1.2.840.113549.1.1.10';
const MGF1 = '1.2.840.113549.1.1.8';
const ECDSA_SHA384 = '1.2.840.10045.4.3.3';
const COMMON_NAME = '2.5.4.3';
const BASIC_CONSTRAINTS = '2.5.29.19';
/** keyUsage, basicConstraints and what only helps to find things. */
const KNOWN_CRITICAL = new Set(['2.5.29.15', BASIC_CONSTRAINTS]);
const MAX_EXTENSIONS = 64;
const MAX_NAME_PARTS = 32;

/** The certificates of a file: one in DER, or every `CERTIFICATE` of a PEM. @throws CvmError `der-invalid`, `pem-invalid`. */
export function readCertificates(bytes: Uint8Array): Certificate[] {
  if (!isPem(bytes)) return [readCertificate(bytes)];
  return decodePem(bytes)
    .filter(({ label }) => label === 'CERTIFICATE')
    .map((block) => readCertificate(block.bytes));
}

/** @throws CvmError `der-invalid` with the offset of what is wrong. */
export function readCertificate(bytes: Uint8Array): Certificate {
  const outer = new DerReader(bytes, 'certificate');
  const certificate = outer.enter('the certificate');
  outer.end();
  const tbsValue = certificate.next('the signed part', TAG.sequence);
  const algorithm = certificate.next('the signature algorithm', TAG.sequence);
  const signature = certificate.bits('the signature').content;
  certificate.end();

  const tbs = certificate.inside(tbsValue);
  if (tbs.peek(contextTag(0))) tbs.enter('the version', contextTag(0)).small('the version', 2);
  const serialNumber = tbs.next('the serial number', TAG.integer).content;
  const inner = tbs.next('the signature algorithm', TAG.sequence);
  if (!equalBytes(inner.bytes, algorithm.bytes))
    throw tbs.error('the two signature algorithms differ', inner.offset);
  const issuer = tbs.next('the issuer', TAG.sequence);
  const validity = tbs.enter('the validity');
  const notBefore = readTime(validity, 'not before');
  const notAfter = readTime(validity, 'not after');
  const subject = tbs.next('the subject', TAG.sequence);
  const info = tbs.next('the public key', TAG.sequence);
  const extensions = readExtensions(tbs);
  return {
    bytes,
    tbs: tbsValue.bytes,
    serialNumber: bytesToHex(serialNumber),
    issuer: issuer.bytes,
    subject: subject.bytes,
    issuerName: commonName(tbs, issuer),
    subjectName: commonName(tbs, subject),
    notBefore,
    notAfter,
    publicKey: readPublicKeyInfo(new DerReader(info.bytes, 'certificate', info.offset)),
    publicKeyInfo: info.bytes,
    signatureAlgorithm: readAlgorithm(certificate.inside(algorithm)),
    signature,
    ...extensions,
  };
}

/** Whether `issuer`'s key signed `certificate`. Names, dates and constraints are the caller's to check. */
export function isSignedBy(certificate: Certificate, issuer: Certificate, crypto: Crypto): boolean {
  const { signatureAlgorithm: algorithm, tbs, signature } = certificate;
  const key = issuer.publicKey;
  if (algorithm.type === 'rsa-pss-sha384' && key.type === 'rsa')
    return crypto.signatures.rsaPssVerify(key.rsa, tbs, signature, algorithm.saltLength);
  if (algorithm.type !== 'ecdsa-sha384' || key.type !== 'p384') return false;
  try {
    return crypto.signatures.p384Verify(key.point, tbs, readP384Signature(signature));
  } catch {
    return false;
  }
}

/** RFC 4055 §3.1 for RSASSA-PSS; only SHA-384 throughout is taken. */
function readAlgorithm(reader: DerReader): SignatureAlgorithm {
  const algorithm = reader.oid('the signature algorithm');
  if (algorithm === ECDSA_SHA384) return { type: 'ecdsa-sha384' };
  if (algorithm !== RSASSA_PSS) return { type: 'other', algorithm };
  const parameters = reader.enter('the parameters of RSASSA-PSS');
  const other = { type: 'other', algorithm: 'RSASSA-PSS without SHA-384' } as const;
  // Absent parameters mean SHA-1 (RFC 4055).
  if (!parameters.peek(contextTag(0))) return other;
  const hash = parameters.enter('the hash', contextTag(0)).enter('the hash').oid('the hash');
  if (!parameters.peek(contextTag(1))) return other;
  const mask = parameters.enter('the mask function', contextTag(1)).enter('the mask function');
  const maskName = mask.oid('the mask function');
  const maskHash = mask.enter('the hash of the mask function').oid('the hash of the mask function');
  if (hash !== SHA384 || maskName !== MGF1 || maskHash !== SHA384) return other;
  const saltLength = parameters.peek(contextTag(2))
    ? parameters.enter('the salt length', contextTag(2)).small('the salt length', 512)
    : 20;
  return { type: 'rsa-pss-sha384', saltLength };
}

/** UTCTime (years 1950 to 2049) or GeneralizedTime, in the form DER allows. */
function readTime(reader: DerReader, what: string): string {
  const value = reader.next(what);
  const text = new TextDecoder('latin1').decode(value.content.subarray(0, 20));
  const match =
    value.tag === TAG.utcTime
      ? /^(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text)
      : value.tag === TAG.generalizedTime
        ? /^(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z$/.exec(text)
        : null;
  if (!match) throw reader.error(`${what} is no time`, value.offset);
  const [, year, month, day, hours, minutes, seconds] = match as unknown as string[];
  const century = year!.length === 4 ? '' : Number(year) < 50 ? '20' : '19';
  return `${century}${year}-${month}-${day}T${hours}:${minutes}:${seconds}Z`;
}

function commonName(reader: DerReader, name: DerValue): string {
  const parts = reader.inside(name);
  let found = '';
  for (let n = 0; !parts.done && n < MAX_NAME_PARTS; n++) {
    const part = parts.enter('a part of a name', TAG.set).enter('a part of a name');
    if (part.oid('its type') === COMMON_NAME)
      found = new TextDecoder().decode(part.next('its value').content.subarray(0, 128));
  }
  return found;
}

function readExtensions(tbs: DerReader): Pick<Certificate, 'extensions' | 'unknownCritical' | 'isAuthority'> {
  const extensions = new Map<string, Uint8Array>();
  const unknownCritical: string[] = [];
  let isAuthority: boolean | undefined;
  // issuerUniqueID and subjectUniqueID are implicit: their tags are primitive or constructed [1], [2].
  while (!tbs.done && !tbs.peek(contextTag(3))) tbs.next('an optional field');
  if (tbs.done) return { extensions, unknownCritical, isAuthority };
  const list = tbs.enter('the extensions', contextTag(3)).enter('the extensions');
  while (!list.done) {
    const extension = list.enter('an extension');
    const oid = extension.oid('the name of an extension');
    const critical =
      extension.peek(TAG.boolean) && extension.next('critical', TAG.boolean).content[0] === 0xff;
    const value = extension.next('an extension', TAG.octetString);
    if (extensions.has(oid)) throw list.error(`extension ${oid} appears twice`);
    extensions.set(oid, value.content);
    if (extensions.size > MAX_EXTENSIONS) throw list.error(`more than ${MAX_EXTENSIONS} extensions`);
    if (critical && !KNOWN_CRITICAL.has(oid)) unknownCritical.push(oid);
    if (oid === BASIC_CONSTRAINTS) {
      const constraints = extension.inside(value).enter('the basic constraints');
      isAuthority = constraints.peek(TAG.boolean) && constraints.next('cA', TAG.boolean).content[0] === 0xff;
    }
  }
  return { extensions, unknownCritical, isAuthority };
}
