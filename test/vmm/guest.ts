/** A guest written as text, in 64-bit mode on SNP: image, page tables and VMSA built around its code. */
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import type { IgvmFile } from '../../src/igvm/index.ts';
import { writeVmsa } from '../../src/snp/index.ts';
import { createMachine } from '../../src/vmm/index.ts';
import type { Machine, MachineEvent, MachineOptions } from '../../src/vmm/index.ts';
import { assemble } from '../x86/support/assemble.ts';

export const MASK = 1;
export const VMSA_GPA = 0xffff_ffff_f000n;
/** Fixed places. Everything from 0 to 1 GiB is mapped privately, and again from 1 GiB on as shared. */
export const AT = {
  pml4: 0x1000,
  pdpt: 0x2000,
  privateDirectory: 0x3000,
  sharedDirectory: 0x4000,
  idt: 0x5000,
  gdt: 0x6000,
  stack: 0x7ff0,
  code: 0x8000,
  secrets: 0x1_0000,
  cpuid: 0x1_1000,
  parameters: 0x1_2000,
  /** Never loaded. */
  free: 0x40_0000,
} as const;
/** Linear address of the shared view of a page. */
export const SHARED_VIEW = 0x4000_0000;
const C_BIT = 1n << 51n;
const PRESENT_WRITE_LARGE = 0xe3n;

const page = (fill: (view: DataView) => void): Uint8Array => {
  const bytes = new Uint8Array(4096);
  fill(new DataView(bytes.buffer));
  return bytes;
};
const directory = (cBit: bigint): Uint8Array =>
  page((view) => {
    for (let i = 0; i < 512; i++)
      view.setBigUint64(i * 8, (BigInt(i) * 0x20_0000n) | PRESENT_WRITE_LARGE | cBit, true);
  });

/** VMSA of 64-bit code at CPL 0 with `AT`'s tables. */
export function longModeVmsa(rip: number, changes: Readonly<Record<string, bigint>> = {}): Uint8Array {
  const vmsa = new Uint8Array(4096);
  const set = (name: string, value: bigint): void => writeVmsa(vmsa, name, value);
  for (const [name, selector, attributes] of [
    ['cs', 0x8n, 0xa9bn],
    ...['ds', 'es', 'ss', 'fs', 'gs'].map((each) => [each, 0x10n, 0xc93n] as const),
  ] as const) {
    set(`${name}.selector`, selector);
    set(`${name}.attributes`, attributes);
    set(`${name}.limit`, 0xffff_ffffn);
  }
  set('tr.attributes', 0x8bn);
  set('gdtr.base', BigInt(AT.gdt));
  set('gdtr.limit', 0x17n);
  set('idtr.base', BigInt(AT.idt));
  set('idtr.limit', 0xfffn);
  set('efer', 0x1d00n);
  set('cr0', 0x8001_0031n);
  set('cr4', 0x60n);
  set('cr3', BigInt(AT.pml4));
  set('rflags', 2n);
  set('rip', BigInt(rip));
  set('rsp', BigInt(AT.stack));
  set('dr6', 0xffff_0ff0n);
  set('dr7', 0x400n);
  set('g_pat', 0x0007_0406_0007_0406n);
  set('xcr0', 1n);
  set('mxcsr', 0x1f80n);
  set('x87_fcw', 0x37fn);
  set('sev_features', 1n);
  for (const [name, value] of Object.entries(changes)) set(name, value);
  return vmsa;
}

export interface GuestOptions {
  readonly vmsa?: Readonly<Record<string, bigint>>;
  readonly build?: (builder: IgvmBuilder) => void;
  /** Labels of handlers by vector. */
  readonly handlers?: Readonly<Record<number, string>>;
}

/** The image of a guest; its code starts at `AT.code`. */
export function guestImage(code: string, options: GuestOptions = {}): IgvmFile {
  const assembled = assemble(code, AT.code);
  const table = (next: number): bigint => BigInt(next) | 3n | C_BIT;
  const builder = new IgvmBuilder().platform('SEV_SNP', MASK).guestPolicy(0x3_0000n, MASK);
  const put = (gpa: number, bytes: Uint8Array): void => void builder.page(BigInt(gpa), MASK, bytes);
  put(
    AT.pml4,
    page((view) => view.setBigUint64(0, table(AT.pdpt), true)),
  );
  put(
    AT.pdpt,
    page((view) => {
      view.setBigUint64(0, table(AT.privateDirectory), true);
      view.setBigUint64(8, table(AT.sharedDirectory), true);
    }),
  );
  put(AT.privateDirectory, directory(C_BIT));
  put(AT.sharedDirectory, directory(0n));
  put(
    AT.idt,
    page((view) => {
      for (const [vector, label] of Object.entries(options.handlers ?? {})) {
        const target = Number(assembled.labels.get(label));
        view.setUint16(Number(vector) * 16, target & 0xffff, true);
        view.setUint16(Number(vector) * 16 + 2, 8, true);
        view.setUint16(Number(vector) * 16 + 4, 0x8e00, true);
        view.setUint16(Number(vector) * 16 + 6, target >> 16, true);
      }
    }),
  );
  put(
    AT.gdt,
    page((view) => {
      view.setBigUint64(8, 0x00af_9b00_0000_ffffn, true);
      view.setBigUint64(16, 0x00cf_9300_0000_ffffn, true);
    }),
  );
  put(0x7000, new Uint8Array(4096));
  builder.pages(BigInt(AT.code), MASK, assembled.bytes);
  builder.page(BigInt(AT.secrets), MASK, undefined, { dataType: 'SECRETS' });
  builder.page(BigInt(AT.cpuid), MASK, undefined, { dataType: 'CPUID_DATA' });
  options.build?.(builder);
  builder.vpContext(VMSA_GPA, MASK, longModeVmsa(AT.code, options.vmsa));
  return parseIgvm(builder.build());
}

