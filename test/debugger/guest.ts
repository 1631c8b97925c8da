/**
 * Guests written as text in the test that needs them: assembled, wrapped into an IGVM file whose vCPU starts
 * in 64-bit mode, and into an ELF file whose line table names the text itself.
 */
import { IgvmBuilder } from '../../src/igvm/index.ts';
import { assemble } from '../x86/support/assemble.ts';

export const SOURCE_PATH = '/guest/guest.asm';
/** Where the line table puts lines whose comment ends with "(inlined)". */
export const INLINED_PATH = '/guest/inlined.asm';
const SNP = 1;
const C_BIT = 1n << 51n;
const CODE = 0x1_0000;
/** Below the code; grows down. */
const STACK_TOP = 0xe000n;
const GHCB = 0x8000;
const AP_VMSA = 0x9000;
/** In the middle of the loaded stack pages. */
const AP_STACK_TOP = 0xc000n;
/** Guest memory below 2 MiB as shared pages: the second 2 MiB of virtual memory. */
export const SHARED = 0x20_0000;

export interface TestGuest {
  readonly igvm: Uint8Array;
  readonly elf: Uint8Array;
  readonly text: string;
  readonly labels: ReadonlyMap<string, bigint>;
  /** The line (from 1) with this comment, or that is this text. */
  line(marker: string): number;
  /** Address of the first instruction of a line. */
  address(marker: string): bigint;
}

/** Prints RSI's zero-terminated text on COM1, ends by isa-debug-exit with EDI, asks for termination. */
export const RUNTIME = `
ghcb_setup:                       ; shares the GHCB page and registers it
  mov ecx, 0xc0010130
  mov eax, ${GHCB + 0x14}
  mov edx, 0x200000               ; operation 2 in bits 55:52: shared
  wrmsr
  rep vmmcall
  mov eax, ${GHCB + 0x12}
  xor edx, edx
  wrmsr
  rep vmmcall
  ret
port_out:                         ; EAX to port R8D, size bit in R9D, by the GHCB
  mov rbx, ${SHARED + GHCB}
  mov [rbx+0x1f8], rax
  mov qword [rbx+0x390], 0x7b
  shl r8, 16
  or r8, r9
  mov [rbx+0x398], r8
  mov qword [rbx+0x3a0], 0
_valid:
  mov rax, 0x8000000000000000
  mov [rbx+0x3f0], rax
  mov rax, 0x001c000000000000
  mov [rbx+0x3f8], rax
  mov word [rbx+0xffa], 2
  mov dword [rbx+0xffc], 0
  mov ecx, 0xc0010130
  mov eax, ${GHCB}
  xor edx, edx
  wrmsr
  rep vmmcall
  ret
print_text:
  movzx eax, byte [rsi]
  test eax, eax
  jz _print_done
  mov r8d, 0x3f8
  mov r9d, 0x10
  call port_out
  inc rsi
  jmp print_text
_print_done:
  ret
debug_exit:
  mov eax, edi
  mov r8d, 0xf4
  mov r9d, 0x40
  call port_out
  hlt
start_ap:                         ; vCPU 1 from the save area at ${AP_VMSA}
  mov rax, ${AP_VMSA}
  xor ecx, ecx
  mov edx, 0x10001                ; VMSA, seen from VMPL1
  rmpadjust
  mov rbx, ${SHARED + GHCB}
  mov qword [rbx+0x1f8], 1        ; SEV features
  mov rax, 0x80000013
  mov [rbx+0x390], rax
  mov rax, 0x100000001            ; APIC id 1, VMPL0, create
  mov [rbx+0x398], rax
  mov qword [rbx+0x3a0], ${AP_VMSA}
  jmp _valid
request_termination:              ; reason set 3, code EDI
  mov ecx, 0xc0010130
  mov eax, edi
  shl eax, 16
  or eax, 0x3100
  xor edx, edx
  wrmsr
  rep vmmcall
  hlt
`;

/** `db` of a text, zero-terminated. */
export const bytesOf = (text: string): string => `db ${[...Buffer.from(text), 0].join(', ')}`;

const put = (page: DataView, rows: readonly (readonly [offset: number, value: bigint])[]): void => {
  for (const [offset, value] of rows) page.setBigUint64(offset, value, true);
};

