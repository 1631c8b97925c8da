/** Several pushes or pops of one instruction: all checked before the first byte is written. */
import { ATTRIBUTE, isCanonical } from '../cpu.ts';
import type { Cpu, Privilege, SegmentState } from '../cpu.ts';
import { GuestException, VECTOR } from '../exceptions.ts';
import { RSP, SS, STATE } from '../layout.ts';

const MASK64 = 0xffff_ffff_ffff_ffffn;

/** A stack that may not be loaded yet. */
export interface Stack {
  /** Hidden state of SS; undefined when addresses are flat (64-bit mode). */
  readonly segment: SegmentState | undefined;
  pointer: bigint;
  /** Error code of a #SS for a push outside of it. */
  readonly errorCode: number;
  readonly privilege: Privilege;
}

/** The stack in use. */
export const currentStack = (cpu: Cpu, flat: boolean, errorCode = 0): Stack => ({
  segment: flat ? undefined : cpu.getSegment(SS),
  pointer: cpu.reg(RSP) & stackMask(flat ? undefined : cpu.getSegment(SS)),
  errorCode,
  privilege: 'current',
});

export const stackMask = (segment: SegmentState | undefined): bigint =>
  segment === undefined ? MASK64 : (segment.attributes & ATTRIBUTE.DB) !== 0 ? 0xffff_ffffn : 0xffffn;

/** Linear address of `size` bytes at `offset` of a stack; #SS if outside (APM vol. 2, §4.12). */
export function stackAddress(stack: Stack, offset: bigint, size: number): bigint {
  const { segment } = stack;
  if (segment === undefined) {
    const linear = offset & MASK64;
    if (!isCanonical(linear) || !isCanonical((linear + BigInt(size - 1)) & MASK64))
      throw new GuestException(VECTOR.SS, stack.errorCode);
    return linear;
  }
  const first = Number(offset & stackMask(segment));
  const last = first + size - 1;
  const expandDown =
    (segment.attributes & ATTRIBUTE.code) === 0 && (segment.attributes & ATTRIBUTE.expandDown) !== 0;
  const top = (segment.attributes & ATTRIBUTE.DB) !== 0 ? 0xffff_ffff : 0xffff;
  if (expandDown ? first <= segment.limit || last > top : last > segment.limit)
    throw new GuestException(VECTOR.SS, stack.errorCode);
  return (segment.base + BigInt(first)) & 0xffff_ffffn;
}

/** Pushes values of `size` bytes, the first one highest; moves `stack.pointer`. */
export function pushAll(cpu: Cpu, stack: Stack, size: number, values: readonly bigint[]): void {
  const mask = stackMask(stack.segment);
  const places: bigint[] = [];
  let pointer = stack.pointer;
  for (let i = 0; i < values.length; i++) {
    pointer = (pointer - BigInt(size)) & mask;
    const linear = stackAddress(stack, pointer, size);
    cpu.probe(linear, size, 'write', stack.privilege);
    places.push(linear);
  }
  values.forEach((value, i) => cpu.store(places[i]!, size, BigInt.asUintN(size * 8, value), stack.privilege));
  stack.pointer = pointer;
}

/** Reads `count` values of `size` bytes upwards from the top; moves `stack.pointer`. */
export function popAll(cpu: Cpu, stack: Stack, size: number, count: number): bigint[] {
  const mask = stackMask(stack.segment);
  const values: bigint[] = [];
  for (let i = 0; i < count; i++) {
    values.push(cpu.load(stackAddress(stack, stack.pointer, size), size, stack.privilege));
    stack.pointer = (stack.pointer + BigInt(size)) & mask;
  }
  return values;
}

/** Writes the stack pointer as wide as the stack is: a 16-bit stack keeps the upper half of RSP. */
export function setStackPointer(cpu: Cpu, pointer: bigint, segment: SegmentState | undefined): void {
  const mask = stackMask(segment);
  if (mask === 0xffffn) cpu.setReg(RSP, (cpu.reg(RSP) & ~0xffffn) | (pointer & 0xffffn));
  else cpu.setReg(RSP, pointer & mask);
}

/** Pushes onto the stack in use. */
export function push(cpu: Cpu, size: number, ...values: bigint[]): void {
  const stack = currentStack(cpu, flatStack(cpu));
  pushAll(cpu, stack, size, values);
  setStackPointer(cpu, stack.pointer, stack.segment);
}

/** The stack in use is addressed without a segment: 64-bit mode. */
export const flatStack = (cpu: Cpu): boolean => cpu.u64(STATE.stackMask) === MASK64;
