/**
 * The typed expression language in which instructions are defined, and the builder a definition is
 * written with. A definition runs once for each (form, size) and leaves a list of statements; the
 * interpreter generator (and later the region compiler) lowers that list to WebAssembly.
 *
 * Integers are i64 throughout, zero-extended from their operand size when read; what exceeds the
 * size is cut when a destination is written. Conditions are i32 (0 or 1). SSE registers are v128.
 *
 * Order matters: everything that can fault (loads, `probe`, `raise`) is stated before the first
 * `set…`, `store` or flag change, so that a fault leaves the instruction undone. A destination in
 * memory read by `dst()` has been checked for writing, so `setDst` cannot fault then.
 */
import type { Form, OperandSize } from './microop.ts';
import { ZERO, gpr } from './layout.ts';

export type Type = 'i64' | 'i32' | 'v128';

export interface Expr {
  readonly op: string;
  readonly type: Type;
  readonly args: readonly Expr[];
  /** Constant value, local number, field offset, or lane, as `op` says. */
  readonly value: bigint;
}

export type Statement =
  | { readonly kind: 'let'; readonly local: number; readonly type: Type; readonly value: Expr }
  | { readonly kind: 'assign'; readonly local: number; readonly value: Expr }
  /** Writes a register named by operand `a`, `b` or fixed byte offset. */
  | {
      readonly kind: 'setReg';
      readonly register: RegisterRef;
      readonly size: OperandSize;
      readonly value: Expr;
    }
  /** All six arithmetic flags of an operation on operands `a`, `b` (zero-extended) with result `r`. */
  | {
      readonly kind: 'flags';
      readonly operation: FlagOperation;
      readonly size: OperandSize;
      readonly a: Expr;
      readonly b: Expr;
      readonly r: Expr;
    }
  | { readonly kind: 'setField'; readonly offset: number; readonly bytes: 4 | 8; readonly value: Expr }
  | { readonly kind: 'setXmm'; readonly register: 'a' | 'b'; readonly value: Expr }
  /** Checks a memory operand for writing and remembers where it is (`slot`). */
  | {
      readonly kind: 'openRmw';
      readonly slot: number;
      readonly address: Expr;
      readonly size: number;
      readonly local: number;
    }
  | { readonly kind: 'closeRmw'; readonly slot: number; readonly size: number; readonly value: Expr }
  | {
      readonly kind: 'load';
      readonly local: number;
      readonly type: Type;
      readonly address: Expr;
      readonly size: number;
    }
  | { readonly kind: 'store'; readonly address: Expr; readonly size: number; readonly value: Expr }
  | {
      readonly kind: 'if';
      readonly condition: Expr;
      readonly then: readonly Statement[];
      readonly otherwise: readonly Statement[];
    }
  | { readonly kind: 'raise'; readonly vector: number; readonly errorCode: number | undefined }
  /** Go on at `target` (rip after masking to the operand size in legacy modes). */
  | { readonly kind: 'jump'; readonly target: Expr };

/** What made the flags; `adc` and `sbb` took a carry in. */
export type FlagOperation = 'add' | 'adc' | 'sub' | 'sbb' | 'logic';

/** The three kept values (layout.ts, `STATE.flagResult` and its neighbours) of a `flags` statement. */
export function flagFields(
  b: Builder,
  {
    operation,
    size,
    a,
    b: second,
    r,
  }: { operation: FlagOperation; size: OperandSize; a: Expr; b: Expr; r: Expr },
): { result: Expr; carry: Expr; misc: Expr } {
  const result = b.sx(r, size);
  if (operation === 'logic') return { result, carry: b.c(0), misc: b.c(0) };
  const adds = operation === 'add' || operation === 'adc';
  const x = adds ? a : b.not(a);
  // Carry (borrow) out of each bit, with or without one going in.
  const out = b.or(b.and(x, second), b.and(b.or(x, second), adds ? b.not(r) : r));
  const carry = size === 8 ? out : b.shl(out, b.c(64 - size * 8));
  return { result, carry, misc: b.and(b.xor(b.xor(a, second), r), b.c(0x10)) };
}

export type RegisterRef = 'a' | 'b' | number;

const expr = (op: string, type: Type, args: readonly Expr[] = [], value = 0n): Expr => ({
  op,
  type,
  args,
  value,
});

