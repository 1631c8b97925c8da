/**
 * What the untrusted host does when a guest leaves to it. One instance serves a machine; the GHCB protocols
 * are in `ghcb-msr.ts` and `ghcb-events.ts`. Guest registers are out of reach here: only shared pages, the GHCB
 * MSR and the RMP through RMPUPDATE.
 */
import { CvmError, NotImplemented, hex } from '../base/index.ts';
import { EXIT } from '../snp/index.ts';
import type { NestedFault, Rmp } from '../snp/index.ts';
import { GuestException, VECTOR, deliverWithNesting, interruptible } from '../x86/index.ts';
import type { VmExit } from '../x86/index.ts';
import { logicalId } from './apic.ts';
import type { InterprocessorInterrupt, LocalApic } from './apic.ts';
import type { CpuModel } from './cpuid-model.ts';
import type { PortBus } from './devices.ts';
import { answerGhcbEvent } from './ghcb-events.ts';
import { answerGhcbMsr } from './ghcb-msr.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { MachineStop } from './machine.ts';
import type { Thread, Vcpu } from './thread.ts';

/** Why the machine cannot go on; `thread` and `rip` are added by the machine. */
export type StopRequest = Pick<MachineStop, 'reason' | 'message' | 'final'> &
  Partial<Pick<MachineStop, 'exitCode' | 'termination' | 'error' | 'exception'>>;

/** What the host is made of. */
export interface HostParts {
  readonly memory: GuestMemory;
  readonly rmp: Rmp;
  readonly vcpus: readonly Vcpu[];
  readonly ports: PortBus;
  readonly model: CpuModel;
  readonly features: bigint;
  timestamp(thread: Thread): bigint;
  log(thread: Thread, kind: string, text: string): void;
  /** Makes the thread of a vCPU at a VMPL, its VMSA in guest memory at `gpa`. */
  createThread(vcpu: Vcpu, vmpl: number, gpa: number): Thread;
  /** Carries a guest's message page to the secure firmware. */
  guestRequest(page: Uint8Array): { readonly status: number; readonly response?: Uint8Array };
}

const failure = (error: CvmError): StopRequest => ({
  reason: error instanceof NotImplemented ? 'not-implemented' : 'error',
  message: error.message,
  final: true,
  error,
});

export class Host {
  readonly parts: HostParts;
  /** Set while an exit is answered: the guest's write that ends the machine. */
  stop: StopRequest | undefined;

  constructor(parts: HostParts) {
    this.parts = parts;
  }

  /** Answers an exit of `thread`; undefined: it, or another VMPL of its vCPU, can go on. */
  answer(thread: Thread, exit: VmExit): StopRequest | undefined {
    this.stop = undefined;
    try {
      switch (exit.reason) {
        case 'hlt':
          thread.halted = !this.#wakes(thread);
          if (thread.halted) this.parts.log(thread, 'hlt', 'halts');
          break;
        case 'pause':
          break;
        case 'npf':
          return this.#nestedFault(thread, exit.detail as NestedFault) ?? this.stop;
        case 'vmgexit':
          if ((thread.platform.ghcbMsr & 0xfffn) !== 0n) answerGhcbMsr(this, thread);
          else answerGhcbEvent(this, thread);
          break;
        case 'shutdown':
          return { reason: 'shutdown', message: `${thread.name}: triple fault`, final: true };
        default:
          throw new NotImplemented(`an exit for reason ${exit.reason}`);
      }
    } catch (error) {
      if (error instanceof CvmError) return failure(error);
      throw error;
    }
    return this.stop;
  }

  // -- nested page faults -------------------------------------------------------------------------------

