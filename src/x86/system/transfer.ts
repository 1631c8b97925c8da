/** Far JMP, CALL and RET (APM vol. 2, §4.11; APM vol. 3, the instructions' pages). */
import { NotImplemented } from '../../base/index.ts';
import { ATTRIBUTE, isCanonical } from '../cpu.ts';
import type { Cpu, SegmentState } from '../cpu.ts';
import { GuestException, VECTOR, generalProtection } from '../exceptions.ts';
import { CS, DS, ES, FS, GS, RSP, SS } from '../layout.ts';
import {
  TYPE,
  dplOf,
  dropInnerSegments,
  fetchStackSegment,
  isCode,
  isConforming,
  isNull,
  isPresent,
  isSystem,
  markAccessed,
  nullStackSegment,
  readDescriptor,
  selectorError,
  stackFromTss,
  typeOf,
  virtual8086Segment,
  descriptorAddress,
} from './segments.ts';
import type { Descriptor } from './segments.ts';
import { currentStack, flatStack, popAll, pushAll, setStackPointer, stackAddress } from './stack.ts';
import type { Stack } from './stack.ts';

export const DATA_SEGMENTS = [ES, DS, FS, GS] as const;

const cut = (value: bigint, size: number): bigint => BigInt.asUintN(size * 8, value);

/** Code of this segment runs in 64-bit mode. */
export const is64 = (cpu: Cpu, segment: SegmentState): boolean =>
  cpu.longMode && (segment.attributes & ATTRIBUTE.L) !== 0;

/** The target lies in the segment: limit, or canonical form in 64-bit mode. */
export function checkTarget(cpu: Cpu, segment: SegmentState, offset: bigint): void {
  if (is64(cpu, segment) ? !isCanonical(offset) : offset > BigInt(segment.limit)) throw generalProtection(0);
}

/** Long mode has no code segment that is both 64-bit and D (§4.8.1). */
export function checkLongBits(cpu: Cpu, descriptor: Descriptor): void {
  const both = ATTRIBUTE.L | ATTRIBUTE.DB;
  if (cpu.longMode && (descriptor.attributes & both) === both)
    throw generalProtection(selectorError(descriptor.selector));
}

/** CS in real and virtual-8086 mode. */
export const realCodeSegment = (cpu: Cpu, selector: number): SegmentState =>
  cpu.virtual8086
    ? virtual8086Segment(selector)
    : { ...cpu.getSegment(CS), selector, base: BigInt(selector) << 4n };

const isReal = (cpu: Cpu): boolean => !cpu.protectedMode || cpu.virtual8086;

function commit(cpu: Cpu, segment: SegmentState, cpl: number, offset: bigint): void {
  cpu.setSegment(CS, segment);
  cpu.cpl = cpl;
  cpu.nextRip = offset;
  cpu.updateMode();
}

/** A code segment that JMP or CALL names directly; the privilege stays (§4.11.3). */
function directCode(cpu: Cpu, descriptor: Descriptor): void {
  const error = selectorError(descriptor.selector);
  const dpl = dplOf(descriptor);
  if (isConforming(descriptor) ? dpl > cpu.cpl : dpl !== cpu.cpl || (descriptor.selector & 3) > cpu.cpl)
    throw generalProtection(error);
  checkLongBits(cpu, descriptor);
  if (!isPresent(descriptor)) throw new GuestException(VECTOR.NP, error);
}

interface Gate {
  readonly selector: number;
  readonly offset: bigint;
  readonly parameters: number;
  /** Size of what is pushed. */
  readonly size: 2 | 4 | 8;
}

