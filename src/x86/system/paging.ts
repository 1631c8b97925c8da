/**
 * Linear to guest-physical: the page walk (APM vol. 2, chapter 5), with every permission the tables
 * give and every fault they can raise. Nothing is cached here; not-present translations never are.
 *
 * In an encrypted guest (APM vol. 2, §15.34.5) page tables, instruction fetches and every access
 * made without PAE tables (paging off, 32-bit tables) are private whatever the C-bit says.
 */
import { NotImplemented } from '../../base/index.ts';
import { isCanonical } from '../cpu.ts';
import type { Cpu, Privilege } from '../cpu.ts';
import { GuestException, PF, VECTOR, VmExit } from '../exceptions.ts';
import { FLAG, STATE } from '../layout.ts';
import type { Access } from '../platform.ts';
import { CR0, CR4, EFER } from './bits.ts';

/** A translation of one 4 KiB page. */
export interface Walk {
  /** Guest-physical address of the 4 KiB page, C-bit removed. */
  readonly gpa: number;
  /** The access is private (C-bit of the leaf entry, or private by its nature). */
  readonly encrypted: boolean;
  /** R/W of every level. */
  readonly writable: boolean;
  /** U/S of every level. */
  readonly user: boolean;
  /** No level has NX (or NX is off). */
  readonly executable: boolean;
  /** D is set in the leaf entry: without it a write must walk again. */
  readonly dirty: boolean;
  readonly global: boolean;
  /** Size of the page mapped, in bytes: 4 KiB, 2 MiB, 4 MiB or 1 GiB. */
  readonly pageSize: number;
  /** Memory protection key of the leaf (0 where there is none). */
  readonly protectionKey: number;
  /** What this translation serves: data, a fetch, or both when they agree on `encrypted`. */
  readonly serves: 'data' | 'fetch' | 'both';
  /** Byte offset in machine memory of the frame the last table entry lies in; 0 while unpaged. */
  readonly table: number;
}

/** What a TLB entry made from a walk may grant, for one privilege, in the processor's present mode. */
export interface Permissions {
  readonly read: boolean;
  readonly write: boolean;
  readonly execute: boolean;
}

export interface WalkOptions {
  /** A debugger's look: sets no A or D bit, raises nothing, and ignores permissions. */
  readonly peek?: boolean;
}

const PTE_P = 1;
const PTE_RW = 2;
const PTE_US = 4;
const PTE_A = 0x20;
const PTE_D = 0x40;
const PTE_PS = 0x80;
const PTE_G = 0x100;
const HIGH = 0x1_0000_0000;

/** Entries passed on the way, for the A and D bits: their address, low half, and frame. */
const entryGpa = new Float64Array(5);
const entryLow = new Uint32Array(5);
const entryFrame = new Uint32Array(5);

/** The tables are 64-bit entries (PAE or long mode); otherwise 32-bit ones. */
const levelsOf = (cpu: Cpu): number => {
  if ((cpu.efer & EFER.LMA) !== 0) return (cpu.cr4 & CR4.LA57) !== 0 ? 5 : 4;
  return (cpu.cr4 & CR4.PAE) !== 0 ? 3 : 2;
};

/**
 * Translates one linear address.
 *
 * @throws GuestException #PF with its error code and address, or #GP(0) for a non-canonical address;
 *   whatever the platform raises for the page tables themselves.
 */
export function walk(cpu: Cpu, linear: bigint, access: Access, privilege: Privilege): Walk;
export function walk(
  cpu: Cpu,
  linear: bigint,
  access: Access,
  privilege: Privilege,
  options: WalkOptions,
): Walk | undefined;
export function walk(
  cpu: Cpu,
  linear: bigint,
  access: Access,
  privilege: Privilege,
  options?: WalkOptions,
): Walk | undefined {
  if (options?.peek !== true) return translate(cpu, linear, access, privilege, false);
  try {
    return translate(cpu, linear, access, privilege, true);
  } catch (error) {
    if (error instanceof GuestException || error instanceof VmExit) return undefined;
    throw error;
  }
}

