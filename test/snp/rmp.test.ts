/** The RMP and the instructions that work on it: every return code of APM vol. 3 and of RMPUPDATE, PSMASH. */
import { describe, expect, it } from 'vitest';
import {
  FULL_PERMISSIONS,
  LARGE_PAGE,
  Rmp,
  VMPL_PERMISSION,
  permissionText,
  pvalidate,
  rmpAdjustOperand,
  rmpadjust,
  rmpquery,
  vmplAllows,
} from '../../src/snp/index.ts';

const GPA = 0x40_3000;
const SUCCESS = 0;
const FAIL_INPUT = 1;
const FAIL_PERMISSION = 2;
const FAIL_OVERLAP = 4;
const FAIL_SIZEMISMATCH = 6;
const RWX =
  VMPL_PERMISSION.read |
  VMPL_PERMISSION.write |
  VMPL_PERMISSION.executeUser |
  VMPL_PERMISSION.executeSupervisor;

/** An assigned 4 KiB page, validated or not. */
function small(validated = false): Rmp {
  const rmp = new Rmp();
  rmp.update(GPA, { assigned: true });
  if (validated) rmp.setValidated(GPA, true);
  return rmp;
}
function large(validated = false): Rmp {
  const rmp = new Rmp();
  rmp.update(0x40_0000, { assigned: true, large: true });
  if (validated) rmp.setValidated(0x40_0000, true);
  return rmp;
}

describe('RMPUPDATE and PSMASH', () => {
  it('assigns a page not validated, with all permissions for VMPL0 and none for the others', () => {
    expect(small().entry(GPA)).toEqual({
      assigned: true,
      validated: false,
      vmsa: false,
      immutable: false,
      pageSize: 4096,
      permissions: [FULL_PERMISSIONS, 0, 0, 0],
    });
  });
  it('takes a page back and forgets everything about it', () => {
    const rmp = small(true);
    rmp.setPermissions(GPA, 2, RWX);
    rmp.update(GPA, { assigned: false });
    expect(rmp.raw(GPA)).toBe(0);
  });
  it('fails with FAIL_INPUT for a misaligned address', () => {
    expect(new Rmp().update(GPA + 1, { assigned: true })).toBe(FAIL_INPUT);
    expect(new Rmp().update(GPA, { assigned: true, large: true })).toBe(FAIL_INPUT);
  });
  it('fails with FAIL_OVERLAP across page sizes', () => {
    expect(large().update(GPA, { assigned: false })).toBe(FAIL_OVERLAP);
    expect(small().update(0x40_0000, { assigned: true, large: true })).toBe(FAIL_OVERLAP);
  });
  it('splits a 2 MiB entry into 512 with the same attributes', () => {
    const rmp = large(true);
    rmp.setPermissions(0x40_0000, 1, RWX);
    expect(rmp.psmash(GPA)).toBe(SUCCESS);
    for (const page of [0x40_0000, GPA, 0x5f_f000]) {
      expect(rmp.entry(page)).toMatchObject({ pageSize: 4096, validated: true, assigned: true });
      expect(rmp.permissions(page, 1)).toBe(RWX);
    }
    expect(rmp.psmash(GPA)).toBe(FAIL_INPUT);
  });
});

