/**
 * Every tier executes the same machine: random programs with loops, branches, calls, page-crossing
 * accesses, faults and changes to their own code, run by the interpreter alone and with regions
 * compiled at the second jump, in slices of odd sizes. Registers, flags, memory and counts must
 * agree at every stop.
 */
import { describe, expect, it } from 'vitest';
import type { Cpu } from '../../../src/x86/cpu.ts';
import { Engine } from '../../../src/x86/engine.ts';
import { RCX, RSP, STATE } from '../../../src/x86/layout.ts';
import { PlainMachine, enterLongMode, setGate64, setGdt, setIdt } from '../support/plain-machine.ts';

/** SplitMix64, in 32-bit draws. */
class Random {
  #state: bigint;
  constructor(seed: number) {
    this.#state = BigInt(seed) * 0x9e37_79b9_7f4a_7c15n;
  }
  next(): bigint {
    this.#state = BigInt.asUintN(64, this.#state + 0x9e37_79b9_7f4a_7c15n);
    let z = this.#state;
    z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58_476d_1ce4_e5b9n);
    z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d0_49bb_1331_11ebn);
    return z ^ (z >> 31n);
  }
  below(limit: number): number {
    return Number(this.next() % BigInt(limit));
  }
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }
}

const R64 = ['rax', 'rdx', 'rsi', 'rdi', 'r8', 'r9', 'r10', 'r15'];
const R32 = ['eax', 'edx', 'esi', 'edi', 'r8d', 'r9d', 'r10d', 'r15d'];
const R16 = ['ax', 'dx', 'si', 'di', 'r8w', 'r9w', 'r10w', 'r15w'];
const R8 = ['al', 'dl', 'sil', 'dil', 'r8b', 'r9b', 'ah', 'dh'];
const SETS = [
  ['qword', R64],
  ['dword', R32],
  ['word', R16],
  ['byte', R8],
] as const;
const CONDITIONS = ['o', 'no', 'b', 'ae', 'e', 'ne', 'be', 'a', 's', 'ns', 'p', 'np', 'l', 'ge', 'le', 'g'];
const DATA = 0x40_0000;

/** One random instruction as text; memory operands are around rbx, on both sides of a page's edge. */
function instruction(r: Random, label: () => string): string {
  const [size, registers] = r.pick(SETS);
  const plain = size === 'byte' ? registers.slice(0, 4) : registers;
  const a = r.pick(plain);
  const b = r.pick(plain);
  const memory = `${size} [rbx + ${r.below(24)}]`;
  const immediate = size === 'byte' ? r.below(128) : r.below(0x7fff);
  const alu = r.pick(['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp', 'test']);
  switch (r.below(20)) {
    case 0:
    case 1:
      return `${alu} ${a}, ${b}`;
    case 2:
      return `${alu} ${a}, ${immediate}`;
    case 3:
      return alu === 'test' ? `test ${memory}, ${a}` : `${alu} ${a}, ${memory}`;
    case 4:
      return `${alu} ${memory}, ${a}`;
    case 5:
      return `mov ${a}, ${memory}`;
    case 6:
      return `mov ${memory}, ${b}`;
    case 7:
      return `${r.pick(['inc', 'dec', 'neg', 'not'])} ${r.below(2) ? a : memory}`;
    case 8:
      return `${r.pick(['shl', 'shr', 'sar', 'rol', 'ror', 'rcl', 'rcr'])} ${a}, ${r.below(40)}`;
    case 9:
      return `${r.pick(['shl', 'shr', 'sar', 'rol', 'ror'])} ${a}, cl`;
    case 10:
      return `lea ${r.pick(R64)}, [${r.pick(R64)} + ${r.pick(R64)}*${r.pick([1, 2, 4, 8])} + ${immediate}]`;
    case 11:
      return `j${r.pick(CONDITIONS)} ${label()}`;
    case 12:
      return `set${r.pick(CONDITIONS)} ${r.pick(R8.slice(0, 4))}`;
    case 13:
      return `cmov${r.pick(CONDITIONS)} ${r.pick(R32)}, ${r.pick(R32)}`;
    case 14:
      return `movzx ${r.pick(R32)}, ${r.pick(R8.slice(0, 4))}`;
    case 15:
      return `imul ${r.pick(R64)}, ${r.pick(R64)}`;
    case 16:
      return `push ${r.pick(R64)}\n pop ${r.pick(R64)}`;
    case 17:
      return `bt${r.pick(['', 's', 'r', 'c'])} ${r.pick(R64)}, ${r.below(64)}`;
    case 18:
      return `xchg ${r.pick(R64)}, ${r.pick(R64)}`;
    default:
      return 'call helper';
  }
}

function program(seed: number): string {
  const r = new Random(seed);
  const count = 12 + r.below(30);
  const lines: string[] = [];
  for (let i = 0; i < count; i++)
    lines.push(`l${i}: ${instruction(r, () => `l${Math.min(count, i + 1 + r.below(6))}`)}`);
  // Some programs change an immediate of their own, some touch an unmapped page now and then.
  const special =
    r.below(4) === 0
      ? 'mov rax, patched\n add byte [rax + 2], 1\n patched: mov r11d, 1'
      : r.below(4) === 0
        ? 'test ecx, 7\n jne over\n mov rax, 0x7fff0000\n shl rax, 8\n mov [rax], rcx\n over: nop'
        : 'nop';
  return `
    outer: mov rbx, ${DATA + 0xfe8}
    ${lines.join('\n')}
    l${count}: ${special}
    sub ecx, 1
    jnz outer
    hlt
    helper: add r14, 1
    test r14, 3
    je helped
    xor rsi, r14
    helped: ret
    fault: add rsp, 8
    add qword [rsp], 3
    iretq`;
}

