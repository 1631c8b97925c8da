/** A Multiboot kernel written as text: 32-bit, flat, with an IDT in which every gate ends the machine. */
import { createPlainMachine } from '../../../src/vmm/plain/index.ts';
import type { PlainMachineOptions } from '../../../src/vmm/plain/index.ts';
import type { Machine, MachineStop } from '../../../src/vmm/index.ts';
import { assemble } from '../../x86/support/assemble.ts';

export const LOAD = 0x10_0000;
const MAGIC = 0x1bad_b002;
/** The addresses of the image stand in the header. */
const FLAGS = 0x1_0000;
/** Where `gate` puts the IDT and the stack is. */
const IDT = 0x8000;
const STACK = 0x7000;

/** Macros of the guests: `irq VECTOR LABEL` makes a gate; `out8 PORT VALUE`; `print 'c'`. */
function expand(text: string): string {
  return text
    .replace(
      /^\s*irq (\S+) (\S+)$/gm,
      (_, vector: string, label: string) => `
        mov eax, ${label}
        mov word [${IDT} + ${vector} * 8], ax
        mov word [${IDT} + ${vector} * 8 + 2], 0x10
        mov word [${IDT} + ${vector} * 8 + 4], 0x8e00
        shr eax, 16
        mov word [${IDT} + ${vector} * 8 + 6], ax`,
    )
    .replace(
      /^\s*out8 (\S+) (\S+)$/gm,
      (_, port: string, value: string) => `
        mov dx, ${port}
        mov al, ${value}
        out dx, al`,
    )
    .replace(/^\s*print ('.')$/gm, (_, letter: string) => {
      return `
        push eax
        push edx
        mov dx, 0x3f8
        mov al, ${letter}
        out dx, al
        pop edx
        pop eax`;
    });
}

/** ICW1 to ICW4 of both 8259s: vectors 0x20 and 0x28; only the lines of `mask` are open. */
export const PIC = (mask: number): string => `
  out8 0x20 0x11
  out8 0x21 0x20
  out8 0x21 0x04
  out8 0x21 0x01
  out8 0xa0 0x11
  out8 0xa1 0x28
  out8 0xa1 0x02
  out8 0xa1 0x01
  out8 0x21 ${~mask & 0xff}
  out8 0xa1 ${(~mask >> 8) & 0xff}
`;
/** Channel 0, mode 2: about `hz` interrupts a second. */
export const PIT = (hz: number): string => {
  const count = Math.round(1_193_182 / hz);
  return `
  out8 0x43 0x34
  out8 0x40 ${count & 0xff}
  out8 0x40 ${count >> 8}
`;
};
export const POWER_OFF = `
  mov dx, 0x604
  mov ax, 0x3400
  out dx, ax
  hlt
`;

export function kernel(body: string): Uint8Array {
  const text = `
    bits 32
    dd ${MAGIC}, ${FLAGS}, ${-(MAGIC + FLAGS) >>> 0}, ${LOAD}, ${LOAD}, 0, 0, ${LOAD + 0x40}
    org ${LOAD + 0x40}
    mov esp, ${STACK}
    mov word [${STACK + 0x10}], 0x7ff
    mov dword [${STACK + 0x12}], ${IDT}
    lidt [${STACK + 0x10}]
    ${expand(body)}
  `;
  return assemble(text, LOAD, 32).bytes;
}

export interface Ran {
  readonly machine: Machine;
  readonly stop: MachineStop;
  readonly text: string;
}

/** Runs to the end, in slices of `slice` instructions. */
export function run(
  body: string,
  options: Partial<PlainMachineOptions> & { slice?: number; most?: number } = {},
): Ran {
  const { slice = 1_000_000, most = 5_000_000, ...rest } = options;
  let text = '';
  const machine = createPlainMachine({
    kernel: kernel(body),
    vcpus: 1,
    memory: 16 << 20,
    onConsole: (port, bytes) => {
      if (port === 0x3f8) text += new TextDecoder().decode(bytes);
    },
    ...rest,
  });
  let stop;
  do stop = machine.run(slice);
  while (stop.reason === 'budget' && machine.retired < most);
  return { machine, stop, text };
}
