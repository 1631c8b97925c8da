/** Near branches and the stack. The operand size is 64 bits in 64-bit mode, or 16 with prefix 66. */
import type { Builder, Definition, Expr } from '../ir.ts';
import { RBP, RCX } from '../layout.ts';
import type { OperandSize } from '../microop.ts';
import { checkTarget } from './parts.ts';

const SIZES = [2, 4, 8] as const;

/** Target of a relative branch, cut to the operand size. */
const relativeTarget = (b: Builder): Expr => b.let(b.zx(b.target(), b.legacy && b.size === 8 ? 4 : b.size));

/** A relative branch in 64-bit mode stays canonical but for the very edge, where the fetch faults. */
const jumpRelative = (b: Builder): void => {
  const target = relativeTarget(b);
  if (b.legacy) checkTarget(b, target);
  b.jump(target);
};

/** Return address: what a CALL pushes. */
const returnAddress = (b: Builder): Expr => b.let(b.zx(b.nextRip()));

/** As processors do: the return address is stored, then a bad target refused, RSP unchanged. */
const pushReturnAddress = (b: Builder, checked: Expr | undefined): void => {
  const sp = b.let(b.sub(b.sp(), b.c(b.size)));
  b.store(b.stackAddress(sp), b.size, returnAddress(b));
  if (checked !== undefined) checkTarget(b, checked);
  b.setSp(sp);
};

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
    checkTarget(b, target);
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
    const old = b.let(b.reg(RCX, bytes));
    const count = name === 'jcxz' ? old : b.let(b.zx(b.sub(old, b.c(1)), bytes));
    const commit = (): void => {
      if (name !== 'jcxz') b.setReg(RCX, count, bytes);
    };
    b.when(
      taken(b, count),
      () => {
        const target = relativeTarget(b);
        if (b.legacy) checkTarget(b, target);
        commit();
        b.jump(target);
      },
      commit,
    );
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
    build: (b) => b.when(b.cond(), () => jumpRelative(b)),
  },
  {
    name: 'jmp',
    forms: ['none'],
    sizes: SIZES,
    modes: true,
    jumps: true,
    build: jumpRelative,
  },
  {
    name: 'jmp_ind',
    forms: ['r', 'm'],
    sizes: SIZES,
    modes: true,
    jumps: true,
    build: (b) => {
      const target = b.readDst();
      checkTarget(b, target);
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
      const target = relativeTarget(b);
      pushReturnAddress(b, b.legacy ? target : undefined);
      b.jump(target);
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
      pushReturnAddress(b, target);
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