/** What `condition` codes test, in encoding order (APM vol. 3, table 1-1 of rFLAGS conditions). */
export const CONDITION_NAMES = [
  'o',
  'no',
  'b',
  'nb',
  'z',
  'nz',
  'be',
  'nbe',
  's',
  'ns',
  'p',
  'np',
  'l',
  'nl',
  'le',
  'nle',
] as const;

export class Builder {
  readonly form: Form;
  readonly size: OperandSize;
  /** True when traced for 16/32-bit code, where the stack has a base and a width and rip is cut. */
  readonly legacy: boolean;
  /** The condition this case is traced for (Jcc, SETcc, CMOVcc), else 0. */
  readonly condition: number;
  statements: Statement[] = [];
  locals: Type[] = [];
  #slots = 0;
  #dstSlot: number | undefined;
  #ea: Expr | undefined;

  constructor(form: Form, size: OperandSize, legacy: boolean, condition = 0) {
    this.form = form;
    this.size = size;
    this.legacy = legacy;
    this.condition = condition;
  }

  get bits(): number {
    return this.size * 8;
  }

  // -- constants and locals ---------------------------------------------------------------------

  c(value: number | bigint): Expr {
    return expr('const', 'i64', [], BigInt.asIntN(64, BigInt(value)));
  }
  c32(value: number): Expr {
    return expr('const', 'i32', [], BigInt(value | 0));
  }
  /** Evaluates now, once. */
  let(value: Expr): Expr {
    const local = this.locals.push(value.type) - 1;
    this.statements.push({ kind: 'let', local, type: value.type, value });
    return expr('local', value.type, [], BigInt(local));
  }
  /** Changes a local made by `let` (inside `when` branches). */
  assign(local: Expr, value: Expr): void {
    if (local.op !== 'local') throw new Error('assign needs a local');
    this.statements.push({ kind: 'assign', local: Number(local.value), value });
  }

  // -- operands ---------------------------------------------------------------------------------

