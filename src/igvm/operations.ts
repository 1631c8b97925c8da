/** What a loader does with a file: one list that `measure` folds into a digest and `vmm` executes. */
import type { ParameterType } from './tables.ts';

/** How a page is given to the platform; the names follow the SNP page types. */
export type LaunchPageType = 'normal' | 'zero' | 'unmeasured' | 'secrets' | 'cpuid' | 'cpuid-xf';

export type VpContextFormat = 'snp-vmsa' | 'native' | 'vbs-registers' | 'cca';

interface OperationBase {
  /** Index in `IgvmFile.headers` of the header it comes from; -1 if it comes from none. */
  readonly directive: number;
}

/** One 4 KiB page at `gpa`. */
export interface PageOperation extends OperationBase {
  readonly kind: 'page';
  readonly gpa: bigint;
  readonly pageType: LaunchPageType;
  /** Contents, at most 4096 bytes, zeros to follow; `undefined`: no data in the file, a page of zeros. */
  readonly data: Uint8Array | undefined;
  /** Assigned but host-visible: kept out of the measurement. */
  readonly shared: boolean;
}

/** The first state of a virtual processor. */
export interface VpContextOperation extends OperationBase {
  readonly kind: 'vp-context';
  /** Where the platform places it (the VMSA of SNP and SEV-ES; 0 elsewhere). */
  readonly gpa: bigint;
  readonly vpIndex: number;
  readonly format: VpContextFormat;
  /** 4096 bytes; for `vbs-registers` the register count and the registers, unpadded. */
  readonly data: Uint8Array;
  /** A vCPU that the file has no context for: its reset state (`directive` is that of the boot VP). */
  readonly reset?: boolean;
}

/** A parameter area comes into being; nothing reaches the guest yet. */
export interface ParameterAreaOperation extends OperationBase {
  readonly kind: 'parameter-area';
  readonly area: number;
  readonly size: bigint;
  /** First contents, zeros to follow; `undefined`: zeros. */
  readonly initialData: Uint8Array | undefined;
}

/** The loader deposits a runtime value in an open area. */
export interface ParameterOperation extends OperationBase {
  readonly kind: 'parameter';
  readonly parameter: ParameterType;
  readonly area: number;
  readonly byteOffset: number;
}

/** One 4 KiB page of an area (`offset` in it) enters the guest at `gpa`, unmeasured. */
export interface ParameterPageOperation extends OperationBase {
  readonly kind: 'parameter-page';
  readonly gpa: bigint;
  readonly area: number;
  readonly offset: number;
}

export interface RequiredMemoryOperation extends OperationBase {
  readonly kind: 'required-memory';
  readonly gpa: bigint;
  readonly size: number;
  /** `RequiredMemoryFlags`: bit 0 VTL2 protectable. */
  readonly flags: number;
}

/** Memory that the host sees and where the guest reports errors. */
export interface ErrorRangeOperation extends OperationBase {
  readonly kind: 'error-range';
  readonly gpa: bigint;
  readonly size: number;
}

/** The guest policy of the isolation architecture (SNP, TDX). */
export interface PolicyOperation extends OperationBase {
  readonly kind: 'policy';
  readonly policy: bigint;
}

/** An SNP_ID_BLOCK header (its fields are in `headers[directive]`). */
export interface IdBlockOperation extends OperationBase {
  readonly kind: 'id-block';
}

export type LaunchOperation =
  | PageOperation
  | VpContextOperation
  | ParameterAreaOperation
  | ParameterOperation
  | ParameterPageOperation
  | RequiredMemoryOperation
  | ErrorRangeOperation
  | PolicyOperation
  | IdBlockOperation;
