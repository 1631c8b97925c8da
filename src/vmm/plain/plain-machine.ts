/**
 * A PC without encryption: the processors, the devices a Linux boot needs, and a kernel started directly.
 * Time is retired instructions and the jumps over idle time (`clock.ts`), so a run is a function of its
 * options here too.
 */
import { CvmError, NotImplemented } from '../../base/index.ts';
import {
  Engine,
  MachineMemory,
  RAX,
  RBX,
  RCX,
  RDX,
  RSI,
  STATE,
  VECTOR,
  VmExit,
  deliverWithNesting,
  interruptible,
} from '../../x86/index.ts';
import { decodeIcr } from '../apic.ts';
import type { InterprocessorInterrupt } from '../apic.ts';
import { Breakpoints } from '../breakpoints.ts';
import { ConsoleBuffer } from '../console-buffer.ts';
import { cpuModel } from '../cpuid-model.ts';
import { PortBus } from '../devices.ts';
import { EventLog } from '../event-log.ts';
import type { StopRequest } from '../host.ts';
import { readVirtual, translate, writeVirtual } from '../inspect.ts';
import type {
  Breakpoint,
  Machine,
  MachineEvent,
  MachineOptions,
  MachineStop,
  MachineThread,
  MemoryRead,
  RmpInspector,
  Translation,
} from '../machine.ts';
import { RandomSource } from '../random.ts';
import { Schedule } from '../schedule.ts';
import { S5_TYPE } from './acpi.ts';
import { boot } from './boot.ts';
import { NS_PER_INSTRUCTION } from './clock.ts';
import type { Clock, Timed } from './clock.ts';
import { IoApic } from './io-apic.ts';
import { PlainMemory } from './memory.ts';
import { InterruptControllers } from './pic.ts';
import { IntervalTimer } from './pit.ts';
import type { PlainSurroundings } from './plain-platform.ts';
import { plainPorts } from './ports.ts';
import { PlainThread } from './plain-thread.ts';

const MAX_VCPUS = 64;
const MAX_MEMORY = 3 * 2 ** 30;
/** Machine memory beside guest frames: contexts, decoded code. */
const OVERHEAD = 384 << 20;
const ROUND = 64 << 20;
/** Deliveries and faults in a row that retire nothing before the machine is declared stuck. */
const FRUITLESS_LIMIT = 100_000;
/** Timer expirations in a row that wake nobody before idle is called idle. */
const IDLE_LIMIT = 100_000;
const KVM_HC_SEND_IPI = 10n;
/** -KVM_ENOSYS (1000) and -KVM_EPERM (1). */
const KVM_ENOSYS = 0xffff_ffff_ffff_fc18n;
const KVM_EPERM = 0xffff_ffff_ffff_ffffn;

export interface PlainMachineOptions extends Pick<
  MachineOptions,
  'vcpus' | 'memory' | 'seed' | 'onConsole' | 'onEvent' | 'cpuModel' | 'commandLine'
> {
  /** Linux bzImage, Multiboot-1 or PVH kernel. */
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array;
  /** The engine's compile threshold; 0: interpreter only. For measurements. */
  readonly heat?: number;
}

/** ISA interrupt lines of the 16550s. */
const SERIAL_IRQ: Readonly<Record<number, number>> = { 0x3f8: 4, 0x2f8: 3, 0x3e8: 4, 0x2e8: 3 };

export class PlainMachine implements Machine {
  readonly threads: readonly PlainThread[];
  retired = 0;
  ended: MachineStop | undefined;
  readonly launchDigest = new Uint8Array(48);
  /** There is no reverse map table. */
  readonly rmp: RmpInspector = { entry: () => undefined, ranges: () => [] };
  readonly #memory: MachineMemory;
  readonly #guest: PlainMemory;
  readonly #engine: Engine;
  readonly #ports: PortBus;
  readonly #pic: InterruptControllers;
  readonly #ioApic: IoApic;
  readonly #timed: readonly Timed[];
  readonly #console: ConsoleBuffer;
  readonly #log: EventLog;
  readonly #breakpoints: Breakpoints;
  readonly #schedule: Schedule<PlainThread>;
  #current!: PlainThread;
  #requested: StopRequest | undefined;
  /** Instructions the present `engine.run` was given; 0 between runs. */
  #slice = 0;
  /** Nanoseconds jumped over while everybody was idle. */
  #skipped = 0;

