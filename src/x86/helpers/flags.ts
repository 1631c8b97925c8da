/** Arithmetic flags for helpers, in the form that `STATE.flagResult` describes. */
import type { Cpu } from '../cpu.ts';
import { FLAG, STATE } from '../layout.ts';

/** Flags of `a - b`, operands zero-extended. */
export const setSubtractFlags = (cpu: Cpu, size: number, a: bigint, b: bigint): void => {
  const bits = size * 8;
  const result = a - b;
  const borrow = (~a & b) | ((~a | b) & result);
  cpu.setU64(STATE.flagResult, BigInt.asUintN(64, BigInt.asIntN(bits, result)));
  cpu.setU64(STATE.flagCarry, BigInt.asUintN(64, borrow << BigInt(64 - bits)));
  cpu.setU32(STATE.flagMisc, Number((a ^ b ^ result) & 0x10n));
};

/** SF, ZF and PF of a byte as RFLAGS bits. */
export const byteFlags = (value: number): number => {
  let parity = value ^ (value >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return (value === 0 ? FLAG.ZF : 0) | (value & 0x80 ? FLAG.SF : 0) | ((parity & 1) === 0 ? FLAG.PF : 0);
};
