/** Long string instructions: runs over many pages, overlap, direction, faults in the middle. */
import { describe, expect, it } from 'vitest';
import { Engine } from '../../../src/x86/engine.ts';
import { VmExit } from '../../../src/x86/exceptions.ts';
import { FLAG, RAX, RCX, RDI, RSI, STATE } from '../../../src/x86/layout.ts';
import { PlainMachine, enterLongMode } from '../support/plain-machine.ts';
import type { Cpu } from '../../../src/x86/cpu.ts';

const CODE = 0x1000;
const SOURCE = 0x20_0000;
const TARGET = 0x30_0123;
/** A page that no table maps: the identity map ends at 4 GiB. */
const END = 0x1_0000_0000;

const run = (source: string, prepare: (cpu: Cpu, machine: PlainMachine) => void) => {
  const machine = new PlainMachine();
  const cpu = machine.cpu();
  const engine = new Engine(machine.memory);
  enterLongMode(machine, cpu);
  machine.load(`${source}\n hlt`, CODE);
  machine.intercepted.set('hlt', () => {
    throw new VmExit('hlt', false);
  });
  cpu.rip = BigInt(CODE);
  prepare(cpu, machine);
  let faults = 0;
  engine.onException = () => {
    faults++;
    return true;
  };
  let retired = 0;
  for (let turn = 0; turn < 1000; turn++) {
    const result = engine.run(cpu, 100);
    retired += result.retired;
    if (result.reason !== 'budget') break;
  }
  return { machine, cpu, retired, faults };
};

const pattern = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 0xff);

/** `toEqual` looks at every element as an object would; this does not. */
const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describe('long string instructions', () => {
  it.each([
    ['rep movsb', 1],
    ['rep movsq', 8],
  ])('%s copies 300 KB and counts as one instruction', (text, size) => {
    const bytes = pattern(300_000);
    const { machine, cpu, retired } = run(text, (cpu, machine) => {
      machine.write(SOURCE, bytes);
      cpu.setReg(RSI, BigInt(SOURCE));
      cpu.setReg(RDI, BigInt(TARGET));
      cpu.setReg(RCX, BigInt(bytes.length / size));
    });
    expect(same(machine.read(TARGET, bytes.length), bytes)).toBe(true);
    expect(same(machine.read(TARGET + bytes.length, 16), new Uint8Array(16))).toBe(true);
    expect(retired).toBe(1);
    expect([cpu.reg(RSI), cpu.reg(RDI), cpu.reg(RCX)]).toEqual([
      BigInt(SOURCE + bytes.length),
      BigInt(TARGET + bytes.length),
      0n,
    ]);
  });

  it.each([1, 3, 8, 100])('an overlapping copy %i bytes up repeats the pattern', (distance) => {
    const bytes = pattern(distance);
    const length = 20_000;
    const { machine } = run('rep movsb', (cpu, machine) => {
      machine.write(SOURCE, bytes);
      cpu.setReg(RSI, BigInt(SOURCE));
      cpu.setReg(RDI, BigInt(SOURCE + distance));
      cpu.setReg(RCX, BigInt(length));
    });
    const expected = Uint8Array.from({ length: length + distance }, (_, i) => bytes[i % distance]!);
    expect(same(machine.read(SOURCE, length + distance), expected)).toBe(true);
  });

  it('copies downwards with DF', () => {
    const bytes = pattern(10_000);
    const { machine } = run('std\n rep movsb', (cpu, machine) => {
      machine.write(SOURCE, bytes);
      cpu.setReg(RSI, BigInt(SOURCE + bytes.length - 1));
      cpu.setReg(RDI, BigInt(SOURCE + bytes.length + 4));
      cpu.setReg(RCX, BigInt(bytes.length));
    });
    expect(same(machine.read(SOURCE + 5, bytes.length), bytes)).toBe(true);
  });

  it.each([
    ['rep stosb', 1],
    ['rep stosw', 2],
    ['rep stosq', 8],
  ])('%s fills', (text, size) => {
    const count = 30_001;
    const { machine, cpu } = run(text, (cpu) => {
      cpu.setReg(RAX, 0x1122_3344_5566_7788n);
      cpu.setReg(RDI, BigInt(TARGET));
      cpu.setReg(RCX, BigInt(count));
    });
    const unit = [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11];
    const expected = Uint8Array.from({ length: count * size }, (_, i) => unit[i % size]!);
    expect(same(machine.read(TARGET, expected.length), expected)).toBe(true);
    expect(same(machine.read(TARGET + expected.length, 8), new Uint8Array(8))).toBe(true);
    expect(cpu.reg(RDI)).toBe(BigInt(TARGET + expected.length));
  });

  it('a fault in the middle leaves the iteration that faulted', () => {
    const before = 5000;
    const { machine, cpu, faults } = run('rep movsb', (cpu, machine) => {
      machine.write(SOURCE, pattern(10_000));
      cpu.setReg(RSI, BigInt(SOURCE));
      cpu.setReg(RDI, BigInt(END - before));
      cpu.setReg(RCX, 10_000n);
    });
    expect(faults).toBe(1);
    expect(cpu.u64(STATE.rip)).toBe(BigInt(CODE));
    expect([cpu.reg(RSI), cpu.reg(RDI), cpu.reg(RCX)]).toEqual([
      BigInt(SOURCE + before),
      BigInt(END),
      BigInt(10_000 - before),
    ]);
    expect(same(machine.read(END - before, before), pattern(before))).toBe(true);
  });

  it('REPNE SCASB finds the end of a long string', () => {
    const { cpu } = run('repne scasb', (cpu, machine) => {
      machine.write(SOURCE, new Uint8Array(50_000).fill(0x41));
      cpu.setReg(RAX, 0n);
      cpu.setReg(RDI, BigInt(SOURCE));
      cpu.setReg(RCX, 0xffff_ffffn);
    });
    expect(cpu.reg(RDI)).toBe(BigInt(SOURCE + 50_001));
    expect(cpu.rflags & FLAG.ZF).toBe(FLAG.ZF);
  });
});
