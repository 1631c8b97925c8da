/** The pair of 8259A interrupt controllers of a PC (Intel 8259A data sheet), cascaded at IRQ 2. */
import type { PortDevice } from '../devices.ts';

const ICW1 = { init: 0x10, needIcw4: 1 } as const;
const OCW3 = { select: 0x08, readEnable: 2, readIsr: 1, poll: 4, maskEnable: 0x40, mask: 0x20 } as const;

class Controller {
  irr = 0;
  isr = 0;
  imr: number;
  /** ELCR: lines that are level triggered. */
  levels = 0;
  #lines = 0;
  #base: number;
  /** Which command word comes next; 0: none of an initialization. */
  #step = 0;
  #needIcw4 = false;
  #autoEoi = false;
  #readIsr = false;
  #specialMask = false;
  /** The line of lowest priority. */
  #lowest = 7;
  readonly #cascade: number;

  /**
   * As firmware leaves it: a base vector, and a mask.
   * @param cascade lines whose requests come from the other controller, as a mask.
   */
  constructor(cascade: number, base: number, mask: number) {
    this.#cascade = cascade;
    this.#base = base;
    this.imr = mask;
  }

  line(number: number, level: boolean): void {
    const bit = 1 << number;
    if (level) {
      if ((this.levels & bit) !== 0 || (this.#lines & bit) === 0) this.irr |= bit;
      this.#lines |= bit;
    } else {
      this.#lines &= ~bit;
      // An edge stays a request, as KVM and QEMU have it; the data sheet would make it a spurious IRQ 7.
      if (((this.levels | this.#cascade) & bit) !== 0) this.irr &= ~bit;
    }
  }

  /** The line that would interrupt now; -1: none. */
  pending(): number {
    const requests = this.irr & ~this.imr;
    if (requests === 0) return -1;
    for (let i = 1; i <= 8; i++) {
      const number = (this.#lowest + i) & 7;
      const bit = 1 << number;
      const serving = (this.isr & bit) !== 0;
      // In special mask mode, and for the cascade (special fully nested), only the line itself blocks.
      if (serving && !this.#specialMask && (this.#cascade & bit) === 0) return -1;
      if ((requests & bit) !== 0 && (!serving || (this.#cascade & bit) !== 0)) return number;
    }
    return -1;
  }

  /** INTA for a line; gives the vector. */
  acknowledge(number: number): number {
    const bit = 1 << number;
    if ((this.levels & bit) === 0) this.irr &= ~bit;
    if (!this.#autoEoi) this.isr |= bit;
    return this.#base + number;
  }
  /** INTA with no request left: IRQ 7's vector, no bit in service. */
  spurious(): number {
    return this.#base + 7;
  }

  read(offset: number): number {
    if (offset === 1) return this.imr;
    return this.#readIsr ? this.isr : this.irr;
  }

  write(offset: number, value: number): void {
    if (offset === 0) this.#command(value);
    else this.#data(value);
  }

  #command(value: number): void {
    if ((value & ICW1.init) !== 0) {
      this.imr = 0;
      this.isr = 0;
      this.irr = 0;
      this.#lowest = 7;
      this.#specialMask = false;
      this.#readIsr = false;
      this.#autoEoi = false;
      this.#needIcw4 = (value & ICW1.needIcw4) !== 0;
      this.#step = 2;
    } else if ((value & OCW3.select) !== 0) {
      if ((value & OCW3.readEnable) !== 0) this.#readIsr = (value & OCW3.readIsr) !== 0;
      if ((value & OCW3.maskEnable) !== 0) this.#specialMask = (value & OCW3.mask) !== 0;
    } else this.#endOfInterrupt(value >> 5, value & 7);
  }

  /** OCW2: R, SL, EOI in bits 2:0 of `kind`. */
  #endOfInterrupt(kind: number, level: number): void {
    const specific = (kind & 2) !== 0;
    let number = level;
    if (!specific) {
      number = -1;
      for (let i = 1; i <= 8 && number < 0; i++) {
        const each = (this.#lowest + i) & 7;
        if ((this.isr & (1 << each)) !== 0) number = each;
      }
    }
    if (number < 0) return;
    if ((kind & 1) !== 0) this.isr &= ~(1 << number);
    if ((kind & 4) !== 0) this.#lowest = number;
  }

  #data(value: number): void {
    switch (this.#step) {
      case 2:
        this.#base = value & 0xf8;
        this.#step = 3;
        return;
      case 3:
        this.#step = this.#needIcw4 ? 4 : 0;
        return;
      case 4:
        this.#autoEoi = (value & 2) !== 0;
        this.#step = 0;
        return;
      default:
        this.imr = value;
    }
  }
}

export class InterruptControllers {
  /** The BIOS's vectors; open are the cascade, and the lines PCI devices use. */
  readonly #first = new Controller(1 << 2, 0x08, 0xfb);
  readonly #second = new Controller(0, 0x70, 0xf3);
  readonly #changed: () => void;

  /** @param changed called when INTR may have changed. */
  constructor(changed: () => void) {
    this.#changed = changed;
  }

  /** Ports 0x20, 0xa0 and 0x4d0 (ELCR). */
  ports(): { base: number; size: number; device: PortDevice }[] {
    const device = (controller: Controller): PortDevice => ({
      read: (offset) => controller.read(offset),
      write: (offset, _size, value) => {
        controller.write(offset, value & 0xff);
        this.#cascade();
      },
    });
    return [
      { base: 0x20, size: 2, device: device(this.#first) },
      { base: 0xa0, size: 2, device: device(this.#second) },
      {
        base: 0x4d0,
        size: 2,
        device: {
          read: (offset) => (offset === 0 ? this.#first : this.#second).levels,
          // IRQ 0, 1, 2, 8 and 13 are always edge triggered.
          write: (offset, _size, value) => {
            if (offset === 0) this.#first.levels = value & 0xf8;
            else this.#second.levels = value & 0xde;
          },
        },
      },
    ];
  }

  line(irq: number, level: boolean): void {
    if (irq < 8) this.#first.line(irq, level);
    else this.#second.line(irq - 8, level);
    this.#cascade();
  }

  #cascade(): void {
    const request = this.#second.pending() >= 0;
    this.#first.line(2, false);
    if (request) this.#first.line(2, true);
    if (this.requested) this.#changed();
  }

  /** INTR. */
  get requested(): boolean {
    return this.#first.pending() >= 0;
  }

  /** The interrupt acknowledge cycle: gives the vector. */
  acknowledge(): number {
    const number = this.#first.pending();
    if (number < 0) return this.#first.spurious();
    const vector = this.#first.acknowledge(number);
    if (number !== 2) return vector;
    const second = this.#second.pending();
    const result = second < 0 ? this.#second.spurious() : this.#second.acknowledge(second);
    this.#cascade();
    return result;
  }
}
