/**
 * Generates the interpreter (tier 0): one WebAssembly loop whose `br_table` has a case for each
 * (definition, form, size) that is hot, and functions of the rest behind it. It checks its budget at
 * every instruction, so stops land on exact counts.
 *
 * Protocol of the exported `run(ctx, op, fuel) -> reason`: on return STATE.rip is exact and
 * STATE.budget holds the fuel left. An import that throws finds STATE.currentOp and STATE.budget.
 */
import { Builder } from './ir.ts';
import type { Definition } from './ir.ts';
import { CONTEXT, JUMP_ENTRIES, STATE } from './layout.ts';
import { CaseLowering } from './interpreter-lowering.ts';
import type { Frame } from './interpreter-lowering.ts';
import { LocalPool } from './lower.ts';
import { MICRO_OP } from './microop.ts';
import { HANDLER, caseKey } from './handlers.ts';
import type { Case } from './handlers.ts';
import { NORMALIZE_TYPE, REGION_TABLE, REGION_TYPE, normalizeFunction } from './region-abi.ts';
import { IMPORTS } from './runtime-imports.ts';
import type { ImportName } from './runtime-imports.ts';
import { EMPTY, FunctionBody, I32, I64, ModuleWriter, OP } from './wasm.ts';

/** Why `run` came back. */
export const REASON = { budget: 0, breakpoint: 1, stop: 2, partial: 3 } as const;

/** Where the machine memory holds the number of jumps that make a place hot (u32; 0: never). */
export const HEAT_LIMIT_ADDRESS = 64;

/** V8 compiles a `br_table` loop of more cases into slower code (engine notes in docs/). */
const HOT_LIMIT = 340;
const COLD_LIMIT = 300;

const HOT_NAMES = new Set(
  (
    'mov lea add sub cmp test and or xor push pop call ret jmp jcc jmp_ind call_ind movzx8 movzx16 movsx8 movsx16 ' +
    'movsxd inc dec shl shr sar imul imul3 not neg adc sbb xchg bt leave cbw cwd push_imm ret_imm cmovcc'
  ).split(' '),
);
const isHot = (c: Case): boolean =>
  !c.legacy &&
  HOT_NAMES.has(c.definition.name) &&
  (c.size >= 4 || (c.size === 1 && ['mov', 'cmp', 'test', 'and', 'or'].includes(c.definition.name)));

export interface GeneratedInterpreter {
  readonly bytes: Uint8Array;
  /** `caseKey` -> handler number. */
  readonly handlers: ReadonlyMap<string, number>;
  /** By handler number; undefined where the handler is no instruction. */
  readonly cases: readonly (Case | undefined)[];
  readonly hotCases: number;
}

/** Whether a definition depends on the code mode by itself (it touches the stack or jumps). */
export function generateInterpreter(
  definitions: readonly Definition[],
  memoryPages: number,
): GeneratedInterpreter {
  const all = enumerate(definitions);
  const hot = all.filter(isHot).slice(0, HOT_LIMIT);
  const hotSet = new Set(hot);
  const cold = all.filter((c) => !hotSet.has(c));
  const handlers = new Map<string, number>();
  const cases: (Case | undefined)[] = [];
  [...hot, ...cold].forEach((c, i) => (cases[HANDLER.first + i] = c));
  [...hot, ...cold].forEach((c, i) =>
    handlers.set(caseKey(c.definition.name, c.form, c.size, c.legacy, c.condition), HANDLER.first + i),
  );

  const module = new ModuleWriter();
  const importIndex = {} as Record<ImportName, number>;
  for (const [name, type] of Object.entries(IMPORTS))
    importIndex[name as ImportName] = module.import(name, type.parameters, type.results);

  const coldFunctions: { first: number; index: number }[] = [];
  for (let i = 0; i < cold.length; i += COLD_LIMIT) {
    const body = coldFunction(cold.slice(i, i + COLD_LIMIT), importIndex);
    const index = module.function({ parameters: [I32, I32, I32], results: [I32] }, body);
    coldFunctions.push({ first: HANDLER.first + hot.length + i, index });
  }
  module.table = REGION_TABLE;
  const regionType = module.type(REGION_TYPE);
  const normalize = normalizeFunction({
    result: STATE.flagResult,
    carry: STATE.flagCarry,
    misc: STATE.flagMisc,
  });
  module.function(NORMALIZE_TYPE, normalize, 'normalize');
  const run = runFunction(hot, coldFunctions, importIndex, regionType);
  module.function({ parameters: [I32, I32, I64], results: [I32] }, run, 'run');
  return { bytes: module.encode(memoryPages), handlers, cases, hotCases: hot.length };
}

function enumerate(definitions: readonly Definition[]): Case[] {
  const cases: Case[] = [];
  for (const definition of definitions)
    for (const form of definition.forms)
      for (const size of definition.sizes)
        for (const legacy of definition.modes ? [false, true] : [false])
          for (let condition = 0; condition < (definition.conditions ? 16 : 1); condition++)
            cases.push({ definition, form, size, legacy, condition });
  return cases;
}

