/**
 * Runs work in slices of bounded wall time and listens between them: each slice ends by a message to
 * itself, so that whatever arrived meanwhile (pause, breakpoints) is handled first.
 */

/** What is left of the present slice. */
export interface Slice {
  /** Instructions worth asking the machine for at once. */
  readonly instructions: number;
  /** Tells how many were done in one call, so that the next call asks for a fitting number. */
  done(instructions: number): void;
  expired(): boolean;
}

/** Wall time of a slice, in milliseconds: a tenth of what a person notices. */
export const SLICE_MS = 10;
/** A machine call aims below the slice, so that the last one does not overrun it by much. */
const CALL_MS = 4;
const FIRST_CALL = 20_000;
const MIN_CALL = 500;
/**
 * Speed changes from one call to the next by two orders of magnitude (a tight loop, then code never seen
 * before), so even a fast machine is asked for no more than is bearable when it turns slow.
 */
const MAX_CALL = 50_000;

export interface Clock {
  /** Milliseconds, monotonic. */
  now(): number;
}

export class Slices {
  /** How many slices have been run, for tests. */
  count = 0;
  private readonly channel = new MessageChannel();
  private readonly clock: Clock;
  private next: (() => void) | undefined;
  /** Of the latest message to ourselves: work that was replaced must not be called twice as often. */
  private turn = 0;
  private perCall = FIRST_CALL;

  constructor(clock: Clock = performance) {
    this.clock = clock;
    this.channel.port1.onmessage = ({ data }) => {
      if (data !== this.turn) return;
      const next = this.next;
      this.next = undefined;
      next?.();
    };
    // Through the other end and back: Node hands a port up to a thousand messages in a row before it looks
    // at anything else, so a port that answers itself would starve the client.
    this.channel.port2.onmessage = ({ data }) => this.channel.port2.postMessage(data);
    // Node keeps the process alive for a port that listens; an idle debugger should not.
    this.hold(false);
  }

  /** Calls `work` slice after slice until it returns false. Only one piece of work at a time. */
  start(work: (slice: Slice) => boolean): void {
    const turn = (): void => {
      this.count++;
      if (work(this.slice())) this.yield(turn);
      else this.hold(false);
    };
    this.yield(turn);
  }

  dispose(): void {
    this.next = undefined;
    this.channel.port1.close();
    this.channel.port2.close();
  }

  private yield(next: () => void): void {
    this.next = next;
    this.hold(true);
    this.channel.port1.postMessage(++this.turn);
  }

  private hold(alive: boolean): void {
    for (const end of [this.channel.port1, this.channel.port2]) {
      const port = end as MessagePort & { ref?(): void; unref?(): void };
      if (alive) port.ref?.();
      else port.unref?.();
    }
  }

  private slice(): Slice {
    const start = this.clock.now();
    let last = start;
    const deadline = start + SLICE_MS;
    const instructions = (): number => this.perCall;
    return {
      get instructions() {
        return instructions();
      },
      done: (count) => {
        const now = this.clock.now();
        const spent = now - last;
        last = now;
        // Only a call that used up its number says how fast the machine is.
        if (count < this.perCall) return;
        const factor = spent > 0 ? CALL_MS / spent : 4;
        this.perCall = Math.round(
          Math.min(MAX_CALL, Math.max(MIN_CALL, this.perCall * Math.min(4, Math.max(0.1, factor)))),
        );
      },
      expired: () => this.clock.now() >= deadline,
    };
  }
}
