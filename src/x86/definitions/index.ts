/**
 * What the instructions do, each written once in the expression language of `ir.ts`. Rare or complex
 * ones are TypeScript functions in `../helpers/` and `../system/`.
 */
import type { Definition } from '../ir.ts';
import { ARITHMETIC } from './arithmetic.ts';
import { BITS } from './bits.ts';
import { CONTROL } from './control.ts';
import { MOVES } from './moves.ts';
import { MULTIPLY } from './multiply.ts';
import { SHIFTS } from './shifts.ts';
import { SSE_INTEGER } from './sse-integer.ts';
import { SSE_MOVES } from './sse-moves.ts';
import { SSE4 } from './sse4.ts';

export const DEFINITIONS: readonly Definition[] = [
  ...MOVES,
  ...ARITHMETIC,
  ...MULTIPLY,
  ...SHIFTS,
  ...BITS,
  ...CONTROL,
  ...SSE_MOVES,
  ...SSE_INTEGER,
  ...SSE4,
];
