/** SSSE3, SSE4.1 and SSE4.2 (APM vol. 4): what maps onto v128. The rest is in `../helpers/vector.ts`. */
import type { Definition, Expr } from '../ir.ts';
import { STATE } from '../layout.ts';
import { alignedSource, binary, lanes, requireSse, scalarSource, vectorConstant } from './sse-parts.ts';

const SIMD = {
  swizzle: 0x0e,
  equal16: 0x2d,
  and: 0x4e,
  andnot: 0x4f,
  or: 0x50,
  xor: 0x51,
  bitselect: 0x52,
  equal8: 0x23,
  sub8: 0x71,
  shiftRightS8: 0x6c,
  add8: 0x6e,
  splat8: 0x0f,
  q15: 0x82,
  shiftLeft16: 0x8b,
  shiftRightS16: 0x8c,
  shiftRightU16: 0x8d,
  add16: 0x8e,
  addSat16: 0x8f,
  sub16: 0x91,
  subSat16: 0x92,
  multiply16: 0x95,
  equal32: 0x37,
  shiftRightS32: 0xac,
  add32: 0xae,
  sub32: 0xb1,
  shiftLeft64: 0xcb,
  shiftRightS64: 0xcc,
  multiply64: 0xd5,
} as const;

/** One v128 instruction with the operands in x86's order. */
const DIRECT: Readonly<Record<string, number>> = {
  pcmpeqq: 0xd6,
  pcmpgtq: 0xd9,
  packusdw: 0x86,
  pminsb: 0x76,
  pminsd: 0xb6,
  pminuw: 0x97,
  pminud: 0xb7,
  pmaxsb: 0x78,
  pmaxsd: 0xb8,
  pmaxuw: 0x99,
  pmaxud: 0xb9,
  pmulld: 0xb5,
};

const EVEN_WORDS = lanes(2, [0, 2, 4, 6, 8, 10, 12, 14]);
const ODD_WORDS = lanes(2, [1, 3, 5, 7, 9, 11, 13, 15]);
const EVEN_DWORDS = lanes(4, [0, 2, 4, 6]);
const ODD_DWORDS = lanes(4, [1, 3, 5, 7]);

/** Neighbours of both operands combined. */
const horizontal = (name: string, opcode: number, even: number[], odd: number[]): Definition =>
  binary(name, (b, x, y) => b.simd(opcode, b.shuffle(x, y, even), b.shuffle(x, y, odd)));

/** x negated where y is negative, 0 where y is 0. */
const sign = (name: string, bits: number, shift: number, subtract: number, equal: number): Definition =>
  binary(name, (b, x, y) => {
    const negative = b.let(b.simd(shift, y, b.c32(bits - 1)));
    const signed = b.simd(subtract, b.simd(SIMD.xor, x, negative), negative);
    return b.simd(SIMD.andnot, signed, b.simd(equal, y, vectorConstant(b, 0n)));
  });

const absolute = (name: string, opcode: number): Definition => binary(name, (b, _x, y) => b.simd(opcode, y));

/** PMOVSX, PMOVZX: `bytes` of source widened in one to three steps. */
const widen = (name: string, bytes: 2 | 4 | 8, steps: readonly number[]): Definition => ({
  name,
  forms: ['rr', 'rm'],
  sizes: [16],
  build: (b) => {
    requireSse(b);
    const source =
      bytes === 2 ? (b.form === 'rm' ? b.load(b.ea(), 2) : b.lane64(b.xmm('b'), 0)) : scalarSource(b, bytes);
    b.setXmm(
      'a',
      steps.reduce((v, opcode) => b.simd(opcode, v), b.vector(b.let(source), b.c(0))),
    );
  },
});

/** Blends by the sign bits of XMM0. */
const variableBlend = (name: string, bits: number, shift: number): Definition =>
  binary(name, (b, x, y) => {
    const control = b.vector(b.field(STATE.ymm, 8), b.field(STATE.ymm + 8, 8));
    return b.simd(SIMD.bitselect, y, x, b.simd(shift, control, b.c32(bits - 1)));
  });

const IOTA_LOW = 0x0706_0504_0302_0100n;
const IOTA_HIGH = 0x0f0e_0d0c_0b0a_0908n;

