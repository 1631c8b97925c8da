/** Folding launch operations into the SNP launch digest, step by step. */
import type { Crypto } from '../base/index.ts';
import type { LaunchOperation } from '../igvm/index.ts';
import { LAUNCH_DIGEST_SIZE, contentsHash, extendLaunchDigest } from '../snp/index.ts';
import type { SnpPageType } from '../snp/index.ts';

/** One page as SNP_LAUNCH_UPDATE takes it, and the digest after it. */
export interface DigestStep {
  /** Index in the list of operations. */
  readonly operationIndex: number;
  /** Index in `IgvmFile.headers`. */
  readonly directive: number;
  readonly gpa: bigint;
  readonly pageType: SnpPageType;
  /** PAGE_INFO.CONTENTS, 48 bytes. */
  readonly contentsHash: Uint8Array;
  /** The launch digest after this page, 48 bytes. */
  readonly digest: Uint8Array;
}

interface MeasuredPage {
  readonly gpa: bigint;
  readonly pageType: SnpPageType;
  readonly data: Uint8Array | undefined;
}

/** The page an operation adds to the digest; `undefined` if it adds none. */
export function measuredPage(operation: LaunchOperation): MeasuredPage | undefined {
  switch (operation.kind) {
    case 'page': {
      if (operation.shared) return undefined;
      const pageType = operation.pageType === 'cpuid-xf' ? 'cpuid' : operation.pageType;
      return { gpa: operation.gpa, pageType, data: operation.data };
    }
    case 'parameter-page':
      return { gpa: operation.gpa, pageType: 'unmeasured', data: undefined };
    case 'vp-context':
      return operation.format === 'snp-vmsa'
        ? { gpa: operation.gpa, pageType: 'vmsa', data: operation.data }
        : undefined;
    default:
      return undefined;
  }
}

/**
 * The steps of the launch digest, computed as they are asked for. The digest of no pages is `start`, 48 zero
 * bytes unless pages before these were hashed elsewhere.
 * A digest differs from another from the first step on whose `digest` differs.
 */
export function* launchDigestSteps(
  operations: readonly LaunchOperation[],
  crypto: Crypto,
  start: Uint8Array = new Uint8Array(LAUNCH_DIGEST_SIZE),
): Generator<DigestStep, void, undefined> {
  let digest = start;
  let zeroPage: Uint8Array | undefined;
  for (let operationIndex = 0; operationIndex < operations.length; operationIndex++) {
    const operation = operations[operationIndex]!;
    const page = measuredPage(operation);
    if (!page) continue;
    const { gpa, pageType, data } = page;
    // Empty pages are common (stacks, heaps): hash the page of zeros once.
    const contents =
      pageType === 'normal' && !data
        ? (zeroPage ??= contentsHash('normal', undefined, crypto))
        : contentsHash(pageType, data, crypto);
    digest = extendLaunchDigest(digest, { pageType, gpa, contents }, crypto);
    yield { operationIndex, directive: operation.directive, gpa, pageType, contentsHash: contents, digest };
  }
}

/** The launch digest alone, 48 bytes. */
export function launchDigest(operations: readonly LaunchOperation[], crypto: Crypto): Uint8Array {
  let digest: Uint8Array = new Uint8Array(LAUNCH_DIGEST_SIZE);
  for (const step of launchDigestSteps(operations, crypto)) digest = step.digest;
  return digest;
}

/** All steps of a digest, packed: 100 bytes a page. Reads like a read-only array. */
export class DigestTrace implements Iterable<DigestStep> {
  private readonly operations: readonly LaunchOperation[];
  private indices = new Uint32Array(64);
  private hashes = new Uint8Array(64 * 2 * LAUNCH_DIGEST_SIZE);
  private count = 0;
  private readonly start: Uint8Array;

  constructor(
    operations: readonly LaunchOperation[],
    crypto: Crypto,
    start: Uint8Array = new Uint8Array(LAUNCH_DIGEST_SIZE),
  ) {
    this.operations = operations;
    this.start = start.slice();
    for (const step of launchDigestSteps(operations, crypto, this.start)) this.append(step);
  }

  get length(): number {
    return this.count;
  }

  /** The launch digest after all pages. */
  get digest(): Uint8Array {
    return (this.at(this.count - 1)?.digest ?? this.start).slice();
  }

  at(index: number): DigestStep | undefined {
    if (index < 0 || index >= this.count) return undefined;
    const operationIndex = this.indices[index]!;
    const operation = this.operations[operationIndex]!;
    const { gpa, pageType } = measuredPage(operation)!;
    const from = index * 2 * LAUNCH_DIGEST_SIZE;
    return {
      operationIndex,
      directive: operation.directive,
      gpa,
      pageType,
      contentsHash: this.hashes.subarray(from, from + LAUNCH_DIGEST_SIZE),
      digest: this.hashes.subarray(from + LAUNCH_DIGEST_SIZE, from + 2 * LAUNCH_DIGEST_SIZE),
    };
  }

  *[Symbol.iterator](): Generator<DigestStep, void, undefined> {
    for (let index = 0; index < this.count; index++) yield this.at(index)!;
  }

  /**
   * The last step of a directive, i.e. the one after which all of its pages are in the digest; `undefined` if
   * the directive adds no page.
   */
  ofDirective(directive: number): DigestStep | undefined {
    for (let index = this.count - 1; index >= 0; index--)
      if (this.operations[this.indices[index]!]!.directive === directive) return this.at(index);
    return undefined;
  }

  private append(step: DigestStep): void {
    if (this.count === this.indices.length) {
      const indices = new Uint32Array(2 * this.count);
      indices.set(this.indices);
      this.indices = indices;
      const hashes = new Uint8Array(2 * this.hashes.length);
      hashes.set(this.hashes);
      this.hashes = hashes;
    }
    this.indices[this.count] = step.operationIndex;
    const from = this.count * 2 * LAUNCH_DIGEST_SIZE;
    this.hashes.set(step.contentsHash, from);
    this.hashes.set(step.digest, from + LAUNCH_DIGEST_SIZE);
    this.count++;
  }
}
