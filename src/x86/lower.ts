/**
 * Turns the statements of an IR definition into WebAssembly: expressions, and memory accesses with
 * the TLB's hit path inline. What differs between the tiers (where registers, flags and operands
 * are, how control leaves) is for the two kinds of lowering built on this one:
 * `interpreter-lowering.ts` and `region-lowering.ts`.
 */
import type { Builder, Expr, RegisterRef, Statement, Type } from './ir.ts';
import { STATE } from './layout.ts';
import { BINARY, BINARY32, LOADS, STORES, UNARY } from './lower-tables.ts';
import type { ImportName } from './runtime-imports.ts';
import { EMPTY, I32, I64, OP, V128 } from './wasm.ts';
import type { FunctionBody } from './wasm.ts';

const WASM_TYPE: Readonly<Record<Type, number>> = { i64: I64, i32: I32, v128: V128 };
const SIMD_LOAD = 0x00;
const SIMD_STORE = 0x0b;
const TLB_ADDEND = 24;

/** Locals are shared between the cases of one function. */
export class LocalPool {
  readonly #f: FunctionBody;
  readonly #pools: Record<Type, number[]> = { i64: [], i32: [], v128: [] };
  readonly #used: Record<Type, number> = { i64: 0, i32: 0, v128: 0 };

