/**
 * Instructions written in TypeScript, by the name the decoder gives them: the ones here, and those of
 * `../system/`.
 */
import type { HelperTable } from '../helper.ts';
import { SYSTEM_HELPERS } from '../system/index.ts';
import { BMI_HELPERS } from './bmi.ts';
import { DECIMAL_HELPERS } from './decimal.ts';
import { FAULT_HELPERS } from './faults.ts';
import { INTEGER_HELPERS } from './integer.ts';
import { SSE_FLOAT_HELPERS } from './sse-float.ts';
import { STRING_HELPERS } from './strings.ts';
import { VECTOR_HELPERS } from './vector.ts';

export const HELPERS: HelperTable = {
  ...SYSTEM_HELPERS,
  ...STRING_HELPERS,
  ...DECIMAL_HELPERS,
  ...INTEGER_HELPERS,
  ...SSE_FLOAT_HELPERS,
  ...VECTOR_HELPERS,
  ...BMI_HELPERS,
  ...FAULT_HELPERS,
};
