/** The devices every machine has: port I/O only. Nothing here needs time; a 16550 transmits at once. */
import { NotImplemented, hex } from '../base/index.ts';

export interface PortDevice {
  /** @param offset from the base port. */
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}

/** 16550A registers by offset (PC16550D data sheet, table II). */
const REGISTER = { data: 0, ier: 1, iir: 2, lcr: 3, mcr: 4, lsr: 5, msr: 6, scr: 7 } as const;
const LCR_DLAB = 0x80;
const LSR_DATA_READY = 1;
const LSR_TRANSMITTER_EMPTY = 0x60;
const MCR_LOOP = 0x10;
/** CTS, DSR and DCD asserted, as QEMU's serial device without a modem. */
const MSR_CONNECTED = 0xb0;

const IER = { received: 1, transmitterEmpty: 2 } as const;
const IIR = { none: 1, transmitterEmpty: 2, received: 4 } as const;
/** OUT2 gates the interrupt line on a PC. */
const MCR_OUT2 = 8;

/** Every byte is sent at once: the transmitter is always empty. */
export class Serial16550 implements PortDevice {
  readonly #transmit: (byte: number) => void;
  readonly #interrupt: (level: boolean) => void;
  /** The transmitter-empty interrupt was raised and neither read from IIR nor answered by a byte. */
  #empty = false;
  readonly #received: number[] = [];
  #ier = 0;
  #lcr = 0;
  #mcr = 0;
  #fcr = 0;
  #scratch = 0;
  #divisor = 12;

  /** @param interrupt its interrupt line. */
  constructor(transmit: (byte: number) => void, interrupt: (level: boolean) => void = () => {}) {
    this.#transmit = transmit;
    this.#interrupt = interrupt;
  }

  receive(bytes: Uint8Array): void {
    for (const byte of bytes) this.#received.push(byte);
    this.#update();
  }

