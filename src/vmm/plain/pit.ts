/** The 8254 interval timer and port 0x61 (Intel 8254 data sheet): channel 0 is IRQ 0, channel 2 the speaker. */
import type { PortDevice } from '../devices.ts';
import type { Clock, Timed } from './clock.ts';

const HZ = 1_193_182;
const NS = 1_000_000_000;

class Channel {
  mode = 3;
  gate = true;
  /** Set by a new count; false until then: nothing counts. */
  #loaded = false;
  #count = 0x1_0000;
  /** Ticks at which the count was loaded, or would have been if the gate had been open ever since. */
  #start = 0;
  /** While the gate holds the count: how far it had come. */
  #paused: number | undefined;
  #access = 3;
  #bcd = false;
  #writeLow: number | undefined;
  #readHigh = false;
  #latch: number[] = [];
  #status: number | undefined;

  /** Ticks since the count was loaded. */
  #elapsed(tick: number): number {
    return this.#paused ?? tick - this.#start;
  }

  /** The counting element. */
  #value(tick: number): number {
    if (!this.#loaded) return 0;
    const elapsed = this.#elapsed(tick);
    const n = this.#count;
    switch (this.mode) {
      case 2:
        return n - (elapsed % n);
      case 3:
        return n - ((elapsed * 2) % n);
      default:
        return (n - elapsed) & 0xffff;
    }
  }

  output(tick: number): boolean {
    if (!this.#loaded) return this.mode !== 0;
    const elapsed = this.#elapsed(tick);
    const n = this.#count;
    switch (this.mode) {
      case 2:
        return elapsed % n !== n - 1;
      case 3:
        return elapsed % n < (n + 1) >> 1;
      case 4:
      case 5:
        return elapsed !== n;
      default:
        return elapsed >= n;
    }
  }

  /** First tick after `tick` at which the output rises; Infinity: never. */
  nextRise(tick: number): number {
    if (!this.#loaded || this.#paused !== undefined) return Infinity;
    const elapsed = tick - this.#start;
    const n = this.#count;
    if (this.mode === 2 || this.mode === 3) return this.#start + (Math.floor(elapsed / n) + 1) * n;
    const end = this.mode === 4 || this.mode === 5 ? n + 1 : n;
    return elapsed < end ? this.#start + end : Infinity;
  }

  setGate(gate: boolean, tick: number): void {
    if (gate === this.gate) return;
    this.gate = gate;
    const restarts = this.mode === 1 || this.mode === 2 || this.mode === 3 || this.mode === 5;
    if (!gate) {
      if (this.mode !== 1 && this.mode !== 5) this.#paused ??= this.#elapsed(tick);
      return;
    }
    this.#start = restarts ? tick : tick - (this.#paused ?? 0);
    this.#paused = undefined;
  }

  control(value: number, tick: number): void {
    const access = (value >> 4) & 3;
    if (access === 0) {
      this.latchCount(tick);
      return;
    }
    this.#access = access;
    this.mode = (value >> 1) & 7;
    if (this.mode > 5) this.mode -= 4;
    this.#bcd = (value & 1) !== 0;
    this.#loaded = false;
    this.#writeLow = undefined;
    this.#readHigh = false;
    this.#latch = [];
    this.#paused = undefined;
  }

  latchCount(tick: number): void {
    if (this.#latch.length > 0) return;
    const value = this.#encoded(tick);
    if ((this.#access & 1) !== 0) this.#latch.push(value & 0xff);
    if ((this.#access & 2) !== 0) this.#latch.push(value >> 8);
  }
  latchStatus(tick: number): void {
    this.#status ??=
      (this.output(tick) ? 0x80 : 0) |
      (this.#loaded ? 0 : 0x40) |
      (this.#access << 4) |
      (this.mode << 1) |
      (this.#bcd ? 1 : 0);
  }

  #encoded(tick: number): number {
    const value = this.#value(tick) & 0xffff;
    return this.#bcd ? parseInt(String(value % 10_000), 16) : value;
  }

  read(tick: number): number {
    if (this.#status !== undefined) {
      const status = this.#status;
      this.#status = undefined;
      return status;
    }
    const latched = this.#latch.shift();
    if (latched !== undefined) return latched;
    const value = this.#encoded(tick);
    if (this.#access === 1) return value & 0xff;
    if (this.#access === 2) return value >> 8;
    this.#readHigh = !this.#readHigh;
    return this.#readHigh ? value & 0xff : value >> 8;
  }

  write(byte: number, tick: number): void {
    if (this.#access === 3 && this.#writeLow === undefined) {
      this.#writeLow = byte;
      return;
    }
    let value = this.#access === 1 ? byte : this.#access === 2 ? byte << 8 : (byte << 8) | this.#writeLow!;
    this.#writeLow = undefined;
    if (this.#bcd) value = Number(value.toString(16).replace(/[a-f]/g, '9'));
    this.#count = value === 0 ? (this.#bcd ? 10_000 : 0x1_0000) : value;
    this.#start = tick;
    this.#loaded = true;
    this.#paused = this.gate || this.mode === 1 || this.mode === 5 ? undefined : 0;
  }
}

export class IntervalTimer implements Timed {
  readonly #clock: Clock;
  readonly #interrupt: (level: boolean) => void;
  readonly #channels = [new Channel(), new Channel(), new Channel()] as const;
  #speaker = 0;
  /** Tick up to which the output of channel 0 has been reported. */
  #seen = 0;

  /** @param interrupt IRQ 0's line. */
  constructor(clock: Clock, interrupt: (level: boolean) => void) {
    this.#clock = clock;
    this.#interrupt = interrupt;
    this.#channels[2].gate = false;
  }

  #tick(now = this.#clock.now()): number {
    return Math.floor((now * HZ) / NS);
  }

  deadline(): number {
    const tick = this.#channels[0].nextRise(this.#seen);
    return tick === Infinity ? Infinity : Math.ceil((tick * NS) / HZ);
  }
  advance(now: number): void {
    const tick = this.#tick(now);
    if (tick <= this.#seen) return;
    const rise = this.#channels[0].nextRise(this.#seen);
    this.#seen = tick;
    if (rise > tick) return;
    this.#interrupt(false);
    this.#interrupt(true);
  }

  ports(): { base: number; size: number; device: PortDevice }[] {
    return [
      {
        base: 0x40,
        size: 4,
        device: { read: (o) => this.#read(o), write: (o, _s, v) => this.#write(o, v & 0xff) },
      },
      {
        base: 0x61,
        size: 1,
        device: { read: () => this.#readSpeaker(), write: (_o, _s, v) => this.#writeSpeaker(v) },
      },
    ];
  }

  #read(offset: number): number {
    return offset === 3 ? 0 : this.#channels[offset as 0 | 1 | 2].read(this.#tick());
  }

  #write(offset: number, value: number): void {
    const tick = this.#tick();
    if (offset < 3) {
      this.#channels[offset as 0 | 1 | 2].write(value, tick);
    } else if (value >> 6 === 3) {
      // Read-back: bits 3:1 name channels; bit 5 clear latches counts, bit 4 clear the status.
      for (const [index, channel] of this.#channels.entries()) {
        if ((value & (2 << index)) === 0) continue;
        if ((value & 0x20) === 0) channel.latchCount(tick);
        if ((value & 0x10) === 0) channel.latchStatus(tick);
      }
    } else this.#channels[(value >> 6) as 0 | 1 | 2].control(value, tick);
    this.#seen = tick;
    this.#interrupt(this.#channels[0].output(tick));
    this.#clock.changed();
  }

  #readSpeaker(): number {
    const tick = this.#tick();
    // Bit 4 toggles with memory refresh, every 15 µs.
    const refresh = Math.floor(this.#clock.now() / 15_085) & 1;
    return this.#speaker | (refresh << 4) | (this.#channels[2].output(tick) ? 0x20 : 0);
  }
  #writeSpeaker(value: number): void {
    this.#speaker = value & 3;
    this.#channels[2].setGate((value & 1) !== 0, this.#tick());
  }
}
