/** What the run loop promises: exact counts, exact stops, undone faults, code that changes itself. */
import { describe, expect, it } from 'vitest';
import { Engine } from '../../../src/x86/engine.ts';
import { FLAG, RAX, RBX, RCX, RDI, RSI, RSP, STATE } from '../../../src/x86/layout.ts';
import { VmExit } from '../../../src/x86/exceptions.ts';
import type { Cpu } from '../../../src/x86/cpu.ts';
import {
  PTE,
  PlainMachine,
  enterLongMode,
  enterProtectedMode,
  setGate64,
  setGdt,
  setIdt,
} from '../support/plain-machine.ts';

const CODE = 0x1000;

function guest(source: string, options: { legacy?: boolean } = {}) {
  const machine = new PlainMachine();
  const cpu = machine.cpu();
  const engine = new Engine(machine.memory);
  if (options.legacy) enterProtectedMode(cpu);
  else enterLongMode(machine, cpu);
  const code = machine.load(source, CODE, options.legacy ? 32 : 64);
  cpu.rip = BigInt(CODE);
  cpu.setReg(RSP, 0x8000n);
  return { machine, cpu, engine, label: (name: string) => code.labels.get(name)! };
}

/** Long-mode GDT and IDT with one handler for every vector, which stores its vector's frame and halts. */
function withIdt(machine: PlainMachine, cpu: Cpu, vector: number, handler: bigint): void {
  setGdt(machine, cpu, 0x5000, [0x00af9b000000ffffn, 0x00cf93000000ffffn]);
  setIdt(cpu, 0x6000);
  setGate64(machine, 0x6000, vector, handler);
}

describe('counting', () => {
  it('retires exactly as many instructions as asked', () => {
    for (const slice of [1, 2, 3, 7, 1000]) {
      const { cpu, engine } = guest(`
        mov ecx, 100
      again: add rax, rcx
        sub ecx, 1
        jnz again
        nop
      spin: jmp spin`);
      let total = 0;
      while (total < 301) total += engine.run(cpu, Math.min(slice, 301 - total)).retired;
      expect(total).toBe(301);
      expect(cpu.reg(RAX)).toBe(5050n);
      expect(cpu.rip).toBe(BigInt(CODE) + BigInt(5 + 3 + 3 + 2));
      expect(cpu.u64(STATE.retired)).toBe(301n);
    }
  });

  it('counts a repeated string instruction once and gives the loop its turns', () => {
    const { cpu, engine } = guest('rep stosb\n hlt');
    cpu.setReg(RDI, 0x20_0000n);
    cpu.setReg(RCX, 0x10_0000n);
    cpu.setReg(RAX, 0x5an);
    let retired = 0;
    let result = engine.run(cpu, 10);
    retired += result.retired;
    while (result.reason === 'budget' && retired < 2) {
      result = engine.run(cpu, 1);
      retired += result.retired;
    }
    expect(result.reason).toBe('exit');
    expect(cpu.reg(RCX)).toBe(0n);
    expect(retired).toBe(2); // REP STOSB and HLT
  });
});

describe('breakpoints', () => {
  it('stop before the instruction and are passed over by the next run', () => {
    const { cpu, engine, label } = guest(`
      mov eax, 1
    here: mov eax, 2
      mov eax, 3
      hlt`);
    engine.breakpoints.add(label('here'));
    expect(engine.run(cpu, 100)).toMatchObject({ reason: 'breakpoint', retired: 1 });
    expect(cpu.rip).toBe(label('here'));
    expect(cpu.reg(RAX)).toBe(1n);
    expect(engine.run(cpu, 1)).toMatchObject({ reason: 'budget', retired: 1 });
    expect(cpu.reg(RAX)).toBe(2n);
  });

  it('are hit on every round of a loop', () => {
    const { cpu, engine, label } = guest(`
      mov ecx, 3
    again: sub ecx, 1
      jnz again
      hlt`);
    engine.breakpoints.add(label('again'));
    let hits = 0;
    while (engine.run(cpu, 100).reason === 'breakpoint') hits++;
    expect(hits).toBe(3);
  });

  it('leave another address with the same page offset alone', () => {
    const { cpu, engine } = guest('mov eax, 1\n mov eax, 2\n hlt');
    engine.breakpoints.add(BigInt(CODE + 0x3000 + 5));
    expect(engine.run(cpu, 100)).toMatchObject({ reason: 'exit', retired: 3 });
  });

  it('can be set on code that is already decoded, and removed', () => {
    const { cpu, engine, label } = guest('again: add eax, 1\n here: nop\n jmp again');
    engine.run(cpu, 30);
    engine.breakpoints.add(label('here'));
    expect(engine.run(cpu, 100).reason).toBe('breakpoint');
    engine.breakpoints.remove(label('here'));
    expect(engine.run(cpu, 100).reason).toBe('budget');
  });

  it('leave the code of other pages as it is, compiled or not', () => {
    const { machine, cpu, engine } = guest('again: add eax, 1\n add ebx, 1\n jmp again');
    const other = machine.load('loop: add esi, 1\n add edi, 1\n xor edx, edx\n back: jmp loop', 0x3000);
    const turns = (rip: bigint): string => {
      cpu.rip = rip;
      return engine.run(cpu, 10_000).reason;
    };
    turns(BigInt(CODE));
    turns(0x3000n);
    const { compiledRegions } = engine;
    expect(compiledRegions).toBe(2);
    // Offsets at which no instruction begins.
    engine.breakpoints.add(BigInt(0x3000 + 4));
    engine.breakpoints.add(BigInt(CODE + 1));
    turns(BigInt(CODE));
    turns(0x3000n);
    expect(engine.compiledRegions).toBe(compiledRegions);
    // Offset 8: nothing begins there in the first page.
    engine.breakpoints.add(other.labels.get('back')!);
    expect(turns(BigInt(CODE))).toBe('budget');
    expect(engine.compiledRegions).toBe(compiledRegions);
    expect(turns(0x3000n)).toBe('breakpoint');
    expect(cpu.rip).toBe(other.labels.get('back'));
    engine.breakpoints.clear();
    expect(turns(0x3000n)).toBe('budget');
    expect(engine.compiledRegions).toBe(compiledRegions + 1);
  });
});

