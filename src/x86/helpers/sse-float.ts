/** SSE and SSE2 floating-point instructions (APM vol. 4), on `softfloat.ts`. */
import type { Cpu } from '../cpu.ts';
import { GuestException, VECTOR, generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { FLAG, FS, MODE, STATE } from '../layout.ts';
import type { OpView } from '../opview.ts';
import { requireSse } from '../system/checks.ts';
import { NATIVE, ordinaryCompare, ordinaryScalar, ordinaryTruncate } from './ordinary-float.ts';
import type { NativeOperation } from './ordinary-float.ts';
import { DOUBLE, EXCEPTION, FloatUnit, SINGLE } from './softfloat.ts';
import type { Format } from './softfloat.ts';

const CR4_OSXMMEXCPT = 0x400;
const BEFORE_COMPUTATION = EXCEPTION.IE | EXCEPTION.DE | EXCEPTION.ZE;
const MASK64 = 0xffff_ffff_ffff_ffffn;

const xmm = (index: number): number => STATE.ymm + index * 32;
const readXmm = (cpu: Cpu, index: number): bigint => cpu.u64(xmm(index)) | (cpu.u64(xmm(index) + 8) << 64n);
const writeXmm = (cpu: Cpu, index: number, value: bigint): void => {
  cpu.setU64(xmm(index), value & MASK64);
  cpu.setU64(xmm(index) + 8, value >> 64n);
};

/** The source operand: `bytes` of an XMM register or of memory; 16 bytes of memory must be aligned. */
const source = (cpu: Cpu, op: OpView, bytes: number): bigint => {
  if (op.isRegister) return BigInt.asUintN(bytes * 8, readXmm(cpu, op.b));
  if (bytes < 16) return cpu.load(cpu.address(op, bytes, false), bytes);
  // Misalignment comes before what the segment or a non-canonical address would raise.
  const base = cpu.mode === MODE.code64 && op.segment < FS ? 0n : cpu.segmentBase(op.segment);
  if (((base + cpu.effectiveAddress(op)) & 15n) !== 0n) throw generalProtection();
  const at = cpu.address(op, bytes, false);
  return cpu.load(at, 8) | (cpu.load(at + 8n, 8) << 64n);
};

/**
 * Runs one instruction's arithmetic, then commits: sticky flags to MXCSR, and `write` only if no
 * exception is unmasked (#XF, or #UD without CR4.OSXMMEXCPT).
 */
const compute = <T>(cpu: Cpu, work: (unit: FloatUnit) => T, write: (result: T) => void): void => {
  const mxcsr = cpu.u32(STATE.mxcsr);
  const unit = new FloatUnit(mxcsr);
  const result = work(unit);
  const { unmasked } = unit;
  if (unmasked === 0) {
    cpu.setU32(STATE.mxcsr, mxcsr | unit.flags);
    write(result);
    return;
  }
  // An unmasked exception found before the computation leaves no result to round.
  const raised = unmasked & BEFORE_COMPUTATION ? unit.flags & BEFORE_COMPUTATION : unit.flags;
  cpu.setU32(STATE.mxcsr, mxcsr | raised);
  if ((cpu.cr4 & CR4_OSXMMEXCPT) === 0) throw undefinedOpcode();
  throw new GuestException(VECTOR.XF);
};

type Lane = (unit: FloatUnit, f: Format, x: bigint, y: bigint) => bigint;

/** Applies `lane` to the elements of two vectors. */
const eachLane = (unit: FloatUnit, f: Format, count: number, x: bigint, y: bigint, lane: Lane): bigint => {
  let result = 0n;
  for (let i = 0; i < count; i++) {
    const shift = BigInt(i * f.bits);
    const element = lane(unit, f, BigInt.asUintN(f.bits, x >> shift), BigInt.asUintN(f.bits, y >> shift));
    result |= element << shift;
  }
  return result;
};

const packed =
  (f: Format, lane: (op: OpView) => Lane): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const y = source(cpu, op, 16);
    const x = readXmm(cpu, op.a);
    compute(
      cpu,
      (unit) => eachLane(unit, f, 128 / f.bits, x, y, lane(op)),
      (result) => writeXmm(cpu, op.a, result),
    );
  };

