/** Folding launch operations into the TDX measurement register MRTD. */
import type { Crypto, Hasher } from '../base/index.ts';
import type { LaunchOperation } from '../igvm/index.ts';

const PAGE_SIZE = 4096;
/** TDH.MR.EXTEND takes 256 bytes at a time. */
const CHUNK = 256;
/** Operation name padded to 16, GPA, zeros: 128 bytes. */
const RECORD = 128;
const GPA_OFFSET = 16;

/**
 * The order of the two TDX module calls. `one-pass`: each page is added, then extended (igvmfilegen, the igvm
 * crate, upstream QEMU). `two-pass`: a whole region is added, then the whole region is extended (Canonical's
 * QEMU 8.2.2); in an IGVM file a region is a run of measured pages at consecutive addresses.
 */
export type TdxOrder = 'one-pass' | 'two-pass';

/** One TDH.MR.EXTEND as it is hashed: the record and its data. */
const EXTEND = RECORD + CHUNK;

/** MRTD in the making: one SHA-384 over the records of TDH.MEM.PAGE.ADD and TDH.MR.EXTEND. */
export class MrtdHash {
  private readonly hash: Hasher;
  private readonly add = new Uint8Array(RECORD);
  private readonly addView = new DataView(this.add.buffer);
  /** The sixteen calls that extend a page. */
  private readonly page = new Uint8Array((PAGE_SIZE / CHUNK) * EXTEND);
  private readonly pageView = new DataView(this.page.buffer);

  constructor(crypto: Crypto) {
    this.hash = crypto.createHash('sha384');
    const encoder = new TextEncoder();
    encoder.encodeInto('MEM.PAGE.ADD', this.add);
    for (let at = 0; at < this.page.length; at += EXTEND)
      encoder.encodeInto('MR.EXTEND', this.page.subarray(at));
  }

  addPage(gpa: bigint): void {
    this.addView.setBigUint64(GPA_OFFSET, BigInt.asUintN(64, gpa), true);
    this.hash.update(this.add);
  }

  /** Extends a page of at most 4 KiB of `data`, zeros to follow. */
  extendPage(gpa: bigint, data: Uint8Array | undefined): void {
    for (let offset = 0, at = 0; offset < PAGE_SIZE; offset += CHUNK, at += EXTEND) {
      this.pageView.setBigUint64(at + GPA_OFFSET, BigInt.asUintN(64, gpa + BigInt(offset)), true);
      const chunk = data?.subarray(offset, offset + CHUNK);
      if (chunk) this.page.set(chunk, at + RECORD);
      this.page.fill(0, at + RECORD + (chunk?.length ?? 0), at + EXTEND);
    }
    this.hash.update(this.page);
  }

  /** MRTD if nothing followed. */
  peek(): Uint8Array {
    return this.hash.copy().digest();
  }

  digest(): Uint8Array {
    return this.hash.digest();
  }
}

interface AddedPage {
  readonly operationIndex: number;
  readonly gpa: bigint;
  /** Whether its contents are extended into MRTD. */
  readonly measured: boolean;
  readonly data: Uint8Array | undefined;
}

function addedPage(operation: LaunchOperation, operationIndex: number): AddedPage | undefined {
  if (operation.kind === 'parameter-page')
    return { operationIndex, gpa: operation.gpa, measured: false, data: undefined };
  if (operation.kind !== 'page' || operation.shared) return undefined;
  const measured = operation.pageType !== 'unmeasured';
  return { operationIndex, gpa: operation.gpa, measured, data: operation.data };
}

/**
 * Feeds the hash with all private pages in the order of the operations, and stops behind each page when all of
 * it is in. Parameter pages and unmeasured pages are added and not extended.
 */
export function* mrtdSteps(
  operations: readonly LaunchOperation[],
  order: TdxOrder,
  hash: MrtdHash,
): Generator<AddedPage, void, undefined> {
  let region: AddedPage[] = [];
  function* endRegion(): Generator<AddedPage, void, undefined> {
    for (const page of region) {
      hash.extendPage(page.gpa, page.data);
      yield page;
    }
    region = [];
  }
  for (const [operationIndex, operation] of operations.entries()) {
    const page = addedPage(operation, operationIndex);
    if (!page) continue;
    const last = region.at(-1);
    if (last && (!page.measured || page.gpa !== last.gpa + BigInt(PAGE_SIZE))) yield* endRegion();
    hash.addPage(page.gpa);
    if (page.measured && order === 'two-pass') region.push(page);
    else {
      if (page.measured) hash.extendPage(page.gpa, page.data);
      yield page;
    }
  }
  yield* endRegion();
}

/** MRTD, 48 bytes. */
export function mrtd(
  operations: readonly LaunchOperation[],
  crypto: Crypto,
  order: TdxOrder = 'one-pass',
): Uint8Array {
  const hash = new MrtdHash(crypto);
  for (const _ of mrtdSteps(operations, order, hash));
  return hash.digest();
}