describe('faults', () => {
  it('leave the instruction undone and name it', () => {
    const { machine, cpu, engine, label } = guest(`
      mov rbx, 0x7fffffff0000
      mov eax, 5
    bad: add [rbx], rax
      hlt
    handler: hlt`);
    withIdt(machine, cpu, 14, label('handler'));
    const result = engine.run(cpu, 100);
    expect(result).toMatchObject({ reason: 'exit', retired: 3 }); // two MOV, the handler's HLT
    expect(cpu.u64(STATE.cr2)).toBe(0x7fffffff0000n);
    const frame = Number(cpu.reg(RSP));
    expect(machine.peek(frame, 8)).toBe(2n); // write, not present, supervisor
    expect(machine.peek(frame + 8, 8)).toBe(label('bad'));
    expect(machine.peek(frame + 24, 8) & BigInt(FLAG.RF)).toBe(BigInt(FLAG.RF));
  });

  it('end a run that asks for it on the first instruction of the handler', () => {
    const { machine, cpu, engine, label } = guest('ud2\n handler: hlt');
    withIdt(machine, cpu, 6, label('handler'));
    expect(engine.run(cpu, 1, true)).toMatchObject({ reason: 'delivered', retired: 0 });
    expect(cpu.rip).toBe(label('handler'));
  });

  it('in the second page of a crossing store change neither page', () => {
    const { machine, cpu, engine, label } = guest(`
      mov rbx, 0x1ffffe
      mov rax, 0x1122334455667788
      mov [rbx], rax
      hlt
    handler: hlt`);
    withIdt(machine, cpu, 14, label('handler'));
    machine.poke(0x10_0000 + 0x2000 + 8, 8, 0n); // unmap 2 MiB … 4 MiB
    cpu.flushTlb();
    engine.run(cpu, 100);
    expect(cpu.u64(STATE.cr2)).toBe(0x20_0000n);
    expect(machine.peek(0x1f_fffe, 2)).toBe(0n);
  });

  it('without a handler shut the processor down', () => {
    const { cpu, engine } = guest('ud2');
    setIdt(cpu, 0, 0);
    expect(engine.run(cpu, 100).reason).toBe('shutdown');
  });

  it('on the fetch are raised with rip at the target', () => {
    const { machine, cpu, engine, label } = guest(`
      mov rax, 0x7fff00000000
      jmp rax
    handler: hlt`);
    withIdt(machine, cpu, 14, label('handler'));
    engine.run(cpu, 100);
    expect(cpu.u64(STATE.cr2)).toBe(0x7fff00000000n);
    expect(machine.peek(Number(cpu.reg(RSP)) + 8, 8)).toBe(0x7fff00000000n);
  });

  it('single-step by TF traps behind each instruction', () => {
    const { machine, cpu, engine, label } = guest(`
      nop
      nop
      hlt
    handler: add ebx, 1
      iretq`);
    withIdt(machine, cpu, 1, label('handler'));
    cpu.rflags = cpu.rflags | FLAG.TF;
    for (let i = 0; i < 20 && cpu.rip !== label('handler') - 1n; i++) engine.run(cpu, 1);
    expect(cpu.reg(RBX)).toBe(2n);
    expect(Number(cpu.u64(STATE.dr6)) & 0x4000).toBe(0x4000);
  });
});