  #nestedFault(thread: Thread, fault: NestedFault): StopRequest | undefined {
    const { memory, rmp, log } = this.parts;
    const { gpa } = fault;
    if (!memory.isMemory(gpa))
      return failure(
        new CvmError('gpa-unmapped', `${fault.message}; there is no memory at this address`, {
          gpa: BigInt(gpa),
        }),
      );
    switch (fault.cause) {
      case 'size-mismatch':
        rmp.psmash(gpa);
        return undefined;
      case 'not-assigned':
        if (memory.isShared(gpa))
          log(thread, 'npf', `${fault.message}; QEMU makes it private, its shared contents are lost`);
        memory.assign(gpa);
        return undefined;
      case 'not-shared':
        log(thread, 'npf', `${fault.message}; QEMU makes it shared, its private contents are lost`);
        memory.setShared(gpa, false);
        return undefined;
      case 'vmpl':
        return failure(new CvmError('rmp-violation', fault.message, { gpa: BigInt(gpa) }));
    }
  }

  // -- shared memory ------------------------------------------------------------------------------------

  /** A shared page as the host maps it, live; undefined if the page is private or not memory. */
  sharedPage(gpa: number): Uint8Array | undefined {
    const { memory } = this.parts;
    if (!memory.isMemory(gpa) || !memory.isShared(gpa)) return undefined;
    const frame = memory.sharedFrame(gpa - (gpa % 4096));
    return frame === 0 ? undefined : memory.frameBytes(frame);
  }

  // -- VMPLs --------------------------------------------------------------------------------------------

  /**
   * Leaves `thread` and enters its vCPU at `vmpl`. False: nothing was registered for that VMPL.
   * @throws CvmError if VMRUN refuses the VMSA.
   */
  switchVmpl(thread: Thread, vmpl: number, exitCode: number): boolean {
    const target = thread.owner.threads[vmpl];
    if (!target || target.ended) return false;
    if (target === thread) return true;
    thread.leave(exitCode);
    target.enter();
    this.parts.log(target, 'vmpl-switch', `enters VMPL${vmpl} from VMPL${thread.vmpl}`);
    return true;
  }

  // -- interrupts ---------------------------------------------------------------------------------------

  /** Sends an interprocessor interrupt of `sender` to the same VMPL of its destinations. */
  send(sender: LocalApic, vcpu: number, vmpl: number, interrupt: InterprocessorInterrupt): void {
    const from = this.parts.vcpus[vcpu]!.threads[vmpl]!;
    if (interrupt.mode === 5 || interrupt.mode === 6) {
      this.parts.log(from, 'ipi', 'INIT or startup IPI: an SNP vCPU is started by AP creation only');
      return;
    }
    if (interrupt.mode === 4) throw new NotImplemented('an NMI sent by an IPI');
    if (interrupt.mode > 1) {
      this.parts.log(from, 'ipi', `delivery mode ${interrupt.mode} is no IPI: ignored`);
      return;
    }
    for (const { threads, index } of this.parts.vcpus) {
      const target = threads[vmpl];
      if (!target || !addressed(interrupt, sender.apicId, index)) continue;
      target.apic.request(interrupt.vector);
      this.post(target);
    }
  }

  /**
   * After a request came in, an interrupt ended or a doorbell page was registered: shows the highest request in the
   * doorbell page, and ends HLT if the guest has something to take. Done at these events only, never because a
   * slice of the schedule ends: execution must not depend on slices.
   */
  post(thread: Thread): void {
    const { apic } = thread;
    if (apic.doorbellGpa !== undefined && apic.hasRequest) {
      const page = this.sharedPage(apic.doorbellGpa);
      if (!page)
        throw new CvmError('doorbell', `the #HV doorbell page at ${hex(apic.doorbellGpa)} is not shared`);
      apic.ring(page);
    }
    if (thread.halted && this.#wakes(thread)) thread.halted = false;
  }

  /** An interrupt or #HV is pending that ends HLT. */
  #wakes(thread: Thread): boolean {
    const { apic } = thread;
    if (thread.restricted) return apic.signalPending;
    return apic.hasRequest && interruptible(thread.cpu);
  }

  /**
   * Before a vCPU runs on: injects #HV or an interrupt, and brings a more privileged VMPL back if one has a
   * signal. Returns a stop if the guest cannot take it.
   */
  inject(vcpu: Vcpu): StopRequest | undefined {
    try {
      for (const thread of vcpu.threads) {
        const { active } = vcpu;
        if (!thread || !active || thread.vmpl >= active.vmpl || !thread.apic.signalPending) continue;
        this.switchVmpl(active, thread.vmpl, EXIT.INTR);
      }
      const thread = vcpu.active;
      if (thread) this.#injectInto(thread);
    } catch (error) {
      if (error instanceof CvmError) return failure(error);
      if (isShutdown(error))
        return { reason: 'shutdown', message: `${vcpu.active?.name}: triple fault`, final: true };
      throw error;
    }
    return undefined;
  }

  #injectInto(thread: Thread): void {
    const { apic, cpu } = thread;
    if (thread.restricted) {
      if (!apic.signalPending) return;
      apic.signalPending = false;
      thread.halted = false;
      deliverWithNesting(cpu, new GuestException(VECTOR.HV));
      return;
    }
    if (!apic.hasRequest || !interruptible(cpu)) return;
    const vector = apic.acknowledge(thread.taskPriority);
    if (vector === undefined) return;
    thread.halted = false;
    deliverWithNesting(cpu, { vector, kind: 'external' });
  }
}

const isShutdown = (error: unknown): boolean =>
  typeof error === 'object' && error !== null && (error as { reason?: unknown }).reason === 'shutdown';

function addressed(interrupt: InterprocessorInterrupt, sender: number, apicId: number): boolean {
  switch (interrupt.shorthand) {
    case 'self':
      return apicId === sender;
    case 'all':
      return true;
    case 'others':
      return apicId !== sender;
    case undefined:
      break;
  }
  if (interrupt.destination === 0xffff_ffff) return true;
  if (!interrupt.logical) return interrupt.destination === apicId;
  const own = logicalId(apicId);
  return own >>> 16 === interrupt.destination >>> 16 && (own & interrupt.destination & 0xffff) !== 0;
}
