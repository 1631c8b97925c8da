/** The public face of the machine: what the debugger, the command line and tests drive it with. */
import type { Crypto } from '../base/index.ts';
import type { CvmError } from '../base/index.ts';
import type { IgvmFile, ProfileName } from '../igvm/index.ts';
import type { Cpu } from '../x86/index.ts';

export interface MachineOptions {
  readonly image: IgvmFile;
  readonly crypto: Crypto;
  /** Number of virtual processors, 1 to 64; APIC ids are 0 … vcpus-1. */
  readonly vcpus: number;
  /** Guest memory in bytes (a multiple of 4 KiB), from GPA 0, with QEMU's hole below 4 GiB. */
  readonly memory: number;
  /** Only SEV-SNP today. */
  readonly platform?: 'snp';
  /** Everything random is drawn from it (VMPCKs, RDRAND …); default 0. */
  readonly seed?: number | bigint;
  /** How the loader reads the file (default `qemu-kvm`; see `PROFILES` in `igvm/`). */
  readonly profile?: ProfileName;
  /** Bytes written to a 16550's transmit register; `port` is its base (0x3f8, 0x2f8, 0x3e8, 0x2e8). */
  readonly onConsole?: (port: number, bytes: Uint8Array) => void;
  /** Called for every host-side event as it happens (also kept, bounded, in `Machine.events`). */
  readonly onEvent?: (event: MachineEvent) => void;
  /** Row of the processor table in `cpuid-model.ts`; default `EPYC-Milan-v2`. */
  readonly cpuModel?: string;
  /** GHCB hypervisor features (GHCB MSR 0x081); default 0x27: SNP, AP creation, #HV doorbell, multi-VMPL. */
  readonly hypervisorFeatures?: bigint;
  /** Back untouched private memory by 2 MiB RMP entries (default); false: 4 KiB only, as guest_memfd does today. */
  readonly largePages?: boolean;
  /** Text for COMMAND_LINE parameters; default none. */
  readonly commandLine?: string;
}

export type ThreadState = 'runnable' | 'running' | 'halted' | 'waiting-for-ap' | 'terminated';

/** One vCPU at one VMPL: what the debugger calls a thread. */
export interface MachineThread {
  /** Stable for the life of the machine, from 1: `1 + vcpu * 4 + vmpl`. */
  readonly id: number;
  readonly vcpu: number;
  readonly vmpl: number;
  /** `vCPU 0 · VMPL0`. */
  readonly name: string;
  /** Its live registers. Only valid to read (or, by the debugger, to change) between calls of `run`. */
  readonly cpu: Cpu;
  /**
   * `running`: the VMPL its vCPU is at, and scheduled last; `runnable`: could be scheduled (or, below the
   * active VMPL, entered by RUN_VMPL); `halted`: HLT, waiting for an interrupt; `waiting-for-ap`: created, not yet
   * started; `terminated`: its VMSA was destroyed or the machine has ended.
   */
  readonly state: ThreadState;
  /** True for the one VMPL its vCPU would execute next. */
  readonly active: boolean;
  /** GPA of its VMSA. */
  readonly vmsaGpa: bigint;
}

export type StopReason =
  /** `maxInstructions` were executed. */
  | 'budget'
  /** A breakpoint: `rip` has not been executed yet. */
  | 'breakpoint'
  /** An exception that `stopOnExceptions` names: `rip` is at the instruction, nothing has been delivered yet. */
  | 'exception'
  /** `stepInstruction` did its one instruction. */
  | 'step'
  /** Every vCPU is halted and nothing is pending: no instruction will ever run unless the host sends input. */
  | 'idle'
  /** The guest asked to be terminated (GHCB MSR 0x100); `termination` says why. */
  | 'terminated'
  /** A triple fault. */
  | 'shutdown'
  /** The guest wrote isa-debug-exit; `exitCode` is QEMU's `(value << 1) | 1`. */
  | 'exit'
  /** The guest needs something this machine does not have; `error` names it. */
  | 'not-implemented'
  /** The host gave up as KVM would (invalid VMSA, RMP violation …), or an internal error; see `error`. */
  | 'error';

export interface MachineStop {
  readonly reason: StopReason;
  readonly thread: MachineThread;
  /** Address of the next instruction of `thread` (of the one that could not be done, where that is the reason). */
  readonly rip: bigint;
  /** A sentence. */
  readonly message: string;
  /** True when the machine cannot run on: every further `run` gives the same stop. */
  readonly final: boolean;
  readonly exitCode?: number;
  /** GHCB spec. 2.3.1: reason set and code, with the meaning where one is known. */
  readonly termination?: { readonly set: number; readonly code: number; readonly meaning: string };
  readonly error?: CvmError;
  /** With `exception`: what was raised; `name` is `#PF`, the error code is missing where none is pushed. */
  readonly exception?: {
    readonly vector: number;
    readonly name: string;
    readonly errorCode?: number;
    /** Linear address of a #PF. */
    readonly address?: bigint;
  };
}

/** Vectors to stop for; 'all': every exception except #DB and #BP, which are debugging itself. */
export type ExceptionVectors = ReadonlySet<number> | 'all';

export interface Breakpoint {
  /** Linear address. */
  readonly address: bigint;
  readonly vcpu?: number;
  readonly vmpl?: number;
}

export interface MemoryRead {
  /** `length` bytes; those from `readable` on are zeros. */
  readonly bytes: Uint8Array;
  /** How many bytes could be read from the start. */
  readonly readable: number;
}

