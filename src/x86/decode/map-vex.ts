/**
 * VEX-encoded instructions on general registers: APM vol. 3, tables A-21 and following, group 17.
 * Columns: VEX.pp none | 66 | F3 | F2. VEX.vvvv goes to the micro-op's `condition`. AVX is not there yet.
 */
import { parsePrefixed } from './entry.ts';
import type { Entry } from './entry.ts';

const GROUPS = {
  g17: ['ud', '*blsr _,Ey', '*blsmsk _,Ey', '*blsi _,Ey', 'ud', 'ud', 'ud', 'ud'],
};

const MAP_38 = `
  F2 *andn Gy,Ey
  F3 %g17
  F5 *bzhi Gy,Ey | ud | *pext Gy,Ey | *pdep Gy,Ey
  F6 ud | ud | ud | *mulx Gy,Ey
  F7 *bextr Gy,Ey | *shlx Gy,Ey | *sarx Gy,Ey | *shrx Gy,Ey
`;
const MAP_3A = `
  F0 ud | ud | ud | *rorx Gy,Ey,Iu
`;

const empty = (): (Entry | undefined)[] => new Array<Entry | undefined>(256).fill(undefined);
export const VEX_GENERAL_38: readonly (Entry | undefined)[] = parsePrefixed(
  MAP_38,
  GROUPS,
  empty() as Entry[],
);
export const VEX_GENERAL_3A: readonly (Entry | undefined)[] = parsePrefixed(
  MAP_3A,
  GROUPS,
  empty() as Entry[],
);
