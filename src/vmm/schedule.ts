/** The fixed schedule: vCPUs take turns of a fixed number of retired instructions. */
import type { Vcpu } from './thread.ts';

/** Instructions a vCPU runs before the next one's turn. */
const QUANTUM = 20_000;

/** What takes turns. */
export interface Scheduled {
  scheduled: boolean;
  readonly runnable: boolean;
}

export class Schedule<V extends Scheduled = Vcpu> {
  readonly #vcpus: readonly V[];
  #turn = 0;
  #left = QUANTUM;

  constructor(vcpus: readonly V[]) {
    this.#vcpus = vcpus;
    vcpus[0]!.scheduled = true;
  }

  /** The vCPU whose turn it is; the next one that can run if it cannot; undefined if none can. */
  pick(): V | undefined {
    if (this.#left <= 0) this.#rotate();
    for (let i = 0; i < this.#vcpus.length; i++) {
      const vcpu = this.#vcpus[this.#turn]!;
      if (vcpu.runnable) return vcpu;
      this.#rotate();
    }
    return undefined;
  }

  /** How far a thread may run in one go before anything has to be looked at again. */
  slice(thread: { readonly awaitsWindow: boolean }, limit: number): number {
    return thread.awaitsWindow ? 1 : Math.min(limit, this.#left);
  }

  spend(instructions: number): void {
    this.#left -= instructions;
  }
  /** The vCPU gives up the rest of its turn (PAUSE). */
  yieldTurn(): void {
    this.#left = Math.min(this.#left, 0);
  }

  #rotate(): void {
    this.#vcpus[this.#turn]!.scheduled = false;
    this.#turn = (this.#turn + 1) % this.#vcpus.length;
    this.#vcpus[this.#turn]!.scheduled = true;
    this.#left = QUANTUM;
  }
}
