/**
 * The software TLB: the one place where an access is decided. A fill asks the page walk and the
 * platform, and caches what both permit; generated code then needs one compare and one add.
 *
 * A write tag is withheld while the page table entry's dirty bit is clear, and while the frame holds
 * decoded instructions or page tables that translations hang on, so that the first such write comes
 * here. A changed table entry thus drops its translations at once: what is cached never shows, and a
 * run from a checkpoint, whose TLB is empty, sets the same A and D bits as a straight one.
 */
import { isCanonical } from './cpu.ts';
import type { Cpu, Privilege } from './cpu.ts';
import { GuestException, VECTOR } from './exceptions.ts';
import {
  CONTEXT,
  FLAG,
  MODE,
  RSP,
  SS,
  STATE,
  TLB_ENTRIES,
  TLB_ENTRY_SIZE,
  TLB_SETS,
  TLB_SET_SIZE,
} from './layout.ts';
import { MICRO_OP } from './microop.ts';
import type { MachineMemory } from './memory.ts';
import type { Access, DevicePage } from './platform.ts';
import { permissions, walk } from './system/paging.ts';

const CR4_LA57 = 1 << 12;
const CR4_SMAP = 1 << 21;
const INVALID = 1n;
/**
 * Words of an entry: the low half of its write tag, and behind the three tags the addend that makes
 * a host offset of the low half of a linear address, and the frame of the last-level page table.
 */
const WRITE_TAG = 2;
const ADDEND = 6;
const LAST_TABLE = 7;
const TAG = { read: 0, write: 1, execute: 2 } as const;

const USER = 0;
const SUPERVISOR = 1;
const SUPERVISOR_AC = 2;

/** Offset, inside a context, of the TLB set that the current privilege uses. */
export function tlbSetFor(cpu: Cpu): number {
  if (cpu.cpl === 3) return CONTEXT.tlb + USER * TLB_SET_SIZE;
  const open = (cpu.cr4 & CR4_SMAP) === 0 || (cpu.u32(STATE.systemFlags) & FLAG.AC) !== 0;
  return CONTEXT.tlb + (open ? SUPERVISOR_AC : SUPERVISOR) * TLB_SET_SIZE;
}

function setFor(cpu: Cpu, privilege: Privilege): number {
  if (privilege === 'current') return cpu.u32(STATE.tlb);
  // The processor's own accesses never profit from RFLAGS.AC (APM vol. 2, §5.6.6).
  const set = (cpu.cr4 & CR4_SMAP) === 0 ? SUPERVISOR_AC : SUPERVISOR;
  return cpu.base + CONTEXT.tlb + set * TLB_SET_SIZE;
}

const entryIndex = (linear: bigint): number => Number((linear >> 12n) & BigInt(TLB_ENTRIES - 1));

/** The contexts that have translations in a memory: a changed page table concerns all of them. */
const contexts = new WeakMap<MachineMemory, Set<Cpu>>();

function register(cpu: Cpu): void {
  const { memory } = cpu;
  let known = contexts.get(memory);
  if (!known) {
    const all = new Set<Cpu>();
    contexts.set(memory, (known = all));
    memory.onTableRead = (frame) => {
      for (const each of all) dropWriteGrants(each, frame);
    };
    memory.onTableWrite = (frame, upper) => {
      for (const each of all)
        if (upper) flushAll(each);
        else dropTranslations(each, frame);
    };
  }
  known.add(cpu);
}

export function flushAll(cpu: Cpu): void {
  register(cpu);
  // All ones is no page address: one fill instead of three stores an entry.
  const start = cpu.base + CONTEXT.tlb;
  cpu.memory.u8.fill(0xff, start, start + TLB_SETS * TLB_SET_SIZE);
  cpu.flushJumps();
}

export function flushPage(cpu: Cpu, linear: bigint): void {
  for (let set = 0; set < TLB_SETS; set++) {
    const at = cpu.base + CONTEXT.tlb + set * TLB_SET_SIZE + entryIndex(linear) * TLB_ENTRY_SIZE;
    cpu.memory.u64.fill(INVALID, at / 8, at / 8 + 3);
  }
  cpu.flushJumps();
}