function translate(cpu: Cpu, linear: bigint, access: Access, privilege: Privilege, peek: boolean): Walk {
  const encryptionBit = cpu.platform.encryptionBit;
  const low = Number(linear & 0xffff_ffffn);
  if ((cpu.cr0 & CR0.PG) === 0) {
    return {
      gpa: (low & ~0xfff) >>> 0,
      encrypted: encryptionBit !== undefined,
      writable: true,
      user: true,
      executable: true,
      dirty: true,
      global: false,
      pageSize: 4096,
      protectionKey: 0,
      serves: 'both',
      table: 0,
    };
  }
  const levels = levelsOf(cpu);
  const high = levels >= 4 ? Number((linear >> 32n) & 0xffff_ffffn) : 0;
  if (levels === 4 && !isCanonical(linear)) throw new GuestException(VECTOR.GP, 0);

  const user = privilege === 'current' && cpu.cpl === 3;
  const nxe = levels >= 3 && (cpu.efer & EFER.NXE) !== 0;
  let code = (access === 'write' ? PF.W : 0) | (user ? PF.U : 0);
  // I/D is defined while NX or SMEP is on (APM vol. 2, §8.4.2).
  if (access === 'execute' && (nxe || (cpu.cr4 & CR4.SMEP) !== 0)) code |= PF.I;
  const fault = (more: number): GuestException => new GuestException(VECTOR.PF, code | more, linear);

  // The entry's bits that are an address, and those that must be zero above it (APM vol. 2, §5.3.3,
  // figure 5-17 ff.; the C-bit is not reserved wherever it stands, §15.34.1).
  const bits = Math.min(cpu.platform.physicalAddressBits, 52);
  let addressHigh = bits > 32 ? 2 ** (bits - 32) - 1 : 0;
  let reservedHigh = 0xfffff & ~addressHigh;
  let cHigh = 0;
  if (encryptionBit !== undefined && encryptionBit >= 32) {
    cHigh = (1 << (encryptionBit - 32)) >>> 0;
    addressHigh &= ~cHigh;
    reservedHigh &= ~cHigh;
  }
  // Bits 62:52 are available to software in long mode, MBZ in legacy PAE entries (§5.2.3).
  if (levels === 3) reservedHigh |= 0x7ff0_0000;
  if (levels >= 3 && !nxe) reservedHigh |= 0x8000_0000;

  const cr3Low = cpu.u32(STATE.cr3);
  let table: number;
  if (levels >= 4) table = (cpu.u32(STATE.cr3 + 4) & addressHigh) * HIGH + ((cr3Low & ~0xfff) >>> 0);
  else table = (levels === 3 ? cr3Low & ~0x1f : cr3Low & ~0xfff) >>> 0;

  let writable = true;
  let userPage = true;
  let noExecute = false;
  let entryHigh = 0;
  let lowHalf = 0;
  let level = levels;
  let depth = 0;
  let pageSize = 4096;
  for (; ; level--) {
    let gpa: number;
    if (levels === 2) gpa = table + (level === 2 ? low >>> 22 : (low >>> 12) & 0x3ff) * 4;
    else gpa = table + tableIndex(level, low, high) * 8;
    const at = entryAddress(cpu, gpa, linear, 'read', peek);
    lowHalf = cpu.memory.view.getUint32(at, true);
    entryHigh = levels === 2 ? 0 : cpu.memory.view.getUint32(at + 4, true);
    if ((lowHalf & PTE_P) === 0) throw fault(0);
    const pdpt = levels === 3 && level === 3;
    const large =
      level > 1 &&
      (lowHalf & PTE_PS) !== 0 &&
      (levels !== 2 ? level <= 3 : (cpu.cr4 & CR4.PSE) !== 0) &&
      !pdpt;
    if (levels === 2) {
      // 4 MiB page: bits 20:13 are address bits 39:32, bit 21 is reserved (§5.2.2).
      if (large && (lowHalf & 0x20_0000) !== 0) throw fault(PF.P | PF.RSVD);
    } else {
      let reservedLow = 0;
      if (pdpt)
        reservedLow = 0x1e6; // 8:5 and 2:1 (figure 5-11)
      else if (large)
        reservedLow = level === 3 ? 0x3fff_e000 : 0x1f_e000; // below the page's base, above PAT
      else if (level >= 4)
        reservedLow = PTE_PS | PTE_G; // 8:7 MBZ in PML4E and PML5E (figure 5-21)
      else if (level === 3) reservedLow = PTE_G; // bit 8 MBZ in a PDPE that names a table (figure 5-22)
      const reserved = pdpt ? reservedHigh | 0x8000_0000 : reservedHigh;
      if ((entryHigh & reserved) !== 0 || (lowHalf & reservedLow) !== 0) throw fault(PF.P | PF.RSVD);
    }
    entryGpa[depth] = gpa;
    entryLow[depth] = lowHalf;
    entryFrame[depth] = at - (at % 4096);
    depth++;
    if (!pdpt) {
      writable &&= (lowHalf & PTE_RW) !== 0;
      userPage &&= (lowHalf & PTE_US) !== 0;
      noExecute ||= nxe && entryHigh >>> 31 !== 0;
    }
    if (level === 1 || large) {
      if (large) pageSize = levels === 2 ? 0x40_0000 : level === 2 ? 0x20_0000 : 0x4000_0000;
      break;
    }
    table = (entryHigh & addressHigh) * HIGH + ((lowHalf & ~0xfff) >>> 0);
  }

  let base: number;
  if (levels === 2 && pageSize !== 4096)
    base = ((lowHalf >>> 13) & 0xff) * HIGH + ((lowHalf & 0xffc0_0000) >>> 0);
  else base = (entryHigh & addressHigh) * HIGH + ((lowHalf & ~(pageSize - 1)) >>> 0);
  const offset = (low & (pageSize - 1) & ~0xfff) >>> 0;
  const cBit = encryptionBit !== undefined && (levels === 2 || (entryHigh & cHigh) !== 0);
  const fetch = access === 'execute';
  const split = encryptionBit !== undefined && !cBit;
  const result = {
    gpa: base + offset,
    encrypted: fetch ? encryptionBit !== undefined : cBit,
    writable,
    user: userPage,
    executable: !noExecute,
    dirty: (lowHalf & PTE_D) !== 0,
    global: (lowHalf & PTE_G) !== 0 && (cpu.cr4 & CR4.PGE) !== 0,
    pageSize,
    protectionKey: levels >= 4 ? (entryHigh >>> 27) & 0xf : 0,
    serves: split ? (fetch ? 'fetch' : 'data') : 'both',
    table: entryFrame[depth - 1]!,
  } as const;
  if (peek) return result;

  const refused = refusal(cpu, result, access, user, supervisorSeesUser(cpu, privilege));
  if (refused !== undefined) throw fault(PF.P | refused);

  // What is cached of this walk hangs on the tables it read.
  for (let i = 0; i < depth; i++) cpu.memory.markTable(entryFrame[i]!, i < depth - 1);

  // Accessed in every level, dirty in the leaf for a write (§5.4.2). Only now: a refused access
  // leaves the tables as they are.
  for (let i = 0; i < depth; i++) {
    if (levels === 3 && i === 0) continue; // a PDPE of legacy PAE has no A bit
    let wanted = entryLow[i]! | PTE_A;
    if (i === depth - 1 && access === 'write') wanted |= PTE_D;
    if (wanted >>> 0 === entryLow[i]!) continue;
    const at = entryAddress(cpu, entryGpa[i]!, linear, 'write', false);
    // The processor's own update: it invalidates no translation, only instructions decoded from the table.
    const frame = at - (at % 4096);
    if (cpu.memory.isCode(frame)) cpu.memory.onCodeWrite(frame);
    cpu.memory.view.setUint32(at, cpu.memory.view.getUint32(at, true) | (wanted & (PTE_A | PTE_D)), true);
  }
  return access === 'write' && !result.dirty ? { ...result, dirty: true } : result;
}

