/**
 * Segment descriptors: fetching them, checking them, loading them into the hidden part of a segment
 * register (APM vol. 2, chapter 4). Everything is checked before anything changes.
 */
import { NotImplemented } from '../../base/index.ts';
import { ATTRIBUTE, isCanonical } from '../cpu.ts';
import type { Cpu, SegmentState } from '../cpu.ts';
import { GuestException, VECTOR, generalProtection } from '../exceptions.ts';
import { GDTR, LDTR, MODE, SS, TR } from '../layout.ts';

/** A descriptor as read from its table. */
export interface Descriptor extends SegmentState {
  /** Linear address of the descriptor. */
  readonly address: bigint;
  readonly low: number;
  readonly high: number;
}

/** System segment and gate types (APM vol. 2, tables 4-5 and 4-6). */
export const TYPE = {
  tss16: 1,
  ldt: 2,
  busyTss16: 3,
  callGate16: 4,
  taskGate: 5,
  interruptGate16: 6,
  trapGate16: 7,
  tss: 9,
  busyTss: 11,
  callGate: 12,
  interruptGate: 14,
  trapGate: 15,
} as const;

export const isNull = (selector: number): boolean => (selector & 0xfffc) === 0;
export const typeOf = (state: { attributes: number }): number => state.attributes & 0xf;
export const dplOf = (state: { attributes: number }): number => (state.attributes >> 5) & 3;
export const isPresent = (state: { attributes: number }): boolean => (state.attributes & ATTRIBUTE.P) !== 0;
export const isSystem = (state: { attributes: number }): boolean => (state.attributes & ATTRIBUTE.S) === 0;
/** Type bit 3 of a code or data descriptor. */
export const isCode = (state: { attributes: number }): boolean =>
  (state.attributes & (ATTRIBUTE.S | ATTRIBUTE.code)) === (ATTRIBUTE.S | ATTRIBUTE.code);
export const isConforming = (state: { attributes: number }): boolean =>
  isCode(state) && (state.attributes & ATTRIBUTE.conforming) !== 0;
export const isWritableData = (state: { attributes: number }): boolean =>
  (state.attributes & (ATTRIBUTE.S | ATTRIBUTE.code | ATTRIBUTE.readWrite)) ===
  (ATTRIBUTE.S | ATTRIBUTE.readWrite);
/** Data, or code that may be read. */
export const isReadable = (state: { attributes: number }): boolean =>
  !isSystem(state) && (!isCode(state) || (state.attributes & ATTRIBUTE.readWrite) !== 0);

/** Error code that names a selector: index and table, RPL replaced by `ext` (APM vol. 2, §8.4.1). */
export const selectorError = (selector: number, ext = 0): number => (selector & 0xfffc) | ext;

/** Where a selector's descriptor is, or undefined when it lies outside its table. */
export function descriptorAddress(cpu: Cpu, selector: number, size = 8): bigint | undefined {
  const local = (selector & 4) !== 0;
  const table = local ? LDTR : GDTR;
  if (local && !isPresent({ attributes: cpu.attributes(LDTR) })) return undefined;
  const offset = selector & 0xfff8;
  if (offset + size - 1 > cpu.limit(table)) return undefined;
  return (cpu.segmentBase(table) + BigInt(offset)) & 0xffff_ffff_ffff_ffffn;
}

/** Takes a descriptor's two words apart. */
export function decodeDescriptor(selector: number, address: bigint, low: number, high: number): Descriptor {
  const attributes = ((high >>> 8) & 0xff) | ((high >>> 12) & 0xf00);
  const raw = (low & 0xffff) | (high & 0xf_0000);
  return {
    selector,
    address,
    low,
    high,
    attributes,
    limit: ((attributes & ATTRIBUTE.G) !== 0 ? (raw << 12) | 0xfff : raw) >>> 0,
    base: BigInt(((low >>> 16) | ((high & 0xff) << 16) | (high & 0xff00_0000)) >>> 0),
  };
}

/**
 * Reads the descriptor a non-null selector names.
 *
 * @param vector raised when it lies outside its table (#GP, or #TS while a stack is switched).
 * @param ext EXT bit of the error code.
 */
