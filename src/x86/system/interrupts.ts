/** Delivery of exceptions and interrupts through the IVT or IDT (APM vol. 2, chapter 8). */
import { NotImplemented } from '../../base/index.ts';
import { ATTRIBUTE, isCanonical } from '../cpu.ts';
import type { Cpu, SegmentState } from '../cpu.ts';
import { GuestException, VECTOR, VmExit, generalProtection } from '../exceptions.ts';
import { CS, DS, ES, FLAG, FS, GS, IDTR, SS, STATE } from '../layout.ts';
import {
  TYPE,
  dplOf,
  fetchStackSegment,
  isCode,
  isConforming,
  isNull,
  isPresent,
  markAccessed,
  nullSegment,
  nullStackSegment,
  readDescriptor,
  selectorError,
  stackFromTss,
} from './segments.ts';
import { currentStack, flatStack, pushAll, setStackPointer } from './stack.ts';
import type { Stack } from './stack.ts';

export type EventKind =
  | 'exception'
  /** INT n and INTO: the gate's DPL is checked. */
  | 'software'
  | 'external'
  | 'nmi'
  /** INT1 (ICEBP): no DPL check. */
  | 'privileged-software'
  /** INT3. */
  | 'breakpoint';

export interface InterruptEvent {
  readonly vector: number;
  readonly kind: EventKind;
  readonly errorCode?: number | undefined;
  /** Faulting linear address: goes to CR2 with a #PF. */
  readonly address?: bigint | undefined;
  /** Where the handler returns to; by default `cpu.rip`. */
  readonly returnRip?: bigint;
  /** Bits to set in DR6 with a #DB (APM vol. 2, §13.1.1.3), e.g. 0x4000 for a single step. */
  readonly dr6?: number;
}

export const eventOf = (exception: GuestException): InterruptEvent => ({
  vector: exception.vector,
  kind: 'exception',
  errorCode: exception.errorCode,
  address: exception.address,
});

/** May a maskable interrupt be taken at this boundary? */
export const interruptible = (cpu: Cpu): boolean =>
  (cpu.u32(STATE.systemFlags) & FLAG.IF) !== 0 && cpu.u32(STATE.interruptShadow) === 0;

/** Vectors whose saved instruction pointer is the faulting instruction: RF is set in the image (§13.1.1.4). */
const FAULTS: ReadonlySet<number> = new Set([
  VECTOR.DE,
  VECTOR.BR,
  VECTOR.UD,
  VECTOR.NM,
  VECTOR.TS,
  VECTOR.NP,
  VECTOR.SS,
  VECTOR.GP,
  VECTOR.PF,
  VECTOR.MF,
  VECTOR.AC,
  VECTOR.XF,
  VECTOR.CP,
  VECTOR.VC,
]);

const HANDLER_CLEARS = FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM;

/**
 * Delivers one event: pushes the frame and makes rip the handler's. Nothing has changed when it
 * throws, but for accessed bits, CR2 and DR6.
 *
 * @throws GuestException what the delivery itself raises.
 */
export function deliver(cpu: Cpu, event: InterruptEvent): void {
  if (event.kind === 'exception' && event.vector === VECTOR.PF && event.address !== undefined)
    cpu.setU64(STATE.cr2, event.address);
  if (event.vector === VECTOR.DB && (event.kind === 'exception' || event.kind === 'privileged-software')) {
    if (event.dr6 !== undefined) cpu.setU64(STATE.dr6, cpu.u64(STATE.dr6) | BigInt(event.dr6));
    cpu.setU64(STATE.dr7, cpu.u64(STATE.dr7) & ~0x2000n); // DR7.GD, §13.1.1.4
  }
  if (!cpu.protectedMode) deliverReal(cpu, event);
  else if (cpu.longMode) deliverLong(cpu, event);
  else deliverProtected(cpu, event);
  cpu.setU32(STATE.interruptShadow, 0);
}

