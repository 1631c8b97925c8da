/** What the interpreter and compiled regions agree on. */
import { EMPTY, FunctionBody, I32, I64, OP } from './wasm.ts';

/** (ctx, fuel, entry number) -> fuel left; the region goes on at STATE.nextRip. */
export const REGION_TYPE = { parameters: [I32, I64, I32], results: [I64] };
export const NORMALIZE_TYPE = { parameters: [I32, I32, I64, I64, I64], results: [] };

/** Number of compiled regions that can be alive. */
export const REGION_TABLE = 8192;
/**
 * `normalize(ctx, kind, a, b, r)`: writes the three kept flag values of an operation to the context
 * (kinds in region-flags.ts; 0: a, b and r are carry, misc and result already).
 */
export function normalizeFunction(fields: { result: number; carry: number; misc: number }): FunctionBody {
  const f = new FunctionBody(5);
  const [ctx, kind, a, b, r] = [0, 1, 2, 3, 4] as const;
  const shift = f.local(I64);
  const code = f.local(I32);
  const out = f.local(I64);
  const store = (offset: number, push: () => void, opcode: number = OP.i64Store): void => {
    f.get(ctx);
    push();
    f.memory(opcode, offset);
  };
  f.get(kind).op(OP.i32Eqz).if(EMPTY);
  store(fields.result, () => f.get(r));
  store(fields.carry, () => f.get(a));
  store(fields.misc, () => f.get(b), OP.i64Store32);
  f.op(OP.return).end();
  f.get(kind).i32(1).op(OP.i32Sub).tee(code);
  // shift = 64 - (8 << log2(size))
  f.i32(3).op(OP.i32And).op(OP.i64ExtendI32U).set(shift);
  f.i64(64n).i64(8n).get(shift).op(OP.i64Shl, OP.i64Sub).set(shift);
  f.get(code).i32(2).op(OP.i32ShrU).set(code);
  store(fields.result, () => f.get(r).get(shift).op(OP.i64Shl).get(shift).op(OP.i64ShrS));
  f.get(code).i32(4).op(OP.i32Eq).if(EMPTY); // logic
  store(fields.carry, () => f.i64(0n));
  store(fields.misc, () => f.i64(0n), OP.i64Store32);
  f.op(OP.return).end();
  // Additions are 0 and 1, subtractions 2 and 3: their first operand and the result are inverted.
  f.get(code).i32(2).op(OP.i32And).if(I64);
  f.get(a).i64(-1n).op(OP.i64Xor).tee(out).get(b).op(OP.i64And);
  f.get(out).get(b).op(OP.i64Or).get(r).op(OP.i64And, OP.i64Or);
  f.else();
  f.get(a).get(b).op(OP.i64And);
  f.get(a).get(b).op(OP.i64Or).get(r).i64(-1n).op(OP.i64Xor, OP.i64And, OP.i64Or);
  f.end().set(out);
  store(fields.carry, () => f.get(out).get(shift).op(OP.i64Shl));
  store(
    fields.misc,
    () => f.get(a).get(b).op(OP.i64Xor).get(r).op(OP.i64Xor).i64(0x10n).op(OP.i64And),
    OP.i64Store32,
  );
  return f;
}
