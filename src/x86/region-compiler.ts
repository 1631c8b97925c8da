/**
 * Tier 2: compiles a region to a WebAssembly function `(ctx, fuel, entry) -> fuel left`. It goes on
 * at STATE.nextRip. A region that cannot run to its end with the fuel it is given does nothing, so
 * budgets stay exact: the interpreter does the rest.
 */
import { Builder } from './ir.ts';
import type { Expr, Statement } from './ir.ts';
import type { Case } from './handlers.ts';
import { CONTEXT, JUMP_ENTRIES } from './layout.ts';
import { LocalPool } from './lower.ts';
import { MICRO_OP } from './microop.ts';
import type { Block, Region, RegionOp } from './region.ts';
import { fallsThrough } from './region.ts';
import { NORMALIZE_TYPE, REGION_TYPE } from './region-abi.ts';
import { RegionLowering } from './region-lowering.ts';
import { ROOT, structureOf } from './region-structure.ts';
import { IMPORTS } from './runtime-imports.ts';
import type { ImportName } from './runtime-imports.ts';
import { EMPTY, FunctionBody, I32, ModuleWriter, OP } from './wasm.ts';

/** What a definition does to registers, found once by tracing it. */
interface Traced {
  readonly builder: Builder;
  readonly fixed: ReadonlySet<number>;
  readonly fixedWritten: ReadonlySet<number>;
  /** Operands a and b are general registers that are read or written / written. */
  readonly operands: ReadonlySet<'a' | 'b'>;
  readonly operandsWritten: ReadonlySet<'a' | 'b'>;
  readonly addresses: boolean;
  readonly stores: boolean;
  readonly supported: boolean;
}

const traces = new WeakMap<Case, Traced>();

function trace(c: Case): Traced {
  const known = traces.get(c);
  if (known) return known;
  const builder = new Builder(c.form, c.size, c.legacy, c.condition);
  c.definition.build(builder);
  const fixed = new Set<number>();
  const fixedWritten = new Set<number>();
  const operands = new Set<'a' | 'b'>();
  const operandsWritten = new Set<'a' | 'b'>();
  let addresses = false;
  let stores = false;
  let supported = !c.legacy;
  const look = (e: Expr): void => {
    if (e.op === 'regA') operands.add('a');
    else if (e.op === 'regB') operands.add('b');
    else if (e.op === 'ea' || e.op === 'offset') addresses = true;
    else if (e.op === 'field' && e.value < 128n) fixed.add(Number(e.value) >> 3);
    e.args.forEach(look);
  };
  const visit = (list: readonly Statement[]): void => {
    for (const s of list) {
      if ('value' in s) look(s.value);
      if ('address' in s) look(s.address);
      if (s.kind === 'jump') look(s.target);
      if (s.kind === 'flags') [s.a, s.b, s.r].forEach(look);
      if (s.kind === 'store' || s.kind === 'closeRmw') stores = true;
      if (s.kind === 'setField' && s.offset < 0) supported = false;
      if (s.kind === 'setReg') {
        if (typeof s.register === 'number') {
          fixed.add(s.register >> 3);
          fixedWritten.add(s.register >> 3);
        } else {
          operands.add(s.register);
          operandsWritten.add(s.register);
        }
      }
      if (s.kind === 'if') {
        look(s.condition);
        visit(s.then);
        visit(s.otherwise);
      }
    }
  };
  visit(builder.statements);
  const traced = { builder, fixed, fixedWritten, operands, operandsWritten, addresses, stores, supported };
  traces.set(c, traced);
  return traced;
}

/** Whether a definition can be part of a region. */
export const compilable = (c: Case): boolean => trace(c).supported;

export interface CompiledRegion {
  readonly module: WebAssembly.Module;
  /** Offsets in the order of their entry numbers. */
  readonly entries: readonly number[];
}

