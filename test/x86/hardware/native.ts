/**
 * Runs cases on the processor this test runs on: a small static executable, assembled here, loads
 * each state with rt_sigreturn and reports the state in which the exception left it. Linux on x86-64
 * only; no compiler involved.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { assemble } from '../support/assemble.ts';
import { CODE, DATA, DATA_SIZE, ENTRY, LIMIT_16, READ_ONLY, RUNNER, SELECTORS } from './case.ts';
import type { Bits, Case, Outcome } from './case.ts';

export const nativeAvailable = (): boolean => process.platform === 'linux' && process.arch === 'x64';

const BASE = RUNNER;
const HEADERS = 120;
/** Places in the runner's own memory, behind its code. */
const RECORD = BASE + 0x1_0000;
const OVERLAYS = BASE + 0x1_1000;
const TEMPLATE = BASE + 0x1_4000;
const SHADOW = BASE + 0x1_6000;
const OUT = BASE + 0x1_8000;
const STACK = BASE + 0x2_0000;
const ALT_STACK = BASE + 0x2_0000;
const ALT_SIZE = 0x2_0000;
const SIZE = 0x4_0000;

/** Record: overlay count, code (64 bytes), ucontext (304), padding, FXSAVE image (512). */
const CODE_BYTES = 64;
/** Selector for DS, ES, FS and GS. */
const DATA_SELECTOR = 72;
const UCONTEXT = 128;
const FXSAVE = 448;
const RECORD_BYTES = FXSAVE + 512;
const OVERLAY_DATA = 64;
const OVERLAY_BYTES = 16 + OVERLAY_DATA;

/** Offsets in the ucontext: struct sigcontext begins at 40 (asm/sigcontext.h). */
const SIGCONTEXT = 40;
const SIGCONTEXT_BYTES = 256;
/** Index in sigcontext of RAX RCX RDX RBX RSP RBP RSI RDI R8 … R15. */
const GREG = [13, 14, 12, 11, 15, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7];
const RIP = 16;
const FLAGS = 17;
const SEGMENTS = 18;
const ERROR = 19;
const TRAP = 20;
const CR2 = 22;
const FPSTATE = 23;
const OUT_HEAD = 8 + SIGCONTEXT_BYTES + 512;

const SIGNALS = [4, 5, 7, 8, 11]; // ILL TRAP BUS FPE SEGV