/** Reads and checks the call gate a selector names (§4.7.3, §4.8.4, §4.11.4). */
function readGate(cpu: Cpu, descriptor: Descriptor): Gate {
  const { selector, low, high } = descriptor;
  const error = selectorError(selector);
  const type = typeOf(descriptor);
  if (!cpu.longMode && (type === TYPE.taskGate || type === TYPE.tss || type === TYPE.tss16))
    throw new NotImplemented('a task switch', { rip: cpu.rip });
  const wide = type === TYPE.callGate;
  if (!wide && (type !== TYPE.callGate16 || cpu.longMode)) throw generalProtection(error);
  if (dplOf(descriptor) < cpu.cpl || dplOf(descriptor) < (selector & 3)) throw generalProtection(error);
  if (!isPresent(descriptor)) throw new GuestException(VECTOR.NP, error);
  let offset = BigInt(wide ? ((low & 0xffff) | (high & 0xffff_0000)) >>> 0 : low & 0xffff);
  if (cpu.longMode) {
    if (descriptorAddress(cpu, selector, 16) === undefined) throw generalProtection(error);
    if ((Number(cpu.load(descriptor.address + 12n, 4, 'system')) & 0x1f00) !== 0)
      throw generalProtection(error);
    offset |= cpu.load(descriptor.address + 8n, 4, 'system') << 32n;
  }
  return {
    selector: low >>> 16,
    offset,
    parameters: cpu.longMode ? 0 : high & 0x1f,
    size: cpu.longMode ? 8 : wide ? 4 : 2,
  };
}

/** The code segment behind a call gate (§4.11.4). */
function gateTarget(cpu: Cpu, gate: Gate, call: boolean): Descriptor {
  if (isNull(gate.selector)) throw generalProtection(0);
  const descriptor = readDescriptor(cpu, gate.selector);
  const error = selectorError(gate.selector);
  const dpl = dplOf(descriptor);
  if (!isCode(descriptor) || dpl > cpu.cpl) throw generalProtection(error);
  if (!call && !isConforming(descriptor) && dpl !== cpu.cpl) throw generalProtection(error);
  if (cpu.longMode && (descriptor.attributes & (ATTRIBUTE.L | ATTRIBUTE.DB)) !== ATTRIBUTE.L)
    throw generalProtection(error);
  if (!isPresent(descriptor)) throw new GuestException(VECTOR.NP, error);
  return descriptor;
}

const withRpl = (segment: SegmentState, cpl: number): SegmentState => ({
  ...segment,
  selector: (segment.selector & 0xfffc) | cpl,
});

/** Far JMP to selector:offset, with an operand size in bytes. */
export function farJump(cpu: Cpu, selector: number, target: bigint, size: number): void {
  if (isReal(cpu)) {
    const offset = cut(target, size);
    if (offset > BigInt(cpu.limit(CS))) throw generalProtection(0);
    commit(cpu, realCodeSegment(cpu, selector), cpu.cpl, offset);
    return;
  }
  if (isNull(selector)) throw generalProtection(0);
  let descriptor = readDescriptor(cpu, selector);
  let offset = cut(target, size);
  if (isSystem(descriptor)) {
    const gate = readGate(cpu, descriptor);
    descriptor = gateTarget(cpu, gate, false);
    offset = gate.offset;
  } else {
    if (!isCode(descriptor)) throw generalProtection(selectorError(selector));
    directCode(cpu, descriptor);
  }
  checkTarget(cpu, descriptor, offset);
  commit(cpu, withRpl(markAccessed(cpu, descriptor), cpu.cpl), cpu.cpl, offset);
}

/** Far CALL to selector:offset. */
export function farCall(cpu: Cpu, selector: number, target: bigint, size: number): void {
  const old = [BigInt(cpu.selector(CS)), cpu.nextRip];
  if (isReal(cpu)) {
    const offset = cut(target, size);
    if (offset > BigInt(cpu.limit(CS))) throw generalProtection(0);
    const stack = currentStack(cpu, false);
    pushAll(cpu, stack, size, old);
    setStackPointer(cpu, stack.pointer, stack.segment);
    commit(cpu, realCodeSegment(cpu, selector), cpu.cpl, offset);
    return;
  }
  if (isNull(selector)) throw generalProtection(0);
  const descriptor = readDescriptor(cpu, selector);
  if (isSystem(descriptor)) {
    callThroughGate(cpu, readGate(cpu, descriptor), old);
    return;
  }
  if (!isCode(descriptor)) throw generalProtection(selectorError(selector));
  directCode(cpu, descriptor);
  const offset = cut(target, size);
  checkTarget(cpu, descriptor, offset);
  const segment = withRpl(markAccessed(cpu, descriptor), cpu.cpl);
  const stack = currentStack(cpu, flatStack(cpu));
  pushAll(cpu, stack, size, old);
  setStackPointer(cpu, stack.pointer, stack.segment);
  commit(cpu, segment, cpu.cpl, offset);
}

