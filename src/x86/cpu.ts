/**
 * One processor context (a vCPU at one VMPL) as TypeScript sees it: named access to the bytes that
 * the generated interpreter works on, and memory access by linear address. Helpers are written
 * against this class. 64-bit values are bigint here; none of this runs for a hot instruction.
 */
import {
  FLAG,
  ARITHMETIC_FLAGS,
  CONTEXT,
  CS,
  JUMP_ENTRIES,
  JUMP_ENTRY_SIZE,
  MODE,
  SS,
  STATE,
  gpr,
  segment,
} from './layout.ts';
import type { Mode } from './layout.ts';
import type { MachineMemory } from './memory.ts';
import type { Access, Platform } from './platform.ts';
import type { OpView } from './opview.ts';
import { GuestException, VECTOR } from './exceptions.ts';
import { flushAll, flushPage, lookup, slowLoad, slowStore, tlbSetFor } from './tlb.ts';

const MASK64 = 0xffff_ffff_ffff_ffffn;

const EMPTY_JUMPS = new BigUint64Array((JUMP_ENTRIES * JUMP_ENTRY_SIZE) / 8).map((_, i) =>
  i % 2 === 0 ? MASK64 : 0n,
);

/** Hidden part of a segment register, as the VMSA keeps it. */
export interface SegmentState {
  selector: number;
  /** type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11. */
  attributes: number;
  /** In bytes. */
  limit: number;
  base: bigint;
}

/** Attribute bits of `SegmentState.attributes`. */
export const ATTRIBUTE = {
  accessed: 1,
  readWrite: 2,
  expandDown: 4,
  conforming: 4,
  code: 8,
  S: 0x10,
  P: 0x80,
  L: 0x200,
  DB: 0x400,
  G: 0x800,
} as const;

/** Whose privilege an access has: the code's own CPL, or the processor's own (descriptor tables, TSS). */
export type Privilege = 'current' | 'system';

export class Cpu {
  readonly memory: MachineMemory;
  /** Byte offset of this context in the machine's memory. */
  readonly base: number;
  readonly platform: Platform;
  readonly vcpu: number;
  readonly vmpl: number;

  constructor(memory: MachineMemory, platform: Platform, vcpu = 0, vmpl = 0) {
    this.memory = memory;
    this.platform = platform;
    this.vcpu = vcpu;
    this.vmpl = vmpl;
    this.base = memory.reserve(CONTEXT.size);
    this.flushTlb();
  }

  // -- raw fields -------------------------------------------------------------------------------

  u8(offset: number): number {
    return this.memory.u8[this.base + offset]!;
  }
  setU8(offset: number, value: number): void {
    this.memory.u8[this.base + offset] = value;
  }
  u16(offset: number): number {
    return this.memory.view.getUint16(this.base + offset, true);
  }
  setU16(offset: number, value: number): void {
    this.memory.view.setUint16(this.base + offset, value, true);
  }
  u32(offset: number): number {
    return this.memory.u32[(this.base + offset) >>> 2]!;
  }
  setU32(offset: number, value: number): void {
    this.memory.u32[(this.base + offset) >>> 2] = value;
  }
  u64(offset: number): bigint {
    return this.memory.u64[(this.base + offset) / 8]!;
  }
  setU64(offset: number, value: bigint): void {
    this.memory.u64[(this.base + offset) / 8] = value;
  }

  // -- registers --------------------------------------------------------------------------------

  reg(index: number): bigint {
    return this.u64(gpr(index));
  }
  setReg(index: number, value: bigint): void {
    this.setU64(gpr(index), value);
  }

  /** Reads a register by its byte offset (`gpr(i)`, or `gpr(i) + 1` for AH…BH), zero-extended. */
  readRegister(offset: number, size: number): bigint {
    switch (size) {
      case 1:
        return BigInt(this.u8(offset));
      case 2:
        return BigInt(this.u16(offset));
      case 4:
        return BigInt(this.u32(offset));
      default:
        return this.u64(offset);
    }
  }

  /** Writes a register as x86 does: 32-bit writes clear the upper half, narrower ones keep the rest. */
  writeRegister(offset: number, size: number, value: bigint): void {
    switch (size) {
      case 1:
        this.setU8(offset, Number(value & 0xffn));
        return;
      case 2:
        this.setU16(offset, Number(value & 0xffffn));
        return;
      case 4:
        this.setU64(offset, value & 0xffff_ffffn);
        return;
      default:
        this.setU64(offset, value & MASK64);
    }
  }

  get rip(): bigint {
    return this.u64(STATE.rip);
  }
  set rip(value: bigint) {
    this.setU64(STATE.rip, value);
  }
  get nextRip(): bigint {
    return this.u64(STATE.nextRip);
  }
  set nextRip(value: bigint) {
    this.setU64(STATE.nextRip, value);
  }

