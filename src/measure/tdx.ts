/** Folding launch operations into the TDX measurement register MRTD. */
import { CvmError } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import type { LaunchOperation } from '../igvm/index.ts';

const PAGE_SIZE = 4096;
/** TDH.MR.EXTEND takes 256 bytes at a time. */
const CHUNK = 256;
/** Operation name padded to 16, GPA, zeros: 128 bytes. */
const RECORD = 128;

/** The 128 bytes that TDH.MEM.PAGE.ADD and TDH.MR.EXTEND hash in front of any data. */
function record(operation: string, gpa: bigint, into: Uint8Array): void {
  new TextEncoder().encodeInto(operation, into);
  new DataView(into.buffer, into.byteOffset).setBigUint64(16, BigInt.asUintN(64, gpa), true);
}

const MEASURED_SIZE = RECORD + (PAGE_SIZE / CHUNK) * (RECORD + CHUNK);

/** MRTD is one hash over everything, and `Crypto` takes it in one piece: this bounds that piece. */
const SIZE_LIMIT = 1 << 29;

interface AddedPage {
  readonly gpa: bigint;
  /** Whether its contents are extended into MRTD. */
  readonly measured: boolean;
  readonly data: Uint8Array | undefined;
}

function addedPage(operation: LaunchOperation): AddedPage | undefined {
  if (operation.kind === 'parameter-page') return { gpa: operation.gpa, measured: false, data: undefined };
  if (operation.kind !== 'page' || operation.shared) return undefined;
  return { gpa: operation.gpa, measured: operation.pageType !== 'unmeasured', data: operation.data };
}

/**
 * MRTD: one SHA-384 over the records of all private pages, in the order in which an IGVM loader adds and
 * extends them (add then extend, page by page). Parameter pages are added and not extended.
 *
 * @throws CvmError `measure-too-large` above 512 MiB of records (about 330 MiB of measured pages).
 */
export function mrtd(operations: readonly LaunchOperation[], crypto: Crypto): Uint8Array {
  let size = 0;
  for (const operation of operations) {
    const page = addedPage(operation);
    if (page) size += page.measured ? MEASURED_SIZE : RECORD;
  }
  if (size > SIZE_LIMIT)
    throw new CvmError(
      'measure-too-large',
      `MRTD covers ${size} bytes of records; the limit is ${SIZE_LIMIT}`,
    );
  const records = new Uint8Array(size);
  let at = 0;
  for (const operation of operations) {
    const page = addedPage(operation);
    if (!page) continue;
    record('MEM.PAGE.ADD', page.gpa, records.subarray(at));
    at += RECORD;
    for (let offset = 0; page.measured && offset < PAGE_SIZE; offset += CHUNK) {
      record('MR.EXTEND', page.gpa + BigInt(offset), records.subarray(at));
      if (page.data) records.set(page.data.subarray(offset, offset + CHUNK), at + RECORD);
      at += RECORD + CHUNK;
    }
  }
  return crypto.sha384(records);
}
