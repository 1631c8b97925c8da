/** A KVM guest without encryption, as its processors see it: memory and devices, CPUID, MSRs. One instance a vCPU. */
import { VmExit, generalProtection, undefinedOpcode } from '../../x86/index.ts';
import type { Cpu, DevicePage, PageGrant, PageRequest, Platform } from '../../x86/index.ts';
import { hostCpuid } from '../cpuid-model.ts';
import type { CpuModel } from '../cpuid-model.ts';
import type { PortBus } from '../devices.ts';
import { IO_APIC_ADDRESS } from './acpi.ts';
import type { IoApic } from './io-apic.ts';
import type { PlainLocalApic } from './local-apic.ts';
import type { PlainMemory } from './memory.ts';

/** What all processors share. */
export interface PlainSurroundings {
  readonly memory: PlainMemory;
  readonly ports: PortBus;
  readonly ioApic: IoApic;
  readonly model: CpuModel;
  readonly vcpus: number;
  /** Behind pc-testdev's window, 64 KiB. */
  readonly testMemory: Uint8Array;
  /** Nanoseconds since the start: the time-stamp counter ticks once in each. */
  now(): number;
  random(): bigint;
  flushTranslations(): void;
}

const MSR_TSC = 0x10;
const MSR_APIC_BASE = 0x1b;
const MSR_TSC_DEADLINE = 0x6e0;
const isApicMsr = (index: number): boolean =>
  index === MSR_APIC_BASE || index === MSR_TSC_DEADLINE || (index >= 0x800 && index <= 0x8ff);

/** MSRs that only remember, with their values at reset; others of a Milan under KVM are in `fixedMsr`. */
const STORED: Readonly<Record<number, bigint>> = {
  0xfe: 0n,
  0x2ff: 0x6n, // MTRRs off, write-back
  ...Object.fromEntries(Array.from({ length: 16 }, (_, i) => [0x200 + i, 0n])),
  ...Object.fromEntries(
    [0x250, 0x258, 0x259, ...Array.from({ length: 8 }, (_, i) => 0x268 + i)].map((index) => [index, 0n]),
  ),
  // Performance counters: exist, and never count.
  ...Object.fromEntries(Array.from({ length: 8 }, (_, i) => [0xc001_0000 + i, 0n])),
  ...Object.fromEntries(Array.from({ length: 12 }, (_, i) => [0xc001_0200 + i, 0n])),
  0x17a: 0n, // MCG_STATUS
  0x48: 0n, // SPEC_CTRL
  0xc001_011f: 0n, // VIRT_SPEC_CTRL
  0xc001_0015: 0x100_0010n, // HWCR: TscFreqSel, SmmLock
  0xc001_0010: 0n, // SYSCFG: no memory encryption
  0xc001_001a: 0n,
  0xc001_001d: 0n,
  0xc001_1020: 0n,
  0xc001_1022: 0n,
  0xc001_1029: 0x2n, // DE_CFG: LFENCE serializes
  0xc001_0140: 0n, // OSVW
  0xc001_0141: 0n,
  0xc001_0055: 0n,
  0xc001_0058: 0n,
};

/** Read-only ones. */
const FIXED: Readonly<Record<number, bigint>> = {
  0xfe: 0x508n, // MTRRcap: 8 variable ranges, fixed ranges, write-combining
  0x8b: 0x0a00_11d1n, // patch level
  0x179: 0n, // MCG_CAP: no banks
  0x1d9: 0n,
};

const LEAF1_OSXSAVE = 1 << 27;
const LEAF1_TSC_DEADLINE = 1 << 24;
const LEAF1_APIC = 1 << 9;
const CR4_OSXSAVE = 1 << 18;
const INVARIANT_TSC = 1 << 8;
const APIC_PAGE_MASK = 0xfff;
/** QEMU's pc-testdev: memory that is reached as a device is. */
const TEST_MEMORY = { start: 0xff00_0000, size: 0x1_0000 } as const;

export class PlainPlatform implements Platform {
  readonly name = 'plain';
  readonly physicalAddressBits: number;
  readonly encryptionBit = undefined;
  /** Set by the machine once the processor's APIC exists. */
  apic!: PlainLocalApic;
  readonly #around: PlainSurroundings;
  readonly #stored = new Map(Object.entries(STORED).map(([index, value]) => [Number(index), value]));
  /** What WRMSR of the time-stamp counter added. */
  #tscOffset = 0n;
  readonly #apicPage: DevicePage;
  readonly #ioApicPage: DevicePage;
  readonly #testMemory: DevicePage;
  readonly #nothing: DevicePage;

