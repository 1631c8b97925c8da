/**
 * Lowering for the interpreter: one case serves every instruction of its form, so operands are read
 * from the micro-op, and registers and flags stay in the context.
 */
import { flagFields } from './ir.ts';
import type { Builder, Expr, RegisterRef, Statement } from './ir.ts';
import { STATE } from './layout.ts';
import { pushCondition, pushFlag } from './lower-flags.ts';
import { LOADS, STORES } from './lower-tables.ts';
import { Lowering } from './lower.ts';
import type { AddressUse, LocalPool } from './lower.ts';
import { MICRO_OP, OP_FLAG } from './microop.ts';
import type { ImportName } from './runtime-imports.ts';
import { I64, OP } from './wasm.ts';
import type { FunctionBody } from './wasm.ts';

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

export class CaseLowering extends Lowering {
  readonly #frame: Frame;

  constructor(frame: Frame, pool: LocalPool) {
    super(frame.f, frame.ctx, frame.importIndex, pool);
    this.#frame = frame;
  }

  lower(builder: Builder): void {
    this.lowerBuilt(builder);
  }

  protected spill(): void {
    this.#frame.spill();
  }
  protected leave(): void {
    this.#frame.leave();
  }
  protected jump(target: Expr): void {
    this.expr(target);
    const mask = this.jumpMask();
    if (mask !== undefined) this.f.i64(mask).op(OP.i64And);
    this.#frame.jump();
  }

  // -- operands ---------------------------------------------------------------------------------------

  #operand(operand: 'a' | 'b'): void {
    this.f
      .get(this.ctx)
      .get(this.#frame.op)
      .memory(OP.i32Load8U, operand === 'a' ? MICRO_OP.a : MICRO_OP.b);
  }

  protected pushRegister(register: RegisterRef, size: number): void {
    if (typeof register === 'number') return this.pushField(register, size);
    this.#operand(register);
    this.f.op(OP.i32Add).memory(LOADS[size]!, 0);
  }

  protected setRegister(register: RegisterRef, size: number, value: Expr): void {
    let offset = 0;
    if (typeof register === 'number') {
      this.f.get(this.ctx);
      offset = register;
    } else {
      this.#operand(register);
      this.f.op(OP.i32Add);
    }
    this.expr(value);
    if (size === 4) this.f.i64(0xffff_ffffn).op(OP.i64And).memory(OP.i64Store, offset);
    else this.f.memory(STORES[size]!, offset);
  }

  protected pushXmmBase(operand: 'a' | 'b'): void {
    this.#operand(operand);
    this.f.i32(5).op(OP.i32Shl, OP.i32Add);
  }

  protected pushImmediate(): void {
    this.f.get(this.#frame.op).memory(OP.i64Load, MICRO_OP.immediate);
  }

  /** base + (index << scale) + displacement. */
  #sum(): void {
    const { f, ctx } = this;
    const { op } = this.#frame;
    const register = (at: number): void => {
      f.get(ctx).get(op).memory(OP.i32Load8U, at).op(OP.i32Add).memory(OP.i64Load, 0);
    };
    register(MICRO_OP.base);
    register(MICRO_OP.index);
    f.get(op).memory(OP.i64Load8U, MICRO_OP.scale).op(OP.i64Shl, OP.i64Add);
    f.get(op).memory(OP.i64Load32S, MICRO_OP.displacement).op(OP.i64Add);
  }

  protected pushEffectiveAddress(use: AddressUse | undefined): void {
    const { f } = this;
    const { op } = this.#frame;
    f.get(op).memory(OP.i32Load8U, MICRO_OP.flags).i32(OP_FLAG.slowAddress).op(OP.i32And);
    f.if(I64);
    this.spill();
    f.get(op)
      .i32(use?.size ?? 1)
      .i32(use?.write ? 1 : 0)
      .call(this.imports.address);
    f.else();
    this.#sum();
    f.end();
  }

  protected pushOffset(): void {
    const { f } = this;
    this.#sum();
    // Cut to the address size: all ones >>> (64 - 8 * size).
    f.i64(-1n).i64(64n);
    f.get(this.#frame.op).memory(OP.i64Load8U, MICRO_OP.addressSize).i64(3n).op(OP.i64Shl);
    f.op(OP.i64Sub, OP.i64ShrU, OP.i64And);
  }

  protected pushNextRip(): void {
    const { f } = this;
    const { op } = this.#frame;
    f.get(this.ctx).memory(OP.i64Load, STATE.codePage);
    f.get(op).memory(OP.i64Load16U, MICRO_OP.pageOffset).op(OP.i64Add);
    f.get(op).memory(OP.i64Load8U, MICRO_OP.length).op(OP.i64Add);
  }

  // -- flags and fields ---------------------------------------------------------------------------------

  protected pushField(offset: number, bytes: number): void {
    this.f.get(this.ctx).memory(LOADS[bytes]!, offset);
  }

  protected setField(offset: number, bytes: 4 | 8, value: Expr): void {
    if (offset < 0) {
      this.expr(value);
      this.f.call(this.imports.setFlags);
      return;
    }
    this.f.get(this.ctx);
    this.expr(value);
    this.f.memory(bytes === 4 ? OP.i64Store32 : OP.i64Store, offset);
  }

  protected setFlags(s: Extract<Statement, { kind: 'flags' }>): void {
    const { result, carry, misc } = flagFields(this.builder, s);
    this.setField(STATE.flagResult, 8, result);
    this.setField(STATE.flagCarry, 8, carry);
    this.setField(STATE.flagMisc, 4, misc);
  }

  protected pushFlag(name: string): void {
    pushFlag(this.f, this.ctx, name);
  }
  protected pushCondition(code: number): void {
    pushCondition(this.f, this.ctx, code);
  }
}
