/** Breakpoints by linear address, for all threads or some; the engine knows addresses only. */
import { CS, MODE } from '../x86/index.ts';
import type { BreakpointSet } from '../x86/index.ts';
import type { Breakpoint, MachineThread } from './machine.ts';

export class Breakpoints {
  readonly #engine: BreakpointSet;
  readonly #list: Breakpoint[] = [];

  constructor(engine: BreakpointSet) {
    this.#engine = engine;
  }

  add(breakpoint: Breakpoint): void {
    this.#list.push({ ...breakpoint });
    this.#engine.add(breakpoint.address);
  }
  /** Removes one that was added alike, if there is one. */
  remove({ address, vcpu, vmpl }: Breakpoint): void {
    const index = this.#list.findIndex(
      (each) => each.address === address && each.vcpu === vcpu && each.vmpl === vmpl,
    );
    if (index < 0) return;
    this.#list.splice(index, 1);
    this.#engine.remove(address);
  }
  clear(): void {
    this.#list.length = 0;
    this.#engine.clear();
  }

  /** One is set for this thread at its current instruction. */
  hits(thread: MachineThread): boolean {
    if (this.#list.length === 0) return false;
    const { cpu } = thread;
    const linear = cpu.mode === MODE.code64 ? cpu.rip : (cpu.segmentBase(CS) + cpu.rip) & 0xffff_ffffn;
    return this.#list.some(
      ({ address, vcpu, vmpl }) =>
        address === linear &&
        (vcpu === undefined || vcpu === thread.vcpu) &&
        (vmpl === undefined || vmpl === thread.vmpl),
    );
  }
}
