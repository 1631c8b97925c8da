/** Everything about an ID block that can be verified without a processor. */
import { bytesToHex, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { Checks, allZero, equalBytes } from './checks.ts';
import type { Verdict } from './checks.ts';
import { ID_AUTH, ID_BLOCK_VERSION, authField, authNumber, decodeIdBlock, keyDigest } from './id-block.ts';
import type { SignedIdBlock } from './id-block.ts';
import type { EmbeddedIdBlock } from './id-block-igvm.ts';
import { ALGORITHM_P384_SHA384, pointOfFirmware, signatureOfFirmware } from './snp-signature.ts';

/** What the ID block should fit; what is absent is not compared. */
export interface IdBlockExpectation {
  /** The launch digest of the image, 48 bytes. */
  readonly digest?: Uint8Array | undefined;
  /** The policy the guest is launched with. */
  readonly policy?: bigint | undefined;
  readonly idKeyDigest?: Uint8Array | undefined;
  readonly authorKeyDigest?: Uint8Array | undefined;
}

export interface IdBlockVerdict extends Verdict {
  /** What a report of this guest will have; zeros where the author does not count. */
  readonly idKeyDigest: Uint8Array;
  readonly authorKeyDigest: Uint8Array;
}

/**
 * Verifies both signatures, the form, and what is expected.
 * @throws CvmError `id-block-size` if a structure does not have its size.
 */
export function verifyIdBlock(
  signed: SignedIdBlock,
  expected: IdBlockExpectation,
  crypto: Crypto,
): IdBlockVerdict {
  const checks = new Checks();
  const block = decodeIdBlock(signed.block);
  const { auth } = signed;
  checks.expect(
    'id-block-version',
    block.version === ID_BLOCK_VERSION,
    'the version is 1',
    `the version is ${block.version}; the firmware takes 1 only`,
  );
  checkPolicyForm(block.policy, checks);
  const idKey = authField(auth, 'ID_KEY');
  const point = checkKey('id-key', 'ID key', idKey, authNumber(auth, 'ID_KEY_ALGO'), checks);
  checkSignature(
    'id-block-signature',
    'the ID key signed the ID block',
    'the signature of the ID block is not one of the ID key: the block was changed, or signed with another key',
    { point, message: signed.block, signature: authField(auth, 'ID_BLOCK_SIG') },
    checks,
    crypto,
  );
  const authorKey = authField(auth, 'AUTHOR_KEY');
  if (signed.authorKeyEnabled) {
    const author = checkKey(
      'author-key',
      'author key',
      authorKey,
      authNumber(auth, 'AUTHOR_KEY_ALGO'),
      checks,
    );
    checkSignature(
      'author-signature',
      'the author key signed the ID key',
      'the signature of the ID key is not one of the author key',
      { point: author, message: idKey, signature: authField(auth, 'ID_KEY_SIG') },
      checks,
      crypto,
    );
  } else checks.add('author-key', 'skipped', 'there is no author key');
  for (const { name } of ID_AUTH.fields)
    if (name.startsWith('RESERVED') && !allZero(authField(auth, name)))
      checks.add('id-auth-reserved', 'fail', `${name} of the ID authentication must be zero`);

  const idKeyDigest = keyDigest(idKey, crypto);
  const authorKeyDigest = signed.authorKeyEnabled ? keyDigest(authorKey, crypto) : new Uint8Array(48);
  checkExpected(block, { idKeyDigest, authorKeyDigest }, expected, checks);
  return { ...checks.verdict(), idKeyDigest, authorKeyDigest };
}

/** The same for an ID block of an IGVM file, and what an IGVM file adds. */
export function verifyEmbeddedIdBlock(
  found: readonly EmbeddedIdBlock[],
  expected: IdBlockExpectation,
  crypto: Crypto,
): IdBlockVerdict | undefined {
  const [first] = found;
  if (!first) return undefined;
  const verdict = verifyIdBlock(first.signed, expected, crypto);
  const checks = new Checks();
  if (found.length > 1)
    checks.add('id-block-single', 'fail', `the file has ${found.length} ID blocks; QEMU refuses it`);
  if ((first.authorKeyFlag !== 0) !== first.signed.authorKeyEnabled)
    checks.add(
      'author-key-flag',
      'warning',
      first.authorKeyFlag !== 0
        ? 'author_key_enabled is set, but the author key is empty: QEMU goes by the key and leaves the author out'
        : 'author_key_enabled is clear, but there is an author key: QEMU goes by the key and enables it',
    );
  if (first.reservedSet)
    checks.add('id-block-reserved', 'fail', 'reserved bytes of the SNP_ID_BLOCK header must be zero');
  const all = [...verdict.checks, ...checks.list];
  return { ...verdict, checks: all, ok: verdict.ok && checks.verdict().ok };
}

/** Bit 17 is 1, bits above 25 are 0 (Firmware ABI, "Guest Policy"). */
function checkPolicyForm(policy: bigint, checks: Checks): void {
  checks.expect(
    'policy-form',
    ((policy >> 17n) & 1n) === 1n && policy >> 26n === 0n,
    `guest policy ${hex(policy)} is well-formed`,
    ((policy >> 17n) & 1n) === 0n
      ? `guest policy ${hex(policy)} has bit 17 clear; the firmware refuses it`
      : `guest policy ${hex(policy)} has reserved bits set; the firmware refuses it`,
  );
}

function checkKey(
  name: string,
  what: string,
  key: Uint8Array,
  algorithm: number,
  checks: Checks,
): Uint8Array | undefined {
  const point = pointOfFirmware(key);
  checks.expect(
    name,
    algorithm === ALGORITHM_P384_SHA384 && point !== undefined,
    `the ${what} is one of ECDSA on P-384 with SHA-384`,
    algorithm !== ALGORITHM_P384_SHA384
      ? `the algorithm of the ${what} is ${algorithm}; the firmware takes 1 (ECDSA on P-384 with SHA-384) only`
      : `the ${what} is not in the form of P-384 (curve 2, numbers of 48 bytes)`,
  );
  return point;
}

function checkSignature(
  name: string,
  yes: string,
  no: string,
  of: { point: Uint8Array | undefined; message: Uint8Array; signature: Uint8Array },
  checks: Checks,
  crypto: Crypto,
): void {
  const signature = signatureOfFirmware(of.signature);
  const valid =
    of.point !== undefined &&
    signature !== undefined &&
    crypto.signatures.p384Verify(of.point, of.message, signature);
  checks.expect(name, valid, yes, allZero(of.signature) ? `${no} (it is empty)` : no);
}

function checkExpected(
  block: { readonly digest: Uint8Array; readonly policy: bigint },
  is: { readonly idKeyDigest: Uint8Array; readonly authorKeyDigest: Uint8Array },
  expected: IdBlockExpectation,
  checks: Checks,
): void {
  if (expected.digest)
    checks.expect(
      'launch-digest',
      equalBytes(block.digest, expected.digest),
      "the ID block has the image's launch digest",
      `the ID block is for launch digest ${bytesToHex(block.digest)}, the image has ${bytesToHex(expected.digest)}`,
    );
  if (expected.policy !== undefined)
    checks.expect(
      'policy',
      block.policy === expected.policy,
      `the guest policy is the one of the launch`,
      `the ID block is for guest policy ${hex(block.policy)}, the guest is launched with ${hex(expected.policy)}`,
    );
  for (const [name, what, digest, wanted] of [
    ['id-key-digest', 'ID key', is.idKeyDigest, expected.idKeyDigest],
    ['author-key-digest', 'author key', is.authorKeyDigest, expected.authorKeyDigest],
  ] as const)
    if (wanted)
      checks.expect(
        name,
        equalBytes(digest, wanted),
        `the ${what} is the expected one`,
        `the digest of the ${what} is ${bytesToHex(digest)}, expected is ${bytesToHex(wanted)}`,
      );
}
