/** SSE integer arithmetic, logic and shifts (APM vol. 4), on the v128 instructions of WebAssembly. */
import type { Builder, Definition, Expr } from '../ir.ts';
import { alignedSource, binary, interleaved, lanes, requireSse, vectorConstant } from './sse-parts.ts';
import type { Combine } from './sse-parts.ts';

/** One v128 instruction with the operands in x86's order. */
const DIRECT: Readonly<Record<string, number>> = {
  pand: 0x4e,
  por: 0x50,
  pxor: 0x51,
  pcmpeqb: 0x23,
  pcmpgtb: 0x27,
  pcmpeqw: 0x2d,
  pcmpgtw: 0x31,
  pcmpeqd: 0x37,
  pcmpgtd: 0x3b,
  packsswb: 0x65,
  packuswb: 0x66,
  packssdw: 0x85,
  paddb: 0x6e,
  paddsb: 0x6f,
  paddusb: 0x70,
  psubb: 0x71,
  psubsb: 0x72,
  psubusb: 0x73,
  pminub: 0x77,
  pmaxub: 0x79,
  pavgb: 0x7b,
  paddw: 0x8e,
  paddsw: 0x8f,
  paddusw: 0x90,
  psubw: 0x91,
  psubsw: 0x92,
  psubusw: 0x93,
  pmullw: 0x95,
  pminsw: 0x96,
  pmaxsw: 0x98,
  pavgw: 0x9b,
  paddd: 0xae,
  psubd: 0xb1,
  pmaddwd: 0xba,
  paddq: 0xce,
  psubq: 0xd1,
};

const SIMD = {
  andnot: 0x4f,
  or: 0x50,
  subSatU8: 0x73,
  pairwiseU8: 0x7d,
  pairwiseU16: 0x7f,
  multiplyLowS16: 0xbc,
  multiplyHighS16: 0xbd,
  multiplyLowU16: 0xbe,
  multiplyHighU16: 0xbf,
  and: 0x4e,
  shiftRightU64: 0xcd,
  add64: 0xce,
  multiply64: 0xd5,
} as const;

/** Upper 16 bits of the products of 16-bit elements. */
const multiplyHigh =
  (low: number, high: number): Combine =>
  (b, x, y) =>
    b.shuffle(b.simd(low, x, y), b.simd(high, x, y), lanes(2, [1, 3, 5, 7, 9, 11, 13, 15]));

/**
 * Shifts of 16-, 32- or 64-bit elements by one count. A count of the element width or more clears
 * the element, or fills it with its sign.
 */
const shift = (name: string, bits: 16 | 32 | 64, opcode: number, arithmetic: boolean): Definition[] => {
  const apply = (b: Builder, count: Expr): void => {
    const x = b.let(b.xmm('a'));
    const inside = b.ltu(count, b.c(bits));
    if (arithmetic) {
      const bounded = b.let(b.select(inside, count, b.c(bits - 1)));
      b.setXmm('a', b.simd(opcode, x, b.low32(bounded)));
    } else {
      const shifted = b.let(b.simd(opcode, x, b.low32(count)));
      b.setXmm('a', b.select(inside, shifted, vectorConstant(b, 0n)));
    }
  };
  return [
    {
      name,
      forms: ['ri'],
      sizes: [16],
      build: (b) => {
        requireSse(b);
        apply(b, b.let(b.imm()));
      },
    },
    {
      name: `${name}_v`,
      forms: ['rr', 'rm'],
      sizes: [16],
      build: (b) => {
        requireSse(b);
        apply(b, b.let(b.lane64(alignedSource(b), 0)));
      },
    },
  ];
};

/** PSLLDQ, PSRLDQ: the register as one number, by bytes. */
const byteShift = (name: string, left: boolean): Definition => ({
  name,
  forms: ['ri'],
  sizes: [16],
  build: (b) => {
    requireSse(b);
    const v = b.let(b.xmm('a'));
    const near = b.let(b.lane64(v, left ? 0 : 1));
    const far = b.let(b.lane64(v, left ? 1 : 0));
    const count = b.let(b.shl(b.imm(), b.c(3)));
    const shift = (x: Expr, n: Expr): Expr => (left ? b.shl(x, n) : b.shru(x, n));
    const carried = (x: Expr, n: Expr): Expr => {
      const one = b.c(1);
      const back = b.sub(b.c(63), n);
      return left ? b.shru(b.shru(x, one), back) : b.shl(b.shl(x, one), back);
    };
    // `near` moves into `far`: below 64 bits both keep a part, below 128 only `far` has one.
    const small = b.ltu(count, b.c(64));
    const some = b.ltu(count, b.c(128));
    const inner = b.let(b.and(count, b.c(63)));
    const newNear = b.let(b.select(small, shift(near, inner), b.c(0)));
    const newFar = b.let(
      b.select(
        small,
        b.or(shift(far, inner), carried(near, inner)),
        b.select(some, shift(near, inner), b.c(0)),
      ),
    );
    b.setXmm('a', left ? b.vector(newNear, newFar) : b.vector(newFar, newNear));
  },
});

export const SSE_INTEGER: readonly Definition[] = [
  ...Object.entries(DIRECT).map(([name, opcode]) => binary(name, (b, x, y) => b.simd(opcode, x, y))),
  // WebAssembly's andnot complements its second operand, x86's the first.
  binary('pandn', (b, x, y) => b.simd(SIMD.andnot, y, x)),
  binary('punpckldq', (b, x, y) => b.shuffle(x, y, interleaved(4, false))),
  binary('punpckhdq', (b, x, y) => b.shuffle(x, y, interleaved(4, true))),
  binary('punpcklqdq', (b, x, y) => b.shuffle(x, y, lanes(8, [0, 2]))),
  binary('punpckhqdq', (b, x, y) => b.shuffle(x, y, lanes(8, [1, 3]))),
  binary('pmulhw', multiplyHigh(SIMD.multiplyLowS16, SIMD.multiplyHighS16)),
  binary('pmulhuw', multiplyHigh(SIMD.multiplyLowU16, SIMD.multiplyHighU16)),
  binary('pmuludq', (b, x, y) => {
    const mask = vectorConstant(b, 0xffff_ffffn);
    return b.simd(SIMD.multiply64, b.simd(SIMD.and, x, mask), b.simd(SIMD.and, y, mask));
  }),
  binary('psadbw', (b, x, y) => {
    const distance = b.simd(SIMD.or, b.simd(SIMD.subSatU8, x, y), b.simd(SIMD.subSatU8, y, x));
    const sums = b.let(b.simd(SIMD.pairwiseU16, b.simd(SIMD.pairwiseU8, distance)));
    const upper = b.simd(SIMD.shiftRightU64, sums, b.c32(32));
    return b.simd(SIMD.add64, b.simd(SIMD.and, sums, vectorConstant(b, 0xffff_ffffn)), upper);
  }),
  ...shift('psrlw', 16, 0x8d, false),
  ...shift('psraw', 16, 0x8c, true),
  ...shift('psllw', 16, 0x8b, false),
  ...shift('psrld', 32, 0xad, false),
  ...shift('psrad', 32, 0xac, true),
  ...shift('pslld', 32, 0xab, false),
  ...shift('psrlq', 64, 0xcd, false),
  ...shift('psllq', 64, 0xcb, false),
  byteShift('pslldq', true),
  byteShift('psrldq', false),
];
