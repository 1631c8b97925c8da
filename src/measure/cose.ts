/** COSE_Sign1 (RFC 9052) around a CoRIM: read, verified with a given P-384 key, made. */
import { CvmError } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { Tagged, decodeCbor, encodeCbor } from './cbor.ts';
import type { Cbor } from './cbor.ts';
import { Checks, equalBytes } from './checks.ts';
import type { Verdict } from './checks.ts';
import type { P384PrivateKey } from './p384-keys.ts';

const TAG_COSE_SIGN1 = 18;
const LABEL = { algorithm: 1, contentType: 3, keyId: 4, corimMeta: 8 } as const;
const CONTENT_TYPE = 'application/rim+cbor';
/** IANA "COSE Algorithms": those that are ECDSA on P-384 with SHA-384. ES384 is polymorphic by name only. */
const ES384 = -35;
const ESP384 = -51;
const ALGORITHMS: Readonly<Record<number, string>> = {
  [-7]: 'ES256',
  [-8]: 'EdDSA',
  [-9]: 'ESP256',
  [ES384]: 'ES384',
  [-36]: 'ES512',
  [-37]: 'PS256',
  [-38]: 'PS384',
  [-39]: 'PS512',
  [ESP384]: 'ESP384',
  [-52]: 'ESP512',
};

export interface CoseSign1 {
  /** As signed. */
  readonly protectedBytes: Uint8Array;
  readonly protectedHeader: ReadonlyMap<unknown, Cbor>;
  readonly algorithm: number | undefined;
  /** `ES384`, or the number. */
  readonly algorithmName: string;
  readonly contentType: string | undefined;
  /** `undefined`: detached, as in IGVM files. */
  readonly payload: Uint8Array | undefined;
  readonly signature: Uint8Array;
}

/** @throws CvmError `cbor-invalid`, `cose-invalid`. */
export function readCoseSign1(bytes: Uint8Array, fileOffset = 0): CoseSign1 {
  const fail = (message: string): CvmError =>
    new CvmError('cose-invalid', `the CoRIM signature is no COSE_Sign1: ${message}`, { fileOffset });
  const decoded = decodeCbor(bytes, 'the CoRIM signature', fileOffset);
  const value = decoded instanceof Tagged && decoded.tag === TAG_COSE_SIGN1 ? decoded.value : decoded;
  if (!Array.isArray(value) || value.length !== 4) throw fail('it is no array of four');
  const [protectedBytes, unprotected, payload, signature] = value as Cbor[];
  if (!(protectedBytes instanceof Uint8Array)) throw fail('its protected header is no byte string');
  if (!(unprotected instanceof Map)) throw fail('its unprotected header is no map');
  if (payload !== null && !(payload instanceof Uint8Array)) throw fail('its payload is no byte string');
  if (!(signature instanceof Uint8Array)) throw fail('its signature is no byte string');
  const header: Cbor =
    protectedBytes.length === 0
      ? new Map()
      : decodeCbor(protectedBytes, 'the protected header of the CoRIM signature', fileOffset);
  if (!(header instanceof Map)) throw fail('its protected header is no map');
  const algorithm: Cbor = header.get(LABEL.algorithm);
  const contentType: Cbor = header.get(LABEL.contentType);
  return {
    protectedBytes,
    protectedHeader: header,
    algorithm: typeof algorithm === 'number' ? algorithm : undefined,
    algorithmName:
      typeof algorithm === 'number' ? (ALGORITHMS[algorithm] ?? String(algorithm)) : 'no algorithm',
    contentType: typeof contentType === 'string' ? contentType : undefined,
    payload: payload ?? undefined,
    signature,
  };
}

/** Verifies a signature over `document`, detached or not, with a P-384 key (97-byte point). */
export function verifyCoseSign1(
  cose: CoseSign1,
  document: Uint8Array,
  publicKey: Uint8Array | undefined,
  crypto: Crypto,
): Verdict {
  const checks = new Checks();
  if (cose.contentType !== CONTENT_TYPE)
    checks.add(
      'corim-content-type',
      'warning',
      `the signature is for content type ${cose.contentType ?? '(none)'}, not ${CONTENT_TYPE}`,
    );
  if (cose.payload)
    checks.expect(
      'corim-payload',
      equalBytes(cose.payload, document),
      'the signature carries this document',
      'the signature carries another document',
    );
  if (!publicKey)
    checks.add('corim-signature', 'skipped', `no key is given for the signature (${cose.algorithmName})`);
  else if (cose.algorithm !== ES384 && cose.algorithm !== ESP384)
    checks.add(
      'corim-signature',
      'fail',
      `the signature is of ${cose.algorithmName}; only ES384 and ESP384 can be verified here`,
    );
  else
    checks.expect(
      'corim-signature',
      crypto.signatures.p384Verify(publicKey, toBeSigned(cose.protectedBytes, document), cose.signature),
      'the key signed the document',
      'the key did not sign this document',
    );
  return checks.verdict();
}

/** A detached signature (ES384, RFC 6979) with the header that draft-ietf-rats-corim-10 §4.2 asks for. */
export function signCorim(
  document: Uint8Array,
  key: P384PrivateKey,
  signerName: string,
  crypto: Crypto,
): Uint8Array {
  // corim-meta: signer { name }.
  const meta = encodeCbor(new Map<number, Cbor>([[0, new Map([[0, signerName]])]]));
  const protectedBytes = encodeCbor(
    new Map<number, Cbor>([
      [LABEL.algorithm, ES384],
      [LABEL.contentType, CONTENT_TYPE],
      [LABEL.corimMeta, meta],
    ]),
  );
  const signature = crypto.signatures.p384Sign(key.scalar, toBeSigned(protectedBytes, document));
  return encodeCbor(new Tagged(TAG_COSE_SIGN1, [protectedBytes, new Map(), null, signature]));
}

/** Sig_structure (RFC 9052 §4.4). */
const toBeSigned = (protectedBytes: Uint8Array, payload: Uint8Array): Uint8Array =>
  encodeCbor(['Signature1', protectedBytes, new Uint8Array(), payload]);
