/** SSE data movement (APM vol. 4). Names shared by equal instructions: see decode/map-sse.ts. */
import type { Builder, Definition, Expr } from '../ir.ts';
import type { Form } from '../microop.ts';
import { alignedSource, interleaved, lanes, requireAligned, requireSse, scalarSource } from './sse-parts.ts';

const define = (
  name: string,
  forms: readonly Form[],
  build: (b: Builder) => void,
  sizes: Definition['sizes'] = [16],
): Definition => ({
  name,
  forms,
  sizes,
  build: (b) => {
    requireSse(b);
    build(b);
  },
});

const low = (b: Builder, register: 'a' | 'b'): Expr => b.lane64(b.xmm(register), 0);
const high = (b: Builder, register: 'a' | 'b'): Expr => b.lane64(b.xmm(register), 1);

const fullMove = (name: string, aligned: boolean): Definition =>
  define(name, ['rr', 'rm', 'mr'], (b) => {
    if (aligned && b.form !== 'rr') requireAligned(b);
    if (b.form === 'mr') b.store(b.ea(), 16, b.let(b.xmm('b')));
    // The operands of 'rr' are in the order of the encoding used: `a` is the destination.
    else b.setXmm('a', b.xmmSrc());
  });

/** MOVSS, MOVSD: a load clears the rest of the register, a register move keeps it. */
const scalarMove = (name: string, bytes: 4 | 8): Definition =>
  define(name, ['rr', 'rm', 'mr'], (b) => {
    if (b.form === 'mr') return b.store(b.ea(), bytes, b.let(low(b, 'b')));
    const value = scalarSource(b, bytes);
    if (b.form === 'rm') return b.setXmm('a', b.vector(value, b.c(0)));
    const kept = bytes === 8 ? value : b.or(b.and(low(b, 'a'), b.c(-(1n << 32n))), value);
    b.setXmm('a', b.vector(kept, high(b, 'a')));
  });

const shuffled = (name: string, pattern: readonly number[]): Definition =>
  define(name, ['rr', 'rm'], (b) => {
    const source = alignedSource(b);
    b.setXmm('a', b.shuffle(b.xmm('a'), source, pattern));
  });

/** 32-bit element of a vector chosen by two bits of the immediate, as i64. */
const element32 = (b: Builder, v: Expr, position: number): Expr => {
  const chosen = b.let(b.and(b.shru(b.imm(), b.c(position * 2)), b.c(3)));
  const half = b.select(b.test(b.and(chosen, b.c(2))), b.lane64(v, 1), b.lane64(v, 0));
  return b.let(b.and(b.shru(half, b.shl(b.and(chosen, b.c(1)), b.c(5))), b.c(0xffff_ffffn)));
};
const pair32 = (b: Builder, first: Expr, second: Expr): Expr => b.or(first, b.shl(second, b.c(32)));

/** The four 16-bit elements of `half` in the order the immediate says. */
const shuffleWords = (b: Builder, half: Expr): Expr => {
  let result: Expr | undefined;
  for (let i = 0; i < 4; i++) {
    const shift = b.shl(b.and(b.shru(b.imm(), b.c(i * 2)), b.c(3)), b.c(4));
    const word = b.shl(b.and(b.shru(half, shift), b.c(0xffff)), b.c(i * 16));
    result = result === undefined ? word : b.or(result, word);
  }
  return result!;
};

const BITMASK8 = 0x64;
const BITMASK32 = 0xa4;
const BITMASK64 = 0xc4;
const toMask = (name: string, opcode: number): Definition =>
  define(name, ['rr'], (b) => b.setReg('a', b.bool(b.simd32(opcode, b.xmm('b')))), [4, 8]);