function tableIndex(level: number, low: number, high: number): number {
  switch (level) {
    case 5:
      return (high >>> 16) & 0x1ff;
    case 4:
      return (high >>> 7) & 0x1ff;
    case 3:
      return ((high & 0x7f) << 2) | (low >>> 30);
    case 2:
      return (low >>> 21) & 0x1ff;
    default:
      return (low >>> 12) & 0x1ff;
  }
}

/** Byte offset in machine memory of a page-table entry. */
function entryAddress(
  cpu: Cpu,
  gpa: number,
  linear: bigint,
  access: 'read' | 'write',
  peek: boolean,
): number {
  const offset = gpa % 4096;
  const encrypted = cpu.platform.encryptionBit !== undefined;
  const page = gpa - offset;
  const grant = cpu.platform.page(
    cpu,
    peek
      ? { gpa: page, encrypted, access, user: false, pageTable: true, linear, peek }
      : { gpa: page, encrypted, access, user: false, pageTable: true, linear },
  );
  if ('device' in grant)
    throw new NotImplemented('page tables in device memory', { gpa: BigInt(gpa), rip: cpu.rip });
  return grant.frame + offset;
}

/**
 * Data accesses of this privilege may touch user pages: SMAP off, or RFLAGS.AC with an explicit
 * access. Implicit ones (descriptor tables, TSS) ignore AC (APM vol. 2, §5.6.6).
 */
