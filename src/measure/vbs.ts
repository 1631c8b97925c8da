/** Folding launch operations into the boot digest of Hyper-V's VBS isolation. */
import { readField } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { VBS_VP_CONTEXT_HEADER, VBS_VP_CONTEXT_REGISTER } from '../igvm/index.ts';
import type { LaunchOperation } from '../igvm/index.ts';

const PAGE_SIZE = 4096;
const ZEROS = new Uint8Array(PAGE_SIZE);
/** Chunk header (16), metadata, page number. */
const PAGE_HEADER = 32;
const REGISTER_CHUNK = 48;
/** VBS_VM_BOOT_MEASUREMENT_CHUNK_TYPE. */
const VP_REGISTER = 0;
const VP_GPA_PAGE = 2;
/** Bits of the page metadata: acceptance readable | writable, data unmeasured. */
const READABLE_WRITABLE = 3n;
const UNMEASURED = 4n;

function chunkHeader(size: number, total: number, type: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(size);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, total, true);
  view.setUint32(4, type, true);
  return { bytes, view };
}

/**
 * `D = SHA256(D || chunk)` from zeros: one chunk a page in file order (error ranges are accepted, unmeasured
 * pages), then one a register of the VP contexts (VBS_VM_BOOT_MEASUREMENT_CHUNK). Gives the digest after each.
 */
export function* vbsSteps(
  operations: readonly LaunchOperation[],
  crypto: Crypto,
): Generator<{ readonly operationIndex: number; readonly gpa: bigint; readonly digest: Uint8Array }> {
  let digest: Uint8Array = new Uint8Array(32);
  const page = (gpa: bigint, metadata: bigint, data: Uint8Array | undefined): void => {
    const { bytes, view } = chunkHeader(PAGE_HEADER, PAGE_HEADER + PAGE_SIZE, VP_GPA_PAGE);
    view.setBigUint64(16, metadata, true);
    view.setBigUint64(24, BigInt.asUintN(64, gpa) >> 12n, true);
    digest = data
      ? crypto.sha256(digest, bytes, data, ZEROS.subarray(data.length))
      : crypto.sha256(digest, bytes, ZEROS);
  };
  for (const [operationIndex, operation] of operations.entries()) {
    if (operation.kind === 'page' && !operation.shared) {
      const unmeasured = operation.pageType === 'unmeasured';
      page(operation.gpa, unmeasured ? UNMEASURED : 0n, unmeasured ? undefined : operation.data);
      yield { operationIndex, gpa: operation.gpa, digest };
    } else if (operation.kind === 'parameter-page') {
      page(operation.gpa, UNMEASURED, undefined);
      yield { operationIndex, gpa: operation.gpa, digest };
    } else if (operation.kind === 'error-range')
      for (let offset = 0; offset < operation.size; offset += PAGE_SIZE) {
        const gpa = operation.gpa + BigInt(offset);
        page(gpa, READABLE_WRITABLE | UNMEASURED, undefined);
        yield { operationIndex, gpa, digest };
      }
  }
  for (const [operationIndex, operation] of operations.entries())
    if (operation.kind === 'vp-context' && operation.format === 'vbs-registers') {
      for (const register of registers(operation.data)) digest = crypto.sha256(digest, register);
      yield { operationIndex, gpa: operation.gpa, digest };
    }
}

/** The boot digest, 32 bytes. */
export function vbsDigest(operations: readonly LaunchOperation[], crypto: Crypto): Uint8Array {
  let digest: Uint8Array = new Uint8Array(32);
  for (const step of vbsSteps(operations, crypto)) digest = step.digest;
  return digest;
}

/** The register chunks of a context; a register that the data does not hold completely is left out. */
function* registers(data: Uint8Array): Generator<Uint8Array, void, undefined> {
  const { size, field } = VBS_VP_CONTEXT_REGISTER;
  for (let at = VBS_VP_CONTEXT_HEADER.size; at + size <= data.length; at += size) {
    const { bytes, view } = chunkHeader(REGISTER_CHUNK, REGISTER_CHUNK, VP_REGISTER);
    view.setUint8(20, data[at]!);
    view.setUint32(28, Number(readField(data, field('registerName'), at)), true);
    const value = at + field('registerValue').offset;
    bytes.set(data.subarray(value, value + 16), 32);
    yield bytes;
  }
}
