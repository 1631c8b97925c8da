/** Near branches and the stack. The operand size is 64 bits in 64-bit mode, or 16 with prefix 66. */
import type { Builder, Definition, Expr } from '../ir.ts';
import { RBP, RCX } from '../layout.ts';
import type { OperandSize } from '../microop.ts';
import { checkCanonical } from './parts.ts';

const SIZES = [2, 4, 8] as const;

const cut = (b: Builder, target: Expr): Expr => b.let(b.zx(target));

/** Return address: what a CALL pushes. */
const returnAddress = (b: Builder): Expr => b.let(b.zx(b.nextRip()));

const pop = (b: Builder, size: OperandSize, extra?: Expr): void => {
  const released = b.add(b.sp(), b.c(size));
  b.setSp(extra === undefined ? released : b.add(released, extra));
};

const ret = (name: string, releases: boolean): Definition => ({
  name,
  forms: ['none'],
  sizes: SIZES,
  modes: true,
  jumps: true,
  build: (b) => {
    const target = b.top();
    checkCanonical(b, target);
    pop(b, b.size, releases ? b.imm() : undefined);
    b.jump(target);
  },
});

/** LOOPcc and JrCXZ: the count register is as wide as the address size. */
const counted = (name: string, bytes: 2 | 4 | 8, taken: (b: Builder, count: Expr) => Expr): Definition => ({
  name: `${name}${bytes * 8}`,
  forms: ['none'],
  sizes: SIZES,
  modes: true,
  jumps: true,
  build: (b) => {
    let count = b.let(b.reg(RCX, bytes));
    if (name !== 'jcxz') {
      count = b.let(b.zx(b.sub(count, b.c(1)), bytes));
      b.setReg(RCX, count, bytes);
    }
    b.when(taken(b, count), () => b.jump(cut(b, b.target())));
  },
});

const loops = ([2, 4, 8] as const).flatMap((bytes) => [
  counted('jcxz', bytes, (b, n) => b.eq(n, b.c(0))),
  counted('loop', bytes, (b, n) => b.test(n)),
  counted('loope', bytes, (b, n) => b.and(b.test(n), b.test(b.flag('zf')))),
  counted('loopne', bytes, (b, n) => b.and(b.test(n), b.eq(b.flag('zf'), b.c(0)))),
]);

export const CONTROL: readonly Definition[] = [
  {
    name: 'jcc',
    forms: ['none'],
    sizes: SIZES,
    conditions: true,
    modes: true,
    jumps: true,
    build: (b) => b.when(b.cond(), () => b.jump(cut(b, b.target()))),
  },
  {
    name: 'jmp',
    forms: ['none'],
    sizes: SIZES,
    modes: true,
    jumps: true,
    build: (b) => b.jump(cut(b, b.target())),
  },
  {
    name: 'jmp_ind',
    forms: ['r', 'm'],
    sizes: SIZES,
    modes: true,
    jumps: true,
    build: (b) => {
      const target = b.readDst();
      checkCanonical(b, target);
      b.jump(target);
    },
  },
  {
    name: 'call',
    forms: ['none'],
    sizes: SIZES,
    modes: true,
    jumps: true,
    build: (b) => {
      b.push(returnAddress(b));
      b.jump(cut(b, b.target()));
    },
  },
  {
    name: 'call_ind',
    forms: ['r', 'm'],
    sizes: SIZES,
    modes: true,
    jumps: true,
    build: (b) => {
      const target = b.readDst();
      // As processors do: the return address is stored, then the target refused, RSP unchanged.
      const sp = b.let(b.sub(b.sp(), b.c(b.size)));
      b.store(b.stackAddress(sp), b.size, returnAddress(b));
      checkCanonical(b, target);
      b.setSp(sp);
      b.jump(target);
    },
  },
  ret('ret', false),
  ret('ret_imm', true),
  ...loops,
  {
    // PUSH rSP pushes the value from before.
    name: 'push',
    forms: ['r', 'm'],
    sizes: SIZES,
    modes: true,
    build: (b) => b.push(b.readDst()),
  },
  {
    name: 'push_imm',
    forms: ['none'],
    sizes: SIZES,
    modes: true,
    build: (b) => b.push(b.let(b.zx(b.imm()))),
  },
  {
    // POP rSP leaves the popped value; a memory operand based on rSP was corrected by the decoder.
    name: 'pop',
    forms: ['r', 'm'],
    sizes: SIZES,
    modes: true,
    build: (b) => {
      const value = b.top();
      if (b.form === 'm') b.store(b.ea(), b.size, value);
      pop(b, b.size);
      if (b.form === 'r') b.setReg('a', value);
    },
  },
  {
    name: 'leave',
    forms: ['none'],
    sizes: SIZES,
    modes: true,
    build: (b) => {
      const frame = b.let(b.reg(RBP, 8));
      const value = b.load(b.stackAddress(frame), b.size);
      b.setSp(b.add(frame, b.c(b.size)));
      b.setReg(RBP, value);
    },
  },
];
