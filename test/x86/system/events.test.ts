/** Exceptions and interrupts: gates, frames, privilege changes, nesting (APM vol. 2, chapter 8). */
import { describe, expect, it } from 'vitest';
import { GuestException, VmExit } from '../../../src/x86/exceptions.ts';
import { FLAG } from '../../../src/x86/layout.ts';
import { deliver, deliverWithNesting, interruptible } from '../../../src/x86/system/interrupts.ts';
import type { InterruptEvent } from '../../../src/x86/system/interrupts.ts';
import { AT, Guest, SEL } from '../support/guest.ts';
import { descriptor } from '../support/plain-machine.ts';

const HANDLER = 0x9000;
const long = (cpl = 0): Guest => {
  const guest = Guest.long({ cpl });
  guest.stopAtException = false;
  guest.load('hlt', HANDLER);
  return guest;
};
const legacy = (cpl = 0): Guest => {
  const guest = Guest.protected({ cpl });
  guest.stopAtException = false;
  guest.load('hlt', HANDLER);
  return guest;
};

describe('64-bit delivery', () => {
  it('aligns the stack and pushes SS, RSP, RFLAGS, CS, RIP and the error code', () => {
    const guest = long();
    guest.gate(13, HANDLER);
    guest.cpu.rflags = FLAG.IF | FLAG.DF;
    guest.go(`sub rsp, 3\n stc\n mov ds, [${AT.data}]\n mov eax, 0x50\n mov ds, eax`);
    expect(guest.exception).toMatchObject({ vector: 13, errorCode: 0x50 });
    const rsp = guest.reg('rsp');
    // 0x7000 - 3, down to a multiple of 16, six quadwords below.
    expect(rsp).toBe(0x6ff0n - 48n);
    const [code, rip, cs, rflags, oldRsp, ss] = guest.words(rsp, 6);
    expect(code).toBe(0x50n);
    expect(guest.machine.read(Number(rip), 2)).toEqual(Uint8Array.of(0x8e, 0xd8));
    expect(cs).toBe(BigInt(SEL.code));
    expect(ss).toBe(BigInt(SEL.data));
    expect(oldRsp).toBe(0x7000n - 3n);
    expect(rflags! & 0x1_0601n).toBe(0x1_0601n); // RF, DF, IF and CF
    // An interrupt gate masks, clears TF, RF and NT; DF stays.
    expect(guest.cpu.rflags & (FLAG.IF | FLAG.RF | FLAG.DF)).toBe(FLAG.DF);
    expect(guest.selector('ss')).toBe(SEL.data);
  });

  it('keeps IF with a trap gate', () => {
    const guest = long();
    guest.gate(3, HANDLER, { type: 15 });
    guest.cpu.rflags = FLAG.IF;
    guest.go('int3');
    expect(guest.cpu.rflags & FLAG.IF).toBe(FLAG.IF);
    const [rip, , rflags] = guest.words(guest.reg('rsp'), 3);
    expect(rip).toBe(BigInt(AT.code) + 1n);
    expect(rflags! & BigInt(FLAG.RF)).toBe(0n);
  });

  it('uses the interrupt stack table whatever the privilege', () => {
    const guest = long();
    guest.gate(6, HANDLER, { ist: 1 });
    guest.go('ud2');
    expect(guest.reg('rsp')).toBe(BigInt(AT.ist1) - 40n);
    expect(guest.selector('ss')).toBe(SEL.data);
  });

  it('from CPL 3 goes to RSP0 with a null SS', () => {
    const guest = long(3);
    guest.gate(0x80, HANDLER, { dpl: 3 });
    guest.cpu.rflags = FLAG.IF;
    guest.go('int 0x80');
    expect(guest.cpu.cpl).toBe(0);
    expect(guest.selector('cs')).toBe(SEL.code);
    expect(guest.selector('ss')).toBe(0);
    expect(guest.reg('rsp')).toBe(BigInt(AT.stack0) - 40n);
    expect(guest.words(guest.reg('rsp'), 5)).toEqual([
      BigInt(AT.code) + 2n,
      BigInt(SEL.userCode | 3),
      BigInt(FLAG.IF | 2),
      BigInt(AT.userStack),
      BigInt(SEL.userData | 3),
    ]);
  });

  it('and IRETQ goes back', () => {
    const guest = long(3);
    guest.gate(0x80, HANDLER, { dpl: 3 });
    guest.gate(13, 0x9800);
    guest.load('mov rbx, cs\n iretq', HANDLER);
    guest.load('hlt', 0x9800);
    guest.go('mov eax, 7\n int 0x80\n mov rcx, cs\n mov rdx, ss\n mov rsi, rsp\n hlt');
    expect(guest.exception).toMatchObject({ vector: 13, errorCode: 0 }); // HLT at CPL 3
    expect(guest.reg('rbx')).toBe(BigInt(SEL.code));
    expect(guest.reg('rcx')).toBe(BigInt(SEL.userCode | 3));
    expect(guest.reg('rdx')).toBe(BigInt(SEL.userData | 3));
    expect(guest.reg('rsi')).toBe(BigInt(AT.userStack));
  });

  it('puts the address of a page fault into CR2', () => {
    const guest = long(3);
    guest.gate(14, HANDLER);
    guest.machine.poke(AT.tables + 0x2000 + 8 * 8, 8, 0n); // 16 MiB is not mapped
    guest.go('mov [0x1000008], eax');
    expect(guest.field('cr2')).toBe(0x100_0008n);
    expect(guest.words(guest.reg('rsp'), 1)).toEqual([6n]); // write, user
  });

  it('enters 64-bit handlers from compatibility mode', () => {
    const guest = long();
    guest.gate(0x21, HANDLER, { dpl: 3 });
    guest.load('mov rbx, 0x123456789a\n iretq', HANDLER);
    guest.gate(13, 0x9800);
    guest.load('hlt', 0x9800);
    guest.go(`
        push ${SEL.userData | 3}
        push ${AT.userStack}
        pushfq
        push ${SEL.userCode32 | 3}
        push compatibility
        iretq
      bits 32
      compatibility:
        mov eax, esp
        int 0x21
        mov ecx, cs
        inc ecx
        hlt
    `);
    expect(guest.exception).toMatchObject({ vector: 13 });
    expect(guest.reg('rbx')).toBe(0x12_3456_789an);
    expect(guest.reg('rax')).toBe(BigInt(AT.userStack));
    expect(guest.reg('rcx')).toBe(BigInt((SEL.userCode32 | 3) + 1));
  });
});

