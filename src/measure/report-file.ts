/** The files an attestation report comes in. */
import { CvmError, hexToBytes } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { equalBytes } from './checks.ts';
import { fromBase64 } from './pem.ts';
import { REPORT_SIZE, parseReport } from './report.ts';
import type { AttestationReport } from './report.ts';
import { structure, readField } from '../base/index.ts';

/** Larger files are no reports: the report, certificates, and a few KiB of a cloud's data. */
export const MAX_REPORT_BYTES = 1 << 20;

export interface ReportFile {
  /**
   * `raw`: the report alone; `hex`, `base64`: as text; `response`: MSG_REPORT_RSP of the firmware; `extended`: with
   * the host's certificates behind it (GHCB spec, SNP Extended Guest Request); `azure-hcl`: in Azure's container.
   */
  readonly container: 'raw' | 'hex' | 'base64' | 'response' | 'extended' | 'azure-hcl';
  readonly report: AttestationReport;
  /** DER certificates the host put behind the report; not verified. */
  readonly certificates: readonly Uint8Array[];
  readonly azure: AzureRuntimeData | undefined;
}

/** What Azure's paravisor has the report vouch for: REPORT_DATA begins with the hash of `data`. */
export interface AzureRuntimeData {
  readonly hashAlgorithm: 'SHA-256' | 'SHA-384' | 'SHA-512' | 'unknown';
  /** JSON: the key of the virtual TPM and the configuration of the machine. */
  readonly data: Uint8Array;
  readonly fileOffset: number;
}

/** Azure's header (openhcl `hcl_attestation`, "ATTESTATION_HEADER"), before the report. */
export const HCL_HEADER = structure('HCL_ATTESTATION_HEADER', 32, [
  [0, 'SIGNATURE', 4],
  [4, 'VERSION', 'u32'],
  [8, 'REPORT_SIZE', 'u32'],
  [12, 'REQUEST_TYPE', 'u32'],
  [16, 'STATUS', 'u32'],
  [20, 'RESERVED_14', 12],
]);
/** And after it (`IGVM_REQUEST_DATA`). */
export const HCL_RUNTIME_DATA = structure('HCL_RUNTIME_DATA', 20, [
  [0, 'DATA_SIZE', 'u32'],
  [4, 'VERSION', 'u32'],
  [8, 'REPORT_TYPE', 'u32'],
  [12, 'HASH_TYPE', 'u32'],
  [16, 'VARIABLE_DATA_SIZE', 'u32'],
]);
/** MSG_REPORT_RSP (Firmware ABI, "MSG_REPORT_RSP Message Structure"), before the report. */
const REPORT_RESPONSE = structure('MSG_REPORT_RSP', 0x20, [
  [0, 'STATUS', 'u32'],
  [4, 'REPORT_SIZE', 'u32'],
  [8, 'RESERVED_8', 24],
]);
/** One row of the certificate table (GHCB spec, "SNP Extended Guest Request"); a row of zeros ends it. */
const CERT_TABLE_ENTRY = structure('CERT_TABLE_ENTRY', 24, [
  [0, 'GUID', 16],
  [16, 'OFFSET', 'u32'],
  [20, 'LENGTH', 'u32'],
]);
const MAX_CERTIFICATES = 16;
const REPORT_TYPE_SNP = 2n;

/**
 * Reads an attestation report from a file of any of the forms above.
 *
 * @throws CvmError `report-unknown` if it is none of them; `report-truncated`, `report-version`, with the offset in
 *   the file (of text: in the bytes it stands for).
 */
export function readReportFile(bytes: Uint8Array): ReportFile {
  if (bytes.length > MAX_REPORT_BYTES)
    throw new CvmError('report-unknown', `a file of ${bytes.length} bytes is no attestation report`);
  const bare = (container: ReportFile['container'], report: Uint8Array, at = 0): ReportFile => ({
    container,
    report: parseReport(report, at),
    certificates: [],
    azure: undefined,
  });
  if (equalBytes(bytes.subarray(0, 4), HCL_SIGNATURE)) return readAzure(bytes);
  const text = asText(bytes);
  if (text) return bare(text.container, text.bytes);
  if (isResponse(bytes)) return bare('response', bytes.subarray(REPORT_RESPONSE.size), REPORT_RESPONSE.size);
  const file = bare('raw', bytes);
  if (bytes.length === REPORT_SIZE) return file;
  const certificates = readCertificateTable(bytes.subarray(REPORT_SIZE), REPORT_SIZE);
  return { ...file, container: 'extended', certificates };
}

const HCL_SIGNATURE = new TextEncoder().encode('HCLA');