  /** Current privilege level; follow a change by `updateMode`. */
  get cpl(): number {
    return this.u32(STATE.cpl);
  }
  set cpl(value: number) {
    this.setU32(STATE.cpl, value);
  }
  get mode(): Mode {
    return this.u32(STATE.mode) as Mode;
  }
  get cr0(): number {
    return this.u32(STATE.cr0);
  }
  get cr4(): number {
    return this.u32(STATE.cr4);
  }
  get efer(): number {
    return this.u32(STATE.efer);
  }
  /** EFER.LMA. */
  get longMode(): boolean {
    return (this.efer & 0x400) !== 0;
  }
  /** CR0.PE. */
  get protectedMode(): boolean {
    return (this.cr0 & 1) !== 0;
  }
  get virtual8086(): boolean {
    return (this.u32(STATE.systemFlags) & FLAG.VM) !== 0;
  }

  // -- flags ------------------------------------------------------------------------------------

  /** RFLAGS, assembled. */
  get rflags(): number {
    const result = this.u64(STATE.flagResult);
    const carry = this.u64(STATE.flagCarry);
    const misc = this.u32(STATE.flagMisc);
    let flags = this.u32(STATE.systemFlags);
    const cf = Number(carry >> 63n);
    if (cf) flags |= FLAG.CF;
    if (cf ^ Number((carry >> 62n) & 1n)) flags |= FLAG.OF;
    if (result === 0n) flags |= FLAG.ZF;
    if (Number(result >> 63n) ^ (misc & 1)) flags |= FLAG.SF;
    if (misc & 0x10) flags |= FLAG.AF;
    let parity = Number(result & 0xffn) ^ ((misc >>> 8) & 0xff);
    parity ^= parity >> 4;
    if ((0x9669 >> (parity & 15)) & 1) flags |= FLAG.PF;
    return flags >>> 0;
  }

  /** Sets all of RFLAGS (bit 1 forced to 1). Follow a change of AC or VM by `updateMode`. */
  set rflags(value: number) {
    this.setU32(STATE.systemFlags, (value & ~ARITHMETIC_FLAGS) | 2);
    this.setArithmeticFlags(value);
  }

  /** Sets CF PF AF ZF SF OF from RFLAGS bits; leaves the others. */
  setArithmeticFlags(value: number): void {
    const zero = (value & FLAG.ZF) !== 0;
    // A nonzero result of 1 has odd parity and a clear sign; misc turns each into what is asked.
    const parityDelta = ((value & FLAG.PF) !== 0) === zero ? 0 : 1;
    const sign = value & FLAG.SF ? 1 : 0;
    this.setU64(STATE.flagResult, zero ? 0n : 1n);
    this.setU32(STATE.flagMisc, (parityDelta << 8) | (value & FLAG.AF) | sign);
    const cf = value & FLAG.CF ? 1n : 0n;
    const of = value & FLAG.OF ? 1n : 0n;
    this.setU64(STATE.flagCarry, (cf << 63n) | ((cf ^ of) << 62n));
  }

  /** Changes some arithmetic flags: `mask` says which, `value` their new state. */
  changeFlags(mask: number, value: number): void {
    this.setArithmeticFlags((this.rflags & ~mask) | (value & mask));
  }

  // -- segments ---------------------------------------------------------------------------------

  getSegment(index: number): SegmentState {
    const at = segment(index);
    return {
      selector: this.u16(at),
      attributes: this.u16(at + 2),
      limit: this.u32(at + 4),
      base: this.u64(at + 8),
    };
  }
  setSegment(index: number, state: SegmentState): void {
    const at = segment(index);
    this.setU16(at, state.selector);
    this.setU16(at + 2, state.attributes);
    this.setU32(at + 4, state.limit >>> 0);
    this.setU64(at + 8, state.base & MASK64);
  }
  selector(index: number): number {
    return this.u16(segment(index));
  }
  attributes(index: number): number {
    return this.u16(segment(index) + 2);
  }
  limit(index: number): number {
    return this.u32(segment(index) + 4);
  }
  segmentBase(index: number): bigint {
    return this.u64(segment(index) + 8);
  }

  /**
   * Recomputes what is derived from CR0, EFER, CS, SS, CPL and RFLAGS.AC: decoding mode, stack
   * width, TLB set. Every helper that changed one of these calls it before it returns.
   */
  updateMode(): void {
    const cs = this.attributes(CS);
    const code64 = this.longMode && (cs & ATTRIBUTE.L) !== 0;
    const mode = code64 ? MODE.code64 : (cs & ATTRIBUTE.DB) !== 0 ? MODE.code32 : MODE.code16;
    this.setU32(STATE.mode, mode);
    const wideStack = (this.attributes(SS) & ATTRIBUTE.DB) !== 0;
    this.setU64(STATE.stackMask, code64 ? MASK64 : wideStack ? 0xffff_ffffn : 0xffffn);
    this.setU64(STATE.stackBase, code64 ? 0n : this.segmentBase(SS));
    this.setU32(STATE.tlb, this.base + tlbSetFor(this));
    // The jump map knows rip only: what else decides which code runs must not change under it.
    const codeBase = code64 ? 0n : this.segmentBase(CS);
    const key = (codeBase << 8n) | BigInt((mode << 4) | this.cpl);
    if (this.u64(STATE.codeKey) !== (key & MASK64)) {
      this.setU64(STATE.codeKey, key & MASK64);
      this.flushJumps();
    }
  }