/** 64-bit mode, ring 0, paging on, interrupts off, no IDT (APM vol. 2, table B-4 for the offsets). */
function vmsa(entry: bigint, stack: bigint): Uint8Array {
  const page = new DataView(new ArrayBuffer(4096));
  for (const at of [0x00, 0x20, 0x30, 0x40, 0x50]) {
    page.setUint16(at, 0x10, true);
    page.setUint16(at + 2, 0xc93, true);
    page.setUint32(at + 4, 0xffff_ffff, true);
  }
  page.setUint16(0x10, 8, true);
  page.setUint16(0x12, 0xa9b, true);
  page.setUint32(0x14, 0xffff_ffff, true);
  put(page, [
    [0x0d0, 0x1d00n], // EFER: SVME, NXE, LMA, LME
    [0x148, 0x20n], // CR4: PAE
    [0x150, 0x1000n], // CR3
    [0x158, 0x8001_0031n], // CR0: PG, WP, NE, ET, PE
    [0x160, 0x400n],
    [0x168, 0xffff_0ff0n],
    [0x170, 2n],
    [0x178, entry],
    [0x1d8, stack],
    [0x268, 0x0007_0406_0007_0406n],
    [0x3b0, 1n],
    [0x3e8, 1n],
  ]);
  return new Uint8Array(page.buffer);
}

function pageTable(...entries: bigint[]): Uint8Array {
  const page = new DataView(new ArrayBuffer(4096));
  put(
    page,
    entries.map((entry, index) => [index * 8, entry] as const),
  );
  return new Uint8Array(page.buffer);
}

/**
 * Execution starts at `start`; `ap`, if there is such a label, is where `start_ap` starts vCPU 1. Labels that
 * begin with `_` are local. A line with the comment "(same line)" belongs to the one before.
 */
export function testGuest(text: string): TestGuest {
  const lines = text.split('\n');
  // A label before every line tells where its code lies.
  const marked = lines.map((line, index) => `line_${index + 1}: \n${line}`).join('\n');
  const { bytes, labels } = assemble(marked, CODE);
  const builder = new IgvmBuilder({ version: 1 })
    .platform('SEV_SNP', SNP)
    .guestPolicy(0x3_0000n, SNP)
    .page(0x1000n, SNP, pageTable(0x2000n | C_BIT | 3n))
    .page(0x2000n, SNP, pageTable(0x3000n | C_BIT | 3n))
    .page(0x3000n, SNP, pageTable(C_BIT | 0x83n, 0x83n));
  for (let page = Number(STACK_TOP) - 0x4000; page < Number(STACK_TOP); page += 4096)
    builder.page(BigInt(page), SNP);
  for (let at = 0; at < bytes.length; at += 4096)
    builder.page(BigInt(CODE + at), SNP, bytes.subarray(at, at + 4096));
  if (labels.has('ap')) builder.page(BigInt(AP_VMSA), SNP, vmsa(labels.get('ap')!, AP_STACK_TOP));
  const igvm = builder.vpContext(0xffff_ffff_f000n, SNP, vmsa(labels.get('start')!, STACK_TOP)).build();

  const names = [...labels].filter(([name]) => !/^(line)?_/.test(name));
  const rows = lines
    .map((line, index) => ({
      line: index + 1,
      address: labels.get(`line_${index + 1}`)!,
      file: line.endsWith('(inlined)') ? 2 : 1,
    }))
    .filter(({ line }) => !lines[line - 1]!.endsWith('(same line)'))
    .filter(({ address }, index, all) => (all[index + 1]?.address ?? address + 1n) > address);
  const end = BigInt(CODE + bytes.length);
  const line = (marker: string): number => {
    const found = lines.flatMap((one, index) =>
      one.endsWith(`; ${marker}`) || one === marker ? [index + 1] : [],
    );
    if (found.length !== 1) throw new Error(`${found.length} lines have "${marker}"`);
    return found[0]!;
  };
  return {
    igvm,
    elf: elfFile(bytes, names, rows, end),
    text,
    labels,
    line,
    address: (marker) => labels.get(`line_${line(marker)}`)!,
  };
}

interface Row {
  readonly line: number;
  readonly address: bigint;
  /** Number in the line table. */
  readonly file: number;
}

