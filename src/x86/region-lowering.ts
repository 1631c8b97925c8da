/**
 * Tier 2, second half: lowering inside a region. Registers are locals, operands are constants, and
 * flags stay what made them (operation, operands, result) until something reads them. A slow path
 * first writes everything back, so a fault thrown from it finds the exact architectural state.
 */
import type { Builder, Expr, RegisterRef } from './ir.ts';
import { CODE_PAGE, FS, GS, STATE, ZERO, segment } from './layout.ts';
import { LOADS, STORES } from './lower-tables.ts';
import type { LocalPool } from './lower.ts';
import { MICRO_OP } from './microop.ts';
import type { RegionOp } from './region.ts';
import { FlagLowering, nested } from './region-flags.ts';
import type { ImportName } from './runtime-imports.ts';
import { EMPTY, I32, I64, OP } from './wasm.ts';
import type { FunctionBody } from './wasm.ts';

const GPR_END = 128;

/** Where control goes: the region's structure answers. */
export interface RegionControl {
  /** Goes to a page offset from the current block; emits code that does not fall through. */
  goTo(offset: number): void;
  /** Leaves the region for the rip in `nextRip`; emits a branch. */
  exit(): void;
  /** Goes to the rip in `nextRip`, in the region if it is one of its entries; emits a branch. */
  indirect(): void;
}

export class RegionLowering extends FlagLowering {
  readonly #view: DataView;
  readonly #control: RegionControl;
  readonly #registers = new Map<number, number>();
  readonly #written: ReadonlySet<number>;
  readonly #fuel: number;
  // Locals: the code page, the TLB set (helpers alone change it), the next rip, "leave".
  readonly #tlb: number;
  readonly page: number;
  readonly nextRip: number;
  readonly #leaving: number;
  #op!: RegionOp;
  /** Instructions of the block from the current one on, itself included. */
  #left = 0;
  #stores = false;

  constructor(options: {
    f: FunctionBody;
    ctx: number;
    fuel: number;
    imports: Readonly<Record<ImportName, number>>;
    normalize: number;
    pool: LocalPool;
    view: DataView;
    control: RegionControl;
    used: ReadonlySet<number>;
    written: ReadonlySet<number>;
  }) {
    super(options.f, options.ctx, options.imports, options.normalize, options.pool);
    const { f } = this;
    this.#view = options.view;
    this.#control = options.control;
    this.#fuel = options.fuel;
    this.#written = options.written;
    for (const register of options.used) this.#registers.set(register, f.local(I64));
    this.page = f.local(I64);
    this.#tlb = f.local(I32);
    this.nextRip = f.local(I64);
    this.#leaving = f.local(I32);
  }

