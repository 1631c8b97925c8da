/** The GHCB MSR protocol: requests without a shared page (GHCB spec. 2.04, §2.3.1). */
import { CvmError, hex } from '../base/index.ts';
import { EXIT, GHCB_MSR, HV_FEATURE, PSC_OPERATION, terminationMeaning } from '../snp/index.ts';
import { hostCpuid } from './cpuid-model.ts';
import type { Host } from './host.ts';
import type { Thread } from './thread.ts';

const GHCB_MIN_VERSION = 1n;
const GHCB_MAX_VERSION = 2n;
const GPA_MASK = 0x000f_ffff_ffff_f000n;

/** Answers the request in the thread's GHCB MSR by putting the response there. */
export function answerGhcbMsr(host: Host, thread: Thread): void {
  const request = thread.platform.ghcbMsr;
  const { parts } = host;
  const answer = (info: number, data: bigint): void => {
    thread.platform.ghcbMsr = BigInt.asUintN(64, data) | BigInt(info);
  };
  const gpa = Number(request & GPA_MASK);
  switch (Number(request & 0xfffn)) {
    case GHCB_MSR.SEV_INFO_REQUEST:
      return answer(
        GHCB_MSR.SEV_INFO_RESPONSE,
        (GHCB_MAX_VERSION << 48n) | (GHCB_MIN_VERSION << 32n) | (BigInt(parts.model.encryptionBit) << 24n),
      );
    case GHCB_MSR.CPUID_REQUEST: {
      const register = Number((request >> 30n) & 3n);
      const leaf = Number(request >> 32n);
      const values = hostCpuid(parts.model, parts.vcpus.length, thread.vcpu, leaf, 0);
      const value = BigInt(values[register]! >>> 0);
      return answer(GHCB_MSR.CPUID_RESPONSE, (value << 32n) | (BigInt(register) << 30n));
    }
    case GHCB_MSR.AP_RESET_HOLD_REQUEST:
      thread.owner.resetHold = 'msr';
      thread.halted = true;
      parts.log(thread, 'ap-reset-hold', 'waits to be started again');
      return answer(GHCB_MSR.AP_RESET_HOLD_RESPONSE, 0n);
    case GHCB_MSR.PREFERRED_GPA_REQUEST:
      // All ones: no preference.
      return answer(GHCB_MSR.PREFERRED_GPA_RESPONSE, 0xf_ffff_ffff_ffffn << 12n);
    case GHCB_MSR.REGISTER_GPA_REQUEST:
      thread.registeredGhcb = gpa;
      parts.log(thread, 'ghcb-msr', `registers its GHCB at ${hex(gpa)}`);
      return answer(GHCB_MSR.REGISTER_GPA_RESPONSE, BigInt(gpa));
    case GHCB_MSR.PAGE_STATE_CHANGE_REQUEST: {
      const operation = Number((request >> 52n) & 0xfn);
      const error = changePage(host, thread, gpa, operation);
      return answer(GHCB_MSR.PAGE_STATE_CHANGE_RESPONSE, error << 32n);
    }
    case GHCB_MSR.RUN_VMPL_REQUEST: {
      const vmpl = Number((request >> 32n) & 0xffn);
      // The answer must be in place before the VMPL is left.
      answer(GHCB_MSR.RUN_VMPL_RESPONSE, 0n);
      const offered = ((parts.features >> BigInt(HV_FEATURE.SNP_MULTI_VMPL)) & 1n) !== 0n;
      if (!offered || vmpl > 3 || !host.switchVmpl(thread, vmpl, EXIT.VMGEXIT)) {
        parts.log(thread, 'ghcb-msr', `asks to run VMPL${vmpl}, for which no VMSA is registered`);
        answer(GHCB_MSR.RUN_VMPL_RESPONSE, 1n << 32n);
      }
      return;
    }
    case GHCB_MSR.HV_FEATURES_REQUEST:
      return answer(GHCB_MSR.HV_FEATURES_RESPONSE, parts.features << 12n);
    case GHCB_MSR.TERMINATE_REQUEST: {
      const set = Number((request >> 12n) & 0xfn);
      const code = Number((request >> 16n) & 0xffn);
      terminate(host, thread, set, code);
      return;
    }
    default:
      throw new CvmError('ghcb-msr', `GHCB MSR ${hex(request)} is no request of the protocol; KVM gives up`);
  }
}

/** Ends the machine at the guest's request. */
export function terminate(host: Host, thread: Thread, set: number, code: number): void {
  const meaning = terminationMeaning(set, code);
  host.parts.log(thread, 'terminate', `asks for termination: ${meaning}`);
  host.stop = {
    reason: 'terminated',
    message: `${thread.name} asked to be terminated: ${meaning} (reason set ${set}, code ${code})`,
    final: true,
    termination: { set, code, meaning },
  };
}

/** One 4 KiB page; returns the protocol's error code (0: done). */
function changePage(host: Host, thread: Thread, gpa: number, operation: number): bigint {
  const { memory, log } = host.parts;
  if (!memory.isMemory(gpa)) return 1n;
  if (operation === PSC_OPERATION.private) memory.setPrivate(gpa, false);
  else if (operation === PSC_OPERATION.shared) memory.setShared(gpa, false);
  else return 1n;
  log(
    thread,
    'page-state',
    `${hex(gpa)} becomes ${operation === PSC_OPERATION.private ? 'private' : 'shared'}`,
  );
  return 0n;
}
