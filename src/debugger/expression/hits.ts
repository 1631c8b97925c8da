/** Hit conditions: after how many hits a breakpoint stops. */
import { CvmError } from '../../base/index.ts';

/** Whether the n-th hit (from 1) stops. */
export type HitCondition = (hits: number) => boolean;

/**
 * `5` and `= 5` the fifth hit; `> 5`, `>= 5`, `< 5`, `<= 5`; `% 5` every fifth.
 * @throws CvmError `hit-condition`.
 */
export function parseHitCondition(text: string): HitCondition {
  const match = /^\s*(==?|>=|<=|>|<|%)?\s*([0-9]{1,15})\s*$/.exec(text);
  if (!match)
    throw new CvmError('hit-condition', `'${text.slice(0, 80)}' is no hit condition: write 5, >= 5 or % 5`);
  const count = Number(match[2]);
  switch (match[1]) {
    case '>':
      return (hits) => hits > count;
    case '>=':
      return (hits) => hits >= count;
    case '<':
      return (hits) => hits < count;
    case '<=':
      return (hits) => hits <= count;
    case '%':
      if (count === 0) throw new CvmError('hit-condition', "'% 0' never stops");
      return (hits) => hits % count === 0;
    default:
      return (hits) => hits === count;
  }
}