  constructor(options: PlainMachineOptions) {
    const { vcpus, memory: size } = options;
    if (!Number.isInteger(vcpus) || vcpus < 1 || vcpus > MAX_VCPUS)
      throw new CvmError('machine-vcpus', `a machine has 1 to ${MAX_VCPUS} vCPUs, not ${vcpus}`, {
        name: 'vcpus',
      });
    if (!Number.isSafeInteger(size) || size % 4096 !== 0 || size < 2 << 20 || size > MAX_MEMORY)
      throw new CvmError('machine-memory', `guest memory of ${size} bytes: 2 MiB to 3 GiB in 4 KiB pages`, {
        name: 'memory',
      });
    const model = cpuModel(options.cpuModel);
    const random = new RandomSource(BigInt(options.seed ?? 0));
    this.#log = new EventLog(options.onEvent);
    this.#console = new ConsoleBuffer(options.onConsole);
    this.#memory = new MachineMemory(Math.ceil((size + OVERHEAD) / ROUND) * ROUND);
    this.#engine = new Engine(this.#memory, options.heat);
    this.#breakpoints = new Breakpoints(this.#engine.breakpoints);
    this.#guest = new PlainMemory(this.#memory, size);

    const clock: Clock = { now: () => this.#now(), changed: () => this.#current.cpu.requestStop() };
    const flushTranslations = (): void => {
      for (const thread of this.threads) thread.cpu.flushTlb();
    };
    this.#pic = new InterruptControllers(() => clock.changed());
    this.#ioApic = new IoApic((message) => {
      if (message.mode === 7) return; // ExtINT: the 8259 has a way of its own
      for (const thread of this.#addressed(message.destination, message.logical, message.mode === 1))
        if (message.mode === 4) this.#nmi(thread);
        else thread.apic.request(message.vector, message.level);
    });
    const line = (irq: number, level: boolean): void => {
      this.#pic.line(irq, level);
      // As in the MADT: IRQ 0 is pin 2; the 8259's own output is on pin 0.
      if (irq !== 2) this.#ioApic.line(irq === 0 ? 2 : irq, level);
    };
    const timer = new IntervalTimer(clock, (level) => line(0, level));
    this.#ports = new PortBus(
      {
        onConsole: (port, byte) => this.#console.put(port, byte),
        onExit: (value) => {
          const exitCode = ((value << 1) | 1) & 0xff;
          this.#finish('exit', `the guest wrote ${value} to isa-debug-exit: exit code ${exitCode}`, exitCode);
        },
        onUnclaimed: (text) => this.#note('port', text),
        onInterrupt: (port, level) => line(SERIAL_IRQ[port]!, level),
      },
      [
        ...this.#pic.ports(),
        ...timer.ports(),
        ...plainPorts({
          clock,
          line,
          vcpus,
          memory: size,
          onConsole: (port, byte) => this.#console.put(port, byte),
          powerOff: (type) =>
            type === S5_TYPE
              ? this.#finish('exit', 'the guest powered off', 0)
              : this.#note('acpi', `sleep type ${type} is not there`),
          reset: (how) => this.#finish('shutdown', `the guest asked for a reset (${how})`),
        }),
      ],
    );
    const around: PlainSurroundings = {
      memory: this.#guest,
      ports: this.#ports,
      ioApic: this.#ioApic,
      model,
      vcpus,
      testMemory: new Uint8Array(0x1_0000),
      now: () => this.#now(),
      random: () => random.next(),
      flushTranslations,
    };
    this.threads = Array.from(
      { length: vcpus },
      (_, index) =>
        new PlainThread(index, this.#memory, around, clock, {
          send: (interrupt) => this.#send(index, interrupt),
          endOfInterrupt: (vector) => this.#ioApic.endOfInterrupt(vector),
        }),
    );
    this.#timed = [timer, ...this.threads.map((thread) => thread.apic)];
    this.#schedule = new Schedule(this.threads);
    const first = (this.#current = this.threads[0]!);
    const format = boot(this.#guest, first.cpu, {
      kernel: options.kernel,
      initrd: options.initrd,
      commandLine: options.commandLine ?? '',
      vcpus,
    });
    first.waiting = false;
    this.#note('launch', `${format} kernel of ${options.kernel.length} bytes`);
  }

  get current(): PlainThread {
    return this.#current;
  }
  get events(): readonly MachineEvent[] {
    return this.#log.events;
  }

  #note(kind: string, text: string): void {
    const thread = this.#current;
    this.#log.add({ retired: this.retired, vcpu: thread.vcpu, vmpl: 0, rip: thread.cpu.rip, kind, text });
  }
  #finish(reason: 'exit' | 'shutdown', message: string, exitCode?: number): void {
    this.#requested = { reason, message, final: true, ...(exitCode === undefined ? {} : { exitCode }) };
    this.#current.cpu.requestStop();
  }

  /** Nanoseconds since the start; inside a run of the engine, as far as it has come. */
  #now(): number {
    const done = this.#slice === 0 ? 0 : this.#slice - this.#engine.remaining;
    return (this.retired + done) * NS_PER_INSTRUCTION + this.#skipped;
  }

  // -- interrupts -----------------------------------------------------------------------------------------

  #addressed(destination: number, logical: boolean, lowest: boolean): PlainThread[] {
    const all = this.threads.filter(({ apic }) => apic.matches(destination, logical));
    return lowest ? all.slice(0, 1) : all;
  }
  #nmi(thread: PlainThread): void {
    thread.apic.nmiPending = true;
    this.#current.cpu.requestStop();
  }

  #send(from: number, { vector, mode, shorthand, logical, destination }: InterprocessorInterrupt): void {
    const targets =
      shorthand === 'self'
        ? [this.threads[from]!]
        : shorthand === 'all'
          ? this.threads
          : shorthand === 'others'
            ? this.threads.filter((thread) => thread.vcpu !== from)
            : this.#addressed(destination, logical, mode === 1);
    for (const thread of targets)
      switch (mode) {
        case 0:
        case 1:
          thread.apic.request(vector);
          break;
        case 4:
          this.#nmi(thread);
          break;
        case 5:
          thread.init();
          this.#current.cpu.requestStop();
          break;
        case 6:
          thread.startup(vector);
          break;
        default:
          this.#note('apic', `IPI of delivery mode ${mode} is not delivered`);
      }
  }

  /** The 8259's INTR reaches this processor. */
  #picFor(thread: PlainThread): boolean {
    return thread.vcpu === 0 && this.#pic.requested && thread.apic.acceptsPic;
  }
  #takesNmi({ apic, cpu }: PlainThread): boolean {
    return apic.nmiPending && cpu.u32(STATE.nmiBlocked) === 0 && cpu.u32(STATE.interruptShadow) === 0;
  }
  #wakes(thread: PlainThread): boolean {
    if (this.#takesNmi(thread)) return true;
    return interruptible(thread.cpu) && (thread.apic.pending || this.#picFor(thread));
  }

  /** Delivers what can be delivered now, and leaves word of what cannot. */
  #inject(thread: PlainThread): StopRequest | undefined {
    const { cpu, apic } = thread;
    try {
      if (this.#takesNmi(thread)) {
        apic.nmiPending = false;
        this.#deliver(thread, VECTOR.NMI, 'nmi');
        cpu.setU32(STATE.nmiBlocked, 1);
      }
      if (interruptible(cpu)) {
        if (apic.pending) this.#deliver(thread, apic.acknowledge(), 'external');
        else if (this.#picFor(thread)) this.#deliver(thread, this.#pic.acknowledge(), 'external');
      }
    } catch (error) {
      if (!(error instanceof VmExit) || error.reason !== 'shutdown') throw error;
      return { reason: 'shutdown', message: `${thread.name}: triple fault`, final: true };
    }
    cpu.setU32(STATE.interruptWaiting, apic.hasRequest || this.#picFor(thread) ? 1 : 0);
    return undefined;
  }
  #deliver(thread: PlainThread, vector: number, kind: 'nmi' | 'external'): void {
    thread.halted = false;
    thread.passBreakpoint = false;
    deliverWithNesting(thread.cpu, { vector, kind });
  }

  /** Lets the devices do what is due, and wakes who has an interrupt. */
  #devices(): void {
    const now = this.#now();
    for (const device of this.#timed) if (device.deadline() <= now) device.advance(now);
    for (const thread of this.threads) if (thread.halted && this.#wakes(thread)) thread.halted = false;
  }
  #deadline(): number {
    let earliest = Infinity;
    for (const device of this.#timed) earliest = Math.min(earliest, device.deadline());
    return earliest;
  }

  /** Jumps to the next timer that wakes somebody; false if none ever will. */
  #skipIdle(): boolean {
    for (let i = 0; i < IDLE_LIMIT; i++) {
      const due = this.#deadline();
      if (due === Infinity) return false;
      this.#skipped += Math.max(0, due - this.#now());
      this.#devices();
      if (this.threads.some((thread) => thread.runnable)) return true;
    }
    return false;
  }

  // -- running ----------------------------------------------------------------------------------------------

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
      this.#devices();
      const thread = this.#schedule.pick();
      if (!thread) {
        if (this.#skipIdle()) continue;
        return this.#stopped(this.#current, idle(this.#current));
      }
      this.#current = thread;
      const refused = this.#inject(thread);
      if (refused) return this.#stopped(thread, refused);
      if (!thread.passBreakpoint && this.#breakpoints.hits(thread)) return this.#breakpoint(thread);
      const until = Math.ceil((this.#deadline() - this.#now()) / NS_PER_INSTRUCTION);
      const count = this.#schedule.slice({ awaitsWindow: false }, Math.min(left, Math.max(1, until)));
      const { retired, stop } = this.#execute(thread, count);
      left -= retired;
      if (stop) return stop;
      fruitless = retired > 0 ? 0 : fruitless + 1;
      if (fruitless > FRUITLESS_LIMIT) return this.#stuck(thread);
    }
    return this.#stopped(this.#current, { reason: 'budget', message: 'ran as far as asked', final: false });
  }

  stepInstruction(thread: MachineThread = this.#current): MachineStop {
    const stop = this.#step(thread as PlainThread);
    this.#console.flush();
    return stop;
  }

  #step(thread: PlainThread): MachineStop {
    if (this.ended) return this.ended;
    this.#current = thread;
    for (let attempt = 0; attempt < FRUITLESS_LIMIT; attempt++) {
      this.#devices();
      if (!thread.runnable) return this.#stopped(thread, idle(thread));
      const refused = this.#inject(thread);
      if (refused) return this.#stopped(thread, refused);
      const { retired, stop } = this.#execute(thread, 1);
      if (stop && stop.reason !== 'breakpoint') return stop;
      if (retired === 0) continue;
      thread.passBreakpoint = true;
      return this.#stopped(thread, { reason: 'step', message: 'one instruction', final: false });
    }
    return this.#stuck(thread);
  }

  #stuck(thread: PlainThread): MachineStop {
    const error = new CvmError(
      'no-progress',
      `${thread.name} makes no progress: its instruction faults for ever`,
    );
    return this.#stopped(thread, { reason: 'error', message: error.message, final: true, error });
  }

  #execute(thread: PlainThread, count: number): { retired: number; stop: MachineStop | undefined } {
    this.#slice = count;
    const result = this.#engine.run(thread.cpu, count);
    this.#slice = 0;
    const { retired } = result;
    this.retired += retired;
    this.#schedule.spend(retired);
    if (retired > 0) thread.passBreakpoint = false;
    const done = (request: StopRequest | undefined): { retired: number; stop: MachineStop | undefined } => ({
      retired,
      stop: request && this.#stopped(thread, request),
    });
    const requested = this.#requested;
    if (requested) return done(requested);
    switch (result.reason) {
      case 'breakpoint':
        return { retired, stop: this.#breakpoints.hits(thread) ? this.#breakpoint(thread) : undefined };
      case 'exit':
        this.#exit(thread, result.exit!);
        return done(undefined);
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
      default:
        return done(undefined);
    }
  }

  #exit(thread: PlainThread, exit: VmExit): void {
    switch (exit.reason) {
      case 'hlt':
        thread.halted = true;
        return;
      case 'pause':
        this.#schedule.yieldTurn();
        return;
      case 'vmmcall':
        thread.cpu.setReg(0, this.#hypercall(thread));
        return;
      default:
        throw new NotImplemented(`the exit ${exit.reason} of a plain guest`, { rip: thread.cpu.rip });
    }
  }

  /** KVM's hypercalls (Documentation/virt/kvm/x86/hypercalls.rst): number in RAX, operands in RBX, RCX, RDX, RSI. */
  #hypercall({ cpu, vcpu }: PlainThread): bigint {
    if (cpu.cpl !== 0) return KVM_EPERM;
    if (cpu.reg(RAX) !== KVM_HC_SEND_IPI) return KVM_ENOSYS;
    const icr = decodeIcr(cpu.reg(RSI));
    const targets = (cpu.reg(RCX) << 64n) | cpu.reg(RBX);
    const lowest = Number(cpu.reg(RDX) & 0xffff_ffffn);
    let sent = 0n;
    for (const { apic } of this.threads) {
      const bit = apic.apicId - lowest;
      if (bit < 0 || ((targets >> BigInt(bit)) & 1n) === 0n) continue;
      this.#send(vcpu, { ...icr, shorthand: undefined, logical: false, destination: apic.apicId });
      sent++;
    }
    return sent;
  }

  #stopped(thread: PlainThread, request: StopRequest): MachineStop {
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
  #breakpoint(thread: PlainThread): MachineStop {
    thread.passBreakpoint = true;
    return this.#stopped(thread, { reason: 'breakpoint', message: 'breakpoint', final: false });
  }

  // -- looking: there is one memory, whatever space is asked for --------------------------------------------

  readVirtual(thread: MachineThread, address: bigint, length: number): MemoryRead {
    return readVirtual(this.#memory, thread.cpu, address, length);
  }
  writeVirtual(thread: MachineThread, address: bigint, bytes: Uint8Array): number {
    const written = writeVirtual(this.#memory, thread.cpu, address, bytes);
    this.#afterWrite();
    return written;
  }
  readPhysical(gpa: bigint, length: number): MemoryRead {
    return this.#guest.read(Number(gpa), Math.max(0, Math.min(Math.floor(length), 1 << 28)));
  }
  writePhysical(gpa: bigint, bytes: Uint8Array): number {
    const start = Number(gpa);
    if (bytes.length === 0 || !this.#guest.isMemory(start) || !this.#guest.isMemory(start + bytes.length - 1))
      return 0;
    this.#guest.write(start, bytes);
    this.#afterWrite();
    return bytes.length;
  }
  /** What was written may have been a page table. */
  #afterWrite(): void {
    for (const thread of this.threads) thread.cpu.flushTlb();
  }
  translate(thread: MachineThread, address: bigint): Translation | undefined {
    return translate(thread.cpu, address);
  }
  /** @throws NotImplemented: there is no save area here. */
  vmsa(): never {
    throw new NotImplemented('a save area (VMSA) of a guest without encryption');
  }
  input(port: number, bytes: Uint8Array): void {
    this.#ports.receive(port, bytes);
  }
}

const idle = (thread: PlainThread): StopRequest => ({
  reason: 'idle',
  message: thread.waiting
    ? `${thread.name} waits to be started`
    : 'every vCPU is halted and nothing is pending',
  final: false,
});

/**
 * Starts `options.kernel` on a machine without encryption; gives it before its first instruction.
 * @throws CvmError naming what is wrong with the kernel or the options.
 */
export const createPlainMachine = (options: PlainMachineOptions): Machine => new PlainMachine(options);
