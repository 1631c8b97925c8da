/** The machine: its parts put together, and the fixed schedule on which its vCPUs run. */
import { CvmError, NotImplemented } from '../base/index.ts';
import { Rmp, SecureProcessor } from '../snp/index.ts';
import type { SnpSurroundings } from '../snp/index.ts';
import { Engine, MachineMemory } from '../x86/index.ts';
import { LocalApic } from './apic.ts';
import { Breakpoints } from './breakpoints.ts';
import { ConsoleBuffer } from './console-buffer.ts';
import { cpuModel, cpuidFunctions } from './cpuid-model.ts';
import { PortBus } from './devices.ts';
import { EventLog } from './event-log.ts';
import { ExceptionStops } from './exception-stops.ts';
import { GuestMemory } from './guest-memory.ts';
import { Host } from './host.ts';
import type { StopRequest } from './host.ts';
import { RmpView, readPhysical, readVirtual, translate, writePhysical, writeVirtual } from './inspect.ts';
import { launch } from './loader.ts';
import type {
  Breakpoint,
  ExceptionVectors,
  Machine,
  MachineEvent,
  MachineOptions,
  MachineStop,
  MachineThread,
  MemoryRead,
  MemorySpace,
  RmpInspector,
  Translation,
} from './machine.ts';
import { ramLayout } from './parameters.ts';
import { RandomSource } from './random.ts';
import { Schedule } from './schedule.ts';
import { Thread, Vcpu } from './thread.ts';

const MAX_VCPUS = 64;
/** Exits in a row that retire nothing before the machine is declared stuck. */
const FRUITLESS_LIMIT = 100_000;
/** Restricted injection is advertised: the guest gets #HV (GHCB features 0, 1, 2, 5). */
const DEFAULT_FEATURES = 0x27n;
/** Machine memory beside guest frames, of which a page has one: decoded code, and a vCPU's contexts. */
const OVERHEAD = 64 << 20;
const OVERHEAD_PER_VCPU = 1 << 20;
const ROUND = 64 << 20;

/** What came of a slice on one thread. */
interface Executed {
  readonly retired: number;
  readonly stop: MachineStop | undefined;
  /** It ended on an exception handler's first instruction (asked for by a step). */
  readonly delivered?: boolean;
}

export class SnpMachine implements Machine {
  readonly threads: Thread[] = [];
  retired = 0;
  ended: MachineStop | undefined;
  readonly rmp: RmpInspector;
  readonly launchDigest: Uint8Array;
  readonly #memory: MachineMemory;
  readonly #engine: Engine;
  readonly #rmpTable = new Rmp();
  readonly #guest: GuestMemory;
  readonly #host: Host;
  readonly #vcpus: readonly Vcpu[];
  readonly #ports: PortBus;
  readonly #firmware: SecureProcessor;
  readonly #console: ConsoleBuffer;
  readonly #log: EventLog;
  readonly #around: SnpSurroundings;
  readonly #breakpoints: Breakpoints;
  readonly #exceptions: ExceptionStops;
  readonly #schedule: Schedule;
  #current: Thread;
  /** Instructions the present `engine.run` was given; 0 between runs. */
  #slice = 0;