/** Replaces the low element of the destination. */
const setLow = (cpu: Cpu, index: number, bits: number, value: bigint): void =>
  writeXmm(cpu, index, ((readXmm(cpu, index) >> BigInt(bits)) << BigInt(bits)) | value);

const scalar =
  (f: Format, lane: (op: OpView) => Lane, native: NativeOperation | undefined): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const y = source(cpu, op, f.bits / 8);
    if (native !== undefined && ordinaryScalar(cpu, op, f.bits / 8, y, native)) return;
    const x = BigInt.asUintN(f.bits, readXmm(cpu, op.a));
    compute(
      cpu,
      (unit) => lane(op)(unit, f, x, y),
      (result) => setLow(cpu, op.a, f.bits, result),
    );
  };

/** The four variants of one operation. */
const variants = (name: string, lane: (op: OpView) => Lane): Record<string, Helper> => ({
  [`${name}ps`]: packed(SINGLE, lane),
  [`${name}pd`]: packed(DOUBLE, lane),
  [`${name}ss`]: scalar(SINGLE, lane, NATIVE[name]),
  [`${name}sd`]: scalar(DOUBLE, lane, NATIVE[name]),
});

/** Predicates of CMPPS and others (immediate bits 2:0). LT, LE and their negations refuse quiet NaNs. */
const comparison = (op: OpView): Lane => {
  const predicate = Number(op.immediate & 7n);
  const strict = (predicate & 3) === 1 || (predicate & 3) === 2;
  return (unit, f, x, y) => {
    const order = unit.compare(f, x, y, strict);
    const holds = [order === 0, order === -1, order === -1 || order === 0, order === undefined][
      predicate & 3
    ]!;
    return holds === predicate < 4 ? (1n << BigInt(f.bits)) - 1n : 0n;
  };
};

/** ROUNDPS and others: immediate 1:0 the rounding, 2 use MXCSR's, 3 no precision exception. */
const roundToIntegral =
  (op: OpView): Lane =>
  (unit, f, _x, y) => {
    const immediate = Number(op.immediate);
    const rounding = immediate & 4 ? unit.rounding : immediate & 3;
    return unit.toIntegral(f, y, rounding, (immediate & 8) === 0);
  };

const setOrder = (cpu: Cpu, order: number | undefined): void =>
  cpu.setArithmeticFlags(
    order === undefined ? FLAG.ZF | FLAG.PF | FLAG.CF : order < 0 ? FLAG.CF : order === 0 ? FLAG.ZF : 0,
  );

/** COMISx (`strict`) and UCOMISx: ZF PF CF = 111 unordered, 000 greater, 001 less, 100 equal. */
const compareToFlags =
  (f: Format, strict: boolean): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const y = source(cpu, op, f.bits / 8);
    const ordinary = ordinaryCompare(cpu, op, f.bits / 8, y);
    if (ordinary !== undefined) return setOrder(cpu, ordinary);
    const x = BigInt.asUintN(f.bits, readXmm(cpu, op.a));
    compute(
      cpu,
      (unit) => unit.compare(f, x, y, strict),
      (order) => setOrder(cpu, order),
    );
  };

const toInteger =
  (f: Format, truncate: boolean): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const x = source(cpu, op, f.bits / 8);
    const ordinary = truncate ? ordinaryTruncate(cpu, f.bits / 8, x) : undefined;
    if (ordinary !== undefined)
      return cpu.writeRegister(op.a, op.size, BigInt.asUintN(op.size * 8, BigInt(ordinary)));
    compute(
      cpu,
      (unit) => unit.toInteger(f, x, op.size * 8, truncate),
      (result) => cpu.writeRegister(op.a, op.size, result),
    );
  };

