/** PUSHF, POPF, CLI, STI, CLAC, STAC and what an RFLAGS image may change (APM vol. 2, §3.1.6). */
import { NotImplemented } from '../../base/index.ts';
import type { Cpu } from '../cpu.ts';
import { generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { ARITHMETIC_FLAGS, FLAG, STATE } from '../layout.ts';
import { CR4 } from './bits.ts';
import { currentStack, flatStack, popAll, push, setStackPointer } from './stack.ts';

const IOPL_SHIFT = 12;
export const iopl = (cpu: Cpu): number => (cpu.u32(STATE.systemFlags) & FLAG.IOPL) >> IOPL_SHIFT;

/**
 * RFLAGS after POPF or IRET of an image: IOPL only at CPL 0, IF only at CPL <= IOPL, VIF and VIP
 * only at CPL 0, VM never. RF ends with the instruction that follows and nothing here looks at it
 * (instruction breakpoints in DR0-3 are not implemented), so it is not kept.
 */
export function mergeFlags(cpu: Cpu, image: number, size: number, cpl: number): number {
  let mask = ARITHMETIC_FLAGS | FLAG.TF | FLAG.DF | FLAG.NT | FLAG.RF | FLAG.AC | FLAG.ID;
  if (cpl === 0) mask |= FLAG.IOPL | FLAG.VIF | FLAG.VIP;
  if (cpl <= iopl(cpu)) mask |= FLAG.IF;
  if (size === 2) mask &= 0xffff;
  return ((((cpu.rflags & ~mask) | (image & mask)) & ~FLAG.RF) | 2) >>> 0;
}

const needsIopl3 = (cpu: Cpu): void => {
  if (cpu.virtual8086 && iopl(cpu) !== 3) throw generalProtection(0);
};

const pushf: Helper = (cpu, op) => {
  needsIopl3(cpu);
  push(cpu, op.size, BigInt((cpu.rflags & ~(FLAG.VM | FLAG.RF)) >>> 0));
};

const popf: Helper = (cpu, op) => {
  needsIopl3(cpu);
  const stack = currentStack(cpu, flatStack(cpu));
  const [image] = popAll(cpu, stack, op.size, 1) as [bigint];
  const merged = mergeFlags(cpu, Number(image & 0xffff_ffffn), op.size, cpu.virtual8086 ? 3 : cpu.cpl);
  // VIF and VIP stay, other than with IRET (APM vol. 3, POPF).
  const virtual = FLAG.VIF | FLAG.VIP;
  const rflags = (merged & ~virtual) | (cpu.rflags & virtual);
  setStackPointer(cpu, stack.pointer, stack.segment);
  cpu.rflags = rflags >>> 0;
  cpu.updateMode();
};

/** CLI and STI need CPL <= IOPL in protected mode (APM vol. 3). */
const mayChangeInterruptFlag = (cpu: Cpu): void => {
  if (!cpu.protectedMode || cpu.cpl <= iopl(cpu)) return;
  if (cpu.cpl === 3 && (cpu.cr4 & (cpu.virtual8086 ? CR4.VME : CR4.PVI)) !== 0)
    throw new NotImplemented('virtual interrupts (CR4.VME or CR4.PVI)', { rip: cpu.rip });
  throw generalProtection(0);
};

const cli: Helper = (cpu) => {
  mayChangeInterruptFlag(cpu);
  cpu.setU32(STATE.systemFlags, cpu.u32(STATE.systemFlags) & ~FLAG.IF);
};

const sti: Helper = (cpu) => {
  mayChangeInterruptFlag(cpu);
  const flags = cpu.u32(STATE.systemFlags);
  // Interrupts wait for one more instruction, if they were masked before.
  if ((flags & FLAG.IF) === 0) cpu.setU32(STATE.interruptShadow, 1);
  cpu.setU32(STATE.systemFlags, flags | FLAG.IF);
};

/** #UD without SMAP or outside CPL 0 (APM vol. 3, CLAC, STAC). */
const alignmentCheck =
  (set: boolean): Helper =>
  (cpu) => {
    if (!cpu.protectedMode || cpu.virtual8086 || cpu.cpl !== 0) throw undefinedOpcode();
    const flags = cpu.u32(STATE.systemFlags);
    cpu.setU32(STATE.systemFlags, set ? flags | FLAG.AC : flags & ~FLAG.AC);
    cpu.updateMode();
  };

export const FLAG_HELPERS = {
  pushf,
  popf,
  cli,
  sti,
  clac: alignmentCheck(false),
  stac: alignmentCheck(true),
};
