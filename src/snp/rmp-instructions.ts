/**
 * PVALIDATE, RMPADJUST and RMPQUERY on the RMP, without registers: what they return and change, and when
 * they leave to the host instead (APM vol. 3 has each instruction's rules; APM vol. 2, §15.36.6-15.36.8).
 */
import { LARGE_PAGE, RMP_RESULT } from './rmp.ts';
import type { Rmp, RmpResult } from './rmp.ts';
import { VMPL_PERMISSION } from './rmp.ts';

/** The nested page fault an RMP instruction takes: the host must assign the page or split it. */
export interface RmpFault {
  readonly fault: 'not-assigned' | 'size-mismatch';
  readonly gpa: number;
}
/** RMPADJUST and RMPQUERY on a page that is not validated raise #VC (PAGE_NOT_VALIDATED). */
export interface NotValidated {
  readonly fault: 'not-validated';
  readonly gpa: number;
}

export interface PvalidateDone {
  readonly result: RmpResult;
  /** CF: the page was in the wanted state already. Only meaningful with result 0. */
  readonly unchanged: boolean;
}

/**
 * @param gpa of the page, the C-bit removed.
 * @param size ECX: 0 for 4 KiB, 1 for 2 MiB; anything else is FAIL_INPUT.
 *
 * A 2 MiB request needs a 2 MiB RMP entry, or it is FAIL_SIZEMISMATCH and the guest goes on in 4 KiB steps. A
 * 4 KiB request on a 2 MiB entry is a nested page fault: KVM splits the entry (PSMASH, `snp_rmp_fault` in
 * arch/x86/kvm/svm/sev.c) and the instruction is executed again, so that the guest never sees it.
 */
export function pvalidate(rmp: Rmp, gpa: number, size: number, validate: boolean): PvalidateDone | RmpFault {
  const failed = (result: RmpResult): PvalidateDone => ({ result, unchanged: false });
  if (size > 1) return failed(RMP_RESULT.failInput);
  const large = size === 1;
  if (large && gpa % LARGE_PAGE !== 0) return failed(RMP_RESULT.failInput);
  if (!rmp.isAssigned(gpa)) return { fault: 'not-assigned', gpa };
  if (large && !rmp.isLarge(gpa)) return failed(RMP_RESULT.failSizeMismatch);
  if (!large && rmp.isLarge(gpa)) return { fault: 'size-mismatch', gpa };
  const unchanged = rmp.isValidated(gpa) === validate;
  if (!unchanged) rmp.setValidated(gpa, validate);
  return { result: RMP_RESULT.success, unchanged };
}

/** RDX of RMPADJUST. */
export interface RmpAdjustOperand {
  readonly vmpl: number;
  readonly permissions: number;
  readonly vmsa: boolean;
  readonly reserved: boolean;
}
export const rmpAdjustOperand = (rdx: bigint): RmpAdjustOperand => ({
  vmpl: Number(rdx & 0xffn),
  permissions: Number((rdx >> 8n) & 0xffn),
  vmsa: ((rdx >> 16n) & 1n) !== 0n,
  reserved: rdx >> 17n !== 0n,
});

/**
 * @param currentVmpl of the code that executes it. Only a less privileged VMPL's permissions can be changed,
 *   never beyond the own; only VMPL0 may set or clear the VMSA attribute, and on 4 KiB pages only.
 */
export function rmpadjust(
  rmp: Rmp,
  gpa: number,
  size: number,
  to: RmpAdjustOperand,
  currentVmpl: number,
): RmpResult | RmpFault | NotValidated {
  if (size > 1 || to.reserved || to.vmpl > 3 || to.permissions >> 5) return RMP_RESULT.failInput;
  const large = size === 1;
  if (large && (gpa % LARGE_PAGE !== 0 || to.vmsa)) return RMP_RESULT.failInput;
  if (to.vmpl <= currentVmpl) return RMP_RESULT.failPermission;
  if (to.vmsa && currentVmpl !== 0) return RMP_RESULT.failPermission;
  if (!rmp.isAssigned(gpa)) return { fault: 'not-assigned', gpa };
  if (!rmp.isValidated(gpa)) return { fault: 'not-validated', gpa };
  if (large && !rmp.isLarge(gpa)) return RMP_RESULT.failSizeMismatch;
  if (!large && rmp.isLarge(gpa)) return { fault: 'size-mismatch', gpa };
  if (to.permissions & ~rmp.permissions(gpa, currentVmpl)) return RMP_RESULT.failPermission;
  rmp.setPermissions(gpa, to.vmpl, to.permissions);
  if (currentVmpl === 0 && !large) rmp.setVmsa(gpa, to.vmsa);
  return RMP_RESULT.success;
}

export interface RmpQueryDone {
  readonly result: RmpResult;
  readonly permissions: number;
  readonly vmsa: boolean;
  readonly large: boolean;
}

/** @param vmpl whose permissions are asked for; a more privileged VMPL's are FAIL_PERMISSION. */
export function rmpquery(
  rmp: Rmp,
  gpa: number,
  vmpl: number,
  currentVmpl: number,
): RmpQueryDone | RmpFault | NotValidated {
  const failed = (result: RmpResult): RmpQueryDone => ({ result, permissions: 0, vmsa: false, large: false });
  if (vmpl > 3) return failed(RMP_RESULT.failInput);
  if (vmpl < currentVmpl) return failed(RMP_RESULT.failPermission);
  if (!rmp.isAssigned(gpa)) return { fault: 'not-assigned', gpa };
  if (!rmp.isValidated(gpa)) return { fault: 'not-validated', gpa };
  return {
    result: RMP_RESULT.success,
    permissions: rmp.permissions(gpa, vmpl),
    vmsa: rmp.isVmsa(gpa),
    large: rmp.isLarge(gpa),
  };
}

/** Whether a VMPL's permissions allow an access (APM vol. 2, §15.36.7 "VMPL permission checks"). */
export function vmplAllows(
  permissions: number,
  access: 'read' | 'write' | 'execute',
  user: boolean,
): boolean {
  const need =
    access === 'read'
      ? VMPL_PERMISSION.read
      : access === 'write'
        ? VMPL_PERMISSION.write
        : user
          ? VMPL_PERMISSION.executeUser
          : VMPL_PERMISSION.executeSupervisor;
  return (permissions & need) !== 0;
}
