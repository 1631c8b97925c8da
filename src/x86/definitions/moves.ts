/** Data movement: MOV and its extensions, LEA, XCHG, CMOVcc, SETcc, BSWAP, MOVBE, sign extension of rAX. */
import type { Builder, Definition, Expr } from '../ir.ts';
import { RAX, RDX } from '../layout.ts';
import type { OperandSize } from '../microop.ts';
import { swapBytes } from './parts.ts';

const WORDS = [2, 4, 8] as const;
const ALL = [1, 2, 4, 8] as const;

const extend = (name: string, from: OperandSize, signed: boolean): Definition => ({
  name,
  forms: ['rr', 'rm'],
  sizes: WORDS,
  build: (b) => b.setReg('a', signed ? b.sx(b.src(from), from) : b.src(from)),
});

const byteSwapped = (b: Builder, value: Expr): Expr => swapBytes(b, value, b.size);

export const MOVES: readonly Definition[] = [
  { name: 'nop', forms: ['none'], sizes: [1], build: () => {} },
  { name: 'mov', forms: ['rr', 'ri', 'rm', 'mr', 'mi'], sizes: ALL, build: (b) => b.setDst(b.src()) },
  extend('movzx8', 1, false),
  extend('movzx16', 2, false),
  extend('movsx8', 1, true),
  extend('movsx16', 2, true),
  extend('movsxd', 4, true),
  { name: 'lea', forms: ['rm'], sizes: WORDS, build: (b) => b.setReg('a', b.offset()) },
  // Non-temporal store: the cache hint is nothing here.
  { name: 'movnti', forms: ['mr'], sizes: [4, 8], build: (b) => b.setDst(b.src()) },
  {
    name: 'xchg',
    forms: ['rr', 'mr'],
    sizes: ALL,
    build: (b) => {
      const old = b.dst();
      const source = b.src();
      b.setDst(source);
      b.setReg('b', old);
    },
  },
  {
    name: 'cmovcc',
    forms: ['rr', 'rm'],
    sizes: WORDS,
    conditions: true,
    // The source is read, and a 32-bit destination zero-extended, whatever the condition.
    build: (b) => {
      const source = b.src();
      b.setReg('a', b.select(b.cond(), source, b.reg('a')));
    },
  },
  {
    name: 'setcc',
    forms: ['r', 'm'],
    sizes: [1],
    conditions: true,
    build: (b) => b.setDst(b.bool(b.cond())),
  },
  {
    name: 'bswap',
    forms: ['r'],
    sizes: WORDS,
    // A 16-bit operand is undefined (APM vol. 3, BSWAP); processors clear the register.
    build: (b) => b.setReg('a', b.size === 2 ? b.c(0) : byteSwapped(b, b.let(b.reg('a')))),
  },
  {
    name: 'movbe',
    forms: ['rm', 'mr'],
    sizes: WORDS,
    build: (b) => b.setDst(b.let(byteSwapped(b, b.src()))),
  },
  {
    // CBW, CWDE, CDQE: rAX = sign-extended lower half.
    name: 'cbw',
    forms: ['none'],
    sizes: WORDS,
    build: (b) => {
      const half = (b.size / 2) as OperandSize;
      b.setReg(RAX, b.sx(b.reg(RAX, half), half));
    },
  },
  {
    // CWD, CDQ, CQO: rDX = sign of rAX.
    name: 'cwd',
    forms: ['none'],
    sizes: WORDS,
    build: (b) => b.setReg(RDX, b.shrs(b.sx(b.reg(RAX)), b.c(63))),
  },
  {
    // The decoder gives base = rBX; AL is added here.
    name: 'xlat',
    forms: ['m'],
    sizes: [1],
    modes: true,
    build: (b) => {
      b.displaceEa(b.reg(RAX, 1));
      b.setReg(RAX, b.load(b.ea(), 1), 1);
    },
  },
  // Faults as a one-byte read does (APM vol. 3, CLFLUSH); there is no cache to flush.
  { name: 'clflush', forms: ['m'], sizes: [1], build: (b) => void b.load(b.ea(), 1) },
];
