/** The latest host-side events of a machine. */
import type { MachineEvent } from './machine.ts';

const KEPT = 4096;

export class EventLog {
  readonly #listener: ((event: MachineEvent) => void) | undefined;
  #events: MachineEvent[] = [];
  #sequence = 0;

  constructor(listener: ((event: MachineEvent) => void) | undefined) {
    this.#listener = listener;
  }
  get events(): readonly MachineEvent[] {
    return this.#events.slice(-KEPT);
  }
  add(event: Omit<MachineEvent, 'sequence'>): void {
    const numbered = { sequence: this.#sequence++, ...event };
    this.#events.push(numbered);
    if (this.#events.length >= 2 * KEPT) this.#events = this.#events.slice(-KEPT);
    this.#listener?.(numbered);
  }
}
