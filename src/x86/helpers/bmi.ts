/** BMI1 and BMI2 with VEX prefix (APM vol. 3): three operands, the one of VEX.vvvv in `condition`. */
import type { Cpu } from '../cpu.ts';
import { undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { FLAG, RDX, gpr } from '../layout.ts';
import type { OpView } from '../opview.ts';

interface Operands {
  readonly bits: bigint;
  /** ModRM.rm operand. */
  readonly source: bigint;
  /** VEX.vvvv register. */
  readonly other: bigint;
}

const operands = (cpu: Cpu, op: OpView): Operands => {
  if (!cpu.protectedMode || cpu.virtual8086) throw undefinedOpcode();
  const { size } = op;
  const source = op.isRegister ? cpu.readRegister(op.b, size) : cpu.load(cpu.address(op, size, false), size);
  return { bits: BigInt(size * 8), source, other: cpu.readRegister(gpr(op.condition), size) };
};

/** SF and ZF of the result and CF; OF clear. AF and PF, undefined, are cleared. */
const setFlags = (cpu: Cpu, bits: bigint, result: bigint, carry: boolean): void =>
  cpu.setArithmeticFlags(
    (result === 0n ? FLAG.ZF : 0) | ((result >> (bits - 1n)) & 1n ? FLAG.SF : 0) | (carry ? FLAG.CF : 0),
  );

type Result = { value: bigint; carry?: boolean };

/** ModRM.reg = f(ModRM.rm, VEX.vvvv), with flags if `f` gives a carry. */
const threeOperand =
  (f: (o: Operands, op: OpView) => Result): Helper =>
  (cpu, op) => {
    const o = operands(cpu, op);
    const { value, carry } = f(o, op);
    const result = BigInt.asUintN(Number(o.bits), value);
    cpu.writeRegister(op.a, op.size, result);
    if (carry !== undefined) setFlags(cpu, o.bits, result, carry);
  };

/** VEX.vvvv = f(ModRM.rm). */
const lowestBit =
  (f: (source: bigint) => bigint, carry: (source: bigint) => boolean): Helper =>
  (cpu, op) => {
    const { bits, source } = operands(cpu, op);
    const result = BigInt.asUintN(Number(bits), f(source));
    cpu.writeRegister(gpr(op.condition), op.size, result);
    setFlags(cpu, bits, result, carry(source));
  };

const count = (o: Operands): bigint => o.other & (o.bits - 1n);

/** Bits of `value` moved to (deposit) or from (extract) the places that `mask` marks. */
const scatter = (value: bigint, mask: bigint, deposit: boolean): bigint => {
  let result = 0n;
  let next = 0n;
  for (let place = 0n; mask >> place !== 0n; place++) {
    if (((mask >> place) & 1n) === 0n) continue;
    const [from, to] = deposit ? [next, place] : [place, next];
    result |= ((value >> from) & 1n) << to;
    next++;
  }
  return result;
};

const mulx: Helper = (cpu, op) => {
  const { bits, source } = operands(cpu, op);
  const product = source * cpu.readRegister(gpr(RDX), op.size);
  // The low half first: with one register for both, the high half stays.
  cpu.writeRegister(gpr(op.condition), op.size, BigInt.asUintN(Number(bits), product));
  cpu.writeRegister(op.a, op.size, product >> bits);
};

export const BMI_HELPERS: Readonly<Record<string, Helper>> = {
  andn: threeOperand(({ source, other }) => ({ value: ~other & source, carry: false })),
  bextr: threeOperand(({ source, other }) => {
    const length = (other >> 8n) & 0xffn;
    return { value: (source >> (other & 0xffn)) & ((1n << length) - 1n), carry: false };
  }),
  bzhi: threeOperand(({ bits, source, other }) => {
    const index = other & 0xffn;
    return index < bits
      ? { value: source & ((1n << index) - 1n), carry: false }
      : { value: source, carry: true };
  }),
  pext: threeOperand(({ source, other }) => ({ value: scatter(other, source, false) })),
  pdep: threeOperand(({ source, other }) => ({ value: scatter(other, source, true) })),
  shlx: threeOperand((o) => ({ value: o.source << count(o) })),
  shrx: threeOperand((o) => ({ value: o.source >> count(o) })),
  sarx: threeOperand((o) => ({ value: BigInt.asIntN(Number(o.bits), o.source) >> count(o) })),
  rorx: threeOperand(({ bits, source }, op) => {
    const n = op.immediate & (bits - 1n);
    return { value: (source >> n) | (source << (bits - n)) };
  }),
  mulx,
  blsr: lowestBit(
    (source) => (source - 1n) & source,
    (source) => source === 0n,
  ),
  blsmsk: lowestBit(
    (source) => (source - 1n) ^ source,
    (source) => source === 0n,
  ),
  blsi: lowestBit(
    (source) => -source & source,
    (source) => source !== 0n,
  ),
};
