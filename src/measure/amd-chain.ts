/**
 * AMD's certificates: ARK (root) signs ASK or ASVK, which signs the VCEK of a chip or the VLEK of a cloud. ("VCEK
 * Certificate and KDS Interface Specification", AMD 57230; "VLEK Certificate Definition", AMD 58369.)
 */
import { CvmError, bytesToHex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { Checks, equalBytes } from './checks.ts';
import type { Verdict } from './checks.ts';
import { DerReader, TAG } from './der.ts';
import type { Product, TcbLevels } from './tcb.ts';
import { isSignedBy } from './x509.ts';
import type { Certificate } from './x509.ts';

const AMD = '1.3.6.1.4.1.3704.1';
/** Table 8 of AMD 57230: extensions of VCEK and VLEK. FMC is of Turin, HWID of the VCEK, CSP_ID of the VLEK. */
export const AMD_EXTENSION = {
  structVersion: `${AMD}.1`,
  productName: `${AMD}.2`,
  bootLoader: `${AMD}.3.1`,
  tee: `${AMD}.3.2`,
  snp: `${AMD}.3.3`,
  microcode: `${AMD}.3.8`,
  fmc: `${AMD}.3.9`,
  hardwareId: `${AMD}.4`,
  cspId: `${AMD}.5`,
} as const;

/** SHA-256 of the SubjectPublicKeyInfo of AMD's root keys, as the key server hands them out. */
const KNOWN_ROOTS: Readonly<Record<string, Product>> = {
  '9f056bee44377e29308cb5ffa895bdfb62d18881fa6bed8d6f075b0204089cb9': 'Milan',
  '429a69c9422aa258ee4d8db5fcda9c6470ef15f8cd5a9cebd6cbc7d90b863831': 'Genoa',
  '4f125410563a2ab9a50356f9243f6fe0b6f73de98603f53f90339c70e9d7ad08': 'Turin',
};

/** What a VCEK or VLEK says of the platform it stands for. */
export interface EndorsementKey {
  readonly kind: 'VCEK' | 'VLEK';
  /** As written: `Milan-B0`, `Turin`. */
  readonly productName: string;
  readonly product: Product | undefined;
  readonly tcb: TcbLevels;
  /** 64 bytes, 8 for Turin; VCEK only. */
  readonly hardwareId: Uint8Array | undefined;
  /** The cloud provider; VLEK only. */
  readonly cspId: string | undefined;
}

/** Whether a certificate is a VCEK or VLEK rather than one of its issuers. */
export const isEndorsementKey = (certificate: Certificate): boolean =>
  certificate.subjectName === 'SEV-VCEK' || certificate.subjectName === 'SEV-VLEK';

/** @throws CvmError `certificate-invalid` if it is no VCEK or VLEK, `der-invalid` if an extension is damaged. */
export function readEndorsementKey(certificate: Certificate): EndorsementKey {
  const kind = { 'SEV-VCEK': 'VCEK', 'SEV-VLEK': 'VLEK' }[certificate.subjectName];
  if (kind !== 'VCEK' && kind !== 'VLEK')
    throw new CvmError(
      'certificate-invalid',
      `the certificate of ${certificate.subjectName || 'an unnamed subject'} is no VCEK and no VLEK`,
    );
  const get = (name: keyof typeof AMD_EXTENSION): Uint8Array | undefined =>
    certificate.extensions.get(AMD_EXTENSION[name]);
  const need = (name: keyof typeof AMD_EXTENSION): DerReader => {
    const value = get(name);
    if (!value)
      throw new CvmError(
        'certificate-invalid',
        `the ${kind} has no extension ${AMD_EXTENSION[name]} (${name})`,
      );
    return new DerReader(value, `${kind} extension ${name}`);
  };
  const level = (name: keyof typeof AMD_EXTENSION): number => {
    const reader = need(name);
    const value = reader.small('the level', 255);
    reader.end();
    return value;
  };
  const productName = text(need('productName'));
  return {
    kind,
    productName,
    product: productOfName(productName),
    tcb: {
      fmc: get('fmc') ? level('fmc') : undefined,
      bootLoader: level('bootLoader'),
      tee: level('tee'),
      snp: level('snp'),
      microcode: level('microcode'),
    },
    hardwareId: hardwareId(get('hardwareId'), kind),
    cspId: get('cspId') ? text(need('cspId')) : undefined,
  };
}

function text(reader: DerReader): string {
  const value = reader.next('the text');
  if (value.tag !== TAG.ia5String && value.tag !== TAG.utf8String && value.tag !== TAG.printableString)
    throw reader.error('not a text', value.offset);
  reader.end();
  return new TextDecoder().decode(value.content.subarray(0, 256));
}

/** The key server writes the bytes of the identifier bare; newer ones may wrap them as an OCTET STRING. */
function hardwareId(value: Uint8Array | undefined, kind: string): Uint8Array | undefined {
  if (value === undefined || value.length === 64 || value.length === 8) return value;
  const reader = new DerReader(value, `${kind} extension hardwareId`);
  const { content } = reader.next('the hardware identifier', TAG.octetString);
  if (content.length !== 64 && content.length !== 8)
    throw reader.error(`the hardware identifier has ${content.length} bytes; 64 or 8 are expected`);
  return content;
}

/** `Milan-B0` -> Milan. Bergamo and Siena are certified as Genoa. */
function productOfName(name: string): Product | undefined {
  const line = name.split('-')[0];
  return line === 'Milan' || line === 'Genoa' || line === 'Turin' ? line : undefined;
}

export interface ChainVerdict extends Verdict {
  /** Whose root key it is, if it is one of AMD's. */
  readonly rootProduct: Product | undefined;
}

export interface ChainOptions {
  /** The day as of which the certificates must be valid: `2026-11-21T00:00:00Z`. Without it, not checked. */
  readonly at?: string | undefined;
  /** Takes any self-signed root, not only AMD's: for chains of test machines. */
  readonly anyRoot?: boolean | undefined;
}

/**
 * Verifies `leaf` up to a root. `issuers` may be in any order and may hold more than is needed. Revocation is not
 * looked up.
 */
export function verifyChain(
  leaf: Certificate,
  issuers: readonly Certificate[],
  options: ChainOptions,
  crypto: Crypto,
): ChainVerdict {
  const checks = new Checks();
  const leafName = leaf.subjectName || 'the certificate';
  const signer = findIssuer(leaf, issuers, crypto);
  const root = signer && findIssuer(signer, issuers, crypto);
  const link = (child: Certificate, parent: Certificate | undefined, name: string): void => {
    if (!parent) {
      const there = issuers.map(({ subjectName }) => subjectName || 'unnamed').join(', ') || 'none';
      checks.add(
        name,
        'fail',
        `the issuer of ${child.subjectName}, ${child.issuerName}, is not among the given certificates (${there})`,
      );
      return;
    }
    checks.expect(
      name,
      isSignedBy(child, parent, crypto),
      `${parent.subjectName} signed ${child.subjectName}`,
      `the signature of ${child.subjectName} is not one of ${parent.subjectName}`,
    );
  };
  link(leaf, signer, 'chain-leaf');
  if (signer) link(signer, root, 'chain-signer');
  let rootProduct: Product | undefined;
  if (root) {
    const selfSigned = equalBytes(root.subject, root.issuer) && isSignedBy(root, root, crypto);
    checks.expect(
      'chain-root',
      selfSigned,
      `${root.subjectName} signed itself`,
      `${root.subjectName} is no root: it did not sign itself`,
    );
    rootProduct = checkRootKey(root, options, checks, crypto);
  }
  for (const authority of [signer, root])
    if (authority)
      checks.expect(
        'chain-authority',
        authority.isAuthority === true,
        `${authority.subjectName} may issue certificates`,
        `${authority.subjectName} is not marked as an authority (basic constraints)`,
      );
  for (const certificate of [leaf, signer, root]) {
    if (!certificate) continue;
    if (certificate.unknownCritical.length > 0)
      checks.add(
        'chain-critical',
        'fail',
        `${certificate.subjectName} has critical extensions that are not known here: ${certificate.unknownCritical.join(', ')}`,
      );
    checkValidity(certificate, options.at, checks);
  }
  if (!signer) checks.add('chain', 'fail', `${leafName} leads to no root`);
  return { ...checks.verdict(), rootProduct };
}

/** By name, and among several of that name the one whose key fits. */
function findIssuer(
  child: Certificate,
  issuers: readonly Certificate[],
  crypto: Crypto,
): Certificate | undefined {
  const named = issuers.filter(({ subject }) => equalBytes(subject, child.issuer));
  return named.length > 1
    ? (named.find((candidate) => isSignedBy(child, candidate, crypto)) ?? named[0])
    : named[0];
}

function checkRootKey(
  root: Certificate,
  options: ChainOptions,
  checks: Checks,
  crypto: Crypto,
): Product | undefined {
  const product = KNOWN_ROOTS[bytesToHex(crypto.sha256(root.publicKeyInfo))];
  if (product) checks.add('chain-root-key', 'pass', `the root key is AMD's of ${product}`);
  else if (options.anyRoot)
    checks.add('chain-root-key', 'warning', `the root key is none of AMD's; it was to be trusted anyway`);
  else
    checks.add(
      'chain-root-key',
      'fail',
      `the root key of ${root.subjectName} is none of AMD's (Milan, Genoa, Turin): anybody may have made this chain`,
    );
  return product;
}

function checkValidity(certificate: Certificate, at: string | undefined, checks: Checks): void {
  const { subjectName, notBefore, notAfter } = certificate;
  if (at === undefined)
    checks.add('chain-validity', 'skipped', `${subjectName} is valid from ${notBefore} to ${notAfter}`);
  else if (at < notBefore)
    checks.add('chain-validity', 'fail', `${subjectName} is not valid before ${notBefore}`);
  else if (at > notAfter) checks.add('chain-validity', 'fail', `${subjectName} expired on ${notAfter}`);
  else checks.add('chain-validity', 'pass', `${subjectName} is valid to ${notAfter}`);
}