export const SSE_MOVES: readonly Definition[] = [
  fullMove('movups', false),
  fullMove('movaps', true),
  scalarMove('movss', 4),
  scalarMove('movsd', 8),
  define('movlps', ['rm', 'mr'], (b) => {
    if (b.form === 'mr') b.store(b.ea(), 8, b.let(low(b, 'b')));
    else b.setXmm('a', b.vector(b.load(b.ea(), 8), high(b, 'a')));
  }),
  define('movhps', ['rm', 'mr'], (b) => {
    if (b.form === 'mr') b.store(b.ea(), 8, b.let(high(b, 'b')));
    else b.setXmm('a', b.vector(low(b, 'a'), b.load(b.ea(), 8)));
  }),
  define('movhlps', ['rr'], (b) => b.setXmm('a', b.vector(high(b, 'b'), high(b, 'a')))),
  define('movlhps', ['rr'], (b) => b.setXmm('a', b.vector(low(b, 'a'), low(b, 'b')))),
  define('movq_load', ['rr', 'rm'], (b) => b.setXmm('a', b.vector(scalarSource(b, 8), b.c(0)))),
  define('movq_store', ['rr', 'mr'], (b) => {
    if (b.form === 'mr') b.store(b.ea(), 8, b.let(low(b, 'b')));
    else b.setXmm('a', b.vector(low(b, 'b'), b.c(0)));
  }),
  define('movd_to_xmm', ['rr', 'rm'], (b) => b.setXmm('a', b.vector(b.src(), b.c(0))), [4, 8]),
  define('movd_from_xmm', ['rr', 'mr'], (b) => b.setDst(b.let(low(b, 'b'))), [4, 8]),
  shuffled('unpcklps', interleaved(4, false)),
  shuffled('unpckhps', interleaved(4, true)),
  shuffled('unpcklpd', lanes(8, [0, 2])),
  shuffled('unpckhpd', lanes(8, [1, 3])),
  shuffled('punpcklbw', interleaved(1, false)),
  shuffled('punpcklwd', interleaved(2, false)),
  shuffled('punpckhbw', interleaved(1, true)),
  shuffled('punpckhwd', interleaved(2, true)),
  shuffled('movsldup', lanes(4, [4, 4, 6, 6])),
  shuffled('movshdup', lanes(4, [5, 5, 7, 7])),
  define('movddup', ['rr', 'rm'], (b) => {
    const value = scalarSource(b, 8);
    b.setXmm('a', b.vector(value, value));
  }),
  define('pshufd', ['rr', 'rm'], (b) => {
    const v = alignedSource(b);
    const e = [0, 1, 2, 3].map((i) => element32(b, v, i));
    b.setXmm('a', b.vector(pair32(b, e[0]!, e[1]!), pair32(b, e[2]!, e[3]!)));
  }),
  define('shufps', ['rr', 'rm'], (b) => {
    const v = alignedSource(b);
    const first = b.let(b.xmm('a'));
    const e = [first, first, v, v].map((from, i) => element32(b, from, i));
    b.setXmm('a', b.vector(pair32(b, e[0]!, e[1]!), pair32(b, e[2]!, e[3]!)));
  }),
  define('shufpd', ['rr', 'rm'], (b) => {
    const v = alignedSource(b);
    const first = b.let(b.xmm('a'));
    const choose = (from: Expr, bit: number): Expr =>
      b.select(b.test(b.and(b.imm(), b.c(bit))), b.lane64(from, 1), b.lane64(from, 0));
    b.setXmm('a', b.vector(b.let(choose(first, 1)), b.let(choose(v, 2))));
  }),
  define('pshuflw', ['rr', 'rm'], (b) => {
    const v = alignedSource(b);
    b.setXmm('a', b.vector(shuffleWords(b, b.let(b.lane64(v, 0))), b.lane64(v, 1)));
  }),
  define('pshufhw', ['rr', 'rm'], (b) => {
    const v = alignedSource(b);
    b.setXmm('a', b.vector(b.lane64(v, 0), shuffleWords(b, b.let(b.lane64(v, 1)))));
  }),
  define(
    'pinsrw',
    ['rr', 'rm'],
    (b) => {
      const word = b.form === 'rm' ? b.load(b.ea(), 2) : b.let(b.reg('b', 2));
      const shift = b.let(b.shl(b.and(b.imm(), b.c(3)), b.c(4)));
      const insert = (half: Expr): Expr =>
        b.or(b.and(half, b.not(b.shl(b.c(0xffff), shift))), b.shl(word, shift));
      const upper = b.let(b.and(b.imm(), b.c(4)));
      const v = b.let(b.xmm('a'));
      const l = b.let(b.lane64(v, 0));
      const h = b.let(b.lane64(v, 1));
      b.setXmm(
        'a',
        b.vector(b.let(b.select(b.test(upper), l, insert(l))), b.let(b.select(b.test(upper), insert(h), h))),
      );
    },
    [4],
  ),
  define(
    'pextrw',
    ['rr'],
    (b) => {
      const half = b.select(b.test(b.and(b.imm(), b.c(4))), high(b, 'b'), low(b, 'b'));
      b.setReg('a', b.and(b.shru(half, b.shl(b.and(b.imm(), b.c(3)), b.c(4))), b.c(0xffff)), 8);
    },
    [4, 8],
  ),
  toMask('pmovmskb', BITMASK8),
  toMask('movmskps', BITMASK32),
  toMask('movmskpd', BITMASK64),
];