const SOURCE = `
  ; code, data and read-only pages
  mov eax, 9
  mov edi, ${CODE}
  mov esi, 0x1000
  mov edx, 7
  mov r10d, 0x32
  mov r8, -1
  xor r9d, r9d
  syscall
  mov eax, 9
  mov edi, ${DATA}
  mov esi, ${DATA_SIZE}
  mov edx, 3
  mov r10d, 0x32
  mov r8, -1
  syscall
  mov eax, 9
  mov edi, ${READ_ONLY}
  mov esi, 0x1000
  mov edx, 3
  mov r10d, 0x32
  mov r8, -1
  syscall
  ; the fill
  xor ecx, ecx
fill:
  mov eax, ecx
  imul eax, eax, 0x9d
  mov edx, ecx
  shr edx, 8
  imul edx, edx, 0x3b
  add eax, edx
  add eax, 0x5a
  mov byte [rcx+${TEMPLATE}], al
  add ecx, 1
  cmp ecx, ${DATA_SIZE}
  jnz fill
  mov esi, ${TEMPLATE}
  mov edi, ${READ_ONLY}
  mov ecx, 0x200
  rep movsq
  mov eax, 10
  mov edi, ${READ_ONLY}
  mov esi, 0x1000
  mov edx, 1
  syscall
  ; segments of 16-bit code; a kernel without them kills the first case that needs one
  mov eax, 154
  mov edi, 1
  mov esi, code16
  mov edx, 16
  syscall
  mov eax, 154
  mov edi, 1
  mov esi, data16
  mov edx, 16
  syscall
  ; signals
  mov eax, 131
  mov edi, altstack
  xor esi, esi
  syscall
${SIGNALS.map(
  (signal) => `
  mov eax, 13
  mov edi, ${signal}
  mov esi, action
  xor edx, edx
  mov r10d, 8
  syscall`,
).join('')}
main:
  mov esp, ${STACK}
  mov r12d, ${RECORD}
  mov r13d, ${RECORD_BYTES}
  call read_exactly
  mov rax, qword [${RECORD}]
  imul r13, rax, ${OVERLAY_BYTES}
  mov r12d, ${OVERLAYS}
  call read_exactly
  ; the code page
  mov eax, 10
  mov edi, ${CODE}
  mov esi, 0x1000
  mov edx, 3
  syscall
  mov edi, ${CODE}
  mov ecx, 0x1000
  mov eax, 0xcc
  rep stosb
  mov edi, ${ENTRY}
  mov esi, ${RECORD + 8}
  mov ecx, ${CODE_BYTES}
  rep movsb
  mov eax, 10
  mov edi, ${CODE}
  mov esi, 0x1000
  mov edx, 5
  syscall
  ; the data pages, and what they held
  mov esi, ${TEMPLATE}
  mov edi, ${DATA}
  mov ecx, ${DATA_SIZE / 8}
  rep movsq
  mov rbx, qword [${RECORD}]
  mov ebp, ${OVERLAYS}
overlay:
  test rbx, rbx
  jz overlaid
  mov rdi, qword [rbp]
  mov rcx, qword [rbp+8]
  lea rsi, [rbp+16]
  rep movsb
  add rbp, ${OVERLAY_BYTES}
  sub rbx, 1
  jmp overlay
overlaid:
  mov esi, ${DATA}
  mov edi, ${SHADOW}
  mov ecx, ${DATA_SIZE / 8}
  rep movsq
  mov eax, dword [${RECORD + DATA_SELECTOR}]
  mov ds, eax
  mov es, eax
  mov fs, eax
  mov gs, eax
  mov esp, ${RECORD + UCONTEXT}
  mov eax, 15
  syscall
handler:
  mov esp, ${STACK}
  lea rsi, [rdx+${SIGCONTEXT}]
  mov edi, ${OUT + 8}
  mov ecx, ${SIGCONTEXT_BYTES / 8}
  rep movsq
  mov rsi, qword [rdx+${SIGCONTEXT + FPSTATE * 8}]
  mov ecx, 64
  rep movsq
  xor ecx, ecx
  xor ebx, ebx
diff:
  mov rax, qword [rcx+${DATA}]
  cmp rax, qword [rcx+${SHADOW}]
  jz same
  lea rdx, [rcx+${DATA}]
  mov qword [rdi], rdx
  mov qword [rdi+8], rax
  add rdi, 16
  add ebx, 1
same:
  add ecx, 8
  cmp ecx, ${DATA_SIZE}
  jnz diff
  mov qword [${OUT}], rbx
  lea rdx, [rdi-${OUT}]
  mov esi, ${OUT}
write_more:
  mov eax, 1
  mov edi, 1
  syscall
  add rsi, rax
  sub rdx, rax
  jnz write_more
  jmp main
read_exactly:
  test r13, r13
  jz read_done
  xor eax, eax
  xor edi, edi
  mov rsi, r12
  mov rdx, r13
  syscall
  test rax, rax
  jle finished
  add r12, rax
  sub r13, rax
  jmp read_exactly
read_done:
  ret
finished:
  mov eax, 60
  xor edi, edi
  syscall
  align 8
altstack:
  dq ${ALT_STACK}
  dq 0
  dq ${ALT_SIZE}
code16:
  dd 0
  dd ${CODE}
  dd ${LIMIT_16}
  dd 0x44
data16:
  dd 1
  dd ${DATA}
  dd ${LIMIT_16}
  dd 0x40
action:
  dq handler
  dq 0x4c000004
  dq finished
  dq 0
`;

const executable = (): Uint8Array => {
  const { bytes } = assemble(SOURCE, BASE + HEADERS, 64);
  const file = new Uint8Array(HEADERS + bytes.length);
  const view = new DataView(file.buffer);
  file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  view.setUint16(16, 2, true); // ET_EXEC
  view.setUint16(18, 62, true); // EM_X86_64
  view.setUint32(20, 1, true);
  view.setBigUint64(24, BigInt(BASE + HEADERS), true);
  view.setBigUint64(32, 64n, true); // program headers
  view.setUint16(52, 64, true);
  view.setUint16(54, 56, true);
  view.setUint16(56, 1, true);
  view.setUint32(64, 1, true); // PT_LOAD
  view.setUint32(68, 7, true);
  view.setBigUint64(72, 0n, true);
  view.setBigUint64(80, BigInt(BASE), true);
  view.setBigUint64(88, BigInt(BASE), true);
  view.setBigUint64(96, BigInt(file.length), true);
  view.setBigUint64(104, BigInt(SIZE), true);
  view.setBigUint64(112, 0x1000n, true);
  file.set(bytes, HEADERS);
  return file;
};

