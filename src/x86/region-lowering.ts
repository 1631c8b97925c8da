/**
 * Tier 2, second half: lowering inside a region. Registers are locals, operands are constants, and
 * flags stay what made them (operation, operands, result) until something reads them. A slow path
 * first writes everything back, so a fault thrown from it finds the exact architectural state.
 */
import { flagFields } from './ir.ts';
import type { Builder, Expr, FlagOperation, RegisterRef, Statement } from './ir.ts';
import { CODE_PAGE, FS, GS, STATE, ZERO, segment } from './layout.ts';
import { LOADS, STORES } from './lower-tables.ts';
import { Lowering } from './lower.ts';
import type { LocalPool } from './lower.ts';
import { MICRO_OP } from './microop.ts';
import type { OperandSize } from './microop.ts';
import type { RegionOp } from './region.ts';
import { fold } from './region-fold.ts';
import type { ImportName } from './runtime-imports.ts';
import { EMPTY, I32, I64, OP } from './wasm.ts';
import type { FunctionBody } from './wasm.ts';

const FLAG_FIELDS: ReadonlySet<number> = new Set([STATE.flagResult, STATE.flagCarry, STATE.flagMisc]);
const GPR_END = 128;

/** `kind` of a flag state for `normalize`: 0 = already the three kept values. */
const OPERATIONS: readonly FlagOperation[] = ['add', 'adc', 'sub', 'sbb', 'logic'];
const flagKind = (operation: FlagOperation, size: number): number =>
  1 + OPERATIONS.indexOf(operation) * 4 + Math.log2(size);

/** What is known at compile time about the flag locals. */
type FlagState =
  /** The three kept values themselves. */
  | 'kept'
  /** Only the local `kind` knows. */
  | 'dynamic'
  | { readonly operation: FlagOperation; readonly size: OperandSize };

/** Where control goes: the region's structure answers. */
export interface RegionControl {
  /** Goes to a page offset from the current block; emits code that does not fall through. */
  goTo(offset: number): void;
  /** Leaves the region for the rip in `nextRip`; emits a branch. */
  exit(): void;
}