function supervisorSeesUser(cpu: Cpu, privilege: Privilege): boolean {
  if ((cpu.cr4 & CR4.SMAP) === 0) return true;
  return privilege === 'current' && (cpu.u32(STATE.systemFlags) & FLAG.AC) !== 0;
}

/** undefined if permitted, else what the #PF error code adds beside P, W, U and I. */
function refusal(cpu: Cpu, page: Walk, access: Access, user: boolean, seesUser: boolean): number | undefined {
  if (user && !page.user) return 0;
  if (access === 'execute') {
    if (!page.executable) return 0;
    // SMEP (§5.6.5).
    return !user && page.user && (cpu.cr4 & CR4.SMEP) !== 0 ? 0 : undefined;
  }
  if (!user && page.user && !seesUser) return 0;
  if (access === 'write' && !page.writable && (user || (cpu.cr0 & CR0.WP) !== 0)) return 0;
  // Protection keys: user pages, data accesses, long mode (§5.6.7).
  if (page.user && (cpu.cr4 & CR4.PKE) !== 0 && cpu.longMode) {
    const rights = (cpu.u32(STATE.pkru) >>> (page.protectionKey * 2)) & 3;
    if ((rights & 1) !== 0) return PF.PK;
    if (access === 'write' && (rights & 2) !== 0 && (user || (cpu.cr0 & CR0.WP) !== 0)) return PF.PK;
  }
  return undefined;
}

/**
 * Everything a translation permits in the processor's present state, so that one walk fills all tags
 * of a TLB entry. A write waits for the D bit; a fetch and a data access of a page mapped shared in
 * an encrypted guest are different frames and never granted by one walk.
 */
export function permissions(cpu: Cpu, page: Walk, privilege: Privilege = 'current'): Permissions {
  if ((cpu.cr0 & CR0.PG) === 0) return { read: true, write: true, execute: true };
  const user = privilege === 'current' && cpu.cpl === 3;
  const sees = supervisorSeesUser(cpu, privilege);
  const allowed = (access: Access): boolean => refusal(cpu, page, access, user, sees) === undefined;
  const data = page.serves !== 'fetch';
  return {
    read: data && allowed('read'),
    write: data && page.dirty && allowed('write'),
    execute: page.serves !== 'data' && allowed('execute'),
  };
}
