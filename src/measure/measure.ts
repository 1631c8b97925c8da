/** The expected launch measurement of an IGVM file. */
import { CvmError, NotImplemented } from '../base/index.ts';
import type { Crypto, Diagnostic } from '../base/index.ts';
import { PROFILES, choosePlatform, launchOperations, platforms, requireComplete } from '../igvm/index.ts';
import type {
  IgvmFile,
  LaunchOperation,
  Platform,
  PlatformType,
  ProfileName,
  VcpuExpansion,
} from '../igvm/index.ts';
import { readVmsa } from '../snp/index.ts';
import { RESET_EIP, initialVmsa } from './initial-vmsa.ts';
import { MAX_VCPUS } from './ovmf-launch.ts';
import { sevDigest, sevSteps } from './sev.ts';
import { DigestTrace, launchDigest, launchDigestSteps } from './snp.ts';
import { MrtdHash, mrtd, mrtdSteps } from './tdx.ts';
import type { TdxOrder } from './tdx.ts';
import { vbsDigest, vbsSteps } from './vbs.ts';

/** The platforms whose launch measurement this room computes. */
export const MEASURED_PLATFORMS = ['SEV_SNP', 'TDX', 'VSM_ISOLATION', 'SEV_ES', 'SEV'] as const;
export type MeasuredPlatform = (typeof MEASURED_PLATFORMS)[number];

export interface MeasureOptions {
  /** Default: the first of SNP, TDX, VSM isolation, SEV-ES, SEV that the file declares. */
  readonly platformType?: MeasuredPlatform;
  /** Picks the platform by its mask instead (two platforms of one type would otherwise be the first). */
  readonly compatibilityMask?: number;
  /** Whose order and reading of the directives; default `file-order`. */
  readonly profile?: ProfileName;
  /**
   * The guest's vCPUs, for profiles on KVM, which measures a VMSA for each: those without a VP context in the
   * file get the processor's reset state. Default: the file's VP contexts only.
   */
  readonly vcpus?: number;
  /** CPUID signature of the guest's CPU (`cpuSignature`), which QEMU leaves in a reset vCPU's RDX. */
  readonly cpuSignature?: number;
  /** Default `one-pass`. */
  readonly tdxOrder?: TdxOrder;
}

export interface Measurement {
  readonly platform: Platform;
  readonly profile: ProfileName;
  /** What the digest is called: LD (SNP, SEV, SEV-ES), MRTD (TDX), boot digest (VBS). */
  readonly name: 'launch digest' | 'MRTD' | 'boot digest';
  readonly algorithm: 'SHA-384' | 'SHA-256';
  readonly digest: Uint8Array;
  /** What was folded into the digest, in order. */
  readonly operations: readonly LaunchOperation[];
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
  const common = { platform, operations, profile: options.profile ?? 'file-order', diagnostics };
  switch (platform.platformType) {
    case 'TDX':
      return {
        ...common,
        name: 'MRTD',
        algorithm: 'SHA-384',
        digest: mrtd(operations, crypto, options.tdxOrder),
      };
    case 'VSM_ISOLATION':
      return { ...common, name: 'boot digest', algorithm: 'SHA-256', digest: vbsDigest(operations, crypto) };
    case 'SEV':
    case 'SEV_ES': {
      const digest = sevDigest(operations, PROFILES[common.profile].legacyPages, crypto);
      return { ...common, name: 'launch digest', algorithm: 'SHA-256', digest };
    }
    default: {
      const digest = launchDigest(operations, crypto);
      return { ...common, name: 'launch digest', algorithm: 'SHA-384', digest };
    }
  }
}

/** One page (or VP context) of any platform's measurement, and the digest if it were the last. */
export interface MeasurementStep {
  /** Index in `Measurement.operations`. */
  readonly operationIndex: number;
  /** Index in `IgvmFile.headers`. */
  readonly directive: number;
  readonly gpa: bigint;
  /** Hash of the 4096 bytes (`Measurement.algorithm`); `undefined` where the contents are not measured. */
  readonly contentsHash: Uint8Array | undefined;
  readonly digest: Uint8Array;
}