describe('gates that cannot be used', () => {
  const error = (vector: number, ext: number): number => vector * 8 + 2 + ext;
  it.each<[string, (guest: Guest) => void, InterruptEvent, [number, number]]>([
    [
      'beyond the limit',
      (g) => g.cpu.setSegment(8, { ...g.cpu.getSegment(8), limit: 0x2ff }),
      { vector: 0x30, kind: 'external' },
      [13, error(0x30, 1)],
    ],
    [
      'beyond the limit, by INT',
      (g) => g.cpu.setSegment(8, { ...g.cpu.getSegment(8), limit: 0x2ff }),
      { vector: 0x30, kind: 'software' },
      [13, error(0x30, 0)],
    ],
    [
      'of another type',
      (g) => g.gate(0x30, HANDLER, { type: 12 }),
      { vector: 0x30, kind: 'external' },
      [13, error(0x30, 1)],
    ],
    [
      'not present',
      (g) => g.gate(0x30, HANDLER, { present: false }),
      { vector: 0x30, kind: 'external' },
      [11, error(0x30, 1)],
    ],
    [
      'with a null selector',
      (g) => g.gate(0x30, HANDLER, { selector: 0 }),
      { vector: 0x30, kind: 'external' },
      [13, 1],
    ],
    [
      'with a data segment',
      (g) => g.gate(0x30, HANDLER, { selector: SEL.data }),
      { vector: 0x30, kind: 'external' },
      [13, SEL.data + 1],
    ],
    [
      'with a 32-bit code segment',
      (g) => g.gate(0x30, HANDLER, { selector: SEL.userCode32 }),
      { vector: 0x30, kind: 'exception' },
      [13, SEL.userCode32 + 1],
    ],
    [
      'with a segment of less privilege',
      (g) => g.gate(0x30, HANDLER, { selector: SEL.userCode }),
      { vector: 0x30, kind: 'software' },
      [13, SEL.userCode],
    ],
    [
      'with a segment outside the GDT',
      (g) => g.gate(0x30, HANDLER, { selector: 0x100 }),
      { vector: 0x30, kind: 'software' },
      [13, 0x100],
    ],
    [
      'with an address that is not canonical',
      (g) => g.gate(0x30, 0x8000_0000_0000n),
      { vector: 0x30, kind: 'external' },
      [13, 1],
    ],
  ])('%s', (_name, prepare, event, [vector, code]) => {
    const guest = long();
    prepare(guest);
    const before = guest.words(AT.stack - 64, 8);
    expect(() => deliver(guest.cpu, event)).toThrow();
    try {
      deliver(guest.cpu, event);
    } catch (raised) {
      expect(raised).toEqual(new GuestException(vector, code));
    }
    expect(guest.cpu.rip).toBe(BigInt(AT.code));
    expect(guest.words(AT.stack - 64, 8)).toEqual(before);
  });

  it('by INT n of too little privilege', () => {
    const guest = long(3);
    guest.stopAtException = true;
    guest.gate(0x80, HANDLER, { dpl: 0 });
    expect(guest.fault('int 0x80')).toBe(`13(${error(0x80, 0)})`);
    guest.gate(3, HANDLER, { dpl: 0 });
    expect(guest.fault('int3')).toBe(`13(${error(3, 0)})`);
    // INT1 does not look at the DPL.
    guest.gate(1, HANDLER, { dpl: 0 });
    expect(guest.fault('int1')).toBe('none');
    expect(guest.cpu.cpl).toBe(0);
  });

  it('with a stack that cannot be written: #PF, then what that raises', () => {
    const guest = long();
    guest.machine.poke(AT.tables + 0x2000 + 8 * 8, 8, 0n);
    guest.gate(6, HANDLER);
    guest.gate(14, HANDLER, { ist: 1 });
    guest.go('mov rsp, 0x1001000\n ud2');
    expect(guest.words(guest.reg('rsp'), 1)).toEqual([2n]);
    expect(guest.field('cr2')).toBe(0x100_0ff8n);
    // The #PF interrupts UD2, with the stack UD2 had.
    expect(guest.words(guest.reg('rsp'), 5)[4]).toBe(0x100_1000n);
  });
});

