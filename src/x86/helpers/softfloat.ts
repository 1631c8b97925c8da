/**
 * IEEE 754 arithmetic on bit patterns, exact in results and exception flags for every rounding mode,
 * DAZ and FTZ (APM vol. 1, §4.6 and §4.7). Values are exact integers times powers of two until one
 * rounding at the end. Slower than the host's own arithmetic, and the same everywhere.
 */

export const EXCEPTION = { IE: 1, DE: 2, ZE: 4, OE: 8, UE: 0x10, PE: 0x20 } as const;
const MXCSR_DAZ = 0x40;
const MXCSR_OM = 0x400;
const MXCSR_UM = 0x800;
const MXCSR_FTZ = 0x8000;
const MASK_SHIFT = 7;

/** MXCSR.RC. */
export const ROUND = { nearest: 0, down: 1, up: 2, zero: 3 } as const;

export interface Format {
  readonly bits: number;
  /** Bits of the fraction field. */
  readonly fraction: number;
  readonly bias: number;
}
export const SINGLE: Format = { bits: 32, fraction: 23, bias: 127 };
export const DOUBLE: Format = { bits: 64, fraction: 52, bias: 1023 };

interface Value {
  readonly sign: bigint;
  readonly kind: 'zero' | 'finite' | 'infinity' | 'nan';
  /** Value = mantissa * 2^exponent. */
  readonly mantissa: bigint;
  readonly exponent: number;
  readonly denormal: boolean;
  readonly signaling: boolean;
  readonly raw: bigint;
}

const quietBit = (f: Format): bigint => 1n << BigInt(f.fraction - 1);
const exponentField = (f: Format): bigint =>
  ((1n << BigInt(f.bits - 1 - f.fraction)) - 1n) << BigInt(f.fraction);
const signBit = (f: Format, sign: bigint): bigint => sign << BigInt(f.bits - 1);
export const defaultNan = (f: Format): bigint => signBit(f, 1n) | exponentField(f) | quietBit(f);
const infinity = (f: Format, sign: bigint): bigint => signBit(f, sign) | exponentField(f);

const bitLength = (value: bigint): number => {
  const text = value.toString(16);
  return (text.length - 1) * 4 + (32 - Math.clz32(parseInt(text[0]!, 16)));
};

/** Largest integer whose square is at most `value`. */
const integerSquareRoot = (value: bigint): bigint => {
  if (value < 2n) return value;
  let x = 1n << BigInt((bitLength(value) + 1) >> 1);
  for (;;) {
    const next = (x + value / x) >> 1n;
    if (next >= x) return x;
    x = next;
  }
};

/** One instruction's floating-point environment; collects the exception flags of all its lanes. */
export class FloatUnit {
  flags = 0;
  readonly rounding: number;
  readonly #mxcsr: number;

  constructor(mxcsr: number) {
    this.#mxcsr = mxcsr;
    this.rounding = (mxcsr >> 13) & 3;
  }