/**
 * The running digest of a measurement, computed as it is asked for, in the order in which the platform takes
 * the pages.
 */
export function* measurementSteps(
  measurement: Pick<Measurement, 'platform' | 'operations' | 'profile'>,
  crypto: Crypto,
  tdxOrder: TdxOrder = 'one-pass',
): Generator<MeasurementStep, void, undefined> {
  const { operations, platform, profile } = measurement;
  const directive = (index: number): number => operations[index]!.directive;
  const whole = (data: Uint8Array | undefined): Uint8Array[] => {
    const zeros = new Uint8Array(4096).subarray(data?.length ?? 0);
    return data ? [data, zeros] : [zeros];
  };
  switch (platform.platformType) {
    case 'TDX': {
      const hash = new MrtdHash(crypto);
      for (const { operationIndex, gpa, measured, data } of mrtdSteps(operations, tdxOrder, hash))
        yield {
          operationIndex,
          directive: directive(operationIndex),
          gpa,
          contentsHash: measured ? crypto.sha384(...whole(data)) : undefined,
          digest: hash.peek(),
        };
      return;
    }
    case 'VSM_ISOLATION':
      for (const { operationIndex, gpa, digest } of vbsSteps(operations, crypto)) {
        const operation = operations[operationIndex]!;
        const measured =
          operation.kind === 'vp-context'
            ? [operation.data]
            : operation.kind === 'page' && operation.pageType !== 'unmeasured' && whole(operation.data);
        const contentsHash = measured ? crypto.sha256(...measured) : undefined;
        yield { operationIndex, directive: directive(operationIndex), gpa, contentsHash, digest };
      }
      return;
    case 'SEV':
    case 'SEV_ES': {
      const hash = crypto.createHash('sha256');
      for (const { operationIndex, contents } of sevSteps(operations, PROFILES[profile].legacyPages, hash)) {
        const operation = operations[operationIndex]!;
        yield {
          operationIndex,
          directive: operation.directive,
          gpa: 'gpa' in operation ? operation.gpa : 0n,
          contentsHash: crypto.sha256(...whole(contents)),
          digest: hash.copy().digest(),
        };
      }
      return;
    }
    default:
      for (const step of launchDigestSteps(operations, crypto))
        yield step.pageType === 'normal' || step.pageType === 'vmsa'
          ? step
          : { ...step, contentsHash: undefined };
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

/** How the vCPUs without a VP context start: see docs/measurement.md, "vCPUs on KVM". */
function expansion(
  { platformType }: Platform,
  { profile, cpuSignature }: MeasureOptions,
  count: number,
): VcpuExpansion {
  if (!Number.isInteger(count) || count < 1 || count > MAX_VCPUS)
    throw new CvmError('measure-usage', `${count} vCPUs: from 1 to ${MAX_VCPUS} can be measured`);
  return {
    count,
    resetContext(boot) {
      if (profile !== 'qemu-kvm')
        throw new NotImplemented(`the state of vCPUs without a VP context under ${profile ?? 'file-order'}`);
      if (cpuSignature === undefined)
        throw new CvmError(
          'measure-cpu-type',
          'the file has fewer VP contexts than the guest has vCPUs: the vCPU type or signature is needed, ' +
            'which QEMU leaves in RDX of the others',
        );
      // KVM gives all vCPUs the features that QEMU took from the boot VP.
      const fallback = platformType === 'SEV_SNP' ? 1n : 0n;
      const sevFeatures = boot ? readVmsa(boot, 'sev_features') : fallback;
      return initialVmsa({ vmm: 'QEMU', eip: RESET_EIP, signature: cpuSignature, sevFeatures });
    },
  };
}

function prepare(
  file: IgvmFile,
  platform: Platform,
  options: MeasureOptions,
): { operations: readonly LaunchOperation[]; diagnostics: readonly Diagnostic[] } {
  const plan = launchOperations(file, {
    ...platform,
    profile: options.profile ?? 'file-order',
    ...(options.vcpus !== undefined && { vcpus: expansion(platform, options, options.vcpus) }),
  });
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
