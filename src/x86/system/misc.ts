/** The remaining system instructions: jumps and interrupts, TLB control, CPUID, SNP and SVM instructions. */
import { NotImplemented } from '../../base/index.ts';
import { isCanonical } from '../cpu.ts';
import type { Cpu } from '../cpu.ts';
import { GuestException, VECTOR, VmExit, generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper, HelperTable } from '../helper.ts';
import { ARITHMETIC_FLAGS, FLAG, FS, RAX, RBX, RCX, RDX, STATE } from '../layout.ts';
import type { OpView } from '../opview.ts';
import { CR4, EFER } from './bits.ts';
import { ecx, in64, requireCpl0, requireProtected } from './checks.ts';
import { softwareInterrupt } from './interrupts.ts';
import { interruptReturn } from './iret.ts';
import { farCall, farJump, farReturn } from './transfer.ts';

const LOW32 = 0xffff_ffffn;

// -- control transfer ---------------------------------------------------------------------------------

type FarTransfer = typeof farJump;

const farPointer =
  (transfer: FarTransfer): Helper =>
  (cpu, op) => {
    const pointer = BigInt.asUintN(64, op.immediate);
    transfer(cpu, Number((pointer >> 32n) & 0xffffn), pointer & LOW32, op.size);
  };

const farMemory =
  (transfer: FarTransfer): Helper =>
  (cpu, op) => {
    const linear = cpu.address(op, op.size + 2, false);
    const offset = cpu.load(linear, op.size);
    const selector = Number(cpu.load(linear + BigInt(op.size), 2));
    transfer(cpu, selector, offset, op.size);
  };

const retFar: Helper = (cpu, op) => farReturn(cpu, op.size, Number(op.immediate & 0xffffn));
const iret: Helper = (cpu, op) => {
  interruptReturn(cpu, op.size);
  if (cpu.u32(STATE.nmiBlocked) === 0) return;
  cpu.setU32(STATE.nmiBlocked, 0);
  cpu.requestStop(); // another one may wait
};
const int: Helper = (cpu, op) => softwareInterrupt(cpu, Number(op.immediate & 0xffn), 'software');
const int3: Helper = (cpu) => softwareInterrupt(cpu, VECTOR.BP, 'breakpoint');
const int1: Helper = (cpu) => softwareInterrupt(cpu, VECTOR.DB, 'privileged-software');
const into: Helper = (cpu) => {
  if (in64(cpu)) throw undefinedOpcode();
  if ((cpu.rflags & FLAG.OF) !== 0) softwareInterrupt(cpu, VECTOR.OF, 'breakpoint');
};

const bound: Helper = (cpu, op) => {
  if (in64(cpu)) throw undefinedOpcode();
  const { size } = op;
  const linear = cpu.address(op, size * 2, false);
  const signed = (value: bigint): bigint => BigInt.asIntN(size * 8, value);
  const index = signed(cpu.readRegister(op.a, size));
  const lower = signed(cpu.load(linear, size));
  const upper = signed(cpu.load(linear + BigInt(size), size));
  if (index < lower || index > upper) throw new GuestException(VECTOR.BR);
};

// -- idle and caches ------------------------------------------------------------------------------------

const hlt: Helper = (cpu) => {
  requireCpl0(cpu);
  cpu.platform.intercept(cpu, 'hlt');
  throw new VmExit('hlt', true);
};

/** Nothing is cached that memory does not hold: only privilege and interception matter. */
const cacheControl =
  (name: string): Helper =>
  (cpu) => {
    requireCpl0(cpu);
    cpu.platform.intercept(cpu, name);
  };

const pause: Helper = (cpu) => cpu.platform.intercept(cpu, 'pause');

/** MONITOR and MWAIT: #UD outside CPL 0 (APM vol. 3). MWAIT may end at any time; here at once. */
const monitor: Helper = (cpu, op) => {
  if (cpu.cpl !== 0) throw undefinedOpcode();
  cpu.platform.intercept(cpu, 'monitor');
  if (ecx(cpu) !== 0) throw generalProtection(0);
  const offset = cpu.readRegister(RAX * 8, op.addressSize);
  cpu.load(cpu.segmented(op.segment, offset, 1, false), 1);
};
const mwait: Helper = (cpu) => {
  if (cpu.cpl !== 0) throw undefinedOpcode();
  cpu.platform.intercept(cpu, 'mwait');
  if ((ecx(cpu) & ~1) !== 0) throw generalProtection(0);
};

