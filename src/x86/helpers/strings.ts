/**
 * MOVS, STOS, LODS, SCAS, CMPS, with and without REP. Each iteration commits by itself, so a fault in
 * the middle leaves rCX, rSI and rDI at the iteration that faulted (APM vol. 3, §1.2.6). MOVS and STOS
 * copy whole runs where both sides are plain memory.
 */
import type { Cpu } from '../cpu.ts';
import { GuestException } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { ES, FLAG, RAX, RCX, RDI, RSI, STATE, gpr } from '../layout.ts';
import type { OpView } from '../opview.ts';
import { setSubtractFlags } from './flags.ts';

/** Work of one call, so that the run loop gets its turn. */
const BYTES_PER_CALL = 1 << 16;
const STEPS_PER_CALL = 4096;
const PAGE = 4096;

const step = (cpu: Cpu, op: OpView): bigint =>
  cpu.u32(STATE.systemFlags) & FLAG.DF ? -BigInt(op.size) : BigInt(op.size);

const pointer = (cpu: Cpu, op: OpView, register: number): bigint =>
  cpu.readRegister(gpr(register), op.addressSize);

const advance = (cpu: Cpu, op: OpView, register: number, by: bigint): void =>
  cpu.writeRegister(gpr(register), op.addressSize, pointer(cpu, op, register) + by);

const source = (cpu: Cpu, op: OpView): bigint =>
  cpu.segmented(op.segment, pointer(cpu, op, RSI), op.size, false);
const destination = (cpu: Cpu, op: OpView, write: boolean): bigint =>
  cpu.segmented(ES, pointer(cpu, op, RDI), op.size, write);

/**
 * Runs `once` as the REP prefix says. `once` answers whether a REPE/REPNE loop goes on; `bulk` does
 * several iterations at once and answers how many (0: do one).
 */
const repeat = (
  cpu: Cpu,
  op: OpView,
  once: () => boolean,
  bulk: (limit: bigint) => bigint = () => 0n,
): boolean => {
  if (op.rep === 0) {
    once();
    return false;
  }
  let bytes = 0;
  for (let steps = 0; ; steps++) {
    const count = pointer(cpu, op, RCX);
    if (count === 0n) return false;
    if (steps >= STEPS_PER_CALL || bytes >= BYTES_PER_CALL || cpu.u32(STATE.stopRequested) !== 0)
      return steps > 0;
    const done = bulk(count);
    if (done > 0n) {
      advance(cpu, op, RCX, -done);
      bytes += Number(done) * op.size;
      continue;
    }
    const more = once();
    advance(cpu, op, RCX, -1n);
    if (!more) return false;
  }
};

/** Bytes from a pointer to the end of its page, or of the address space its size reaches. */
const room = (linear: bigint, offset: bigint, addressSize: number): number => {
  const inPage = PAGE - Number(linear & 0xfffn);
  if (addressSize === 8) return inPage;
  const inSpace = Number((1n << BigInt(addressSize * 8)) - offset);
  return Math.min(inPage, inSpace);
};

/** Linear address if a run of `length` bytes passes the segment checks, else undefined. */
const wholeRun = (cpu: Cpu, segment: number, offset: bigint, length: number, write: boolean): boolean => {
  try {
    cpu.segmented(segment, offset, length, write);
    return true;
  } catch (error) {
    if (error instanceof GuestException) return false;
    throw error;
  }
};

const movs: Helper = (cpu, op) => {
  const { size, addressSize } = op;
  const by = step(cpu, op);
  const once = (): boolean => {
    const value = cpu.load(source(cpu, op), size);
    cpu.store(destination(cpu, op, true), size, value);
    advance(cpu, op, RSI, by);
    advance(cpu, op, RDI, by);
    return true;
  };
  const bulk = (limit: bigint): bigint => {
    if (by < 0n || limit < 4n) return 0n;
    const from = pointer(cpu, op, RSI);
    const to = pointer(cpu, op, RDI);
    const fromLinear = source(cpu, op);
    const toLinear = destination(cpu, op, true);
    let length = Math.min(room(fromLinear, from, addressSize), room(toLinear, to, addressSize));
    if (limit * BigInt(size) < BigInt(length)) length = Number(limit) * size;
    length -= length % size;
    if (length <= size) return 0n;
    if (!wholeRun(cpu, op.segment, from, length, false) || !wholeRun(cpu, ES, to, length, true)) return 0n;
    const read = cpu.translate(fromLinear, 'read');
    const write = cpu.translate(toLinear, 'write');
    if (read === undefined || write === undefined) return 0n;
    // A destination just above the source repeats what was copied: copy up to where it begins.
    if (write > read && write < read + length) length = write - read - ((write - read) % size);
    if (length <= size) return 0n;
    cpu.memory.u8.copyWithin(write, read, read + length);
    advance(cpu, op, RSI, BigInt(length));
    advance(cpu, op, RDI, BigInt(length));
    return BigInt(length / size);
  };
  return repeat(cpu, op, once, bulk);
};

const stos: Helper = (cpu, op) => {
  const { size, addressSize } = op;
  const by = step(cpu, op);
  const value = cpu.readRegister(gpr(RAX), size);
  const once = (): boolean => {
    cpu.store(destination(cpu, op, true), size, value);
    advance(cpu, op, RDI, by);
    return true;
  };
  const bulk = (limit: bigint): bigint => {
    if (by < 0n || limit < 4n) return 0n;
    const to = pointer(cpu, op, RDI);
    const linear = destination(cpu, op, true);
    let length = room(linear, to, addressSize);
    if (limit * BigInt(size) < BigInt(length)) length = Number(limit) * size;
    length -= length % size;
    if (length <= size || !wholeRun(cpu, ES, to, length, true)) return 0n;
    const at = cpu.translate(linear, 'write');
    if (at === undefined) return 0n;
    const { u8 } = cpu.memory;
    for (let i = 0; i < size; i++) u8[at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
    // Doubling copies: each one repeats what is already filled.
    for (let filled = size; filled < length; filled *= 2)
      u8.copyWithin(at + filled, at, at + Math.min(filled, length - filled));
    advance(cpu, op, RDI, BigInt(length));
    return BigInt(length / size);
  };
  return repeat(cpu, op, once, bulk);
};

const lods: Helper = (cpu, op) => {
  const by = step(cpu, op);
  return repeat(cpu, op, () => {
    cpu.writeRegister(gpr(RAX), op.size, cpu.load(source(cpu, op), op.size));
    advance(cpu, op, RSI, by);
    return true;
  });
};

const goesOn = (op: OpView, equal: boolean): boolean => equal === (op.rep === 3);

/**
 * SCAS and CMPS. The destination is read first, and a fault restores the flags of before the
 * instruction (they are no input of it), both as processors do.
 */
const compare =
  (name: 'scas' | 'cmps'): Helper =>
  (cpu, op) => {
    const { size } = op;
    const by = step(cpu, op);
    let first = 0n;
    let second = 0n;
    let compared = false;
    const partly = repeat(cpu, op, () => {
      const value = cpu.load(destination(cpu, op, false), size);
      first = name === 'scas' ? cpu.readRegister(gpr(RAX), size) : cpu.load(source(cpu, op), size);
      second = value;
      compared = true;
      if (name === 'cmps') advance(cpu, op, RSI, by);
      advance(cpu, op, RDI, by);
      return goesOn(op, first === second);
    });
    if (compared) setSubtractFlags(cpu, size, first, second);
    return partly;
  };
const scas = compare('scas');
const cmps = compare('cmps');

export const STRING_HELPERS = { movs, stos, lods, scas, cmps };