function callThroughGate(cpu: Cpu, gate: Gate, old: readonly bigint[]): void {
  const descriptor = gateTarget(cpu, gate, true);
  const cpl = isConforming(descriptor) ? cpu.cpl : dplOf(descriptor);
  const long = cpu.longMode;
  checkTarget(cpu, descriptor, gate.offset);
  const segment = withRpl(markAccessed(cpu, descriptor), cpl);
  if (cpl === cpu.cpl) {
    const stack = currentStack(cpu, long);
    pushAll(cpu, stack, gate.size, old);
    setStackPointer(cpu, stack.pointer, stack.segment);
    commit(cpu, segment, cpl, gate.offset);
    return;
  }
  const top = stackFromTss(cpu, cpl, 0, 0);
  const newStack = long ? undefined : fetchStackSegment(cpu, top.selector, cpl, VECTOR.TS, 0, false);
  const from = currentStack(cpu, flatStack(cpu));
  const parameters: bigint[] = [];
  for (let i = gate.parameters - 1; i >= 0; i--) {
    const linear = stackAddress(from, from.pointer + BigInt(i * gate.size), gate.size);
    parameters.push(cpu.load(linear, gate.size));
  }
  const stack: Stack = {
    segment: newStack,
    pointer: top.pointer,
    errorCode: long ? 0 : selectorError(top.selector),
    privilege: 'system',
  };
  pushAll(cpu, stack, gate.size, [BigInt(cpu.selector(SS)), cpu.reg(RSP), ...parameters, ...old]);
  cpu.setSegment(SS, newStack ?? nullStackSegment(cpl));
  setStackPointer(cpu, stack.pointer, newStack);
  commit(cpu, segment, cpl, gate.offset);
}

/** The code segment RET or IRET returns to (§4.11.5); its RPL is the privilege returned to. */
export function returnCode(cpu: Cpu, selector: number): Descriptor {
  if (isNull(selector)) throw generalProtection(0);
  const error = selectorError(selector);
  const rpl = selector & 3;
  const descriptor = readDescriptor(cpu, selector);
  if (!isCode(descriptor) || rpl < cpu.cpl) throw generalProtection(error);
  if (isConforming(descriptor) ? dplOf(descriptor) > rpl : dplOf(descriptor) !== rpl)
    throw generalProtection(error);
  checkLongBits(cpu, descriptor);
  if (!isPresent(descriptor)) throw new GuestException(VECTOR.NP, error);
  return descriptor;
}

/** RETF, releasing `extra` bytes of parameters. */
export function farReturn(cpu: Cpu, size: number, extra: number): void {
  const flat = flatStack(cpu);
  const stack = currentStack(cpu, flat);
  const [rip, cs] = popAll(cpu, stack, size, 2) as [bigint, bigint];
  const selector = Number(cs & 0xffffn);
  if (isReal(cpu)) {
    if (rip > BigInt(cpu.limit(CS))) throw generalProtection(0);
    setStackPointer(cpu, stack.pointer + BigInt(extra), stack.segment);
    commit(cpu, realCodeSegment(cpu, selector), cpu.cpl, rip);
    return;
  }
  const descriptor = returnCode(cpu, selector);
  const cpl = selector & 3;
  if (cpl === cpu.cpl) {
    checkTarget(cpu, descriptor, rip);
    const segment = markAccessed(cpu, descriptor);
    setStackPointer(cpu, stack.pointer + BigInt(extra), stack.segment);
    commit(cpu, segment, cpl, rip);
    return;
  }
  stack.pointer += BigInt(extra);
  const [rsp, ss] = popAll(cpu, stack, size, 2) as [bigint, bigint];
  const to64 = is64(cpu, descriptor);
  const newStack = fetchStackSegment(cpu, Number(ss & 0xffffn), cpl, VECTOR.GP, 0, to64);
  checkTarget(cpu, descriptor, rip);
  const segment = markAccessed(cpu, descriptor);
  cpu.setSegment(SS, newStack);
  setStackPointer(cpu, rsp + BigInt(extra), to64 ? undefined : newStack);
  dropInnerSegments(cpu, cpl, DATA_SEGMENTS);
  commit(cpu, segment, cpl, rip);
}
