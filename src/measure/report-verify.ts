/** Whether an attestation report is AMD's word, and whether it speaks of a given image. */
import { bytesToHex, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { readEndorsementKey, verifyChain } from './amd-chain.ts';
import type { ChainOptions, EndorsementKey } from './amd-chain.ts';
import { Checks, allZero, equalBytes } from './checks.ts';
import type { Verdict } from './checks.ts';
import { SIGNED_SIZE, tcbOf } from './report.ts';
import type { AttestationReport } from './report.ts';
import { azureDataMatches } from './report-file.ts';
import type { ReportFile } from './report-file.ts';
import { ALGORITHM_P384_SHA384, signatureOfFirmware } from './snp-signature.ts';
import { tcbWords } from './tcb.ts';
import type { Certificate } from './x509.ts';

/** What a report should say; what is absent is not compared. */
export interface ReportExpectation {
  /** The launch digest, 48 bytes. */
  readonly measurement?: Uint8Array | undefined;
  readonly policy?: bigint | undefined;
  readonly reportData?: Uint8Array | undefined;
  readonly hostData?: Uint8Array | undefined;
  readonly idKeyDigest?: Uint8Array | undefined;
  readonly authorKeyDigest?: Uint8Array | undefined;
  readonly familyId?: Uint8Array | undefined;
  readonly imageId?: Uint8Array | undefined;
  readonly guestSvn?: number | undefined;
  readonly vmpl?: number | undefined;
}

/** Does the report say what is expected? Nothing here looks at its signature. */
export function compareReport(report: AttestationReport, expected: ReportExpectation): Verdict {
  const checks = new Checks();
  const bytes = (name: string, what: string, is: Uint8Array, wanted: Uint8Array | undefined): void => {
    if (!wanted) return;
    checks.expect(
      name,
      equalBytes(is, wanted),
      `the ${what} is the expected one`,
      `the report has ${what} ${shown(is)}, expected is ${shown(wanted)}`,
    );
  };
  bytes('measurement', 'launch digest', report.measurement, expected.measurement);
  if (expected.policy !== undefined)
    checks.expect(
      'policy',
      report.policy === expected.policy,
      `the guest policy is ${hex(report.policy)}, as expected`,
      `the report has guest policy ${hex(report.policy)}, expected is ${hex(expected.policy)}`,
    );
  bytes('report-data', 'report data', report.reportData, expected.reportData);
  bytes('host-data', 'host data', report.hostData, expected.hostData);
  bytes('id-key-digest', 'ID key digest', report.idKeyDigest, expected.idKeyDigest);
  bytes('author-key-digest', 'author key digest', report.authorKeyDigest, expected.authorKeyDigest);
  bytes('family-id', 'family ID', report.familyId, expected.familyId);
  bytes('image-id', 'image ID', report.imageId, expected.imageId);
  const number = (name: string, what: string, is: number, wanted: number | undefined): void => {
    if (wanted === undefined) return;
    checks.expect(name, is === wanted, `the ${what} is ${is}`, `the ${what} is ${is}, expected is ${wanted}`);
  };
  number('guest-svn', 'guest SVN', report.guestSvn, expected.guestSvn);
  number('vmpl', 'VMPL', report.vmpl, expected.vmpl);
  return checks.verdict();
}

const shown = (bytes: Uint8Array): string => (allZero(bytes) ? 'none (zeros)' : bytesToHex(bytes));

export interface ReportCertificates {
  /** The VCEK or VLEK. */
  readonly leaf: Certificate;
  /** ASK or ASVK, and ARK, in any order. */
  readonly issuers: readonly Certificate[];
}

/**
 * Verifies the report's signature, the chain up to AMD's root, and that the endorsement key is the one of this report:
 * its kind, product, chip identifier and TCB.
 */
export function verifyReport(
  file: Pick<ReportFile, 'report' | 'azure'>,
  certificates: ReportCertificates,
  options: ChainOptions,
  crypto: Crypto,
): Verdict {
  const { report, azure } = file;
  const checks = new Checks();
  for (const { message } of report.diagnostics) checks.add('report-format', 'warning', message);
  checkSignature(report, certificates.leaf, checks, crypto);
  const key = readEndorsementKey(certificates.leaf);
  checkKey(report, key, checks);
  const chain = verifyChain(certificates.leaf, certificates.issuers, options, crypto);
  checks.list.push(...chain.checks);
  if (chain.rootProduct && key.product && chain.rootProduct !== key.product)
    checks.add(
      'chain-product',
      'fail',
      `the ${key.kind} is for ${key.productName}, the root key is of ${chain.rootProduct}`,
    );
  if (azure) {
    const matches = azureDataMatches(report, azure, crypto);
    if (matches === undefined)
      checks.add('azure-data', 'skipped', `the runtime data is hashed with ${azure.hashAlgorithm}`);
    else
      checks.expect(
        'azure-data',
        matches,
        'the report data begins with the hash of the runtime data',
        'the report data is not the hash of the runtime data: somebody changed one of them',
      );
  }
  return checks.verdict();
}

function checkSignature(report: AttestationReport, leaf: Certificate, checks: Checks, crypto: Crypto): void {
  const { signatureAlgorithm: algorithm } = report;
  if (report.signingKey === 'none' || report.maskChipKey) {
    checks.add(
      'report-signature',
      'fail',
      report.maskChipKey
        ? "the report is not signed: the host masks the chip's key (MASK_CHIP_KEY)"
        : 'the report is not signed: it was asked for without a signing key',
    );
    return;
  }
  if (algorithm !== ALGORITHM_P384_SHA384) {
    checks.add('report-signature', 'fail', `signature algorithm ${algorithm} is not known; 1 is`);
    return;
  }
  const signature = signatureOfFirmware(report.signature);
  const key = leaf.publicKey;
  const valid =
    signature !== undefined &&
    key.type === 'p384' &&
    crypto.signatures.p384Verify(key.point, report.bytes.subarray(0, SIGNED_SIZE), signature);
  checks.expect(
    'report-signature',
    valid,
    `the key of ${leaf.subjectName} signed the report`,
    key.type !== 'p384'
      ? `the key of ${leaf.subjectName} is not on P-384`
      : `the key of ${leaf.subjectName} did not sign this report: the report was changed, or the certificate is of another chip or TCB`,
  );
}

function checkKey(report: AttestationReport, key: EndorsementKey, checks: Checks): void {
  checks.expect(
    'signing-key',
    report.signingKey === key.kind,
    `the report is signed with a ${key.kind}`,
    `the report says that it is signed with ${report.signingKey}, but the certificate is of a ${key.kind}`,
  );
  if (!key.product) {
    checks.add('product', 'fail', `product ${key.productName} of the ${key.kind} is not known`);
    return;
  }
  // Version 2 does not tell Milan from Genoa.
  const told = report.cpuid ? report.product : undefined;
  if (told)
    checks.expect(
      'product',
      told === key.product,
      `both are of ${key.product}`,
      `the report is of ${told}, the ${key.kind} of ${key.productName}`,
    );
  const tcb = tcbOf(report.reportedTcb, key.product);
  const same =
    tcb.bootLoader === key.tcb.bootLoader &&
    tcb.tee === key.tcb.tee &&
    tcb.snp === key.tcb.snp &&
    tcb.microcode === key.tcb.microcode &&
    tcb.fmc === (key.product === 'Turin' ? key.tcb.fmc : undefined);
  checks.expect(
    'tcb',
    same,
    `the reported TCB is that of the ${key.kind}: ${tcbWords(tcb)}`,
    `the reported TCB is ${tcbWords(tcb)}; the ${key.kind} is for ${tcbWords(key.tcb)}`,
  );
  checkChip(report, key, checks);
}

function checkChip(report: AttestationReport, key: EndorsementKey, checks: Checks): void {
  if (key.kind === 'VLEK') {
    checks.add('chip-id', 'skipped', `a VLEK is of a cloud (${key.cspId ?? 'unnamed'}), not of a chip`);
    return;
  }
  const id = key.hardwareId;
  if (!id) checks.add('chip-id', 'fail', 'the VCEK names no chip');
  else if (allZero(report.chipId))
    checks.add('chip-id', 'skipped', 'the host masks the chip identifier (MASK_CHIP_ID)');
  else
    checks.expect(
      'chip-id',
      equalBytes(report.chipId.subarray(0, id.length), id) && allZero(report.chipId.subarray(id.length)),
      'the VCEK is of the chip that made the report',
      `the report is of chip ${bytesToHex(report.chipId.subarray(0, 8))}…, the VCEK of ${bytesToHex(id.subarray(0, 8))}…`,
    );
}