// -- translations -----------------------------------------------------------------------------------------

/**
 * INVLPG: only the segment base counts, no limit and no canonical check. One piece of a large page is
 * enough: a changed table entry has dropped all translations made from it already (`tlb.ts`).
 */
const invlpg: Helper = (cpu, op) => {
  requireCpl0(cpu);
  const base = in64(cpu) && op.segment < FS ? 0n : cpu.segmentBase(op.segment);
  cpu.flushPage(base + cpu.effectiveAddress(op));
};

const invlpga: Helper = (cpu) => {
  if ((cpu.efer & EFER.SVME) === 0) throw undefinedOpcode();
  requireProtected(cpu);
  requireCpl0(cpu);
  throw new NotImplemented('INVLPGA: nested virtualization', { rip: cpu.rip });
};

/** APM vol. 3, INVPCID: the descriptor is PCID in bits 11:0, linear address in the upper quadword. */
const invpcid: Helper = (cpu, op) => {
  requireCpl0(cpu);
  const type = cpu.readRegister(op.a, in64(cpu) ? 8 : 4);
  const linear = cpu.address(op, 16, false);
  const pcid = cpu.load(linear, 8);
  const target = cpu.load(linear + 8n, 8);
  if (type > 3n) throw generalProtection(0);
  if (type <= 1n) {
    if (pcid >> 12n !== 0n) throw generalProtection(0);
    if ((cpu.cr4 & CR4.PCIDE) === 0 && pcid !== 0n) throw generalProtection(0);
    if (type === 0n && !isCanonical(target)) throw generalProtection(0);
  }
  if (type === 0n) cpu.flushPage(target);
  else cpu.flushTlb();
};

/** INVLPGB and TLBSYNC (APM vol. 3): #UD where the platform offers no broadcast. */
const invlpgb: Helper = (cpu) => {
  if (cpu.platform.broadcastFlush === undefined) throw undefinedOpcode();
  requireProtected(cpu);
  requireCpl0(cpu);
  cpu.platform.broadcastFlush(cpu);
};
const tlbsync: Helper = (cpu) => {
  if (cpu.platform.broadcastFlush === undefined) throw undefinedOpcode();
  requireProtected(cpu);
  requireCpl0(cpu);
  // A broadcast has reached every processor when INVLPGB retires: nothing is left to wait for.
};

// -- identification and random numbers ------------------------------------------------------------------------

const cpuid: Helper = (cpu) => {
  const leaf = Number(cpu.reg(RAX) & LOW32);
  const [eax, ebx, ecxOut, edx] = cpu.platform.cpuid(cpu, leaf, ecx(cpu));
  cpu.setReg(RAX, BigInt(eax >>> 0));
  cpu.setReg(RBX, BigInt(ebx >>> 0));
  cpu.setReg(RCX, BigInt(ecxOut >>> 0));
  cpu.setReg(RDX, BigInt(edx >>> 0));
};

const random: Helper = (cpu, op) => {
  cpu.writeRegister(op.a, op.size, BigInt.asUintN(op.size * 8, cpu.platform.random(cpu)));
  cpu.changeFlags(ARITHMETIC_FLAGS, FLAG.CF);
};

// -- SEV-SNP and SVM --------------------------------------------------------------------------------------

