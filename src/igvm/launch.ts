/** From directives to launch operations, by the rules of one loader. */
import { CvmError } from '../base/index.ts';
import type { Diagnostic } from '../base/index.ts';
import type { LaunchOperation } from './operations.ts';
import { Planner } from './planner.ts';
import type { ProfileName } from './profiles.ts';
import type { PlatformType } from './tables.ts';
import type { IgvmFile } from './types.ts';

export interface LaunchOptions {
  /** The mask of the chosen platform (`Platform.compatibilityMask`): one bit. */
  readonly compatibilityMask: number;
  readonly platformType: PlatformType | undefined;
  /** Default `file-order`. */
  readonly profile?: ProfileName;
  /**
   * The guest's vCPUs, for loaders on KVM, which measures a VMSA for each. Default: those the file has a VP
   * context for. Other loaders take the file's contexts whatever the number of vCPUs.
   */
  readonly vcpus?: VcpuExpansion;
}

export interface VcpuExpansion {
  readonly count: number;
  /**
   * The VMSA (4096 bytes) of a vCPU that the file has no context for. `boot` is the file's context of VP 0.
   *
   * @throws CvmError
   */
  readonly resetContext: (boot: Uint8Array | undefined) => Uint8Array;
}

export interface LaunchPlan {
  readonly operations: readonly LaunchOperation[];
  /** An `error` means that the list is not complete: a loader must refuse the file. */
  readonly diagnostics: readonly Diagnostic[];
}

/**
 * The operations of a launch, in the order the profile's loader does them. The policy comes first (a launch
 * starts with it). The list never throws away a problem silently: what cannot be carried out is an `error`.
 */
export function launchOperations(file: IgvmFile, options: LaunchOptions): LaunchPlan {
  const plan = new Planner(file, options);
  return { operations: plan.run(), diagnostics: plan.findings.finish() };
}

/** @throws CvmError with the first `error` of the plan, if there is one. */
export function requireComplete(plan: LaunchPlan): readonly LaunchOperation[] {
  const error = plan.diagnostics.find((diagnostic) => diagnostic.severity === 'error');
  if (error)
    throw new CvmError('igvm-not-launchable', error.message, { fileOffset: error.offset, name: error.code });
  return plan.operations;
}
