/** What firmware would leave in memory for ACPI (ACPI 6.5, chapter 5), and the fixed registers behind it. */
import type { PortClaim } from '../devices.ts';
import type { Clock } from './clock.ts';

/** Where the tables are put: the BIOS area, which a scan for the RSDP covers. */
export const ACPI_AREA = { start: 0xf_0000, end: 0x10_0000 } as const;
export const IO_APIC_ADDRESS = 0xfec0_0000;
const LOCAL_APIC_ADDRESS = 0xfee0_0000;
const PM_BASE = 0x600;
const PM1_CONTROL = 0x604;
const PM_TIMER = 0x608;
const SCI = 9;
const PM_TIMER_HZ = 3_579_545;
/** PM1 control: SCI_EN; SLP_TYP in bits 12:10, SLP_EN in bit 13. */
const SCI_ENABLED = 1;
const SLP_ENABLE = 1 << 13;
export const S5_TYPE = 5;

const ascii = (text: string): number[] => [...text].map((letter) => letter.charCodeAt(0));
const le = (value: number, size: number): number[] =>
  Array.from({ length: size }, (_, i) => Math.floor(value / 2 ** (8 * i)) & 0xff);
const sum = (bytes: readonly number[]): number => bytes.reduce((a, b) => (a + b) & 0xff, 0);

function table(signature: string, revision: number, body: readonly number[]): number[] {
  const bytes = [
    ...ascii(signature),
    ...le(body.length + 36, 4),
    revision,
    0,
    ...ascii('CVM   '),
    ...ascii('CVMPLAIN'),
    ...le(1, 4),
    ...ascii('CVM '),
    ...le(1, 4),
    ...body,
  ];
  bytes[9] = (256 - sum(bytes)) & 0xff;
  return bytes;
}

/** Name(\_S5, Package { 5, 5, 0, 0 }) (ACPI 6.5, §20.2). */
const DSDT_BODY = [0x08, 0x5c, ...ascii('_S5_'), 0x12, 0x08, 0x04, 0x0a, S5_TYPE, 0x0a, S5_TYPE, 0x00, 0x00];

function madt(vcpus: number): number[] {
  const body = [...le(LOCAL_APIC_ADDRESS, 4), ...le(1, 4)]; // PCAT_COMPAT: 8259s are there
  for (let id = 0; id < vcpus; id++) body.push(0, 8, id, id, ...le(1, 4));
  body.push(1, 12, 0, 0, ...le(IO_APIC_ADDRESS, 4), ...le(0, 4));
  // ISA IRQ 0 is pin 2; the SCI is level triggered, active high.
  body.push(2, 10, 0, 0, ...le(2, 4), ...le(0, 2));
  body.push(2, 10, 0, SCI, ...le(SCI, 4), ...le(0xd, 2));
  body.push(4, 6, 0xff, ...le(0, 2), 1); // NMI at LINT1 of all
  return table('APIC', 3, body);
}

/** FADT, revision 3 (244 bytes): port blocks in their legacy fields and as generic addresses. */
function fadt(dsdt: number, facs: number): number[] {
  const body = new Array<number>(244 - 36).fill(0);
  const put = (offset: number, value: number, size: number): void =>
    le(value, size).forEach((byte, i) => (body[offset - 36 + i] = byte));
  const generic = (offset: number, bits: number, port: number): void => {
    put(offset, 1, 1);
    put(offset + 1, bits, 1);
    put(offset + 4, port, 4);
  };
  put(36, facs, 4);
  put(40, dsdt, 4);
  put(46, SCI, 2);
  // SMI_CMD 0: always in ACPI mode.
  put(56, PM_BASE, 4);
  put(64, PM1_CONTROL, 4);
  put(76, PM_TIMER, 4);
  put(88, 4, 1); // PM1_EVT_LEN
  put(89, 2, 1); // PM1_CNT_LEN
  put(91, 4, 1); // PM_TMR_LEN
  put(96, 0xfff, 2); // no C2
  put(98, 0xfff, 2); // no C3
  put(108, 0x32, 1); // century
  put(109, 1, 2); // legacy devices; no 8042
  // WBINVD, PROC_C1, no power button, no sleep button, 32-bit timer, reset register.
  put(112, 1 | (1 << 2) | (1 << 4) | (1 << 5) | (1 << 8) | (1 << 10), 4);
  generic(116, 8, 0xcf9);
  put(128, 6, 1);
  put(132, facs, 4);
  put(140, dsdt, 4);
  generic(148, 32, PM_BASE);
  generic(172, 16, PM1_CONTROL);
  generic(208, 32, PM_TIMER);
  return table('FACP', 3, body);
}

