/**
 * Call stacks by frame pointer: RBP chains, the way SVSMs and kernels are built. Where RBP is not the
 * function's own, the instructions between its start and rip tell what is on the stack: before the prologue
 * has run, in the epilogue, in assembly that keeps no frame, and in the entry of an exception handler, behind
 * which the interrupted function is found.
 */
import type { SymbolSpace } from '../symbols/index.ts';
import type { Machine, MachineThread } from '../vmm/index.ts';
import { readInteger } from './addresses.ts';
import { MAX_INSTRUCTION, decode } from './disassembler.ts';
import { codeBits, linearRip, linearRsp } from './registers.ts';

export interface Frame {
  /** Of the innermost frame the next instruction; of a caller the return address. */
  readonly rip: bigint;
  /** What to look up: inside the call instruction for a caller, which may be its function's last. */
  readonly lookup: bigint;
  readonly rbp: bigint;
  /** Stack pointer as it is (innermost) or will be after the return into this frame. */
  readonly rsp: bigint;
  /** Did not call the inner frame, but was interrupted at `rip`: perhaps it goes on behind that instruction. */
  readonly interrupted?: true;
}

const MAX_FRAMES = 512;
/** Code before rip that is scanned for pushes. */
const MAX_PROLOGUE = 4096;

/** Registers and such that the entry of an exception handler pushes, in words. */
const MAX_SAVED = 32n;

interface Shape {
  /** RBP holds this function's frame. */
  readonly framed: boolean;
  /** Bytes on the stack above the return address, if not framed. */
  readonly depth: number;
  /** The caller's RBP has been pushed, this many bytes below the return address (0: it is still in RBP). */
  readonly savedRbp: number;
}

/** How the function at `start` has changed the stack when execution is at `rip`. */
function shapeAt(code: Uint8Array, start: bigint, rip: bigint, bits: 16 | 32 | 64): Shape | undefined {
  const word = bits / 8;
  let shape: Shape = { framed: false, depth: 0, savedRbp: 0 };
  let body = shape;
  for (const instruction of decode(code, start, bits, MAX_PROLOGUE)) {
    if (instruction.address >= rip) return instruction.address === rip ? shape : undefined;
    const { text } = instruction;
    if (!instruction.valid) return undefined;
    if (/^push [re]?bp$/.test(text) && !shape.framed)
      shape = { ...shape, depth: shape.depth + word, savedRbp: shape.depth + word };
    else if (/^mov [re]?bp, [re]?sp$/.test(text)) body = shape = { ...shape, framed: true };
    else if (/^(pop [re]?bp|leave)$/.test(text)) shape = { framed: false, depth: 0, savedRbp: 0 };
    else if (/^(sub|add) [re]?sp, (0x[0-9a-f]+|\d+)$/.test(text)) {
      const amount = Number(/(0x[0-9a-f]+|\d+)$/.exec(text)![1]);
      if (!shape.framed)
        shape = { ...shape, depth: shape.depth + (text.startsWith('sub') ? amount : -amount) };
    } else if (instruction.flow === 'return' || instruction.flow === 'branch') {
      // Code after an epilogue is reached from before it.
      shape = body;
    } else if (!shape.framed && instruction.flow !== 'call')
      shape = { ...shape, depth: shape.depth - instruction.stackIncrement };
    if (!shape.framed && shape.depth < 0) return undefined;
  }
  return undefined;
}

