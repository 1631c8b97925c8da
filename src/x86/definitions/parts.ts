/** Expressions that several definitions share. */
import type { Builder, Expr } from '../ir.ts';
import { CS, STATE, segment } from '../layout.ts';
import type { OperandSize } from '../microop.ts';

/** The lower `size` bytes in reverse order. */
export const swapBytes = (b: Builder, value: Expr, size: OperandSize): Expr => {
  const swapPairs = (v: Expr, mask: bigint, by: number): Expr =>
    b.let(b.or(b.and(b.shru(v, b.c(by)), b.c(mask)), b.shl(b.and(v, b.c(mask)), b.c(by))));
  const pairs = swapPairs(value, 0x00ff00ff00ff00ffn, 8);
  const words = swapPairs(pairs, 0x0000ffff0000ffffn, 16);
  const all = b.rotl(words, b.c(32));
  return size === 8 ? all : b.shru(all, b.c(64 - size * 8));
};

/** Bit `index` of a value as i64 0 or 1. */
export const bitOf = (b: Builder, value: Expr, index: number | Expr): Expr =>
  b.and(b.shru(value, typeof index === 'number' ? b.c(index) : index), b.c(1));

/** Sign bit of a value of the operand size. */
export const signOf = (b: Builder, value: Expr): Expr => bitOf(b, value, b.bits - 1);

/** ZF alone from a value, every other arithmetic flag clear (POPCNT). */
export const setOnlyZero = (b: Builder, value: Expr): void => {
  const zero = b.let(b.bool(b.eq(value, b.c(0))));
  // Result 1 has odd parity; for a zero result the parity correction makes it odd.
  b.setField(STATE.flagResult, 8, b.xor(zero, b.c(1)));
  b.setField(STATE.flagMisc, 4, b.shl(zero, b.c(8)));
  b.setField(STATE.flagCarry, 8, b.c(0));
};

/** Product of two 64-bit values as low and high halves, from 32-bit parts. */
export const wideMultiply = (b: Builder, x: Expr, y: Expr): { low: Expr; high: Expr } => {
  const mask = b.c(0xffff_ffffn);
  const x0 = b.let(b.and(x, mask));
  const x1 = b.let(b.shru(x, b.c(32)));
  const y0 = b.let(b.and(y, mask));
  const y1 = b.let(b.shru(y, b.c(32)));
  const lowest = b.let(b.mul(x0, y0));
  const cross = b.let(b.add(b.mul(x1, y0), b.shru(lowest, b.c(32))));
  const other = b.let(b.add(b.mul(x0, y1), b.and(cross, mask)));
  const high = b.let(b.add(b.mul(x1, y1), b.add(b.shru(cross, b.c(32)), b.shru(other, b.c(32)))));
  return { low: b.let(b.mul(x, y)), high };
};

/** The same for signed values: the high half corrected. */
export const wideMultiplySigned = (b: Builder, x: Expr, y: Expr): { low: Expr; high: Expr } => {
  const { low, high } = wideMultiply(b, x, y);
  const fromX = b.and(b.shrs(x, b.c(63)), y);
  const fromY = b.and(b.shrs(y, b.c(63)), x);
  return { low, high: b.let(b.sub(b.sub(high, fromX), fromY)) };
};

/**
 * (high:low) / divisor for high < divisor, so that the quotient has 64 bits: two digits of 32 bits
 * by Knuth's algorithm D (TAOCP vol. 2, §4.3.1), without a loop. Locals are assigned, nothing faults.
 */
export const wideDivide = (
  b: Builder,
  high: Expr,
  low: Expr,
  divisor: Expr,
): { quotient: Expr; remainder: Expr } => {
  const mask = b.c(0xffff_ffffn);
  const half = b.c(32);
  const shift = b.let(b.clz(divisor));
  const v = b.let(b.shl(divisor, shift));
  const v1 = b.let(b.shru(v, half));
  const v0 = b.let(b.and(v, mask));
  // (low >> 1) >> (63 - shift) is low >> (64 - shift), also for a shift of 0.
  const u32 = b.let(b.or(b.shl(high, shift), b.shru(b.shru(low, b.c(1)), b.sub(b.c(63), shift))));
  const u10 = b.let(b.shl(low, shift));
  const u1 = b.let(b.shru(u10, half));
  const u0 = b.let(b.and(u10, mask));
  const digit = (numerator: Expr, nextDigit: Expr): Expr => {
    const q = b.let(b.divu(numerator, v1));
    const rest = b.let(b.sub(numerator, b.mul(q, v1)));
    // Conditions are i32: "q too large" = q >= 2^32 or q*v0 > rest*2^32 + nextDigit.
    const tooLarge = (): Expr =>
      b.or(b.gtu(q, mask), b.gtu(b.mul(q, v0), b.or(b.shl(rest, half), nextDigit)));
    const correct = (): void => {
      b.assign(q, b.sub(q, b.c(1)));
      b.assign(rest, b.add(rest, v1));
    };
    b.when(tooLarge(), () => {
      correct();
      b.when(b.and(b.gtu(b.c(0x1_0000_0000n), rest), tooLarge()), correct);
    });
    return q;
  };
  const q1 = digit(u32, u1);
  const u21 = b.let(b.sub(b.or(b.shl(u32, half), u1), b.mul(q1, v)));
  const q0 = digit(u21, u0);
  const remainder = b.let(b.shru(b.sub(b.or(b.shl(u21, half), u0), b.mul(q0, v)), shift));
  return { quotient: b.let(b.add(b.shl(q1, half), q0)), remainder };
};

/**
 * #GP(0) for a branch target that is not canonical, or outside CS in the legacy modes: the branch
 * instruction itself faults (APM vol. 3, near branches).
 */
export const checkTarget = (b: Builder, target: Expr): void => {
  if (b.legacy) {
    const limit = b.field(segment(CS) + 4, 4);
    b.when(b.gtu(target, limit), () => b.raise(13, 0));
  } else if (b.size === 8) {
    const extended = b.shrs(b.shl(target, b.c(16)), b.c(16));
    b.when(b.ne(extended, target), () => b.raise(13, 0));
  }
};
