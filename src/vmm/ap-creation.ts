/** SNP AP creation (GHCB spec. 2.04, §4.1.9): starting, registering and stopping a vCPU at a VMPL. */
import { hex } from '../base/index.ts';
import { readVmsa } from '../snp/index.ts';
import type { GhcbRequest } from './ghcb-events.ts';

/** SW_EXITINFO1[15:0]. */
const REQUEST = { createOnInit: 0, create: 1, destroy: 2 } as const;

/**
 * SW_EXITINFO1: request, VMPL in 19:16, APIC ID in 63:32; SW_EXITINFO2: GPA of the VMSA; RAX: its SEV_FEATURES.
 * As KVM, refuses a VMSA on a 2 MiB boundary (erratum: a large VMSA page).
 */
export function apCreation(request: GhcbRequest): void {
  const { host } = request;
  const kind = Number(request.info1 & 0xffffn);
  const vmpl = Number((request.info1 >> 16n) & 0xfn);
  const apicId = Number(request.info1 >> 32n);
  const vcpu = host.parts.vcpus[apicId];
  if (!vcpu || vmpl > 3) throw request.invalid();
  if (kind === REQUEST.destroy) {
    const thread = vcpu.threads[vmpl];
    if (thread) {
      thread.ended = true;
      if (vcpu.active === thread) vcpu.active = undefined;
      request.log('ap-destroy', `stops ${thread.name}`);
    }
    return;
  }
  if (kind !== REQUEST.create && kind !== REQUEST.createOnInit) throw request.invalid();
  const gpa = Number(request.info2);
  const { rmp, memory } = host.parts;
  if (gpa % 4096 !== 0 || gpa % 0x20_0000 === 0 || !memory.isMemory(gpa)) throw request.invalid();
  const features = request.input('rax');
  if (!rmp.isAssigned(gpa) || !rmp.isVmsa(gpa)) {
    request.log('ap-create', `the page at ${hex(gpa)} is not a VMSA page`);
    throw request.invalid();
  }
  const vmsa = memory.frameBytes(memory.privateFrame(gpa));
  if (readVmsa(vmsa, 'sev_features') !== features) {
    request.log('ap-create', `the VMSA at ${hex(gpa)} has other SEV_FEATURES than RAX = ${hex(features)}`);
    throw request.invalid();
  }
  const thread = host.parts.createThread(vcpu, vmpl, gpa);
  const what = kind === REQUEST.create ? 'starts' : 'registers';
  request.log('ap-create', `${what} ${thread.name} with the VMSA at ${hex(gpa)}`);
  if (kind === REQUEST.create) thread.enter();
}
