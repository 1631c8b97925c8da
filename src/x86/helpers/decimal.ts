/** Decimal adjustment and SALC: legacy modes only (APM vol. 3: AAA, AAD, AAM, AAS, DAA, DAS). */
import type { Cpu } from '../cpu.ts';
import { GuestException, VECTOR } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { ARITHMETIC_FLAGS, FLAG, RAX, gpr } from '../layout.ts';
import { byteFlags } from './flags.ts';

const AL = gpr(RAX);
const AH = gpr(RAX) + 1;

/** OF is undefined after all of these; it stays clear. */
const setAll = (cpu: Cpu, value: number): void => cpu.changeFlags(ARITHMETIC_FLAGS, value);

const adjustPacked =
  (sign: 1 | -1): Helper =>
  (cpu) => {
    const flags = cpu.rflags;
    const old = cpu.u8(AL);
    let al = old;
    let out = 0;
    if ((old & 15) > 9 || flags & FLAG.AF) {
      al += 6 * sign;
      out |= FLAG.AF;
      if (sign < 0 && al < 0) out |= FLAG.CF;
      out |= flags & FLAG.CF;
    }
    if (old > 0x99 || flags & FLAG.CF) {
      al += 0x60 * sign;
      out |= FLAG.CF;
    }
    al &= 0xff;
    cpu.setU8(AL, al);
    setAll(cpu, out | byteFlags(al));
  };

const adjustUnpacked =
  (sign: 1 | -1): Helper =>
  (cpu) => {
    const flags = cpu.rflags;
    const adjust = (cpu.u8(AL) & 15) > 9 || (flags & FLAG.AF) !== 0;
    if (adjust) cpu.setU16(AL, (cpu.u16(AL) + 0x106 * sign) & 0xffff);
    const al = cpu.u8(AL) & 15;
    cpu.setU8(AL, al);
    // SF, ZF and PF are undefined: they follow the result.
    setAll(cpu, (adjust ? FLAG.AF | FLAG.CF : 0) | byteFlags(al));
  };

export const DECIMAL_HELPERS = {
  daa: adjustPacked(1),
  das: adjustPacked(-1),
  aaa: adjustUnpacked(1),
  aas: adjustUnpacked(-1),
  aam: ((cpu, op) => {
    const base = Number(op.immediate);
    if (base === 0) throw new GuestException(VECTOR.DE);
    const al = cpu.u8(AL);
    cpu.setU8(AH, Math.floor(al / base));
    cpu.setU8(AL, al % base);
    setAll(cpu, byteFlags(al % base));
  }) satisfies Helper,
  aad: ((cpu, op) => {
    const al = (cpu.u8(AL) + cpu.u8(AH) * Number(op.immediate)) & 0xff;
    cpu.setU16(AL, al);
    setAll(cpu, byteFlags(al));
  }) satisfies Helper,
  salc: ((cpu) => cpu.setU8(AL, cpu.rflags & FLAG.CF ? 0xff : 0)) satisfies Helper,
};
