/** Integer instructions too rare or too long for the expression language. */
import type { Cpu } from '../cpu.ts';
import { generalProtection } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { FLAG, RAX, RBP, RBX, RCX, RDX, RSP, SS, STATE, gpr } from '../layout.ts';

/** CRC-32C (Castagnoli), reflected. */
const CRC32C = 0x82f63b78;

const crc32: Helper = (cpu, op) => {
  const value = op.isRegister
    ? cpu.readRegister(op.b, op.size)
    : cpu.load(cpu.address(op, op.size, false), op.size);
  let crc = cpu.u32(op.a);
  for (let i = 0; i < op.size; i++) {
    crc ^= Number((value >> BigInt(8 * i)) & 0xffn);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ CRC32C : crc >>> 1;
  }
  cpu.setU64(op.a, BigInt(crc >>> 0));
};

const cmpxchg8b: Helper = (cpu, op) => {
  const at = cpu.address(op, 8, true);
  const old = cpu.loadForWrite(at, 8);
  const pair = (high: number, low: number): bigint =>
    (BigInt(cpu.u32(gpr(high))) << 32n) | BigInt(cpu.u32(gpr(low)));
  const equal = old === pair(RDX, RAX);
  // A write happens in both cases (APM vol. 3, CMPXCHG8B).
  cpu.store(at, 8, equal ? pair(RCX, RBX) : old);
  if (!equal) {
    cpu.setReg(RAX, old & 0xffff_ffffn);
    cpu.setReg(RDX, old >> 32n);
  }
  cpu.changeFlags(FLAG.ZF, equal ? FLAG.ZF : 0);
};

const cmpxchg16b: Helper = (cpu, op) => {
  const at = cpu.address(op, 16, true);
  if ((at & 15n) !== 0n) throw generalProtection();
  const low = cpu.loadForWrite(at, 8);
  const high = cpu.loadForWrite(at + 8n, 8);
  const equal = low === cpu.reg(RAX) && high === cpu.reg(RDX);
  cpu.store(at, 8, equal ? cpu.reg(RBX) : low);
  cpu.store(at + 8n, 8, equal ? cpu.reg(RCX) : high);
  if (!equal) {
    cpu.setReg(RAX, low);
    cpu.setReg(RDX, high);
  }
  cpu.changeFlags(FLAG.ZF, equal ? FLAG.ZF : 0);
};

/** MOV between rAX and a 64-bit absolute address that no displacement holds. `condition` 1: store. */
const movMoffs: Helper = (cpu, op) => {
  const write = op.condition === 1;
  const at = cpu.segmented(op.segment, BigInt.asUintN(64, op.immediate), op.size, write);
  if (write) cpu.store(at, op.size, cpu.readRegister(gpr(RAX), op.size));
  else cpu.writeRegister(gpr(RAX), op.size, cpu.load(at, op.size));
};

/**
 * BT, BTS, BTR, BTC of a bit string outside plain 64-bit addressing: the sum of operand and bit offset
 * is cut to the address size, then checked against the segment. `condition`: 0 BT, 1 BTS, 2 BTR, 3 BTC.
 */
const bitString: Helper = (cpu, op) => {
  const { size } = op;
  const bits = BigInt(size * 8);
  const index = BigInt.asIntN(size * 8, cpu.readRegister(op.b, size));
  const unit = index >> BigInt(Math.log2(size * 8));
  const offset = BigInt.asUintN(op.addressSize * 8, cpu.effectiveAddress(op) + unit * BigInt(size));
  const write = op.condition !== 0;
  const at = cpu.segmented(op.segment, offset, size, write);
  const old = write ? cpu.loadForWrite(at, size) : cpu.load(at, size);
  const bit = 1n << (index & (bits - 1n));
  if (write)
    cpu.store(at, size, op.condition === 1 ? old | bit : op.condition === 2 ? old & ~bit : old ^ bit);
  cpu.changeFlags(FLAG.CF, (old & bit) !== 0n ? FLAG.CF : 0);
};

/** XLAT outside plain 64-bit addressing. */
const xlatNarrow: Helper = (cpu, op) => {
  const offset = BigInt.asUintN(op.addressSize * 8, cpu.effectiveAddress(op) + BigInt(cpu.u8(gpr(RAX))));
  cpu.setU8(gpr(RAX), Number(cpu.load(cpu.segmented(op.segment, offset, 1, false), 1)));
};

// -- stack frames -----------------------------------------------------------------------------------

const stackMask = (cpu: Cpu): bigint => cpu.u64(STATE.stackMask);
const stackAt = (cpu: Cpu, offset: bigint, size: number, write: boolean): bigint =>
  cpu.segmented(SS, offset & stackMask(cpu), size, write);
const setStackPointer = (cpu: Cpu, offset: bigint): void => {
  const mask = stackMask(cpu);
  cpu.setReg(RSP, (cpu.reg(RSP) & ~mask) | (offset & mask));
};

/** Pushes values first to last: all are checked before one is written. Returns the new pointer. */
const pushAll = (cpu: Cpu, size: number, values: readonly bigint[]): bigint => {
  const top = cpu.reg(RSP) & stackMask(cpu);
  const places = values.map((_, i) => stackAt(cpu, top - BigInt((i + 1) * size), size, true));
  for (const place of places) cpu.probe(place, size, 'write');
  values.forEach((value, i) => cpu.store(places[i]!, size, value));
  return top - BigInt(values.length * size);
};

const pusha: Helper = (cpu, op) => {
  const values = [0, 1, 2, 3, 4, 5, 6, 7].map((register) => cpu.readRegister(gpr(register), op.size));
  setStackPointer(cpu, pushAll(cpu, op.size, values));
};

const popa: Helper = (cpu, op) => {
  const top = cpu.reg(RSP) & stackMask(cpu);
  const values = [7, 6, 5, 4, 3, 2, 1, 0].map((register, i) => ({
    register,
    value: cpu.load(stackAt(cpu, top + BigInt(i * op.size), op.size, false), op.size),
  }));
  for (const { register, value } of values)
    if (register !== RSP) cpu.writeRegister(gpr(register), op.size, value);
  setStackPointer(cpu, top + BigInt(8 * op.size));
};

/**
 * ENTER: `immediate` bytes of locals, `condition` the nesting level. As the manual has it, each push is
 * a store of its own, and a last write check of the new stack top comes before the registers change.
 */
const enter: Helper = (cpu, op) => {
  const { size } = op;
  const level = op.condition & 31;
  const width = BigInt(size);
  let top = cpu.reg(RSP) & stackMask(cpu);
  const push = (value: bigint): void => {
    top -= width;
    cpu.store(stackAt(cpu, top, size, true), size, value);
  };
  push(cpu.readRegister(gpr(RBP), size));
  const frame = top & stackMask(cpu);
  const base = cpu.reg(RBP) & stackMask(cpu);
  for (let i = 1; i < level; i++) push(cpu.load(stackAt(cpu, base - BigInt(i) * width, size, false), size));
  if (level > 0) push(frame);
  top -= op.immediate;
  cpu.probe(stackAt(cpu, top, size, true), size, 'write');
  cpu.writeRegister(gpr(RBP), size, frame);
  setStackPointer(cpu, top);
};

export const INTEGER_HELPERS = {
  crc32,
  cmpxchg8b,
  cmpxchg16b,
  mov_moffs: movMoffs,
  bit_string: bitString,
  xlat_narrow: xlatNarrow,
  pusha,
  popa,
  enter,
};