describe('exceptions during delivery', () => {
  const shutdown = (guest: Guest, event: InterruptEvent): unknown => {
    try {
      deliverWithNesting(guest.cpu, event);
      return undefined;
    } catch (thrown) {
      return thrown;
    }
  };
  it('a contributory one after a contributory one is a double fault, with error code 0', () => {
    const guest = long();
    guest.gate(8, HANDLER);
    guest.go(`mov ax, 0x50\n mov ds, ax`); // #GP, whose gate is empty: #GP again
    expect(guest.cpu.rip).toBe(BigInt(HANDLER) + 1n);
    expect(guest.words(guest.reg('rsp'), 2)).toEqual([0n, BigInt(AT.code) + 4n]);
  });
  it('a #GP after a page fault is a double fault; a page fault after #GP is a page fault', () => {
    const guest = long();
    guest.gate(8, HANDLER);
    expect(shutdown(guest, { vector: 14, kind: 'exception', errorCode: 0, address: 5n })).toBeUndefined();
    expect(guest.words(guest.reg('rsp'), 1)).toEqual([0n]);
    expect(guest.field('cr2')).toBe(5n);

    const other = long();
    other.gate(8, HANDLER);
    other.gate(14, 0x9800);
    // The #GP gate's IDT page is not mapped: fetching the gate is the page fault.
    other.machine.poke(AT.tables + 0x2000 + 8 * 8, 8, 0n);
    other.cpu.setSegment(8, { selector: 0, attributes: 0, limit: 0xfff, base: 0x100_0000n - 0xd8n });
    for (const vector of [8])
      other.machine.write(0x100_0000 - 0xd8 + vector * 16, other.machine.read(AT.idt + vector * 16, 16));
    expect(shutdown(other, { vector: 13, kind: 'exception', errorCode: 0 })).toBeUndefined();
    // #PF's own gate lies behind #GP's, not mapped either: double fault.
    expect(other.cpu.rip).toBe(BigInt(HANDLER));
    expect(other.field('cr2')).toBe(0x100_0000n - 0xd8n + 14n * 16n);
  });
  it('a benign one before leaves the second as it is', () => {
    const guest = long();
    guest.gate(13, HANDLER);
    expect(shutdown(guest, { vector: 0x40, kind: 'external' })).toBeUndefined();
    expect(guest.words(guest.reg('rsp'), 1)).toEqual([BigInt(0x40 * 8 + 3)]);
  });
  it('a third one shuts down', () => {
    const guest = long();
    const thrown = shutdown(guest, { vector: 13, kind: 'exception', errorCode: 0 });
    expect(thrown).toBeInstanceOf(VmExit);
    expect((thrown as VmExit).reason).toBe('shutdown');
    expect(guest.go('ud2\n hlt').reason).toBe('shutdown');
  });
});

