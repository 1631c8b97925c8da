/** What the decoder names when bytes are no instruction, or one that is not there yet. */
import { NotImplemented } from '../../base/index.ts';
import type { Cpu } from '../cpu.ts';
import { generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { CS, MODE } from '../layout.ts';

/** The instruction's bytes in hex, as far as they can be read. */
const bytesAt = (cpu: Cpu, length: number): string => {
  const start = cpu.mode === MODE.code64 ? cpu.rip : cpu.segmentBase(CS) + cpu.rip;
  const bytes: string[] = [];
  for (let i = 0; i < length; i++) {
    const host = cpu.translate(start + BigInt(i), 'execute');
    if (host === undefined) break;
    bytes.push(cpu.memory.u8[host]!.toString(16).padStart(2, '0'));
  }
  return bytes.join(' ');
};

export const FAULT_HELPERS = {
  ud: (() => {
    throw undefinedOpcode();
  }) satisfies Helper,
  gp: (() => {
    throw generalProtection();
  }) satisfies Helper,
  unimplemented: ((cpu, op) => {
    throw new NotImplemented(`the instruction with the bytes ${bytesAt(cpu, op.length)}`, { rip: cpu.rip });
  }) satisfies Helper,
};
