/**
 * What surrounds the processor. `x86/` asks a platform for the meaning of a page, and of every
 * instruction a hypervisor may intercept; SEV-SNP, SEV-ES and a plain machine are three answers.
 */
import type { Cpu } from './cpu.ts';

export type Access = 'read' | 'write' | 'execute';

/** One guest-physical page, asked for when a TLB entry is filled. */
export interface PageRequest {
  /** Page-aligned guest-physical address with the C-bit removed (a page table's or a data page's). */
  readonly gpa: number;
  /** C-bit of the mapping (true for page walks and unpaged accesses of an encrypted guest). */
  readonly encrypted: boolean;
  readonly access: Access;
  /** Privilege the VMPL permission check uses: true at CPL 3. */
  readonly user: boolean;
  /** The access is the processor's own walk of the guest's page tables. */
  readonly pageTable: boolean;
  /** Linear address that led here, for messages and #PF. */
  readonly linear: bigint;
  /** A debugger's look: answer from what is there, change nothing, record nothing. */
  readonly peek?: boolean;
}

/** What the TLB may cache about a page. */
export interface PageGrant {
  /** Byte offset of the 4 KiB frame in the machine's memory. */
  readonly frame: number;
  readonly read: boolean;
  readonly write: boolean;
  /** Permission to execute at supervisor and at user privilege. */
  readonly execute: boolean;
  readonly executeUser: boolean;
}

/** A page that is a device: every access of 1, 2, 4 or 8 bytes goes through these. */
export interface DevicePage {
  readonly device: true;
  read(gpa: number, size: number): bigint;
  write(gpa: number, size: number, value: bigint): void;
}

/**
 * Each method either answers, or throws a `GuestException` (what the guest sees: #VC, #GP …), a
 * `VmExit` (what the host sees), or `NotImplemented`.
 */
export interface Platform {
  readonly name: string;
  /** Highest physical address width the page walk accepts (bits), and the C-bit's position if any. */
  readonly physicalAddressBits: number;
  readonly encryptionBit: number | undefined;

  page(cpu: Cpu, request: PageRequest): PageGrant | DevicePage;

  cpuid(
    cpu: Cpu,
    leaf: number,
    subleaf: number,
  ): readonly [eax: number, ebx: number, ecx: number, edx: number];
  /** RDMSR/WRMSR of an MSR the processor does not keep itself, or that is intercepted. */
  readMsr(cpu: Cpu, index: number): bigint;
  writeMsr(cpu: Cpu, index: number, value: bigint): void;
  /** True if RDMSR/WRMSR of this MSR must be asked of the platform although the processor keeps it. */
  interceptsMsr(cpu: Cpu, index: number, write: boolean): boolean;
  portIn(cpu: Cpu, port: number, size: number, instruction: PortInstruction): number;
  portOut(cpu: Cpu, port: number, size: number, value: number, instruction: PortInstruction): void;
  timestamp(cpu: Cpu): bigint;
  /** RDRAND and RDSEED: 64 bits drawn from the machine's seed, never from the outside. */
  random(cpu: Cpu): bigint;
  /** `instruction` is 'rdtsc', 'rdtscp', 'hlt', 'wbinvd', 'invd', 'monitor', 'mwait', 'rdpmc', 'rdpru', 'vmmcall', 'pause',
   *  'mov_dr7_write', 'mov_dr7_read'; returning from 'vmmcall' raises #UD, from the others goes on. */
  intercept(cpu: Cpu, instruction: string): void;

  /** RAX gpa-linear, ECX page size, EDX validate: sets EAX and CF (APM vol. 3, PVALIDATE). */
  pvalidate(cpu: Cpu): void;
  rmpadjust(cpu: Cpu): void;
  rmpquery(cpu: Cpu): void;
  vmgexit(cpu: Cpu): void;

  /** INVLPGB: drops the translations of every processor of this guest, before it returns. Without it INVLPGB is #UD. */
  broadcastFlush?(cpu: Cpu): void;
}

/** How a port access was written, for the #VC/GHCB exit information. */
export interface PortInstruction {
  readonly string: boolean;
  readonly rep: boolean;
  /** Address size in bytes and segment index, for string forms. */
  readonly addressSize: number;
  readonly segment: number;
}
