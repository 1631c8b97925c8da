/**
 * A case for the processor: some instructions with a chosen state at CPL 3 in 64-bit mode, run until
 * an exception, and what came out. The places and the fill are those of the case files that
 * `--cases` reads.
 */
export const CODE = 0x2000_0000;
export const ENTRY = 0x2000_0800;
export const DATA = 0x3000_0000;
export const DATA_SIZE = 0x2000;
export const READ_ONLY = 0x3800_0000;
/** Offset of the case's code in its page, and the entry of 16-bit cases, whose CS begins at CODE. */
export const ENTRY_OFFSET = ENTRY - CODE;
/** Limit of the 16-bit segments: CS at CODE, the others at DATA. */
export const LIMIT_16 = 0x1fff;
export type Bits = 16 | 32 | 64;

/** Selectors of the code segments and of DS, ES, SS, FS, GS, as Linux has them (16-bit: in the LDT). */
export const SELECTORS = {
  64: { code: 0x33, data: 0x2b },
  32: { code: 0x23, data: 0x2b },
  16: { code: 0x07, data: 0x0f },
} as const;

/** Where the native runner itself is. */
export const RUNNER = 0x1000_0000;
/** CF PF AF ZF SF DF OF. */
export const FLAGS_MASK = 0xcd5;

/** What data pages hold before a case's own bytes are laid over them. */
export const fill = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, k) => (k * 0x9d + (k >> 8) * 0x3b + 0x5a) & 0xff);

export interface RegisterState {
  /** RAX RCX RDX RBX RSP RBP RSI RDI R8 … R15. */
  gpr: bigint[];
  rip: bigint;
  flags: number;
  mxcsr: number;
  /** Sixteen registers of 16 bytes. */
  xmm: Uint8Array;
}

export interface Case {
  name: string;
  bits: Bits;
  code: Uint8Array;
  /** Flags that are architecturally undefined behind this case. */
  undefinedFlags: number;
  input: RegisterState;
  /** Bytes over the fill of the data pages. */
  memory: { address: number; bytes: Uint8Array }[];
}

export interface Outcome {
  vector: number;
  errorCode: bigint;
  cr2: bigint;
  state: RegisterState;
  /** Changed quadwords of the data pages. */
  memory: Map<number, bigint>;
}

export const hex = (value: bigint | number): string => value.toString(16);
export const bytesToHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

const NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');
const STACK_FAULT = 12;
const GENERAL_PROTECTION = 13;
const PAGE_FAULT = 14;
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17]);

/** Every way in which `ours` is not what the processor did, or nothing. */
export const differences = (c: Case, truth: Outcome, ours: Outcome): string[] => {
  const found: string[] = [];
  const differ = (what: string, wanted: bigint | number, got: bigint | number): void => {
    if (BigInt(wanted) !== BigInt(got)) found.push(`${what} ${hex(got)} for ${hex(wanted)}`);
  };
  // Of a misaligned operand outside a stack segment's limit either fault may come first.
  const either = [GENERAL_PROTECTION, STACK_FAULT];
  if (c.bits === 16 && either.includes(truth.vector) && either.includes(ours.vector) && / 16$/.test(c.name))
    return found;
  differ('vector', truth.vector, ours.vector);
  // Linux reports every fault on a kernel address as a protection fault, whatever is mapped there.
  const kernel = truth.vector === PAGE_FAULT && truth.cr2 >> 47n !== 0n ? 1n : 0n;
  if (WITH_ERROR_CODE.has(truth.vector)) differ('error code', truth.errorCode, ours.errorCode | kernel);
  if (truth.vector === PAGE_FAULT) differ('cr2', truth.cr2, ours.cr2);
  for (let i = 0; i < 16; i++) {
    // Outside 64-bit mode upper halves are undefined; a 16-bit stack leaves the rest of ESP to the kernel.
    const width = c.bits === 64 || i > 7 ? 64 : c.bits === 16 && i === 4 ? 16 : 32;
    differ(NAMES[i]!, BigInt.asUintN(width, truth.state.gpr[i]!), BigInt.asUintN(width, ours.state.gpr[i]!));
  }
  differ('rip', truth.state.rip, ours.state.rip);
  const mask = FLAGS_MASK & ~c.undefinedFlags;
  differ('flags', truth.state.flags & mask, ours.state.flags & mask);
  differ('mxcsr', truth.state.mxcsr, ours.state.mxcsr);
  for (let i = 0; i < 16; i++) {
    const a = bytesToHex(truth.state.xmm.subarray(i * 16, i * 16 + 16));
    const b = bytesToHex(ours.state.xmm.subarray(i * 16, i * 16 + 16));
    if (a !== b) found.push(`xmm${i} ${b} for ${a}`);
  }
  for (const address of new Set([...truth.memory.keys(), ...ours.memory.keys()])) {
    const a = truth.memory.get(address);
    const b = ours.memory.get(address);
    if (a !== b)
      found.push(
        `[${hex(address)}] ${b === undefined ? 'unchanged' : hex(b)} for ${a === undefined ? 'unchanged' : hex(a)}`,
      );
  }
  return found;
};

/** A case as one can read it in a failing test. */
export const describeCase = (c: Case): string => {
  const registers = c.input.gpr.map((value, i) => `${NAMES[i]}=${hex(value)}`).join(' ');
  const memory = c.memory.map(({ address, bytes }) => `[${hex(address)}]=${bytesToHex(bytes)}`).join(' ');
  return `${c.bits}-bit ${c.name} ${bytesToHex(c.code)} flags=${hex(c.input.flags)} ${registers} ${memory}`;
};