  /** Interrupt identification, by priority. */
  get #pending(): number {
    if ((this.#ier & IER.received) !== 0 && this.#received.length > 0) return IIR.received;
    if ((this.#ier & IER.transmitterEmpty) !== 0 && this.#empty) return IIR.transmitterEmpty;
    return IIR.none;
  }
  #update(): void {
    this.#interrupt(this.#pending !== IIR.none && (this.#mcr & MCR_OUT2) !== 0);
  }

  read(offset: number, _size: number): number {
    const value = this.#register(offset);
    if (offset === REGISTER.data || offset === REGISTER.iir) this.#update();
    return value;
  }

  #register(offset: number): number {
    const latch = (this.#lcr & LCR_DLAB) !== 0;
    switch (offset) {
      case REGISTER.data:
        return latch ? this.#divisor & 0xff : (this.#received.shift() ?? 0);
      case REGISTER.ier:
        return latch ? this.#divisor >> 8 : this.#ier;
      case REGISTER.iir: {
        const pending = this.#pending;
        if (pending === IIR.transmitterEmpty) this.#empty = false;
        // Bits 7:6 say that FIFOs are on.
        return pending | (this.#fcr & 1 ? 0xc0 : 0);
      }
      case REGISTER.lcr:
        return this.#lcr;
      case REGISTER.mcr:
        return this.#mcr;
      case REGISTER.lsr:
        return LSR_TRANSMITTER_EMPTY | (this.#received.length > 0 ? LSR_DATA_READY : 0);
      case REGISTER.msr:
        return this.#mcr & MCR_LOOP
          ? ((this.#mcr & 0x0c) << 4) | ((this.#mcr & 2) << 3) | ((this.#mcr & 1) << 5)
          : MSR_CONNECTED;
      default:
        return this.#scratch;
    }
  }

  write(offset: number, _size: number, value: number): void {
    this.#write(offset, value & 0xff);
    this.#update();
  }

  #write(offset: number, byte: number): void {
    const latch = (this.#lcr & LCR_DLAB) !== 0;
    switch (offset) {
      case REGISTER.data:
        if (latch) this.#divisor = (this.#divisor & 0xff00) | byte;
        else {
          if (this.#mcr & MCR_LOOP) this.#received.push(byte);
          else this.#transmit(byte);
          this.#empty = true;
        }
        return;
      case REGISTER.ier:
        if (latch) this.#divisor = (this.#divisor & 0xff) | (byte << 8);
        else {
          if ((byte & ~this.#ier & IER.transmitterEmpty) !== 0) this.#empty = true;
          this.#ier = byte & 0x0f;
        }
        return;
      case REGISTER.iir:
        this.#fcr = byte;
        if (byte & 2) this.#received.length = 0;
        return;
      case REGISTER.lcr:
        this.#lcr = byte;
        return;
      case REGISTER.mcr:
        this.#mcr = byte & 0x1f;
        return;
      case REGISTER.scr:
        this.#scratch = byte;
        return;
      default:
        return;
    }
  }
}

/** QEMU's pc-testdev echo ports: what was written is read back. */
class EchoDevice implements PortDevice {
  #value = 0;
  read(_offset: number, _size: number): number {
    return this.#value;
  }
  write(_offset: number, _size: number, value: number): void {
    this.#value = value >>> 0;
  }
}

export const SERIAL_PORTS = [0x3f8, 0x2f8, 0x3e8, 0x2e8] as const;
const DEBUG_EXIT_PORT = 0xf4;
const ECHO_PORT = 0xe0;

export interface PortEvents {
  onConsole(port: number, byte: number): void;
  /** isa-debug-exit was written. */
  onExit(value: number): void;
  /** A port with no device; at most once for each port and direction. */
  onUnclaimed(text: string): void;
  /** The interrupt line of the 16550 at a port. */
  onInterrupt?(port: number, level: boolean): void;
}

/** Ports and who answers them; offsets count from `base`. */
export interface PortClaim {
  readonly base: number;
  readonly size: number;
  readonly device: PortDevice;
}

/** The port space. A port without a device reads as ones and swallows writes, as on an ISA bus. */
export class PortBus {
  readonly #serial = new Map<number, Serial16550>();
  readonly #claims: readonly PortClaim[];
  readonly #events: PortEvents;
  readonly #reported = new Set<string>();

  /** @param more devices beside those every machine has. */
  constructor(events: PortEvents, more: readonly PortClaim[] = []) {
    this.#events = events;
    for (const port of SERIAL_PORTS)
      this.#serial.set(
        port,
        new Serial16550(
          (byte) => events.onConsole(port, byte),
          (level) => events.onInterrupt?.(port, level),
        ),
      );
    this.#claims = [
      ...more,
      ...[...this.#serial].map(([base, device]) => ({ base, size: 8, device })),
      { base: ECHO_PORT, size: 4, device: new EchoDevice() },
      {
        base: DEBUG_EXIT_PORT,
        size: 4,
        device: { read: () => 0, write: (_offset, _size, value) => events.onExit(value) },
      },
    ];
  }

  read(port: number, size: number): number {
    const claim = this.#claims.find(({ base, size: span }) => port >= base && port < base + span);
    if (claim) return truncate(claim.device.read(port - claim.base, size), size);
    this.#report(`read of port ${hex(port)}: no device, reads as ones`);
    return truncate(0xffff_ffff, size);
  }
  write(port: number, size: number, value: number): void {
    const claim = this.#claims.find(({ base, size: span }) => port >= base && port < base + span);
    if (claim) claim.device.write(port - claim.base, size, truncate(value, size));
    else this.#report(`write to port ${hex(port)}: no device`);
  }
  receive(port: number, bytes: Uint8Array): void {
    const device = this.#serial.get(port);
    if (!device) throw new NotImplemented(`input for port ${hex(port)}`);
    device.receive(bytes);
  }

  #report(text: string): void {
    if (this.#reported.has(text)) return;
    this.#reported.add(text);
    this.#events.onUnclaimed(text);
  }
}

const truncate = (value: number, size: number): number =>
  size >= 4 ? value >>> 0 : value & ((1 << (size * 8)) - 1);
