/** Preconditions many system instructions share. */
import type { Cpu } from '../cpu.ts';
import { GuestException, VECTOR, generalProtection, undefinedOpcode } from '../exceptions.ts';
import { MODE } from '../layout.ts';
import { CR0, CR4 } from './bits.ts';

/** #GP(0) outside CPL 0 (real mode runs at CPL 0, virtual-8086 mode at 3). */
export const requireCpl0 = (cpu: Cpu): void => {
  if (cpu.cpl !== 0) throw generalProtection(0);
};

/** #UD in real and virtual-8086 mode. */
export const requireProtected = (cpu: Cpu): void => {
  if (!cpu.protectedMode || cpu.virtual8086) throw undefinedOpcode();
};

export const in64 = (cpu: Cpu): boolean => cpu.mode === MODE.code64;

/** #UD outside 64-bit mode. */
export const require64 = (cpu: Cpu): void => {
  if (!in64(cpu)) throw undefinedOpcode();
};

/** #UD with CR0.EM, #NM with CR0.TS: instructions on SSE state. */
export const requireSse = (cpu: Cpu): void => {
  if ((cpu.cr0 & CR0.EM) !== 0 || (cpu.cr4 & CR4.OSFXSR) === 0) throw undefinedOpcode();
  requireNotSwitched(cpu);
};

export const requireNotSwitched = (cpu: Cpu): void => {
  if ((cpu.cr0 & CR0.TS) !== 0) throw new GuestException(VECTOR.NM);
};

/** #NM with CR0.EM or CR0.TS: x87 instructions. */
export const requireX87 = (cpu: Cpu): void => {
  if ((cpu.cr0 & (CR0.EM | CR0.TS)) !== 0) throw new GuestException(VECTOR.NM);
};

const LOW32 = 0xffff_ffffn;
/** The 64-bit value in EDX:EAX. */
export const edxEax = (cpu: Cpu): bigint => ((cpu.reg(2) & LOW32) << 32n) | (cpu.reg(0) & LOW32);
/** Splits a value over EDX:EAX, upper halves zero. */
export const setEdxEax = (cpu: Cpu, value: bigint): void => {
  cpu.setReg(0, value & LOW32);
  cpu.setReg(2, (value >> 32n) & LOW32);
};
/** ECX. */
export const ecx = (cpu: Cpu): number => Number(cpu.reg(1) & LOW32);
