/** Folding launch operations into the launch digest of SEV and SEV-ES: one SHA-256 over all that was given. */
import type { Crypto, Hasher } from '../base/index.ts';
import type { LaunchOperation, LoaderProfile } from '../igvm/index.ts';

const PAGE_SIZE = 4096;
const ZEROS = new Uint8Array(PAGE_SIZE);

/** Up to 4096 bytes that LAUNCH_UPDATE_DATA or LAUNCH_UPDATE_VMSA takes; `undefined`: nothing. */
function hashed(operation: LaunchOperation, rule: LoaderProfile['legacyPages']): Uint8Array | undefined {
  switch (operation.kind) {
    case 'page':
      if (rule === 'data') return operation.data;
      if (operation.shared || operation.pageType === 'unmeasured') return undefined;
      return operation.data ?? ZEROS.subarray(PAGE_SIZE);
    case 'vp-context':
      return operation.format === 'snp-vmsa' ? operation.data : undefined;
    default:
      return undefined;
  }
}

/**
 * Feeds the hash and stops after every operation that added to it; `contents` are what it took,
 * followed by zeros up to 4096 bytes unless `rule` is `data`.
 */
export function* sevSteps(
  operations: readonly LaunchOperation[],
  rule: LoaderProfile['legacyPages'],
  hash: Hasher,
): Generator<{ readonly operationIndex: number; readonly contents: Uint8Array }, void, undefined> {
  for (let operationIndex = 0; operationIndex < operations.length; operationIndex++) {
    const contents = hashed(operations[operationIndex]!, rule);
    if (!contents) continue;
    hash.update(contents);
    if (rule === 'measured' && contents.length < PAGE_SIZE) hash.update(ZEROS.subarray(contents.length));
    yield { operationIndex, contents };
  }
}

/** LD of SEV and SEV-ES (SEV API, LAUNCH_MEASURE): 32 bytes. The HMAC over it is the platform's. */
export function sevDigest(
  operations: readonly LaunchOperation[],
  rule: LoaderProfile['legacyPages'],
  crypto: Crypto,
): Uint8Array {
  const hash = crypto.createHash('sha256');
  for (const _ of sevSteps(operations, rule, hash));
  return hash.digest();
}
