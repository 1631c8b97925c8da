/** A local APIC with its timer, in xAPIC and x2APIC mode (APM vol. 2, chapter 16). */
import { decodeIcr, logicalId } from '../apic.ts';
import type { InterprocessorInterrupt } from '../apic.ts';
import { STATE, generalProtection } from '../../x86/index.ts';
import type { Cpu } from '../../x86/index.ts';
import type { Clock, Timed } from './clock.ts';

/** Registers by offset in the xAPIC page (table 16-2); x2APIC MSRs are 0x800 + offset / 16. */
const REGISTER = {
  id: 0x20,
  version: 0x30,
  tpr: 0x80,
  apr: 0x90,
  ppr: 0xa0,
  eoi: 0xb0,
  ldr: 0xd0,
  dfr: 0xe0,
  spurious: 0xf0,
  isr: 0x100,
  tmr: 0x180,
  irr: 0x200,
  esr: 0x280,
  icrLow: 0x300,
  icrHigh: 0x310,
  lvtTimer: 0x320,
  lvtThermal: 0x330,
  lvtPerformance: 0x340,
  lvtLint0: 0x350,
  lvtLint1: 0x360,
  lvtError: 0x370,
  initialCount: 0x380,
  currentCount: 0x390,
  divide: 0x3e0,
  selfIpi: 0x3f0,
} as const;

const VERSION = 0x5_0014;
const LVT_MASKED = 0x1_0000;
const MODE_EXTINT = 7;
const SOFTWARE_ENABLE = 0x100;
const BASE = { bsp: 0x100n, x2apic: 0x400n, enable: 0x800n } as const;
const PAGE_BASE = 0xfee0_0000n;
const TIMER = { oneShot: 0, periodic: 1, deadline: 2 } as const;
/** Writable bits of the LVT entries. */
const LVT_WRITABLE: Readonly<Record<number, number>> = {
  [REGISTER.lvtTimer]: 0x7_00ff,
  [REGISTER.lvtThermal]: 0x1_07ff,
  [REGISTER.lvtPerformance]: 0x1_07ff,
  [REGISTER.lvtLint0]: 0x1_a7ff,
  [REGISTER.lvtLint1]: 0x1_a7ff,
  [REGISTER.lvtError]: 0x1_00ff,
};
const ESR_RECEIVE_ILLEGAL = 0x40;
const ESR_SEND_ILLEGAL = 0x20;

/** A set of 256 vectors as the registers hold it. */
class Vectors {
  readonly words = new Uint32Array(8);
  has(vector: number): boolean {
    return (this.words[vector >> 5]! & (1 << (vector & 31))) !== 0;
  }
  set(vector: number, on: boolean): void {
    const bit = 1 << (vector & 31);
    if (on) this.words[vector >> 5]! |= bit;
    else this.words[vector >> 5]! &= ~bit;
  }
  /** -1: empty. */
  get highest(): number {
    for (let i = 7; i >= 0; i--) if (this.words[i] !== 0) return i * 32 + 31 - Math.clz32(this.words[i]!);
    return -1;
  }
}

export interface ApicBus {
  send(interrupt: InterprocessorInterrupt): void;
  /** A level-triggered vector was ended: the I/O APICs are told. */
  endOfInterrupt(vector: number): void;
  /** When this processor's time-stamp counter reaches a value. */
  timeOfTsc(tsc: bigint): number;
}

export class PlainLocalApic implements Timed {
  readonly apicId: number;
  readonly #cpu: Cpu;
  readonly #clock: Clock;
  readonly #bus: ApicBus;
  #base: bigint;
  readonly #requested = new Vectors();
  readonly #serving = new Vectors();
  readonly #level = new Vectors();
  readonly #plain = new Map<number, number>();
  /** Low nibble of the task priority, and the CR8 it was written with: writing CR8 clears it. */
  #subPriority = { low: 0, cr8: 0 };
  #errors = 0;
  #shownErrors = 0;
  /** When the timer was last loaded, and when it fires. */
  #timerStart = 0;
  #timerDue = Infinity;
  #tscDeadline = 0n;
  nmiPending = false;

  constructor(apicId: number, cpu: Cpu, clock: Clock, bus: ApicBus) {
    this.apicId = apicId;
    this.#cpu = cpu;
    this.#clock = clock;
    this.#bus = bus;
    this.#base = PAGE_BASE | BASE.enable | (apicId === 0 ? BASE.bsp : 0n);
    this.reset();
  }

