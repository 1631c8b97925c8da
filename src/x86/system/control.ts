/** Control and debug registers (APM vol. 2, §3.1, §13.1; APM vol. 3, MOV CRn, MOV DRn, CLTS, LMSW, SMSW). */
import { NotImplemented } from '../../base/index.ts';
import { ATTRIBUTE } from '../cpu.ts';
import type { Cpu } from '../cpu.ts';
import { GuestException, VECTOR, generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { CS, STATE } from '../layout.ts';
import type { OpView } from '../opview.ts';
import { CR0, CR4, EFER } from './bits.ts';
import { in64, requireCpl0 } from './checks.ts';

const LOW32 = 0xffff_ffffn;
const CR0_WRITABLE = CR0.PE | CR0.MP | CR0.EM | CR0.TS | CR0.NE | CR0.WP | CR0.AM | CR0.NW | CR0.CD | CR0.PG;
/** CR4 bits this processor has; LA57 is not among them. */
const CR4_KNOWN =
  CR4.VME |
  CR4.PVI |
  CR4.TSD |
  CR4.DE |
  CR4.PSE |
  CR4.PAE |
  CR4.MCE |
  CR4.PGE |
  CR4.PCE |
  CR4.OSFXSR |
  CR4.OSXMMEXCPT |
  CR4.UMIP |
  CR4.FSGSBASE |
  CR4.PCIDE |
  CR4.OSXSAVE |
  CR4.SMEP |
  CR4.SMAP |
  CR4.PKE |
  CR4.CET;
/** Bits whose change invalidates translations (APM vol. 2, §5.5.3). */
const CR4_FLUSHES = CR4.PSE | CR4.PAE | CR4.PGE | CR4.PCIDE | CR4.SMEP | CR4.SMAP | CR4.PKE | CR4.CET;
const CR0_FLUSHES = CR0.PE | CR0.PG | CR0.WP;

/** CR0 with the mode switches that follow from it (APM vol. 2, §14.4 ff., §3.1.1). */
export function writeCr0(cpu: Cpu, value: bigint): void {
  if (value >> 32n !== 0n) throw generalProtection(0);
  const old = cpu.cr0;
  const next = ((Number(value) & CR0_WRITABLE) | CR0.ET) >>> 0;
  const paging = (next & CR0.PG) !== 0;
  const wasPaging = (old & CR0.PG) !== 0;
  if (paging && (next & CR0.PE) === 0) throw generalProtection(0);
  if ((next & CR0.NW) !== 0 && (next & CR0.CD) === 0) throw generalProtection(0);
  if ((next & CR0.WP) === 0 && (cpu.cr4 & CR4.CET) !== 0) throw generalProtection(0);
  let { efer } = cpu;
  if (paging && !wasPaging && (efer & EFER.LME) !== 0) {
    // Activating long mode (§14.6.1): PAE on, and not from a segment that would be 64-bit at once.
    if ((cpu.cr4 & CR4.PAE) === 0 || (cpu.attributes(CS) & ATTRIBUTE.L) !== 0) throw generalProtection(0);
    efer |= EFER.LMA;
  } else if (!paging && wasPaging) {
    // Leaving it is allowed from compatibility mode only (§14.7).
    if (in64(cpu) || (cpu.cr4 & CR4.PCIDE) !== 0) throw generalProtection(0);
    efer &= ~EFER.LMA;
  }
  cpu.setU64(STATE.cr0, BigInt(next));
  cpu.setU64(STATE.efer, BigInt(efer >>> 0));
  if (((old ^ next) & CR0.PE) !== 0) cpu.cpl = 0;
  cpu.updateMode();
  if (((old ^ next) & CR0_FLUSHES) !== 0) cpu.flushTlb();
}

/** CR3: bits above the physical address width are MBZ in long mode (§5.3.2), but for the C-bit. */
export function writeCr3(cpu: Cpu, value: bigint): void {
  if (cpu.longMode) {
    const { physicalAddressBits, encryptionBit } = cpu.platform;
    let allowed = (1n << BigInt(physicalAddressBits)) - 1n;
    if (encryptionBit !== undefined) allowed |= 1n << BigInt(encryptionBit);
    // With PCIDs bit 63 asks to keep translations; dropping them all is always right (§5.5.1).
    if ((cpu.cr4 & CR4.PCIDE) !== 0) value &= ~(1n << 63n);
    if ((value & ~allowed) !== 0n) throw generalProtection(0);
  }
  cpu.setU64(STATE.cr3, value);
  cpu.flushTlb();
}

export function writeCr4(cpu: Cpu, value: bigint): void {
  if ((value & ~BigInt(CR4_KNOWN)) !== 0n) throw generalProtection(0);
  const next = Number(value);
  const old = cpu.cr4;
  if (cpu.longMode && (next & CR4.PAE) === 0) throw generalProtection(0);
  // PCIDE can be set only in long mode and with CR3[11:0] clear (§3.1.3).
  if (
    (next & CR4.PCIDE) !== 0 &&
    (old & CR4.PCIDE) === 0 &&
    (!cpu.longMode || (cpu.u32(STATE.cr3) & 0xfff) !== 0)
  )
    throw generalProtection(0);
  if ((next & CR4.CET) !== 0 && (cpu.cr0 & CR0.WP) === 0) throw generalProtection(0);
  cpu.setU64(STATE.cr4, value);
  cpu.updateMode();
  if (((old ^ next) & CR4_FLUSHES) !== 0) cpu.flushTlb();
}

const registerSize = (cpu: Cpu): number => (in64(cpu) ? 8 : 4);

const movToCr: Helper = (cpu, op) => {
  const index = op.a;
  if (index !== 0 && index !== 2 && index !== 3 && index !== 4 && index !== 8) throw undefinedOpcode();
  requireCpl0(cpu);
  const value = cpu.readRegister(op.b, registerSize(cpu));
  switch (index) {
    case 0:
      writeCr0(cpu, value);
      return;
    case 2:
      cpu.setU64(STATE.cr2, value);
      return;
    case 3:
      writeCr3(cpu, value);
      return;
    case 4:
      writeCr4(cpu, value);
      return;
    default:
      if (value > 15n) throw generalProtection(0);
      cpu.setU64(STATE.cr8, value);
  }
};

const CR_FIELDS = new Map<number, number>([
  [0, STATE.cr0],
  [2, STATE.cr2],
  [3, STATE.cr3],
  [4, STATE.cr4],
  [8, STATE.cr8],
]);

const movFromCr: Helper = (cpu, op) => {
  const field = CR_FIELDS.get(op.b);
  if (field === undefined) throw undefinedOpcode();
  requireCpl0(cpu);
  cpu.writeRegister(op.a, registerSize(cpu), cpu.u64(field));
};

// -- debug registers --------------------------------------------------------------------------------

const DR_FIELDS = [STATE.dr0, STATE.dr1, STATE.dr2, STATE.dr3, 0, 0, STATE.dr6, STATE.dr7];
const DR6_BD = 0x2000n;
const DR7_GD = 0x2000n;

/** DR4 and DR5 are DR6 and DR7, unless CR4.DE makes them undefined (§13.1.1). */
function debugIndex(cpu: Cpu, index: number): number {
  if (index > 7) throw undefinedOpcode();
  if (index !== 4 && index !== 5) return index;
  if ((cpu.cr4 & CR4.DE) !== 0) throw undefinedOpcode();
  return index + 2;
}

function checkDebugAccess(cpu: Cpu): void {
  requireCpl0(cpu);
  if ((cpu.u64(STATE.dr7) & DR7_GD) === 0n) return;
  cpu.setU64(STATE.dr6, cpu.u64(STATE.dr6) | DR6_BD);
  throw new GuestException(VECTOR.DB);
}

const movFromDr: Helper = (cpu, op) => {
  const index = debugIndex(cpu, op.b);
  checkDebugAccess(cpu);
  if (index === 7) cpu.platform.intercept(cpu, 'mov_dr7_read');
  cpu.writeRegister(op.a, registerSize(cpu), cpu.u64(DR_FIELDS[index]!));
};

const movToDr: Helper = (cpu, op) => {
  const index = debugIndex(cpu, op.a);
  checkDebugAccess(cpu);
  const value = cpu.readRegister(op.b, registerSize(cpu));
  if (index >= 6 && value >> 32n !== 0n) throw generalProtection(0);
  if (index === 7) {
    cpu.platform.intercept(cpu, 'mov_dr7_write');
    if ((value & 0xffn) !== 0n)
      throw new NotImplemented('breakpoints in the debug registers (DR7 enables one)', { rip: cpu.rip });
    cpu.setU64(STATE.dr7, (value & 0xffff_2bffn) | 0x400n);
  } else if (index === 6) cpu.setU64(STATE.dr6, (value & ~0x1000n & LOW32) | 0xffff_0ff0n);
  else cpu.setU64(DR_FIELDS[index]!, value);
};

// -- machine status word ------------------------------------------------------------------------------

const clts: Helper = (cpu) => {
  requireCpl0(cpu);
  cpu.setU64(STATE.cr0, BigInt((cpu.cr0 & ~CR0.TS) >>> 0));
};

const lmsw: Helper = (cpu, op) => {
  requireCpl0(cpu);
  const value = Number(op.isRegister ? cpu.readRegister(op.b, 2) : cpu.load(cpu.address(op, 2, false), 2));
  // Loads PE, MP, EM and TS; PE can be set, not cleared.
  const next = (cpu.cr0 & ~0xe) | (value & 0xf);
  writeCr0(cpu, BigInt(next >>> 0));
};

export const requireUmip = (cpu: Cpu): void => {
  if ((cpu.cr4 & CR4.UMIP) !== 0 && cpu.cpl !== 0) throw generalProtection(0);
};

/** Stores a 16-bit value in memory, or zero-extended in a register (SLDT, STR, SMSW). */
export function storeWord(cpu: Cpu, op: OpView, value: bigint): void {
  if (op.isRegister) cpu.writeRegister(op.a, op.size, value);
  else cpu.store(cpu.address(op, 2, true), 2, value & 0xffffn);
}

const smsw: Helper = (cpu, op) => {
  requireUmip(cpu);
  storeWord(cpu, op, BigInt(cpu.cr0 >>> 0));
};

export const CONTROL_HELPERS = {
  mov_to_cr: movToCr,
  mov_from_cr: movFromCr,
  mov_to_dr: movToDr,
  mov_from_dr: movFromDr,
  clts,
  lmsw,
  smsw,
};
