/**
 * The predecoded instruction: one fixed record an instruction, operands resolved. The decoder makes
 * it (`decode/`), the generated interpreter and the helpers read it.
 */

/** Where a definition's operands live. */
export type Form =
  /** No explicit operand, or only `a` / `imm` as the definition itself says. */
  | 'none'
  /** Destination register `a`. */
  | 'r'
  /** Destination memory. */
  | 'm'
  /** Destination register `a`, source register `b`. */
  | 'rr'
  /** Destination register `a`, source immediate. */
  | 'ri'
  /** Destination register `a`, source memory. */
  | 'rm'
  /** Destination memory, source register `b`. */
  | 'mr'
  /** Destination memory, source immediate. */
  | 'mi';

export type OperandSize = 1 | 2 | 4 | 8 | 16;

export interface MicroOp {
  /** Name of an IR definition, or of a helper when `helper` is set. */
  name: string;
  helper: boolean;
  form: Form;
  /** Operand size in bytes. */
  size: OperandSize;
  /** Address size in bytes. */
  addressSize: 2 | 4 | 8;
  length: number;
  /** General registers as byte offsets into the context (`gpr(i)`, `gpr(i) + 1` for AH…BH); XMM, CR, DR, ST as plain indexes. */
  a: number;
  b: number;
  /** Effective address: base + (index << scale) + displacement; byte offsets, ZERO or CODE_PAGE. */
  base: number;
  index: number;
  scale: number;
  displacement: number;
  /** Segment the effective address uses (override applied; SS default for RSP/RBP bases). */
  segment: number;
  /** Sign-extended immediate; for relative branches the displacement from the *page* of the instruction. */
  immediate: bigint;
  /** Condition code 0-15 for Jcc/SETcc/CMOVcc; second small immediate otherwise (e.g. ENTER's level). */
  condition: number;
  lock: boolean;
  /** 0 none, 2 = F2 (REPNE), 3 = F3 (REP/REPE), as written before a string instruction. */
  rep: 0 | 2 | 3;
  /** Decoding must not go on behind it: jumps, helpers, anything that can change the mode. */
  endsBlock: boolean;
}

/** Byte layout of the record in machine memory. */
export const MICRO_OP = {
  size: 32,
  handler: 0, // u16
  length: 2, // u8
  flags: 3, // u8, see OP_FLAG
  a: 4,
  b: 5,
  base: 6,
  index: 7,
  scale: 8,
  segment: 9,
  /** Offset of the instruction in its linear page (u16). */
  pageOffset: 10,
  displacement: 12, // i32
  immediate: 16, // i64
  helper: 24, // u16: index in the helper table
  /** Handler hidden under a breakpoint (u16). */
  original: 26,
  operandSize: 28,
  addressSize: 29,
  condition: 30,
  rep: 31, // u8
} as const;

export const OP_FLAG = {
  /** The effective address needs `slowAddress`: segment base, limit, or an address size under 64 bits. */
  slowAddress: 1,
  lock: 2,
  /** Register form of a ModRM operand in a helper (no memory operand). */
  register: 4,
} as const;