/** @param index the region's place in the table. */
export function compileRegion(
  region: Region,
  index: number,
  view: DataView,
  memoryPages: number,
): CompiledRegion {
  const { used, written } = registersOf(region, view);
  const structure = structureOf(region);
  const { blocks } = region;
  let longest = 0;
  for (const block of blocks.values()) longest += block.ops.length;

  const module = new ModuleWriter();
  const imports = {} as Record<ImportName, number>;
  for (const name of ['load', 'load128', 'loadForWrite', 'store', 'store128', 'raise'] as const)
    imports[name] = module.import(name, IMPORTS[name].parameters, IMPORTS[name].results);
  const normalize = module.import('normalize', NORMALIZE_TYPE.parameters, NORMALIZE_TYPE.results);

  const f = new FunctionBody(3);
  const fuel = 1;
  const entry = 2;
  let exitLabel = 0;
  let dispatchLabel = 0;
  let current: Block | undefined;
  const slot = f.local(I32);
  const labels = new Map<number, number>();
  const lowering = new RegionLowering({
    f,
    ctx: 0,
    fuel,
    imports,
    normalize,
    pool: new LocalPool(f),
    view,
    used,
    written,
    control: {
      goTo: (offset) => goTo(offset),
      exit: () => void f.br(exitLabel),
      indirect: () => indirect(),
    },
  });

  /** Leaves at `offset` when the fuel might not last for another way through the region. */
  const checkFuel = (offset: number): void => {
    f.get(fuel).i64(BigInt(longest)).op(OP.i64LtS).if(EMPTY);
    lowering.leaveFor(offset);
    f.end();
  };
  /** A return or an indirect jump to an entry of this very region stays in it. */
  const indirect = (): void => {
    const { nextRip, page } = lowering;
    f.get(nextRip).i64(-4096n).op(OP.i64And).get(page).op(OP.i64Eq);
    f.get(fuel).i64(BigInt(longest)).op(OP.i64GeS, OP.i32And).if(EMPTY);
    f.get(nextRip).get(nextRip).i64(12n).op(OP.i64ShrU, OP.i64Xor, OP.i32WrapI64);
    f.i32(JUMP_ENTRIES - 1)
      .op(OP.i32And)
      .i32(4)
      .op(OP.i32Shl)
      .get(0)
      .op(OP.i32Add)
      .tee(slot);
    f.memory(OP.i64Load, CONTEXT.jumps).get(nextRip).op(OP.i64Eq);
    f.get(slot)
      .memory(OP.i32Load, CONTEXT.jumps + 12)
      .tee(slot);
    f.i32(~(0xff << 20))
      .op(OP.i32And)
      .i32(0x8000_0000 | index)
      .op(OP.i32Eq, OP.i32And)
      .if(EMPTY);
    f.get(slot).i32(20).op(OP.i32ShrU).i32(0xff).op(OP.i32And).set(entry).br(dispatchLabel);
    f.end().end().br(exitLabel);
  };
  const goTo = (offset: number): void => {
    const from = current!.offset;
    if (!blocks.has(offset) || !current!.successors.includes(offset)) return lowering.leaveFor(offset);
    const saved = current;
    if (structure.dispatched(from, offset)) {
      lowering.publishFlags();
      checkFuel(offset);
      f.i32(structure.entries.indexOf(offset)).set(entry).br(dispatchLabel);
    } else if (structure.order.get(offset)! <= structure.order.get(from)!) {
      lowering.publishFlags();
      checkFuel(offset);
      f.br(labels.get(offset)!);
    } else if (structure.merges.has(offset)) {
      lowering.publishFlags();
      f.br(labels.get(offset)!);
    } else emitTree(offset);
    current = saved;
  };
  const emitBlock = (offset: number): void => {
    if (offset === ROOT) {
      const targets = structure.entries.map((each) => labels.get(each)!);
      f.get(entry).brTable(targets.slice(0, -1), targets[targets.length - 1]!);
      return;
    }
    const block = blocks.get(offset)!;
    current = block;
    f.get(fuel).i64(BigInt(block.ops.length)).op(OP.i64Sub).set(fuel);
    block.ops.forEach((op, i) => {
      const { builder, stores } = trace(op.definition);
      lowering.lower(op, builder, block.ops.length - i, stores);
      current = block;
    });
    if (fallsThrough(block)) goTo(block.end);
  };
  const emitWithin = (offset: number, merges: readonly number[]): void => {
    const outer = merges[merges.length - 1];
    if (outer === undefined) return emitBlock(offset);
    const before = labels.get(outer);
    labels.set(outer, f.block());
    emitWithin(offset, merges.slice(0, -1));
    f.end();
    if (before === undefined) labels.delete(outer);
    else labels.set(outer, before);
    lowering.flags = 'dynamic';
    emitTree(outer);
  };
  const emitTree = (offset: number): void => {
    // Merges that come later in the order are further out.
    const merges = structure.children
      .get(offset)!
      .filter((child) => structure.merges.has(child))
      .sort((a, b) => structure.order.get(a)! - structure.order.get(b)!);
    if (offset !== ROOT && !structure.heads.has(offset)) return emitWithin(offset, merges);
    if (offset !== ROOT) lowering.publishFlags();
    const label = f.loop();
    if (offset === ROOT) {
      dispatchLabel = label;
      emitWithin(offset, merges);
    } else {
      const before = labels.get(offset);
      labels.set(offset, label);
      emitWithin(offset, merges);
      if (before !== undefined) labels.set(offset, before);
    }
    f.end();
  };

  f.get(fuel).i64(BigInt(longest)).op(OP.i64LtS).if(EMPTY);
  f.get(fuel).op(OP.return).end();
  lowering.prologue();
  exitLabel = f.block();
  emitTree(ROOT);
  f.op(OP.unreachable);
  f.end();
  lowering.epilogue();
  module.function(REGION_TYPE, f, 'region');
  return {
    module: new WebAssembly.Module(module.encode(memoryPages) as Uint8Array<ArrayBuffer>),
    entries: structure.entries,
  };
}

/** General registers a region reads or writes, and those it writes. */
function registersOf(region: Region, view: DataView): { used: Set<number>; written: Set<number> } {
  const used = new Set<number>();
  const written = new Set<number>();
  const note = (op: RegionOp): void => {
    const traced = trace(op.definition);
    const byte = (at: number): number => view.getUint8(op.record + at);
    for (const register of traced.fixed) used.add(register);
    for (const register of traced.fixedWritten) written.add(register);
    for (const operand of traced.operands) used.add(byte(operand === 'a' ? MICRO_OP.a : MICRO_OP.b) >> 3);
    for (const operand of traced.operandsWritten)
      written.add(byte(operand === 'a' ? MICRO_OP.a : MICRO_OP.b) >> 3);
    if (traced.addresses)
      for (const at of [MICRO_OP.base, MICRO_OP.index]) if (byte(at) < 128) used.add(byte(at) >> 3);
  };
  for (const block of region.blocks.values()) block.ops.forEach(note);
  return { used, written };
}
