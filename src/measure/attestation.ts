/** ID blocks, attestation reports and CoRIMs: what the room's front door shows of them. */
export type { Check, CheckResult, Verdict } from './checks.ts';
export { MAX_PEM_BYTES, fromBase64, toBase64 } from './pem.ts';
export { readP384PrivateKey, readP384PublicKey, readP384Signature } from './p384-keys.ts';
export type { P384PrivateKey, PublicKey } from './p384-keys.ts';
export { readCertificate, readCertificates } from './x509.ts';
export type { Certificate } from './x509.ts';
export { AMD_EXTENSION, isEndorsementKey, readEndorsementKey, verifyChain } from './amd-chain.ts';
export type { ChainOptions, ChainVerdict, EndorsementKey } from './amd-chain.ts';
export { TCB_VERSION_MILAN, TCB_VERSION_TURIN, decodeTcb, tcbTable, tcbWords } from './tcb.ts';
export type { Product, TcbLevels, TcbVersion } from './tcb.ts';
export { REPORT_SIZE, parseReport, reportTable, tcbOf } from './report.ts';
export type { AttestationReport, FirmwareVersion } from './report.ts';
export { MAX_REPORT_BYTES, azureDataMatches, readReportFile } from './report-file.ts';
export type { AzureRuntimeData, ReportFile } from './report-file.ts';
export { compareReport, verifyReport } from './report-verify.ts';
export type { ReportCertificates, ReportExpectation } from './report-verify.ts';
