/** The expected launch measurement of an IGVM file. */
import { CvmError } from '../base/index.ts';
import type { Crypto, Diagnostic } from '../base/index.ts';
import { choosePlatform, launchOperations, platforms, requireComplete } from '../igvm/index.ts';
import type { IgvmFile, LaunchOperation, Platform, PlatformType, ProfileName } from '../igvm/index.ts';
import { DigestTrace } from './snp.ts';
import { mrtd } from './tdx.ts';
import { vbsDigest } from './vbs.ts';

/** The platforms whose launch measurement this room computes. */
export const MEASURED_PLATFORMS = ['SEV_SNP', 'TDX', 'VSM_ISOLATION'] as const;
export type MeasuredPlatform = (typeof MEASURED_PLATFORMS)[number];

export interface MeasureOptions {
  /** Default: the first of SNP, TDX, VSM isolation that the file declares. */
  readonly platformType?: MeasuredPlatform;
  /** Picks the platform by its mask instead (two platforms of one type would otherwise be the first). */
  readonly compatibilityMask?: number;
  /** Whose order and reading of the directives; default `file-order`. */
  readonly profile?: ProfileName;
}

export interface Measurement {
  readonly platform: Platform;
  readonly profile: ProfileName;
  /** What the digest is called: LD (SNP), MRTD (TDX), boot digest (VBS). */
  readonly name: 'launch digest' | 'MRTD' | 'boot digest';
  readonly algorithm: 'SHA-384' | 'SHA-256';
  readonly digest: Uint8Array;
  /** Findings of the loader profile and of the measurement; none is an `error`. */
  readonly diagnostics: readonly Diagnostic[];
}

/** A launch digest of SNP with the digest after every page. */
export interface LaunchDigestTrace {
  readonly platform: Platform;
  readonly operations: readonly LaunchOperation[];
  /** 48 bytes. */
  readonly digest: Uint8Array;
  readonly steps: DigestTrace;
  readonly diagnostics: readonly Diagnostic[];
}

/**
 * The expected measurement of a file on one platform.
 *
 * @throws CvmError `igvm-no-platform` if the file does not declare the platform, `measure-no-platform` if it
 *   is one that has no launch measurement, `igvm-not-launchable` if a loader must refuse the file.
 */
export function measureIgvm(file: IgvmFile, options: MeasureOptions, crypto: Crypto): Measurement {
  const platform = measuredPlatform(file, options);
  const { operations, diagnostics } = prepare(file, platform, options);
  const common = { platform, profile: options.profile ?? 'file-order', diagnostics };
  switch (platform.platformType) {
    case 'TDX':
      return { ...common, name: 'MRTD', algorithm: 'SHA-384', digest: mrtd(operations, crypto) };
    case 'VSM_ISOLATION':
      return { ...common, name: 'boot digest', algorithm: 'SHA-256', digest: vbsDigest(operations, crypto) };
    default: {
      const { digest } = new DigestTrace(operations, crypto);
      return { ...common, name: 'launch digest', algorithm: 'SHA-384', digest };
    }
  }
}

/**
 * The SNP launch digest with the running digest after every page.
 *
 * @throws CvmError as `measureIgvm` does.
 */
export function launchDigestTrace(
  file: IgvmFile,
  options: Omit<MeasureOptions, 'platformType'>,
  crypto: Crypto,
): LaunchDigestTrace {
  const platform = measuredPlatform(file, { ...options, platformType: 'SEV_SNP' });
  const { operations, diagnostics } = prepare(file, platform, options);
  const steps = new DigestTrace(operations, crypto);
  return { platform, operations, digest: steps.digest, steps, diagnostics };
}

function measuredPlatform(file: IgvmFile, options: MeasureOptions): Platform {
  const declared = platforms(file);
  const isMeasured = (type: PlatformType | undefined): boolean =>
    type !== undefined && (MEASURED_PLATFORMS as readonly string[]).includes(type);
  if (options.compatibilityMask !== undefined) {
    const platform = declared.find(
      (candidate) =>
        candidate.compatibilityMask === options.compatibilityMask &&
        (options.platformType === undefined || candidate.platformType === options.platformType),
    );
    if (platform && isMeasured(platform.platformType)) return platform;
    throw new CvmError(
      'measure-no-platform',
      platform
        ? `${platform.platformType ?? `platform type ${platform.rawPlatformType}`} has no launch measurement`
        : `the file declares no ${options.platformType ?? 'platform'} with mask 0x${options.compatibilityMask.toString(16)}`,
    );
  }
  if (options.platformType) return choosePlatform(file, options.platformType);
  for (const type of MEASURED_PLATFORMS)
    if (declared.some((platform) => platform.platformType === type)) return choosePlatform(file, type);
  throw new CvmError(
    'measure-no-platform',
    `the file declares no platform that has a launch measurement (${MEASURED_PLATFORMS.join(', ')})`,
  );
}

function prepare(
  file: IgvmFile,
  platform: Platform,
  options: MeasureOptions,
): { operations: readonly LaunchOperation[]; diagnostics: readonly Diagnostic[] } {
  const plan = launchOperations(file, { ...platform, profile: options.profile ?? 'file-order' });
  const operations = requireComplete(plan);
  const diagnostics = [...plan.diagnostics];
  if (platform.platformType === 'SEV_SNP' && !operations.some((operation) => operation.kind === 'policy'))
    diagnostics.push({
      severity: 'warning',
      code: 'measure-no-policy',
      message: 'the file has no guest policy for SNP; the igvm crate refuses to measure it',
      offset: 0,
      length: 0,
    });
  return { operations, diagnostics };
}