  // -- memory by linear address -----------------------------------------------------------------

  /** Reads 1, 2, 4 or 8 bytes; throws what the access raises. */
  load(linear: bigint, size: number, privilege: Privilege = 'current'): bigint {
    return slowLoad(this, linear & MASK64, size, privilege, false);
  }
  /** Reads for a read-modify-write: the write is checked too, so that storing back cannot fault. */
  loadForWrite(linear: bigint, size: number): bigint {
    return slowLoad(this, linear & MASK64, size, 'current', true);
  }
  /** Writes 1, 2, 4 or 8 bytes; checks both pages before it changes one. */
  store(linear: bigint, size: number, value: bigint, privilege: Privilege = 'current'): void {
    slowStore(this, linear & MASK64, size, value, privilege);
  }
  /** Checks that `length` bytes can be accessed (at most two pages), without accessing them. */
  probe(linear: bigint, length: number, access: Access, privilege: Privilege = 'current'): void {
    lookup(this, linear & MASK64, access, privilege);
    const last = (linear + BigInt(length) - 1n) & MASK64;
    if (last >> 12n !== (linear & MASK64) >> 12n) lookup(this, last & ~0xfffn, access, privilege);
  }

  /** Byte offset in machine memory of a byte that can be accessed, or undefined for a device page. */
  translate(linear: bigint, access: Access, privilege: Privilege = 'current'): number | undefined {
    return lookup(this, linear & MASK64, access, privilege);
  }

  /**
   * Linear address of `size` bytes at `offset` of a segment, checked as the mode demands: canonical
   * form and FS/GS base in 64-bit mode; limit, type and null selector elsewhere (APM vol. 2, §4.12).
   */
  segmented(index: number, offset: bigint, size: number, write: boolean): bigint {
    if (this.mode === MODE.code64) {
      const linear = ((index === 4 || index === 5 ? this.segmentBase(index) : 0n) + offset) & MASK64;
      if (!isCanonical(linear)) throw new GuestException(index === SS ? VECTOR.SS : VECTOR.GP, 0);
      return linear;
    }
    const attributes = this.attributes(index);
    const vector = index === SS ? VECTOR.SS : VECTOR.GP;
    const low = Number(offset & 0xffff_ffffn);
    const last = low + size - 1;
    const code = (attributes & ATTRIBUTE.code) !== 0;
    if (this.protectedMode && !this.virtual8086) {
      if ((attributes & ATTRIBUTE.P) === 0) throw new GuestException(vector, 0);
      if (write && (code || (attributes & ATTRIBUTE.readWrite) === 0)) throw new GuestException(vector, 0);
      if (!write && code && (attributes & ATTRIBUTE.readWrite) === 0) throw new GuestException(vector, 0);
    }
    const limit = this.limit(index);
    if (!code && (attributes & ATTRIBUTE.expandDown) !== 0) {
      const top = (attributes & ATTRIBUTE.DB) !== 0 ? 0xffff_ffff : 0xffff;
      if (low <= limit || last > top) throw new GuestException(vector, 0);
    } else if (last > limit && limit !== 0xffff_ffff) throw new GuestException(vector, 0);
    return (this.segmentBase(index) + BigInt(low)) & 0xffff_ffffn;
  }

  /** Linear address of the memory operand of `op`, checked for `size` bytes. */
  address(op: OpView, size: number, write: boolean): bigint {
    return this.segmented(op.segment, this.effectiveAddress(op), size, write);
  }

  /** Offset part of the memory operand, truncated to the address size. */
  effectiveAddress(op: OpView): bigint {
    const sum = this.u64(op.base) + (this.u64(op.index) << BigInt(op.scale)) + BigInt(op.displacement);
    return BigInt.asUintN(op.addressSize * 8, sum);
  }

  // -- TLB --------------------------------------------------------------------------------------

  /** Drops every translation (global ones too: keeping them is an optimisation, never a duty). */
  flushTlb(): void {
    flushAll(this);
  }
  flushPage(linear: bigint): void {
    flushPage(this, linear & MASK64);
  }
  /** Drops the rip -> decoded code map; decoded code itself stays. */
  flushJumps(): void {
    this.memory.u64.set(EMPTY_JUMPS, (this.base + CONTEXT.jumps) / 8);
  }
  /** Makes the run loop stop at the next instruction boundary. */
  requestStop(): void {
    this.setU32(STATE.stopRequested, 1);
  }
}

/** Canonical form for 48-bit linear addresses. */
export const isCanonical = (linear: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(48, linear)) === (linear & MASK64);