export const SSE4: readonly Definition[] = [
  ...Object.entries(DIRECT).map(([name, opcode]) => binary(name, (b, x, y) => b.simd(opcode, x, y))),
  // Bit 7 of an index gives 0, as does any index over 15 in WebAssembly; bits 6:4 are ignored.
  binary('pshufb', (b, x, y) =>
    b.simd(SIMD.swizzle, x, b.simd(SIMD.and, y, vectorConstant(b, 0x8f8f_8f8f_8f8f_8f8fn))),
  ),
  binary('palignr', (b, x, y) => {
    // Index of each byte in the pair; out of a vector's range it gives 0.
    const count = b.let(b.select(b.ltu(b.imm(), b.c(32)), b.imm(), b.c(32)));
    const iota = vectorConstant(b, IOTA_LOW, IOTA_HIGH);
    const index = b.let(b.simd(SIMD.add8, iota, b.simd(SIMD.splat8, b.low32(count))));
    const upper = b.simd(SIMD.sub8, index, vectorConstant(b, 0x1010_1010_1010_1010n));
    return b.simd(SIMD.or, b.simd(SIMD.swizzle, y, index), b.simd(SIMD.swizzle, x, upper));
  }),
  horizontal('phaddw', SIMD.add16, EVEN_WORDS, ODD_WORDS),
  horizontal('phaddd', SIMD.add32, EVEN_DWORDS, ODD_DWORDS),
  horizontal('phaddsw', SIMD.addSat16, EVEN_WORDS, ODD_WORDS),
  horizontal('phsubw', SIMD.sub16, EVEN_WORDS, ODD_WORDS),
  horizontal('phsubd', SIMD.sub32, EVEN_DWORDS, ODD_DWORDS),
  horizontal('phsubsw', SIMD.subSat16, EVEN_WORDS, ODD_WORDS),
  binary('pmaddubsw', (b, x, y) => {
    const eight = b.c32(8);
    const even = b.simd(
      SIMD.multiply16,
      b.simd(SIMD.and, x, vectorConstant(b, 0x00ff_00ff_00ff_00ffn)),
      b.simd(SIMD.shiftRightS16, b.simd(SIMD.shiftLeft16, y, eight), eight),
    );
    const odd = b.simd(
      SIMD.multiply16,
      b.simd(SIMD.shiftRightU16, x, eight),
      b.simd(SIMD.shiftRightS16, y, eight),
    );
    return b.simd(SIMD.addSat16, even, odd);
  }),
  binary('pmulhrsw', (b, x, y) => {
    // WebAssembly saturates -1 * -1, x86 wraps it to -1.
    const lowest = vectorConstant(b, 0x8000_8000_8000_8000n);
    const both = b.simd(SIMD.and, b.simd(SIMD.equal16, x, lowest), b.simd(SIMD.equal16, y, lowest));
    return b.simd(SIMD.xor, b.simd(SIMD.q15, x, y), both);
  }),
  sign('psignb', 8, SIMD.shiftRightS8, SIMD.sub8, SIMD.equal8),
  sign('psignw', 16, SIMD.shiftRightS16, SIMD.sub16, SIMD.equal16),
  sign('psignd', 32, SIMD.shiftRightS32, SIMD.sub32, SIMD.equal32),
  absolute('pabsb', 0x60),
  absolute('pabsw', 0x80),
  absolute('pabsd', 0xa0),
  widen('pmovsxbw', 8, [0x87]),
  widen('pmovsxbd', 4, [0x87, 0xa7]),
  widen('pmovsxbq', 2, [0x87, 0xa7, 0xc7]),
  widen('pmovsxwd', 8, [0xa7]),
  widen('pmovsxwq', 4, [0xa7, 0xc7]),
  widen('pmovsxdq', 8, [0xc7]),
  widen('pmovzxbw', 8, [0x89]),
  widen('pmovzxbd', 4, [0x89, 0xa9]),
  widen('pmovzxbq', 2, [0x89, 0xa9, 0xc9]),
  widen('pmovzxwd', 8, [0xa9]),
  widen('pmovzxwq', 4, [0xa9, 0xc9]),
  widen('pmovzxdq', 8, [0xc9]),
  binary('pmuldq', (b, x, y) => {
    const low = (v: Expr): Expr =>
      b.simd(SIMD.shiftRightS64, b.simd(SIMD.shiftLeft64, v, b.c32(32)), b.c32(32));
    return b.simd(SIMD.multiply64, low(x), low(y));
  }),
  variableBlend('pblendvb', 8, SIMD.shiftRightS8),
  variableBlend('blendvps', 32, SIMD.shiftRightS32),
  variableBlend('blendvpd', 64, SIMD.shiftRightS64),
  {
    // ZF = no common bit, CF = no bit of the source outside the destination; the others are clear.
    name: 'ptest',
    forms: ['rr', 'rm'],
    sizes: [16],
    build: (b) => {
      requireSse(b);
      const y = alignedSource(b);
      const x = b.let(b.xmm('a'));
      const isZero = (v: Expr): Expr => b.bool(b.eq(b.or(b.lane64(v, 0), b.lane64(v, 1)), b.c(0)));
      const common = b.let(b.simd(SIMD.and, x, y));
      const outside = b.let(b.simd(SIMD.andnot, y, x));
      b.setFlagsImage(b.or(b.shl(isZero(common), b.c(6)), isZero(outside)));
    },
  },
];
