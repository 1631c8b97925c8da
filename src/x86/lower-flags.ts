/**
 * Reading the six arithmetic flags from the form in which they are kept (`STATE.flagResult` and its
 * neighbours, layout.ts), and the sixteen conditions made of them.
 */
import { STATE } from './layout.ts';
import { LOADS } from './lower-tables.ts';
import { OP } from './wasm.ts';
import type { FunctionBody } from './wasm.ts';

/** Pushes one flag as i64 0 or 1. */
export function pushFlag(f: FunctionBody, ctx: number, name: string): void {
  const field = (offset: number, bytes: number): void => {
    f.get(ctx).memory(LOADS[bytes]!, offset);
  };
  switch (name) {
    case 'cf':
      field(STATE.flagCarry, 8);
      f.i64(63n).op(OP.i64ShrU);
      return;
    case 'of':
      field(STATE.flagCarry, 8);
      field(STATE.flagCarry, 8);
      f.i64(1n).op(OP.i64Shl, OP.i64Xor).i64(63n).op(OP.i64ShrU);
      return;
    case 'zf':
      field(STATE.flagResult, 8);
      f.op(OP.i64Eqz, OP.i64ExtendI32U);
      return;
    case 'sf':
      field(STATE.flagResult, 8);
      f.i64(63n).op(OP.i64ShrU);
      field(STATE.flagMisc, 4);
      f.i64(1n).op(OP.i64And, OP.i64Xor);
      return;
    case 'af':
      field(STATE.flagMisc, 4);
      f.i64(4n).op(OP.i64ShrU).i64(1n).op(OP.i64And);
      return;
    case 'pf':
      field(STATE.flagResult, 8);
      field(STATE.flagMisc, 4);
      f.i64(8n).op(OP.i64ShrU, OP.i64Xor).i64(0xffn).op(OP.i64And, OP.i64Popcnt);
      f.i64(1n).op(OP.i64And).i64(1n).op(OP.i64Xor);
      return;
    default:
      throw new Error(`no flag ${name}`);
  }
}

/** Condition code (APM vol. 3, rFLAGS conditions) as i32. */
export function pushCondition(f: FunctionBody, ctx: number, code: number): void {
  const flag = (name: string): void => pushFlag(f, ctx, name);
  switch (code >> 1) {
    case 0:
      flag('of');
      break;
    case 1:
      flag('cf');
      break;
    case 2:
      flag('zf');
      break;
    case 3:
      flag('cf');
      flag('zf');
      f.op(OP.i64Or);
      break;
    case 4:
      flag('sf');
      break;
    case 5:
      flag('pf');
      break;
    case 6:
      flag('sf');
      flag('of');
      f.op(OP.i64Xor);
      break;
    default:
      flag('sf');
      flag('of');
      f.op(OP.i64Xor);
      flag('zf');
      f.op(OP.i64Or);
  }
  f.op(OP.i32WrapI64);
  if (code & 1) f.op(OP.i32Eqz);
}
