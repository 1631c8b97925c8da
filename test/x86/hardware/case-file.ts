/**
 * Case files: JSON lines, a `meta` line first, then one case a line with the state before and after.
 * Numbers are hexadecimal without 0x, byte strings in memory order.
 */
import { DATA, DATA_SIZE, bytesToHex, fill } from './case.ts';
import type { Case, Outcome, RegisterState } from './case.ts';

const NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ');

type Json = Record<string, unknown>;
type Memory = readonly (readonly [string, string])[];

const number = (value: unknown): bigint =>
  typeof value === 'number' ? BigInt(value) : BigInt(`0x${String(value ?? 0)}`);
const bytes = (text: string): Uint8Array => Uint8Array.from(Buffer.from(text, 'hex'));

const state = (json: Json): RegisterState => {
  const xmm = new Uint8Array(256);
  (json.xmm as string[] | undefined)?.forEach((text, i) => xmm.set(bytes(text), i * 16));
  return {
    gpr: NAMES.map((name) => number(json[name])),
    rip: number(json.rip),
    flags: Number(number(json.flags)),
    mxcsr: Number(number(json.mxcsr)),
    xmm,
  };
};

const overlays = (json: unknown): Case['memory'] =>
  ((json ?? []) as Memory).map(([address, text]) => ({
    address: Number(number(address)),
    bytes: bytes(text),
  }));

/** Reads one line; undefined for the meta line. */
export const readCase = (line: string): { case: Case; outcome: Outcome } | undefined => {
  const json = JSON.parse(line) as Json;
  if (json.meta !== undefined) return undefined;
  const memory = overlays(json.mem_in);
  const before = fill(DATA_SIZE);
  for (const { address, bytes: content } of memory) before.set(content, address - DATA);
  const after = Uint8Array.from(before);
  for (const { address, bytes: content } of overlays(json.mem_out)) after.set(content, address - DATA);
  const changed = new Map<number, bigint>();
  for (let at = 0; at < DATA_SIZE; at += 8) {
    const was = new DataView(before.buffer).getBigUint64(at, true);
    const is = new DataView(after.buffer).getBigUint64(at, true);
    if (was !== is) changed.set(DATA + at, is);
  }
  const out = state(json.out as Json);
  const vector = Number(number(json.vector));
  // The normal end is the breakpoint behind the code, whose rip the file gives less one.
  if (vector === 3) out.rip += 1n;
  return {
    case: {
      name: String(json.name),
      bits: 64,
      code: bytes(String(json.code)),
      undefinedFlags: Number(number(json.undef_flags)),
      input: state(json.in as Json),
      memory,
    },
    outcome: { vector, errorCode: number(json.err), cr2: number(json.cr2), state: out, memory: changed },
  };
};

/** The line `readCase` reads back. */
export const writeCase = (c: Case, outcome: Outcome): string => {
  const hex = (value: bigint | number): string => BigInt.asUintN(64, BigInt(value)).toString(16);
  const registers = (s: RegisterState, rip: bigint): Json => ({
    ...Object.fromEntries(NAMES.map((name, i) => [name, hex(s.gpr[i]!)])),
    rip: hex(rip),
    flags: hex(s.flags),
    mxcsr: hex(s.mxcsr),
    xmm: Array.from({ length: 16 }, (_, i) => bytesToHex(s.xmm.subarray(i * 16, i * 16 + 16))),
  });
  const normal = outcome.vector === 3;
  const quadword = (value: bigint): string => {
    const content = new Uint8Array(8);
    new DataView(content.buffer).setBigUint64(0, value, true);
    return bytesToHex(content);
  };
  return JSON.stringify({
    name: c.name,
    code: bytesToHex(c.code),
    undef_flags: hex(c.undefinedFlags),
    in: registers(c.input, c.input.rip),
    mem_in: c.memory.map(({ address, bytes: content }) => [hex(address), bytesToHex(content)]),
    out: registers(outcome.state, outcome.state.rip - (normal ? 1n : 0n)),
    mem_out: [...outcome.memory].map(([address, value]) => [hex(address), quadword(value)]),
    vector: hex(outcome.vector),
    ...(normal ? {} : { err: hex(outcome.errorCode), cr2: hex(outcome.cr2) }),
  });
};