/** Drops the translations whose last-level table entry lies in a frame. */
function dropTranslations(cpu: Cpu, table: number): void {
  const { u32, u64 } = cpu.memory;
  const start = cpu.base + CONTEXT.tlb;
  let found = false;
  for (let at = start; at < start + TLB_SETS * TLB_SET_SIZE; at += TLB_ENTRY_SIZE)
    if (u32[at / 4 + LAST_TABLE] === table) {
      u64.fill(INVALID, at / 8, at / 8 + 3);
      u32[at / 4 + LAST_TABLE] = 0;
      found = true;
    }
  if (found) cpu.flushJumps();
}

/** Withdraws every cached write permission on a frame: decoded code or translations are about to hang on it. */
export function dropWriteGrants(cpu: Cpu, frame: number): void {
  const { u32, u64 } = cpu.memory;
  const start = cpu.base + CONTEXT.tlb;
  for (let at = start; at < start + TLB_SETS * TLB_SET_SIZE; at += TLB_ENTRY_SIZE)
    // An invalid tag is not page-aligned, so its sum is no frame.
    if ((u32[at / 4 + ADDEND]! + u32[at / 4 + WRITE_TAG]!) >>> 0 === frame) u64[at / 8 + 1] = INVALID;
}

/** What a missed access reached: a byte of a frame, or a device. */
interface Reached {
  host: number;
  device: DevicePage | undefined;
  gpa: number;
}
const reached: Reached = { host: 0, device: undefined, gpa: 0 };

/** A non-canonical operand of the stack segment raises #SS where others raise #GP (APM vol. 2, §8.2.12). */
function checkStackAddress(cpu: Cpu, linear: bigint): void {
  if (isCanonical(linear) || (cpu.cr4 & CR4_LA57) !== 0 || cpu.mode !== MODE.code64) return;
  const op = cpu.u32(STATE.currentOp);
  if (op === 0) return;
  // PUSH and POP of a memory operand have two: the stack's own is the one just at RSP.
  const atStack = BigInt.asUintN(64, linear + 8n - cpu.reg(RSP)) <= 8n;
  if (atStack || cpu.memory.u8[op + MICRO_OP.segment] === SS) throw new GuestException(VECTOR.SS, 0);
}

/** Decides an access; the result is in `reached` until the next call. */
function fill(cpu: Cpu, linear: bigint, access: Access, privilege: Privilege): Reached {
  const offset = Number(linear & 0xfffn);
  if (privilege === 'current' && access !== 'execute') checkStackAddress(cpu, linear);
  const translation = walk(cpu, linear, access, privilege);
  const user = privilege === 'current' && cpu.cpl === 3;
  const page = cpu.platform.page(cpu, {
    gpa: translation.gpa,
    encrypted: translation.encrypted,
    access,
    user,
    pageTable: false,
    linear,
  });
  if ('device' in page) {
    reached.host = 0;
    reached.device = page;
    reached.gpa = translation.gpa + offset;
    return reached;
  }
  const { frame } = page;
  reached.host = frame + offset;
  reached.device = undefined;
  reached.gpa = translation.gpa + offset;
  if (access === 'write') {
    const table = cpu.memory.isTable(frame);
    cpu.memory.aboutToWrite(frame);
    // This write may change the very tables that were just walked: nothing of the walk is kept.
    if (table) return reached;
  }
  const at = setFor(cpu, privilege) + entryIndex(linear) * TLB_ENTRY_SIZE;
  const tag = linear - BigInt(offset);
  const { u32, u64 } = cpu.memory;
  // What the same walk allows beyond this access is cached with it, each under its own tag.
  const allowed = permissions(cpu, translation, privilege);
  const readable = page.read && allowed.read;
  const writable = page.write && allowed.write && !cpu.memory.isCode(frame) && !cpu.memory.isTable(frame);
  const executable = allowed.execute && (user ? page.executeUser : page.execute);
  u64[at / 8 + TAG.read] = readable ? tag : INVALID;
  u64[at / 8 + TAG.write] = writable ? tag : INVALID;
  u64[at / 8 + TAG.execute] = executable ? tag : INVALID;
  u32[at / 4 + ADDEND] = frame - Number(tag & 0xffff_ffffn);
  u32[at / 4 + LAST_TABLE] = translation.table;
  return reached;
}