/** Hexadecimal or base64 with white space anywhere. */
function asText(bytes: Uint8Array): { container: 'hex' | 'base64'; bytes: Uint8Array } | undefined {
  // The version of a binary report is far below a space.
  if (bytes.length < REPORT_SIZE || bytes.subarray(0, 16).some((byte) => byte < 9)) return undefined;
  const text = new TextDecoder('latin1').decode(bytes).replace(/\s+/g, '');
  if (/^[0-9a-fA-F]+$/.test(text) && text.length === 2 * REPORT_SIZE)
    return { container: 'hex', bytes: hexToBytes(text) };
  const decoded = fromBase64(text);
  return decoded && { container: 'base64', bytes: decoded };
}

function isResponse(bytes: Uint8Array): boolean {
  if (bytes.length < REPORT_RESPONSE.size + REPORT_SIZE) return false;
  return (
    readField(bytes, REPORT_RESPONSE.field('STATUS')) === 0n &&
    readField(bytes, REPORT_RESPONSE.field('REPORT_SIZE')) === BigInt(REPORT_SIZE)
  );
}

/** @throws CvmError `report-unknown` if what follows the report is no certificate table. */
function readCertificateTable(table: Uint8Array, base: number): Uint8Array[] {
  const certificates: Uint8Array[] = [];
  const fail = (message: string, at: number): CvmError =>
    new CvmError('report-unknown', `what follows the report is no certificate table: ${message}`, {
      fileOffset: base + at,
    });
  for (let at = 0; ; at += CERT_TABLE_ENTRY.size) {
    if (at + CERT_TABLE_ENTRY.size > table.length) throw fail('it has no end', at);
    const row = table.subarray(at, at + CERT_TABLE_ENTRY.size);
    if (row.every((byte) => byte === 0)) return certificates;
    if (certificates.length === MAX_CERTIFICATES) throw fail(`more than ${MAX_CERTIFICATES} entries`, at);
    const offset = Number(readField(row, CERT_TABLE_ENTRY.field('OFFSET')));
    const length = Number(readField(row, CERT_TABLE_ENTRY.field('LENGTH')));
    if (offset + length > table.length) throw fail('an entry leaves it', at);
    certificates.push(table.subarray(offset, offset + length));
  }
}

function readAzure(bytes: Uint8Array): ReportFile {
  const reportEnd = HCL_HEADER.size + REPORT_SIZE;
  const report = parseReport(bytes.subarray(HCL_HEADER.size), HCL_HEADER.size);
  const runtime = bytes.subarray(reportEnd);
  const fail = (message: string, at: number): CvmError =>
    new CvmError('report-truncated', `Azure's container: ${message}`, { fileOffset: reportEnd + at });
  if (runtime.length < HCL_RUNTIME_DATA.size) throw fail('the runtime data is missing', runtime.length);
  const get = (name: string): bigint => readField(runtime, HCL_RUNTIME_DATA.field(name));
  if (get('REPORT_TYPE') !== REPORT_TYPE_SNP)
    throw fail(`report type ${get('REPORT_TYPE')} is not that of SNP (2)`, 8);
  const size = Number(get('VARIABLE_DATA_SIZE'));
  if (size > runtime.length - HCL_RUNTIME_DATA.size)
    throw fail(
      `it claims ${size} bytes of runtime data`,
      HCL_RUNTIME_DATA.field('VARIABLE_DATA_SIZE').offset,
    );
  const hashes = { 1: 'SHA-256', 2: 'SHA-384', 3: 'SHA-512' } as Readonly<
    Record<number, AzureRuntimeData['hashAlgorithm']>
  >;
  return {
    container: 'azure-hcl',
    report,
    certificates: [],
    azure: {
      hashAlgorithm: hashes[Number(get('HASH_TYPE'))] ?? 'unknown',
      data: runtime.subarray(HCL_RUNTIME_DATA.size, HCL_RUNTIME_DATA.size + size),
      fileOffset: reportEnd + HCL_RUNTIME_DATA.size,
    },
  };
}

/** Whether REPORT_DATA begins with the hash of Azure's data; `undefined` if that hash is not one computed here. */
export function azureDataMatches(
  report: AttestationReport,
  azure: AzureRuntimeData,
  crypto: Crypto,
): boolean | undefined {
  const hash =
    azure.hashAlgorithm === 'SHA-256'
      ? crypto.sha256(azure.data)
      : azure.hashAlgorithm === 'SHA-384'
        ? crypto.sha384(azure.data)
        : undefined;
  return hash && equalBytes(report.reportData.subarray(0, hash.length), hash);
}