describe('32-bit protected mode', () => {
  it('pushes 32-bit frames, without SS:ESP at the same privilege', () => {
    const guest = legacy();
    guest.gate32(13, HANDLER);
    guest.go('mov ax, 0x50\n mov ds, ax');
    expect(guest.reg('rsp')).toBe(BigInt(AT.stack) - 16n);
    expect(guest.words(guest.reg('rsp'), 4, 4)).toEqual([
      0x50n,
      BigInt(AT.code) + 4n,
      BigInt(SEL.code),
      0x10002n,
    ]);
  });
  it('switches to SS0:ESP0, and IRET back drops what the user may not keep', () => {
    const guest = legacy(3);
    guest.gate32(0x80, HANDLER, { dpl: 3, type: 15 });
    guest.gate32(13, 0x9800);
    guest.load(`mov eax, ${SEL.data}\n mov es, eax\n mov ebx, esp\n iretd`, HANDLER);
    guest.load('hlt', 0x9800);
    guest.go('int 0x80\n mov ecx, es\n mov edx, ds\n mov esi, esp\n hlt');
    expect(guest.exception).toMatchObject({ vector: 13, errorCode: 0 });
    expect(guest.reg('rbx')).toBe(BigInt(AT.stack0) - 20n);
    expect(guest.words(AT.stack0 - 20, 5, 4)).not.toEqual([0n, 0n, 0n, 0n, 0n]);
    expect(guest.reg('rcx')).toBe(0n);
    expect(guest.reg('rdx')).toBe(BigInt(SEL.userData | 3));
    expect(guest.reg('rsi')).toBe(BigInt(AT.userStack));
  });
  it('16-bit gates push 16-bit frames', () => {
    const guest = legacy();
    guest.gate32(0x30, HANDLER, { type: 6 });
    guest.go('int 0x30');
    expect(guest.words(guest.reg('rsp'), 3, 2)).toEqual([BigInt(AT.code) + 2n, BigInt(SEL.code), 2n]);
  });
  it.each<[string, (guest: Guest) => void, string]>([
    ['a null SS0', (g) => g.machine.poke(AT.tss + 8, 2, 0), '10(0)'],
    [
      'an SS0 of the wrong privilege',
      (g) => g.machine.poke(AT.tss + 8, 2, SEL.userData | 3),
      `10(${SEL.userData})`,
    ],
    ['an SS0 that is code', (g) => g.machine.poke(AT.tss + 8, 2, SEL.code), `10(${SEL.code})`],
    ['an SS0 outside the GDT', (g) => g.machine.poke(AT.tss + 8, 2, 0x200), `10(${0x200})`],
    [
      'an SS0 that is not present',
      (g) => g.machine.poke(AT.gdt + SEL.data, 8, descriptor(0, 0xfffff, 0xc13)),
      `12(${SEL.data})`,
    ],
    [
      'an ESP0 outside its segment',
      (g) => g.machine.poke(AT.gdt + SEL.data, 8, descriptor(0, 0x5fff, 0x493)),
      'none',
    ],
    [
      'an ESP0 beyond its segment',
      (g) => g.machine.poke(AT.gdt + SEL.data, 8, descriptor(0, 0x5ffe, 0x493)),
      `12(${SEL.data})`,
    ],
    ['a TSS too short', (g) => g.cpu.setSegment(9, { ...g.cpu.getSegment(9), limit: 8 }), `10(${SEL.tss})`],
  ])('refuses %s', (_name, prepare, outcome) => {
    const guest = legacy(3);
    guest.stopAtException = true;
    guest.gate32(0x80, HANDLER, { dpl: 3 });
    prepare(guest);
    expect(guest.fault('int 0x80')).toBe(outcome);
  });

  it('runs virtual-8086 mode: entered by IRET, left through a gate', () => {
    const guest = legacy();
    guest.gate32(13, HANDLER);
    guest.load('mov eax, ds\n hlt', HANDLER);
    guest.machine.load('mov ax, ds\n mov bx, [4]\n int 0x21', 0x2_0010, 16);
    guest.machine.poke(0x4_0004, 2, 0xabcd);
    guest.go(`
      push 0x6000
      push 0x5000
      push 0x4000
      push 0x4000
      push 0x3000
      push 0xfffe
      push ${FLAG.VM | FLAG.IF | 2}
      push 0x2000
      push 0x10
      iretd
    `);
    // INT n with IOPL 0 is #GP(0), taken to CPL 0 with all segment registers saved and cleared.
    expect(guest.exception).toMatchObject({ vector: 13, errorCode: 0 });
    expect(guest.reg('rbx') & 0xffffn).toBe(0xabcdn);
    expect(guest.cpu.cpl).toBe(0);
    expect(guest.reg('rax')).toBe(0n);
    expect(guest.words(guest.reg('rsp'), 10, 4)).toEqual([
      0n,
      0x10n + 6n,
      0x2000n,
      BigInt(FLAG.RF | FLAG.VM | FLAG.IF | 2),
      0xfffen,
      0x3000n,
      0x4000n,
      0x4000n,
      0x5000n,
      0x6000n,
    ]);
  });
});

