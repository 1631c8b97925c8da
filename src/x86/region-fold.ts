/** Constant folding: with the immediate known, much of a shift or a rotate is decided at compile time. */
import type { Builder, Expr, Statement } from './ir.ts';

const u = (v: bigint): bigint => BigInt.asUintN(64, v);
const s = (v: bigint): bigint => BigInt.asIntN(64, v);
const bit = (condition: boolean): bigint => (condition ? 1n : 0n);

/** On signed 64-bit values, as WebAssembly's i64 operators; comparisons give 0 or 1. */
const OPERATORS: Readonly<Record<string, (a: bigint, b: bigint) => bigint>> = {
  add: (a, b) => a + b,
  sub: (a, b) => a - b,
  mul: (a, b) => a * b,
  and: (a, b) => a & b,
  or: (a, b) => a | b,
  xor: (a, b) => a ^ b,
  shl: (a, b) => a << (b & 63n),
  shru: (a, b) => u(a) >> (b & 63n),
  shrs: (a, b) => a >> (b & 63n),
  eq: (a, b) => bit(a === b),
  ne: (a, b) => bit(a !== b),
  ltu: (a, b) => bit(u(a) < u(b)),
  gtu: (a, b) => bit(u(a) > u(b)),
  lts: (a, b) => bit(a < b),
  gts: (a, b) => bit(a > b),
};

/** Locals made once by a `let` at the top level, and never assigned. */
const stableLets = new WeakMap<Builder, Map<number, Expr>>();

function letsOf(builder: Builder): Map<number, Expr> {
  const known = stableLets.get(builder);
  if (known) return known;
  const lets = new Map<number, Expr>();
  const assigned = new Set<number>();
  const visit = (list: readonly Statement[]): void => {
    for (const statement of list) {
      if (statement.kind === 'let') lets.set(statement.local, statement.value);
      else if (statement.kind === 'assign') assigned.add(statement.local);
      else if (statement.kind === 'if') {
        visit(statement.then);
        visit(statement.otherwise);
      }
    }
  };
  visit(builder.statements);
  for (const local of assigned) lets.delete(local);
  stableLets.set(builder, lets);
  return lets;
}

/** Value of an expression that depends on the immediate alone, as a signed 64-bit number. */
export function fold(e: Expr, builder: Builder, immediate: bigint): bigint | undefined {
  switch (e.op) {
    case 'const':
      return e.value;
    case 'imm':
      return immediate;
    case 'local': {
      const made = letsOf(builder).get(Number(e.value));
      return made && fold(made, builder, immediate);
    }
    case 'extend':
      return fold(e.args[0]!, builder, immediate);
    case 'sx1':
    case 'sx2':
    case 'sx4': {
      const value = fold(e.args[0]!, builder, immediate);
      return value === undefined ? undefined : BigInt.asIntN(8 * Number(e.op[2]), value);
    }
  }
  const operator = OPERATORS[e.op];
  if (!operator || e.args.length !== 2) return undefined;
  const a = fold(e.args[0]!, builder, immediate);
  if (a === undefined) return undefined;
  const b = fold(e.args[1]!, builder, immediate);
  return b === undefined ? undefined : s(operator(a, b));
}
