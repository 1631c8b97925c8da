/**
 * Address intervals flattened for lookup: `starts` ascending, `ends` beside it, non-overlapping, `ids`
 * naming what covers each. Addresses are table addresses (see `Cursor.address`).
 */
export interface Intervals {
  readonly starts: Float64Array;
  readonly ends: Float64Array;
  readonly ids: Uint32Array;
}

/** Index of the last element of ascending `values[from, to)` that is <= `key`; `from - 1` if none. */
export function lastAtOrBelow(values: Float64Array, key: number, from = 0, to = values.length): number {
  let low = from;
  let high = to;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (values[middle]! <= key) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Index of the interval that contains `key`, or -1. */
export function intervalAt(intervals: Intervals, key: number): number {
  const index = lastAtOrBelow(intervals.starts, key);
  return index >= 0 && key < intervals.ends[index]! ? index : -1;
}

/**
 * Flattens possibly nested or overlapping [start, end) intervals, where of those containing an address the
 * one that starts last (the innermost, when nested) wins. `ids` names each; O(n log n), at most 2n pieces.
 */
export function flattenIntervals(
  starts: ArrayLike<number>,
  ends: ArrayLike<number>,
  ids: ArrayLike<number>,
): Intervals {
  const order = Uint32Array.from({ length: starts.length }, (_, i) => i);
  order.sort((a, b) => starts[a]! - starts[b]! || ends[b]! - ends[a]! || a - b);
  const outStarts: number[] = [];
  const outEnds: number[] = [];
  const outIds: number[] = [];
  const emit = (start: number, end: number, id: number): void => {
    if (start >= end) return;
    const last = outEnds.length - 1;
    if (last >= 0 && outEnds[last] === start && outIds[last] === id) outEnds[last] = end;
    else {
      outStarts.push(start);
      outEnds.push(end);
      outIds.push(id);
    }
  };
  // The stack holds what is still open, the latest start on top; `at` is how far has been emitted.
  const stack: number[] = [];
  let at = -Infinity;
  const close = (until: number): void => {
    while (stack.length > 0 && at < until) {
      const top = stack[stack.length - 1]!;
      const end = Math.min(ends[top]!, until);
      if (end > at) {
        emit(at, end, ids[top]!);
        at = end;
      }
      if (ends[top]! <= until) stack.pop();
    }
  };
  for (const index of order) {
    const start = starts[index]!;
    if (!(ends[index]! > start)) continue;
    close(start);
    at = start;
    stack.push(index);
  }
  close(Infinity);
  return {
    starts: Float64Array.from(outStarts),
    ends: Float64Array.from(outEnds),
    ids: Uint32Array.from(outIds),
  };
}
