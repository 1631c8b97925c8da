/** `cvm report`: attestation reports shown and verified. */
import { bytesToHex, hex } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { compareReport, readReportFile, tcbOf, tcbWords, verifyReport } from '../measure/index.ts';
import type { FirmwareVersion, ReportFile } from '../measure/index.ts';
import {
  CERTIFICATE_OPTIONS,
  bytesOf,
  certificatesOf,
  dateOf,
  flag,
  policyOf,
  printRows,
  printVerdict,
  readSmall,
  svnOf,
  text,
  toJson,
} from './attest.ts';
import { EXIT } from './exit-codes.ts';
import { parse, usageError } from './options.ts';
import type { Options, Values } from './options.ts';
import { complain, print } from './output.ts';

export function report(args: readonly string[]): Promise<number> {
  const [verb, ...rest] = args;
  if (verb === 'show') return show(rest);
  if (verb === 'verify') return verify(rest);
  throw usageError(`report needs one of show, verify, not '${verb ?? ''}'`);
}

async function show(args: readonly string[]): Promise<number> {
  const { values, files } = parse(args, { json: flag }, 1);
  const file = readReportFile(await readSmall(files[0]!));
  const { report } = file;
  for (const { message } of report.diagnostics) complain(`cvm: warning: ${message}`);
  if (values.json) {
    print(toJson(asJson(file)));
    return EXIT.success;
  }
  const tcb = (raw: bigint): string => `${hex(raw, 16)}  ${tcbWords(tcbOf(raw, report.product))}`;
  const firmware = ({ major, minor, build }: FirmwareVersion): string => `${major}.${minor}.${build}`;
  const { cpuid } = report;
  printRows([
    ['container', file.container],
    ['version', report.version],
    ['guest SVN', report.guestSvn],
    ['policy', hex(report.policy)],
    ['family ID', bytesToHex(report.familyId)],
    ['image ID', bytesToHex(report.imageId)],
    ['VMPL', report.vmpl],
    ['signature algorithm', report.signatureAlgorithm],
    ['signing key', report.maskChipKey ? 'masked' : report.signingKey],
    ['platform info', hex(report.platformInfo)],
    ['report data', bytesToHex(report.reportData)],
    ['measurement', bytesToHex(report.measurement)],
    ['host data', bytesToHex(report.hostData)],
    ['ID key digest', bytesToHex(report.idKeyDigest)],
    ['author key digest', report.authorKeyEnabled ? bytesToHex(report.authorKeyDigest) : 'no author key'],
    ['report ID', bytesToHex(report.reportId)],
    ['report ID, migration', bytesToHex(report.reportIdMa)],
    ['current TCB', tcb(report.currentTcb)],
    ['reported TCB', tcb(report.reportedTcb)],
    ['committed TCB', tcb(report.committedTcb)],
    ['launch TCB', tcb(report.launchTcb)],
    [
      'processor',
      cpuid && `family ${hex(cpuid.family)} model ${hex(cpuid.model)} stepping ${cpuid.stepping}`,
    ],
    ['product', report.product],
    ['chip ID', bytesToHex(report.chipId)],
    ['current firmware', firmware(report.current)],
    ['committed firmware', firmware(report.committed)],
    [
      'launch mitigations',
      report.launchMitigations === undefined ? undefined : hex(report.launchMitigations),
    ],
    [
      'current mitigations',
      report.currentMitigations === undefined ? undefined : hex(report.currentMitigations),
    ],
  ]);
  return EXIT.success;
}

function asJson({ container, report, azure }: ReportFile): object {
  const { bytes: _bytes, ...fields } = report;
  const decoded = (raw: bigint): object => {
    const { reservedSet: _reserved, ...levels } = tcbOf(raw, report.product);
    return { raw, ...levels };
  };
  return {
    container,
    ...fields,
    currentTcb: decoded(report.currentTcb),
    reportedTcb: decoded(report.reportedTcb),
    committedTcb: decoded(report.committedTcb),
    launchTcb: decoded(report.launchTcb),
    ...(azure && {
      azure: { hashAlgorithm: azure.hashAlgorithm, data: new TextDecoder().decode(azure.data) },
    }),
  };
}

/** What a report may be compared with. */
export const EXPECTED_OPTIONS: Options = {
  measurement: text,
  policy: text,
  'report-data': text,
  'host-data': text,
  'id-key-digest': text,
  'author-key-digest': text,
  'family-id': text,
  'image-id': text,
  svn: text,
  vmpl: text,
};

export const expectedOf = (values: Values) => ({
  measurement: bytesOf(values, 'measurement', 48),
  policy: policyOf(values),
  reportData: bytesOf(values, 'report-data', 64),
  hostData: bytesOf(values, 'host-data', 32),
  idKeyDigest: bytesOf(values, 'id-key-digest', 48),
  authorKeyDigest: bytesOf(values, 'author-key-digest', 48),
  familyId: bytesOf(values, 'family-id', 16),
  imageId: bytesOf(values, 'image-id', 16),
  guestSvn: svnOf(values, 'svn'),
  vmpl: svnOf(values, 'vmpl'),
});

async function verify(args: readonly string[]): Promise<number> {
  const { values, files } = parse(args, { ...CERTIFICATE_OPTIONS, ...EXPECTED_OPTIONS, json: flag }, 1);
  const options = { at: dateOf(values), anyRoot: values['any-root'] === true };
  const expected = expectedOf(values);
  const file = readReportFile(await readSmall(files[0]!));
  const certificates = await certificatesOf(values, file.certificates);
  const signature = verifyReport(file, certificates, options, nodeHost.crypto);
  const compared = compareReport(file.report, expected);
  return printVerdict(
    { ok: signature.ok && compared.ok, checks: [...signature.checks, ...compared.checks] },
    values,
    { measurement: file.report.measurement },
  );
}