/** Which of the two backings of a guest-physical page. */
export type MemorySpace = 'private' | 'shared';

export interface Translation {
  readonly gpa: bigint;
  /** C-bit of the mapping (true where paging is off: such accesses are encrypted). */
  readonly encrypted: boolean;
  /** Of the guest's mapping, in bytes: 4096, 2 MiB or 1 GiB. */
  readonly pageSize: number;
  readonly writable: boolean;
  readonly user: boolean;
  readonly executable: boolean;
}

/** RMP state of one 4 KiB page, as the inspector shows it. */
export interface RmpState {
  readonly gpa: bigint;
  readonly assigned: boolean;
  readonly validated: boolean;
  readonly vmsa: boolean;
  readonly immutable: boolean;
  readonly pageSize: 4096 | 0x20_0000;
  /** Index 0 to 3: bit 0 read, 1 write, 2 execute user, 3 execute supervisor. */
  readonly permissions: readonly [number, number, number, number];
  /** Which backings of the page exist, and which one the nested page table shows. */
  readonly hasPrivate: boolean;
  readonly hasShared: boolean;
}

/** Consecutive pages of one RMP state. */
export interface RmpRange extends RmpState {
  readonly pages: number;
}

export interface RmpInspector {
  /** Undefined outside guest memory. */
  entry(gpa: bigint): RmpState | undefined;
  /** All assigned or touched guest memory as runs of equal state, ascending; at most `limit` (default 4096). */
  ranges(limit?: number): readonly RmpRange[];
}

/** Something the host saw or did. */
export interface MachineEvent {
  /** Counts all events of the machine from 0. */
  readonly sequence: number;
  /** Machine-wide retired instructions when it happened. */
  readonly retired: number;
  readonly vcpu: number;
  readonly vmpl: number;
  /** Address of the instruction that led to it. */
  readonly rip: bigint;
  /** Stable word: `ghcb-msr`, `vmgexit`, `npf`, `page-state`, `vmpl-switch`, `ap-create`, `hlt`, `launch` … */
  readonly kind: string;
  /** A line for a person. */
  readonly text: string;
}

/**
 * A deterministic machine: the same options and the same calls give the same bytes, for ever. Guest time
 * is retired instructions. Nothing here is asynchronous.
 */
export interface Machine {
  /** In order of creation; thread 1 (vCPU 0 · VMPL0) is always there. Grows, never shrinks. */
  readonly threads: readonly MachineThread[];
  /** Who runs, or ran last. */
  readonly current: MachineThread;
  /** Machine-wide retired instructions: the clock. Exact between calls of `run`. */
  readonly retired: number;
  /** SHA-384 launch digest (48 bytes) accumulated by the emulated secure firmware. */
  readonly launchDigest: Uint8Array;
  /** The latest events, oldest first; bounded (older ones are dropped, `sequence` tells how many). */
  readonly events: readonly MachineEvent[];
  /** The final stop, once there was one. */
  readonly ended: MachineStop | undefined;

  /**
   * Runs the vCPUs on their fixed schedule until `maxInstructions` more have retired or something stops the
   * machine. Calling it in slices of any size gives the same execution as one call. A breakpoint at the
   * current instruction of the thread that stopped on it is stepped over.
   */
  run(maxInstructions: number): MachineStop;
  /**
   * Exactly one instruction of `thread` (default `current`), ignoring breakpoints; other vCPUs do not run. An
   * instruction that leaves to the host counts as done when the host has answered it. The stop's reason is
   * `step` unless the machine ended or the thread cannot run now (`idle`: halted, or not its vCPU's active VMPL).
   */
  stepInstruction(thread?: MachineThread): MachineStop;

  addBreakpoint(breakpoint: Breakpoint): void;
  removeBreakpoint(breakpoint: Breakpoint): void;
  clearBreakpoints(): void;

  /**
   * Stops (`exception`) when a thread raises one of these, before it is delivered; running or stepping on
   * delivers it. Not for interrupts, for INT n and its kin, nor for single-step traps. Undefined, as at the
   * start: never. Machines without it do not stop on exceptions.
   */
  stopOnExceptions?(vectors: ExceptionVectors | undefined): void;

  /** Reads as far as the thread's page tables and the RMP map memory. Sets nothing: no A bit, no TLB entry. */
  readVirtual(thread: MachineThread, address: bigint, length: number): MemoryRead;
  /** The debugger's own write: ignores page permissions; all or nothing. Returns the bytes written (0 if any is unmapped). */
  writeVirtual(thread: MachineThread, address: bigint, bytes: Uint8Array): number;
  /** Reads one backing of guest-physical memory; an untouched page reads as zeros, beyond memory it ends. */
  readPhysical(gpa: bigint, length: number, space: MemorySpace): MemoryRead;
  writePhysical(gpa: bigint, bytes: Uint8Array, space: MemorySpace): number;
  /** The guest's page walk from the thread's CR3; undefined if not mapped. Sets nothing. */
  translate(thread: MachineThread, address: bigint): Translation | undefined;

  readonly rmp: RmpInspector;
  /** The 4096 bytes the thread's VMSA would hold if it exited now: the live registers included. */
  vmsa(thread: MachineThread): Uint8Array;

  /** Bytes for the receive side of the 16550 at `port`, queued at the current instruction. */
  input(port: number, bytes: Uint8Array): void;
}
