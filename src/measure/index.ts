/**
 * The room of expected measurements: what the platform's firmware will report for an IGVM file, page by page,
 * from the same list of operations that a launch executes. It never launches anything and never parses bytes:
 * `igvm/` does, and the page hash of SNP is that of `snp/`.
 */
export { MEASURED_PLATFORMS, launchDigestTrace, measureIgvm } from './measure.ts';
export type { LaunchDigestTrace, MeasureOptions, MeasuredPlatform, Measurement } from './measure.ts';
export { DigestTrace, launchDigestSteps, measuredPage } from './snp.ts';
export type { DigestStep } from './snp.ts';
export { mrtd } from './tdx.ts';
export { vbsDigest } from './vbs.ts';
