/**
 * Call stacks by frame pointer: RBP chains, the way SVSMs and kernels are built. The first frame is
 * worked out from the instructions between the function's start and rip, so that it is right before
 * the prologue has run, in its epilogue, and in assembly that keeps no frame.
 */
import type { SymbolSpace } from '../symbols/index.ts';
import type { Machine, MachineThread } from '../vmm/index.ts';
import { readInteger } from './addresses.ts';
import { decode } from './disassembler.ts';
import { codeBits, linearRip, linearRsp } from './registers.ts';

export interface Frame {
  /** Of the innermost frame the next instruction; of a caller the return address. */
  readonly rip: bigint;
  /** What to look up: inside the call instruction for a caller, which may be its function's last. */
  readonly lookup: bigint;
  readonly rbp: bigint;
  /** Stack pointer as it is (innermost) or will be after the return into this frame. */
  readonly rsp: bigint;
}

export const MAX_FRAMES = 512;
/** Code before rip that is scanned for pushes. */
const MAX_PROLOGUE = 4096;

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
  const mask = (1n << BigInt(bits)) - 1n;
  const rip = linearRip(cpu);
  let rbp = cpu.reg(5) & mask;
  const frames: Frame[] = [{ rip, lookup: rip, rbp, rsp: linearRsp(cpu) }];
  const load = (address: bigint): bigint | undefined => readInteger(machine, thread, address, Number(word));

  /** Appends the frame whose return address lies at `slot`; false ends the walk. */
  const push = (slot: bigint, callerRbp: bigint): boolean => {
    const target = load(slot);
    if (target === undefined || !isCode(machine, thread, target)) return false;
    rbp = callerRbp;
    frames.push({ rip: target, lookup: target - 1n, rbp, rsp: slot + word });
    return true;
  };

  if (limit > 1 && !first()) return frames;
  while (frames.length < limit) {
    const last = frames[frames.length - 1]!;
    // Stacks grow down: a caller's frame lies above.
    if (rbp === 0n || rbp % word !== 0n || rbp < last.rsp - 2n * word) break;
    const next = load(rbp);
    if (!push(rbp + word, next !== undefined && next > rbp ? next : 0n)) break;
  }
  return frames;

  /** The innermost frame's caller. */
  function first(): boolean {
    const rsp = frames[0]!.rsp;
    const start = symbols.functionAt(rip)?.start;
    if (start === undefined || rip - start > BigInt(MAX_PROLOGUE)) return true;
    const size = Number(rip - start) + 15;
    const { bytes, readable } = machine.readVirtual(thread, start, size);
    if (readable < size - 15) return true;
    const at = Number(rip - start);
    const shape =
      at === 0
        ? { framed: false, depth: 0, savedRbp: 0 }
        : shapeAt(bytes.subarray(0, readable), start, rip, bits);
    if (!shape || shape.framed) return true;
    // The function may be an assembly entry that nobody called: then there is no code at its "return address".
    const slot = rsp + BigInt(shape.depth);
    const saved = shape.savedRbp > 0 ? load(slot - BigInt(shape.savedRbp)) : rbp;
    return push(slot, saved ?? 0n);
  }
}

/** A plausible return address: mapped and executable. */
function isCode(machine: Machine, thread: MachineThread, address: bigint): boolean {
  if (address < 16n) return false;
  const mapping = machine.translate(thread, address);
  return mapping !== undefined && mapping.executable;
}
