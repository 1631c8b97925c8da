/** RDMSR, WRMSR and the time-stamp counter (APM vol. 2, appendix A; APM vol. 3). */
import { NotImplemented } from '../../base/index.ts';
import { isCanonical } from '../cpu.ts';
import type { Cpu } from '../cpu.ts';
import { generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { FS, GS, STATE, segment } from '../layout.ts';
import { CR0, CR4, EFER } from './bits.ts';
import { ecx, edxEax, requireCpl0, setEdxEax } from './checks.ts';

/** MSRs the processor keeps itself. */
export const MSR = {
  TSC: 0x10,
  SYSENTER_CS: 0x174,
  SYSENTER_ESP: 0x175,
  SYSENTER_EIP: 0x176,
  DEBUGCTL: 0x1d9,
  PAT: 0x277,
  U_CET: 0x6a0,
  S_CET: 0x6a2,
  PL0_SSP: 0x6a4,
  PL1_SSP: 0x6a5,
  PL2_SSP: 0x6a6,
  PL3_SSP: 0x6a7,
  ISST_ADDR: 0x6a8,
  XSS: 0xda0,
  EFER: 0xc000_0080,
  STAR: 0xc000_0081,
  LSTAR: 0xc000_0082,
  CSTAR: 0xc000_0083,
  SFMASK: 0xc000_0084,
  FS_BASE: 0xc000_0100,
  GS_BASE: 0xc000_0101,
  KERNEL_GS_BASE: 0xc000_0102,
  TSC_AUX: 0xc000_0103,
} as const;

/** How a value is checked before it is kept. */
type Rule = 'any' | 'canonical' | 'low32' | 'pat' | 'zero' | 'cet';

const KEPT = new Map<number, readonly [offset: number, rule: Rule]>([
  [MSR.SYSENTER_CS, [STATE.sysenterCs, 'low32']],
  [MSR.SYSENTER_ESP, [STATE.sysenterEsp, 'canonical']],
  [MSR.SYSENTER_EIP, [STATE.sysenterEip, 'canonical']],
  [MSR.DEBUGCTL, [STATE.debugCtl, 'any']],
  [MSR.PAT, [STATE.pat, 'pat']],
  [MSR.U_CET, [STATE.uCet, 'cet']],
  [MSR.S_CET, [STATE.sCet, 'cet']],
  [MSR.PL0_SSP, [STATE.pl0Ssp, 'canonical']],
  [MSR.PL1_SSP, [STATE.pl1Ssp, 'canonical']],
  [MSR.PL2_SSP, [STATE.pl2Ssp, 'canonical']],
  [MSR.PL3_SSP, [STATE.pl3Ssp, 'canonical']],
  [MSR.ISST_ADDR, [STATE.interruptSspTable, 'canonical']],
  // No supervisor state component is implemented, so none can be enabled.
  [MSR.XSS, [STATE.xss, 'zero']],
  [MSR.STAR, [STATE.star, 'any']],
  [MSR.LSTAR, [STATE.lstar, 'canonical']],
  [MSR.CSTAR, [STATE.cstar, 'canonical']],
  [MSR.SFMASK, [STATE.sfmask, 'low32']],
  [MSR.FS_BASE, [segment(FS) + 8, 'canonical']],
  [MSR.GS_BASE, [segment(GS) + 8, 'canonical']],
  [MSR.KERNEL_GS_BASE, [STATE.kernelGsBase, 'canonical']],
]);

/** Value of an MSR, whoever keeps it; never asks for interception. */
export function readMsr(cpu: Cpu, index: number): bigint {
  if (index === MSR.EFER) return cpu.u64(STATE.efer);
  if (index === MSR.TSC_AUX) return BigInt(cpu.u32(STATE.tscAux));
  if (index === MSR.TSC) return cpu.platform.timestamp(cpu);
  const kept = KEPT.get(index);
  return kept ? cpu.u64(kept[0]) : cpu.platform.readMsr(cpu, index);
}

export function writeMsr(cpu: Cpu, index: number, value: bigint): void {
  if (index === MSR.EFER) {
    writeEfer(cpu, value);
    return;
  }
  if (index === MSR.TSC_AUX) {
    if (value >> 32n !== 0n) throw generalProtection(0);
    cpu.setU32(STATE.tscAux, Number(value));
    return;
  }
  const kept = KEPT.get(index);
  if (!kept) {
    cpu.platform.writeMsr(cpu, index, value);
    return;
  }
  const [offset, rule] = kept;
  switch (rule) {
    case 'canonical':
      if (!isCanonical(value)) throw generalProtection(0);
      break;
    case 'low32':
      value &= 0xffff_ffffn;
      break;
    case 'pat':
      // Memory types 2 and 3 are reserved, and the five bits above each type (§7.8.1).
      for (let i = 0n; i < 64n; i += 8n) {
        const type = (value >> i) & 0xffn;
        if (type > 7n || type === 2n || type === 3n) throw generalProtection(0);
      }
      break;
    case 'zero':
      if (value !== 0n) throw generalProtection(0);
      break;
    case 'cet':
      // Enabling shadow stacks changes every CALL and RET: not silently.
      if ((value & 1n) !== 0n) throw new NotImplemented('shadow stacks (CET)', { rip: cpu.rip });
      break;
    case 'any':
      break;
  }
  cpu.setU64(offset, value);
}

const EFER_KNOWN = BigInt(
  EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE | EFER.SVME | EFER.FFXSR | EFER.TCE | EFER.AIBRSE,
);

/** EFER (§3.1.7): LMA cannot be changed by writing it, LME not while paging is on. */
function writeEfer(cpu: Cpu, value: bigint): void {
  if ((value & ~EFER_KNOWN) !== 0n) throw generalProtection(0);
  const next = Number(value);
  const changed = next ^ cpu.efer;
  if ((changed & EFER.LMA) !== 0) throw generalProtection(0);
  if ((changed & EFER.LME) !== 0 && (cpu.cr0 & CR0.PG) !== 0) throw generalProtection(0);
  cpu.setU64(STATE.efer, value);
  if ((changed & EFER.NXE) !== 0) cpu.flushTlb();
}

const rdmsr: Helper = (cpu) => {
  requireCpl0(cpu);
  const index = ecx(cpu);
  const value = cpu.platform.interceptsMsr(cpu, index, false)
    ? cpu.platform.readMsr(cpu, index)
    : readMsr(cpu, index);
  setEdxEax(cpu, value);
};

const wrmsr: Helper = (cpu) => {
  requireCpl0(cpu);
  const index = ecx(cpu);
  const value = edxEax(cpu);
  if (cpu.platform.interceptsMsr(cpu, index, true)) cpu.platform.writeMsr(cpu, index, value);
  else writeMsr(cpu, index, value);
};

/** CR4.TSD restricts the counter to CPL 0 (APM vol. 3, RDTSC). */
const checkTsd = (cpu: Cpu): void => {
  if ((cpu.cr4 & CR4.TSD) !== 0 && cpu.protectedMode && cpu.cpl !== 0) throw generalProtection(0);
};

const rdtsc: Helper = (cpu) => {
  checkTsd(cpu);
  cpu.platform.intercept(cpu, 'rdtsc');
  setEdxEax(cpu, cpu.platform.timestamp(cpu));
};

const rdtscp: Helper = (cpu) => {
  checkTsd(cpu);
  cpu.platform.intercept(cpu, 'rdtscp');
  setEdxEax(cpu, cpu.platform.timestamp(cpu));
  cpu.setReg(1, BigInt(cpu.u32(STATE.tscAux)));
};

/** Performance counters exist and stand still: none can be started. */
const rdpmc: Helper = (cpu) => {
  if ((cpu.cr4 & CR4.PCE) === 0 && cpu.protectedMode && cpu.cpl !== 0) throw generalProtection(0);
  if (ecx(cpu) > 5) throw generalProtection(0);
  cpu.platform.intercept(cpu, 'rdpmc');
  setEdxEax(cpu, 0n);
};

const rdpru: Helper = (cpu) => {
  checkTsd(cpu);
  cpu.platform.intercept(cpu, 'rdpru');
  throw undefinedOpcode();
};

const rdpid: Helper = (cpu, op) => {
  cpu.writeRegister(op.a, 8, BigInt(cpu.u32(STATE.tscAux)));
};

export const MSR_HELPERS = { rdmsr, wrmsr, rdtsc, rdtscp, rdpmc, rdpru, rdpid };
