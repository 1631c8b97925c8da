/** IN, OUT, INS and OUTS with the I/O permission checks (APM vol. 2, §12.2.4; APM vol. 3). */
import type { Cpu } from '../cpu.ts';
import { generalProtection } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { ES, FLAG, RCX, RDI, RDX, RSI, STATE, TR, gpr } from '../layout.ts';
import type { OpView } from '../opview.ts';
import type { PortInstruction } from '../platform.ts';
import { iopl } from './flags.ts';
import { TYPE, typeOf } from './segments.ts';

/** IOPL, else the permission bitmap of a 32-bit or 64-bit TSS. */
function checkPermission(cpu: Cpu, port: number, size: number): void {
  if (!cpu.protectedMode) return;
  if (!cpu.virtual8086 && cpu.cpl <= iopl(cpu)) return;
  const tr = cpu.getSegment(TR);
  const type = typeOf(tr);
  if ((type !== TYPE.tss && type !== TYPE.busyTss) || tr.limit < 0x67) throw generalProtection(0);
  const map = Number(cpu.load(tr.base + 0x66n, 2, 'system'));
  const at = map + (port >> 3);
  // Two bytes are read always, so that a port range may cross a byte.
  if (at + 1 > tr.limit) throw generalProtection(0);
  const low = Number(cpu.load(tr.base + BigInt(at), 1, 'system'));
  const high = Number(cpu.load(tr.base + BigInt(at + 1), 1, 'system'));
  const mask = ((1 << size) - 1) << (port & 7);
  if (((low | (high << 8)) & mask) !== 0) throw generalProtection(0);
}

const plain = (op: OpView): PortInstruction => ({
  string: false,
  rep: false,
  addressSize: op.addressSize,
  segment: 3,
});

const input = (cpu: Cpu, op: OpView, port: number): void => {
  checkPermission(cpu, port, op.size);
  const value = cpu.platform.portIn(cpu, port, op.size, plain(op));
  cpu.writeRegister(gpr(0), op.size, BigInt(value >>> 0));
};

const output = (cpu: Cpu, op: OpView, port: number): void => {
  checkPermission(cpu, port, op.size);
  cpu.platform.portOut(cpu, port, op.size, Number(cpu.readRegister(gpr(0), op.size)), plain(op));
};

const immediatePort = (op: OpView): number => Number(op.immediate & 0xffn);
const dx = (cpu: Cpu): number => Number(cpu.reg(RDX) & 0xffffn);

/** One iteration of a string form; true while more are to come. */
function iterate(cpu: Cpu, op: OpView, index: number, once: (offset: bigint) => void): boolean {
  const width = op.addressSize;
  const count = op.rep !== 0 ? cpu.readRegister(gpr(RCX), width) : 1n;
  if (count === 0n) return false;
  once(cpu.readRegister(gpr(index), width));
  const step = BigInt((cpu.u32(STATE.systemFlags) & FLAG.DF) !== 0 ? -op.size : op.size);
  const next = BigInt.asUintN(width * 8, cpu.readRegister(gpr(index), width) + step);
  cpu.writeRegister(gpr(index), width, next);
  if (op.rep === 0) return false;
  cpu.writeRegister(gpr(RCX), width, count - 1n);
  return count > 1n;
}

const ins: Helper = (cpu, op) =>
  iterate(cpu, op, RDI, (offset) => {
    const port = dx(cpu);
    checkPermission(cpu, port, op.size);
    const linear = cpu.segmented(ES, offset, op.size, true);
    cpu.probe(linear, op.size, 'write');
    const value = cpu.platform.portIn(cpu, port, op.size, {
      string: true,
      rep: op.rep !== 0,
      addressSize: op.addressSize,
      segment: ES,
    });
    cpu.store(linear, op.size, BigInt(value >>> 0));
  });

const outs: Helper = (cpu, op) =>
  iterate(cpu, op, RSI, (offset) => {
    const port = dx(cpu);
    checkPermission(cpu, port, op.size);
    const value = cpu.load(cpu.segmented(op.segment, offset, op.size, false), op.size);
    cpu.platform.portOut(cpu, port, op.size, Number(value), {
      string: true,
      rep: op.rep !== 0,
      addressSize: op.addressSize,
      segment: op.segment,
    });
  });

const in_imm: Helper = (cpu, op) => input(cpu, op, immediatePort(op));
const in_dx: Helper = (cpu, op) => input(cpu, op, dx(cpu));
const out_imm: Helper = (cpu, op) => output(cpu, op, immediatePort(op));
const out_dx: Helper = (cpu, op) => output(cpu, op, dx(cpu));

export const PORT_HELPERS = { in_imm, in_dx, out_imm, out_dx, ins, outs };