describe('interrupt shadow', () => {
  it('covers the instruction behind STI and MOV SS, not behind a second STI', () => {
    const guest = long();
    const step = (): boolean => {
      guest.engine.run(guest.cpu, 1);
      return interruptible(guest.cpu);
    };
    guest.load('sti\n nop\n sti\n mov ss, ax\n nop\n cli\n hlt');
    guest.cpu.setReg(0, BigInt(SEL.data));
    guest.cpu.rip = BigInt(AT.code);
    expect([step(), step(), step(), step(), step(), step()]).toEqual([false, true, true, false, true, false]);
  });
  it('IF follows CPL and IOPL', () => {
    const guest = long(3);
    guest.stopAtException = true;
    guest.gate(13, HANDLER);
    guest.cpu.rflags = 0x3002;
    expect(guest.fault('sti\n nop\n pushfq\n pop rax\n cli\n pushfq\n pop rbx\n hlt')).toBe('13(0)');
    expect(guest.reg('rax')).toBe(0x3202n);
    expect(guest.reg('rbx')).toBe(0x3002n);
    guest.cpu.rflags = 0x2;
    expect(guest.fault('push 0x3202\n popfq\n pushfq\n pop rax\n hlt')).toBe('13(0)');
    expect(guest.reg('rax')).toBe(2n); // POPF changes neither IF nor IOPL here, silently
  });
});

describe('single step', () => {
  it('traps after each instruction with DR6.BS', () => {
    const guest = long();
    guest.gate(1, HANDLER);
    guest.load('mov rbx, dr6\n hlt', HANDLER);
    guest.go('pushfq\n or dword [rsp], 0x100\n popfq\n inc eax\n inc eax\n hlt');
    expect(guest.reg('rbx')).toBe(0xffff_4ff0n);
    expect(guest.reg('rax')).toBe(1n);
    const [rip, , rflags] = guest.words(guest.reg('rsp'), 3);
    expect(guest.machine.read(Number(rip), 2)).toEqual(Uint8Array.of(0xff, 0xc0));
    expect(rflags! & 0x100n).toBe(0x100n);
  });
});
