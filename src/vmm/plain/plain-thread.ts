/** One processor of a plain machine. */
import { CS, Cpu, STATE, resetProcessor } from '../../x86/index.ts';
import type { MachineMemory } from '../../x86/index.ts';
import type { MachineThread, ThreadState } from '../machine.ts';
import type { Clock } from './clock.ts';
import { PlainLocalApic } from './local-apic.ts';
import type { ApicBus } from './local-apic.ts';
import { PlainPlatform } from './plain-platform.ts';
import type { PlainSurroundings } from './plain-platform.ts';

export class PlainThread implements MachineThread {
  readonly id: number;
  readonly vcpu: number;
  readonly vmpl = 0;
  readonly name: string;
  readonly cpu: Cpu;
  readonly apic: PlainLocalApic;
  readonly active = true;
  readonly vmsaGpa = 0n;
  halted = false;
  ended = false;
  scheduled = false;
  /** It waits for a startup IPI. */
  waiting = true;
  /** The breakpoint at the current instruction has been reported (or stepped onto): pass it once. */
  passBreakpoint = false;
  readonly #signature: number;

  constructor(
    index: number,
    memory: MachineMemory,
    around: PlainSurroundings,
    clock: Clock,
    bus: Omit<ApicBus, 'timeOfTsc'>,
  ) {
    this.vcpu = index;
    this.id = 1 + index * 4;
    this.name = `vCPU ${index}`;
    const platform = new PlainPlatform(around);
    this.cpu = new Cpu(memory, platform, index, 0);
    this.apic = new PlainLocalApic(index, this.cpu, clock, {
      ...bus,
      timeOfTsc: (tsc) => platform.timeOfTsc(tsc),
    });
    platform.apic = this.apic;
    this.#signature = around.model.familyModelStepping;
    resetProcessor(this.cpu, 'reset', this.#signature);
    if (index === 0) this.apic.setVirtualWire();
  }

  get runnable(): boolean {
    return !this.halted && !this.waiting && !this.ended;
  }
  get state(): ThreadState {
    if (this.ended) return 'terminated';
    if (this.waiting) return 'waiting-for-ap';
    if (this.halted) return 'halted';
    return this.scheduled ? 'running' : 'runnable';
  }

  /** INIT: reset but for what INIT keeps, and wait. */
  init(): void {
    resetProcessor(this.cpu, 'init', this.#signature);
    this.cpu.setU32(STATE.nmiBlocked, 0);
    this.apic.reset();
    this.halted = false;
    this.waiting = true;
  }
  /** Startup IPI: real mode at `vector` times 4 KiB; ignored unless the processor waits for it. */
  startup(vector: number): void {
    if (!this.waiting) return;
    this.cpu.setSegment(CS, {
      ...this.cpu.getSegment(CS),
      selector: vector << 8,
      base: BigInt(vector << 12),
    });
    this.cpu.rip = 0n;
    this.cpu.nextRip = 0n;
    this.cpu.updateMode();
    this.waiting = false;
  }
}
