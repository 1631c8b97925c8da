/**
 * Tier 2: from a region's blocks to WebAssembly's structured control. Dominators in reverse
 * post-order; merges become blocks, loop heads become loops (N. Ramsey, "Beyond Relooper", ICFP
 * 2022). An edge that would make the graph irreducible goes through the dispatcher at the root.
 */
import type { Region } from './region.ts';

/** The dispatcher, which branches to the entry the caller asked for. */
export const ROOT = -1;

export interface Structure {
  /** Blocks that the root dispatches to, in the order of their numbers. */
  readonly entries: readonly number[];
  /** Position in reverse post-order. */
  readonly order: ReadonlyMap<number, number>;
  /** Blocks a block dominates directly. */
  readonly children: ReadonlyMap<number, readonly number[]>;
  /** Blocks that several forward edges, or the dispatcher, lead to. */
  readonly merges: ReadonlySet<number>;
  readonly heads: ReadonlySet<number>;
  /** True for an edge that must go through the dispatcher. */
  dispatched(from: number, to: number): boolean;
}

const key = (from: number, to: number): number => from * 8192 + to;

export function structureOf({ blocks, entries: asked }: Region): Structure {
  const entries = [...asked];
  const dispatch = new Set<number>();
  for (;;) {
    const successors = (block: number): number[] =>
      block === ROOT ? entries : blocks.get(block)!.successors.filter((to) => !dispatch.has(key(block, to)));
    const order = postOrder(successors).reverse();
    const number = new Map(order.map((block, i) => [block, i]));
    const predecessors = new Map<number, number[]>(order.map((block) => [block, []]));
    for (const block of order) for (const to of successors(block)) predecessors.get(to)!.push(block);
    const dominator = dominators(order, number, predecessors);
    const dominates = (a: number, block: number): boolean => {
      let at = block;
      while (at !== a) {
        if (at === ROOT) return false;
        at = dominator.get(at)!;
      }
      return true;
    };
    const merges = new Set(entries);
    const heads = new Set<number>();
    let changed = false;
    for (const block of order) {
      if (block === ROOT) continue;
      let forward = 0;
      for (const from of predecessors.get(block)!) {
        if (from === ROOT || number.get(from)! < number.get(block)!) forward++;
        else if (dominates(block, from)) heads.add(block);
        else {
          dispatch.add(key(from, block));
          if (!entries.includes(block)) entries.push(block);
          changed = true;
        }
      }
      if (forward > 1) merges.add(block);
    }
    if (changed) continue;
    const children = new Map<number, number[]>(order.map((block) => [block, []]));
    for (const block of order) if (block !== ROOT) children.get(dominator.get(block)!)!.push(block);
    return {
      entries,
      order: number,
      children,
      merges,
      heads,
      dispatched: (from, to) => dispatch.has(key(from, to)),
    };
  }
}

function postOrder(successors: (block: number) => number[]): number[] {
  const order: number[] = [];
  const seen = new Set([ROOT]);
  const stack: { block: number; next: number[] }[] = [{ block: ROOT, next: [...successors(ROOT)] }];
  while (stack.length) {
    const top = stack[stack.length - 1]!;
    const to = top.next.shift();
    if (to === undefined) {
      order.push(top.block);
      stack.pop();
    } else if (!seen.has(to)) {
      seen.add(to);
      stack.push({ block: to, next: [...successors(to)] });
    }
  }
  return order;
}

/** Cooper, Harvey and Kennedy's iteration. */
function dominators(
  order: readonly number[],
  number: ReadonlyMap<number, number>,
  predecessors: ReadonlyMap<number, readonly number[]>,
): Map<number, number> {
  const dominator = new Map([[ROOT, ROOT]]);
  for (let changed = true; changed;) {
    changed = false;
    for (const block of order) {
      if (block === ROOT) continue;
      let found: number | undefined;
      for (const from of predecessors.get(block)!) {
        if (!dominator.has(from)) continue;
        if (found === undefined) {
          found = from;
          continue;
        }
        let other = from;
        while (found !== other) {
          while (number.get(found!)! > number.get(other)!) found = dominator.get(found!);
          while (number.get(other)! > number.get(found!)!) other = dominator.get(other)!;
        }
      }
      if (found !== undefined && dominator.get(block) !== found) {
        dominator.set(block, found);
        changed = true;
      }
    }
  }
  return dominator;
}
