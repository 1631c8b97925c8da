/** The smaller port devices of a PC, in the places where QEMU has them. */
import type { PortClaim, PortDevice } from '../devices.ts';
import { acpiPorts } from './acpi.ts';
import type { Clock } from './clock.ts';
import { CmosClock } from './rtc.ts';

export interface PortSurroundings {
  readonly clock: Clock;
  readonly vcpus: number;
  /** Bytes of guest memory. */
  readonly memory: number;
  /** An ISA interrupt line. */
  line(irq: number, level: boolean): void;
  onConsole(port: number, byte: number): void;
  /** SLP_EN was written with this SLP_TYP. */
  powerOff(type: number): void;
  reset(how: string): void;
}

/** QEMU's debug console: reads as its own address. */
const DEBUG_CONSOLE = 0xe9;
const RESET_BIT = 4;
const KEYBOARD_PULSE_RESET = 0xfe;
/** fw_cfg items by key (QEMU docs/specs/fw_cfg): signature, id, memory, processors, most processors. */
const FW_CFG = { signature: 0, id: 1, memory: 3, processors: 5, most: 15 } as const;
/** pc-testdev: a write raises or lowers an ISA line. */
const TEST_LINES = { base: 0x2000, size: 24 } as const;

const write = (act: (value: number, offset: number) => void, read = 0): PortDevice => ({
  read: () => read,
  write: (offset, _size, value) => act(value, offset),
});

class FirmwareConfiguration implements PortDevice {
  readonly #items: ReadonlyMap<number, readonly number[]>;
  #item: readonly number[] = [];
  #at = 0;
  constructor(vcpus: number, memory: number) {
    const le = (value: number, size: number): number[] =>
      Array.from({ length: size }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
    this.#items = new Map([
      [FW_CFG.signature, [...'QEMU'].map((letter) => letter.charCodeAt(0))],
      [FW_CFG.id, le(1, 4)],
      [FW_CFG.memory, le(memory, 8)],
      [FW_CFG.processors, le(vcpus, 2)],
      [FW_CFG.most, le(vcpus, 2)],
    ]);
  }
  read(offset: number): number {
    return offset === 0 ? 0 : (this.#item[this.#at++] ?? 0);
  }
  write(offset: number, _size: number, value: number): void {
    if (offset !== 0) return;
    this.#item = this.#items.get(value) ?? [];
    this.#at = 0;
  }
}

export function plainPorts(around: PortSurroundings): PortClaim[] {
  const { clock } = around;
  let pciAddress = 0;
  return [
    { base: 0x70, size: 2, device: new CmosClock(clock) },
    ...acpiPorts(clock, (type) => around.powerOff(type)),
    { base: 0x80, size: 1, device: write(() => {}) },
    {
      base: DEBUG_CONSOLE,
      size: 1,
      device: write((value) => around.onConsole(DEBUG_CONSOLE, value & 0xff), DEBUG_CONSOLE),
    },
    // The 8042 is there for its reset line only.
    {
      base: 0x64,
      size: 1,
      device: write((value) => {
        if ((value & 0xff) === KEYBOARD_PULSE_RESET) around.reset('the keyboard controller');
      }, 0xff),
    },
    {
      base: 0x92,
      size: 1,
      device: write((value) => {
        if ((value & 1) !== 0) around.reset('port 0x92');
      }, 2),
    },
    {
      base: 0xcf9,
      size: 1,
      device: write((value) => {
        if ((value & RESET_BIT) !== 0) around.reset('port 0xcf9');
      }),
    },
    // Configuration mechanism 1 of a bus on which nobody is: data reads as ones.
    {
      base: 0xcf8,
      size: 1,
      device: {
        read: () => pciAddress,
        write: (_offset, size, value) => {
          if (size === 4) pciAddress = value & 0x80ff_fffc;
        },
      },
    },
    { base: 0xcfc, size: 4, device: { read: () => 0xffff_ffff, write: () => {} } },
    { base: 0x510, size: 2, device: new FirmwareConfiguration(around.vcpus, around.memory) },
    { ...TEST_LINES, device: write((value, irq) => around.line(irq, value !== 0)) },
  ];
}