describe('single step', () => {
  it('is not pending at the handler of a software interrupt', () => {
    const { machine, cpu, engine, label } = guest(`
      int 0x80
      hlt
    handler: hlt
    debug: hlt`);
    withIdt(machine, cpu, 0x80, label('handler'));
    setGate64(machine, 0x6000, 1, label('debug'));
    cpu.rflags = cpu.rflags | FLAG.TF;
    engine.run(cpu, 10);
    expect(cpu.rip).toBe(label('handler') + 1n);
  });
});

describe('changing code', () => {
  it('sees its own stores at the next instruction, in the same block', () => {
    const { cpu, engine, label } = guest(`
      mov eax, 0
      call patch
      call patch
      hlt
    patch: mov byte [target + 1], 7
    target: mov al, 1
      add ebx, eax
      ret`);
    expect(engine.run(cpu, 100).reason).toBe('exit');
    expect(cpu.reg(RBX)).toBe(14n);
    void label;
  });

  it('sees a host write after aboutToWrite', () => {
    const { machine, cpu, engine } = guest('again: mov eax, 1\n jmp again');
    engine.run(cpu, 10);
    machine.write(CODE + 1, [9]);
    engine.run(cpu, 10);
    expect(cpu.reg(RAX)).toBe(9n);
  });

  it('executes an instruction that crosses a page, and its change on either side', () => {
    const { machine, cpu, engine } = guest('nop');
    machine.load('mov eax, 0x11223344\n hlt', 0x1ffd);
    cpu.rip = 0x1ffdn;
    engine.run(cpu, 10);
    expect(cpu.reg(RAX)).toBe(0x11223344n);
    machine.write(0x2001, [0x99]);
    cpu.rip = 0x1ffdn;
    engine.run(cpu, 10);
    expect(cpu.reg(RAX)).toBe(0x99223344n);
  });
});

describe('memory operands', () => {
  it('cross pages, and set the dirty bit once written', () => {
    const { machine, cpu, engine } = guest(`
      mov rax, 0x1122334455667788
      mov [0x3ffd], rax
      mov rbx, [0x3ffd]
      add [0x3ffd], rbx
      hlt`);
    engine.run(cpu, 100);
    expect(cpu.reg(RBX)).toBe(0x1122334455667788n);
    expect(machine.peek(0x3ffd, 8)).toBe(0x22446688aaccef10n);
    expect(machine.peek(0x10_2000, 8) & PTE.D).toBe(PTE.D);
  });

  it('of devices go to the device, whole', () => {
    const log: string[] = [];
    const { machine, cpu, engine } = guest(
      `
      mov eax, [0xfee00020]
      mov dword [0xfee000b0], 5
      hlt`,
      { legacy: true },
    );
    machine.devices.set(0xfee0_0000, {
      device: true,
      read: (gpa, size) => (log.push(`read ${gpa.toString(16)} ${size}`), 0x1234n),
      write: (gpa, size, value) => void log.push(`write ${gpa.toString(16)} ${size} ${value}`),
    });
    engine.run(cpu, 100);
    expect(cpu.reg(RAX)).toBe(0x1234n);
    expect(log).toEqual(['read fee00020 4', 'write fee000b0 4 5']);
  });

  it('use FS and GS bases, and 32-bit addresses wrap', () => {
    const { machine, cpu, engine } = guest(`
      mov rax, [fs: 8]
      mov esi, 0xfffffff0
      db 0x67, 0x8b, 0x9e, 0x10, 0x30, 0, 0 ; mov ebx, [esi + 0x3010]
      hlt`);
    cpu.setSegment(4, { ...cpu.getSegment(4), base: 0x3000n });
    machine.poke(0x3008, 8, 0xabcdn);
    machine.poke(0x3000, 4, 77);
    engine.run(cpu, 100);
    expect(cpu.reg(RAX)).toBe(0xabcdn);
    expect(cpu.reg(RBX)).toBe(77n);
    expect(cpu.reg(RSI)).toBe(0xfffffff0n);
  });
});

describe('exits', () => {
  it('hand the host what the platform threw, with rip behind a retired instruction', () => {
    const { machine, cpu, engine } = guest('nop\n cpuid\n nop');
    machine.cpuid = () => {
      throw new VmExit('test', false, 1);
    };
    const result = engine.run(cpu, 10);
    expect(result).toMatchObject({ reason: 'exit', retired: 1 });
    expect(result.exit).toMatchObject({ reason: 'test', detail: 1 });
    expect(cpu.rip).toBe(BigInt(CODE + 1));
  });

  it('stop with the name of what is missing', () => {
    const { machine, cpu, engine } = guest('nop');
    machine.write(CODE, [0xd9, 0xfe]); // FSIN
    const result = engine.run(cpu, 10);
    expect(result.reason).toBe('error');
    expect(String(result.error)).toMatch(/^not implemented: .* \(at rip 0x1000\)$/);
  });
});
