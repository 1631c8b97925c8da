/** IRET in all its forms (APM vol. 3, IRET; APM vol. 2, §8.7.4, §8.9.5). */
import { NotImplemented } from '../../base/index.ts';
import type { Cpu } from '../cpu.ts';
import { VECTOR, generalProtection } from '../exceptions.ts';
import { CS, DS, ES, FLAG, FS, GS, MODE, SS, STATE } from '../layout.ts';
import { CR4 } from './bits.ts';
import { mergeFlags } from './flags.ts';
import { dropInnerSegments, fetchStackSegment, markAccessed, virtual8086Segment } from './segments.ts';
import { currentStack, flatStack, popAll, setStackPointer } from './stack.ts';
import { DATA_SEGMENTS, checkTarget, is64, realCodeSegment, returnCode } from './transfer.ts';

export function interruptReturn(cpu: Cpu, size: number): void {
  if (!cpu.protectedMode) returnReal(cpu, size);
  else if (cpu.virtual8086) {
    // Without VME (§8.8.2).
    if ((cpu.u32(STATE.systemFlags) & FLAG.IOPL) !== FLAG.IOPL) throw generalProtection(0);
    returnReal(cpu, size);
  } else returnProtected(cpu, size);
  cpu.setU32(STATE.interruptShadow, 0);
}

/** Real and virtual-8086 mode. */
function returnReal(cpu: Cpu, size: number): void {
  const stack = currentStack(cpu, false);
  const [rip, cs, flags] = popAll(cpu, stack, size, 3) as [bigint, bigint, bigint];
  if (rip > BigInt(cpu.limit(CS))) throw generalProtection(0);
  setStackPointer(cpu, stack.pointer, stack.segment);
  cpu.setSegment(CS, realCodeSegment(cpu, Number(cs & 0xffffn)));
  cpu.rflags = mergeFlags(cpu, Number(flags & 0xffff_ffffn), size, cpu.virtual8086 ? 3 : 0);
  cpu.nextRip = rip;
  cpu.updateMode();
}

function returnProtected(cpu: Cpu, size: number): void {
  if ((cpu.u32(STATE.systemFlags) & FLAG.NT) !== 0) {
    if (cpu.longMode) throw generalProtection(0);
    throw new NotImplemented('IRET to a previous task (RFLAGS.NT is set)', { rip: cpu.rip });
  }
  const from64 = cpu.mode === MODE.code64;
  const stack = currentStack(cpu, flatStack(cpu));
  const [rip, cs, image] = popAll(cpu, stack, size, 3) as [bigint, bigint, bigint];
  const flags = Number(image & 0xffff_ffffn);
  // Back to virtual-8086 mode: only from CPL 0 of legacy mode, with a 32-bit frame.
  if (!cpu.longMode && size === 4 && cpu.cpl === 0 && (flags & FLAG.VM) !== 0) {
    const [esp, ss, es, ds, fs, gs] = popAll(cpu, stack, 4, 6) as [
      bigint,
      bigint,
      bigint,
      bigint,
      bigint,
      bigint,
    ];
    returnToV86(cpu, rip, cs, flags, esp, { ss, es, ds, fs, gs });
    return;
  }
  const selector = Number(cs & 0xffffn);
  const descriptor = returnCode(cpu, selector);
  const cpl = selector & 3;
  const to64 = is64(cpu, descriptor);
  // 64-bit mode pops SS:RSP always, the others only for an outer privilege.
  const outer = cpl !== cpu.cpl;
  let newStack;
  let pointer = stack.pointer;
  if (from64 || outer) {
    const [rsp, ss] = popAll(cpu, stack, size, 2) as [bigint, bigint];
    newStack = fetchStackSegment(cpu, Number(ss & 0xffffn), cpl, VECTOR.GP, 0, to64);
    pointer = rsp;
  }
  checkTarget(cpu, descriptor, rip);
  const segment = markAccessed(cpu, descriptor);
  // The flags go by the privilege IRET runs at, not by the one it returns to.
  const rflags = mergeFlags(cpu, flags, size, cpu.cpl);
  cpu.setSegment(CS, segment);
  if (newStack !== undefined) {
    cpu.setSegment(SS, newStack);
    setStackPointer(cpu, pointer, to64 ? undefined : newStack);
  } else setStackPointer(cpu, pointer, stack.segment);
  cpu.cpl = cpl;
  cpu.rflags = rflags;
  if (outer) dropInnerSegments(cpu, cpl, DATA_SEGMENTS);
  cpu.nextRip = rip;
  cpu.updateMode();
}

function returnToV86(
  cpu: Cpu,
  rip: bigint,
  cs: bigint,
  flags: number,
  esp: bigint,
  data: { ss: bigint; es: bigint; ds: bigint; fs: bigint; gs: bigint },
): void {
  if ((cpu.cr4 & CR4.VME) !== 0) throw new NotImplemented('virtual-8086 mode extensions', { rip: cpu.rip });
  if (rip > 0xffffn) throw generalProtection(0);
  const load = (index: number, selector: bigint): void =>
    cpu.setSegment(index, virtual8086Segment(Number(selector & 0xffffn)));
  load(CS, cs);
  load(SS, data.ss);
  load(ES, data.es);
  load(DS, data.ds);
  load(FS, data.fs);
  load(GS, data.gs);
  cpu.rflags = (mergeFlags(cpu, flags, 4, 0) | FLAG.VM) >>> 0;
  cpu.setReg(4, esp);
  cpu.cpl = 3;
  cpu.nextRip = rip;
  cpu.updateMode();
}
