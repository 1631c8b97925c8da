/**
 * Where everything of one processor context lives in the machine's WebAssembly memory. The generated
 * interpreter, the helpers written in TypeScript and the debugger all read the same bytes.
 *
 * A context is one vCPU at one VMPL: registers, hidden segment state, lazily kept flags, TLB.
 */

/** Byte offset of a general-purpose register: RAX RCX RDX RBX RSP RBP RSI RDI R8 … R15. */
export const gpr = (index: number): number => index * 8;

export const RAX = 0;
export const RCX = 1;
export const RDX = 2;
export const RBX = 3;
export const RSP = 4;
export const RBP = 5;
export const RSI = 6;
export const RDI = 7;

/** Pseudo registers an effective address may name beside the sixteen real ones. */
export const ZERO = 128;
/** Linear-page part of the instruction pointer: rip = CODE_PAGE + micro-op's page offset. */
export const CODE_PAGE = 136;

/**
 * Segment registers in the order of the VMSA (APM vol. 2, table B-4), 16 bytes each and laid out
 * as there: u16 selector, u16 attributes, u32 limit, u64 base. Limit is in bytes (expanded).
 * Attributes: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11.
 */
export const SEGMENT_NAMES = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'gdtr', 'ldtr', 'idtr', 'tr'] as const;
export const ES = 0;
export const CS = 1;
export const SS = 2;
export const DS = 3;
export const FS = 4;
export const GS = 5;
export const GDTR = 6;
export const LDTR = 7;
export const IDTR = 8;
export const TR = 9;

const offsets = {
  gpr: 0,
  zero: ZERO,
  codePage: CODE_PAGE,
  /** Architectural rip: exact at every instruction that leaves the generated code, else stale. */
  rip: 144,
  /** rip of the next instruction while a helper runs; a helper that jumps writes it. */
  nextRip: 152,
  /**
   * Arithmetic flags, kept so that no dispatch is needed to read one:
   * ZF = result is 0; SF = bit 63 of result xor bit 0 of misc; PF = even parity of the low byte of
   * result xor misc[15:8]; CF = bit 63 of carry; OF = bit 63 xor bit 62 of carry; AF = bit 4 of misc.
   * The result is sign-extended from the operand size; the carry vector (carry out of each bit) is
   * shifted left so that the operand's top bit is bit 63.
   */
  flagResult: 160,
  flagCarry: 168,
  flagMisc: 176,
  /** RFLAGS without the six arithmetic flags (u32; bit 1 set). */
  systemFlags: 180,
  segments: 192, // 10 x 16 bytes
  cr0: 352,
  cr2: 360,
  cr3: 368,
  cr4: 376,
  cr8: 384,
  efer: 392,
  xcr0: 400,
  xss: 408,
  dr0: 416,
  dr1: 424,
  dr2: 432,
  dr3: 440,
  dr6: 448,
  dr7: 456,
  star: 464,
  lstar: 472,
  cstar: 480,
  sfmask: 488,
  kernelGsBase: 496,
  sysenterCs: 504,
  sysenterEsp: 512,
  sysenterEip: 520,
  pat: 528,
  tscAux: 536, // u32
  pkru: 540, // u32
  /** Current privilege level (u32). */
  cpl: 544,
  /** Decoding mode (u32): see `Mode`. */
  mode: 548,
  /** Stack pointer width as a mask: 0xffff, 0xffffffff or all ones. */
  stackMask: 552,
  /** SS base as the stack uses it: 0 in 64-bit mode. */
  stackBase: 560,
  mxcsr: 568, // u32
  /** x87: control, status, tag (abridged one bit a register as in FXSAVE), opcode (u16 each). */
  fcw: 572,
  fsw: 574,
  ftw: 576,
  fop: 578,
  fip: 584, // u64
  fdp: 592, // u64
  sCet: 600,
  ssp: 608,
  interruptSspTable: 616,
  pl0Ssp: 624,
  pl1Ssp: 632,
  pl2Ssp: 640,
  pl3Ssp: 648,
  uCet: 656,
  debugCtl: 664,
  /** Inhibits interrupts until the next instruction has retired (u32: 0 or 1): STI, MOV SS, POP SS. */
  interruptShadow: 672,
  /** Set by whoever wants the run loop to stop at the next instruction boundary (u32). */
  stopRequested: 676,
  /** Instructions still allowed in this call of `run` (i64). */
  budget: 680,
  /** Instructions retired since reset (u64). Only exact outside generated code. */
  retired: 688,
  /** Byte address of the current TLB set (u32): user, supervisor, supervisor with AC. */
  tlb: 696,
  /** Scratch for helper results (3 x u64). */
  scratch: 704,
  /** Micro-op being executed when generated code called out (u32); 0: `rip` is already exact. */
  currentOp: 728,
  /** The next breakpoint micro-op met is passed over (u32: 0 or 1). */
  skipBreak: 732,
  /** Mode, CPL and code base that the jump map was made under (u64), see `Cpu.updateMode`. */
  codeKey: 736,
  /** A maskable interrupt waits (u32: 0 or 1): the run stops at the first boundary that lets it in. */
  interruptWaiting: 744,
  /** An NMI was delivered and no IRET has completed since (u32: 0 or 1; APM vol. 2, §8.2.3). */
  nmiBlocked: 748,
  st: 768, // 8 x 16 bytes (80 bits used), physical registers R0-R7
  ymm: 1024, // 16 x 32 bytes: XMM in the low half
} as const;