  constructor(f: FunctionBody) {
    this.#f = f;
  }
  reset(): void {
    this.use({ i64: 0, i32: 0, v128: 0 });
  }
  /** How many locals of each type are taken; to be given back to `use`. */
  get used(): Readonly<Record<Type, number>> {
    return { ...this.#used };
  }
  use(used: Readonly<Record<Type, number>>): void {
    Object.assign(this.#used, used);
  }
  take(type: Type): number {
    const pool = this.#pools[type];
    const index = this.#used[type]++;
    return (pool[index] ??= this.#f.local(WASM_TYPE[type]));
  }
}

interface Slot {
  readonly address: number;
  readonly host: number;
}

/** Size and direction of the accesses through an address, for the segment check. */
export interface AddressUse {
  readonly size: number;
  readonly write: boolean;
}

export abstract class Lowering {
  protected readonly f: FunctionBody;
  /** Local that holds the byte offset of the context. */
  protected readonly ctx: number;
  protected readonly imports: Readonly<Record<ImportName, number>>;
  protected readonly pool: LocalPool;
  protected builder!: Builder;
  protected locals: number[] = [];
  #slots = new Map<number, Slot>();
  #addressUse = new Map<number, AddressUse>();

  constructor(f: FunctionBody, ctx: number, imports: Readonly<Record<ImportName, number>>, pool: LocalPool) {
    this.f = f;
    this.ctx = ctx;
    this.imports = imports;
    this.pool = pool;
  }

  // -- what the tiers answer --------------------------------------------------------------------------

  /** Saves what an import that throws needs to find. */
  protected abstract spill(): void;
  /** Leaves the run loop behind this instruction. */
  protected abstract leave(): void;
  /** Goes on at the target, retiring the instruction. */
  protected abstract jump(target: Expr): void;
  protected abstract pushRegister(register: RegisterRef, size: number): void;
  protected abstract setRegister(register: RegisterRef, size: number, value: Expr): void;
  /** Pushes ctx + 32 * the XMM register's number. */
  protected abstract pushXmmBase(operand: 'a' | 'b'): void;
  protected abstract pushImmediate(): void;
  /** Linear address of the memory operand; offset alone; address behind the instruction. */
  protected abstract pushEffectiveAddress(use: AddressUse | undefined): void;
  protected abstract pushOffset(): void;
  protected abstract pushNextRip(): void;
  /** One arithmetic flag as i64; one condition as i32; all six set by an operation. */
  protected abstract pushFlag(name: string): void;
  protected abstract pushCondition(code: number): void;
  protected abstract setFlags(s: Extract<Statement, { kind: 'flags' }>): void;
  protected abstract pushField(offset: number, bytes: number): void;
  protected abstract setField(offset: number, bytes: 4 | 8, value: Expr): void;

  /** Pushes the address of the current TLB set. */
  protected pushTlb(): void {
    this.f.get(this.ctx).memory(OP.i32Load, STATE.tlb);
  }

  /** Lowers one traced definition. */
  protected lowerBuilt(builder: Builder): void {
    this.builder = builder;
    this.pool.reset();
    this.#slots = new Map();
    this.locals = builder.locals.map((type) => this.pool.take(type));
    this.#addressUse = addressUses(builder.statements);
    this.statements(builder.statements);
  }

  /** What belongs to the instruction being lowered. */
  protected saveState(): unknown {
    const { builder, locals, pool } = this;
    return [builder, locals, this.#slots, this.#addressUse, pool.used];
  }
  protected restoreState(state: unknown): void {
    const [builder, locals, slots, use, used] = state as [
      Builder,
      number[],
      Map<number, Slot>,
      Map<number, AddressUse>,
      LocalPool['used'],
    ];
    this.builder = builder;
    this.locals = locals;
    this.#slots = slots;
    this.#addressUse = use;
    this.pool.use(used);
  }

  protected statements(statements: readonly Statement[]): void {
    for (const statement of statements) this.statement(statement);
  }

  protected statement(s: Statement): void {
    const { f } = this;
    switch (s.kind) {
      case 'let':
        if (s.value.op === 'ea') this.pushEffectiveAddress(this.#addressUse.get(s.local));
        else if (s.value.op === 'stackAddress') this.#stackAddress(s.value, this.#addressUse.get(s.local));
        else this.expr(s.value);
        f.set(this.locals[s.local]!);
        return;
      case 'assign':
        this.expr(s.value);
        f.set(this.locals[s.local]!);
        return;
      case 'setReg':
        this.setRegister(s.register, s.size, s.value);
        return;
      case 'flags':
        this.setFlags(s);
        return;
      case 'setField':
        this.setField(s.offset, s.bytes, s.value);
        return;
      case 'setXmm':
        this.pushXmmBase(s.register);
        this.expr(s.value);
        f.simdMemory(SIMD_STORE, STATE.ymm);
        return;
      case 'load':
        this.#load(s.address, s.size, this.locals[s.local]!);
        return;
      case 'store':
        this.#store(s.address, s.size, s.value);
        return;
      case 'openRmw':
        this.#openRmw(s);
        return;
      case 'closeRmw':
        this.#closeRmw(s);
        return;
      case 'if':
        this.conditional(s);
        return;
      case 'raise':
        this.spill();
        f.i32(s.vector)
          .i32(s.errorCode ?? -1)
          .call(this.imports.raise)
          .op(OP.unreachable);
        return;
      case 'jump':
        this.jump(s.target);
        return;
    }
  }

  protected conditional(s: Extract<Statement, { kind: 'if' }>): void {
    this.expr(s.condition);
    this.f.if(EMPTY);
    this.statements(s.then);
    if (s.otherwise.length) {
      this.f.else();
      this.statements(s.otherwise);
    }
    this.f.end();
  }

  /** Width to which a jump target is cut: 16 bits by the operand size, 32 in legacy modes, else none. */
  protected jumpMask(): bigint | undefined {
    // AMD keeps the 16-bit operand size of near branches in 64-bit mode too.
    if (this.builder.size === 2) return 0xffffn;
    return this.builder.legacy ? 0xffff_ffffn : undefined;
  }

  #stackAddress(e: Expr, use: AddressUse | undefined): void {
    this.spill();
    this.expr(e.args[0]!);
    this.f
      .i32(use?.size ?? 1)
      .i32(use?.write ? 1 : 0)
      .call(this.imports.stackAddress);
  }

  // -- memory -----------------------------------------------------------------------------------------

  /** Evaluates an address into a local, and the TLB entry's tag comparison onto the stack. */
  #probe(address: number, size: number, tag: number): number {
    const { f } = this;
    const entry = this.pool.take('i32');
    this.pushTlb();
    // (page number modulo TLB_ENTRIES) * TLB_ENTRY_SIZE, in one shift.
    f.get(address)
      .i64(7n)
      .op(OP.i64ShrU, OP.i32WrapI64)
      .i32(1023 << 5)
      .op(OP.i32And);
    f.op(OP.i32Add).tee(entry).memory(OP.i64Load, tag);
    // The page of the last byte: an access that crosses pages never matches its first page's tag.
    f.get(address);
    if (size > 1) f.i64(BigInt(size - 1)).op(OP.i64Add);
    f.i64(-4096n).op(OP.i64And, OP.i64Eq);
    return entry;
  }

  /** Host address: the entry's addend makes it of the low half of the linear one. */
  #host(entry: number, address: number): void {
    this.f.get(entry).memory(OP.i32Load, TLB_ADDEND).get(address).op(OP.i32WrapI64, OP.i32Add);
  }

  #addressLocal(address: Expr): number {
    if (address.op === 'local') return this.locals[Number(address.value)]!;
    const local = this.pool.take('i64');
    this.expr(address);
    this.f.set(local);
    return local;
  }

  #load(addressExpr: Expr, size: number, result: number): void {
    const { f } = this;
    const address = this.#addressLocal(addressExpr);
    const entry = this.#probe(address, size, 0);
    f.if(EMPTY);
    this.#host(entry, address);
    if (size === 16) f.simdMemory(SIMD_LOAD, 0);
    else f.memory(LOADS[size]!, 0);
    f.set(result).else();
    this.spill();
    if (size === 16) {
      f.get(address).call(this.imports.load128);
      f.get(this.ctx).simdMemory(SIMD_LOAD, STATE.scratch).set(result);
    } else f.get(address).i32(size).call(this.imports.load).set(result);
    f.end();
  }

