/**
 * Attestation reports (SEV-SNP Firmware ABI, "ATTESTATION_REPORT"): bytes to values, whatever their version. Nothing
 * here verifies anything: report-verify.ts does.
 */
import { CvmError, fieldBytes, hex, readField, structure } from '../base/index.ts';
import type { Diagnostic, FieldRow, Structure } from '../base/index.ts';
import { ATTESTATION_REPORT } from '../snp/index.ts';
import { allZero } from './checks.ts';
import { decodeTcb, productOfCpuid } from './tcb.ts';
import type { Product, TcbVersion } from './tcb.ts';

export const REPORT_SIZE = 0x4a0;
/** What the signature covers: everything before it. */
export const SIGNED_SIZE = 0x2a0;

const rows = (skip: (name: string) => boolean): FieldRow[] =>
  ATTESTATION_REPORT.fields
    .filter(({ name }) => !skip(name))
    .map((field) => [field.offset, field.name, field.type === 'bytes' ? field.size : field.type]);

/** Version 2 (ABI 1.51 to 1.55) does not tell the processor. */
const VERSION_2 = structure('ATTESTATION_REPORT', REPORT_SIZE, [
  ...rows((name) => name.startsWith('CPUID_') || name === 'RESERVED_18B'),
  [0x188, 'RESERVED_188', 24],
]);
/** Version 5 (ABI 1.58) adds the mitigations. */
const VERSION_5 = structure('ATTESTATION_REPORT', REPORT_SIZE, [
  ...rows((name) => name === 'RESERVED_1F8'),
  [0x1f8, 'LAUNCH_MIT_VECTOR', 'u64'],
  [0x200, 'CURRENT_MIT_VECTOR', 'u64'],
  [0x208, 'RESERVED_208', 152],
]);

/** The table of a version: 2; 3 and 4 (ABI 1.56, 1.57); 5 and what may follow. */
export function reportTable(version: number): Structure {
  if (version <= 2) return VERSION_2;
  return version <= 4 ? ATTESTATION_REPORT : VERSION_5;
}

export interface FirmwareVersion {
  readonly major: number;
  readonly minor: number;
  readonly build: number;
}

export interface AttestationReport {
  /** The 1184 bytes. */
  readonly bytes: Uint8Array;
  readonly version: number;
  readonly guestSvn: number;
  readonly policy: bigint;
  readonly familyId: Uint8Array;
  readonly imageId: Uint8Array;
  readonly vmpl: number;
  /** 1: ECDSA on P-384 with SHA-384. */
  readonly signatureAlgorithm: number;
  readonly platformInfo: bigint;
  readonly authorKeyEnabled: boolean;
  /** The chip's key is masked: the firmware did not sign. */
  readonly maskChipKey: boolean;
  /** KEY_INFO.SIGNING_KEY: 0 VCEK, 1 VLEK, 7 none; others are reserved. */
  readonly signingKey: 'VCEK' | 'VLEK' | 'none' | 'reserved';
  readonly reportData: Uint8Array;
  /** The launch digest, 48 bytes. */
  readonly measurement: Uint8Array;
  readonly hostData: Uint8Array;
  readonly idKeyDigest: Uint8Array;
  readonly authorKeyDigest: Uint8Array;
  readonly reportId: Uint8Array;
  readonly reportIdMa: Uint8Array;
  /** From version 3 on: CPUID family and model with their extended parts, and stepping. */
  readonly cpuid: { readonly family: number; readonly model: number; readonly stepping: number } | undefined;
  /** Zeros where the host masks it. */
  readonly chipId: Uint8Array;
  /** TCB_VERSIONs as they stand; `tcbOf` splits them. */
  readonly currentTcb: bigint;
  readonly reportedTcb: bigint;
  readonly committedTcb: bigint;
  readonly launchTcb: bigint;
  readonly current: FirmwareVersion;
  readonly committed: FirmwareVersion;
  /** From version 5 on. */
  readonly launchMitigations: bigint | undefined;
  readonly currentMitigations: bigint | undefined;
  /** SIGNATURE, 512 bytes: R and S, 72 bytes each, little-endian. */
  readonly signature: Uint8Array;
  /** What the report itself tells of the processor; `undefined` for version 2 with a masked chip identifier. */
  readonly product: Product | undefined;
  /** Reserved fields that are not zero, versions not known: as offsets in the report. */
  readonly diagnostics: readonly Diagnostic[];
}

/**
 * Parses the 1184 bytes of a report. `fileOffset` is where they stand in their file, for errors.
 *
 * @throws CvmError `report-truncated` if there are fewer, `report-version` for versions 0 and 1, which were never
 *   issued.
 */