export class RegionLowering extends Lowering {
  readonly #view: DataView;
  readonly #control: RegionControl;
  readonly #registers = new Map<number, number>();
  readonly #written: ReadonlySet<number>;
  readonly #fuel: number;
  readonly #normalize: number;
  // Locals: operands and result of what set the flags, its kind, the code page, the next rip, "leave".
  readonly #a: number;
  readonly #b: number;
  readonly #r: number;
  readonly #kind: number;
  readonly #page: number;
  readonly nextRip: number;
  readonly #leaving: number;
  flags: FlagState = 'dynamic';
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
    super(options.f, options.ctx, options.imports, options.pool);
    const { f } = this;
    this.#view = options.view;
    this.#control = options.control;
    this.#fuel = options.fuel;
    this.#normalize = options.normalize;
    this.#written = options.written;
    for (const register of options.used) this.#registers.set(register, f.local(I64));
    this.#a = f.local(I64);
    this.#b = f.local(I64);
    this.#r = f.local(I64);
    this.#kind = f.local(I32);
    this.#page = f.local(I64);
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
    this.#loadFlags();
    f.get(ctx).memory(OP.i64Load, STATE.codePage).set(this.#page);
  }
  #loadFlags(): void {
    const { f, ctx } = this;
    f.get(ctx).memory(OP.i64Load, STATE.flagResult).set(this.#r);
    f.get(ctx).memory(OP.i64Load, STATE.flagCarry).set(this.#a);
    f.get(ctx).memory(OP.i64Load32U, STATE.flagMisc).set(this.#b);
    f.i32(0).set(this.#kind);
  }
  /** Writes registers and flags back. */
  writeBack(): void {
    const { f, ctx } = this;
    for (const register of this.#written)
      f.get(ctx)
        .get(this.#registers.get(register)!)
        .memory(OP.i64Store, register * 8);
    f.get(ctx);
    this.#pushKind();
    f.get(this.#a).get(this.#b).get(this.#r).call(this.#normalize);
  }
  /** At the end: everything back, and where to go on. The fuel is the function's result. */
  epilogue(): void {
    this.flags = 'dynamic';
    this.writeBack();
    this.f.get(this.ctx).get(this.nextRip).memory(OP.i64Store, STATE.nextRip).get(this.#fuel);
  }

  #pushKind(): void {
    if (this.flags === 'dynamic') this.f.get(this.#kind);
    else if (this.flags === 'kept') this.f.i32(0);
    else this.f.i32(flagKind(this.flags.operation, this.flags.size));
  }
  /** Makes the flag state something every path agrees on. */
  publishFlags(): void {
    if (this.flags === 'dynamic') return;
    this.#pushKind();
    this.f.set(this.#kind);
    this.flags = 'dynamic';
  }

  /** Lowers one instruction; `left` counts it and those behind it in its block. */
  lower(op: RegionOp, builder: Builder, left: number, hasStore: boolean): void {
    this.#op = op;
    this.#left = left;
    this.#stores = hasStore;
    this.lowerBuilt(builder);
    if (hasStore) this.#leaveIfAsked(() => this.f.get(this.#page).i64(BigInt(op.next)).op(OP.i64Add));
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
    this.f.get(this.#page).i64(BigInt(offset)).op(OP.i64Add).set(this.nextRip);
    this.publishFlags();
    this.#control.exit();
  }

  protected spill(): void {
    const { f, ctx } = this;
    this.writeBack();
    f.get(ctx).i32(this.#op.record).memory(OP.i32Store, STATE.currentOp);
    f.get(ctx).get(this.#fuel).i64(BigInt(this.#left)).op(OP.i64Add).memory(OP.i64Store, STATE.budget);
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
      if (this.#stores) this.#leaveIfAsked(() => f.get(this.#page).i64(BigInt(offset)).op(OP.i64Add));
      this.#control.goTo(offset);
    } else {
      this.expr(target);
      const mask = this.jumpMask();
      if (mask !== undefined) f.i64(mask).op(OP.i64And);
      f.set(this.nextRip);
      this.publishFlags();
      this.#control.exit();
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
    return Number(this.#immediate);
  }

  // -- operands ---------------------------------------------------------------------------------------

  #byte(at: number): number {
    return this.#view.getUint8(this.#op.record + at);
  }
  get #immediate(): bigint {
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
    this.f.i64(this.#immediate);
  }
  protected pushNextRip(): void {
    this.f.get(this.#page).i64(BigInt(this.#op.next)).op(OP.i64Add);
  }

  protected pushOffset(): void {
    const { f } = this;
    const displacement = BigInt(this.#view.getInt32(this.#op.record + MICRO_OP.displacement, true));
    let pushed = false;
    const term = (at: number, scale: number): void => {
      const offset = this.#byte(at);
      if (offset === ZERO) return;
      f.get(offset === CODE_PAGE ? this.#page : this.#registers.get(offset >> 3)!);
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
      this.f.get(this.#page);
      return;
    }
    if (FLAG_FIELDS.has(offset)) {
      this.#keep();
      this.f.get(this.#flagLocal(offset));
      return;
    }
    this.f.get(this.ctx).memory(LOADS[bytes]!, offset);
  }
  #flagLocal(offset: number): number {
    return offset === STATE.flagResult ? this.#r : offset === STATE.flagCarry ? this.#a : this.#b;
  }

  protected setField(offset: number, bytes: 4 | 8, value: Expr): void {
    if (FLAG_FIELDS.has(offset)) {
      if (!this.#setsAllFlags()) this.#keep();
      this.expr(value);
      this.f.set(this.#flagLocal(offset));
      this.flags = 'kept';
      return;
    }
    this.f.get(this.ctx);
    this.expr(value);
    this.f.memory(bytes === 4 ? STORES[4]! : STORES[8]!, offset);
  }

  /** The instruction replaces all three kept values and reads none of them. */
  #setsAllFlags(): boolean {
    const set = new Set<number>();
    let reads = false;
    const look = (e: Expr): void => {
      if (e.op.startsWith('flag:') || e.op === 'cond') reads = true;
      if (e.op === 'field' && FLAG_FIELDS.has(Number(e.value))) reads = true;
      e.args.forEach(look);
    };
    const visit = (list: readonly Statement[], certain: boolean): void => {
      for (const s of list) {
        if ('value' in s) look(s.value);
        if (s.kind === 'setField' && certain && FLAG_FIELDS.has(s.offset)) set.add(s.offset);
        if (s.kind === 'if') {
          const known = this.#fold(s.condition);
          look(s.condition);
          if (known !== 0n) visit(s.then, certain && known !== undefined);
          if (known === undefined || known === 0n) visit(s.otherwise, certain && known !== undefined);
        }
      }
    };
    visit(this.builder.statements, true);
    return !reads && set.size === 3;
  }

  /** Brings the flag locals into the kept form. */
  #keep(): void {
    const { f, ctx, flags } = this;
    if (flags === 'kept') return;
    if (flags === 'dynamic') {
      f.get(this.#kind).if(EMPTY);
      f.get(ctx).get(this.#kind).get(this.#a).get(this.#b).get(this.#r).call(this.#normalize);
      this.#loadFlags();
      f.end();
    } else {
      const kept = flagFields(this.builder, {
        ...flags,
        a: raw(this.#a),
        b: raw(this.#b),
        r: raw(this.#r),
      });
      this.expr(kept.result);
      this.expr(kept.carry);
      this.expr(kept.misc);
      f.set(this.#b).set(this.#a).set(this.#r);
    }
    this.flags = 'kept';
  }

  protected setFlags(s: Extract<Statement, { kind: 'flags' }>): void {
    const { f } = this;
    if (s.operation !== 'logic') {
      this.expr(s.a);
      this.expr(s.b);
    }
    this.expr(s.r);
    f.set(this.#r);
    if (s.operation !== 'logic') f.set(this.#b).set(this.#a);
    this.flags = { operation: s.operation, size: s.size };
  }

  /** Pushes one of the flag locals cut to the operation's size, zero- or sign-extended. */
  #value(local: number, size: OperandSize, signed: boolean): void {
    this.expr(signed ? this.builder.sx(raw(local), size) : this.builder.zx(raw(local), size));
  }

  protected pushFlag(name: string): void {
    const { f, flags } = this;
    if (flags !== 'kept' && flags !== 'dynamic') {
      const { operation, size } = flags;
      if (name === 'zf') {
        this.#value(this.#r, size, false);
        f.op(OP.i64Eqz, OP.i64ExtendI32U);
        return;
      }
      if (name === 'sf') {
        this.#value(this.#r, size, true);
        f.i64(63n).op(OP.i64ShrU);
        return;
      }
      if (operation === 'logic' && (name === 'cf' || name === 'of' || name === 'af')) {
        f.i64(0n);
        return;
      }
      if (name === 'cf' && (operation === 'sub' || operation === 'add')) {
        // A sum below its operand has wrapped; a difference borrows when the first is below.
        this.#value(operation === 'sub' ? this.#a : this.#r, size, false);
        this.#value(operation === 'sub' ? this.#b : this.#a, size, false);
        f.op(OP.i64LtU, OP.i64ExtendI32U);
        return;
      }
      if (name === 'cf' || name === 'of' || name === 'af') {
        const { carry, misc } = flagFields(this.builder, {
          ...flags,
          a: raw(this.#a),
          b: raw(this.#b),
          r: raw(this.#r),
        });
        if (name === 'af') {
          this.expr(misc);
          f.i64(4n).op(OP.i64ShrU);
          return;
        }
        this.expr(carry);
        if (name === 'of') {
          this.expr(carry);
          f.i64(1n).op(OP.i64Shl, OP.i64Xor);
        }
        f.i64(63n).op(OP.i64ShrU);
        return;
      }
      f.get(this.#r).i64(0xffn).op(OP.i64And, OP.i64Popcnt).i64(1n).op(OP.i64And).i64(1n).op(OP.i64Xor);
      return;
    }
    this.#keep();
    switch (name) {
      case 'cf':
        f.get(this.#a).i64(63n).op(OP.i64ShrU);
        return;
      case 'of':
        f.get(this.#a).get(this.#a).i64(1n).op(OP.i64Shl, OP.i64Xor).i64(63n).op(OP.i64ShrU);
        return;
      case 'zf':
        f.get(this.#r).op(OP.i64Eqz, OP.i64ExtendI32U);
        return;
      case 'sf':
        f.get(this.#r).i64(63n).op(OP.i64ShrU).get(this.#b).i64(1n).op(OP.i64And, OP.i64Xor);
        return;
      case 'af':
        f.get(this.#b).i64(4n).op(OP.i64ShrU).i64(1n).op(OP.i64And);
        return;
      default: // pf
        f.get(this.#r).get(this.#b).i64(8n).op(OP.i64ShrU, OP.i64Xor).i64(0xffn).op(OP.i64And);
        f.op(OP.i64Popcnt).i64(1n).op(OP.i64And).i64(1n).op(OP.i64Xor);
    }
  }

  protected pushCondition(code: number): void {
    const { f, flags } = this;
    const base = code >> 1;
    if (
      flags !== 'kept' &&
      flags !== 'dynamic' &&
      flags.operation === 'sub' &&
      [1, 2, 3, 6, 7].includes(base)
    ) {
      const signed = base >= 6;
      this.#value(this.#a, flags.size, signed);
      this.#value(this.#b, flags.size, signed);
      // b, z, be, l, le of a comparison are comparisons of its operands.
      f.op({ 1: OP.i64LtU, 2: OP.i64Eq, 3: OP.i64GtU, 6: OP.i64LtS, 7: OP.i64GtS }[base]!);
      const inverted = base === 3 || base === 7;
      if (((code & 1) === 1) !== inverted) f.op(OP.i32Eqz);
      return;
    }
    const parts: Record<number, readonly string[]> = {
      0: ['of'],
      1: ['cf'],
      2: ['zf'],
      3: ['cf', 'zf'],
      4: ['sf'],
      5: ['pf'],
      6: ['sf', 'of'],
      7: ['sf', 'of', 'zf'],
    };
    const names = parts[base]!;
    this.pushFlag(names[0]!);
    if (names.length > 1) {
      this.pushFlag(names[1]!);
      f.op(base === 3 ? OP.i64Or : OP.i64Xor);
    }
    if (names.length > 2) {
      this.pushFlag(names[2]!);
      f.op(OP.i64Or);
    }
    f.op(OP.i32WrapI64);
    if (code & 1) f.op(OP.i32Eqz);
  }

  // -- constants ----------------------------------------------------------------------------------------

  #fold(e: Expr): bigint | undefined {
    return fold(e, this.builder, this.#immediate);
  }

  protected override expr(e: Expr): void {
    if (e.op === 'raw') {
      this.f.get(Number(e.value));
      return;
    }
    if (e.type !== 'v128' && e.op !== 'const') {
      const known = this.#fold(e);
      if (known !== undefined) {
        if (e.type === 'i32') this.f.i32(Number(known));
        else this.f.i64(known);
        return;
      }
    }
    super.expr(e);
  }

  protected override conditional(s: Extract<Statement, { kind: 'if' }>): void {
    const known = this.#fold(s.condition);
    if (known !== undefined) {
      this.statements(known !== 0n ? s.then : s.otherwise);
      return;
    }
    const touchesFlags = nested([s]).some(touchesKeptFlags);
    this.expr(s.condition);
    if (touchesFlags) this.publishFlags();
    const before = this.flags;
    this.f.if(EMPTY);
    this.statements(s.then);
    if (touchesFlags) this.publishFlags();
    this.flags = before;
    if (s.otherwise.length) {
      this.f.else();
      this.statements(s.otherwise);
      if (touchesFlags) this.publishFlags();
      this.flags = before;
    }
    this.f.end();
  }
}

/** A WebAssembly local as an expression. */
const raw = (local: number): Expr => ({ op: 'raw', type: 'i64', args: [], value: BigInt(local) });

/** Changes the flag locals, or their form, where it runs. */
function touchesKeptFlags(s: Statement): boolean {
  if (s.kind === 'flags') return true;
  if (s.kind === 'setField' && FLAG_FIELDS.has(s.offset)) return true;
  const reads = (e: Expr): boolean =>
    (e.op === 'field' && FLAG_FIELDS.has(Number(e.value))) || e.args.some(reads);
  return 'value' in s && reads(s.value);
}

/** All statements inside the `if`s of a list. */
function nested(list: readonly Statement[]): Statement[] {
  return list.flatMap((s) =>
    s.kind === 'if' ? [...s.then, ...s.otherwise, ...nested(s.then), ...nested(s.otherwise)] : [],
  );
}