  /** State after INIT; the base register and the id stay. */
  reset(): void {
    for (const set of [this.#requested, this.#serving, this.#level]) set.words.fill(0);
    this.#plain.clear();
    for (const offset of Object.keys(LVT_WRITABLE)) this.#plain.set(Number(offset), LVT_MASKED);
    this.#plain.set(REGISTER.spurious, 0xff);
    this.#plain.set(REGISTER.dfr, 0xffff_ffff);
    this.#subPriority = { low: 0, cr8: 0 };
    this.#errors = this.#shownErrors = 0;
    this.#timerDue = Infinity;
    this.#tscDeadline = 0n;
    this.nmiPending = false;
  }
  /** What firmware leaves on the boot processor: enabled, the 8259 behind LINT0, NMI behind LINT1. */
  setVirtualWire(): void {
    this.#plain.set(REGISTER.spurious, SOFTWARE_ENABLE | 0xff);
    this.#plain.set(REGISTER.lvtLint0, MODE_EXTINT << 8);
    this.#plain.set(REGISTER.lvtLint1, 4 << 8);
  }

  #get(offset: number): number {
    return this.#plain.get(offset) ?? 0;
  }
  get #x2apic(): boolean {
    return (this.#base & BASE.x2apic) !== 0n;
  }
  get enabled(): boolean {
    return (this.#base & BASE.enable) !== 0n;
  }
  /** The xAPIC page answers at its address. */
  get mapped(): boolean {
    return this.enabled && !this.#x2apic;
  }
  get pageAddress(): number {
    return Number(this.#base & 0xf_ffff_ffff_f000n);
  }
  get #softwareEnabled(): boolean {
    return (this.#get(REGISTER.spurious) & SOFTWARE_ENABLE) !== 0;
  }
  /** The 8259's INTR reaches the processor (as KVM decides it). */
  get acceptsPic(): boolean {
    if (!this.enabled) return true;
    const lint0 = this.#get(REGISTER.lvtLint0);
    return (lint0 & LVT_MASKED) === 0 && ((lint0 >> 8) & 7) === MODE_EXTINT;
  }

  // -- priorities -----------------------------------------------------------------------------------------

  get #taskPriority(): number {
    const cr8 = Number(this.#cpu.u64(STATE.cr8) & 0xfn);
    return (cr8 << 4) | (this.#subPriority.cr8 === cr8 ? this.#subPriority.low : 0);
  }
  set #taskPriority(value: number) {
    const cr8 = (value >> 4) & 15;
    this.#cpu.setU64(STATE.cr8, BigInt(cr8));
    this.#subPriority = { low: value & 15, cr8 };
  }
  get #processorPriority(): number {
    const task = this.#taskPriority;
    const serving = Math.max(0, this.#serving.highest);
    return task >> 4 >= serving >> 4 ? task : serving & 0xf0;
  }
  /** A request above the processor priority. */
  get pending(): boolean {
    if (!this.enabled || !this.#softwareEnabled) return false;
    const highest = this.#requested.highest;
    return highest >= 0 && highest >> 4 > this.#processorPriority >> 4;
  }
  /** Something was requested, whether or not its priority lets it in now. */
  get hasRequest(): boolean {
    return this.#requested.highest >= 0;
  }
  /** Takes the highest request. */
  acknowledge(): number {
    const vector = this.#requested.highest;
    this.#requested.set(vector, false);
    this.#serving.set(vector, true);
    return vector;
  }

  request(vector: number, level = false): void {
    if (vector < 16) {
      this.#errors |= ESR_RECEIVE_ILLEGAL;
      return;
    }
    if (!this.enabled) return;
    this.#requested.set(vector, true);
    this.#level.set(vector, level);
    this.#clock.changed();
  }

  #endOfInterrupt(): void {
    const vector = this.#serving.highest;
    if (vector < 0) return;
    this.#serving.set(vector, false);
    if (this.#level.has(vector)) this.#bus.endOfInterrupt(vector);
    if (this.hasRequest) this.#clock.changed();
  }

  /** Does an interrupt's destination name this APIC? */
  matches(destination: number, logical: boolean): boolean {
    if (this.#x2apic) {
      if (destination === 0xffff_ffff || destination === 0xff) return true;
      if (!logical) return destination === this.apicId;
      const own = logicalId(this.apicId);
      return own >>> 16 === destination >>> 16 && (own & destination & 0xffff) !== 0;
    }
    if (destination === 0xff || destination === 0xffff_ffff) return true;
    if (!logical) return destination === this.apicId;
    const own = this.#get(REGISTER.ldr) >>> 24;
    if (this.#get(REGISTER.dfr) >>> 28 === 0xf) return (own & destination) !== 0;
    return own >> 4 === destination >> 4 && (own & destination & 15) !== 0;
  }

  // -- timer ------------------------------------------------------------------------------------------------

  get #timerMode(): number {
    return (this.#get(REGISTER.lvtTimer) >> 17) & 3;
  }
  get #divisor(): number {
    const value = this.#get(REGISTER.divide);
    return [2, 4, 8, 16, 32, 64, 128, 1][(value & 3) | ((value >> 1) & 4)]!;
  }
  deadline(): number {
    return this.#timerDue;
  }
  advance(now: number): void {
    if (now < this.#timerDue) return;
    const mode = this.#timerMode;
    const period = this.#get(REGISTER.initialCount) * this.#divisor;
    if (mode === TIMER.periodic && period > 0) {
      const periods = Math.floor((now - this.#timerStart) / period);
      this.#timerStart += periods * period;
      this.#timerDue = this.#timerStart + period;
    } else {
      this.#timerDue = Infinity;
      if (mode === TIMER.deadline) this.#tscDeadline = 0n;
    }
    const lvt = this.#get(REGISTER.lvtTimer);
    if ((lvt & LVT_MASKED) === 0 && this.#softwareEnabled) this.request(lvt & 0xff);
  }
  #startTimer(): void {
    const count = this.#get(REGISTER.initialCount);
    this.#timerStart = this.#clock.now();
    this.#timerDue = count === 0 ? Infinity : this.#timerStart + count * this.#divisor;
    this.#clock.changed();
  }
  #currentCount(): number {
    if (this.#timerDue === Infinity || this.#timerMode === TIMER.deadline) return 0;
    const left = Math.max(0, this.#timerDue - this.#clock.now());
    return Math.ceil(left / this.#divisor);
  }
  #writeDeadline(tsc: bigint): void {
    if (this.#timerMode !== TIMER.deadline) return;
    this.#tscDeadline = tsc;
    this.#timerDue = tsc === 0n ? Infinity : this.#bus.timeOfTsc(this.#tscDeadline);
    this.#clock.changed();
  }

  // -- registers -----------------------------------------------------------------------------------------

  #read(offset: number): number {
    switch (offset) {
      case REGISTER.id:
        return this.#x2apic ? this.apicId : (this.apicId << 24) >>> 0;
      case REGISTER.version:
        return VERSION;
      case REGISTER.tpr:
        return this.#taskPriority;
      case REGISTER.ppr:
        return this.#processorPriority;
      case REGISTER.ldr:
        return this.#x2apic ? logicalId(this.apicId) >>> 0 : this.#get(offset);
      case REGISTER.esr:
        return this.#shownErrors;
      case REGISTER.currentCount:
        return this.#currentCount();
      default:
        if (offset >= REGISTER.isr && offset < REGISTER.esr) {
          const set =
            offset < REGISTER.tmr ? this.#serving : offset < REGISTER.irr ? this.#level : this.#requested;
          return set.words[(offset >> 4) & 7]!;
        }
        return this.#get(offset);
    }
  }

  #write(offset: number, value: number): void {
    const writable = LVT_WRITABLE[offset];
    if (writable !== undefined) {
      this.#writeLvt(offset, value & writable);
      return;
    }
    switch (offset) {
      case REGISTER.tpr:
        this.#taskPriority = value & 0xff;
        this.#clock.changed();
        return;
      case REGISTER.eoi:
        this.#endOfInterrupt();
        return;
      case REGISTER.ldr:
        this.#plain.set(offset, (value & 0xff00_0000) >>> 0);
        return;
      case REGISTER.dfr:
        this.#plain.set(offset, (value | 0x0fff_ffff) >>> 0);
        return;
      case REGISTER.spurious:
        this.#plain.set(offset, value & 0x1ff);
        if ((value & SOFTWARE_ENABLE) === 0)
          for (const lvt of Object.keys(LVT_WRITABLE)) {
            const entry = Number(lvt);
            // KVM keeps LINT0 as it was: firmware's virtual wire must survive a disabled APIC.
            if (entry !== REGISTER.lvtLint0) this.#plain.set(entry, this.#get(entry) | LVT_MASKED);
          }
        this.#clock.changed();
        return;
      case REGISTER.esr:
        this.#shownErrors = this.#errors;
        this.#errors = 0;
        return;
      case REGISTER.icrLow:
        this.#plain.set(offset, value & ~0x1000);
        this.#send((BigInt(this.#get(REGISTER.icrHigh) >>> 24) << 32n) | BigInt(value >>> 0));
        return;
      case REGISTER.initialCount:
        if (this.#timerMode === TIMER.deadline) return;
        this.#plain.set(offset, value);
        this.#startTimer();
        return;
      case REGISTER.divide:
        this.#plain.set(offset, value & 0xb);
        if (this.#timerDue !== Infinity && this.#timerMode !== TIMER.deadline) this.#startTimer();
        return;
      case REGISTER.icrHigh:
        this.#plain.set(offset, value);
        return;
      default:
    }
  }

  #writeLvt(offset: number, value: number): void {
    const before = this.#timerMode;
    const masked = this.#softwareEnabled || offset === REGISTER.lvtLint0 ? 0 : LVT_MASKED;
    this.#plain.set(offset, value | masked);
    if (offset !== REGISTER.lvtTimer) return;
    // Changing to or from deadline mode disarms the timer.
    if (before !== this.#timerMode && (before === TIMER.deadline || this.#timerMode === TIMER.deadline)) {
      this.#timerDue = Infinity;
      this.#plain.set(REGISTER.initialCount, 0);
    }
    this.#clock.changed();
  }

  #send(icr: bigint): void {
    const interrupt = decodeIcr(icr);
    if ((interrupt.mode === 0 || interrupt.mode === 1) && interrupt.vector < 16) {
      this.#errors |= ESR_SEND_ILLEGAL;
      return;
    }
    this.#bus.send(interrupt);
  }

  /** xAPIC page: aligned 32-bit accesses at 16-byte steps. */
  readPage(gpa: number, size: number): bigint {
    const offset = gpa & 0xfff;
    const value = BigInt(this.#read(offset & ~15) >>> 0);
    return BigInt.asUintN(size * 8, (offset & 15) < 4 ? value >> BigInt(8 * (offset & 3)) : 0n);
  }
  writePage(gpa: number, size: number, value: bigint): void {
    const offset = gpa & 0xfff;
    if ((offset & 15) === 0 && size >= 4) this.#write(offset, Number(value & 0xffff_ffffn));
  }

  /** MSRs 0x1b, 0x6e0 and 0x800 to 0x8ff. @throws GuestException #GP where the MSR does not exist. */
  readMsr(index: number): bigint {
    if (index === 0x1b) return this.#base;
    if (index === 0x6e0) return this.#tscDeadline;
    if (!this.#x2apic) throw generalProtection();
    const offset = (index - 0x800) * 16;
    if (offset === REGISTER.icrLow)
      return (BigInt(this.#get(REGISTER.icrHigh) >>> 0) << 32n) | BigInt(this.#get(offset) >>> 0);
    if (!readable(offset)) throw generalProtection();
    return BigInt(this.#read(offset) >>> 0);
  }

  writeMsr(index: number, value: bigint): void {
    if (index === 0x1b) {
      this.#writeBase(value);
      return;
    }
    if (index === 0x6e0) {
      this.#writeDeadline(value);
      return;
    }
    if (!this.#x2apic) throw generalProtection();
    const offset = (index - 0x800) * 16;
    const low = Number(value & 0xffff_ffffn);
    if (offset === REGISTER.icrLow) {
      this.#plain.set(REGISTER.icrHigh, Number(value >> 32n));
      this.#plain.set(offset, low);
      this.#send(value);
      return;
    }
    if (!writableMsr(offset) || value >> 32n !== 0n) throw generalProtection();
    if (offset === REGISTER.selfIpi) {
      this.request(low & 0xff);
      return;
    }
    if ((offset === REGISTER.eoi || offset === REGISTER.esr) && value !== 0n) throw generalProtection();
    this.#write(offset, low);
  }

  /** xAPIC and x2APIC may be left only through disabled, and x2APIC entered only from xAPIC (§16.9). */
  #writeBase(value: bigint): void {
    const known = BASE.bsp | BASE.x2apic | BASE.enable | 0xffff_ffff_f000n;
    if ((value & ~known) !== 0n) throw generalProtection();
    const on = (value & BASE.enable) !== 0n;
    const wide = (value & BASE.x2apic) !== 0n;
    if (wide && !on) throw generalProtection();
    if (this.#x2apic && on && !wide) throw generalProtection();
    if (!this.enabled && wide) throw generalProtection();
    const was = this.enabled;
    this.#base = value;
    if (was && !on) this.reset();
    this.#clock.changed();
  }
}

/** x2APIC registers that exist (table 16-6): others are #GP. */
const EXISTS = new Set<number>([
  ...Object.values(REGISTER).filter((offset) => offset !== REGISTER.icrHigh && offset !== REGISTER.dfr),
  ...Array.from({ length: 24 }, (_, i) => REGISTER.isr + i * 16),
]);
EXISTS.delete(REGISTER.apr);
const WRITE_ONLY = new Set<number>([REGISTER.eoi, REGISTER.selfIpi]);
const READ_ONLY = new Set<number>([
  REGISTER.id,
  REGISTER.version,
  REGISTER.ppr,
  REGISTER.ldr,
  REGISTER.currentCount,
]);
const readable = (offset: number): boolean => EXISTS.has(offset) && !WRITE_ONLY.has(offset);
const writableMsr = (offset: number): boolean =>
  EXISTS.has(offset) && !READ_ONLY.has(offset) && (offset < REGISTER.isr || offset >= REGISTER.esr);