describe('PVALIDATE (APM vol. 3)', () => {
  it('validates, and says by CF when nothing changed', () => {
    const rmp = small();
    expect(pvalidate(rmp, GPA, 0, true)).toEqual({ result: SUCCESS, unchanged: false });
    expect(rmp.isValidated(GPA)).toBe(true);
    expect(pvalidate(rmp, GPA, 0, true)).toEqual({ result: SUCCESS, unchanged: true });
    expect(pvalidate(rmp, GPA, 0, false)).toEqual({ result: SUCCESS, unchanged: false });
    expect(pvalidate(rmp, GPA, 0, false)).toEqual({ result: SUCCESS, unchanged: true });
  });
  it('validates all 512 pages of a 2 MiB entry at once', () => {
    const rmp = large();
    expect(pvalidate(rmp, 0x40_0000, 1, true)).toEqual({ result: SUCCESS, unchanged: false });
    expect([0x40_0000, GPA, 0x5f_f000].every((page) => rmp.isValidated(page))).toBe(true);
  });
  it('fails with FAIL_INPUT for another size than 0 and 1, or a misaligned 2 MiB page', () => {
    expect(pvalidate(small(), GPA, 2, true)).toMatchObject({ result: FAIL_INPUT });
    expect(pvalidate(large(), GPA, 1, true)).toMatchObject({ result: FAIL_INPUT });
  });
  it('fails with FAIL_SIZEMISMATCH for 2 MiB on 4 KiB entries', () => {
    const rmp = new Rmp();
    rmp.update(0x40_0000, { assigned: true });
    expect(pvalidate(rmp, 0x40_0000, 1, true)).toMatchObject({ result: FAIL_SIZEMISMATCH });
  });
  it('takes a nested page fault for 4 KiB on a 2 MiB entry, and works once the host has split it', () => {
    const rmp = large();
    expect(pvalidate(rmp, GPA, 0, true)).toEqual({ fault: 'size-mismatch', gpa: GPA });
    rmp.psmash(GPA);
    expect(pvalidate(rmp, GPA, 0, true)).toMatchObject({ result: SUCCESS });
    expect(rmp.isValidated(GPA + 4096)).toBe(false);
  });
  it('takes a nested page fault for a page that is not assigned', () => {
    expect(pvalidate(new Rmp(), GPA, 0, true)).toEqual({ fault: 'not-assigned', gpa: GPA });
  });
});

describe('RMPADJUST (APM vol. 3)', () => {
  const to = (vmpl: number, permissions: number, vmsa = false) => ({
    vmpl,
    permissions,
    vmsa,
    reserved: false,
  });

  it('reads its operand from RDX', () => {
    expect(rmpAdjustOperand(0x1_0f02n)).toEqual({ vmpl: 2, permissions: 0xf, vmsa: true, reserved: false });
    expect(rmpAdjustOperand(0x2_0001n).reserved).toBe(true);
  });
  it('changes the permissions of a less privileged VMPL only', () => {
    const rmp = small(true);
    expect(rmpadjust(rmp, GPA, 0, to(2, RWX), 0)).toBe(SUCCESS);
    expect(rmp.entry(GPA).permissions).toEqual([FULL_PERMISSIONS, 0, RWX, 0]);
    for (const vmpl of [0, 1]) expect(rmpadjust(rmp, GPA, 0, to(vmpl, 0), 1)).toBe(FAIL_PERMISSION);
  });
  it('never gives more than it has', () => {
    const rmp = small(true);
    rmp.setPermissions(GPA, 1, VMPL_PERMISSION.read);
    expect(rmpadjust(rmp, GPA, 0, to(2, VMPL_PERMISSION.read), 1)).toBe(SUCCESS);
    expect(rmpadjust(rmp, GPA, 0, to(2, VMPL_PERMISSION.write), 1)).toBe(FAIL_PERMISSION);
  });
  it('makes and unmakes a VMSA page at VMPL0 only', () => {
    const rmp = small(true);
    expect(rmpadjust(rmp, GPA, 0, to(1, VMPL_PERMISSION.read, true), 0)).toBe(SUCCESS);
    expect(rmp.isVmsa(GPA)).toBe(true);
    expect(rmpadjust(rmp, GPA, 0, to(1, 0), 0)).toBe(SUCCESS);
    expect(rmp.isVmsa(GPA)).toBe(false);
    rmp.setPermissions(GPA, 1, RWX);
    expect(rmpadjust(rmp, GPA, 0, to(2, 0, true), 1)).toBe(FAIL_PERMISSION);
  });
  it.each([
    ['a size of 2', 2, to(1, 0)],
    ['VMPL 4', 0, to(4, 0)],
    ['an undefined permission bit', 0, to(1, 0x20)],
    ['a reserved bit', 0, { ...to(1, 0), reserved: true }],
    ['a 2 MiB page at a 4 KiB address', 1, to(1, 0)],
  ] as const)('fails with FAIL_INPUT for %s', (_what, size, operand) => {
    expect(rmpadjust(small(true), GPA, size, operand, 0)).toBe(FAIL_INPUT);
  });
  it('fails with FAIL_INPUT for a VMSA of 2 MiB', () => {
    expect(rmpadjust(large(true), 0x40_0000, 1, to(1, 0, true), 0)).toBe(FAIL_INPUT);
  });
  it('fails with FAIL_SIZEMISMATCH for 2 MiB on 4 KiB entries, and faults the other way round', () => {
    const rmp = new Rmp();
    rmp.update(0x40_0000, { assigned: true });
    rmp.setValidated(0x40_0000, true);
    expect(rmpadjust(rmp, 0x40_0000, 1, to(1, 0), 0)).toBe(FAIL_SIZEMISMATCH);
    expect(rmpadjust(large(true), GPA, 0, to(1, 0), 0)).toEqual({ fault: 'size-mismatch', gpa: GPA });
  });
  it('raises #VC on a page that is not validated, a nested page fault on one not assigned', () => {
    expect(rmpadjust(small(), GPA, 0, to(1, 0), 0)).toEqual({ fault: 'not-validated', gpa: GPA });
    expect(rmpadjust(new Rmp(), GPA, 0, to(1, 0), 0)).toEqual({ fault: 'not-assigned', gpa: GPA });
  });
  it('changes a whole 2 MiB entry', () => {
    const rmp = large(true);
    expect(rmpadjust(rmp, 0x40_0000, 1, to(3, RWX), 0)).toBe(SUCCESS);
    expect(rmp.permissions(0x40_0000 + LARGE_PAGE - 4096, 3)).toBe(RWX);
  });
});