/** The frames of a thread, innermost first, at most `limit`. Never throws: an unreadable stack ends the list. */
export function unwind(
  machine: Machine,
  symbols: SymbolSpace,
  thread: MachineThread,
  limit = MAX_FRAMES,
): Frame[] {
  const { cpu } = thread;
  const bits = codeBits(cpu);
  const word = BigInt(bits / 8);
  const rip = linearRip(cpu);
  const rbp = cpu.reg(5) & ((1n << BigInt(bits)) - 1n);
  const frames: Frame[] = [{ rip, lookup: rip, rbp, rsp: linearRsp(cpu) }];
  const load = (address: bigint): bigint | undefined => readInteger(machine, thread, address, Number(word));

  while (frames.length < limit) {
    const last = frames[frames.length - 1]!;
    const next = unframed(last) ?? byFramePointer(last);
    if (!next || (next.rip === last.rip && next.rsp === last.rsp)) break;
    frames.push(next);
  }
  return frames;

  /** The frame whose return address lies at `slot`. */
  function returnTo(slot: bigint, callerRbp: bigint): Frame | undefined {
    const target = load(slot);
    if (target === undefined || !isCode(machine, thread, target)) return undefined;
    return { rip: target, lookup: target - 1n, rbp: callerRbp, rsp: slot + word };
  }

  /** As `returnTo`, but only if a call really returns there: what lies on such a stack is a guess. */
  function calledFrom(slot: bigint, callerRbp: bigint): Frame | undefined {
    const frame = returnTo(slot, callerRbp);
    if (!frame) return undefined;
    const { bytes, readable } = machine.readVirtual(thread, BigInt.asUintN(64, frame.rip - 7n), 7);
    return readable === 7 && endsWithCall(bytes) ? frame : undefined;
  }

  /** The caller of a function that keeps a frame. */
  function byFramePointer(last: Frame): Frame | undefined {
    // Stacks grow down: a caller's frame lies above.
    if (last.rbp === 0n || last.rbp % word !== 0n || last.rbp < last.rsp - 2n * word) return undefined;
    // What is saved there may be RBP of another stack, where an exception came from.
    return returnTo(last.rbp + word, load(last.rbp) ?? 0n);
  }

  /** The caller, or what was interrupted, of a function whose frame is not, or not yet, in RBP. */
  function unframed(last: Frame): Frame | undefined {
    const shape = shapeOf(last.rip, last.lookup);
    if (!shape || shape.framed) return undefined;
    const slot = last.rsp + BigInt(shape.depth);
    const saved = (shape.savedRbp > 0 ? load(slot - BigInt(shape.savedRbp)) : last.rbp) ?? 0n;
    // The entry of an exception handler finds there what the processor pushed, perhaps below an error code.
    const exact = interrupted(slot, saved) ?? interrupted(slot + word, saved) ?? calledFrom(slot, saved);
    if (exact) return exact;
    // A label inside the entry hides its beginning: what the processor pushed lies behind the saved registers.
    for (let words = 2n; words <= MAX_SAVED; words++) {
      const found = interrupted(slot + words * word, last.rbp);
      if (found) return found;
    }
    return undefined;
  }

  /** How the function has changed the stack where execution is at `at`; undefined if that is not clear. */
  function shapeOf(at: bigint, lookup: bigint): Shape | undefined {
    const start = symbols.functionAt(lookup)?.start;
    if (start === undefined || at - start > BigInt(MAX_PROLOGUE)) return undefined;
    if (at === start) return { framed: false, depth: 0, savedRbp: 0 };
    const size = Number(at - start) + MAX_INSTRUCTION;
    const { bytes, readable } = machine.readVirtual(thread, start, size);
    if (readable < size - MAX_INSTRUCTION) return undefined;
    return shapeAt(bytes.subarray(0, readable), start, at, bits);
  }

  /** RIP, CS, RFLAGS, RSP and SS as 64-bit interrupt delivery pushes them (APM vol. 2, §8.9.3). */
  function interrupted(slot: bigint, savedRbp: bigint): Frame | undefined {
    if (bits !== 64) return undefined;
    const [target, cs, flags, rsp, ss] = [0n, 8n, 16n, 24n, 32n].map((offset) => load(slot + offset));
    if (target === undefined || cs === undefined || flags === undefined) return undefined;
    if (rsp === undefined || ss === undefined) return undefined;
    const selectors = cs !== 0n && cs < 0x1_0000n && ss < 0x1_0000n && (cs & 3n) >= BigInt(cpu.cpl);
    if (!selectors || (flags & RFLAGS_FIXED) !== 2n || !isCode(machine, thread, target)) return undefined;
    return { rip: target, lookup: target, rbp: savedRbp, rsp, interrupted: true };
  }
}

/** Bits of RFLAGS that are always as in 2: bit 1 set, bits 3, 5, 15 and 63:22 clear. */
const RFLAGS_FIXED = 0xffff_ffff_ffc0_802an;

/** CALL rel32 (E8), or CALL r/m (FF /2) of two to seven bytes, as the last of seven bytes. */
const endsWithCall = (bytes: Uint8Array): boolean =>
  bytes[2] === 0xe8 ||
  [0, 1, 2, 3, 4, 5].some((at) => bytes[at] === 0xff && ((bytes[at + 1]! >> 3) & 7) === 2);

/** A plausible return address: mapped and executable. */
function isCode(machine: Machine, thread: MachineThread, address: bigint): boolean {
  if (address < 16n) return false;
  const mapping = machine.translate(thread, address);
  return mapping !== undefined && mapping.executable;
}
