/** Stops at exceptions, for the debugger: before the delivery, each once, and without a trace in the guest. */
import { describe, expect, it } from 'vitest';
import type { Machine } from '../../src/vmm/index.ts';
import { STATE } from '../../src/x86/index.ts';
import { assemble } from '../x86/support/assemble.ts';
import { AT, reg, run } from './guest.ts';

const LIMIT = 100_000;
/** Two intercepted instructions; the handler keeps the last error code in RBX and goes on behind them. */
const VC = `
  mov ecx, 2
 again: xor eax, eax
 first: cpuid
  mov ecx, 0x1b
 second: rdmsr
  mov r8, 1
  ud2
 vc: pop rbx
  add qword [rsp], 2
  inc r12
  iretq
 ud: hlt`;
const handlers = { 29: 'vc', 6: 'ud' };
const label = (code: string, name: string): bigint => assemble(code, AT.code).labels.get(name)!;
const state = (machine: Machine): unknown => [
  machine.retired,
  Array.from({ length: 16 }, (_, i) => machine.current.cpu.reg(i)),
  machine.current.cpu.rip,
];

describe('stopOnExceptions', () => {
  it('stops at the instruction, with nothing delivered, and then delivers', () => {
    const { machine } = run(VC, { handlers });
    machine.stopOnExceptions!(new Set([29]));
    const stack = reg(machine, 'rsp');
    const rip = label(VC, 'first');
    expect(machine.run(LIMIT)).toMatchObject({
      reason: 'exception',
      final: false,
      rip,
      message: `#VC CPUID (0x72) at 0x${rip.toString(16)}`,
      exception: { vector: 29, name: '#VC', errorCode: 0x72 },
    });
    expect(reg(machine, 'rsp')).toBe(stack);
    expect(machine.retired).toBe(2);
    // EXITCODE of an MSR access: 0x7c (APM vol. 2, appendix C).
    expect(machine.run(LIMIT)).toMatchObject({
      rip: label(VC, 'second'),
      exception: { vector: 29, errorCode: 0x7c },
    });
    expect([reg(machine, 'rbx'), reg(machine, 'r12')]).toEqual([0x72n, 1n]);
    expect(machine.run(LIMIT).reason).toBe('idle');
    expect([reg(machine, 'rbx'), reg(machine, 'r12')]).toEqual([0x7cn, 2n]);
  });

  it('leaves no trace: the guest ends as without stops', () => {
    const undisturbed = run(VC, { handlers }).machine;
    undisturbed.run(LIMIT);
    const { machine } = run(VC, { handlers });
    machine.stopOnExceptions!('all');
    const stops: string[] = [];
    for (let stop = machine.run(LIMIT); stop.reason === 'exception'; stop = machine.run(LIMIT))
      stops.push(stop.exception!.name);
    expect(stops).toEqual(['#VC', '#VC', '#UD']);
    expect(state(machine)).toEqual(state(undisturbed));
  });

  it('is off at the start, chooses by vector, and can be turned off', () => {
    const { machine } = run(VC, { handlers });
    machine.stopOnExceptions!(new Set([6, 13]));
    expect(machine.run(LIMIT)).toMatchObject({ message: expect.stringMatching(/^#UD at 0x/) });
    expect(machine.run(LIMIT).reason).toBe('idle');
    expect(run(VC, { handlers }).machine.run(LIMIT).reason).toBe('idle');
    const off = run(VC, { handlers }).machine;
    off.stopOnExceptions!('all');
    off.run(LIMIT);
    off.stopOnExceptions!(undefined);
    expect(off.run(LIMIT).reason).toBe('idle');
  });

  it('leaves #BP and single-step traps to debugging', () => {
    const code = 'int3\n pushfq\n or qword [rsp], 0x100\n popfq\n nop\n hlt\n bp: iretq\n db: hlt';
    const { machine } = run(code, { handlers: { 3: 'bp', 1: 'db' } });
    machine.stopOnExceptions!('all');
    expect(machine.run(LIMIT)).toMatchObject({ reason: 'idle', rip: label(code, 'db') + 1n });
  });

  it('says what a page fault was about', () => {
    const code = 'mov rax, 0x8000000000\n at: mov byte [rax], 1\n pf: hlt';
    const { machine } = run(code, { handlers: { 14: 'pf' } });
    machine.stopOnExceptions!(new Set([14]));
    expect(machine.run(LIMIT)).toMatchObject({
      message: `#PF writing 0x8000000000, error code 0x2 at 0x${label(code, 'at').toString(16)}`,
      exception: { vector: 14, errorCode: 2, address: 0x80_0000_0000n },
    });
    // CR2 is written by the delivery.
    expect(machine.current.cpu.u64(STATE.cr2)).toBe(0n);
    machine.run(LIMIT);
    expect(machine.current.cpu.u64(STATE.cr2)).toBe(0x80_0000_0000n);
  });

  it('stops at what a delivery raises, #DF at last (APM vol. 2, §8.2.9)', () => {
    const code = 'at: ud2\n df: hlt';
    const rip = label(code, 'at');
    // Neither #UD nor #GP has a gate: #UD gives #GP, #GP gives #DF.
    const undisturbed = run(code, { handlers: { 8: 'df' } }).machine;
    expect(undisturbed.run(LIMIT)).toMatchObject({ reason: 'idle', rip: label(code, 'df') + 1n });
    const { machine } = run(code, { handlers: { 8: 'df' } });
    machine.stopOnExceptions!('all');
    for (const name of ['#UD', '#GP', '#DF'])
      expect(machine.run(LIMIT)).toMatchObject({ reason: 'exception', rip, exception: { name } });
    expect(machine.run(LIMIT).reason).toBe('idle');
    expect(state(machine)).toEqual(state(undisturbed));
    const only = run(code, { handlers: { 8: 'df' } }).machine;
    only.stopOnExceptions!(new Set([8]));
    expect(only.run(LIMIT)).toMatchObject({ rip, exception: { vector: 8, errorCode: 0 } });
    expect(only.run(LIMIT).reason).toBe('idle');
  });

  it('a step stops there too; the next one enters the handler', () => {
    const { machine } = run(VC, { handlers });
    machine.stopOnExceptions!(new Set([29]));
    machine.stepInstruction();
    machine.stepInstruction();
    expect(machine.stepInstruction()).toMatchObject({ reason: 'exception', rip: label(VC, 'first') });
    expect(machine.stepInstruction()).toMatchObject({ reason: 'step', rip: label(VC, 'vc') });
  });

  it('passes with a breakpoint at the same instruction: one stop each', () => {
    const { machine } = run(VC, { handlers });
    const address = label(VC, 'first');
    machine.addBreakpoint({ address });
    machine.stopOnExceptions!(new Set([29]));
    expect(machine.run(LIMIT)).toMatchObject({ reason: 'breakpoint', rip: address });
    expect(machine.run(LIMIT)).toMatchObject({ reason: 'exception', rip: address });
    expect(machine.run(LIMIT)).toMatchObject({ reason: 'exception', rip: label(VC, 'second') });
  });

  it('keeps the shadow of STI for the instruction that is tried again', () => {
    const { machine } = run(`sti\n${VC.replace('again:', '').replace(/mov ecx, 2\n|xor eax, eax\n/g, '')}`, {
      handlers,
    });
    machine.stopOnExceptions!(new Set([29]));
    expect(machine.run(LIMIT).reason).toBe('exception');
    expect(machine.current.cpu.u32(STATE.interruptShadow)).not.toBe(0);
  });
});
