/** The `disassemble` request: instructions around an address, backwards too, with symbols and lines. */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { CvmError, bytesToHex, hex } from '../base/index.ts';
import type { SymbolSpace } from '../symbols/index.ts';
import type { Machine, MachineThread } from '../vmm/index.ts';
import { parseReference, readAt } from './addresses.ts';
import type { Address } from './addresses.ts';
import { MAX_INSTRUCTION, decode } from './disassembler.ts';
import type { Instruction } from './disassembler.ts';
import { codeBits } from './registers.ts';
import { describeTarget, fileSource, symbolic } from './sources.ts';

const MAX_COUNT = 10_000;
const MAX_OFFSET = 100_000;
/** Without a symbol to start from, decoding starts this many bytes earlier and falls into step. */
const RUN_IN = 64;

export interface DisassemblyGround {
  readonly machine: Machine;
  readonly symbols: SymbolSpace;
  readonly thread: MachineThread;
}

/** A place in the answer: an instruction, or a byte that cannot be read. */
type Row = { readonly address: bigint; readonly instruction: Instruction | undefined };

/** @throws CvmError `memory-reference`, `invalid-arguments`. */
export function disassemble(
  ground: DisassemblyGround,
  args: P.DisassembleArguments,
): P.DisassembleResponse['body'] & object {
  const count = args.instructionCount;
  const skip = args.instructionOffset ?? 0;
  if (count < 0 || count > MAX_COUNT || Math.abs(skip) > MAX_OFFSET)
    throw new CvmError('invalid-arguments', `at most ${MAX_COUNT} instructions can be disassembled at once`);
  const at = parseReference(args.memoryReference, args.offset ?? 0);
  const before = skip < 0 ? backwards(ground, at, -skip) : [];
  const missing = Math.max(0, skip < 0 ? count + skip : count);
  const after = forwards(ground, at, skip > 0 ? skip + missing : missing).slice(Math.max(0, skip));
  const rows = [...before.slice(0, Math.min(count, before.length)), ...after].slice(0, count);
  return { instructions: present(ground, rows, args.resolveSymbols ?? true) };
}

const moved = (at: Address, by: number): Address => ({
  ...at,
  address: BigInt.asUintN(64, at.address + BigInt(by)),
});

/** `count` rows from an address on. */
export function forwards(ground: DisassemblyGround, at: Address, count: number): Row[] {
  const bits = codeBits(ground.thread.cpu);
  const rows: Row[] = [];
  let offset = 0;
  while (rows.length < count) {
    const want = Math.min((count - rows.length) * MAX_INSTRUCTION, 16 * 1024);
    const { bytes, readable } = readAt(ground.machine, ground.thread, moved(at, offset), want);
    const code = decode(bytes.subarray(0, readable), moved(at, offset).address, bits, count - rows.length);
    for (const instruction of code) {
      rows.push({ address: instruction.address, instruction });
      offset += instruction.length;
    }
    if (code.length === 0) {
      rows.push({ address: moved(at, offset).address, instruction: undefined });
      offset++;
    }
  }
  return rows;
}

/** `count` rows that end right before an address. */
function backwards(ground: DisassemblyGround, at: Address, count: number): Row[] {
  let rows: Row[] = [];
  let edge = at;
  while (rows.length < count) {
    const chunk = chunkBefore(ground, edge, count - rows.length);
    rows = [...chunk, ...rows];
    edge = { ...edge, address: rows[0]!.address };
  }
  return rows.slice(rows.length - count);
}

/** At least one row that ends at `edge`: a function's beginning if one is near, else what falls into step. */
function chunkBefore(ground: DisassemblyGround, edge: Address, wanted: number): Row[] {
  const single: Row[] = [{ address: BigInt.asUintN(64, edge.address - 1n), instruction: undefined }];
  if (edge.space === 'virtual') {
    const start = ground.symbols.functionAt(single[0]!.address)?.start;
    if (start !== undefined && start < edge.address && edge.address - start < 0x10000n) {
      const rows = upTo(ground, { ...edge, address: start }, edge);
      if (rows) return rows;
    }
  }
  const span = BigInt(Math.min(wanted * MAX_INSTRUCTION, 4096) + RUN_IN);
  const reach = edge.address < span ? edge.address : span;
  let best: Row[] = [];
  for (let shift = 0n; shift < BigInt(MAX_INSTRUCTION) && shift < reach; shift++) {
    const rows = upTo(ground, { ...edge, address: edge.address - reach + shift }, edge);
    if (!rows) continue;
    // What is decoded before falling into step is noise.
    const kept = rows.filter((row) => row.address >= edge.address - reach + BigInt(RUN_IN));
    const bad = (list: readonly Row[]): number => list.filter((row) => !row.instruction?.valid).length;
    if (kept.length > 0 && (best.length === 0 || bad(kept) < bad(best))) best = kept;
    if (best.length > 0 && bad(best) === 0) break;
  }
  if (best.length > 0) return best;
  // Close to unreadable memory: the nearest bytes that decode to exactly this end.
  for (let back = MAX_INSTRUCTION; back >= 1; back--) {
    if (BigInt(back) > edge.address) continue;
    const rows = upTo(ground, moved(edge, -back), edge);
    if (rows && rows.every((row) => row.instruction?.valid)) return rows;
  }
  return single;
}

/** The rows from `start` that end exactly at `edge`; undefined if they do not, or if bytes are missing. */
function upTo(ground: DisassemblyGround, start: Address, edge: Address): Row[] | undefined {
  const length = Number(edge.address - start.address);
  const { bytes, readable } = readAt(ground.machine, ground.thread, start, length);
  if (readable < length) return undefined;
  const code = decode(bytes, start.address, codeBits(ground.thread.cpu), length);
  const last = code[code.length - 1];
  if (!last || last.address + BigInt(last.length) !== edge.address) return undefined;
  return code.map((instruction) => ({ address: instruction.address, instruction }));
}

function present(
  { symbols }: DisassemblyGround,
  rows: readonly Row[],
  resolve: boolean,
): P.DisassembledInstruction[] {
  let lastLine = '';
  return rows.map(({ address, instruction }) => {
    if (!instruction)
      return { address: hex(address), instruction: '??', presentationHint: 'invalid' as const };
    const row: P.DisassembledInstruction = {
      address: hex(address),
      instructionBytes: bytesToHex(instruction.bytes).replace(/..(?!$)/g, '$& '),
      instruction: resolve ? describeTarget(instruction, symbols) : instruction.text,
    };
    if (!instruction.valid) row.presentationHint = 'invalid';
    if (resolve) {
      const name = symbolic(symbols, address);
      if (name !== undefined) row.symbol = name;
    }
    const line = symbols.lineAt(address);
    if (line && line.line > 0) {
      const key = `${line.file}:${line.line}`;
      if (key !== lastLine) {
        row.location = fileSource(line.file);
        row.line = line.line;
        if (line.column > 0) row.column = line.column;
      }
      lastLine = key;
    }
    return row;
  });
}