export function parseReport(bytes: Uint8Array, fileOffset = 0): AttestationReport {
  if (bytes.length < REPORT_SIZE)
    throw new CvmError(
      'report-truncated',
      `an attestation report has ${REPORT_SIZE} bytes; ${bytes.length} are there`,
      { fileOffset: fileOffset + bytes.length },
    );
  const report = bytes.subarray(0, REPORT_SIZE);
  const version = Number(readField(report, ATTESTATION_REPORT.field('VERSION')));
  if (version < 2)
    throw new CvmError('report-version', `report version ${version} is not known; 2 and later are`, {
      fileOffset,
    });
  const table = reportTable(version);
  const big = (name: string): bigint => readField(report, table.field(name));
  const number = (name: string): number => Number(big(name));
  const raw = (name: string): Uint8Array => fieldBytes(report, table.field(name));
  const firmware = (name: string): FirmwareVersion => ({
    major: number(`${name}_MAJOR`),
    minor: number(`${name}_MINOR`),
    build: number(`${name}_BUILD`),
  });
  const keyInfo = number('KEY_INFO');
  const cpuid =
    version >= 3
      ? { family: number('CPUID_FAM_ID'), model: number('CPUID_MOD_ID'), stepping: number('CPUID_STEP') }
      : undefined;
  const chipId = raw('CHIP_ID');
  return {
    bytes: report,
    version,
    guestSvn: number('GUEST_SVN'),
    policy: big('POLICY'),
    familyId: raw('FAMILY_ID'),
    imageId: raw('IMAGE_ID'),
    vmpl: number('VMPL'),
    signatureAlgorithm: number('SIGNATURE_ALGO'),
    platformInfo: big('PLATFORM_INFO'),
    authorKeyEnabled: (keyInfo & 1) === 1,
    maskChipKey: (keyInfo & 2) === 2,
    signingKey: SIGNING_KEYS[(keyInfo >>> 2) & 7] ?? 'reserved',
    reportData: raw('REPORT_DATA'),
    measurement: raw('MEASUREMENT'),
    hostData: raw('HOST_DATA'),
    idKeyDigest: raw('ID_KEY_DIGEST'),
    authorKeyDigest: raw('AUTHOR_KEY_DIGEST'),
    reportId: raw('REPORT_ID'),
    reportIdMa: raw('REPORT_ID_MA'),
    cpuid,
    chipId,
    currentTcb: big('CURRENT_TCB'),
    reportedTcb: big('REPORTED_TCB'),
    committedTcb: big('COMMITTED_TCB'),
    launchTcb: big('LAUNCH_TCB'),
    current: firmware('CURRENT'),
    committed: firmware('COMMITTED'),
    launchMitigations: version >= 5 ? big('LAUNCH_MIT_VECTOR') : undefined,
    currentMitigations: version >= 5 ? big('CURRENT_MIT_VECTOR') : undefined,
    signature: raw('SIGNATURE'),
    product: cpuid ? productOfCpuid(cpuid.family, cpuid.model) : productOfChipId(chipId),
    diagnostics: findings(report, table, version, fileOffset),
  };
}

const SIGNING_KEYS: Readonly<Record<number, 'VCEK' | 'VLEK' | 'none'>> = { 0: 'VCEK', 1: 'VLEK', 7: 'none' };

/** Turin's identifiers have 8 bytes, earlier ones 64 (Milan and Genoa share the layout of everything here). */
function productOfChipId(chipId: Uint8Array): Product | undefined {
  if (allZero(chipId)) return undefined;
  return allZero(chipId.subarray(8)) ? 'Turin' : 'Milan';
}

/** A TCB_VERSION of a report, split as its product lays it out; Milan's layout if the report does not tell. */
export const tcbOf = (raw: bigint, product: Product | undefined): TcbVersion =>
  decodeTcb(raw, product ?? 'Milan');

function findings(report: Uint8Array, table: Structure, version: number, fileOffset: number): Diagnostic[] {
  const found: Diagnostic[] = [];
  if (version > 5)
    found.push({
      severity: 'warning',
      code: 'report-version',
      message: `report version ${version} is newer than this program, which reads it as version 5`,
      offset: fileOffset,
      length: 4,
    });
  for (const field of table.fields)
    if (field.name.startsWith('RESERVED') && !allZero(fieldBytes(report, field)))
      found.push({
        severity: 'warning',
        code: 'report-reserved',
        message: `${field.name} (at ${hex(field.offset)}) must be zero in version ${version}`,
        offset: fileOffset + field.offset,
        length: field.size,
      });
  return found.sort((a, b) => a.offset - b.offset);
}
