/**
 * Shifts and rotates. The count is masked to 5 bits, 6 for 64-bit operands; a masked count of 0
 * changes no flag. OF is architecturally defined for counts of 1 only; for others it gets the same
 * formula, as processors do. AF is undefined and cleared.
 */
import type { Builder, Definition, Expr } from '../ir.ts';
import { RCX } from '../layout.ts';
import { bitOf, signOf } from './parts.ts';

const ALL = [1, 2, 4, 8] as const;

const maskedCount = (b: Builder, count: Expr): Expr => b.let(b.and(count, b.c(b.size === 8 ? 63 : 31)));

/** Count: the immediate ('ri', 'mi') or CL ('r', 'm'). */
const count = (b: Builder): Expr =>
  maskedCount(b, b.form === 'ri' || b.form === 'mi' ? b.imm() : b.reg(RCX, 1));

const shift = (
  name: string,
  apply: (
    b: Builder,
    x: Expr,
    n: Expr,
  ) => { result: Expr; carry: Expr; overflow: (r: Expr, cf: Expr) => Expr },
  rotate = false,
): Definition => ({
  name,
  forms: ['r', 'm', 'ri', 'mi'],
  sizes: ALL,
  build: (b) => {
    const x = b.dst();
    const n = count(b);
    const { result: value, carry, overflow } = apply(b, x, n);
    const result = b.let(value);
    const cf = b.let(carry);
    b.setDst(result);
    b.when(b.test(n), () => {
      b.setCarryOverflow(cf, b.let(overflow(result, cf)));
      if (!rotate) b.setFlagResult(result);
    });
  },
});

/** Rotation of the operand-size value; `n` already reduced. */
const rotated = (b: Builder, x: Expr, n: Expr, left: boolean): Expr => {
  if (b.size === 8) return left ? b.rotl(x, n) : b.rotr(x, n);
  const small = b.let(b.and(n, b.c(b.bits - 1)));
  const back = b.sub(b.c(b.bits), small);
  return left ? b.or(b.shl(x, small), b.shru(x, back)) : b.or(b.shru(x, small), b.shl(x, back));
};

/** RCL and RCR: rotation of CF:operand, one bit wider than the operand. */
const throughCarry = (b: Builder, x: Expr, nRaw: Expr, left: boolean): { value: Expr; carry: Expr } => {
  const cf = b.let(b.flag('cf'));
  if (b.size === 8) {
    // For n = 0 the wrapped shifts give x and the unused carry is not set.
    const n = nRaw;
    const back = b.let(b.sub(b.c(64), n));
    const value = left
      ? b.or(b.or(b.shl(x, n), b.shl(cf, b.sub(n, b.c(1)))), b.shru(b.shru(x, b.c(1)), back))
      : b.or(b.or(b.shru(x, n), b.shl(cf, back)), b.shl(b.shl(x, b.c(1)), back));
    const carry = left ? bitOf(b, x, back) : bitOf(b, x, b.sub(n, b.c(1)));
    const nonzero = b.test(n);
    return { value: b.select(nonzero, value, x), carry: b.select(nonzero, carry, cf) };
  }
  const width = b.bits + 1;
  const n = b.size < 4 ? b.let(b.remu(nRaw, b.c(width))) : nRaw;
  const wide = b.let(b.or(x, b.shl(cf, b.c(b.bits))));
  const back = b.sub(b.c(width), n);
  const turned = b.let(
    left ? b.or(b.shl(wide, n), b.shru(wide, back)) : b.or(b.shru(wide, n), b.shl(wide, back)),
  );
  return { value: b.zx(turned), carry: bitOf(b, turned, b.bits) };
};

/** OF of a left shift or rotate: sign of the result xor CF. */
const leftOverflow = (b: Builder) => (r: Expr, cf: Expr) => b.xor(signOf(b, r), cf);
/** OF of a right shift or rotate: the two top bits of the result differ. */
const rightOverflow = (b: Builder) => (r: Expr) => b.xor(signOf(b, r), bitOf(b, r, b.bits - 2));