export interface AcpiTables {
  /** Physical address of the RSDP. */
  readonly rsdp: number;
  readonly pieces: readonly { readonly at: number; readonly bytes: Uint8Array }[];
}

export function acpiTables(vcpus: number): AcpiTables {
  const pieces: { at: number; bytes: Uint8Array }[] = [];
  let next: number = ACPI_AREA.start;
  const place = (bytes: readonly number[]): number => {
    const at = next;
    pieces.push({ at, bytes: Uint8Array.from(bytes) });
    next = Math.ceil((at + bytes.length) / 64) * 64;
    return at;
  };
  const rsdp = next;
  next += 64;
  const facs = place([
    ...ascii('FACS'),
    ...le(64, 4),
    ...new Array<number>(24).fill(0),
    1,
    ...new Array<number>(31).fill(0),
  ]);
  const dsdt = place(table('DSDT', 2, DSDT_BODY));
  const tables = [place(fadt(dsdt, facs)), place(madt(vcpus))];
  const rsdt = place(
    table(
      'RSDT',
      1,
      tables.flatMap((at) => le(at, 4)),
    ),
  );
  const xsdt = place(
    table(
      'XSDT',
      1,
      tables.flatMap((at) => le(at, 8)),
    ),
  );
  const pointer = [
    ...ascii('RSD PTR '),
    0,
    ...ascii('CVM   '),
    2,
    ...le(rsdt, 4),
    ...le(36, 4),
    ...le(xsdt, 8),
    0,
    0,
    0,
    0,
  ];
  pointer[8] = (256 - sum(pointer.slice(0, 20))) & 0xff;
  pointer[32] = (256 - sum(pointer)) & 0xff;
  pieces.push({ at: rsdp, bytes: Uint8Array.from(pointer) });
  return { rsdp, pieces };
}

/** PM1 event and control blocks and the PM timer. */
export function acpiPorts(clock: Clock, powerOff: (type: number) => void): PortClaim[] {
  let enable = 0;
  let control = SCI_ENABLED;
  return [
    {
      base: PM_BASE,
      size: 4,
      device: {
        // Status is in the lower half, and no event ever happens.
        read: (offset) =>
          (offset >= 2 ? enable >> (8 * (offset - 2)) : 0) | (offset === 0 ? enable << 16 : 0),
        write: (offset, size, value) => {
          if (offset === 2) enable = size === 1 ? (enable & 0xff00) | value : value & 0xffff;
        },
      },
    },
    {
      base: PM1_CONTROL,
      size: 2,
      device: {
        read: (offset) => control >> (8 * offset),
        write: (offset, size, value) => {
          const next =
            size === 1
              ? offset === 0
                ? (control & 0xff00) | value
                : (control & 0xff) | (value << 8)
              : value;
          control = (next & ~SLP_ENABLE) | SCI_ENABLED;
          if ((next & SLP_ENABLE) !== 0) powerOff((next >> 10) & 7);
        },
      },
    },
    {
      base: PM_TIMER,
      size: 4,
      device: {
        read: (offset) =>
          Math.floor((Math.floor((clock.now() * PM_TIMER_HZ) / 1e9) % 2 ** 32) / 2 ** (8 * offset)),
        write: () => {},
      },
    },
  ];
}
