/**
 * A machine that is nothing but memory: the platform tests of the processor run on. Frames are taken
 * on first touch; ports, MSRs and intercepted instructions are recorded. With an encryption bit,
 * private and shared pages are separate memories.
 */
import { Cpu } from '../../../src/x86/cpu.ts';
import { generalProtection, undefinedOpcode } from '../../../src/x86/exceptions.ts';
import { CS, DS, ES, FS, GDTR, GS, IDTR, SS, STATE } from '../../../src/x86/layout.ts';
import { MachineMemory } from '../../../src/x86/memory.ts';
import type {
  DevicePage,
  PageGrant,
  PageRequest,
  Platform,
  PortInstruction,
} from '../../../src/x86/platform.ts';
import { resetProcessor } from '../../../src/x86/system/reset.ts';
import { assemble } from './assemble.ts';
import type { Assembled } from './assemble.ts';

export interface PlainOptions {
  readonly physicalAddressBits?: number;
  readonly encryptionBit?: number;
  /** Upper bound of all memory ever taken, in bytes. */
  readonly bytes?: number;
}

export class PlainMachine implements Platform {
  readonly name = 'plain';
  readonly physicalAddressBits: number;
  readonly encryptionBit: number | undefined;
  readonly memory: MachineMemory;
  readonly devices = new Map<number, DevicePage>();
  /** What a page permits; pages not named here permit everything. */
  readonly permissions = new Map<number, Partial<PageGrant>>();
  /** Every page request, when a test wants them. */
  requests: PageRequest[] | undefined;
  readonly msrs = new Map<number, bigint>();
  readonly ports: { port: number; size: number; value?: number; instruction: PortInstruction }[] = [];
  /** What IN answers, in order; 0xff… when empty. */
  input: number[] = [];
  /** Thrown by `intercept` of these instructions. */
  readonly intercepted = new Map<string, () => never>();
  intercepts: string[] = [];
  leaves = new Map<string, readonly [number, number, number, number]>();
  clock = 0n;
  broadcasts = 0;
  readonly #private = new Map<number, number>();
  readonly #shared = new Map<number, number>();
  readonly #cpus: Cpu[] = [];
  #seed = 0x9e37_79b9_7f4a_7c15n;

  constructor(options: PlainOptions = {}) {
    this.physicalAddressBits = options.physicalAddressBits ?? 48;
    this.encryptionBit = options.encryptionBit;
    this.memory = new MachineMemory(options.bytes ?? 64 << 20);
  }

