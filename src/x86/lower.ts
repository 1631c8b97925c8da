/**
 * Turns the statements of an IR definition into WebAssembly. The same lowering serves every
 * generated function; what differs between them (how control leaves) is the `Frame`'s business.
 */
import type { Builder, Expr, RegisterRef, Statement, Type } from './ir.ts';
import { STATE } from './layout.ts';
import { MICRO_OP, OP_FLAG } from './microop.ts';
import { pushCondition, pushFlag } from './lower-flags.ts';
import { BINARY, BINARY32, LOADS, STORES, UNARY } from './lower-tables.ts';
import type { ImportName } from './runtime-imports.ts';
import { EMPTY, I32, I64, OP, V128 } from './wasm.ts';
import type { FunctionBody } from './wasm.ts';

const WASM_TYPE: Readonly<Record<Type, number>> = { i64: I64, i32: I32, v128: V128 };
const SIMD_LOAD = 0x00;
const SIMD_STORE = 0x0b;
const TLB_HOST = 24;

/** The generated function a case is lowered into. */
export interface Frame {
  readonly f: FunctionBody;
  /** Locals: byte offset of the context, and of the micro-op. */
  readonly ctx: number;
  readonly op: number;
  readonly importIndex: Readonly<Record<ImportName, number>>;
  /** Saves what an import that throws needs to find: the micro-op and the budget left. */
  spill(): void;
  /** Goes on at the rip on the stack (i64), retiring the instruction. */
  jump(): void;
  /** Leaves the run loop behind this instruction. */
  leave(): void;
}

/** Locals are shared between the cases of one function. */
export class LocalPool {
  readonly #f: FunctionBody;
  readonly #pools: Record<Type, number[]> = { i64: [], i32: [], v128: [] };
  readonly #used: Record<Type, number> = { i64: 0, i32: 0, v128: 0 };

