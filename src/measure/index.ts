/**
 * The room of expected measurements: what the platform's firmware will report for an IGVM file, page by page,
 * from the same list of operations that a launch executes, or for an OVMF image with its kernel. It never launches
 * anything; IGVM files are parsed by `igvm/`, and the page hash of SNP is that of `snp/`.
 */
export { MEASURED_PLATFORMS, launchDigestTrace, measureIgvm, measurementSteps } from './measure.ts';
export type {
  LaunchDigestTrace,
  MeasureOptions,
  MeasuredPlatform,
  Measurement,
  MeasurementStep,
} from './measure.ts';
export { DigestTrace, launchDigest, launchDigestSteps, measuredPage } from './snp.ts';
export type { DigestStep } from './snp.ts';
export { measureTdvf } from './tdvf.ts';
export type { TdvfMeasurement } from './tdvf.ts';
export { mrtd } from './tdx.ts';
export type { TdxOrder } from './tdx.ts';
export { vbsDigest } from './vbs.ts';
export { sevDigest } from './sev.ts';
export { MAX_VCPUS, OVMF_MODES, measureOvmf, signatureOf } from './ovmf-launch.ts';
export type { OvmfLaunch, OvmfMeasurement, OvmfMode, OvmfPart } from './ovmf-launch.ts';
export { OvmfImage, SEV_SECTION_TYPES } from './ovmf.ts';
export type { SevSection, SevSectionType, TdxSection } from './ovmf.ts';
export { kernelHashes } from './kernel-hashes.ts';
export type { BootFiles, FileContents } from './kernel-hashes.ts';
export { RESET_EIP, VMM_TYPES, initialVmsa, svsmVmsa } from './initial-vmsa.ts';
export type { InitialVmsaOptions, VmmType } from './initial-vmsa.ts';
export { CPU_MODELS, cpuSignature, signatureOfType } from './cpu-signature.ts';
export type { CpuModel } from './cpu-signature.ts';
export { DEFAULT_EFFORT, explainDigest } from './explain.ts';
export type { ExplainOptions, Explanation } from './explain.ts';
export { explainOvmf } from './explain-ovmf.ts';
export type { ExplainOvmfOptions } from './explain-ovmf.ts';
export type { CauseCategory } from './explain-hypotheses.ts';
export type { Cause } from './explain-search.ts';
export type { Reference } from './explain-reference.ts';
export { QEMU_VMSA_FIELDS } from './explain-vmsa.ts';
export { compareTraces, traceFromJson, traceToJson } from './trace-diff.ts';
export type {
  PageDifference,
  PageDifferenceKind,
  TraceDifference,
  TraceEntry,
  TraceJsonEntry,
} from './trace-diff.ts';
export * from './attestation.ts';
export { checkImage } from './check.ts';
export type { CheckOptions } from './check.ts';
export {
  checkFirmwareDescriptor,
  firmwareDescriptor,
  readFirmwareDescriptor,
} from './firmware-descriptor.ts';
export type { FirmwareDescriptor } from './firmware-descriptor.ts';