  constructor(around: PlainSurroundings) {
    this.#around = around;
    this.physicalAddressBits = around.model.physicalAddressBits;
    this.#apicPage = {
      device: true,
      read: (gpa, size) => this.apic.readPage(gpa, size),
      write: (gpa, size, value) => this.apic.writePage(gpa, size, value),
    };
    this.#ioApicPage = {
      device: true,
      read: (gpa, size) => BigInt.asUintN(size * 8, BigInt(around.ioApic.read(gpa & APIC_PAGE_MASK) >>> 0)),
      write: (gpa, _size, value) => around.ioApic.write(gpa & APIC_PAGE_MASK, Number(value & 0xffff_ffffn)),
    };
    const bytes = around.testMemory;
    this.#testMemory = {
      device: true,
      read: (gpa, size) => {
        let value = 0n;
        for (let i = size - 1; i >= 0; i--)
          value = (value << 8n) | BigInt(bytes[gpa - TEST_MEMORY.start + i] ?? 0xff);
        return value;
      },
      write: (gpa, size, value) => {
        for (let i = 0; i < size; i++)
          bytes[gpa - TEST_MEMORY.start + i] = Number((value >> BigInt(8 * i)) & 0xffn);
      },
    };
    // Nobody answers: reads float high.
    this.#nothing = {
      device: true,
      read: (_gpa, size) => BigInt.asUintN(size * 8, -1n),
      write: () => {},
    };
  }

  page(_cpu: Cpu, { gpa }: PageRequest): PageGrant | DevicePage {
    const frame = this.#around.memory.frame(gpa);
    if (frame !== 0) return { frame, read: true, write: true, execute: true, executeUser: true };
    if (this.apic.mapped && gpa === this.apic.pageAddress) return this.#apicPage;
    if (gpa === IO_APIC_ADDRESS) return this.#ioApicPage;
    return gpa >= TEST_MEMORY.start && gpa < TEST_MEMORY.start + TEST_MEMORY.size
      ? this.#testMemory
      : this.#nothing;
  }

  cpuid(cpu: Cpu, leaf: number, subleaf: number): readonly [number, number, number, number] {
    const { model, vcpus } = this.#around;
    const { apicId } = this.apic;
    // No memory encryption to offer.
    if (leaf >>> 0 === 0x8000_001f) return [0, 0, 0, 0];
    const values = hostCpuid(model, vcpus, apicId, leaf >>> 0, subleaf);
    const [eax, ebx, ecx, edx] = values;
    if (leaf === 1) {
      const osxsave = (cpu.cr4 & CR4_OSXSAVE) !== 0 ? LEAF1_OSXSAVE : 0;
      return [
        eax,
        ebx,
        (ecx & ~LEAF1_OSXSAVE) | osxsave | LEAF1_TSC_DEADLINE,
        this.apic.enabled ? edx : edx & ~LEAF1_APIC,
      ];
    }
    if (leaf >>> 0 === 0x8000_0007) return [eax, ebx, ecx, edx | INVARIANT_TSC];
    return values;
  }

  // -- model-specific registers -----------------------------------------------------------------------------

  readMsr(_cpu: Cpu, index: number): bigint {
    if (index === MSR_TSC) return this.timestamp();
    if (isApicMsr(index)) return this.apic.readMsr(index);
    const value = FIXED[index] ?? this.#stored.get(index);
    if (value === undefined) throw generalProtection();
    return value;
  }
  writeMsr(_cpu: Cpu, index: number, value: bigint): void {
    if (index === MSR_TSC) this.#tscOffset = BigInt.asUintN(64, value - BigInt(this.#around.now()));
    else if (isApicMsr(index)) this.apic.writeMsr(index, value);
    else if (index === 0x49 || index === 0x79 || index === 0xc001_0020)
      return; // PRED_CMD; microcode updates
    else if (index in FIXED || !this.#stored.has(index)) throw generalProtection();
    else this.#stored.set(index, value);
  }
  interceptsMsr(): boolean {
    return false;
  }

  timestamp(): bigint {
    return BigInt.asUintN(64, BigInt(this.#around.now()) + this.#tscOffset);
  }
  /** When the time-stamp counter reaches a value; in the past where it already has. */
  timeOfTsc(tsc: bigint): number {
    return Number(BigInt.asIntN(64, tsc - this.#tscOffset));
  }

  // -- ports and the rest -------------------------------------------------------------------------------------

  portIn(_cpu: Cpu, port: number, size: number): number {
    return this.#around.ports.read(port, size);
  }
  portOut(_cpu: Cpu, port: number, size: number, value: number): void {
    this.#around.ports.write(port, size, value);
  }
  random(): bigint {
    return this.#around.random();
  }

  intercept(_cpu: Cpu, instruction: string): void {
    switch (instruction) {
      case 'hlt':
        throw new VmExit('hlt', true);
      case 'pause':
        if (this.#around.vcpus > 1) throw new VmExit('pause', true);
        return;
      case 'vmmcall':
        throw new VmExit('vmmcall', true);
      default:
    }
  }

  pvalidate(): never {
    throw undefinedOpcode();
  }
  rmpadjust(): never {
    throw undefinedOpcode();
  }
  rmpquery(): never {
    throw undefinedOpcode();
  }
  /** Without SEV-ES the same bytes are VMMCALL (APM vol. 3, VMGEXIT). */
  vmgexit(): never {
    throw new VmExit('vmmcall', true);
  }
  broadcastFlush(): void {
    this.#around.flushTranslations();
  }
}