export function readDescriptor(cpu: Cpu, selector: number, vector: number = VECTOR.GP, ext = 0): Descriptor {
  const address = descriptorAddress(cpu, selector);
  if (address === undefined) throw new GuestException(vector, selectorError(selector, ext));
  const low = Number(cpu.load(address, 4, 'system'));
  const high = Number(cpu.load(address + 4n, 4, 'system'));
  return decodeDescriptor(selector, address, low, high);
}

/** Completes a system descriptor, which has sixteen bytes in long mode (APM vol. 2, §4.8.3). */
export function widenSystemDescriptor(cpu: Cpu, descriptor: Descriptor): Descriptor {
  if (!cpu.longMode) return descriptor;
  const { selector } = descriptor;
  if (descriptorAddress(cpu, selector, 16) === undefined) throw generalProtection(selectorError(selector));
  const upper = cpu.load(descriptor.address + 8n, 4, 'system');
  const last = Number(cpu.load(descriptor.address + 12n, 4, 'system'));
  if ((last & 0x1f00) !== 0) throw generalProtection(selectorError(selector));
  return { ...descriptor, base: descriptor.base | (upper << 32n) };
}

/** Sets the accessed bit in the table, if it is not set yet; returns the state to load. */
export function markAccessed(cpu: Cpu, descriptor: Descriptor): SegmentState {
  if ((descriptor.attributes & ATTRIBUTE.accessed) === 0)
    cpu.store(descriptor.address + 5n, 1, BigInt(((descriptor.high >>> 8) & 0xff) | 1), 'system');
  return {
    selector: descriptor.selector,
    attributes: descriptor.attributes | ATTRIBUTE.accessed,
    limit: descriptor.limit,
    base: descriptor.base,
  };
}

/** Hidden state behind a null selector: not present; the base is cleared (CPUID 8000_0021h EAX[6]). */
export const nullSegment = (selector: number): SegmentState => ({
  selector,
  attributes: 0,
  limit: 0,
  base: 0n,
});

/**
 * What loading ES, SS, DS, FS or GS would put into the register: real mode, virtual-8086 and
 * protected mode with all checks (APM vol. 2, §4.5, §4.11). Sets the accessed bit.
 */
export function fetchDataSegment(cpu: Cpu, index: number, selector: number): SegmentState {
  if (!cpu.protectedMode) {
    // Only the base follows the selector: limit and attributes stay as they are ("unreal" mode).
    return { ...cpu.getSegment(index), selector, base: BigInt(selector) << 4n };
  }
  if (cpu.virtual8086) return virtual8086Segment(selector);
  return index === SS ? fetchStackSegment(cpu, selector, cpu.cpl) : fetchReadable(cpu, selector);
}

export const virtual8086Segment = (selector: number): SegmentState => ({
  selector,
  attributes: 0xf3,
  limit: 0xffff,
  base: BigInt(selector) << 4n,
});

function fetchReadable(cpu: Cpu, selector: number): SegmentState {
  if (isNull(selector)) return nullSegment(selector);
  const descriptor = readDescriptor(cpu, selector);
  const error = selectorError(selector);
  if (!isReadable(descriptor)) throw generalProtection(error);
  const dpl = dplOf(descriptor);
  if (!isConforming(descriptor) && (dpl < cpu.cpl || dpl < (selector & 3))) throw generalProtection(error);
  if (!isPresent(descriptor)) throw new GuestException(VECTOR.NP, error);
  return markAccessed(cpu, descriptor);
}

/**
 * SS for code running at `cpl` (APM vol. 2, §4.11.2).
 *
 * @param vector #GP for an instruction that loads SS, #TS for a stack named by the TSS.
 * @param nullAllowed 64-bit mode below CPL 3 (APM vol. 2, §4.5.2): by default as the processor runs.
 */
export function fetchStackSegment(
  cpu: Cpu,
  selector: number,
  cpl: number,
  vector: number = VECTOR.GP,
  ext = 0,
  nullAllowed: boolean = cpu.mode === MODE.code64,
): SegmentState {
  if (isNull(selector)) {
    if (!nullAllowed || cpl === 3 || (selector & 3) !== cpl) throw new GuestException(vector, ext);
    return nullStackSegment(selector);
  }
  const descriptor = readDescriptor(cpu, selector, vector, ext);
  const error = selectorError(selector, ext);
  if ((selector & 3) !== cpl || !isWritableData(descriptor) || dplOf(descriptor) !== cpl)
    throw new GuestException(vector, error);
  if (!isPresent(descriptor)) throw new GuestException(VECTOR.SS, error);
  return markAccessed(cpu, descriptor);
}

