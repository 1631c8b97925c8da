/**
 * The common case of scalar floating point, on the host's own arithmetic: ordinary operands (zero or
 * normal), an ordinary result, every exception masked, rounding to nearest. Then IEEE 754 leaves one
 * possible result, and no flag but PE, which must be set already. Anything else is `softfloat.ts`'s.
 */
import type { Cpu } from '../cpu.ts';
import { STATE } from '../layout.ts';
import type { OpView } from '../opview.ts';

/** All masks set, PE set, nearest, neither DAZ nor FTZ; the other sticky flags may be anything. */
const STICKY = 0x1f;
const ORDINARY_MXCSR = 0x1fa0;
const PE_AND_MASK = 0x1020;

export type NativeOperation = (x: number, y: number) => number;
export const NATIVE: Readonly<Record<string, NativeOperation>> = {
  add: (x, y) => x + y,
  sub: (x, y) => x - y,
  mul: (x, y) => x * y,
  div: (x, y) => x / y,
  sqrt: (_x, y) => Math.sqrt(y),
};

/** Magnitudes of the smallest normal and the largest finite number. */
const SMALLEST: Readonly<Record<number, number>> = { 4: 2 ** -126, 8: 2 ** -1022 };
const LARGEST: Readonly<Record<number, number>> = { 4: (2 - 2 ** -23) * 2 ** 127, 8: Number.MAX_VALUE };

const isOrdinary = (value: number, bytes: number): boolean => {
  const magnitude = Math.abs(value);
  return magnitude === 0 || (magnitude >= SMALLEST[bytes]! && magnitude <= LARGEST[bytes]!);
};

const xmmAt = (cpu: Cpu, index: number): number => cpu.base + STATE.ymm + index * 32;
const scratch = new DataView(new ArrayBuffer(8));

const readXmm = (cpu: Cpu, index: number, bytes: number): number => {
  const { view } = cpu.memory;
  return bytes === 4 ? view.getFloat32(xmmAt(cpu, index), true) : view.getFloat64(xmmAt(cpu, index), true);
};
const fromBits = (raw: bigint, bytes: number): number => {
  scratch.setBigUint64(0, raw, true);
  return bytes === 4 ? scratch.getFloat32(0, true) : scratch.getFloat64(0, true);
};
const writeXmm = (cpu: Cpu, index: number, bytes: number, value: number): void => {
  const { view } = cpu.memory;
  if (bytes === 4) view.setFloat32(xmmAt(cpu, index), value, true);
  else view.setFloat64(xmmAt(cpu, index), value, true);
};

/** Does ADDSD and the like if everything is ordinary; false if nothing was done. `y` is the source's bits. */
export const ordinaryScalar = (
  cpu: Cpu,
  op: OpView,
  bytes: number,
  y: bigint,
  operation: NativeOperation,
): boolean => {
  if ((cpu.u32(STATE.mxcsr) & ~STICKY) !== ORDINARY_MXCSR) return false;
  const a = readXmm(cpu, op.a, bytes);
  const b = fromBits(y, bytes);
  if (!isOrdinary(a, bytes) || !isOrdinary(b, bytes)) return false;
  // Rounding a double result to single once more is harmless for these operations.
  const result = bytes === 4 ? Math.fround(operation(a, b)) : operation(a, b);
  const magnitude = Math.abs(result);
  // Zero and the smallest normal may have come from an underflow.
  if (!(magnitude > SMALLEST[bytes]! && magnitude <= LARGEST[bytes]!)) return false;
  writeXmm(cpu, op.a, bytes, result);
  return true;
};

/** -1, 0 or 1 if both numbers are ordinary. */
export const ordinaryCompare = (cpu: Cpu, op: OpView, bytes: number, y: bigint): number | undefined => {
  const a = readXmm(cpu, op.a, bytes);
  const b = fromBits(y, bytes);
  if (!isOrdinary(a, bytes) || !isOrdinary(b, bytes)) return undefined;
  return a < b ? -1 : a > b ? 1 : 0;
};

/** Truncation to a 32- or 64-bit integer, if it is small enough to be exact here. */
export const ordinaryTruncate = (cpu: Cpu, bytes: number, x: bigint): number | undefined => {
  const value = fromBits(x, bytes);
  if (!isOrdinary(value, bytes) || Math.abs(value) >= 0x7fff_ffff) return undefined;
  const integer = Math.trunc(value);
  return integer === value || (cpu.u32(STATE.mxcsr) & PE_AND_MASK) === PE_AND_MASK ? integer : undefined;
};