/** ET_EXEC with .text, .symtab and a DWARF 4 line table. */
function elfFile(
  code: Uint8Array,
  names: readonly (readonly [string, bigint])[],
  rows: readonly Row[],
  end: bigint,
): Uint8Array {
  const sorted = [...names].sort((a, b) => (a[1] < b[1] ? -1 : 1));
  let strings = '\0';
  const symbols = new DataView(new ArrayBuffer(24 * (sorted.length + 1)));
  sorted.forEach(([name, address], index) => {
    const at = 24 * (index + 1);
    symbols.setUint32(at, strings.length, true);
    symbols.setUint8(at + 4, 0x12); // STB_GLOBAL, STT_FUNC
    symbols.setUint16(at + 6, 1, true);
    symbols.setBigUint64(at + 8, address, true);
    symbols.setBigUint64(at + 16, (sorted[index + 1]?.[1] ?? end) - address, true);
    strings += `${name}\0`;
  });
  const sections: {
    name: string;
    type: number;
    flags: number;
    address: number;
    link: number;
    data: Uint8Array;
  }[] = [
    { name: '', type: 0, flags: 0, address: 0, link: 0, data: new Uint8Array(0) },
    { name: '.text', type: 1, flags: 6, address: CODE, link: 0, data: code },
    { name: '.symtab', type: 2, flags: 0, address: 0, link: 3, data: new Uint8Array(symbols.buffer) },
    { name: '.strtab', type: 3, flags: 0, address: 0, link: 0, data: Buffer.from(strings) },
    { name: '.debug_line', type: 1, flags: 0, address: 0, link: 0, data: lineTable(rows, end) },
  ];
  const sectionNames = `${sections.map(({ name }) => name).join('\0')}\0.shstrtab\0`;
  sections.push({
    name: '.shstrtab',
    type: 3,
    flags: 0,
    address: 0,
    link: 0,
    data: Buffer.from(sectionNames),
  });

  const size = 64 + 56 + sections.reduce((sum, { data }) => sum + data.length, 0) + sections.length * 64;
  const file = new Uint8Array(size);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true); // ET_EXEC
  view.setUint16(18, 62, true); // EM_X86_64
  view.setUint32(20, 1, true);
  view.setBigUint64(32, 64n, true);
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint16(58, 64, true);
  view.setUint16(60, sections.length, true);
  view.setUint16(62, sections.length - 1, true);
  let at = 64 + 56;
  let nameAt = 0;
  const headers = size - sections.length * 64;
  view.setBigUint64(40, BigInt(headers), true);
  sections.forEach(({ name, type, flags, address, link, data }, index) => {
    file.set(data, at);
    const header = headers + index * 64;
    view.setUint32(header, nameAt, true);
    view.setUint32(header + 4, type, true);
    view.setBigUint64(header + 8, BigInt(flags), true);
    view.setBigUint64(header + 16, BigInt(address), true);
    view.setBigUint64(header + 24, BigInt(at), true);
    view.setBigUint64(header + 32, BigInt(data.length), true);
    view.setUint32(header + 40, link, true);
    view.setUint32(header + 44, type === 2 ? 1 : 0, true);
    view.setBigUint64(header + 56, type === 2 ? 24n : 0n, true);
    if (name === '.text') {
      view.setUint32(64, 1, true); // PT_LOAD
      view.setUint32(68, 5, true);
      put(view, [
        [72, BigInt(at)],
        [80, BigInt(CODE)],
        [88, BigInt(CODE)],
        [96, BigInt(data.length)],
        [104, BigInt(data.length)],
        [112, 4096n],
      ]);
    }
    at += data.length;
    nameAt += name.length + 1;
  });
  return file;
}

/** One sequence, two files; every row a statement (DWARF 4, §6.2). */
function lineTable(rows: readonly Row[], end: bigint): Uint8Array {
  const bytes: number[] = [];
  const u32 = (value: number): void =>
    void bytes.push(value & 255, (value >> 8) & 255, (value >> 16) & 255, value >>> 24);
  const leb = (value: number): void => {
    let rest = value;
    for (;;) {
      const byte = rest & 0x7f;
      rest >>= 7;
      const done = (rest === 0 && !(byte & 0x40)) || (rest === -1 && (byte & 0x40) !== 0);
      bytes.push(done ? byte : byte | 0x80);
      if (done) return;
    }
  };
  const setAddress = (address: bigint): void => {
    bytes.push(0, 9, 2);
    for (let i = 0n; i < 8n; i++) bytes.push(Number((address >> (8n * i)) & 255n));
  };
  const text = (value: string): void => void bytes.push(...Buffer.from(value), 0);
  u32(0); // unit_length, set below
  bytes.push(4, 0);
  const headerLength = bytes.length;
  u32(0);
  bytes.push(1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1);
  text('/guest');
  bytes.push(0);
  text('guest.asm');
  bytes.push(1, 0, 0);
  text('inlined.asm');
  bytes.push(1, 0, 0, 0);
  const program = bytes.length;
  let line = 1;
  for (const row of rows) {
    setAddress(row.address);
    bytes.push(4, row.file); // set_file
    bytes.push(3); // advance_line, signed
    leb(row.line - line);
    line = row.line;
    bytes.push(1); // copy
  }
  setAddress(end);
  bytes.push(0, 1, 1); // end_sequence
  const out = Uint8Array.from(bytes);
  const view = new DataView(out.buffer);
  view.setUint32(0, out.length - 4, true);
  view.setUint32(headerLength, program - headerLength - 4, true);
  return out;
}