/** SS with a null selector in 64-bit mode: unusable elsewhere, its DPL the CPL. */
export const nullStackSegment = (selector: number): SegmentState => ({
  selector,
  attributes: (selector & 3) << 5,
  limit: 0,
  base: 0n,
});

export function loadDataSegment(cpu: Cpu, index: number, selector: number): void {
  cpu.setSegment(index, fetchDataSegment(cpu, index, selector));
  if (index === SS) cpu.updateMode();
}

/** LLDT (APM vol. 3). */
export function loadLdt(cpu: Cpu, selector: number): void {
  if (isNull(selector)) {
    cpu.setSegment(LDTR, nullSegment(selector));
    return;
  }
  const error = selectorError(selector);
  if ((selector & 4) !== 0) throw generalProtection(error);
  const short = readDescriptor(cpu, selector);
  if (!isSystem(short) || typeOf(short) !== TYPE.ldt) throw generalProtection(error);
  if (!isPresent(short)) throw new GuestException(VECTOR.NP, error);
  const descriptor = widenSystemDescriptor(cpu, short);
  if (cpu.longMode && !isCanonical(descriptor.base)) throw generalProtection(error);
  cpu.setSegment(LDTR, descriptor);
}

/** LTR: marks the TSS busy in its descriptor (APM vol. 3). */
export function loadTaskRegister(cpu: Cpu, selector: number): void {
  if (isNull(selector)) throw generalProtection(0);
  const error = selectorError(selector);
  if ((selector & 4) !== 0) throw generalProtection(error);
  const short = readDescriptor(cpu, selector);
  const type = typeOf(short);
  if (!isSystem(short) || !(type === TYPE.tss || (type === TYPE.tss16 && !cpu.longMode)))
    throw generalProtection(error);
  if (!isPresent(short)) throw new GuestException(VECTOR.NP, error);
  const descriptor = widenSystemDescriptor(cpu, short);
  if (cpu.longMode && !isCanonical(descriptor.base)) throw generalProtection(error);
  cpu.store(descriptor.address + 5n, 1, BigInt(((descriptor.high >>> 8) & 0xff) | 2), 'system');
  cpu.setSegment(TR, { ...descriptor, attributes: descriptor.attributes | 2 });
}

/** Stack pointer (and SS, in legacy mode) the TSS holds for a privilege level (APM vol. 2, §12.2). */
export function stackFromTss(
  cpu: Cpu,
  cpl: number,
  ist: number,
  ext: number,
): { pointer: bigint; selector: number } {
  const tr = cpu.getSegment(TR);
  const invalid = (): GuestException => new GuestException(VECTOR.TS, selectorError(tr.selector, ext));
  const at = (offset: number, size: number): bigint => {
    if (offset + size - 1 > tr.limit) throw invalid();
    const linear = tr.base + BigInt(offset);
    return cpu.load(cpu.longMode ? linear : linear & 0xffff_ffffn, size, 'system');
  };
  if (cpu.longMode) return { pointer: ist !== 0 ? at(0x1c + ist * 8, 8) : at(4 + cpl * 8, 8), selector: cpl };
  switch (typeOf(tr)) {
    case TYPE.tss:
    case TYPE.busyTss:
      return { pointer: at(4 + cpl * 8, 4), selector: Number(at(8 + cpl * 8, 2)) };
    case TYPE.tss16:
    case TYPE.busyTss16:
      return { pointer: at(2 + cpl * 4, 2), selector: Number(at(4 + cpl * 4, 2)) };
    default:
      throw new NotImplemented(`a privilege change with TR of type ${typeOf(tr)}`, { rip: cpu.rip });
  }
}

/** A data segment register that code at a new, outer privilege may not keep becomes null (§4.5.1). */
export function dropInnerSegments(cpu: Cpu, cpl: number, indexes: readonly number[]): void {
  for (const index of indexes) {
    const state = cpu.getSegment(index);
    // A null one stays as it is: in 64-bit mode FS and GS keep their base behind it.
    if (isPresent(state) && (isSystem(state) || (dplOf(state) < cpl && !isConforming(state))))
      cpu.setSegment(index, nullSegment(0));
  }
}
