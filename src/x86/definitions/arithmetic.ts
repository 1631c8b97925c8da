/** Addition, subtraction, logic, comparison, and the read-modify-write atoms. */
import type { Builder, Definition, Expr } from '../ir.ts';
import { RAX, STATE } from '../layout.ts';
import type { Form } from '../microop.ts';

const ALL = [1, 2, 4, 8] as const;
const BINARY: readonly Form[] = ['rr', 'ri', 'rm', 'mr', 'mi'];
const UNARY: readonly Form[] = ['r', 'm'];

const logic = (name: string, combine: (b: Builder, x: Expr, y: Expr) => Expr): Definition => ({
  name,
  forms: BINARY,
  sizes: ALL,
  build: (b) => {
    const x = b.dst();
    const result = b.let(combine(b, x, b.src()));
    b.setDst(result);
    b.flagsLogic(result);
  },
});

/** INC and DEC: CF stays. `edge` is the result that means overflow. */
const step = (name: string, delta: 1 | -1): Definition => ({
  name,
  forms: UNARY,
  sizes: ALL,
  build: (b) => {
    const x = b.dst();
    const result = b.let(b.add(x, b.c(delta)));
    const carry = b.let(b.flag('cf'));
    const top = 1n << BigInt(b.bits - 1);
    const edge = delta === 1 ? top : top - 1n;
    b.setDst(result);
    b.setFlagResult(result);
    b.setField(STATE.flagMisc, 4, b.and(b.xor(b.xor(x, b.c(1)), result), b.c(0x10)));
    b.setCarryOverflow(carry, b.bool(b.eq(b.zx(result), b.c(edge))));
  },
});

/** ADCX, ADOX: 32- or 64-bit addition through one flag, the others stay. */
const addThrough = (name: string, flag: 'cf' | 'of'): Definition => ({
  name,
  forms: ['rr', 'rm'],
  sizes: [4, 8],
  build: (b) => {
    const x = b.dst();
    const y = b.src();
    const result = b.let(b.add(b.add(x, y), b.flag(flag)));
    const carries = b.or(b.and(x, y), b.and(b.or(x, y), b.not(result)));
    const out = b.let(b.and(b.shru(carries, b.c(b.bits - 1)), b.c(1)));
    const kept = b.let(b.flag(flag === 'cf' ? 'of' : 'cf'));
    b.setDst(result);
    if (flag === 'cf') b.setCarryOverflow(out, kept);
    else b.setCarryOverflow(kept, out);
  },
});

export const ARITHMETIC: readonly Definition[] = [
  {
    name: 'add',
    forms: BINARY,
    sizes: ALL,
    build: (b) => {
      const x = b.dst();
      const y = b.src();
      const result = b.let(b.add(x, y));
      b.setDst(result);
      b.flagsAdd(x, y, result);
    },
  },
  {
    name: 'adc',
    forms: BINARY,
    sizes: ALL,
    build: (b) => {
      const x = b.dst();
      const y = b.src();
      const result = b.let(b.add(b.add(x, y), b.flag('cf')));
      b.setDst(result);
      b.flagsAdd(x, y, result, true);
    },
  },
  {
    name: 'sub',
    forms: BINARY,
    sizes: ALL,
    build: (b) => {
      const x = b.dst();
      const y = b.src();
      const result = b.let(b.sub(x, y));
      b.setDst(result);
      b.flagsSub(x, y, result);
    },
  },
  {
    name: 'sbb',
    forms: BINARY,
    sizes: ALL,
    build: (b) => {
      const x = b.dst();
      const y = b.src();
      const result = b.let(b.sub(b.sub(x, y), b.flag('cf')));
      b.setDst(result);
      b.flagsSub(x, y, result, true);
    },
  },
  {
    name: 'cmp',
    forms: BINARY,
    sizes: ALL,
    build: (b) => {
      const x = b.readDst();
      const y = b.src();
      b.flagsSub(x, y, b.let(b.sub(x, y)));
    },
  },
  {
    name: 'test',
    forms: ['rr', 'ri', 'mr', 'mi'],
    sizes: ALL,
    build: (b) => {
      const x = b.readDst();
      b.flagsLogic(b.let(b.and(x, b.src())));
    },
  },
  logic('and', (b, x, y) => b.and(x, y)),
  logic('or', (b, x, y) => b.or(x, y)),
  logic('xor', (b, x, y) => b.xor(x, y)),
  step('inc', 1),
  step('dec', -1),
  { name: 'not', forms: UNARY, sizes: ALL, build: (b) => b.setDst(b.not(b.dst())) },
  {
    name: 'neg',
    forms: UNARY,
    sizes: ALL,
    build: (b) => {
      const x = b.dst();
      const result = b.let(b.sub(b.c(0), x));
      b.setDst(result);
      b.flagsSub(b.c(0), x, result);
    },
  },
  addThrough('adcx', 'cf'),
  addThrough('adox', 'of'),
  {
    name: 'xadd',
    forms: ['rr', 'mr'],
    sizes: ALL,
    build: (b) => {
      const x = b.dst();
      const y = b.src();
      const result = b.let(b.add(x, y));
      // The source register first: with both the same, the sum stays (APM vol. 3, XADD).
      if (b.form === 'rr') b.setReg('b', x);
      b.setDst(result);
      if (b.form === 'mr') b.setReg('b', x);
      b.flagsAdd(x, y, result);
    },
  },
  {
    name: 'cmpxchg',
    forms: ['rr', 'mr'],
    sizes: ALL,
    build: (b) => {
      const old = b.dst();
      const source = b.src();
      const accumulator = b.let(b.reg(RAX));
      const equal = b.let(b.eq(accumulator, old));
      // The bus sees a write in both cases: memory that does not match gets its old value.
      if (b.form === 'mr') b.setDst(b.select(equal, source, old));
      b.when(
        equal,
        () => {
          if (b.form === 'rr') b.setDst(source);
        },
        () => b.setReg(RAX, old),
      );
      b.flagsSub(accumulator, old, b.let(b.sub(accumulator, old)));
    },
  },
];
