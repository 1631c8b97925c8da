/** SYSCALL, SYSRET, SYSENTER, SYSEXIT as AMD defines them, and SWAPGS (APM vol. 2, §6.1; APM vol. 3). */
import { isCanonical } from '../cpu.ts';
import type { Cpu } from '../cpu.ts';
import { generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { CS, FLAG, FS, GS, RCX, RDX, RSP, SS, STATE, segment } from '../layout.ts';
import { CR4, EFER } from './bits.ts';
import { in64, require64, requireCpl0, requireProtected } from './checks.ts';

const FLAT = 0xffff_ffff;
/** Attributes of the flat segments these instructions make up. */
const code = (dpl: number, long: boolean): number => (long ? 0xa9b : 0xc9b) | (dpl << 5);
const data = (dpl: number): number => 0xc93 | (dpl << 5);
const R11 = 11;
const LOW32 = 0xffff_ffffn;

const setCode = (cpu: Cpu, selector: number, cpl: number, long: boolean): void => {
  cpu.setSegment(CS, { selector, attributes: code(cpl, long), limit: FLAT, base: 0n });
  cpu.cpl = cpl;
};
const setStack = (cpu: Cpu, selector: number, cpl: number): void =>
  cpu.setSegment(SS, { selector, attributes: data(cpl), limit: FLAT, base: 0n });

const requireSce = (cpu: Cpu): void => {
  if ((cpu.efer & EFER.SCE) === 0) throw undefinedOpcode();
};

const syscall: Helper = (cpu) => {
  requireSce(cpu);
  requireProtected(cpu);
  const star = cpu.u64(STATE.star);
  const selector = Number((star >> 32n) & 0xfffcn);
  if (cpu.longMode) {
    const from64 = in64(cpu);
    const rflags = (cpu.rflags & ~FLAG.RF) >>> 0;
    cpu.setReg(RCX, cpu.nextRip);
    cpu.setReg(R11, BigInt(rflags));
    cpu.nextRip = cpu.u64(from64 ? STATE.lstar : STATE.cstar);
    setCode(cpu, selector, 0, true);
    setStack(cpu, selector + 8, 0);
    cpu.rflags = (rflags & ~Number(cpu.u64(STATE.sfmask) & LOW32)) >>> 0;
  } else {
    cpu.setReg(RCX, cpu.nextRip & LOW32);
    cpu.nextRip = star & LOW32;
    setCode(cpu, selector, 0, false);
    setStack(cpu, selector + 8, 0);
    cpu.rflags = (cpu.rflags & ~(FLAG.VM | FLAG.IF | FLAG.RF)) >>> 0;
  }
  cpu.updateMode();
};

/** Bits of R11 that SYSRET puts into RFLAGS: all defined ones but RF and VM. */
const SYSRET_FLAGS = 0x3c_7fd7;

const sysret: Helper = (cpu, op) => {
  requireSce(cpu);
  requireProtected(cpu);
  requireCpl0(cpu);
  const star = Number((cpu.u64(STATE.star) >> 48n) & 0xffffn);
  if (cpu.longMode) {
    const to64 = op.size === 8;
    cpu.nextRip = to64 ? cpu.reg(RCX) : cpu.reg(RCX) & LOW32;
    setCode(cpu, ((to64 ? star + 16 : star) & 0xfffc) | 3, 3, to64);
    cpu.rflags = (Number(cpu.reg(R11) & LOW32) & SYSRET_FLAGS) | 2;
  } else {
    cpu.nextRip = cpu.reg(RCX) & LOW32;
    setCode(cpu, (star & 0xfffc) | 3, 3, false);
    cpu.rflags = (cpu.rflags | FLAG.IF) >>> 0;
  }
  // On AMD processors only the selector of SS changes: base, limit and attributes stay (APM vol. 3, SYSRET).
  const ss = cpu.getSegment(SS);
  cpu.setSegment(SS, { ...ss, selector: ((star + 8) & 0xfffc) | 3 });
  cpu.updateMode();
};

/** SYSENTER and SYSEXIT exist only in legacy mode (APM vol. 3): #UD in long mode. */
const requireLegacy = (cpu: Cpu): void => {
  if (cpu.longMode) throw undefinedOpcode();
  if (!cpu.protectedMode || (cpu.u32(STATE.sysenterCs) & 0xfffc) === 0) throw generalProtection(0);
};

const sysenter: Helper = (cpu) => {
  requireLegacy(cpu);
  const selector = cpu.u32(STATE.sysenterCs) & 0xfffc;
  cpu.nextRip = cpu.u64(STATE.sysenterEip) & LOW32;
  cpu.setReg(RSP, cpu.u64(STATE.sysenterEsp) & LOW32);
  setCode(cpu, selector, 0, false);
  setStack(cpu, selector + 8, 0);
  cpu.rflags = (cpu.rflags & ~(FLAG.VM | FLAG.IF | FLAG.RF)) >>> 0;
  cpu.updateMode();
};

const sysexit: Helper = (cpu) => {
  requireLegacy(cpu);
  if (cpu.virtual8086) throw generalProtection(0);
  requireCpl0(cpu);
  const selector = cpu.u32(STATE.sysenterCs) & 0xfffc;
  cpu.nextRip = cpu.reg(RDX) & LOW32;
  cpu.setReg(RSP, cpu.reg(RCX) & LOW32);
  setCode(cpu, (selector + 16) | 3, 3, false);
  setStack(cpu, (selector + 24) | 3, 3);
  cpu.updateMode();
};

const swapgs: Helper = (cpu) => {
  require64(cpu);
  requireCpl0(cpu);
  const base = cpu.segmentBase(GS);
  cpu.setU64(segment(GS) + 8, cpu.u64(STATE.kernelGsBase));
  cpu.setU64(STATE.kernelGsBase, base);
};

/** RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE: 64-bit mode with CR4.FSGSBASE. */
const requireFsgsbase = (cpu: Cpu): void => {
  require64(cpu);
  if ((cpu.cr4 & CR4.FSGSBASE) === 0) throw undefinedOpcode();
};

const readBase =
  (index: number): Helper =>
  (cpu, op) => {
    requireFsgsbase(cpu);
    cpu.writeRegister(op.a, op.size, cpu.segmentBase(index));
  };

const writeBase =
  (index: number): Helper =>
  (cpu, op) => {
    requireFsgsbase(cpu);
    const value = cpu.readRegister(op.a, op.size);
    if (!isCanonical(value)) throw generalProtection(0);
    cpu.setU64(segment(index) + 8, value);
  };

export const SYSCALL_HELPERS = {
  syscall,
  sysret,
  sysenter,
  sysexit,
  swapgs,
  rdfsbase: readBase(FS),
  rdgsbase: readBase(GS),
  wrfsbase: writeBase(FS),
  wrgsbase: writeBase(GS),
};