describe('RMPQUERY (APM vol. 3)', () => {
  it('returns permissions, VMSA and size', () => {
    const rmp = small(true);
    rmp.setPermissions(GPA, 2, VMPL_PERMISSION.read);
    rmp.setVmsa(GPA, true);
    expect(rmpquery(rmp, GPA, 2, 0)).toEqual({ result: SUCCESS, permissions: 1, vmsa: true, large: false });
    expect(rmpquery(large(true), GPA, 1, 1)).toMatchObject({ large: true });
  });
  it('fails for a VMPL that does not exist or is more privileged', () => {
    expect(rmpquery(small(true), GPA, 4, 0)).toMatchObject({ result: FAIL_INPUT });
    expect(rmpquery(small(true), GPA, 0, 1)).toMatchObject({ result: FAIL_PERMISSION });
  });
  it('faults where RMPADJUST does', () => {
    expect(rmpquery(new Rmp(), GPA, 1, 0)).toMatchObject({ fault: 'not-assigned' });
    expect(rmpquery(small(), GPA, 1, 0)).toMatchObject({ fault: 'not-validated' });
  });
});

describe('VMPL permissions', () => {
  it.each([
    ['read', false, VMPL_PERMISSION.read],
    ['read', true, VMPL_PERMISSION.read],
    ['write', true, VMPL_PERMISSION.write],
    ['execute', true, VMPL_PERMISSION.executeUser],
    ['execute', false, VMPL_PERMISSION.executeSupervisor],
  ] as const)('%s, user %s, needs bit %i', (access, user, bit) => {
    expect(vmplAllows(bit, access, user)).toBe(true);
    expect(vmplAllows(FULL_PERMISSIONS & ~bit, access, user)).toBe(false);
  });
  it('reads as text', () => expect(permissionText(RWX) + permissionText(1)).toBe('rwuxr---'));
});