const fromInteger =
  (f: Format): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const { size } = op;
    const raw = op.isRegister ? cpu.readRegister(op.b, size) : cpu.load(cpu.address(op, size, false), size);
    compute(
      cpu,
      (unit) => unit.fromInteger(f, BigInt.asIntN(size * 8, raw)),
      (result) => setLow(cpu, op.a, f.bits, result),
    );
  };

const convertScalar =
  (from: Format, to: Format): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const x = source(cpu, op, from.bits / 8);
    compute(
      cpu,
      (unit) => unit.convert(from, to, x),
      (result) => setLow(cpu, op.a, to.bits, result),
    );
  };

/** Packed conversions: `bytes` of source, elements of `from` bits to elements of `to` bits, rest zero. */
const convertPacked =
  (bytes: number, from: number, to: number, element: (unit: FloatUnit, x: bigint) => bigint): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const x = source(cpu, op, bytes);
    compute(
      cpu,
      (unit) => {
        let result = 0n;
        for (let i = 0; i < (bytes * 8) / from; i++)
          result |= element(unit, BigInt.asUintN(from, x >> BigInt(i * from))) << BigInt(i * to);
        return result;
      },
      (result) => writeXmm(cpu, op.a, result),
    );
  };

export const SSE_FLOAT_HELPERS: Readonly<Record<string, Helper>> = {
  ...variants('add', () => (unit, f, x, y) => unit.add(f, x, y)),
  ...variants('sub', () => (unit, f, x, y) => unit.add(f, x, y, true)),
  ...variants('mul', () => (unit, f, x, y) => unit.multiply(f, x, y)),
  ...variants('div', () => (unit, f, x, y) => unit.divide(f, x, y)),
  ...variants('min', () => (unit, f, x, y) => unit.extreme(f, x, y, false)),
  ...variants('max', () => (unit, f, x, y) => unit.extreme(f, x, y, true)),
  ...variants('sqrt', () => (unit, f, _x, y) => unit.squareRoot(f, y)),
  ...variants('cmp', comparison),
  ...variants('round', roundToIntegral),
  comiss: compareToFlags(SINGLE, true),
  comisd: compareToFlags(DOUBLE, true),
  ucomiss: compareToFlags(SINGLE, false),
  ucomisd: compareToFlags(DOUBLE, false),
  cvtss2si: toInteger(SINGLE, false),
  cvtsd2si: toInteger(DOUBLE, false),
  cvttss2si: toInteger(SINGLE, true),
  cvttsd2si: toInteger(DOUBLE, true),
  cvtsi2ss: fromInteger(SINGLE),
  cvtsi2sd: fromInteger(DOUBLE),
  cvtss2sd: convertScalar(SINGLE, DOUBLE),
  cvtsd2ss: convertScalar(DOUBLE, SINGLE),
  cvtps2pd: convertPacked(8, 32, 64, (unit, x) => unit.convert(SINGLE, DOUBLE, x)),
  cvtpd2ps: convertPacked(16, 64, 32, (unit, x) => unit.convert(DOUBLE, SINGLE, x)),
  cvtdq2ps: convertPacked(16, 32, 32, (unit, x) => unit.fromInteger(SINGLE, BigInt.asIntN(32, x))),
  cvtdq2pd: convertPacked(8, 32, 64, (unit, x) => unit.fromInteger(DOUBLE, BigInt.asIntN(32, x))),
  cvtps2dq: convertPacked(16, 32, 32, (unit, x) => unit.toInteger(SINGLE, x, 32, false)),
  cvttps2dq: convertPacked(16, 32, 32, (unit, x) => unit.toInteger(SINGLE, x, 32, true)),
  cvtpd2dq: convertPacked(16, 64, 32, (unit, x) => unit.toInteger(DOUBLE, x, 32, false)),
  cvttpd2dq: convertPacked(16, 64, 32, (unit, x) => unit.toInteger(DOUBLE, x, 32, true)),
};