/** PVALIDATE, RMPADJUST, RMPQUERY: CPL 0, else #GP(0) (APM vol. 3). What they do is the platform's. */
const pvalidate: Helper = (cpu) => {
  requireCpl0(cpu);
  cpu.platform.pvalidate(cpu);
};
const rmpadjust: Helper = (cpu) => {
  requireSnpMode(cpu);
  cpu.platform.rmpadjust(cpu);
};
const rmpquery: Helper = (cpu) => {
  requireSnpMode(cpu);
  cpu.platform.rmpquery(cpu);
};
/** RMPADJUST and RMPQUERY are 64-bit only: #UD elsewhere. */
const requireSnpMode = (cpu: Cpu): void => {
  if (!in64(cpu)) throw undefinedOpcode();
  requireCpl0(cpu);
};
/** Any privilege; outside of an ES guest it is VMMCALL, which the platform knows. */
const vmgexit: Helper = (cpu) => cpu.platform.vmgexit(cpu);
/** A VMMCALL nobody intercepts is #UD (APM vol. 3). */
const vmmcall: Helper = (cpu) => {
  cpu.platform.intercept(cpu, 'vmmcall');
  throw undefinedOpcode();
};

// -- shadow stacks ------------------------------------------------------------------------------------------

/** Shadow stacks are on at this privilege: CR4.CET and SH_STK_EN of S_CET or U_CET (APM vol. 2, §18.2). */
const shadowStacksOn = (cpu: Cpu): boolean =>
  (cpu.cr4 & CR4.CET) !== 0 && (cpu.u32(cpu.cpl === 3 ? STATE.uCet : STATE.sCet) & 1) !== 0;

const rdssp: Helper = (cpu) => {
  // A NOP while shadow stacks are off (APM vol. 3, RDSSP).
  if (shadowStacksOn(cpu)) shadowStacks(cpu);
};
const shadowStack: Helper = (cpu) => {
  if (!shadowStacksOn(cpu)) throw undefinedOpcode();
  shadowStacks(cpu);
};
/** WRUSS writes user shadow stacks whether or not the supervisor has its own. */
const wruss: Helper = (cpu) => {
  if ((cpu.cr4 & CR4.CET) === 0) throw undefinedOpcode();
  requireCpl0(cpu);
  shadowStacks(cpu);
};
const shadowStacks = (cpu: Cpu): never => {
  throw new NotImplemented('shadow stacks (CET)', { rip: cpu.rip });
};

// -- what cannot be executed ----------------------------------------------------------------------------------

const ud: Helper = () => {
  throw undefinedOpcode();
};
const gp: Helper = () => {
  throw generalProtection(0);
};
const unimplemented: Helper = (cpu, op) => {
  throw new NotImplemented(`the instruction ${bytesOf(cpu, op)}`, { rip: cpu.rip });
};

/** The instruction's bytes in hex, for a message. */
function bytesOf(cpu: Cpu, op: OpView): string {
  const base = in64(cpu) ? 0n : cpu.segmentBase(1);
  const bytes: string[] = [];
  try {
    for (let i = 0; i < op.length; i++) {
      const at = cpu.translate(BigInt.asUintN(64, base + cpu.rip + BigInt(i)), 'execute');
      if (at === undefined) break;
      bytes.push(cpu.memory.u8[at]!.toString(16).padStart(2, '0'));
    }
  } catch (error) {
    if (!(error instanceof GuestException) && !(error instanceof VmExit)) throw error;
  }
  return bytes.length > 0 ? bytes.join(' ') : 'whose bytes cannot be read';
}

export const MISC_HELPERS: HelperTable = {
  far_jmp_ptr: farPointer(farJump),
  far_call_ptr: farPointer(farCall),
  far_jmp_mem: farMemory(farJump),
  far_call_mem: farMemory(farCall),
  ret_far: retFar,
  iret,
  int,
  int3,
  int1,
  into,
  bound,
  hlt,
  wbinvd: cacheControl('wbinvd'),
  wbnoinvd: cacheControl('wbinvd'),
  invd: cacheControl('invd'),
  pause,
  monitor,
  mwait,
  invlpg,
  invlpga,
  invpcid,
  invlpgb,
  tlbsync,
  cpuid,
  rdrand: random,
  rdseed: random,
  pvalidate,
  rmpadjust,
  rmpquery,
  vmgexit,
  vmmcall,
  rdssp,
  incssp: shadowStack,
  wrss: shadowStack,
  wruss,
  rstorssp: shadowStack,
  saveprevssp: shadowStack,
  setssbsy: shadowStack,
  clrssbsy: shadowStack,
  /** User interrupts do not exist on AMD processors. */
  clui: ud,
  stui: ud,
  ud,
  gp,
  unimplemented,
};