  /** Flags raised whose exception is not masked. */
  get unmasked(): number {
    return this.flags & ~(this.#mxcsr >> MASK_SHIFT) & 0x3f;
  }

  #unpack(f: Format, raw: bigint): Value {
    const sign = (raw >> BigInt(f.bits - 1)) & 1n;
    const fraction = raw & ((1n << BigInt(f.fraction)) - 1n);
    const field = Number((raw & exponentField(f)) >> BigInt(f.fraction));
    const maximum = 2 * f.bias + 1;
    const base = { sign, raw, denormal: false, signaling: false, mantissa: 0n, exponent: 0 };
    if (field === maximum) {
      if (fraction === 0n) return { ...base, kind: 'infinity' };
      return { ...base, kind: 'nan', signaling: (fraction & quietBit(f)) === 0n };
    }
    if (field === 0) {
      if (fraction === 0n) return { ...base, kind: 'zero' };
      if (this.#mxcsr & MXCSR_DAZ) return { ...base, kind: 'zero', raw: signBit(f, sign) };
      return {
        ...base,
        kind: 'finite',
        denormal: true,
        mantissa: fraction,
        exponent: 1 - f.bias - f.fraction,
      };
    }
    return {
      ...base,
      kind: 'finite',
      mantissa: fraction | (1n << BigInt(f.fraction)),
      exponent: field - f.bias - f.fraction,
    };
  }

  /** Result if an operand is a NaN (the first one, quieted), else undefined. */
  #nan(f: Format, a: Value, b: Value): bigint | undefined {
    if (a.kind !== 'nan' && b.kind !== 'nan') return undefined;
    if (a.signaling || b.signaling) this.flags |= EXCEPTION.IE;
    return (a.kind === 'nan' ? a : b).raw | quietBit(f);
  }
  #invalid(f: Format): bigint {
    this.flags |= EXCEPTION.IE;
    return defaultNan(f);
  }
  #noteDenormal(...values: Value[]): void {
    if (values.some((v) => v.denormal)) this.flags |= EXCEPTION.DE;
  }

  /** mantissa / 2^n rounded to an integer. */
  #roundShift(
    mantissa: bigint,
    n: number,
    sign: bigint,
    rounding: number,
  ): { value: bigint; inexact: boolean } {
    if (n <= 0) return { value: mantissa << BigInt(-n), inexact: false };
    const shift = BigInt(n);
    const value = mantissa >> shift;
    const rest = mantissa - (value << shift);
    if (rest === 0n) return { value, inexact: false };
    let up: boolean;
    if (rounding === ROUND.nearest) {
      const half = 1n << (shift - 1n);
      up = rest > half || (rest === half && (value & 1n) === 1n);
    } else up = rounding === ROUND.up ? sign === 0n : rounding === ROUND.down && sign === 1n;
    return { value: up ? value + 1n : value, inexact: true };
  }

  /** Rounds mantissa * 2^exponent (mantissa not 0) into the format. */
  #pack(f: Format, sign: bigint, mantissa: bigint, exponent: number): bigint {
    const precision = f.fraction + 1;
    const length = bitLength(mantissa);
    const lowest = 1 - f.bias;
    const unbounded = this.#roundShift(mantissa, length - precision, sign, this.rounding);
    // Rounding up may carry into one more bit.
    const carried = unbounded.value >> BigInt(precision) ? 1 : 0;
    const magnitude = exponent + length - 1 + carried;
    if (magnitude < lowest || exponent + length - 1 < lowest) {
      const tiny = magnitude < lowest;
      const maskedUnderflow = (this.#mxcsr & MXCSR_UM) !== 0;
      if (tiny && maskedUnderflow && this.#mxcsr & MXCSR_FTZ) {
        this.flags |= EXCEPTION.UE | EXCEPTION.PE;
        return signBit(f, sign);
      }
      const { value, inexact } = this.#roundShift(
        mantissa,
        lowest - f.fraction - exponent,
        sign,
        this.rounding,
      );
      if (tiny && !maskedUnderflow) {
        // The handler would get the result of an unbounded exponent: exact or not as that one is.
        this.flags |= EXCEPTION.UE | (unbounded.inexact ? EXCEPTION.PE : 0);
      } else if (inexact) this.flags |= tiny ? EXCEPTION.UE | EXCEPTION.PE : EXCEPTION.PE;
      return signBit(f, sign) | value;
    }
    if (magnitude > f.bias) {
      const masked = (this.#mxcsr & MXCSR_OM) !== 0;
      this.flags |= EXCEPTION.OE | (masked || unbounded.inexact ? EXCEPTION.PE : 0);
      const away = this.rounding === ROUND.nearest || this.rounding === (sign ? ROUND.down : ROUND.up);
      return away ? infinity(f, sign) : infinity(f, sign) - 1n;
    }
    if (unbounded.inexact) this.flags |= EXCEPTION.PE;
    const fraction = (carried ? unbounded.value >> 1n : unbounded.value) & ((1n << BigInt(f.fraction)) - 1n);
    return signBit(f, sign) | (BigInt(magnitude + f.bias) << BigInt(f.fraction)) | fraction;
  }

  add(f: Format, x: bigint, y: bigint, subtract = false): bigint {
    const a = this.#unpack(f, x);
    let b = this.#unpack(f, y);
    const nan = this.#nan(f, a, b);
    if (nan !== undefined) return nan;
    if (subtract) b = { ...b, sign: b.sign ^ 1n, raw: b.raw ^ signBit(f, 1n) };
    if (a.kind === 'infinity' && b.kind === 'infinity' && a.sign !== b.sign) return this.#invalid(f);
    this.#noteDenormal(a, b);
    if (a.kind === 'infinity') return a.raw;
    if (b.kind === 'infinity') return b.raw;
    const exponent = Math.min(
      a.kind === 'zero' ? b.exponent : a.exponent,
      b.kind === 'zero' ? a.exponent : b.exponent,
    );
    const term = (v: Value): bigint => {
      if (v.kind === 'zero') return 0n;
      const magnitude = v.mantissa << BigInt(v.exponent - exponent);
      return v.sign ? -magnitude : magnitude;
    };
    const sum = term(a) + term(b);
    if (sum === 0n) {
      const sign = a.sign === b.sign ? a.sign : this.rounding === ROUND.down ? 1n : 0n;
      return signBit(f, sign);
    }
    return this.#pack(f, sum < 0n ? 1n : 0n, sum < 0n ? -sum : sum, exponent);
  }

  multiply(f: Format, x: bigint, y: bigint): bigint {
    const a = this.#unpack(f, x);
    const b = this.#unpack(f, y);
    const nan = this.#nan(f, a, b);
    if (nan !== undefined) return nan;
    const infinite = a.kind === 'infinity' || b.kind === 'infinity';
    const zero = a.kind === 'zero' || b.kind === 'zero';
    if (infinite && zero) return this.#invalid(f);
    this.#noteDenormal(a, b);
    const sign = a.sign ^ b.sign;
    if (infinite) return infinity(f, sign);
    if (zero) return signBit(f, sign);
    return this.#pack(f, sign, a.mantissa * b.mantissa, a.exponent + b.exponent);
  }

  divide(f: Format, x: bigint, y: bigint): bigint {
    const a = this.#unpack(f, x);
    const b = this.#unpack(f, y);
    const nan = this.#nan(f, a, b);
    if (nan !== undefined) return nan;
    if (a.kind === b.kind && a.kind !== 'finite') return this.#invalid(f);
    const sign = a.sign ^ b.sign;
    if (b.kind === 'zero' && a.kind === 'finite') {
      // Takes the place of a denormal dividend's DE.
      this.flags |= EXCEPTION.ZE;
      return infinity(f, sign);
    }
    this.#noteDenormal(a, b);
    if (a.kind === 'infinity') return infinity(f, sign);
    if (b.kind === 'infinity' || a.kind === 'zero') return signBit(f, sign);
    // Enough bits for rounding, and a last one that says whether anything is left.
    const shift = f.fraction + 4 + Math.max(0, bitLength(b.mantissa) - bitLength(a.mantissa));
    const numerator = a.mantissa << BigInt(shift);
    const quotient = numerator / b.mantissa;
    const sticky = quotient * b.mantissa === numerator ? 0n : 1n;
    return this.#pack(f, sign, (quotient << 1n) | sticky, a.exponent - b.exponent - shift - 1);
  }

  squareRoot(f: Format, x: bigint): bigint {
    const a = this.#unpack(f, x);
    const nan = this.#nan(f, a, a);
    if (nan !== undefined) return nan;
    if (a.kind === 'zero') return a.raw;
    if (a.sign) return this.#invalid(f);
    this.#noteDenormal(a);
    if (a.kind === 'infinity') return a.raw;
    let shift = 2 * f.fraction + 8;
    if ((a.exponent - shift) & 1) shift++;
    const scaled = a.mantissa << BigInt(shift);
    const root = integerSquareRoot(scaled);
    const sticky = root * root === scaled ? 0n : 1n;
    return this.#pack(f, 0n, (root << 1n) | sticky, (a.exponent - shift) / 2 - 1);
  }

  /** MIN and MAX: the second operand unless the first is strictly less (greater). */
  extreme(f: Format, x: bigint, y: bigint, maximum: boolean): bigint {
    const order = this.compare(f, x, y, true);
    const second = this.#unpack(f, y).raw;
    if (order === undefined || order === 0) return second;
    return order < 0 === maximum ? second : this.#unpack(f, x).raw;
  }

  /** -1, 0, 1, or undefined if unordered. IE for signaling NaNs, and for quiet ones if `strict`. */
  compare(f: Format, x: bigint, y: bigint, strict: boolean): number | undefined {
    const a = this.#unpack(f, x);
    const b = this.#unpack(f, y);
    if (a.kind === 'nan' || b.kind === 'nan') {
      if (strict || a.signaling || b.signaling) this.flags |= EXCEPTION.IE;
      return undefined;
    }
    this.#noteDenormal(a, b);
    // Sign and magnitude as a number: +0 and -0 are equal.
    const key = (v: Value): bigint => {
      const magnitude = v.raw & (signBit(f, 1n) - 1n);
      return v.sign ? -magnitude : magnitude;
    };
    const difference = key(a) - key(b);
    return difference < 0n ? -1 : difference > 0n ? 1 : 0;
  }

  /** To a signed integer of `bits`; the integer indefinite value if it does not fit. */
  toInteger(f: Format, x: bigint, bits: number, truncate: boolean): bigint {
    const a = this.#unpack(f, x);
    const top = 1n << BigInt(bits - 1);
    if (a.kind === 'zero') return 0n;
    if (a.kind === 'finite') {
      const rounding = truncate ? ROUND.zero : this.rounding;
      // Beyond any integer: no need to build it.
      if (a.exponent + bitLength(a.mantissa) <= bits + 1) {
        const { value, inexact } = this.#roundShift(a.mantissa, -a.exponent, a.sign, rounding);
        if (a.sign ? value <= top : value < top) {
          if (inexact) this.flags |= EXCEPTION.PE;
          return BigInt.asUintN(bits, a.sign ? -value : value);
        }
      }
    }
    this.flags |= EXCEPTION.IE;
    return top;
  }

  /** ROUNDxx: to an integral value; `rounding` of the instruction, PE only if `exact`. */
  toIntegral(f: Format, x: bigint, rounding: number, exact: boolean): bigint {
    const a = this.#unpack(f, x);
    if (a.kind === 'nan') return this.#nan(f, a, a)!;
    if (a.kind !== 'finite' || a.exponent >= 0) return a.raw;
    const { value, inexact } = this.#roundShift(a.mantissa, -a.exponent, a.sign, rounding);
    if (inexact && exact) this.flags |= EXCEPTION.PE;
    return value === 0n ? signBit(f, a.sign) : this.#pack(f, a.sign, value, 0);
  }

  fromInteger(f: Format, value: bigint): bigint {
    if (value === 0n) return 0n;
    return this.#pack(f, value < 0n ? 1n : 0n, value < 0n ? -value : value, 0);
  }

  convert(from: Format, to: Format, x: bigint): bigint {
    const a = this.#unpack(from, x);
    if (a.kind === 'nan') {
      if (a.signaling) this.flags |= EXCEPTION.IE;
      const fraction = a.raw & ((1n << BigInt(from.fraction)) - 1n);
      const shift = BigInt(to.fraction - from.fraction);
      const moved = shift < 0n ? fraction >> -shift : fraction << shift;
      return signBit(to, a.sign) | exponentField(to) | quietBit(to) | moved;
    }
    if (a.kind === 'infinity') return infinity(to, a.sign);
    if (a.kind === 'zero') return signBit(to, a.sign);
    this.#noteDenormal(a);
    return this.#pack(to, a.sign, a.mantissa, a.exponent);
  }
}
