/** The I/O APIC (Intel 82093AA data sheet) with 24 pins. */

const PINS = 24;
const VERSION = 0x11;
const ENTRY = { status: 0x1000, lowActive: 0x2000, remote: 0x4000, level: 0x8000, masked: 0x1_0000 } as const;

export interface IoApicMessage {
  readonly vector: number;
  /** 0 fixed, 1 lowest priority, 4 NMI, 7 ExtINT … */
  readonly mode: number;
  readonly destination: number;
  readonly logical: boolean;
  readonly level: boolean;
}

export class IoApic {
  readonly #deliver: (message: IoApicMessage) => void;
  #select = 0;
  #id = 0;
  readonly #low = new Uint32Array(PINS).fill(ENTRY.masked);
  readonly #high = new Uint32Array(PINS);
  #lines = 0;

  constructor(deliver: (message: IoApicMessage) => void) {
    this.#deliver = deliver;
  }

  /** True: asserted, whatever the polarity. */
  line(pin: number, level: boolean): void {
    const bit = 1 << pin;
    const rising = level && (this.#lines & bit) === 0;
    this.#lines = level ? this.#lines | bit : this.#lines & ~bit;
    if (rising) this.#service(pin);
  }

  #service(pin: number): void {
    const entry = this.#low[pin]!;
    if ((entry & ENTRY.masked) !== 0) return;
    const level = (entry & ENTRY.level) !== 0;
    if (level) {
      if ((entry & ENTRY.remote) !== 0) return;
      this.#low[pin]! |= ENTRY.remote;
    }
    this.#deliver({
      vector: entry & 0xff,
      mode: (entry >> 8) & 7,
      destination: this.#high[pin]! >>> 24,
      logical: (entry & 0x800) !== 0,
      level,
    });
  }

  /** A local APIC ended a level-triggered vector: pins still asserted request again. */
  endOfInterrupt(vector: number): void {
    for (let pin = 0; pin < PINS; pin++) {
      const entry = this.#low[pin]!;
      if ((entry & 0xff) !== vector || (entry & ENTRY.remote) === 0) continue;
      this.#low[pin]! &= ~ENTRY.remote;
      if ((this.#lines & (1 << pin)) !== 0) this.#service(pin);
    }
  }

  /** Offsets of the page: 0 IOREGSEL, 0x10 IOWIN. */
  read(offset: number): number {
    if (offset === 0) return this.#select;
    return offset === 0x10 ? this.#register() : 0;
  }
  write(offset: number, value: number): void {
    if (offset === 0) this.#select = value & 0xff;
    else if (offset === 0x10) this.#writeRegister(value);
  }

  #register(): number {
    switch (this.#select) {
      case 0:
        return (this.#id << 24) >>> 0;
      case 1:
        return ((PINS - 1) << 16) | VERSION;
      case 2:
        return (this.#id << 24) >>> 0;
      default: {
        const pin = (this.#select - 0x10) >> 1;
        if (pin < 0 || pin >= PINS) return 0;
        return this.#select & 1 ? this.#high[pin]! : this.#low[pin]!;
      }
    }
  }
  #writeRegister(value: number): void {
    if (this.#select === 0) this.#id = (value >>> 24) & 15;
    const pin = (this.#select - 0x10) >> 1;
    if (pin < 0 || pin >= PINS) return;
    if (this.#select & 1) {
      this.#high[pin] = value;
      return;
    }
    const kept = ENTRY.status | ENTRY.remote;
    let entry = (value & ~kept) | (this.#low[pin]! & kept);
    // An edge-triggered pin has no remote IRR.
    if ((entry & ENTRY.level) === 0) entry &= ~ENTRY.remote;
    this.#low[pin] = entry;
    if ((entry & ENTRY.level) !== 0 && (this.#lines & (1 << pin)) !== 0) this.#service(pin);
  }
}