  /** Value of the destination operand before the instruction, zero-extended. */
  dst(): Expr {
    if (this.form === 'm' || this.form === 'mr' || this.form === 'mi') {
      const slot = this.#slots++;
      this.#dstSlot = slot;
      const local = this.locals.push('i64') - 1;
      this.statements.push({ kind: 'openRmw', slot, address: this.ea(), size: this.size, local });
      return expr('local', 'i64', [], BigInt(local));
    }
    return this.let(this.reg('a'));
  }
  /** Value of a destination operand that is not written (CMP, TEST, PUSH): no write check. */
  readDst(): Expr {
    if (this.form === 'm' || this.form === 'mr' || this.form === 'mi') return this.load(this.ea(), this.size);
    return this.let(this.reg('a'));
  }
  /** Value of the source operand, zero-extended to i64 (an immediate is cut to the size). */
  src(size: OperandSize = this.size): Expr {
    switch (this.form) {
      case 'rr':
      case 'mr':
        return this.let(this.reg('b', size));
      case 'ri':
      case 'mi':
        return this.let(this.zx(this.imm(), size));
      case 'rm':
        return this.load(this.ea(), size);
      default:
        throw new Error(`form ${this.form} has no source operand`);
    }
  }
  /** Writes the destination operand. Without a preceding `dst()` a memory destination is a plain store. */
  setDst(value: Expr): void {
    if (this.form === 'm' || this.form === 'mr' || this.form === 'mi') {
      if (this.#dstSlot === undefined) this.store(this.ea(), this.size, value);
      else this.statements.push({ kind: 'closeRmw', slot: this.#dstSlot, size: this.size, value });
    } else this.setReg('a', value);
  }
  /** A register: operand `a` or `b`, or a fixed general register by number. Zero-extended. */
  reg(register: 'a' | 'b', size?: OperandSize): Expr;
  reg(register: number, size?: OperandSize): Expr;
  reg(register: 'a' | 'b' | number, size: OperandSize = this.size): Expr {
    if (typeof register === 'number') return expr('field', 'i64', [this.c(size)], BigInt(gpr(register)));
    return expr(register === 'a' ? 'regA' : 'regB', 'i64', [], BigInt(size));
  }
  /** Writes a register; 32-bit writes clear the upper half, narrower ones keep the rest. */
  setReg(register: 'a' | 'b' | number, value: Expr, size: OperandSize = this.size): void {
    const ref = typeof register === 'number' ? gpr(register) : register;
    this.statements.push({ kind: 'setReg', register: ref, size, value });
  }
  /** High byte AH…BH of a fixed register (0-3). */
  highByte(register: number): Expr {
    return expr('field', 'i64', [this.c(1)], BigInt(gpr(register) + 1));
  }
  setHighByte(register: number, value: Expr): void {
    this.statements.push({ kind: 'setReg', register: gpr(register) + 1, size: 1, value });
  }
  /** The sign-extended immediate. */
  imm(): Expr {
    return expr('imm', 'i64');
  }
  /** Linear address of the memory operand, segment base added, evaluated once. */
  ea(): Expr {
    return (this.#ea ??= this.let(expr('ea', 'i64')));
  }
  /** Moves the memory operand by a number of bytes (bit strings, XLAT); before its first access. */
  displaceEa(bytes: Expr): void {
    const address = this.add(this.ea(), bytes);
    this.#ea = this.let(this.legacy ? this.zx(address, 4) : address);
  }
  /** Offset part of the memory operand, cut to the address size, without segment (LEA). */
  offset(): Expr {
    return this.let(expr('offset', 'i64'));
  }
  /** A 4- or 8-byte field of the context (`STATE.…`), zero-extended. */
  field(offset: number, bytes: 4 | 8): Expr {
    return expr('field', 'i64', [this.c(bytes)], BigInt(offset));
  }
  setField(offset: number, bytes: 4 | 8, value: Expr): void {
    this.statements.push({ kind: 'setField', offset, bytes, value });
  }

  // -- memory -----------------------------------------------------------------------------------

  /** Loads `size` bytes (zero-extended) at a linear address. */
  load(address: Expr, size: OperandSize): Expr {
    const type: Type = size === 16 ? 'v128' : 'i64';
    const local = this.locals.push(type) - 1;
    this.statements.push({ kind: 'load', local, type, address, size });
    return expr('local', type, [], BigInt(local));
  }
  store(address: Expr, size: OperandSize, value: Expr): void {
    this.statements.push({ kind: 'store', address, size, value });
  }

  // -- stack (width and base as the mode has them) ------------------------------------------------

  /** Stack pointer, cut to the stack width. */
  sp(): Expr {
    return this.legacy
      ? this.let(this.and(this.reg(4, 8), expr('stackMask', 'i64')))
      : this.let(this.reg(4, 8));
  }
  /** Linear address of a stack offset: in legacy modes checked against SS, whose base is added. */
  stackAddress(sp: Expr): Expr {
    return this.legacy ? this.let(expr('stackAddress', 'i64', [sp])) : sp;
  }
  /** Writes the stack pointer, keeping what is above the stack width. */
  setSp(sp: Expr): void {
    if (!this.legacy) return this.setReg(4, sp, 8);
    const mask = expr('stackMask', 'i64');
    const kept = this.and(this.reg(4, 8), this.xor(mask, this.c(-1)));
    this.setReg(4, this.or(kept, this.and(sp, mask)), 8);
  }
  /** Pushes `size` bytes: store first, then RSP, so that a fault leaves RSP. */
  push(value: Expr, size: OperandSize = this.size): void {
    const sp = this.let(this.sub(this.sp(), this.c(size)));
    this.store(this.stackAddress(sp), size, value);
    this.setSp(sp);
  }
  /** Loads what is on top of the stack; `pop` = this, then `setSp(add(sp(), size))`. */
  top(size: OperandSize = this.size): Expr {
    return this.load(this.stackAddress(this.sp()), size);
  }

  // -- integer expressions ------------------------------------------------------------------------

  #binary(op: string, a: Expr, b: Expr): Expr {
    return expr(op, a.type, [a, b]);
  }
  add(a: Expr, b: Expr): Expr {
    return this.#binary('add', a, b);
  }
  sub(a: Expr, b: Expr): Expr {
    return this.#binary('sub', a, b);
  }
  mul(a: Expr, b: Expr): Expr {
    return this.#binary('mul', a, b);
  }
  and(a: Expr, b: Expr): Expr {
    return this.#binary('and', a, b);
  }
  or(a: Expr, b: Expr): Expr {
    return this.#binary('or', a, b);
  }
  xor(a: Expr, b: Expr): Expr {
    return this.#binary('xor', a, b);
  }
  not(a: Expr): Expr {
    return this.xor(a, this.c(-1));
  }
  /** Shifts of i64; WebAssembly takes the count modulo 64: mask it first where x86 says otherwise. */
  shl(a: Expr, n: Expr): Expr {
    return this.#binary('shl', a, n);
  }
  shru(a: Expr, n: Expr): Expr {
    return this.#binary('shru', a, n);
  }
  shrs(a: Expr, n: Expr): Expr {
    return this.#binary('shrs', a, n);
  }
  rotl(a: Expr, n: Expr): Expr {
    return this.#binary('rotl', a, n);
  }
  rotr(a: Expr, n: Expr): Expr {
    return this.#binary('rotr', a, n);
  }
  /** 64-bit division; the divisor is known to be nonzero and the quotient to fit. */
  divu(a: Expr, b: Expr): Expr {
    return this.#binary('divu', a, b);
  }
  remu(a: Expr, b: Expr): Expr {
    return this.#binary('remu', a, b);
  }
  divs(a: Expr, b: Expr): Expr {
    return this.#binary('divs', a, b);
  }
  rems(a: Expr, b: Expr): Expr {
    return this.#binary('rems', a, b);
  }
  /** Counts of i64; clz/ctz of 0 is 64. */
  clz(a: Expr): Expr {
    return expr('clz', 'i64', [a]);
  }
  ctz(a: Expr): Expr {
    return expr('ctz', 'i64', [a]);
  }
  popcnt(a: Expr): Expr {
    return expr('popcnt', 'i64', [a]);
  }
  /** Cuts to `size` bytes, zero-extended. */
  zx(a: Expr, size: OperandSize = this.size): Expr {
    return size >= 8 ? a : this.and(a, this.c((1n << BigInt(size * 8)) - 1n));
  }
  /** Sign-extends from `size` bytes. */
  sx(a: Expr, size: OperandSize = this.size): Expr {
    return size >= 8 ? a : expr(`sx${size}`, 'i64', [a]);
  }
  /** Comparisons give i32. */
  eq(a: Expr, b: Expr): Expr {
    return expr('eq', 'i32', [a, b]);
  }
  ne(a: Expr, b: Expr): Expr {
    return expr('ne', 'i32', [a, b]);
  }
  ltu(a: Expr, b: Expr): Expr {
    return expr('ltu', 'i32', [a, b]);
  }
  lts(a: Expr, b: Expr): Expr {
    return expr('lts', 'i32', [a, b]);
  }
  gtu(a: Expr, b: Expr): Expr {
    return expr('gtu', 'i32', [a, b]);
  }
  gts(a: Expr, b: Expr): Expr {
    return expr('gts', 'i32', [a, b]);
  }
  /** i64 of a condition, and back (nonzero). */
  bool(condition: Expr): Expr {
    return expr('extend', 'i64', [condition]);
  }
  test(a: Expr): Expr {
    return this.ne(a, this.c(0));
  }
  /** Low 32 bits as i32, e.g. the count of a SIMD shift. */
  low32(a: Expr): Expr {
    return expr('wrap', 'i32', [a]);
  }
  /** Negation of a condition. */
  isZero(condition: Expr): Expr {
    return expr('eq', 'i32', [condition, this.c32(0)]);
  }
  select(condition: Expr, yes: Expr, no: Expr): Expr {
    return expr('select', yes.type, [yes, no, condition]);
  }

  // -- flags --------------------------------------------------------------------------------------

  /** r = a + b, or a + b + CF when `carry`: all six flags. Operands zero-extended, r may exceed the size. */
  flagsAdd(a: Expr, b: Expr, r: Expr, carry = false): void {
    this.#flags(carry ? 'adc' : 'add', a, b, r);
  }
  /** r = a - b, or a - b - CF when `borrow`: all six flags. */
  flagsSub(a: Expr, b: Expr, r: Expr, borrow = false): void {
    this.#flags(borrow ? 'sbb' : 'sub', a, b, r);
  }
  /** CF = OF = AF = 0; ZF, SF, PF of r. */
  flagsLogic(r: Expr): void {
    this.#flags('logic', r, r, r);
  }
  #flags(operation: FlagOperation, a: Expr, b: Expr, r: Expr): void {
    this.statements.push({ kind: 'flags', operation, size: this.size, a, b, r });
  }
  /** ZF, SF, PF of r; AF = 0; CF and OF stay. */
  setFlagResult(r: Expr): void {
    this.setField(160, 8, this.sx(r));
    this.setField(176, 4, this.c(0));
  }
  /** CF and OF (i64 values 0 or 1); the others stay. */
  setCarryOverflow(cf: Expr, of: Expr): void {
    this.setField(168, 8, this.or(this.shl(cf, this.c(63)), this.shl(this.xor(cf, of), this.c(62))));
  }
  /** CF alone (i64 0 or 1); OF stays. */
  setCarry(cf: Expr): void {
    this.setCarryOverflow(this.let(cf), this.let(this.flag('of')));
  }
  /** All six from an RFLAGS image (i64), as SAHF and POPF set them. */
  setFlagsImage(image: Expr): void {
    this.statements.push({ kind: 'setField', offset: -1, bytes: 8, value: image });
  }
  /** One arithmetic flag as i64 0 or 1. */
  flag(name: 'cf' | 'pf' | 'af' | 'zf' | 'sf' | 'of'): Expr {
    return expr(`flag:${name}`, 'i64');
  }
  /** The condition this case is traced for (i32). */
  cond(code: number = this.condition): Expr {
    return expr('cond', 'i32', [], BigInt(code));
  }

  // -- control --------------------------------------------------------------------------------------

  when(condition: Expr, then: () => void, otherwise: () => void = () => {}): void {
    const outer = this.statements;
    this.statements = [];
    then();
    const yes = this.statements;
    this.statements = [];
    otherwise();
    const no = this.statements;
    this.statements = outer;
    outer.push({ kind: 'if', condition, then: yes, otherwise: no });
  }
  /** Faults with this vector if reached. */
  raise(vector: number, errorCode?: number): void {
    this.statements.push({ kind: 'raise', vector, errorCode });
  }
  /** Address of the following instruction. */
  nextRip(): Expr {
    return expr('nextRip', 'i64');
  }
  /** Target of a relative branch (the immediate holds it relative to the code page). */
  target(): Expr {
    return this.add(expr('field', 'i64', [this.c(8)], 136n), this.imm());
  }
  /** Goes on at `target`; the last statement of its path. */
  jump(target: Expr): void {
    this.statements.push({ kind: 'jump', target });
  }

  // -- SSE ----------------------------------------------------------------------------------------

  /** XMM register operand as v128. */
  xmm(register: 'a' | 'b'): Expr {
    return expr(register === 'a' ? 'xmmA' : 'xmmB', 'v128');
  }
  setXmm(register: 'a' | 'b', value: Expr): void {
    this.statements.push({ kind: 'setXmm', register, value });
  }
  /** XMM or memory source ('rr' and 'rm' forms), 16 bytes. */
  xmmSrc(): Expr {
    return this.form === 'rr' ? this.let(this.xmm('b')) : this.load(this.ea(), 16);
  }
  /** Any v128 instruction of WebAssembly by its opcode after the 0xfd prefix, e.g. 0x4e v128.and. */
  simd(opcode: number, ...args: Expr[]): Expr {
    return expr('simd', 'v128', args, BigInt(opcode));
  }
  /** The same for one that gives an i32 (bitmask, any_true). */
  simd32(opcode: number, ...args: Expr[]): Expr {
    return expr('simd', 'i32', args, BigInt(opcode));
  }
  /** i8x16.shuffle of two vectors with sixteen lane numbers 0-31. */
  shuffle(a: Expr, b: Expr, lanes: readonly number[]): Expr {
    return expr(
      'shuffle',
      'v128',
      [a, b],
      lanes.reduceRight((sum, lane) => (sum << 8n) | BigInt(lane), 0n),
    );
  }
  /** i64 lane 0 or 1 of a vector. */
  lane64(v: Expr, lane: 0 | 1): Expr {
    return expr('lane64', 'i64', [v], BigInt(lane));
  }
  /** Vector of two i64 lanes. */
  vector(low: Expr, high: Expr): Expr {
    return expr('vector', 'v128', [low, high]);
  }
}

/** A register whose value is always zero, for addresses without base or index. */
export const NO_REGISTER = ZERO;

/** How a definition is turned into cases. */
export interface Definition {
  readonly name: string;
  readonly forms: readonly Form[];
  readonly sizes: readonly OperandSize[];
  /** One case for each of the sixteen conditions. */
  readonly conditions?: boolean;
  /** Differs between 64-bit code and the legacy modes (stack or rip involved): traced for both. */
  readonly modes?: boolean;
  /** Ends a decoded block (it jumps on some path). */
  readonly jumps?: boolean;
  readonly build: (b: Builder) => void;
}