  #store(addressExpr: Expr, size: number, value: Expr): void {
    const { f } = this;
    const address = this.#addressLocal(addressExpr);
    const held = this.pool.take(size === 16 ? 'v128' : 'i64');
    this.expr(value);
    f.set(held);
    const entry = this.#probe(address, size, 8);
    f.if(EMPTY);
    this.#host(entry, address);
    f.get(held);
    if (size === 16) f.simdMemory(SIMD_STORE, 0);
    else f.memory(STORES[size]!, 0);
    f.else();
    this.#slowStore(address, size, held);
    f.end();
  }

  #slowStore(address: number, size: number, held: number): void {
    const { f } = this;
    this.spill();
    if (size === 16) {
      f.get(this.ctx).get(held).simdMemory(SIMD_STORE, STATE.scratch);
      f.get(address).call(this.imports.store128);
    } else f.get(address).i32(size).get(held).call(this.imports.store);
    f.if(EMPTY);
    this.leave();
    f.end();
  }

  #openRmw(s: Extract<Statement, { kind: 'openRmw' }>): void {
    const { f } = this;
    const address = this.#addressLocal(s.address);
    const host = this.pool.take('i32');
    this.#slots.set(s.slot, { address, host });
    const entry = this.#probe(address, s.size, 8);
    f.if(EMPTY);
    this.#host(entry, address);
    f.tee(host).memory(LOADS[s.size]!, 0).set(this.locals[s.local]!);
    f.else();
    this.spill();
    f.get(address).i32(s.size).call(this.imports.loadForWrite).set(this.locals[s.local]!);
    f.i32(0).set(host);
    f.end();
  }

  #closeRmw(s: Extract<Statement, { kind: 'closeRmw' }>): void {
    const { f } = this;
    const { address, host } = this.#slots.get(s.slot)!;
    const held = this.pool.take('i64');
    this.expr(s.value);
    f.set(held).get(host).if(EMPTY);
    f.get(host).get(held).memory(STORES[s.size]!, 0);
    f.else();
    this.#slowStore(address, s.size, held);
    f.end();
  }

  // -- expressions --------------------------------------------------------------------------------------

  protected expr(e: Expr): void {
    const { f } = this;
    switch (e.op) {
      case 'const':
        if (e.type === 'i32') f.i32(Number(e.value));
        else f.i64(e.value);
        return;
      case 'local':
        f.get(this.locals[Number(e.value)]!);
        return;
      case 'field':
        this.pushField(Number(e.value), Number(e.args[0]!.value));
        return;
      case 'regA':
      case 'regB':
        this.pushRegister(e.op === 'regA' ? 'a' : 'b', Number(e.value));
        return;
      case 'xmmA':
      case 'xmmB':
        this.pushXmmBase(e.op === 'xmmA' ? 'a' : 'b');
        f.simdMemory(SIMD_LOAD, STATE.ymm);
        return;
      case 'imm':
        this.pushImmediate();
        return;
      case 'offset':
        this.pushOffset();
        return;
      case 'stackMask':
        this.pushField(STATE.stackMask, 8);
        return;
      case 'nextRip':
        this.pushNextRip();
        return;
      case 'cond':
        this.pushCondition(Number(e.value));
        return;
      case 'select':
        for (const arg of e.args) this.expr(arg);
        if (e.type === 'v128') f.byte(0x1c, 1, V128);
        else f.op(OP.select);
        return;
      case 'simd':
        for (const arg of e.args) this.expr(arg);
        f.simd(Number(e.value));
        return;
      case 'shuffle':
        for (const arg of e.args) this.expr(arg);
        f.simd(0x0d);
        for (let i = 0n; i < 16n; i++) f.byte(Number((e.value >> (8n * i)) & 0xffn));
        return;
      case 'lane64':
        this.expr(e.args[0]!);
        f.simd(0x1d).byte(Number(e.value));
        return;
      case 'vector':
        this.expr(e.args[0]!);
        f.simd(0x12); // i64x2.splat
        this.expr(e.args[1]!);
        f.simd(0x1e).byte(1); // i64x2.replace_lane 1
        return;
    }
    if (e.op.startsWith('flag:')) return this.pushFlag(e.op.slice(5));
    const unary = UNARY[e.op];
    if (unary !== undefined) {
      this.expr(e.args[0]!);
      f.op(unary);
      return;
    }
    const table = e.args[0]?.type === 'i32' ? BINARY32 : BINARY;
    const binary = table[e.op];
    if (binary === undefined) throw new Error(`no lowering for ${e.op}`);
    this.expr(e.args[0]!);
    this.expr(e.args[1]!);
    f.op(binary);
  }
}

/** Size and direction of the first access through each address local, for the segment check. */
function addressUses(statements: readonly Statement[]): Map<number, AddressUse> {
  const uses = new Map<number, AddressUse>();
  const note = (address: Expr, size: number, write: boolean): void => {
    if (address.op !== 'local') return;
    const local = Number(address.value);
    const known = uses.get(local);
    uses.set(local, { size: known?.size ?? size, write: write || (known?.write ?? false) });
  };
  const visit = (list: readonly Statement[]): void => {
    for (const s of list) {
      if (s.kind === 'load') note(s.address, s.size, false);
      else if (s.kind === 'store' || s.kind === 'openRmw') note(s.address, s.size, true);
      else if (s.kind === 'if') {
        visit(s.then);
        visit(s.otherwise);
      }
    }
  };
  visit(statements);
  return uses;
}