  /** Loads the locals from the context. */
  prologue(): void {
    const { f, ctx } = this;
    for (const [register, local] of this.#registers)
      f.get(ctx)
        .memory(OP.i64Load, register * 8)
        .set(local);
    this.loadFlags();
    f.get(ctx).memory(OP.i64Load, STATE.codePage).set(this.page);
    f.get(ctx).memory(OP.i32Load, STATE.tlb).set(this.#tlb);
  }
  /** Writes registers and flags back. */
  writeBack(): void {
    const { f, ctx } = this;
    for (const register of this.#written)
      f.get(ctx)
        .get(this.#registers.get(register)!)
        .memory(OP.i64Store, register * 8);
    this.writeBackFlags();
  }
  /** At the end: everything back, and where to go on. The fuel is the function's result. */
  epilogue(): void {
    this.flags = 'dynamic';
    this.writeBack();
    this.f.get(this.ctx).get(this.nextRip).memory(OP.i64Store, STATE.nextRip).get(this.#fuel);
  }

  /** Lowers one instruction; `left` counts it and those behind it in its block. */
  lower(op: RegionOp, builder: Builder, left: number, hasStore: boolean): void {
    this.#op = op;
    this.#left = left;
    this.#stores = hasStore;
    this.lowerBuilt(builder);
    if (hasStore) this.#leaveIfAsked(() => this.f.get(this.page).i64(BigInt(op.next)).op(OP.i64Add));
  }

  #leaveIfAsked(pushRip: () => void): void {
    const { f } = this;
    f.get(this.#leaving).if(EMPTY);
    pushRip();
    f.set(this.nextRip);
    f.get(this.#fuel)
      .i64(BigInt(this.#left - 1))
      .op(OP.i64Add)
      .set(this.#fuel);
    const { flags } = this;
    this.publishFlags();
    this.#control.exit();
    this.flags = flags;
    f.end();
  }

  /** Goes to an address outside the region. */
  leaveFor(offset: number): void {
    this.f.get(this.page).i64(BigInt(offset)).op(OP.i64Add).set(this.nextRip);
    this.publishFlags();
    this.#control.exit();
  }

  protected spill(): void {
    const { f, ctx } = this;
    this.writeBack();
    f.get(ctx).i32(this.#op.record).memory(OP.i32Store, STATE.currentOp);
    f.get(ctx).get(this.#fuel).i64(BigInt(this.#left)).op(OP.i64Add).memory(OP.i64Store, STATE.budget);
  }
  protected override pushTlb(): void {
    this.f.get(this.#tlb);
  }
  protected leave(): void {
    this.f.i32(1).set(this.#leaving);
  }

  protected jump(target: Expr): void {
    const { f } = this;
    const offset = this.#directTarget(target);
    const saved = this.flags;
    const restore = this.#save();
    if (offset !== undefined) {
      if (this.#stores) this.#leaveIfAsked(() => f.get(this.page).i64(BigInt(offset)).op(OP.i64Add));
      this.#control.goTo(offset);
    } else {
      this.expr(target);
      const mask = this.jumpMask();
      if (mask !== undefined) f.i64(mask).op(OP.i64And);
      f.set(this.nextRip);
      if (this.#stores) this.#leaveIfAsked(() => f.get(this.nextRip));
      this.publishFlags();
      this.#control.indirect();
    }
    restore();
    this.flags = saved;
  }

  /** Code of other blocks may be emitted in the middle of a jump: what belongs to this instruction. */
  #save(): () => void {
    const state = this.saveState();
    const op = this.#op;
    const left = this.#left;
    const stores = this.#stores;
    return () => {
      this.restoreState(state);
      this.#op = op;
      this.#left = left;
      this.#stores = stores;
    };
  }

  /** Page offset of a target that is the code page plus the immediate. */
  #directTarget(target: Expr): number | undefined {
    if (this.jumpMask() !== undefined) return undefined;
    let e = target;
    while (e.op === 'local') {
      const made = this.builder.statements
        .concat(nested(this.builder.statements))
        .find((s) => s.kind === 'let' && BigInt(s.local) === e.value);
      if (made?.kind !== 'let') return undefined;
      e = made.value;
    }
    const [left, right] = e.args;
    if (e.op !== 'add' || left?.op !== 'field' || Number(left.value) !== CODE_PAGE || right?.op !== 'imm')
      return undefined;
    return Number(this.immediate);
  }

  // -- operands ---------------------------------------------------------------------------------------

  #byte(at: number): number {
    return this.#view.getUint8(this.#op.record + at);
  }
  protected get immediate(): bigint {
    return this.#view.getBigInt64(this.#op.record + MICRO_OP.immediate, true);
  }
  #offsetOf(register: RegisterRef): number {
    if (typeof register === 'number') return register;
    return this.#byte(register === 'a' ? MICRO_OP.a : MICRO_OP.b);
  }

  protected pushRegister(register: RegisterRef, size: number): void {
    const { f } = this;
    const offset = this.#offsetOf(register);
    f.get(this.#registers.get(offset >> 3)!);
    if (offset & 7) f.i64(8n).op(OP.i64ShrU);
    if (size < 8) f.i64((1n << BigInt(8 * size)) - 1n).op(OP.i64And);
  }

  protected setRegister(register: RegisterRef, size: number, value: Expr): void {
    const { f } = this;
    const offset = this.#offsetOf(register);
    const local = this.#registers.get(offset >> 3)!;
    if (size >= 4) {
      this.expr(value);
      if (size === 4) f.i64(0xffff_ffffn).op(OP.i64And);
      f.set(local);
      return;
    }
    const shift = BigInt(offset & 7) * 8n;
    const mask = (1n << BigInt(8 * size)) - 1n;
    this.expr(value);
    f.i64(mask).op(OP.i64And);
    if (shift) f.i64(shift).op(OP.i64Shl);
    f.get(local)
      .i64(~(mask << shift))
      .op(OP.i64And, OP.i64Or)
      .set(local);
  }

  protected pushXmmBase(operand: 'a' | 'b'): void {
    this.f
      .get(this.ctx)
      .i32(this.#offsetOf(operand) * 32)
      .op(OP.i32Add);
  }
  protected pushImmediate(): void {
    this.f.i64(this.immediate);
  }
  protected pushNextRip(): void {
    this.f.get(this.page).i64(BigInt(this.#op.next)).op(OP.i64Add);
  }

  protected pushOffset(): void {
    const { f } = this;
    const displacement = BigInt(this.#view.getInt32(this.#op.record + MICRO_OP.displacement, true));
    let pushed = false;
    const term = (at: number, scale: number): void => {
      const offset = this.#byte(at);
      if (offset === ZERO) return;
      f.get(offset === CODE_PAGE ? this.page : this.#registers.get(offset >> 3)!);
      if (scale) f.i64(BigInt(scale)).op(OP.i64Shl);
      if (pushed) f.op(OP.i64Add);
      pushed = true;
    };
    term(MICRO_OP.base, 0);
    term(MICRO_OP.index, this.#byte(MICRO_OP.scale));
    if (displacement !== 0n || !pushed) {
      f.i64(displacement);
      if (pushed) f.op(OP.i64Add);
    }
    const size = this.#byte(MICRO_OP.addressSize);
    if (size < 8) f.i64((1n << BigInt(8 * size)) - 1n).op(OP.i64And);
  }

  protected pushEffectiveAddress(): void {
    this.pushOffset();
    const index = this.#byte(MICRO_OP.segment);
    if (index !== FS && index !== GS) return;
    // The canonical check of the sum is the TLB fill's.
    this.f
      .get(this.ctx)
      .memory(OP.i64Load, segment(index) + 8)
      .op(OP.i64Add);
  }

  // -- fields and flags ---------------------------------------------------------------------------------

  protected pushField(offset: number, bytes: number): void {
    if (offset < GPR_END) return this.pushRegister(offset, bytes);
    if (offset === CODE_PAGE) {
      this.f.get(this.page);
      return;
    }
    if (!this.pushFlagField(offset)) this.f.get(this.ctx).memory(LOADS[bytes]!, offset);
  }

  protected setField(offset: number, bytes: 4 | 8, value: Expr): void {
    if (this.setFlagField(offset, value)) return;
    this.f.get(this.ctx);
    this.expr(value);
    this.f.memory(bytes === 4 ? STORES[4]! : STORES[8]!, offset);
  }
}