const encode = (c: Case): Uint8Array => {
  const record = new Uint8Array(RECORD_BYTES + c.memory.length * OVERLAY_BYTES);
  const view = new DataView(record.buffer);
  view.setBigUint64(0, BigInt(c.memory.length), true);
  record.fill(0xcc, 8, 8 + CODE_BYTES);
  if (c.code.length > CODE_BYTES) throw new Error(`${c.name}: code of more than ${CODE_BYTES} bytes`);
  record.set(c.code, 8);
  const uc = UCONTEXT;
  view.setBigUint64(uc, 6n, true); // UC_SIGCONTEXT_SS, UC_STRICT_RESTORE_SS
  view.setBigUint64(uc + 16, BigInt(ALT_STACK), true);
  view.setBigUint64(uc + 32, BigInt(ALT_SIZE), true);
  const greg = (index: number, value: bigint): void =>
    view.setBigUint64(uc + SIGCONTEXT + index * 8, BigInt.asUintN(64, value), true);
  c.input.gpr.forEach((value, i) => greg(GREG[i]!, value));
  greg(RIP, c.input.rip);
  greg(FLAGS, BigInt(c.input.flags));
  const { code, data } = SELECTORS[c.bits];
  greg(SEGMENTS, (BigInt(data) << 48n) | BigInt(code)); // CS, GS, FS, SS
  view.setBigUint64(DATA_SELECTOR, BigInt(data), true);
  greg(FPSTATE, BigInt(RECORD + FXSAVE));
  view.setUint16(FXSAVE, 0x37f, true);
  view.setUint32(FXSAVE + 24, c.input.mxcsr, true);
  record.set(c.input.xmm, FXSAVE + 160);
  c.memory.forEach(({ address, bytes }, i) => {
    const at = RECORD_BYTES + i * OVERLAY_BYTES;
    if (bytes.length > OVERLAY_DATA) throw new Error(`${c.name}: an overlay of ${bytes.length} bytes`);
    view.setBigUint64(at, BigInt(address), true);
    view.setBigUint64(at + 8, BigInt(bytes.length), true);
    record.set(bytes, at + 16);
  });
  return record;
};

const decodeOutcomes = (bytes: Uint8Array): Outcome[] => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const outcomes: Outcome[] = [];
  for (let at = 0; at + OUT_HEAD <= bytes.length;) {
    const changed = Number(view.getBigUint64(at, true));
    const greg = (index: number): bigint => view.getBigUint64(at + 8 + index * 8, true);
    const fx = at + 8 + SIGCONTEXT_BYTES;
    const memory = new Map<number, bigint>();
    for (let i = 0; i < changed; i++) {
      const entry = at + OUT_HEAD + i * 16;
      memory.set(Number(view.getBigUint64(entry, true)), view.getBigUint64(entry + 8, true));
    }
    outcomes.push({
      vector: Number(greg(TRAP)),
      errorCode: greg(ERROR),
      cr2: greg(CR2),
      state: {
        gpr: GREG.map(greg),
        rip: greg(RIP),
        flags: Number(greg(FLAGS)),
        mxcsr: view.getUint32(fx + 24, true),
        xmm: bytes.slice(fx + 160, fx + 416),
      },
      memory,
    });
    at += OUT_HEAD + changed * 16;
  }
  return outcomes;
};

/** Runs the cases on this machine's processor. */
export const runNative = (cases: readonly Case[]): Outcome[] => {
  const folder = mkdtempSync(join(tmpdir(), 'cvm-cpu-'));
  try {
    const file = join(folder, 'runner');
    writeFileSync(file, executable(), { mode: 0o755 });
    const child = spawnSync(file, [], {
      input: Buffer.concat(cases.map(encode)),
      maxBuffer: 1 << 30,
      timeout: 120_000,
    });
    const outcomes = decodeOutcomes(new Uint8Array(child.stdout));
    if (outcomes.length !== cases.length)
      throw new Error(
        `the runner answered ${outcomes.length} of ${cases.length} cases (${child.signal ?? child.status ?? String(child.error)}); it ended in ${cases[outcomes.length]?.name}`,
      );
    return outcomes;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

/** The code widths this kernel lets a program use: 16-bit segments need modify_ldt. */
export const nativeModes = (): Bits[] => {
  if (!nativeAvailable()) return [];
  const nop = (bits: Bits): Case => ({
    name: 'nop',
    bits,
    code: Uint8Array.of(0x90),
    undefinedFlags: 0,
    input: {
      gpr: new Array<bigint>(16).fill(0n),
      rip: BigInt(bits === 16 ? ENTRY - CODE : ENTRY),
      flags: 0x202,
      mxcsr: 0x1f80,
      xmm: new Uint8Array(256),
    },
    memory: [],
  });
  return ([64, 32, 16] as const).filter((bits) => {
    try {
      return runNative([nop(bits)])[0]?.vector === 3;
    } catch {
      return false;
    }
  });
};
