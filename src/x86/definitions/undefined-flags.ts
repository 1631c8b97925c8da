/**
 * Flags that the manual leaves undefined behind an instruction, and what the definitions do with
 * them. Tests against hardware and peers leave these bits out. Source: APM vol. 3, "rFLAGS Affected"
 * of each instruction ("U").
 */
import { FLAG } from '../layout.ts';
import type { MicroOp } from '../microop.ts';

const { CF, PF, AF, ZF, SF, OF } = FLAG;

export const UNDEFINED_FLAGS: Readonly<Record<string, number>> = {
  // Logic: AF (cleared).
  and: AF,
  or: AF,
  xor: AF,
  test: AF,
  // Multiplication: all but CF and OF (they stay).
  mul: PF | AF | ZF | SF,
  imul1: PF | AF | ZF | SF,
  imul: PF | AF | ZF | SF,
  imul3: PF | AF | ZF | SF,
  // Division: all six (they stay).
  div: CF | PF | AF | ZF | SF | OF,
  idiv: CF | PF | AF | ZF | SF | OF,
  // Shifts: AF (cleared); OF and CF depend on the count, see undefinedForCount.
  shl: AF,
  shr: AF,
  sar: AF,
  shld: AF,
  shrd: AF,
  shld_cl: AF,
  shrd_cl: AF,
  // Bit tests: all but CF, and ZF which stays (the others stay, too; PF, AF and SF with them).
  bt: OF | SF | AF | PF,
  bts: OF | SF | AF | PF,
  btr: OF | SF | AF | PF,
  btc: OF | SF | AF | PF,
  bit_string: OF | SF | AF | PF,
  // Decimal adjustment: OF, and what the manual names beside it (OF cleared; SF, ZF and PF of AL).
  daa: OF,
  das: OF,
  aaa: OF | SF | ZF | PF,
  aas: OF | SF | ZF | PF,
  aam: OF | AF | CF,
  aad: OF | AF | CF,
  // Bit scans: all but ZF (CF, OF, AF cleared; SF and PF of the source).
  bsf: CF | OF | SF | AF | PF,
  bsr: CF | OF | SF | AF | PF,
  // BMI: AF and PF, and SF of BEXTR (cleared, SF of the result).
  andn: AF | PF,
  bextr: AF | PF | SF,
  blsi: AF | PF,
  blsmsk: AF | PF,
  blsr: AF | PF,
  bzhi: AF | PF,
  // Counts: OF, SF, AF, PF (OF and AF cleared; SF and PF of the result).
  tzcnt: OF | SF | AF | PF,
  lzcnt: OF | SF | AF | PF,
};

/**
 * What a shift count over 1, or over the operand size, leaves undefined.
 * @param rcx where the count is if it is not an immediate.
 */
export const undefinedForCount = (op: MicroOp, rcx: bigint): number => {
  const rotates = /^(ro|rc)[lr]$/.test(op.name);
  const shifts = /^(shl|shr|sar)$/.test(op.name);
  const doubles = /^sh[lr]d(_cl)?$/.test(op.name);
  if (!rotates && !shifts && !doubles) return 0;
  const immediate = op.form === 'ri' || op.form === 'mi' || op.name === 'shld' || op.name === 'shrd';
  const count = Number((immediate ? op.immediate : rcx) & (op.size === 8 ? 63n : 31n));
  const bits = op.size * 8;
  if (count === 0) return 0;
  let undefinedFlags = count === 1 ? 0 : OF;
  // SHL and SHR of a narrow operand by its size or more leave CF undefined.
  if (shifts && op.name !== 'sar' && count >= bits) undefinedFlags |= CF;
  if (doubles && count > bits) undefinedFlags |= CF | PF | ZF | SF | OF;
  return undefinedFlags;
};