const savedFlags = (cpu: Cpu, event: InterruptEvent): bigint =>
  BigInt((cpu.rflags | (event.kind === 'exception' && FAULTS.has(event.vector) ? FLAG.RF : 0)) >>> 0);

/** EXT: the event did not come from an INT instruction (§8.4.1). */
const extOf = (event: InterruptEvent): number =>
  event.kind === 'software' || event.kind === 'breakpoint' ? 0 : 1;

/** Error code that names an IDT entry. */
const idtError = (vector: number, ext: number): number => vector * 8 + 2 + ext;

const checksDpl = (event: InterruptEvent): boolean =>
  event.kind === 'software' || event.kind === 'breakpoint';

function jumpTo(cpu: Cpu, rip: bigint): void {
  cpu.rip = rip;
  cpu.nextRip = rip;
}

/** Real mode: IVT of far pointers, 16-bit frame, no error code (§8.6). */
function deliverReal(cpu: Cpu, event: InterruptEvent): void {
  const { vector } = event;
  if (vector * 4 + 3 > cpu.limit(IDTR)) throw generalProtection(0);
  const pointer = Number(cpu.load(cpu.segmentBase(IDTR) + BigInt(vector * 4), 4, 'system'));
  const flags = savedFlags(cpu, event);
  const stack = currentStack(cpu, false);
  const rip = event.returnRip ?? cpu.rip;
  const offset = BigInt(pointer & 0xffff);
  if (Number(offset) > cpu.limit(CS)) throw generalProtection(0);
  pushAll(cpu, stack, 2, [flags, BigInt(cpu.selector(CS)), rip]);
  setStackPointer(cpu, stack.pointer, stack.segment);
  const selector = pointer >>> 16;
  cpu.setSegment(CS, { ...cpu.getSegment(CS), selector, base: BigInt(selector) << 4n });
  cpu.rflags = cpu.rflags & ~(FLAG.IF | FLAG.TF | FLAG.RF | FLAG.AC);
  jumpTo(cpu, offset);
  cpu.updateMode();
}

/** Checks the code segment a gate leads to (§4.11.3) and gives the handler's privilege. */
function handlerSegment(cpu: Cpu, selector: number, ext: number): { segment: SegmentState; cpl: number } {
  if (isNull(selector)) throw generalProtection(ext);
  const error = selectorError(selector, ext);
  const descriptor = readDescriptor(cpu, selector, VECTOR.GP, ext);
  if (!isCode(descriptor) || dplOf(descriptor) > cpu.cpl) throw generalProtection(error);
  if (!isPresent(descriptor)) throw new GuestException(VECTOR.NP, error);
  // In long mode handlers are 64-bit code (§8.9.1).
  if (cpu.longMode && (descriptor.attributes & (ATTRIBUTE.L | ATTRIBUTE.DB)) !== ATTRIBUTE.L)
    throw generalProtection(error);
  const cpl = isConforming(descriptor) ? cpu.cpl : dplOf(descriptor);
  const segment = markAccessed(cpu, descriptor);
  return { segment: { ...segment, selector: (selector & 0xfffc) | cpl }, cpl };
}

