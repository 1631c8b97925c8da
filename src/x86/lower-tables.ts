/** WebAssembly instructions for the operators of `ir.ts`, and for accesses by size in bytes. */
import { OP } from './wasm.ts';

export const BINARY: Readonly<Record<string, number>> = {
  add: OP.i64Add,
  sub: OP.i64Sub,
  mul: OP.i64Mul,
  and: OP.i64And,
  or: OP.i64Or,
  xor: OP.i64Xor,
  shl: OP.i64Shl,
  shru: OP.i64ShrU,
  shrs: OP.i64ShrS,
  rotl: OP.i64Rotl,
  rotr: OP.i64Rotr,
  divu: OP.i64DivU,
  remu: OP.i64RemU,
  divs: OP.i64DivS,
  rems: OP.i64RemS,
  eq: OP.i64Eq,
  ne: OP.i64Ne,
  ltu: OP.i64LtU,
  lts: OP.i64LtS,
  gtu: OP.i64GtU,
  gts: OP.i64GtS,
};
export const BINARY32: Readonly<Record<string, number>> = {
  and: OP.i32And,
  or: OP.i32Or,
  xor: OP.i32Xor,
  eq: OP.i32Eq,
  ne: OP.i32Ne,
  add: OP.i32Add,
  sub: OP.i32Sub,
};
export const UNARY: Readonly<Record<string, number>> = {
  clz: OP.i64Clz,
  ctz: OP.i64Ctz,
  popcnt: OP.i64Popcnt,
  sx1: OP.i64Extend8S,
  sx2: OP.i64Extend16S,
  sx4: OP.i64Extend32S,
  extend: OP.i64ExtendI32U,
  wrap: OP.i32WrapI64,
};
export const LOADS: Readonly<Record<number, number>> = {
  1: OP.i64Load8U,
  2: OP.i64Load16U,
  4: OP.i64Load32U,
  8: OP.i64Load,
};
export const STORES: Readonly<Record<number, number>> = {
  1: OP.i64Store8,
  2: OP.i64Store16,
  4: OP.i64Store32,
  8: OP.i64Store,
};
