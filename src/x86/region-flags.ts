/**
 * Flags inside a region: they stay what made them (operation, operands, result, each in a local)
 * until something reads them, so most are never computed.
 */
import { flagFields } from './ir.ts';
import type { Expr, FlagOperation, Statement } from './ir.ts';
import { STATE } from './layout.ts';
import { Lowering } from './lower.ts';
import type { LocalPool } from './lower.ts';
import type { OperandSize } from './microop.ts';
import { fold } from './region-fold.ts';
import type { ImportName } from './runtime-imports.ts';
import { EMPTY, I32, I64, OP } from './wasm.ts';
import type { FunctionBody } from './wasm.ts';

export const FLAG_FIELDS: ReadonlySet<number> = new Set([STATE.flagResult, STATE.flagCarry, STATE.flagMisc]);

/** `kind` of a flag state for `normalize`: 0 = already the three kept values. */
const OPERATIONS: readonly FlagOperation[] = ['add', 'adc', 'sub', 'sbb', 'logic'];
const flagKind = (operation: FlagOperation, size: number): number =>
  1 + OPERATIONS.indexOf(operation) * 4 + Math.log2(size);

/** What is known at compile time about the flag locals. */
export type FlagState =
  /** The three kept values themselves. */
  | 'kept'
  /** Only the local `kind` knows. */
  | 'dynamic'
  | { readonly operation: FlagOperation; readonly size: OperandSize };

export abstract class FlagLowering extends Lowering {
  /** What is known about the flag locals at this point of the code. */
  flags: FlagState = 'dynamic';
  readonly #normalize: number;
  // Locals: operands and result of what set the flags (kept form: carry, misc, result), and its kind.
  readonly #a: number;
  readonly #b: number;
  readonly #r: number;
  readonly #kind: number;

  constructor(
    f: FunctionBody,
    ctx: number,
    imports: Readonly<Record<ImportName, number>>,
    normalize: number,
    pool: LocalPool,
  ) {
    super(f, ctx, imports, pool);
    this.#normalize = normalize;
    this.#a = f.local(I64);
    this.#b = f.local(I64);
    this.#r = f.local(I64);
    this.#kind = f.local(I32);
  }

  /** The instruction's immediate: constant in a region. */
  protected abstract get immediate(): bigint;

  /** Takes the flags from the context. */
  protected loadFlags(): void {
    const { f, ctx } = this;
    f.get(ctx).memory(OP.i64Load, STATE.flagResult).set(this.#r);
    f.get(ctx).memory(OP.i64Load, STATE.flagCarry).set(this.#a);
    f.get(ctx).memory(OP.i64Load32U, STATE.flagMisc).set(this.#b);
    f.i32(0).set(this.#kind);
  }
  /** Writes the flags to the context. */
  protected writeBackFlags(): void {
    const { f } = this;
    f.get(this.ctx);
    this.#pushKind();
    f.get(this.#a).get(this.#b).get(this.#r).call(this.#normalize);
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

  #flagLocal(offset: number): number {
    return offset === STATE.flagResult ? this.#r : offset === STATE.flagCarry ? this.#a : this.#b;
  }
  /** Pushes one of the three kept values; false if the field is none of them. */
  protected pushFlagField(offset: number): boolean {
    if (!FLAG_FIELDS.has(offset)) return false;
    this.#keep();
    this.f.get(this.#flagLocal(offset));
    return true;
  }
  /** Sets one of the three kept values; false if the field is none of them. */
  protected setFlagField(offset: number, value: Expr): boolean {
    if (!FLAG_FIELDS.has(offset)) return false;
    if (!this.#setsAllFlags()) this.#keep();
    this.expr(value);
    this.f.set(this.#flagLocal(offset));
    this.flags = 'kept';
    return true;
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
      this.loadFlags();
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
    return fold(e, this.builder, this.immediate);
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
export function nested(list: readonly Statement[]): Statement[] {
  return list.flatMap((s) =>
    s.kind === 'if' ? [...s.then, ...s.otherwise, ...nested(s.then), ...nested(s.otherwise)] : [],
  );
}