/** Byte offsets inside a context. */
export const STATE = offsets;
export type StateField = keyof typeof offsets;

export const segment = (index: number): number => STATE.segments + index * 16;

export const STATE_SIZE = 4096;

/** A TLB set: direct-mapped, one entry per linear page modulo TLB_ENTRIES. */
export const TLB_ENTRIES = 1024;
/**
 * Entry: i64 read tag, i64 write tag, i64 execute tag, u32 addend that makes a host offset of the low
 * half of a linear address, u32 host offset of the last-level page table.
 */
export const TLB_ENTRY_SIZE = 32;
export const TLB_SET_SIZE = TLB_ENTRIES * TLB_ENTRY_SIZE;
/** Sets: 0 user, 1 supervisor (SMAP in force), 2 supervisor with RFLAGS.AC or SMAP off. */
export const TLB_SETS = 3;
/** A tag no linear page has (bits 11:0 are never set in one). */
export const TLB_INVALID = 1n;

/**
 * Maps rip to decoded code: direct-mapped, u64 rip, u32 micro-op address, u32 unused. An empty entry
 * has rip all ones and micro-op 0, whose handler (the record of zeros at address 0) resolves it.
 */
export const JUMP_ENTRIES = 4096;
export const JUMP_ENTRY_SIZE = 16;

export const CONTEXT = {
  state: 0,
  tlb: STATE_SIZE,
  jumps: STATE_SIZE + TLB_SETS * TLB_SET_SIZE,
  size: STATE_SIZE + TLB_SETS * TLB_SET_SIZE + JUMP_ENTRIES * JUMP_ENTRY_SIZE,
} as const;

/** RFLAGS bits. */
export const FLAG = {
  CF: 0x1,
  PF: 0x4,
  AF: 0x10,
  ZF: 0x40,
  SF: 0x80,
  TF: 0x100,
  IF: 0x200,
  DF: 0x400,
  OF: 0x800,
  IOPL: 0x3000,
  NT: 0x4000,
  RF: 0x10000,
  VM: 0x20000,
  AC: 0x40000,
  VIF: 0x80000,
  VIP: 0x100000,
  ID: 0x200000,
} as const;
export const ARITHMETIC_FLAGS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF;

/**
 * How code is decoded: operand and address size come from CS, the address arithmetic from the mode.
 * The number keys the decoded-code cache.
 */
export const MODE = {
  /** 16-bit code (real mode, virtual-8086 or a 16-bit code segment). */
  code16: 0,
  /** 32-bit code (protected or compatibility mode). */
  code32: 1,
  /** 64-bit mode. */
  code64: 2,
} as const;
export type Mode = (typeof MODE)[keyof typeof MODE];