  constructor(f: FunctionBody) {
    this.#f = f;
  }
  reset(): void {
    this.#used.i64 = this.#used.i32 = this.#used.v128 = 0;
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

export class Lowering {
  readonly #frame: Frame;
  readonly #f: FunctionBody;
  readonly #pool: LocalPool;
  readonly #builder: Builder;
  readonly #locals: number[];
  readonly #slots = new Map<number, Slot>();
  readonly #addressUse: Map<number, { size: number; write: boolean }>;

  constructor(frame: Frame, pool: LocalPool, builder: Builder) {
    this.#frame = frame;
    this.#f = frame.f;
    this.#pool = pool;
    this.#builder = builder;
    pool.reset();
    this.#locals = builder.locals.map((type) => pool.take(type));
    this.#addressUse = addressUses(builder.statements);
  }

  lower(): void {
    this.#statements(this.#builder.statements);
  }

  #statements(statements: readonly Statement[]): void {
    for (const statement of statements) this.#statement(statement);
  }

  #statement(s: Statement): void {
    const f = this.#f;
    switch (s.kind) {
      case 'let':
        if (s.value.op === 'ea') this.#effectiveAddress(this.#addressUse.get(s.local));
        else if (s.value.op === 'stackAddress') this.#stackAddress(s.value, this.#addressUse.get(s.local));
        else this.#expr(s.value);
        f.set(this.#locals[s.local]!);
        return;
      case 'assign':
        this.#expr(s.value);
        f.set(this.#locals[s.local]!);
        return;
      case 'setReg':
        this.#setRegister(s.register, s.size, s.value);
        return;
      case 'setField':
        if (s.offset < 0) {
          this.#expr(s.value);
          f.call(this.#frame.importIndex.setFlags);
          return;
        }
        f.get(this.#frame.ctx);
        this.#expr(s.value);
        f.memory(s.bytes === 4 ? OP.i64Store32 : OP.i64Store, s.offset);
        return;
      case 'setXmm':
        this.#xmmAddress(s.register);
        this.#expr(s.value);
        f.simdMemory(SIMD_STORE, STATE.ymm);
        return;
      case 'load':
        this.#load(s.address, s.size, this.#locals[s.local]!);
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
        this.#expr(s.condition);
        f.if(EMPTY);
        this.#statements(s.then);
        if (s.otherwise.length) {
          f.else();
          this.#statements(s.otherwise);
        }
        f.end();
        return;
      case 'raise':
        this.#frame.spill();
        f.i32(s.vector)
          .i32(s.errorCode ?? -1)
          .call(this.#frame.importIndex.raise)
          .op(OP.unreachable);
        return;
      case 'jump': {
        this.#expr(s.target);
        // A 16-bit operand size cuts rip to 16 bits in every mode; AMD keeps this in 64-bit mode too.
        if (this.#builder.size === 2) f.i64(0xffffn).op(OP.i64And);
        else if (this.#builder.legacy) f.i64(0xffff_ffffn).op(OP.i64And);
        this.#frame.jump();
        return;
      }
    }
  }

  // -- registers ----------------------------------------------------------------------------------

  /** Pushes ctx + the byte offset in operand `a` or `b`. */
  #registerAddress(operand: 'a' | 'b'): void {
    const { ctx, op } = this.#frame;
    this.#f
      .get(ctx)
      .get(op)
      .memory(OP.i32Load8U, operand === 'a' ? MICRO_OP.a : MICRO_OP.b)
      .op(OP.i32Add);
  }

  #xmmAddress(operand: 'a' | 'b'): void {
    const { ctx, op } = this.#frame;
    this.#f
      .get(ctx)
      .get(op)
      .memory(OP.i32Load8U, operand === 'a' ? MICRO_OP.a : MICRO_OP.b)
      .i32(5)
      .op(OP.i32Shl, OP.i32Add);
  }

  #setRegister(register: RegisterRef, size: number, value: Expr): void {
    let offset = 0;
    if (typeof register === 'number') {
      this.#f.get(this.#frame.ctx);
      offset = register;
    } else this.#registerAddress(register);
    this.#expr(value);
    if (size === 4) this.#f.i64(0xffff_ffffn).op(OP.i64And).memory(OP.i64Store, offset);
    else this.#f.memory(STORES[size]!, offset);
  }

  // -- addresses ------------------------------------------------------------------------------------

  /** base + (index << scale) + displacement. */
  #sum(): void {
    const { ctx, op } = this.#frame;
    const register = (at: number): void => {
      this.#f.get(ctx).get(op).memory(OP.i32Load8U, at).op(OP.i32Add).memory(OP.i64Load, 0);
    };
    register(MICRO_OP.base);
    register(MICRO_OP.index);
    this.#f.get(op).memory(OP.i64Load8U, MICRO_OP.scale).op(OP.i64Shl, OP.i64Add);
    this.#f.get(op).memory(OP.i64Load32S, MICRO_OP.displacement).op(OP.i64Add);
  }

  #effectiveAddress(use: { size: number; write: boolean } | undefined): void {
    const f = this.#f;
    const { op } = this.#frame;
    f.get(op).memory(OP.i32Load8U, MICRO_OP.flags).i32(OP_FLAG.slowAddress).op(OP.i32And);
    f.if(I64);
    this.#frame.spill();
    f.get(op)
      .i32(use?.size ?? 1)
      .i32(use?.write ? 1 : 0)
      .call(this.#frame.importIndex.address);
    f.else();
    this.#sum();
    f.end();
  }

  #stackAddress(e: Expr, use: { size: number; write: boolean } | undefined): void {
    this.#frame.spill();
    this.#expr(e.args[0]!);
    this.#f
      .i32(use?.size ?? 1)
      .i32(use?.write ? 1 : 0)
      .call(this.#frame.importIndex.stackAddress);
  }

  // -- memory -----------------------------------------------------------------------------------------

  /** Evaluates an address into a local, and the TLB entry's tag comparison onto the stack. */
  #probe(address: number, size: number, tag: number): number {
    const f = this.#f;
    const entry = this.#pool.take('i32');
    f.get(this.#frame.ctx).memory(OP.i32Load, STATE.tlb);
    f.get(address).i64(12n).op(OP.i64ShrU, OP.i32WrapI64).i32(1023).op(OP.i32And).i32(5).op(OP.i32Shl);
    f.op(OP.i32Add).tee(entry).memory(OP.i64Load, tag);
    // The page of the last byte: an access that crosses pages never matches its first page's tag.
    f.get(address);
    if (size > 1) f.i64(BigInt(size - 1)).op(OP.i64Add);
    f.i64(-4096n).op(OP.i64And, OP.i64Eq);
    return entry;
  }

  #host(entry: number, address: number): void {
    this.#f
      .get(entry)
      .memory(OP.i32Load, TLB_HOST)
      .get(address)
      .op(OP.i32WrapI64)
      .i32(0xfff)
      .op(OP.i32And, OP.i32Add);
  }

  #addressLocal(address: Expr): number {
    if (address.op === 'local') return this.#locals[Number(address.value)]!;
    const local = this.#pool.take('i64');
    this.#expr(address);
    this.#f.set(local);
    return local;
  }

  #load(addressExpr: Expr, size: number, result: number): void {
    const f = this.#f;
    const address = this.#addressLocal(addressExpr);
    const entry = this.#probe(address, size, 0);
    f.if(EMPTY);
    this.#host(entry, address);
    if (size === 16) f.simdMemory(SIMD_LOAD, 0);
    else f.memory(LOADS[size]!, 0);
    f.set(result).else();
    this.#frame.spill();
    if (size === 16) {
      f.get(address).call(this.#frame.importIndex.load128);
      f.get(this.#frame.ctx).simdMemory(SIMD_LOAD, STATE.scratch).set(result);
    } else f.get(address).i32(size).call(this.#frame.importIndex.load).set(result);
    f.end();
  }

  #store(addressExpr: Expr, size: number, value: Expr): void {
    const f = this.#f;
    const address = this.#addressLocal(addressExpr);
    const held = this.#pool.take(size === 16 ? 'v128' : 'i64');
    this.#expr(value);
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
    const f = this.#f;
    this.#frame.spill();
    if (size === 16) {
      f.get(this.#frame.ctx).get(held).simdMemory(SIMD_STORE, STATE.scratch);
      f.get(address).call(this.#frame.importIndex.store128);
    } else f.get(address).i32(size).get(held).call(this.#frame.importIndex.store);
    f.if(EMPTY);
    this.#frame.leave();
    f.end();
  }

  #openRmw(s: Extract<Statement, { kind: 'openRmw' }>): void {
    const f = this.#f;
    const address = this.#addressLocal(s.address);
    const host = this.#pool.take('i32');
    this.#slots.set(s.slot, { address, host });
    const entry = this.#probe(address, s.size, 8);
    f.if(EMPTY);
    this.#host(entry, address);
    f.tee(host).memory(LOADS[s.size]!, 0).set(this.#locals[s.local]!);
    f.else();
    this.#frame.spill();
    f.get(address).i32(s.size).call(this.#frame.importIndex.loadForWrite).set(this.#locals[s.local]!);
    f.i32(0).set(host);
    f.end();
  }

  #closeRmw(s: Extract<Statement, { kind: 'closeRmw' }>): void {
    const f = this.#f;
    const { address, host } = this.#slots.get(s.slot)!;
    const held = this.#pool.take('i64');
    this.#expr(s.value);
    f.set(held).get(host).if(EMPTY);
    f.get(host).get(held).memory(STORES[s.size]!, 0);
    f.else();
    this.#slowStore(address, s.size, held);
    f.end();
  }

  // -- expressions --------------------------------------------------------------------------------------

  #field(offset: number, bytes: number): void {
    this.#f.get(this.#frame.ctx).memory(LOADS[bytes]!, offset);
  }

  #expr(e: Expr): void {
    const f = this.#f;
    const { ctx, op } = this.#frame;
    switch (e.op) {
      case 'const':
        if (e.type === 'i32') f.i32(Number(e.value));
        else f.i64(e.value);
        return;
      case 'local':
        f.get(this.#locals[Number(e.value)]!);
        return;
      case 'field':
        this.#field(Number(e.value), Number(e.args[0]!.value));
        return;
      case 'regA':
      case 'regB':
        this.#registerAddress(e.op === 'regA' ? 'a' : 'b');
        f.memory(LOADS[Number(e.value)]!, 0);
        return;
      case 'xmmA':
      case 'xmmB':
        this.#xmmAddress(e.op === 'xmmA' ? 'a' : 'b');
        f.simdMemory(SIMD_LOAD, STATE.ymm);
        return;
      case 'imm':
        f.get(op).memory(OP.i64Load, MICRO_OP.immediate);
        return;
      case 'offset':
        this.#sum();
        this.#cutToAddressSize();
        return;
      case 'stackMask':
        this.#field(STATE.stackMask, 8);
        return;
      case 'nextRip':
        f.get(ctx).memory(OP.i64Load, STATE.codePage);
        f.get(op).memory(OP.i64Load16U, MICRO_OP.pageOffset).op(OP.i64Add);
        f.get(op).memory(OP.i64Load8U, MICRO_OP.length).op(OP.i64Add);
        return;
      case 'cond':
        pushCondition(f, ctx, Number(e.value));
        return;
      case 'select':
        for (const arg of e.args) this.#expr(arg);
        if (e.type === 'v128') f.byte(0x1c, 1, V128);
        else f.op(OP.select);
        return;
      case 'simd':
        for (const arg of e.args) this.#expr(arg);
        f.simd(Number(e.value));
        return;
      case 'shuffle':
        for (const arg of e.args) this.#expr(arg);
        f.simd(0x0d);
        for (let i = 0n; i < 16n; i++) f.byte(Number((e.value >> (8n * i)) & 0xffn));
        return;
      case 'lane64':
        this.#expr(e.args[0]!);
        f.simd(0x1d).byte(Number(e.value));
        return;
      case 'vector':
        this.#expr(e.args[0]!);
        f.simd(0x12); // i64x2.splat
        this.#expr(e.args[1]!);
        f.simd(0x1e).byte(1); // i64x2.replace_lane 1
        return;
    }
    if (e.op.startsWith('flag:')) return pushFlag(f, ctx, e.op.slice(5));
    const unary = UNARY[e.op];
    if (unary !== undefined) {
      this.#expr(e.args[0]!);
      f.op(unary);
      return;
    }
    const table = e.args[0]?.type === 'i32' ? BINARY32 : BINARY;
    const binary = table[e.op];
    if (binary === undefined) throw new Error(`no lowering for ${e.op}`);
    this.#expr(e.args[0]!);
    this.#expr(e.args[1]!);
    f.op(binary);
  }

  /** Cuts the sum on the stack to the micro-op's address size. */
  #cutToAddressSize(): void {
    const f = this.#f;
    // all ones >>> (64 - 8 * size)
    f.i64(-1n).i64(64n);
    f.get(this.#frame.op).memory(OP.i64Load8U, MICRO_OP.addressSize).i64(3n).op(OP.i64Shl);
    f.op(OP.i64Sub, OP.i64ShrU, OP.i64And);
  }
}

/** Size and direction of the first access through each address local, for the segment check. */
function addressUses(statements: readonly Statement[]): Map<number, { size: number; write: boolean }> {
  const uses = new Map<number, { size: number; write: boolean }>();
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
