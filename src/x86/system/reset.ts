/** State after RESET and INIT (APM vol. 2, tables 14-1 and 14-2). */
import type { Cpu } from '../cpu.ts';
import { CS, DS, ES, FS, GDTR, GS, IDTR, LDTR, RDX, SS, STATE, TR, segment } from '../layout.ts';
import { initX87 } from './fpu.ts';

/** Family, model and stepping that RESET leaves in EDX (the platform's CPUID Fn0000_0001 EAX). */
const DEFAULT_SIGNATURE = 0x00a0_0f11;

/** Fields INIT leaves alone: MSRs, x87 and SSE state (table 14-1, right column). */
const RESET_ONLY = [
  STATE.star,
  STATE.lstar,
  STATE.cstar,
  STATE.sfmask,
  STATE.kernelGsBase,
  STATE.sysenterCs,
  STATE.sysenterEsp,
  STATE.sysenterEip,
  STATE.xss,
  STATE.debugCtl,
  STATE.uCet,
  STATE.sCet,
  STATE.ssp,
  STATE.interruptSspTable,
  STATE.pl0Ssp,
  STATE.pl1Ssp,
  STATE.pl2Ssp,
  STATE.pl3Ssp,
] as const;

/**
 * Puts the context into the state of RESET, or of INIT, which keeps CR0.CD and NW, XCR0, the
 * x87/SSE/AVX registers and the model-specific registers.
 */
export function resetProcessor(
  cpu: Cpu,
  kind: 'reset' | 'init' = 'reset',
  signature = DEFAULT_SIGNATURE,
): void {
  for (let i = 0; i < 16; i++) cpu.setReg(i, 0n);
  cpu.setReg(RDX, BigInt(signature >>> 0));
  cpu.rip = 0xfff0n;
  cpu.nextRip = 0xfff0n;
  cpu.rflags = 2;
  cpu.cpl = 0;
  const data = { selector: 0, attributes: 0x93, limit: 0xffff, base: 0n };
  for (const index of [ES, SS, DS, FS, GS]) cpu.setSegment(index, data);
  cpu.setSegment(CS, { selector: 0xf000, attributes: 0x9b, limit: 0xffff, base: 0xffff_0000n });
  for (const index of [GDTR, IDTR])
    cpu.setSegment(index, { selector: 0, attributes: 0, limit: 0xffff, base: 0n });
  cpu.setSegment(LDTR, { selector: 0, attributes: 0x82, limit: 0xffff, base: 0n });
  cpu.setSegment(TR, { selector: 0, attributes: 0x8b, limit: 0xffff, base: 0n });
  const cache = kind === 'init' ? BigInt(cpu.cr0 & 0x6000_0000) : 0x6000_0000n;
  cpu.setU64(STATE.cr0, cache | 0x10n);
  for (const field of [STATE.cr2, STATE.cr3, STATE.cr4, STATE.cr8, STATE.efer]) cpu.setU64(field, 0n);
  for (const field of [STATE.dr0, STATE.dr1, STATE.dr2, STATE.dr3]) cpu.setU64(field, 0n);
  cpu.setU64(STATE.dr6, 0xffff_0ff0n);
  cpu.setU64(STATE.dr7, 0x400n);
  cpu.setU32(STATE.interruptShadow, 0);
  if (kind === 'reset') {
    for (const field of RESET_ONLY) cpu.setU64(field, 0n);
    cpu.setU64(STATE.xcr0, 1n);
    cpu.setU64(STATE.pat, 0x0007_0406_0007_0406n);
    cpu.setU32(STATE.tscAux, 0);
    cpu.setU32(STATE.pkru, 0);
    cpu.setU32(STATE.mxcsr, 0x1f80);
    initX87(cpu, true);
    cpu.setU16(STATE.fcw, 0x40); // RESET, unlike FNINIT, leaves 0040h and all tags "zero", not "empty"
    cpu.setU16(STATE.ftw, 0xff);
    for (let i = 0; i < 16 * 32; i += 8) cpu.setU64(STATE.ymm + i, 0n);
    cpu.setU64(STATE.retired, 0n);
  }
  cpu.setU64(segment(FS) + 8, 0n);
  cpu.updateMode();
  cpu.flushTlb();
}