/** Legacy protected mode and virtual-8086 mode: 16 and 32-bit gates (§8.7, §8.8). */
function deliverProtected(cpu: Cpu, event: InterruptEvent): void {
  const { vector } = event;
  const ext = extOf(event);
  const error = idtError(vector, ext);
  if (vector * 8 + 7 > cpu.limit(IDTR)) throw generalProtection(error);
  const at = cpu.segmentBase(IDTR) + BigInt(vector * 8);
  const low = Number(cpu.load(at & 0xffff_ffffn, 4, 'system'));
  const high = Number(cpu.load((at + 4n) & 0xffff_ffffn, 4, 'system'));
  const type = (high >>> 8) & 0x1f;
  const wide = type === TYPE.interruptGate || type === TYPE.trapGate;
  const task = type === TYPE.taskGate;
  if (!wide && !task && type !== TYPE.interruptGate16 && type !== TYPE.trapGate16)
    throw generalProtection(error);
  if (checksDpl(event) && ((high >>> 13) & 3) < cpu.cpl) throw generalProtection(error);
  if ((high & 0x8000) === 0) throw new GuestException(VECTOR.NP, error);
  if (task) throw new NotImplemented(`a task gate for vector ${vector}`, { rip: cpu.rip });

  const { segment, cpl } = handlerSegment(cpu, low >>> 16, ext);
  const offset = wide ? ((low & 0xffff) | (high & 0xffff_0000)) >>> 0 : low & 0xffff;
  const flags = savedFlags(cpu, event);
  const fromV86 = cpu.virtual8086;
  const frame: bigint[] = [];
  let stack: Stack;
  let newStack: SegmentState | undefined;
  // Interrupts leave virtual-8086 mode only to CPL 0 (§8.8.3).
  if (fromV86 && cpl !== 0) throw generalProtection(selectorError(segment.selector, ext));
  if (cpl < cpu.cpl) {
    const top = stackFromTss(cpu, cpl, 0, ext);
    newStack = fetchStackSegment(cpu, top.selector, cpl, VECTOR.TS, ext, false);
    stack = {
      segment: newStack,
      pointer: top.pointer,
      errorCode: selectorError(top.selector, ext),
      privilege: 'system',
    };
    if (fromV86) for (const index of [GS, FS, DS, ES]) frame.push(BigInt(cpu.selector(index)));
    frame.push(BigInt(cpu.selector(SS)), cpu.reg(4));
  } else stack = currentStack(cpu, false, ext);
  frame.push(flags, BigInt(cpu.selector(CS)), event.returnRip ?? cpu.rip);
  if (event.errorCode !== undefined) frame.push(BigInt(event.errorCode >>> 0));
  if (offset > segment.limit) throw generalProtection(ext);
  pushAll(cpu, stack, wide ? 4 : 2, frame);

  if (newStack !== undefined) cpu.setSegment(SS, newStack);
  setStackPointer(cpu, stack.pointer, stack.segment);
  if (fromV86) for (const index of [GS, FS, DS, ES]) cpu.setSegment(index, nullSegment(0));
  enterHandler(cpu, segment, cpl, BigInt(offset), (type & 1) === 0);
}

/** Long mode: 16-byte gates, IST, a frame of 64-bit values on an aligned stack (§8.9). */
function deliverLong(cpu: Cpu, event: InterruptEvent): void {
  const { vector } = event;
  const ext = extOf(event);
  const error = idtError(vector, ext);
  if (vector * 16 + 15 > cpu.limit(IDTR)) throw generalProtection(error);
  const at = cpu.segmentBase(IDTR) + BigInt(vector * 16);
  const low = Number(cpu.load(at, 4, 'system'));
  const high = Number(cpu.load(at + 4n, 4, 'system'));
  const upper = cpu.load(at + 8n, 4, 'system');
  const type = (high >>> 8) & 0x1f;
  if (type !== TYPE.interruptGate && type !== TYPE.trapGate) throw generalProtection(error);
  if (checksDpl(event) && ((high >>> 13) & 3) < cpu.cpl) throw generalProtection(error);
  if ((high & 0x8000) === 0) throw new GuestException(VECTOR.NP, error);

  const { segment, cpl } = handlerSegment(cpu, low >>> 16, ext);
  const offset = (upper << 32n) | BigInt(((low & 0xffff) | (high & 0xffff_0000)) >>> 0);
  if (!isCanonical(offset)) throw generalProtection(ext);
  const ist = high & 7;
  const inner = cpl < cpu.cpl;
  const old = currentStack(cpu, flatStack(cpu));
  // The frame's RSP is the whole register, whatever the width of the interrupted stack.
  const pointer = ist !== 0 || inner ? stackFromTss(cpu, cpl, ist, ext).pointer : old.pointer;
  const stack: Stack = {
    segment: undefined,
    pointer: pointer & ~0xfn,
    errorCode: ext,
    privilege: inner ? 'system' : 'current',
  };
  const frame = [
    BigInt(cpu.selector(SS)),
    cpu.reg(4),
    savedFlags(cpu, event),
    BigInt(cpu.selector(CS)),
    event.returnRip ?? cpu.rip,
  ];
  if (event.errorCode !== undefined) frame.push(BigInt(event.errorCode >>> 0));
  pushAll(cpu, stack, 8, frame);
  // Only a change of privilege loads SS, with a null selector (§8.9.3).
  if (inner) cpu.setSegment(SS, nullStackSegment(cpl));
  setStackPointer(cpu, stack.pointer, undefined);
  enterHandler(cpu, segment, cpl, offset, type === TYPE.interruptGate);
}

