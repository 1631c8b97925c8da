/**
 * Tier 2, first half: which instructions form a region. A region is a piece of the decoded code of
 * one page in 64-bit mode: blocks reached from a hot address by direct branches inside the page. It
 * ends where a helper, a breakpoint, another page or code never decoded begins.
 */
import { HANDLER } from './handlers.ts';
import type { Case } from './handlers.ts';
import { MICRO_OP } from './microop.ts';

/** A decoded instruction as the region compiler sees it. */
export interface RegionOp {
  /** Address of its record. */
  readonly record: number;
  readonly offset: number;
  readonly next: number;
  readonly definition: Case;
}

export interface Block {
  readonly offset: number;
  readonly ops: RegionOp[];
  /** Page offset behind the last instruction. */
  end: number;
  /** Offsets of blocks of the region it can go to. */
  successors: number[];
}

export interface Region {
  readonly blocks: ReadonlyMap<number, Block>;
  /** Offsets at which the region may be entered, the hot one first. */
  readonly entries: readonly number[];
}

export interface RegionSource {
  /** Record decoded at an offset of the page, or 0. */
  record(offset: number): number;
  view: DataView;
  cases: readonly (Case | undefined)[];
}

const MAX_BLOCKS = 48;
const MAX_OPS = 600;
const PAGE = 4096;

/** Jumps whose definition computes a target that is not in the instruction. */
const INDIRECT = new Set(['jmp_ind', 'call_ind', 'ret', 'ret_imm']);

/** Target of a direct branch as a page offset (outside 0…4095: another page). */
const target = (view: DataView, record: number): number =>
  Number(BigInt.asIntN(52, view.getBigInt64(record + MICRO_OP.immediate, true)));

export function formRegion(source: RegionSource, hot: number): Region | undefined {
  const { view, cases } = source;
  const leaders = new Set([hot]);
  const entries = new Set([hot]);
  const queue = [hot];
  const scanned = new Map<number, RegionOp[]>();
  let total = 0;

  const inPage = (offset: number): boolean => offset >= 0 && offset < PAGE && source.record(offset) !== 0;
  const lead = (offset: number): void => {
    if (!inPage(offset) || leaders.has(offset) || leaders.size >= MAX_BLOCKS) return;
    leaders.add(offset);
    queue.push(offset);
  };

  while (queue.length) {
    const start = queue.shift()!;
    const ops: RegionOp[] = [];
    let offset = start;
    while (offset < PAGE && ops.length < MAX_OPS) {
      const record = source.record(offset);
      if (record === 0) break;
      const handler = view.getUint16(record, true);
      const definition = handler >= HANDLER.first ? cases[handler] : undefined;
      if (!definition) break;
      const next = offset + view.getUint8(record + MICRO_OP.length);
      if (next > PAGE) break;
      ops.push({ record, offset, next, definition });
      offset = next;
      const { name, jumps } = definition.definition;
      if (!jumps) continue;
      if (INDIRECT.has(name)) break;
      lead(target(view, record));
      if (name === 'jmp') break;
      if (name === 'call') {
        // Where the callee returns to: entered through the jump map.
        if (inPage(next) && leaders.size < MAX_BLOCKS) {
          lead(next);
          entries.add(next);
        }
        break;
      }
    }
    total += ops.length;
    scanned.set(start, ops);
    if (total > MAX_OPS) break;
  }

  const blocks = new Map<number, Block>();
  const add = (ops: readonly RegionOp[], isLeader: (offset: number) => boolean): Block | undefined => {
    const own = cut(ops, isLeader);
    const [first] = own;
    if (!first) return undefined;
    const block = { offset: first.offset, ops: own, end: own[own.length - 1]!.next, successors: [] };
    blocks.set(block.offset, block);
    return block;
  };
  for (const ops of scanned.values()) add(ops, (offset) => scanned.has(offset));
  // A conditional branch ends its block: what follows it must be one of its own.
  const pending = [...blocks.values()];
  while (pending.length) {
    const block = pending.pop()!;
    if (blocks.has(block.end) || !fallsThrough(block)) continue;
    for (const ops of scanned.values()) {
      const from = ops.findIndex((op) => op.offset === block.end);
      if (from < 0) continue;
      pending.push(add(ops.slice(from), (offset) => blocks.has(offset))!);
      break;
    }
  }
  if (!blocks.has(hot)) return undefined;
  for (const block of blocks.values()) {
    const last = block.ops[block.ops.length - 1]!;
    const { name, jumps } = last.definition.definition;
    if (jumps && !INDIRECT.has(name)) {
      const to = target(view, last.record);
      if (blocks.has(to)) block.successors.push(to);
    }
    if (fallsThrough(block) && blocks.has(block.end)) block.successors.push(block.end);
  }
  return { blocks, entries: [...entries].filter((entry) => blocks.has(entry)) };
}

/** The instructions of one block: up to the next leader, or through a jump. */
function cut(ops: readonly RegionOp[], isLeader: (offset: number) => boolean): RegionOp[] {
  const own: RegionOp[] = [];
  for (const op of ops) {
    if (own.length && isLeader(op.offset)) break;
    own.push(op);
    if (op.definition.definition.jumps) break;
  }
  return own;
}

/** Whether control can reach the instruction behind the block. */
export function fallsThrough(block: Block): boolean {
  const { name, jumps } = block.ops[block.ops.length - 1]!.definition.definition;
  return !jumps || !(INDIRECT.has(name) || name === 'jmp' || name === 'call');
}