  constructor(options: MachineOptions) {
    const { vcpus } = options;
    if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS)
      throw new CvmError('machine-vcpus', `a machine has 1 to ${MAX_VCPUS} vCPUs, not ${vcpus}`, {
        name: 'vcpus',
      });
    const size = options.memory;
    if (!Number.isSafeInteger(size) || size % 4096 !== 0 || size < 1 << 20 || size > 2 ** 40)
      throw new CvmError('machine-memory', `guest memory of ${size} bytes: 1 MiB to 1 TiB in 4 KiB pages`, {
        name: 'memory',
      });
    const model = cpuModel(options.cpuModel);
    const seed = BigInt(options.seed ?? 0);
    const random = new RandomSource(seed);
    this.#log = new EventLog(options.onEvent);
    this.#console = new ConsoleBuffer(options.onConsole);
    this.#memory = new MachineMemory(
      Math.ceil((size + OVERHEAD + vcpus * OVERHEAD_PER_VCPU) / ROUND) * ROUND,
    );
    this.#engine = new Engine(this.#memory);
    this.#breakpoints = new Breakpoints(this.#engine.breakpoints);
    this.#exceptions = new ExceptionStops(this.#engine);
    const flushTranslations = (): void => {
      for (const thread of this.threads) thread.cpu.flushTlb();
    };
    this.#guest = new GuestMemory(
      this.#memory,
      this.#rmpTable,
      { frameDropped: (frame) => this.#engine.codeChanged(frame), flushTranslations },
      options.largePages ?? true,
    );
    for (const { start, end } of ramLayout(size)) this.#guest.addRegion(start, end - start);
    this.#around = {
      rmp: this.#rmpTable,
      physicalAddressBits: model.physicalAddressBits,
      encryptionBit: model.encryptionBit,
      hasRmpQuery: model.hasRmpQuery,
      isMemory: (gpa) => this.#guest.isMemory(gpa),
      privateFrame: (gpa) => this.#guest.privateFrame(gpa),
      sharedFrame: (gpa) => this.#guest.sharedFrame(gpa),
      flushTranslations,
      timestamp: () => this.#timestamp(),
      random: () => random.next(),
    };
    this.#vcpus = Array.from({ length: vcpus }, (_, index) => new Vcpu(index));
    this.#schedule = new Schedule(this.#vcpus);
    this.#ports = new PortBus({
      onConsole: (port, byte) => this.#console.put(port, byte),
      onExit: (value) => {
        const exitCode = ((value << 1) | 1) & 0xff;
        const message = `the guest wrote ${value} to isa-debug-exit: exit code ${exitCode}`;
        this.#host.stop = { reason: 'exit', message, final: true, exitCode };
      },
      onUnclaimed: (text) => this.#note(this.#current, 'port', text),
    });
    this.#host = new Host({
      memory: this.#guest,
      rmp: this.#rmpTable,
      vcpus: this.#vcpus,
      ports: this.#ports,
      model,
      features: options.hypervisorFeatures ?? DEFAULT_FEATURES,
      timestamp: () => BigInt(this.retired),
      log: (thread, kind, text) => this.#note(thread, kind, text),
      createThread: (vcpu, vmpl, gpa) => this.#threadAt(vcpu, vmpl, gpa),
      guestRequest: (page) => this.#firmware.guestRequest(page),
    });
    this.rmp = new RmpView(this.#rmpTable, this.#guest);

    const functions = cpuidFunctions(model, vcpus);
    const firmware = (this.#firmware = new SecureProcessor(
      {
        rmp: this.#rmpTable,
        crypto: options.crypto,
        privatePage: (gpa) => this.#memory.frame(this.#guest.privateFrame(gpa)),
        cpuid: (leaf, subleaf) => functions.find((row) => row.leaf === leaf && row.subleaf === subleaf),
      },
      seed,
      model.familyModelStepping,
    ));
    const { contexts } = launch({
      image: options.image,
      profile: options.profile ?? 'qemu-kvm',
      memory: this.#guest,
      firmware,
      crypto: options.crypto,
      cpuid: functions,
      values: { vcpus, memory: ramLayout(size), commandLine: options.commandLine ?? '' },
    });
    this.launchDigest = firmware.digest;
    for (const [index, context] of contexts) {
      const vcpu = this.#vcpus[index]!;
      this.#addThread(vcpu, 0, { gpa: context.gpa, page: () => context.vmsa }).enter();
    }
    const first = this.#vcpus[0]!.active;
    if (!first)
      throw new CvmError('igvm-no-context', 'the image has no VP context for vCPU 0: nothing would run');
    this.#current = first;
    const digest = [...this.launchDigest].map((byte) => byte.toString(16).padStart(2, '0')).join('');
    this.#note(first, 'launch', `launch digest ${digest}`);
  }

  get current(): Thread {
    return this.#current;
  }
  get events(): readonly MachineEvent[] {
    return this.#log.events;
  }

  // -- threads ------------------------------------------------------------------------------------------

  #addThread(vcpu: Vcpu, vmpl: number, vmsa: { gpa: bigint; page: () => Uint8Array }): Thread {
    const apic = new LocalApic(vcpu.index, (interrupt) => this.#host.send(apic, vcpu.index, vmpl, interrupt));
    const thread = new Thread(vcpu, vmpl, this.#memory, this.#around, apic, vmsa);
    vcpu.threads[vmpl] = thread;
    this.threads.push(thread);
    return thread;
  }
  /** A guest named a page of its own as the VMSA of a vCPU and VMPL. */
  #threadAt(vcpu: Vcpu, vmpl: number, gpa: number): Thread {
    const page = (): Uint8Array => {
      if (!this.#rmpTable.isAssigned(gpa) || !this.#rmpTable.isVmsa(gpa))
        throw new CvmError('vmrun-invalid', 'VMRUN with a page that is no VMSA in the RMP', {
          gpa: BigInt(gpa),
        });
      return this.#memory.frame(this.#guest.privateFrame(gpa));
    };
    const thread = vcpu.threads[vmpl] ?? this.#addThread(vcpu, vmpl, { gpa: BigInt(gpa), page });
    thread.vmsaGpa = BigInt(gpa);
    thread.vmsaPage = page;
    thread.ended = false;
    vcpu.resetHold = undefined;
    return thread;
  }

  #note(thread: Thread, kind: string, text: string): void {
    this.#log.add({
      retired: this.retired,
      vcpu: thread.vcpu,
      vmpl: thread.vmpl,
      rip: thread.cpu.rip,
      kind,
      text,
    });
  }

  /** One tick an instruction; inside a run of the engine, as far as it has come. */
  #timestamp(): bigint {
    return BigInt(this.#slice === 0 ? this.retired : this.retired + this.#slice - this.#engine.remaining);
  }

  // -- running ------------------------------------------------------------------------------------------

  run(maxInstructions: number): MachineStop {
    const stop = this.#run(maxInstructions);
    this.#console.flush();
    return stop;
  }

  #run(maxInstructions: number): MachineStop {
    let left = maxInstructions;
    let fruitless = 0;
    while (left > 0) {
      if (this.ended) return this.ended;
      const vcpu = this.#schedule.pick();
      if (!vcpu) return this.#stopped(this.#current, idle(this.#current));
      const before = this.#host.inject(vcpu);
      const thread = vcpu.active!;
      this.#current = thread;
      if (before) return this.#stopped(thread, before);
      if (!thread.passBreakpoint && this.#breakpoints.hits(thread)) return this.#breakpoint(thread);
      const { retired, stop } = this.#execute(thread, this.#schedule.slice(thread, left));
      this.#current = vcpu.active ?? thread;
      left -= retired;
      if (stop) return stop;
      // A fault the host resolves retires nothing; one that comes back for ever ends the machine.
      fruitless = retired > 0 ? 0 : fruitless + 1;
      if (fruitless > FRUITLESS_LIMIT) return this.#stuck(thread);
    }
    return this.#stopped(this.#current, { reason: 'budget', message: 'ran as far as asked', final: false });
  }

  stepInstruction(thread: MachineThread = this.#current): MachineStop {
    const stop = this.#step(thread as Thread);
    this.#console.flush();
    return stop;
  }

  #step(thread: Thread): MachineStop {
    if (this.ended) return this.ended;
    this.#current = thread;
    const refused = thread.active ? this.#host.inject(thread.owner) : undefined;
    if (refused) return this.#stopped(thread, refused);
    for (let attempt = 0; attempt < FRUITLESS_LIMIT; attempt++) {
      if (!thread.active || thread.halted || thread.ended) return this.#stopped(thread, idle(thread));
      const { retired, stop, delivered } = this.#execute(thread, 1, true);
      if (stop && stop.reason !== 'breakpoint') return stop;
      // A fault is a step too: it ends on the first instruction of the handler.
      if (retired === 0 && !delivered) continue;
      // Landed: going on from here shall not stop at once.
      thread.passBreakpoint = true;
      return this.#stopped(thread, { reason: 'step', message: 'one instruction', final: false });
    }
    return this.#stuck(thread);
  }

  #stuck(thread: Thread): MachineStop {
    const error = new CvmError(
      'no-progress',
      `${thread.name} makes no progress: its instruction faults for ever`,
    );
    return this.#stopped(thread, { reason: 'error', message: error.message, final: true, error });
  }

  #execute(thread: Thread, count: number, stopAtDelivery = false): Executed {
    this.#slice = count;
    const result = this.#engine.run(thread.cpu, count, stopAtDelivery);
    this.#slice = 0;
    this.retired += result.retired;
    this.#schedule.spend(result.retired);
    if (result.retired > 0) thread.passBreakpoint = false;
    const done = (request: StopRequest | undefined): Executed => ({
      retired: result.retired,
      stop: request && this.#stopped(thread, request),
    });
    switch (result.reason) {
      case 'budget':
        return done(undefined);
      case 'stop':
        return done(this.#exceptions.take());
      case 'delivered':
        return { ...done(undefined), delivered: true };
      case 'breakpoint':
        return {
          retired: result.retired,
          stop: this.#breakpoints.hits(thread) ? this.#breakpoint(thread) : undefined,
        };
      case 'exit':
        if (result.exit!.reason === 'pause') this.#schedule.yieldTurn();
        return done(this.#host.answer(thread, result.exit!));
      case 'shutdown':
        return done({
          reason: 'shutdown',
          message: `${thread.name}: triple fault${result.error ? ` (${result.error.message})` : ''}`,
          final: true,
          ...(result.error ? { error: result.error } : {}),
        });
      case 'error': {
        const error = result.error ?? new CvmError('internal', 'the engine stopped without a reason');
        const reason = error instanceof NotImplemented ? 'not-implemented' : 'error';
        return done({ reason, message: error.message, final: true, error });
      }
    }
  }

  #stopped(thread: Thread, request: StopRequest): MachineStop {
    const stop: MachineStop = { ...request, thread, rip: thread.cpu.rip };
    if (request.final) {
      this.ended = stop;
      for (const each of this.threads) each.ended = true;
    }
    return stop;
  }

  // -- breakpoints --------------------------------------------------------------------------------------

  addBreakpoint(breakpoint: Breakpoint): void {
    this.#breakpoints.add(breakpoint);
  }
  removeBreakpoint(breakpoint: Breakpoint): void {
    this.#breakpoints.remove(breakpoint);
  }
  clearBreakpoints(): void {
    this.#breakpoints.clear();
  }
  stopOnExceptions(vectors: ExceptionVectors | undefined): void {
    this.#exceptions.set(vectors);
  }
  #breakpoint(thread: Thread): MachineStop {
    thread.passBreakpoint = true;
    return this.#stopped(thread, { reason: 'breakpoint', message: 'breakpoint', final: false });
  }

  // -- looking ------------------------------------------------------------------------------------------

  readVirtual(thread: MachineThread, address: bigint, length: number): MemoryRead {
    return readVirtual(this.#memory, thread.cpu, address, length);
  }
  writeVirtual(thread: MachineThread, address: bigint, bytes: Uint8Array): number {
    const written = writeVirtual(this.#memory, thread.cpu, address, bytes);
    this.#afterWrite();
    return written;
  }
  readPhysical(gpa: bigint, length: number, space: MemorySpace): MemoryRead {
    return readPhysical(this.#memory, this.#guest, gpa, length, space);
  }
  writePhysical(gpa: bigint, bytes: Uint8Array, space: MemorySpace): number {
    const written = writePhysical(this.#memory, this.#guest, gpa, bytes, space);
    this.#afterWrite();
    return written;
  }
  /** What was written may have been a page table. */
  #afterWrite(): void {
    for (const thread of this.threads) thread.cpu.flushTlb();
  }
  translate(thread: MachineThread, address: bigint): Translation | undefined {
    return translate(thread.cpu, address);
  }
  vmsa(thread: MachineThread): Uint8Array {
    return (thread as Thread).snapshot();
  }
  input(port: number, bytes: Uint8Array): void {
    this.#ports.receive(port, bytes);
  }
}

const idle = (thread: Thread): StopRequest => ({
  reason: 'idle',
  message: thread.halted
    ? 'every vCPU is halted and nothing is pending'
    : `${thread.name} is not what its vCPU would run next`,
  final: false,
});
