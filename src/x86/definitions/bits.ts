/** Single bits, bit scans and counts, and the flag instructions. */
import type { Builder, Definition, Expr } from '../ir.ts';
import { FLAG, RAX, STATE } from '../layout.ts';
import { setOnlyZero } from './parts.ts';

const WORDS = [2, 4, 8] as const;

/**
 * BT, BTS, BTR, BTC. A register index into memory addresses a bit string: the operand moves by the
 * signed index divided by the operand size (APM vol. 3, BT). Only CF changes.
 */
const bitTest = (name: string, change?: (b: Builder, x: Expr, bit: Expr) => Expr): Definition => ({
  name,
  forms: ['rr', 'ri', 'mr', 'mi'],
  sizes: WORDS,
  modes: true,
  build: (b) => {
    const index = b.form === 'ri' || b.form === 'mi' ? b.imm() : b.let(b.reg('b'));
    if (b.form === 'mr') {
      const unit = b.size === 2 ? 4 : b.size === 4 ? 5 : 6;
      const units = b.shrs(b.sx(index), b.c(unit));
      b.displaceEa(b.mul(units, b.c(b.size)));
    }
    const x = change === undefined ? b.readDst() : b.dst();
    const n = b.let(b.and(index, b.c(b.bits - 1)));
    const carry = b.let(b.and(b.shru(x, n), b.c(1)));
    if (change !== undefined) b.setDst(change(b, x, b.shl(b.c(1), n)));
    b.setCarry(carry);
  },
});

/** BSF, BSR: the destination stays when the source is 0; ZF says so, other flags are undefined. */
const scan = (name: string, find: (b: Builder, x: Expr) => Expr): Definition => ({
  name,
  forms: ['rr', 'rm'],
  sizes: WORDS,
  build: (b) => {
    const x = b.src();
    b.when(b.test(x), () => b.setReg('a', find(b, x)));
    b.setFlagResult(x);
    b.setCarryOverflow(b.c(0), b.c(0));
  },
});

/** TZCNT, LZCNT: CF = source is 0, ZF = result is 0. */
const countZeros = (name: string, find: (b: Builder, x: Expr) => Expr): Definition => ({
  name,
  forms: ['rr', 'rm'],
  sizes: WORDS,
  build: (b) => {
    const x = b.src();
    const result = b.let(find(b, x));
    const carry = b.let(b.bool(b.eq(x, b.c(0))));
    b.setReg('a', result);
    b.setFlagResult(result);
    b.setCarryOverflow(carry, b.c(0));
  },
});

const setCarryTo = (name: string, value: (b: Builder) => Expr): Definition => ({
  name,
  forms: ['none'],
  sizes: [1],
  build: (b) => b.setCarry(value(b)),
});

const direction = (name: string, set: boolean): Definition => ({
  name,
  forms: ['none'],
  sizes: [1],
  build: (b) => {
    const flags = b.field(STATE.systemFlags, 4);
    b.setField(
      STATE.systemFlags,
      4,
      set ? b.or(flags, b.c(FLAG.DF)) : b.and(flags, b.c(0xffff_ffff - FLAG.DF)),
    );
  },
});

export const BITS: readonly Definition[] = [
  bitTest('bt'),
  bitTest('bts', (b, x, bit) => b.or(x, bit)),
  bitTest('btr', (b, x, bit) => b.and(x, b.not(bit))),
  bitTest('btc', (b, x, bit) => b.xor(x, bit)),
  scan('bsf', (b, x) => b.ctz(x)),
  scan('bsr', (b, x) => b.sub(b.c(63), b.clz(x))),
  // A guard bit above the operand gives the operand size for 0.
  countZeros('tzcnt', (b, x) => b.ctz(b.size === 8 ? x : b.or(x, b.c(1n << BigInt(b.bits))))),
  countZeros('lzcnt', (b, x) => b.sub(b.clz(x), b.c(64 - b.bits))),
  {
    name: 'popcnt',
    forms: ['rr', 'rm'],
    sizes: WORDS,
    build: (b) => {
      const x = b.src();
      b.setReg('a', b.popcnt(x));
      setOnlyZero(b, x);
    },
  },
  setCarryTo('clc', (b) => b.c(0)),
  setCarryTo('stc', (b) => b.c(1)),
  setCarryTo('cmc', (b) => b.xor(b.flag('cf'), b.c(1))),
  direction('cld', false),
  direction('std', true),
  {
    name: 'lahf',
    forms: ['none'],
    sizes: [1],
    build: (b) => {
      const at = (name: 'cf' | 'pf' | 'af' | 'zf' | 'sf', bit: number): Expr => b.shl(b.flag(name), b.c(bit));
      const low = b.or(b.or(b.flag('cf'), b.c(2)), b.or(at('pf', 2), at('af', 4)));
      b.setHighByte(RAX, b.or(low, b.or(at('zf', 6), at('sf', 7))));
    },
  },
  {
    name: 'sahf',
    forms: ['none'],
    sizes: [1],
    build: (b) => {
      const overflow = b.shl(b.flag('of'), b.c(11));
      b.setFlagsImage(b.or(b.and(b.highByte(RAX), b.c(0xd5)), overflow));
    },
  },
];
