/**
 * Saving and restoring of x87, SSE and AVX state (APM vol. 2, §11.5; APM vol. 4 and 5, XSAVE ff.),
 * and the few x87 control instructions.
 */
import { NotImplemented } from '../../base/index.ts';
import type { Cpu } from '../cpu.ts';
import { GuestException, VECTOR, generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { STATE } from '../layout.ts';
import type { OpView } from '../opview.ts';
import { CR0, CR4 } from './bits.ts';
import { ecx, edxEax, in64, requireCpl0, requireNotSwitched, requireSse, requireX87 } from './checks.ts';

const X87 = 1;
const SSE = 2;
const AVX = 4;
/** State components this processor has. */
export const XCR0_SUPPORTED = X87 | SSE | AVX;
const LEGACY = 512;
const HEADER = 64;
/** Offset of the upper YMM halves, in both formats: AVX is the only extended component. */
const AVX_OFFSET = LEGACY + HEADER;
export const XSAVE_SIZE = AVX_OFFSET + 256;
const MXCSR_MASK = 0x2_ffff; // with misaligned SSE (MM, bit 17)
const MXCSR_DEFAULT = 0x1f80;
const FCW_DEFAULT = 0x37f;

const vector = (index: number): number => STATE.ymm + index * 32;
const registers = (cpu: Cpu): number => (in64(cpu) ? 16 : 8);
/** ST(i) is physical register (TOP + i) mod 8. */
const stack = (cpu: Cpu, index: number): number =>
  STATE.st + ((((cpu.u16(STATE.fsw) >> 11) & 7) + index) & 7) * 16;

const zero = (cpu: Cpu, offset: number, bytes: number): void => {
  for (let i = 0; i < bytes; i += 8) cpu.setU64(offset + i, 0n);
};

// -- components -------------------------------------------------------------------------------------

function saveX87(cpu: Cpu, to: bigint, wide: boolean): void {
  cpu.store(to, 2, BigInt(cpu.u16(STATE.fcw)));
  cpu.store(to + 2n, 2, BigInt(cpu.u16(STATE.fsw)));
  cpu.store(to + 4n, 2, BigInt(cpu.u16(STATE.ftw) & 0xff));
  cpu.store(to + 6n, 2, BigInt(cpu.u16(STATE.fop) & 0x7ff));
  // Without REX.W the upper half holds a 16-bit selector, which is not tracked: zero.
  const keep = wide ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn;
  cpu.store(to + 8n, 8, cpu.u64(STATE.fip) & keep);
  cpu.store(to + 16n, 8, cpu.u64(STATE.fdp) & keep);
  for (let i = 0; i < 8; i++) {
    const from = stack(cpu, i);
    cpu.store(to + BigInt(32 + i * 16), 8, cpu.u64(from));
    cpu.store(to + BigInt(40 + i * 16), 8, cpu.u64(from + 8) & 0xffffn);
  }
}

function restoreX87(cpu: Cpu, from: bigint, wide: boolean): void {
  const keep = wide ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn;
  cpu.setU16(STATE.fcw, Number(cpu.load(from, 2)));
  cpu.setU16(STATE.fsw, Number(cpu.load(from + 2n, 2)));
  cpu.setU16(STATE.ftw, Number(cpu.load(from + 4n, 1)));
  cpu.setU16(STATE.fop, Number(cpu.load(from + 6n, 2) & 0x7ffn));
  cpu.setU64(STATE.fip, cpu.load(from + 8n, 8) & keep);
  cpu.setU64(STATE.fdp, cpu.load(from + 16n, 8) & keep);
  for (let i = 0; i < 8; i++) {
    const to = stack(cpu, i);
    cpu.setU64(to, cpu.load(from + BigInt(32 + i * 16), 8));
    cpu.setU64(to + 8, cpu.load(from + BigInt(40 + i * 16), 2));
  }
}

/** FNINIT's state (APM vol. 5, FINIT). */
export function initX87(cpu: Cpu, registersToo: boolean): void {
  cpu.setU16(STATE.fcw, FCW_DEFAULT);
  cpu.setU16(STATE.fsw, 0);
  cpu.setU16(STATE.ftw, 0);
  cpu.setU16(STATE.fop, 0);
  cpu.setU64(STATE.fip, 0n);
  cpu.setU64(STATE.fdp, 0n);
  if (registersToo) zero(cpu, STATE.st, 128);
}

function saveXmm(cpu: Cpu, to: bigint): void {
  for (let i = 0; i < registers(cpu); i++) {
    cpu.store(to + BigInt(160 + i * 16), 8, cpu.u64(vector(i)));
    cpu.store(to + BigInt(168 + i * 16), 8, cpu.u64(vector(i) + 8));
  }
}

function restoreXmm(cpu: Cpu, from: bigint): void {
  for (let i = 0; i < registers(cpu); i++) {
    cpu.setU64(vector(i), cpu.load(from + BigInt(160 + i * 16), 8));
    cpu.setU64(vector(i) + 8, cpu.load(from + BigInt(168 + i * 16), 8));
  }
}

/** Components that are not in their initial configuration. */
function inUse(cpu: Cpu): number {
  let used = 0;
  const any = (offset: number, bytes: number): boolean => {
    for (let i = 0; i < bytes; i += 8) if (cpu.u64(offset + i) !== 0n) return true;
    return false;
  };
  if (
    cpu.u16(STATE.fcw) !== FCW_DEFAULT ||
    cpu.u16(STATE.fsw) !== 0 ||
    cpu.u16(STATE.ftw) !== 0 ||
    cpu.u16(STATE.fop) !== 0 ||
    any(STATE.fip, 16) ||
    any(STATE.st, 128)
  )
    used |= X87;
  for (let i = 0; i < 16; i++) {
    if (any(vector(i), 16)) used |= SSE;
    if (any(vector(i) + 16, 16)) used |= AVX;
  }
  return used;
}

const saveMxcsr = (cpu: Cpu, to: bigint): void => {
  cpu.store(to + 24n, 4, BigInt(cpu.u32(STATE.mxcsr)));
  cpu.store(to + 28n, 4, BigInt(MXCSR_MASK));
};

/** MXCSR from memory; a reserved bit is #GP(0). */
function checkedMxcsr(cpu: Cpu, linear: bigint): number {
  const value = Number(cpu.load(linear, 4));
  if ((value & ~MXCSR_MASK) !== 0) throw generalProtection(0);
  return value;
}

/** The operand: aligned, and wholly accessible before anything changes. */
function area(cpu: Cpu, op: OpView, size: number, alignment: bigint, write: boolean): bigint {
  const linear = cpu.address(op, size, write);
  if (linear % alignment !== 0n) throw generalProtection(0);
  cpu.probe(linear, size, write ? 'write' : 'read');
  return linear;
}

// -- FXSAVE, FXRSTOR ------------------------------------------------------------------------------------

const requireFx = (cpu: Cpu): void => {
  if ((cpu.cr0 & CR0.EM) !== 0) throw undefinedOpcode();
  requireNotSwitched(cpu);
};

const fxsave: Helper = (cpu, op) => {
  requireFx(cpu);
  const to = area(cpu, op, LEGACY, 16n, true);
  saveX87(cpu, to, op.size === 8);
  saveMxcsr(cpu, to);
  if ((cpu.cr4 & CR4.OSFXSR) !== 0) saveXmm(cpu, to);
};

const fxrstor: Helper = (cpu, op) => {
  requireFx(cpu);
  const from = area(cpu, op, LEGACY, 16n, false);
  const mxcsr = checkedMxcsr(cpu, from + 24n);
  restoreX87(cpu, from, op.size === 8);
  cpu.setU32(STATE.mxcsr, mxcsr);
  if ((cpu.cr4 & CR4.OSFXSR) !== 0) restoreXmm(cpu, from);
};

// -- XSAVE, XSAVEOPT, XSAVEC, XRSTOR ----------------------------------------------------------------------

function requireXsave(cpu: Cpu): number {
  if ((cpu.cr4 & CR4.OSXSAVE) === 0) throw undefinedOpcode();
  requireNotSwitched(cpu);
  return Number(cpu.u64(STATE.xcr0) & edxEax(cpu));
}

const areaSize = (components: number): number => ((components & AVX) !== 0 ? XSAVE_SIZE : LEGACY + HEADER);

/**
 * @param write components whose data is written
 * @param mask components whose XSTATE_BV bit is (RFBM)
 */
function saveComponents(cpu: Cpu, op: OpView, to: bigint, write: number): void {
  if ((write & X87) !== 0) saveX87(cpu, to, op.size === 8);
  if ((write & SSE) !== 0) saveXmm(cpu, to);
  if ((write & AVX) !== 0)
    for (let i = 0; i < registers(cpu); i++) {
      cpu.store(to + BigInt(AVX_OFFSET + i * 16), 8, cpu.u64(vector(i) + 16));
      cpu.store(to + BigInt(AVX_OFFSET + 8 + i * 16), 8, cpu.u64(vector(i) + 24));
    }
}

/** XSAVE writes every component asked for, XSAVEOPT those in use. The header keeps its other bits. */
const xsaveWith =
  (optimised: boolean): Helper =>
  (cpu, op) => {
    const mask = requireXsave(cpu);
    const to = area(cpu, op, areaSize(mask), 64n, true);
    const used = inUse(cpu);
    saveComponents(cpu, op, to, optimised ? mask & used : mask);
    if ((mask & (SSE | AVX)) !== 0) saveMxcsr(cpu, to);
    const old = cpu.load(to + BigInt(LEGACY), 8);
    cpu.store(to + BigInt(LEGACY), 8, (old & ~BigInt(mask)) | BigInt(mask & used));
  };

/** Compacted format: the header is written whole, XCOMP_BV says what the area has room for. */
const xsavec: Helper = (cpu, op) => {
  const mask = requireXsave(cpu);
  const to = area(cpu, op, areaSize(mask), 64n, true);
  let used = inUse(cpu);
  if (cpu.u32(STATE.mxcsr) !== MXCSR_DEFAULT) used |= SSE;
  const write = mask & used;
  saveComponents(cpu, op, to, write);
  if ((write & SSE) !== 0) saveMxcsr(cpu, to);
  cpu.store(to + BigInt(LEGACY), 8, BigInt(write));
  cpu.store(to + BigInt(LEGACY + 8), 8, BigInt(mask) | (1n << 63n));
};

const xrstor: Helper = (cpu, op) => {
  const mask = requireXsave(cpu);
  const from = area(cpu, op, areaSize(mask), 64n, false);
  const at = (offset: number): bigint => cpu.load(from + BigInt(offset), 8);
  const present = at(LEGACY);
  const layout = at(LEGACY + 8);
  const compacted = layout >> 63n !== 0n;
  const xcr0 = cpu.u64(STATE.xcr0);
  // The header's rules (APM vol. 5, XRSTOR): unknown components, or reserved bytes, are #GP(0).
  if ((present & ~xcr0) !== 0n) throw generalProtection(0);
  if (compacted) {
    const room = layout & ~(1n << 63n);
    if ((room & ~xcr0) !== 0n || (present & ~room) !== 0n) throw generalProtection(0);
  } else if (layout !== 0n) throw generalProtection(0);
  for (let offset = LEGACY + 16; offset < LEGACY + (compacted ? HEADER : 24); offset += 8)
    if (at(offset) !== 0n) throw generalProtection(0);
  const load = mask & Number(present);
  const init = mask & ~load;
  // In the standard format MXCSR is loaded with SSE or AVX whatever XSTATE_BV says (APM vol. 2,
  // §11.5.9); in the compacted one it belongs to SSE.
  let mxcsr: number | undefined;
  if (compacted) {
    if ((load & SSE) !== 0) mxcsr = checkedMxcsr(cpu, from + 24n);
    else if ((init & SSE) !== 0) mxcsr = MXCSR_DEFAULT;
  } else if ((mask & (SSE | AVX)) !== 0) mxcsr = checkedMxcsr(cpu, from + 24n);

  if ((load & X87) !== 0) restoreX87(cpu, from, op.size === 8);
  else if ((init & X87) !== 0) initX87(cpu, true);
  if ((load & SSE) !== 0) restoreXmm(cpu, from);
  else if ((init & SSE) !== 0) for (let i = 0; i < registers(cpu); i++) zero(cpu, vector(i), 16);
  if ((load & AVX) !== 0)
    for (let i = 0; i < registers(cpu); i++) {
      cpu.setU64(vector(i) + 16, cpu.load(from + BigInt(AVX_OFFSET + i * 16), 8));
      cpu.setU64(vector(i) + 24, cpu.load(from + BigInt(AVX_OFFSET + 8 + i * 16), 8));
    }
  else if ((init & AVX) !== 0) for (let i = 0; i < registers(cpu); i++) zero(cpu, vector(i) + 16, 16);
  if (mxcsr !== undefined) cpu.setU32(STATE.mxcsr, mxcsr);
};

/** With no supervisor component (XSS is 0) XSAVES and XRSTORS are XSAVEC and XRSTOR at CPL 0. */
const xsaves: Helper = (cpu, op) => {
  if ((cpu.cr4 & CR4.OSXSAVE) === 0) throw undefinedOpcode();
  requireCpl0(cpu);
  return xsavec(cpu, op);
};
const xrstors: Helper = (cpu, op) => {
  if ((cpu.cr4 & CR4.OSXSAVE) === 0) throw undefinedOpcode();
  requireCpl0(cpu);
  const from = area(cpu, op, LEGACY + HEADER, 64n, false);
  // XRSTORS accepts the compacted format only.
  if (cpu.load(from + BigInt(LEGACY + 8), 8) >> 63n === 0n) throw generalProtection(0);
  return xrstor(cpu, op);
};

const xgetbv: Helper = (cpu) => {
  if ((cpu.cr4 & CR4.OSXSAVE) === 0) throw undefinedOpcode();
  const index = ecx(cpu);
  // XCR0 alone; XGETBV with ECX = 1 is not advertised (CPUID Fn0000_000D_1 EAX[2]) but harmless: XINUSE.
  if (index > 1) throw generalProtection(0);
  const value = index === 0 ? cpu.u64(STATE.xcr0) : cpu.u64(STATE.xcr0) & BigInt(inUse(cpu));
  cpu.setReg(0, value & 0xffff_ffffn);
  cpu.setReg(2, value >> 32n);
};

/** XCR0 (APM vol. 2, §11.5.2): x87 always, AVX only with SSE, nothing unknown. */
const xsetbv: Helper = (cpu) => {
  if ((cpu.cr4 & CR4.OSXSAVE) === 0) throw undefinedOpcode();
  requireCpl0(cpu);
  if (ecx(cpu) !== 0) throw generalProtection(0);
  const value = edxEax(cpu);
  const low = Number(value & 0xffff_ffffn);
  if ((value & ~BigInt(XCR0_SUPPORTED)) !== 0n || (low & X87) === 0) throw generalProtection(0);
  if ((low & AVX) !== 0 && (low & SSE) === 0) throw generalProtection(0);
  cpu.setU64(STATE.xcr0, value);
};

// -- control words ------------------------------------------------------------------------------------------

const ldmxcsr: Helper = (cpu, op) => {
  requireSse(cpu);
  cpu.setU32(STATE.mxcsr, checkedMxcsr(cpu, cpu.address(op, 4, false)));
};

const stmxcsr: Helper = (cpu, op) => {
  requireSse(cpu);
  cpu.store(cpu.address(op, 4, true), 4, BigInt(cpu.u32(STATE.mxcsr)));
};

const fninit: Helper = (cpu) => {
  requireX87(cpu);
  initX87(cpu, false);
};

/** Clears the exception flags, ES, SF and B. */
const fnclex: Helper = (cpu) => {
  requireX87(cpu);
  cpu.setU16(STATE.fsw, cpu.u16(STATE.fsw) & 0x7f00);
};

const fnstcw: Helper = (cpu, op) => {
  requireX87(cpu);
  cpu.store(cpu.address(op, 2, true), 2, BigInt(cpu.u16(STATE.fcw)));
};

const fldcw: Helper = (cpu, op) => {
  requireX87(cpu);
  pendingX87(cpu);
  const value = Number(cpu.load(cpu.address(op, 2, false), 2));
  cpu.setU16(STATE.fcw, (value & 0x1f3f) | 0x40);
  // Unmasking a flagged exception makes it pending: ES and B follow.
  const pending = cpu.u16(STATE.fsw) & 0x3f & ~value;
  cpu.setU16(STATE.fsw, (cpu.u16(STATE.fsw) & 0x7f7f) | (pending ? 0x8080 : 0));
};

const fnstsw: Helper = (cpu, op) => {
  requireX87(cpu);
  cpu.store(cpu.address(op, 2, true), 2, BigInt(cpu.u16(STATE.fsw)));
};

const fnstsw_ax: Helper = (cpu) => {
  requireX87(cpu);
  cpu.writeRegister(0, 2, BigInt(cpu.u16(STATE.fsw)));
};

/** #MF for an unmasked exception left behind (FSW.ES), with CR0.NE; else the legacy FERR line. */
function pendingX87(cpu: Cpu): void {
  if ((cpu.u16(STATE.fsw) & 0x80) === 0) return;
  if ((cpu.cr0 & CR0.NE) === 0)
    throw new NotImplemented('x87 exceptions reported by FERR (CR0.NE is 0)', { rip: cpu.rip });
  throw new GuestException(VECTOR.MF);
}

const fwait: Helper = (cpu) => {
  if ((cpu.cr0 & CR0.MP) !== 0) requireNotSwitched(cpu);
  pendingX87(cpu);
};

export const FPU_HELPERS = {
  fxsave,
  fxrstor,
  xsave: xsaveWith(false),
  xsaveopt: xsaveWith(true),
  xsavec,
  xsaves,
  xrstor,
  xrstors,
  xgetbv,
  xsetbv,
  ldmxcsr,
  stmxcsr,
  fninit,
  fnclex,
  fnstcw,
  fldcw,
  fnstsw,
  fnstsw_ax,
  fwait,
};
