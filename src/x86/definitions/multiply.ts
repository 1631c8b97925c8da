/** MUL, IMUL, DIV, IDIV. SF, ZF, AF and PF are undefined after them (see undefined-flags.ts) and stay. */
import type { Builder, Definition, Expr } from '../ir.ts';
import { RAX, RDX } from '../layout.ts';
import { wideDivide, wideMultiply, wideMultiplySigned } from './parts.ts';

const ALL = [1, 2, 4, 8] as const;
const DIVIDE_ERROR = 0;

/** rDX:rAX (AX for bytes) = product; CF = OF = "the upper half is significant". */
const multiply = (name: string, signed: boolean): Definition => ({
  name,
  forms: ['r', 'm'],
  sizes: ALL,
  build: (b) => {
    const read = (value: Expr): Expr => b.let(signed ? b.sx(value) : value);
    const y = read(b.readDst());
    const x = read(b.reg(RAX));
    let significant: Expr;
    if (b.size === 8) {
      const { low, high } = signed ? wideMultiplySigned(b, x, y) : wideMultiply(b, x, y);
      b.setReg(RAX, low);
      b.setReg(RDX, high);
      significant = b.ne(high, signed ? b.shrs(low, b.c(63)) : b.c(0));
    } else {
      const product = b.let(b.mul(x, y));
      if (b.size === 1) b.setReg(RAX, product, 2);
      else {
        b.setReg(RAX, product);
        b.setReg(RDX, b.shru(product, b.c(b.bits)));
      }
      significant = b.ne(product, signed ? b.sx(product) : b.zx(product));
    }
    const flag = b.let(b.bool(significant));
    b.setCarryOverflow(flag, flag);
  },
});

const truncatingMultiply = (b: Builder, xRaw: Expr, yRaw: Expr): void => {
  const x = b.let(b.sx(xRaw));
  const y = b.let(b.sx(yRaw));
  let flag: Expr;
  if (b.size === 8) {
    const { low, high } = wideMultiplySigned(b, x, y);
    b.setReg('a', low);
    flag = b.let(b.bool(b.ne(high, b.shrs(low, b.c(63)))));
  } else {
    const product = b.let(b.mul(x, y));
    b.setReg('a', product);
    flag = b.let(b.bool(b.ne(product, b.sx(product))));
  }
  b.setCarryOverflow(flag, flag);
};

const divideError = (b: Builder, condition: Expr): void => b.when(condition, () => b.raise(DIVIDE_ERROR));

/** Quotient and remainder go to AL, AH for bytes, rAX, rDX otherwise. */
const setQuotient = (b: Builder, quotient: Expr, remainder: Expr): void => {
  b.setReg(RAX, quotient);
  if (b.size === 1) b.setHighByte(RAX, remainder);
  else b.setReg(RDX, remainder);
};

/** The dividend of up to 64 bits: AX, DX:AX or EDX:EAX. */
const dividend = (b: Builder): Expr =>
  b.let(b.size === 1 ? b.reg(RAX, 2) : b.or(b.reg(RAX), b.shl(b.reg(RDX), b.c(b.bits))));

const divide = (b: Builder): void => {
  const divisor = b.readDst();
  if (b.size < 8) {
    divideError(b, b.eq(divisor, b.c(0)));
    const n = dividend(b);
    const quotient = b.let(b.divu(n, divisor));
    divideError(b, b.ne(quotient, b.zx(quotient)));
    setQuotient(b, quotient, b.let(b.remu(n, divisor)));
    return;
  }
  const high = b.let(b.reg(RDX));
  const low = b.let(b.reg(RAX));
  // Also true for a divisor of 0: the quotient has 64 bits exactly when high < divisor.
  divideError(b, b.isZero(b.ltu(high, divisor)));
  b.when(
    b.eq(high, b.c(0)),
    () => {
      const quotient = b.let(b.divu(low, divisor));
      setQuotient(b, quotient, b.let(b.sub(low, b.mul(quotient, divisor))));
    },
    () => {
      const { quotient, remainder } = wideDivide(b, high, low, divisor);
      setQuotient(b, quotient, remainder);
    },
  );
};

const divideSigned = (b: Builder): void => {
  const divisor = b.let(b.sx(b.readDst()));
  if (b.size < 8) {
    divideError(b, b.eq(divisor, b.c(0)));
    const raw = dividend(b);
    const n = b.let(b.size === 1 ? b.sx(raw, 2) : b.size === 2 ? b.sx(raw, 4) : raw);
    // The one quotient WebAssembly itself traps on.
    if (b.size === 4) divideError(b, b.and(b.eq(divisor, b.c(-1)), b.eq(n, b.c(-(1n << 63n)))));
    const quotient = b.let(b.divs(n, divisor));
    divideError(b, b.ne(quotient, b.sx(quotient)));
    setQuotient(b, quotient, b.let(b.rems(n, divisor)));
    return;
  }
  divideError(b, b.eq(divisor, b.c(0)));
  const high = b.let(b.reg(RDX));
  const low = b.let(b.reg(RAX));
  const easy = b.and(b.eq(high, b.shrs(low, b.c(63))), b.ne(divisor, b.c(-1)));
  b.when(
    easy,
    () => {
      const quotient = b.let(b.divs(low, divisor));
      setQuotient(b, quotient, b.let(b.sub(low, b.mul(quotient, divisor))));
    },
    () => {
      // Magnitudes, unsigned division, signs back.
      const sign = b.let(b.shrs(high, b.c(63)));
      const divisorSign = b.let(b.shrs(divisor, b.c(63)));
      const negate = (value: Expr, mask: Expr): Expr => b.sub(b.xor(value, mask), mask);
      const lowMagnitude = b.let(negate(low, sign));
      const borrow = b.and(b.bool(b.ne(low, b.c(0))), b.c(1));
      // -(high:low): the upper half is ~high, plus 1 when low is 0.
      const highNegated = b.sub(b.sub(b.c(0), high), borrow);
      const highMagnitude = b.let(b.select(b.test(sign), highNegated, high));
      const divisorMagnitude = b.let(negate(divisor, divisorSign));
      divideError(b, b.isZero(b.ltu(highMagnitude, divisorMagnitude)));
      const { quotient, remainder } = wideDivide(b, highMagnitude, lowMagnitude, divisorMagnitude);
      const resultSign = b.let(b.xor(sign, divisorSign));
      const result = b.let(negate(quotient, resultSign));
      // Fits unless the signed quotient lost its sign; a quotient of 0 has none.
      divideError(b, b.and(b.ne(quotient, b.c(0)), b.ne(b.shrs(result, b.c(63)), resultSign)));
      setQuotient(b, result, negate(remainder, sign));
    },
  );
};

export const MULTIPLY: readonly Definition[] = [
  multiply('mul', false),
  multiply('imul1', true),
  {
    name: 'imul',
    forms: ['rr', 'rm'],
    sizes: [2, 4, 8],
    build: (b) => {
      const y = b.src();
      truncatingMultiply(b, b.reg('a'), y);
    },
  },
  {
    name: 'imul3',
    forms: ['rr', 'rm'],
    sizes: [2, 4, 8],
    build: (b) => truncatingMultiply(b, b.src(), b.imm()),
  },
  { name: 'div', forms: ['r', 'm'], sizes: ALL, build: divide },
  { name: 'idiv', forms: ['r', 'm'], sizes: ALL, build: divideSigned },
];