/** SHLD, SHRD: `x` filled from `y`. A 16-bit operand with a count over 16 shifts x:y:x, as processors do. */
const double = (name: string, left: boolean, immediate: boolean): Definition => ({
  name,
  forms: ['rr', 'mr'],
  sizes: [2, 4, 8],
  build: (b) => {
    const x = b.dst();
    const y = b.src();
    const n = maskedCount(b, immediate ? b.imm() : b.reg(RCX, 1));
    let value: Expr;
    let carry: Expr;
    if (b.size === 8) {
      const back = b.sub(b.c(63), n);
      value = left
        ? b.or(b.shl(x, n), b.shru(b.shru(y, b.c(1)), back))
        : b.or(b.shru(x, n), b.shl(b.shl(y, b.c(1)), back));
      carry = left ? bitOf(b, x, b.sub(b.c(64), n)) : bitOf(b, x, b.sub(n, b.c(1)));
    } else if (b.size === 4) {
      const pair = b.let(left ? b.or(b.shl(x, b.c(32)), y) : b.or(b.shl(y, b.c(32)), x));
      value = left ? b.shru(b.shl(pair, n), b.c(32)) : b.shru(pair, n);
      carry = left ? bitOf(b, x, b.sub(b.c(32), n)) : bitOf(b, x, b.sub(n, b.c(1)));
    } else {
      const triple = b.let(b.or(b.or(b.shl(x, b.c(32)), b.shl(y, b.c(16))), x));
      value = left ? b.shru(b.shl(triple, n), b.c(32)) : b.shru(triple, n);
      carry = left ? bitOf(b, triple, b.sub(b.c(48), n)) : bitOf(b, triple, b.sub(n, b.c(1)));
    }
    const result = b.let(value);
    const cf = b.let(carry);
    b.setDst(result);
    b.when(b.test(n), () => {
      b.setCarryOverflow(cf, b.let(b.xor(signOf(b, result), signOf(b, x))));
      b.setFlagResult(result);
    });
  },
});

export const SHIFTS: readonly Definition[] = [
  shift('shl', (b, x, n) => ({
    result: b.shl(x, n),
    // Bit bits-n of x; for counts over the operand size nothing is left of it.
    carry: b.size === 8 ? bitOf(b, x, b.sub(b.c(64), n)) : bitOf(b, b.shl(x, n), b.bits),
    overflow: leftOverflow(b),
  })),
  shift('shr', (b, x, n) => ({
    result: b.shru(x, n),
    carry: bitOf(b, x, b.sub(n, b.c(1))),
    overflow: rightOverflow(b),
  })),
  shift('sar', (b, x, n) => {
    const signed = b.let(b.sx(x));
    return {
      result: b.zx(b.shrs(signed, n)),
      carry: b.and(b.shrs(signed, b.sub(n, b.c(1))), b.c(1)),
      overflow: () => b.c(0),
    };
  }),
  shift(
    'rol',
    (b, x, n) => {
      const result = b.let(b.zx(rotated(b, x, n, true)));
      return { result, carry: b.and(result, b.c(1)), overflow: leftOverflow(b) };
    },
    true,
  ),
  shift(
    'ror',
    (b, x, n) => {
      const result = b.let(b.zx(rotated(b, x, n, false)));
      return { result, carry: signOf(b, result), overflow: rightOverflow(b) };
    },
    true,
  ),
  shift(
    'rcl',
    (b, x, n) => {
      const { value, carry } = throughCarry(b, x, n, true);
      return { result: value, carry, overflow: leftOverflow(b) };
    },
    true,
  ),
  shift(
    'rcr',
    (b, x, n) => {
      const { value, carry } = throughCarry(b, x, n, false);
      return { result: value, carry, overflow: rightOverflow(b) };
    },
    true,
  ),
  double('shld', true, true),
  double('shld_cl', true, false),
  double('shrd', false, true),
  double('shrd_cl', false, false),
];