function lowerCase(c: Case, frame: Frame, pool: LocalPool): void {
  const builder = new Builder(c.form, c.size, c.legacy, c.condition);
  try {
    c.definition.build(builder);
    new CaseLowering(frame, pool).lower(builder);
  } catch (error) {
    throw new Error(`definition ${c.definition.name} (${c.form}, size ${c.size}): ${String(error)}`, {
      cause: error,
    });
  }
}

/** The main loop. Parameters: context, first micro-op, fuel. */
function runFunction(
  hot: readonly Case[],
  coldFunctions: readonly { first: number; index: number }[],
  importIndex: Record<ImportName, number>,
  regionType: number,
): FunctionBody {
  const f = new FunctionBody(3);
  const ctx = 0;
  const op = 1;
  const fuel = 2;
  /** Fuel put aside so that the loop ends behind the current instruction. */
  const stash = f.local(I64);
  const ip = f.local(I64);
  const handler = f.local(I32);
  const entry = f.local(I32);
  const result = f.local(I32);
  /** The jump map's third word: below zero a region, else how often the place was jumped to. */
  const heat = f.local(I32);
  const after = f.local(I64);
  const pool = new LocalPool(f);

  const spill = (): void => {
    f.get(ctx).get(op).memory(OP.i32Store, STATE.currentOp);
    f.get(ctx).get(fuel).get(stash).op(OP.i64Add).memory(OP.i64Store, STATE.budget);
  };
  /** Stores the exact rip of the micro-op in `op`, and the fuel left; leaves with `reason`. */
  const exitAtOp = (reason: number): void => {
    f.get(ctx);
    f.get(ctx).memory(OP.i64Load, STATE.codePage);
    f.get(op).memory(OP.i64Load16U, MICRO_OP.pageOffset).op(OP.i64Add);
    f.memory(OP.i64Store, STATE.rip);
    exit(reason);
  };
  const exit = (reason: number): void => {
    f.get(ctx).get(fuel).get(stash).op(OP.i64Add).memory(OP.i64Store, STATE.budget);
    f.i32(reason).op(OP.return);
  };

  const next = f.loop();
  f.get(op).memory(OP.i32Load16U, MICRO_OP.handler).set(handler);
  const jumpBlock = f.block();
  const advance = f.block();
  const dispatch = f.loop();

  const frame: Frame = {
    f,
    ctx,
    op,
    importIndex,
    spill,
    jump: () => f.set(ip).br(jumpBlock),
    leave: () => f.get(fuel).i64(1n).op(OP.i64Sub).get(stash).op(OP.i64Add).set(stash).i64(1n).set(fuel),
  };

  // One block a case, innermost first; br_table jumps behind the block's end, where its body stands.
  const coldBlock = f.block();
  const labels: number[] = [];
  for (let i = hot.length - 1 + HANDLER.first; i >= 0; i--) labels[i] = f.block();
  f.get(handler).brTable(labels, coldBlock);

  f.end(); // resolve
  f.get(ctx).i32(0).memory(OP.i32Store, STATE.currentOp);
  f.get(ctx).get(fuel).get(stash).op(OP.i64Add).memory(OP.i64Store, STATE.budget);
  f.get(ip).call(importIndex.enter).set(op).br(next);

  f.end(); // helper
  spill();
  f.get(op).call(importIndex.helper).tee(result).if(EMPTY);
  f.get(result).i32(2).op(OP.i32Eq).if(EMPTY);
  exitAtOp(REASON.partial);
  f.end();
  f.get(fuel).i64(1n).op(OP.i64Sub).set(fuel);
  f.get(ctx).get(ctx).memory(OP.i64Load, STATE.nextRip).memory(OP.i64Store, STATE.rip);
  exit(REASON.stop);
  f.end();
  f.get(ctx).memory(OP.i64Load, STATE.nextRip).set(ip).br(jumpBlock);

  f.end(); // breakpoint
  f.get(ctx).memory(OP.i32Load, STATE.skipBreak).if(EMPTY);
  f.get(ctx).i32(0).memory(OP.i32Store, STATE.skipBreak);
  f.get(op).memory(OP.i32Load16U, MICRO_OP.original).set(handler).br(dispatch);
  f.end();
  exitAtOp(REASON.breakpoint);

  f.end(); // end of decoded code
  f.get(ctx).memory(OP.i64Load, STATE.codePage);
  f.get(op).memory(OP.i64Load16U, MICRO_OP.pageOffset).op(OP.i64Add).set(ip);
  f.get(fuel).i64(1n).op(OP.i64Add).set(fuel).br(jumpBlock);

  for (const c of hot) {
    f.end();
    lowerCase(c, frame, pool);
    f.br(advance);
  }

  f.end(); // cold
  spill();
  coldFunctions.forEach(({ first, index }, i) => {
    const last = i === coldFunctions.length - 1;
    if (!last)
      f.get(handler)
        .i32(coldFunctions[i + 1]!.first)
        .op(0x49 /* i32.lt_u */)
        .if(EMPTY);
    f.get(ctx).get(op).get(handler).i32(first).op(OP.i32Sub).call(index).set(result);
    if (!last) f.else();
  });
  for (let i = 1; i < coldFunctions.length; i++) f.end();
  f.get(result).i32(2).op(OP.i32And).if(EMPTY);
  frame.leave();
  f.end();
  f.get(result).i32(1).op(OP.i32And).if(EMPTY);
  f.get(ctx).memory(OP.i64Load, STATE.nextRip).set(ip).br(jumpBlock);
  f.end();
  f.br(advance);
  f.end(); // dispatch

  f.end(); // advance
  f.get(op).i32(MICRO_OP.size).op(OP.i32Add).set(op);
  f.get(fuel).i64(1n).op(OP.i64Sub).tee(fuel).op(OP.i64Eqz, OP.i32Eqz).brIf(next);
  // The record behind the last instruction is an `end`, whose page offset is the rip to stop at.
  exitAtOp(REASON.budget);
  f.op(OP.unreachable);

  f.end(); // jump
  f.get(fuel).i64(1n).op(OP.i64Sub).tee(fuel).op(OP.i64Eqz).if(EMPTY);
  f.get(ctx).get(ip).memory(OP.i64Store, STATE.rip);
  exit(REASON.budget);
  f.end();
  const found = f.loop();
  f.get(ip).get(ip).i64(12n).op(OP.i64ShrU, OP.i64Xor, OP.i32WrapI64);
  f.i32(JUMP_ENTRIES - 1)
    .op(OP.i32And)
    .i32(4)
    .op(OP.i32Shl)
    .get(ctx)
    .op(OP.i32Add)
    .tee(entry);
  f.memory(OP.i64Load, CONTEXT.jumps).get(ip).op(OP.i64Eq).if(EMPTY);
  f.get(entry)
    .memory(OP.i32Load, CONTEXT.jumps + 8)
    .set(op);
  f.get(ctx).get(ip).get(op).memory(OP.i64Load16U, MICRO_OP.pageOffset).op(OP.i64Sub);
  f.memory(OP.i64Store, STATE.codePage);
  f.get(entry)
    .memory(OP.i32Load, CONTEXT.jumps + 12)
    .tee(heat);
  f.i32(0).op(0x48 /* i32.lt_s */).if(EMPTY);
  // A region: what it returns unchanged it has not touched.
  f.get(ctx).get(fuel);
  f.get(heat).i32(20).op(OP.i32ShrU).i32(0xff).op(OP.i32And);
  f.get(heat).i32(0xf_ffff).op(OP.i32And).callIndirect(regionType);
  f.tee(after).get(fuel).op(OP.i64Ne).if(EMPTY);
  f.get(after).set(fuel);
  f.get(ctx).memory(OP.i64Load, STATE.nextRip).set(ip);
  f.get(ctx).memory(OP.i32Load, STATE.stopRequested).if(EMPTY);
  f.get(ctx).get(ip).memory(OP.i64Store, STATE.rip);
  exit(REASON.stop);
  f.end();
  f.get(fuel).op(OP.i64Eqz).if(EMPTY);
  f.get(ctx).get(ip).memory(OP.i64Store, STATE.rip);
  exit(REASON.budget);
  f.end();
  f.br(found);
  f.end();
  f.else();
  f.get(heat).i32(0).memory(OP.i32Load, HEAT_LIMIT_ADDRESS).op(0x49 /* i32.lt_u */).if(EMPTY);
  f.get(entry).get(heat).i32(1).op(OP.i32Add).tee(heat);
  f.memory(OP.i32Store, CONTEXT.jumps + 12);
  f.get(heat).i32(0).memory(OP.i32Load, HEAT_LIMIT_ADDRESS).op(OP.i32Eq).if(EMPTY);
  f.get(ip).get(op).get(entry).call(importIndex.hot);
  f.end();
  f.end();
  f.end();
  f.else();
  f.i32(0).set(op);
  f.end();
  f.br(next);
  f.end(); // found
  f.end(); // next
  f.op(OP.unreachable);
  return f;
}

/**
 * A function of cases outside the main loop. Parameters: context, micro-op, case. Result: bit 0 =
 * go on at STATE.nextRip, bit 1 = leave the run loop. The caller has spilled.
 */
function coldFunction(cases: readonly Case[], importIndex: Record<ImportName, number>): FunctionBody {
  const f = new FunctionBody(3);
  const leaving = f.local(I32);
  const ip = f.local(I64);
  const pool = new LocalPool(f);
  const frame: Frame = {
    f,
    ctx: 0,
    op: 1,
    importIndex,
    spill: () => {},
    jump: () => {
      f.set(ip).get(0).get(ip).memory(OP.i64Store, STATE.nextRip);
      f.get(leaving).i32(1).op(OP.i32Or, OP.return);
    },
    leave: () => f.i32(2).set(leaving),
  };
  const labels: number[] = [];
  const outside = f.block();
  for (let i = cases.length - 1; i >= 0; i--) labels[i] = f.block();
  f.get(2).brTable(labels, outside);
  for (const c of cases) {
    f.end();
    lowerCase(c, frame, pool);
    f.get(leaving).op(OP.return);
  }
  f.end();
  f.op(OP.unreachable);
  return f;
}
