/** A plain machine with one processor and an engine, for guests written as text. */
import type { Cpu } from '../../../src/x86/cpu.ts';
import { Engine } from '../../../src/x86/engine.ts';
import type { RunResult } from '../../../src/x86/engine.ts';
import type { GuestException } from '../../../src/x86/exceptions.ts';
import { SEGMENT_NAMES, STATE, TR } from '../../../src/x86/layout.ts';
import type { Assembled } from './assemble.ts';
import {
  PlainMachine,
  descriptor,
  enterLongMode,
  enterProtectedMode,
  setFlatSegments,
  setGate64,
  setGdt,
  setIdt,
} from './plain-machine.ts';
import type { PlainOptions } from './plain-machine.ts';

/** Fixed places of the standard guest. */
export const AT = {
  code: 0x8000,
  gdt: 0x1000,
  idt: 0x2000,
  tss: 0x3000,
  /** Tops of stacks. */
  stack: 0x7000,
  stack0: 0x6000,
  ist1: 0x5000,
  userStack: 0x2_8000,
  data: 0x3_0000,
  tables: 0x10_0000,
} as const;

/** Selectors of the standard GDT. */
export const SEL = {
  code: 0x08,
  data: 0x10,
  userCode32: 0x18,
  userData: 0x20,
  userCode: 0x28,
  tss: 0x30,
} as const;

const FLAT = 0xf_ffff;
/** Kernel code and data, user 32-bit code, data and 64-bit code (SYSRET's order), then the TSS (two slots). */
export const standardGdt = (bits: 32 | 64): bigint[] => [
  descriptor(0, FLAT, bits === 64 ? 0xa9b : 0xc9b),
  descriptor(0, FLAT, 0xc93),
  descriptor(0, FLAT, 0xcfb),
  descriptor(0, FLAT, 0xcf3),
  descriptor(0, FLAT, bits === 64 ? 0xafb : 0xcfb),
  descriptor(AT.tss, 0x2067, 0x89),
  0n,
];

export class Guest {
  readonly machine: PlainMachine;
  readonly cpu: Cpu;
  readonly engine: Engine;
  /** Exceptions raised while `stopAtException` was set. */
  exception: GuestException | undefined;
  stopAtException = true;

  constructor(options: PlainOptions = {}) {
    this.machine = new PlainMachine({ bytes: 48 << 20, ...options });
    this.cpu = this.machine.cpu();
    this.engine = new Engine(this.machine.memory);
    this.engine.onException = ({ exception }) => {
      this.exception = exception;
      return this.stopAtException;
    };
  }

  /** 64-bit mode with GDT, IDT (empty), TSS with stacks, at the given privilege. */
  static long(options: PlainOptions & { cpl?: number } = {}): Guest {
    const guest = new Guest(options);
    const { machine, cpu } = guest;
    enterLongMode(machine, cpu, AT.tables);
    setGdt(machine, cpu, AT.gdt, standardGdt(64));
    setIdt(cpu, AT.idt);
    machine.poke(AT.tss + 4, 8, AT.stack0);
    machine.poke(AT.tss + 0x24, 8, AT.ist1);
    machine.poke(AT.tss + 0x66, 2, 0x68);
    guest.#tss();
    guest.#start(options.cpl ?? 0, 64);
    return guest;
  }

  /** Flat 32-bit protected mode without paging. */
  static protected(options: PlainOptions & { cpl?: number } = {}): Guest {
    const guest = new Guest(options);
    const { machine, cpu } = guest;
    enterProtectedMode(cpu);
    setGdt(machine, cpu, AT.gdt, standardGdt(32));
    setIdt(cpu, AT.idt, 0x7ff);
    machine.poke(AT.tss + 4, 4, AT.stack0);
    machine.poke(AT.tss + 8, 2, SEL.data);
    machine.poke(AT.tss + 0x66, 2, 0x68);
    guest.#tss();
    guest.#start(options.cpl ?? 0, 32);
    return guest;
  }

  #tss(): void {
    this.cpu.setSegment(TR, { selector: SEL.tss, attributes: 0x8b, limit: 0x2067, base: BigInt(AT.tss) });
  }

  #start(cpl: number, bits: 32 | 64): void {
    const { cpu } = this;
    setFlatSegments(cpu, bits, cpl);
    if (cpl === 3) {
      cpu.setSegment(1, {
        ...cpu.getSegment(1),
        selector: (bits === 64 ? SEL.userCode : SEL.userCode32) | 3,
      });
      for (const index of [0, 2, 3, 4, 5])
        cpu.setSegment(index, { ...cpu.getSegment(index), selector: SEL.userData | 3 });
    }
    cpu.setReg(4, BigInt(cpl === 3 ? AT.userStack : AT.stack));
    cpu.rip = BigInt(AT.code);
    cpu.updateMode();
  }

  /** Assembles at `origin` without running. */
  load(source: string, origin: number = AT.code, bits: number = this.bits): Assembled {
    const code = this.machine.load(source, origin, bits);
    return code;
  }

  get bits(): number {
    return [16, 32, 64][this.cpu.mode]!;
  }

  /** Runs from `rip` until HLT, an exception (if `stopAtException`), or the bound. */
  run(max = 10_000): RunResult {
    this.exception = undefined;
    let left = max;
    let result = this.engine.run(this.cpu, left);
    // `run` may give its caller a turn early.
    while (result.reason === 'budget' && result.retired < left && result.retired > 0) {
      left -= result.retired;
      result = this.engine.run(this.cpu, left);
    }
    return result;
  }

  /** Assembles at AT.code, starts there, runs. */
  go(source: string, max = 10_000): RunResult {
    this.load(source);
    this.cpu.rip = BigInt(AT.code);
    return this.run(max);
  }

  /** Vector and error code of the exception the code raises, or 'none' when it reaches HLT. */
  fault(source: string): string {
    const result = this.go(source);
    if (this.exception)
      return this.exception.errorCode === undefined
        ? `${this.exception.vector}`
        : `${this.exception.vector}(${this.exception.errorCode >>> 0})`;
    if (result.reason === 'exit' && result.exit!.reason === 'hlt') return 'none';
    return `${result.reason}: ${result.error?.message ?? result.exit?.reason ?? ''}`;
  }

  gate(vector: number, target: bigint | number, options: Parameters<typeof setGate64>[4] = {}): void {
    setGate64(this.machine, AT.idt, vector, target, options);
  }

  /** 8-byte gate of a legacy IDT. */
  gate32(
    vector: number,
    target: number,
    options: { selector?: number; type?: number; dpl?: number; present?: boolean } = {},
  ): void {
    const { selector = SEL.code, type = 14, dpl = 0, present = true } = options;
    this.machine.poke(AT.idt + vector * 8, 4, ((selector << 16) | (target & 0xffff)) >>> 0);
    this.machine.poke(
      AT.idt + vector * 8 + 4,
      4,
      ((target & 0xffff_0000) | (present ? 0x8000 : 0) | (dpl << 13) | (type << 8)) >>> 0,
    );
  }

  /** Values of `size` bytes from `address` (a physical one) upwards. */
  words(address: number | bigint, count: number, size = 8): bigint[] {
    return Array.from({ length: count }, (_, i) => this.machine.peek(Number(address) + i * size, size));
  }

  reg(name: string): bigint {
    const index = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ').indexOf(name);
    return this.cpu.reg(index);
  }
  selector(name: (typeof SEGMENT_NAMES)[number]): number {
    return this.cpu.selector(SEGMENT_NAMES.indexOf(name));
  }
  field(name: keyof typeof STATE): bigint {
    return this.cpu.u64(STATE[name]);
  }
}