function reach(cpu: Cpu, linear: bigint, access: Access, privilege: Privilege): Reached {
  const at = setFor(cpu, privilege) + entryIndex(linear) * TLB_ENTRY_SIZE;
  if (cpu.memory.u64[at / 8 + TAG[access]] === (linear & ~0xfffn)) {
    reached.host = (cpu.memory.u32[at / 4 + ADDEND]! + Number(linear & 0xffff_ffffn)) >>> 0;
    reached.device = undefined;
    return reached;
  }
  return fill(cpu, linear, access, privilege);
}

/**
 * Byte offset in machine memory of the byte at a linear address, or undefined for a device. Asking
 * for 'write' announces the write: decoded code on the frame is dropped.
 */
export function lookup(cpu: Cpu, linear: bigint, access: Access, privilege: Privilege): number | undefined {
  const { host, device } = reach(cpu, linear, access, privilege);
  return device ? undefined : host;
}

const crossesPage = (linear: bigint, size: number): boolean => Number(linear & 0xfffn) + size > 4096;

export function slowLoad(
  cpu: Cpu,
  linear: bigint,
  size: number,
  privilege: Privilege,
  forWrite: boolean,
): bigint {
  const access: Access = forWrite ? 'write' : 'read';
  if (crossesPage(linear, size)) {
    const first = 4096 - Number(linear & 0xfffn);
    const next = BigInt.asUintN(64, linear + BigInt(first));
    const low = lookup(cpu, linear, access, privilege);
    const high = lookup(cpu, next, access, privilege);
    if (low === undefined || high === undefined) return loadBytes(cpu, linear, size, privilege);
    // Both pages are checked before a byte is read; a second fill may have evicted nothing we hold.
    let value = 0n;
    for (let i = size - 1; i >= 0; i--)
      value = (value << 8n) | BigInt(cpu.memory.u8[i < first ? low + i : high + i - first]!);
    return value;
  }
  const { host, device, gpa } = reach(cpu, linear, access, privilege);
  if (device) return BigInt.asUintN(size * 8, device.read(gpa, size));
  const { view } = cpu.memory;
  switch (size) {
    case 1:
      return BigInt(view.getUint8(host));
    case 2:
      return BigInt(view.getUint16(host, true));
    case 4:
      return BigInt(view.getUint32(host, true));
    default:
      return view.getBigUint64(host, true);
  }
}

export function slowStore(cpu: Cpu, linear: bigint, size: number, value: bigint, privilege: Privilege): void {
  if (crossesPage(linear, size)) {
    const first = 4096 - Number(linear & 0xfffn);
    const next = BigInt.asUintN(64, linear + BigInt(first));
    const low = lookup(cpu, linear, 'write', privilege);
    const high = lookup(cpu, next, 'write', privilege);
    if (low === undefined || high === undefined) {
      for (let i = 0; i < size; i++)
        slowStore(cpu, BigInt.asUintN(64, linear + BigInt(i)), 1, value >> BigInt(8 * i), privilege);
      return;
    }
    for (let i = 0; i < size; i++)
      cpu.memory.u8[i < first ? low + i : high + i - first] = Number((value >> BigInt(8 * i)) & 0xffn);
    return;
  }
  const { host, device, gpa } = reach(cpu, linear, 'write', privilege);
  if (device) {
    device.write(gpa, size, BigInt.asUintN(size * 8, value));
    return;
  }
  const { view } = cpu.memory;
  switch (size) {
    case 1:
      view.setUint8(host, Number(value & 0xffn));
      return;
    case 2:
      view.setUint16(host, Number(value & 0xffffn), true);
      return;
    case 4:
      view.setUint32(host, Number(value & 0xffff_ffffn), true);
      return;
    default:
      view.setBigUint64(host, BigInt.asUintN(64, value), true);
  }
}

/** An access across the edge of a device page: both pages have been checked, each byte goes its own way. */
function loadBytes(cpu: Cpu, linear: bigint, size: number, privilege: Privilege): bigint {
  let value = 0n;
  for (let i = size - 1; i >= 0; i--)
    value = (value << 8n) | slowLoad(cpu, BigInt.asUintN(64, linear + BigInt(i)), 1, privilege, false);
  return value;
}
