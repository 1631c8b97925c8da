/** Page state change requests through the GHCB page (GHCB spec. 2.04, §4.1.6). */
import { hex } from '../base/index.ts';
import { LARGE_PAGE, PSC_MAX_ENTRIES, PSC_OPERATION, pageStateEntry } from '../snp/index.ts';
import type { GhcbRequest } from './ghcb-events.ts';

/** SW_EXITINFO2 of a failed request: the upper half says what kind, the lower what is wrong (table 9). */
const FAILED = { invalidHeader: (1n << 32n) | 1n, invalidEntry: (1n << 32n) | 2n } as const;
const HEADER = 8;

const NAMES: Readonly<Record<number, string>> = {
  [PSC_OPERATION.private]: 'become private',
  [PSC_OPERATION.shared]: 'become shared',
  [PSC_OPERATION.psmash]: 'are split',
  [PSC_OPERATION.unsmash]: 'are joined',
};

const viewOf = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Works through the entries in the shared buffer and moves `cur_entry` behind the last one done. */
export function pageStateChange(request: GhcbRequest): bigint {
  const { memory, rmp } = request.host.parts;
  const header = viewOf(request.scratch(HEADER));
  const first = header.getUint16(0, true);
  const last = header.getUint16(2, true);
  if (last >= PSC_MAX_ENTRIES || first > last) return FAILED.invalidHeader;
  const view = viewOf(request.scratch(HEADER + (last + 1) * 8));
  let pages = 0;
  let from = 0;
  let operation = 0;
  for (let index = first; index <= last; index++) {
    const at = HEADER + index * 8;
    const entry = pageStateEntry(view.getBigUint64(at, true));
    const span = entry.large ? LARGE_PAGE : 4096;
    if (
      entry.gpa % span !== 0 ||
      !memory.isMemory(entry.gpa) ||
      !memory.isMemory(entry.gpa + span - 4096) ||
      NAMES[entry.operation] === undefined
    ) {
      view.setUint16(0, index, true);
      request.log('page-state', `entry ${index} for ${hex(entry.gpa)} is invalid`);
      return FAILED.invalidEntry;
    }
    if (entry.operation === PSC_OPERATION.private) memory.setPrivate(entry.gpa, entry.large);
    else if (entry.operation === PSC_OPERATION.shared) memory.setShared(entry.gpa, entry.large);
    // Splitting and joining are hints: a large entry is split when it has to be.
    else if (entry.operation === PSC_OPERATION.psmash && rmp.isLarge(entry.gpa)) rmp.psmash(entry.gpa);
    // The whole of the entry is done: its current page is the number of its pages.
    if (entry.large) view.setUint16(at, (view.getUint16(at, true) & 0xf000) | 512, true);
    view.setUint16(0, index + 1, true);
    if (pages === 0) ({ gpa: from, operation } = entry);
    pages += span / 4096;
  }
  request.log('page-state', `${pages} page${pages === 1 ? '' : 's'} from ${hex(from)} ${NAMES[operation]}`);
  return 0n;
}
