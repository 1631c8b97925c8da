/** The machine under the hands of the stepping logic: runs, single steps and temporary breakpoints. */
import type { ExceptionVectors, Machine, MachineStop, MachineThread } from '../vmm/index.ts';
import { linearRip } from './registers.ts';
import type { Slice } from './slices.ts';

export class Execution {
  readonly machine: Machine;
  /** Who holds a breakpoint at an address: those of the user count as one. */
  private readonly held = new Map<bigint, number>();
  /** Where the last stop was, so that running on does not stop there again at once. */
  private lastStop: { thread: number; rip: bigint; retired: number } | undefined;

  constructor(machine: Machine) {
    this.machine = machine;
  }

  hold(address: bigint): void {
    const count = this.held.get(address) ?? 0;
    this.held.set(address, count + 1);
    if (count === 0) this.machine.addBreakpoint({ address });
  }

  release(address: bigint): void {
    const count = this.held.get(address);
    if (count === undefined) return;
    if (count > 1) this.held.set(address, count - 1);
    else {
      this.held.delete(address);
      this.machine.removeBreakpoint({ address });
    }
  }

  /** False: this machine cannot. */
  stopOnExceptions(vectors: ExceptionVectors | undefined): boolean {
    this.machine.stopOnExceptions?.(vectors);
    return this.machine.stopOnExceptions !== undefined;
  }

  /** The guest is stopped where it stands, and the user knows: a breakpoint here has been seen. */
  seen(thread: MachineThread): void {
    this.lastStop = { thread: thread.id, rip: linearRip(thread.cpu), retired: this.machine.retired };
  }

  /** Runs at most what the slice gives at once; `budget` means nothing has happened. */
  run(slice: Slice): MachineStop {
    const { machine } = this;
    const wanted = slice.instructions;
    const before = machine.retired;
    let stop = machine.run(wanted);
    // The machine passes over what it has reported itself; where a pause or the entry stands only we know.
    if (stop.reason === 'breakpoint' && this.isRepeated(stop)) stop = machine.run(wanted);
    slice.done(machine.retired - before);
    if (stop.reason === 'breakpoint') this.seen(stop.thread);
    return stop;
  }

  step(thread: MachineThread): MachineStop {
    const stop = this.machine.stepInstruction(thread);
    this.lastStop = undefined;
    return stop;
  }

  private isRepeated(stop: MachineStop): boolean {
    const last = this.lastStop;
    return (
      last !== undefined &&
      last.thread === stop.thread.id &&
      last.retired === this.machine.retired &&
      last.rip === linearRip(stop.thread.cpu)
    );
  }
}
