/** What the SSE definitions share: the availability guard, operands, lane patterns. */
import type { Builder, Definition, Expr } from '../ir.ts';
import { STATE } from '../layout.ts';

const CR0_EM_TS = 0xc;
const CR0_EM = 4;
const CR4_OSFXSR = 0x200;
const UD = 6;
const NM = 7;
const GP = 13;

/** #UD with CR0.EM or without CR4.OSFXSR, else #NM with CR0.TS (APM vol. 2, §11.4.1): first in every definition. */
export const requireSse = (b: Builder): void => {
  const cr0 = b.field(STATE.cr0, 4);
  const missing = b.let(b.xor(b.and(b.field(STATE.cr4, 4), b.c(CR4_OSFXSR)), b.c(CR4_OSFXSR)));
  b.when(b.test(b.or(missing, b.and(cr0, b.c(CR0_EM_TS)))), () => {
    b.when(b.test(b.or(missing, b.and(cr0, b.c(CR0_EM)))), () => b.raise(UD));
    b.raise(NM);
  });
};

/** #GP(0) unless the memory operand is aligned to 16 bytes. */
export const requireAligned = (b: Builder): void =>
  b.when(b.test(b.and(b.ea(), b.c(15))), () => b.raise(GP, 0));

/** XMM or 16-byte aligned memory source. */
export const alignedSource = (b: Builder): Expr => {
  if (b.form === 'rm') requireAligned(b);
  return b.xmmSrc();
};

/** Low 4 or 8 bytes of an XMM or memory source, as i64. */
export const scalarSource = (b: Builder, bytes: 4 | 8): Expr =>
  b.form === 'rm' ? b.load(b.ea(), bytes) : b.let(b.zx(b.lane64(b.xmm('b'), 0), bytes));

export const vectorConstant = (b: Builder, low: bigint, high = low): Expr => b.vector(b.c(low), b.c(high));

/** Lane numbers for `shuffle`: elements of `width` bytes, each given by its index (second vector after the first). */
export const lanes = (width: number, elements: readonly number[]): number[] =>
  elements.flatMap((element) => Array.from({ length: width }, (_, i) => element * width + i));

/** Elements of two vectors alternating, from the low or the high half. */
export const interleaved = (width: number, high: boolean): number[] => {
  const count = 16 / width;
  const from = high ? count / 2 : 0;
  return lanes(
    width,
    Array.from({ length: count }, (_, i) => from + (i >> 1) + (i & 1 ? count : 0)),
  );
};

export type Combine = (b: Builder, x: Expr, y: Expr) => Expr;

/** destination = combine(destination, source), on whole registers. */
export const binary = (name: string, combine: Combine): Definition => ({
  name,
  forms: ['rr', 'rm'],
  sizes: [16],
  build: (b) => {
    requireSse(b);
    const y = alignedSource(b);
    b.setXmm('a', combine(b, b.let(b.xmm('a')), y));
  },
});