export interface TestMachine {
  readonly machine: Machine;
  readonly events: MachineEvent[];
  console(port?: number): string;
}

export function machineOf(image: IgvmFile, options: Partial<MachineOptions> = {}): TestMachine {
  const events: MachineEvent[] = [];
  const text = new Map<number, string>();
  const machine = createMachine({
    image,
    crypto: nodeCrypto,
    vcpus: 1,
    memory: 64 << 20,
    onEvent: (event) => events.push(event),
    onConsole: (port, bytes) => text.set(port, (text.get(port) ?? '') + new TextDecoder().decode(bytes)),
    ...options,
  });
  return { machine, events, console: (port = 0x3f8) => text.get(port) ?? '' };
}

export const run = (
  code: string,
  options: GuestOptions & { machine?: Partial<MachineOptions> } = {},
): TestMachine => machineOf(guestImage(code, options), options.machine);

/** A general register of the thread that runs. */
export const REG = {
  rax: 0,
  rcx: 1,
  rdx: 2,
  rbx: 3,
  rsp: 4,
  rbp: 5,
  rsi: 6,
  rdi: 7,
  r8: 8,
  r9: 9,
  r10: 10,
  r11: 11,
  r12: 12,
} as const;
export const reg = (machine: Machine, name: keyof typeof REG): bigint => machine.current.cpu.reg(REG[name]);

const msr = 0xc001_0130;
/** Assembly: the GHCB MSR protocol with EDX:EAX given; the answer comes back in EDX:EAX. */
export const msrProtocol = (request: bigint): string => `
  mov ecx, ${msr}
  mov eax, ${request & 0xffff_ffffn}
  mov edx, ${request >> 32n}
  wrmsr
  vmgexit
  rdmsr`;

export const GHCB_GPA = 0x60_0000;
export const GHCB_VIEW = SHARED_VIEW + GHCB_GPA;
/** Assembly: makes the GHCB page shared and registers it. R15 holds its linear address from then on. */
export const setUpGhcb = `
  ${msrProtocol((2n << 52n) | BigInt(GHCB_GPA) | 0x14n)}
  ${msrProtocol(BigInt(GHCB_GPA) | 0x12n)}
  mov r15, ${GHCB_VIEW}`;

const OFFSET = { rax: 0x1f8, rcx: 0x308, rdx: 0x310, rbx: 0x318, xcr0: 0x3e8, sw_scratch: 0x3a8 } as const;
const bitOf = (offset: number): bigint => 1n << BigInt((offset >> 3) & 63);
/**
 * Assembly: one NAE event. `inputs` are immediates; exit code and infos are always valid unless `valid` says
 * otherwise. Clobbers RAX, RCX, RDX.
 */
export function nae(
  exitCode: number,
  info1: bigint,
  info2: bigint,
  inputs: Partial<Record<keyof typeof OFFSET, bigint>> = {},
): string {
  const lines: string[] = [];
  const store = (offset: number, value: bigint): void => {
    lines.push(`mov rax, ${value}`, `mov qword [r15 + ${offset}], rax`);
  };
  let low = 0n;
  let high = bitOf(0x390) | bitOf(0x398) | bitOf(0x3a0);
  for (const [name, value] of Object.entries(inputs)) {
    const offset = OFFSET[name as keyof typeof OFFSET];
    store(offset, value);
    if (offset < 0x200) low |= bitOf(offset);
    else high |= bitOf(offset);
  }
  store(0x390, BigInt(exitCode));
  store(0x398, info1);
  store(0x3a0, info2);
  store(0x3f0, low);
  store(0x3f8, high);
  return `
  ${lines.join('\n  ')}
  mov ecx, ${msr}
  mov eax, ${GHCB_GPA}
  xor edx, edx
  wrmsr
  vmgexit`;
}