function enterHandler(
  cpu: Cpu,
  segment: SegmentState,
  cpl: number,
  offset: bigint,
  interruptGate: boolean,
): void {
  cpu.setSegment(CS, segment);
  cpu.cpl = cpl;
  cpu.rflags = cpu.rflags & ~(HANDLER_CLEARS | (interruptGate ? FLAG.IF : 0));
  jumpTo(cpu, offset);
  cpu.updateMode();
}

// -- faults while a fault is delivered ------------------------------------------------------------

const CONTRIBUTORY: ReadonlySet<number> = new Set([
  VECTOR.DE,
  VECTOR.TS,
  VECTOR.NP,
  VECTOR.SS,
  VECTOR.GP,
  VECTOR.CP,
  VECTOR.VC,
  VECTOR.SX,
]);

const classOf = (event: InterruptEvent): 'benign' | 'contributory' | 'page-fault' => {
  if (event.kind !== 'exception') return 'benign';
  if (event.vector === VECTOR.PF) return 'page-fault';
  return CONTRIBUTORY.has(event.vector) ? 'contributory' : 'benign';
};

/**
 * Delivers an event and what its delivery raises: the second of two contributory exceptions, or of
 * a #PF and either, becomes #DF; a third one shuts the processor down (APM vol. 2, §8.2.9).
 *
 * @param holds asked before what the delivery raised is delivered; true leaves it, and the first event, undelivered.
 * @returns false if `holds` said so.
 * @throws VmExit 'shutdown' on a triple fault; its detail is the exception that could not be delivered.
 */
export function deliverWithNesting(
  cpu: Cpu,
  event: InterruptEvent | GuestException,
  holds?: (raised: GuestException) => boolean,
): boolean {
  let current = event instanceof GuestException ? eventOf(event) : event;
  // A benign first event can be followed by one of each class, then #DF: few turns, but bounded anyway.
  for (let turn = 0; ; turn++) {
    try {
      deliver(cpu, current);
      return true;
    } catch (error) {
      if (!(error instanceof GuestException)) throw error;
      const next = eventOf(error);
      const first = classOf(current);
      const second = classOf(next);
      const isDouble = current.kind === 'exception' && current.vector === VECTOR.DF;
      if ((isDouble && second !== 'benign') || turn >= 8) throw new VmExit('shutdown', false, next);
      const double =
        (first === 'contributory' && second === 'contributory') ||
        (first === 'page-fault' && second !== 'benign');
      if (double && next.vector === VECTOR.PF && next.address !== undefined)
        cpu.setU64(STATE.cr2, next.address);
      current = double ? { vector: VECTOR.DF, kind: 'exception', errorCode: 0 } : next;
      if (holds?.(double ? new GuestException(VECTOR.DF, 0) : error)) return false;
    }
  }
}

/** INT n, INT3, INTO, INT1: called by their helpers, with rip still on the instruction. */
export function softwareInterrupt(cpu: Cpu, vector: number, kind: EventKind): void {
  // Without VME, INT n in virtual-8086 mode needs IOPL 3 (§8.8.2); INT3, INTO and INT1 do not.
  if (kind === 'software' && cpu.virtual8086 && (cpu.u32(STATE.systemFlags) & FLAG.IOPL) !== FLAG.IOPL)
    throw generalProtection(0);
  deliver(cpu, { vector, kind, returnRip: cpu.nextRip });
}
