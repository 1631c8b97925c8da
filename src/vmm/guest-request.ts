/** SNP guest requests (GHCB spec. 2.04, §4.1.7, §4.1.8): the host carries sealed pages to the secure firmware. */
import { SW_EXIT } from '../snp/index.ts';
import type { GhcbRequest } from './ghcb-events.ts';

/** SW_EXITINFO2[63:32] of an extended request whose data area is too small. */
const INVALID_LENGTH = 1n << 32n;
/** An empty certificate table: one entry of zeros. */
const CERTIFICATE_ENTRY = 24;

/** SW_EXITINFO1: request page, SW_EXITINFO2: response page; the answer is the firmware's status. */
export function guestRequest(request: GhcbRequest): bigint {
  const { host } = request;
  const source = Number(request.info1);
  const target = Number(request.info2);
  const from = host.sharedPage(source);
  const to = host.sharedPage(target);
  if (!from || !to || source % 4096 || target % 4096 || source === target) throw request.invalid();
  if (request.exitCode === SW_EXIT.SNP_EXTENDED_GUEST_REQUEST) {
    const pages = request.input('rbx');
    if (pages === 0n) {
      request.output('rbx', 1n);
      return INVALID_LENGTH;
    }
    const data = host.sharedPage(Number(request.input('rax')));
    if (!data) throw request.invalid();
    data.fill(0, 0, CERTIFICATE_ENTRY);
  }
  const { status, response } = host.parts.guestRequest(from.slice());
  request.log(
    'guest-request',
    status === 0 ? 'answered by the secure firmware' : `refused: status ${status}`,
  );
  if (response) to.set(response);
  return BigInt(status);
}