  /** A processor in its reset state. */
  cpu(): Cpu {
    const cpu = new Cpu(this.memory, this, this.#cpus.length, 0);
    this.#cpus.push(cpu);
    resetProcessor(cpu);
    return cpu;
  }

  // -- physical memory --------------------------------------------------------------------------------

  frame(gpa: number, encrypted = this.encryptionBit !== undefined): number {
    const frames = encrypted ? this.#private : this.#shared;
    const page = gpa - (gpa % 4096);
    let frame = frames.get(page);
    if (frame === undefined) {
      frame = this.memory.takeFrame();
      frames.set(page, frame);
    }
    return frame;
  }

  write(gpa: number, bytes: ArrayLike<number>, encrypted?: boolean): void {
    for (let i = 0; i < bytes.length; i++) {
      const at = gpa + i;
      const frame = this.frame(at, encrypted);
      this.memory.aboutToWrite(frame);
      this.memory.u8[frame + (at % 4096)] = bytes[i]!;
    }
  }

  read(gpa: number, length: number, encrypted?: boolean): Uint8Array {
    return Uint8Array.from(
      { length },
      (_, i) => this.memory.u8[this.frame(gpa + i, encrypted) + ((gpa + i) % 4096)]!,
    );
  }

  /** Little-endian value of 1 to 8 bytes. */
  peek(gpa: number, size: number, encrypted?: boolean): bigint {
    return this.read(gpa, size, encrypted).reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  }
  poke(gpa: number, size: number, value: bigint | number, encrypted?: boolean): void {
    const wide = BigInt.asUintN(64, BigInt(value));
    this.write(
      gpa,
      Array.from({ length: size }, (_, i) => Number((wide >> BigInt(8 * i)) & 0xffn)),
      encrypted,
    );
  }

  /** Assembles a text and puts it where its origin says. */
  load(source: string, origin: number, bits = 64): Assembled {
    const code = assemble(source, origin, bits);
    this.write(origin, code.bytes);
    return code;
  }

  // -- Platform -----------------------------------------------------------------------------------------

  page(_cpu: Cpu, request: PageRequest): PageGrant | DevicePage {
    this.requests?.push(request);
    const device = this.devices.get(request.gpa);
    if (device) return device;
    return {
      frame: this.frame(request.gpa, request.encrypted),
      read: true,
      write: true,
      execute: true,
      executeUser: true,
      ...this.permissions.get(request.gpa),
    };
  }

  cpuid(_cpu: Cpu, leaf: number, subleaf: number): readonly [number, number, number, number] {
    return this.leaves.get(`${leaf >>> 0}.${subleaf >>> 0}`) ?? [0, 0, 0, 0];
  }
  readMsr(_cpu: Cpu, index: number): bigint {
    const value = this.msrs.get(index);
    if (value === undefined) throw generalProtection(0);
    return value;
  }
  writeMsr(_cpu: Cpu, index: number, value: bigint): void {
    if (!this.msrs.has(index)) throw generalProtection(0);
    this.msrs.set(index, value);
  }
  interceptsMsr(): boolean {
    return false;
  }
  portIn(_cpu: Cpu, port: number, size: number, instruction: PortInstruction): number {
    this.ports.push({ port, size, instruction });
    return this.input.shift() ?? (size === 4 ? 0xffff_ffff : 2 ** (size * 8) - 1);
  }
  portOut(_cpu: Cpu, port: number, size: number, value: number, instruction: PortInstruction): void {
    this.ports.push({ port, size, value, instruction });
  }
  timestamp(): bigint {
    return (this.clock += 100n);
  }
  /** SplitMix64. */
  random(): bigint {
    this.#seed = BigInt.asUintN(64, this.#seed + 0x9e37_79b9_7f4a_7c15n);
    let z = this.#seed;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
    return z ^ (z >> 31n);
  }
  intercept(_cpu: Cpu, instruction: string): void {
    this.intercepts.push(instruction);
    this.intercepted.get(instruction)?.();
  }
  pvalidate(): void {
    throw undefinedOpcode();
  }
  rmpadjust(): void {
    throw undefinedOpcode();
  }
  rmpquery(): void {
    throw undefinedOpcode();
  }
  vmgexit(cpu: Cpu): void {
    this.intercept(cpu, 'vmmcall');
    throw undefinedOpcode();
  }
  broadcastFlush(): void {
    this.broadcasts++;
    for (const cpu of this.#cpus) cpu.flushTlb();
  }
}

/** Page-table entry bits. */
export const PTE = { P: 1n, W: 2n, U: 4n, A: 0x20n, D: 0x40n, PS: 0x80n, G: 0x100n, NX: 1n << 63n } as const;

/** Flat segments: code and data of a privilege, 16, 32 or 64 bits wide. */
export function setFlatSegments(cpu: Cpu, bits: 16 | 32 | 64, cpl = 0): void {
  const wide = bits === 64 ? 0xa00 : bits === 32 ? 0xc00 : 0x800;
  const dpl = cpl << 5;
  cpu.setSegment(CS, { selector: 0x8 | cpl, attributes: wide | 0x9b | dpl, limit: 0xffff_ffff, base: 0n });
  for (const index of [SS, DS, ES, FS, GS])
    cpu.setSegment(index, {
      selector: 0x10 | cpl,
      attributes: (bits === 16 ? 0x800 : 0xc00) | 0x93 | dpl,
      limit: 0xffff_ffff,
      base: 0n,
    });
  cpu.cpl = cpl;
  cpu.updateMode();
}

/** Identity-maps the first 4 GiB with 2 MiB pages, present, writable, user; tables at `at` (6 pages). */
export function identityTables(machine: PlainMachine, at: number, extra = 0n): void {
  const flags = PTE.P | PTE.W | PTE.U | extra;
  machine.poke(at, 8, BigInt(at + 0x1000) | flags);
  for (let i = 0; i < 4; i++) {
    machine.poke(at + 0x1000 + i * 8, 8, BigInt(at + 0x2000 + i * 0x1000) | flags);
    for (let j = 0; j < 512; j++)
      machine.poke(
        at + 0x2000 + i * 0x1000 + j * 8,
        8,
        (BigInt(i) << 30n) | (BigInt(j) << 21n) | flags | PTE.PS,
      );
  }
}

/** Puts the processor into 64-bit mode at CPL 0, identity-mapped, with tables at `tables`. */
export function enterLongMode(machine: PlainMachine, cpu: Cpu, tables = 0x10_0000): void {
  identityTables(
    machine,
    tables,
    machine.encryptionBit === undefined ? 0n : 1n << BigInt(machine.encryptionBit),
  );
  cpu.setU64(STATE.cr3, BigInt(tables));
  cpu.setU64(STATE.cr4, 0x6a0n); // PAE, PGE, OSFXSR, OSXMMEXCPT
  cpu.setU64(STATE.efer, 0xd00n); // LME, LMA, NXE
  cpu.setU64(STATE.cr0, 0x8001_0033n); // PG, WP, NE, ET, MP, PE
  setFlatSegments(cpu, 64);
  cpu.flushTlb();
}

/** Puts the processor into flat 32-bit protected mode without paging. */
export function enterProtectedMode(cpu: Cpu): void {
  cpu.setU64(STATE.cr0, 0x33n);
  setFlatSegments(cpu, 32);
  cpu.flushTlb();
}

/** An 8-byte segment descriptor. */
export function descriptor(base: number, limit: number, attributes: number): bigint {
  const b = BigInt(base >>> 0);
  const l = BigInt(limit);
  const a = BigInt(attributes);
  return (
    (l & 0xffffn) |
    ((b & 0xff_ffffn) << 16n) |
    ((a & 0xffn) << 40n) |
    (((l >> 16n) & 0xfn) << 48n) |
    (((a >> 8n) & 0xfn) << 52n) |
    ((b >> 24n) << 56n)
  );
}

/** Writes a GDT (descriptor 0 is the null one) and points GDTR at it. */
export function setGdt(machine: PlainMachine, cpu: Cpu, at: number, entries: readonly bigint[]): void {
  [0n, ...entries].forEach((entry, i) => machine.poke(at + i * 8, 8, entry));
  cpu.setSegment(GDTR, { selector: 0, attributes: 0, limit: (entries.length + 1) * 8 - 1, base: BigInt(at) });
}

/** Writes a 64-bit interrupt gate (type 14) or trap gate (15). */
export function setGate64(
  machine: PlainMachine,
  idt: number,
  vector: number,
  target: bigint | number,
  options: { selector?: number; type?: number; dpl?: number; ist?: number; present?: boolean } = {},
): void {
  const offset = BigInt(target);
  const { selector = 8, type = 14, dpl = 0, ist = 0, present = true } = options;
  const attributes = BigInt(ist | (type << 8) | (dpl << 13) | (present ? 0x8000 : 0));
  machine.poke(
    idt + vector * 16,
    8,
    (offset & 0xffffn) |
      (BigInt(selector) << 16n) |
      (attributes << 32n) |
      (((offset >> 16n) & 0xffffn) << 48n),
  );
  machine.poke(idt + vector * 16 + 8, 8, offset >> 32n);
}

export const setIdt = (cpu: Cpu, at: number, limit = 0xfff): void =>
  cpu.setSegment(IDTR, { selector: 0, attributes: 0, limit, base: BigInt(at) });