function start(seed: number, heat: number): { machine: PlainMachine; cpu: Cpu; engine: Engine } {
  const machine = new PlainMachine({ bytes: 20 << 20 });
  const cpu = machine.cpu();
  const engine = new Engine(machine.memory, heat);
  enterLongMode(machine, cpu);
  const code = machine.load(program(seed), 0x1000);
  setGdt(machine, cpu, 0x5000, [0x00af9b000000ffffn, 0x00cf93000000ffffn]);
  setIdt(cpu, 0x6000);
  setGate64(machine, 0x6000, 14, code.labels.get('fault')!);
  const r = new Random(seed + 1);
  for (let i = 0; i < 16; i++) if (i !== RSP) cpu.setReg(i, r.next() >> BigInt(r.below(64)));
  machine.write(
    DATA + 0xfe0,
    Array.from({ length: 64 }, () => r.below(256)),
  );
  cpu.setReg(RCX, BigInt(20 + r.below(60)));
  cpu.setReg(RSP, 0x9000n);
  cpu.rip = 0x1000n;
  return { machine, cpu, engine };
}

function stateOf({ machine, cpu }: { machine: PlainMachine; cpu: Cpu }): string {
  const registers = Array.from({ length: 16 }, (_, i) => cpu.reg(i).toString(16)).join(' ');
  const data = Buffer.from(machine.read(DATA + 0xfc0, 0x80)).toString('hex');
  const stack = Buffer.from(machine.read(0x8f00, 0x100)).toString('hex');
  return `${cpu.rip.toString(16)} ${cpu.rflags.toString(16)} ${cpu.u64(STATE.retired)}\n${registers}\n${data}\n${stack}`;
}

describe('the tiers', () => {
  it.each([1, 7, 50, 1000, 100_000])('agree at every stop, in slices of %i', (slice) => {
    const programs = slice < 50 ? 8 : 40;
    let compiled = 0;
    for (let seed = 1; seed <= programs; seed++) {
      const exact = start(seed, 0);
      const fast = start(seed, 1);
      for (let i = 0; i < 200_000 / slice; i++) {
        const a = exact.engine.run(exact.cpu, slice);
        const b = fast.engine.run(fast.cpu, slice);
        expect([b.reason, b.retired], `seed ${seed}, stop ${i}`).toEqual([a.reason, a.retired]);
        if (i % 16 === 0 || a.reason !== 'budget')
          expect(stateOf(fast), `seed ${seed}, stop ${i}`).toBe(stateOf(exact));
        if (a.reason !== 'budget' || exact.cpu.u64(STATE.retired) > 6000n) break;
      }
      expect(stateOf(fast), `seed ${seed}`).toBe(stateOf(exact));
      compiled += fast.engine.compiledRegions;
    }
    // One instruction at a time leaves no room for a region.
    if (slice > 1) expect(compiled).toBeGreaterThan(programs);
  });

  it('stop at breakpoints that come and go while code is hot, as single steps find them', () => {
    let hits = 0;
    let compiled = 0;
    for (let seed = 1; seed <= 12; seed++) {
      const steps = start(seed, 0);
      const fast = start(seed, 1);
      const r = new Random(seed + 2);
      const wanted = new Set<bigint>();
      const visited: bigint[] = [];
      for (let stop = 0; stop < 60; stop++) {
        const slice = 20 + r.below(200);
        let retired = 0;
        let reason = 'budget';
        while (retired < slice && reason === 'budget') {
          const step = steps.engine.run(steps.cpu, 1, true);
          retired += step.retired;
          visited.push(steps.cpu.rip);
          if (step.reason !== 'budget' && step.reason !== 'delivered') reason = step.reason;
          else if (retired < slice && wanted.has(steps.cpu.rip)) reason = 'breakpoint';
        }
        const result = fast.engine.run(fast.cpu, slice);
        expect([result.reason, result.retired], `seed ${seed}, stop ${stop}`).toEqual([reason, retired]);
        expect(stateOf(fast), `seed ${seed}, stop ${stop}`).toBe(stateOf(steps));
        if (reason === 'breakpoint') hits++;
        else if (reason !== 'budget') break;
        const changed = r.pick(visited);
        if (wanted.delete(changed)) fast.engine.breakpoints.remove(changed);
        else if (r.below(8) === 0) {
          wanted.clear();
          fast.engine.breakpoints.clear();
        } else {
          wanted.add(changed);
          fast.engine.breakpoints.add(changed);
          // Of another page: the code here is marked, and must not stop.
          fast.engine.breakpoints.add(BigInt(0x7000 + r.below(0x200)));
        }
      }
      compiled += fast.engine.compiledRegions;
    }
    expect(hits).toBeGreaterThan(100);
    expect(compiled).toBeGreaterThan(12);
  });
});
