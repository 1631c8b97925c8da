/** Segment loads, far transfers, call gates, SYSCALL (APM vol. 2, chapter 4 and §6.1; APM vol. 3). */
import { describe, expect, it } from 'vitest';
import { FLAG, STATE } from '../../../src/x86/layout.ts';
import { AT, Guest, SEL } from '../support/guest.ts';
import { descriptor } from '../support/plain-machine.ts';

/** Puts a descriptor of these attributes into a GDT slot behind the standard ones. */
const SLOT = 0x40;
function withSlot(guest: Guest, attributes: number, base = 0, limit = 0xf_ffff): Guest {
  guest.machine.poke(AT.gdt + SLOT, 8, descriptor(base, limit, attributes));
  guest.cpu.setSegment(6, { ...guest.cpu.getSegment(6), limit: 0xff });
  return guest;
}

describe('loading a data segment', () => {
  // APM vol. 2, §4.11.1 and table 4-3: attributes of the descriptor, CPL, RPL, outcome.
  const E = `13(${SLOT})`;
  it.each([
    ['read-only data', 0xc91, 0, 0, 'none'],
    ['data of the same privilege', 0xcf3, 3, 3, 'none'],
    ['data of more privilege', 0xc93, 3, 3, E],
    ['data of more privilege, RPL 0', 0xc93, 3, 0, E],
    ['data of less privilege', 0xcf3, 0, 0, 'none'],
    ['own data with a weaker RPL', 0xc93, 0, 3, E],
    ['readable code', 0xc9b, 0, 0, 'none'],
    ['execute-only code', 0xc99, 0, 0, E],
    ['conforming code of more privilege', 0xc9f, 3, 3, 'none'],
    ['conforming execute-only code', 0xc9d, 3, 3, E],
    ['a system segment', 0x082, 0, 0, E],
    ['data that is not present', 0xc13, 0, 0, `11(${SLOT})`],
    ['code that is not present', 0xc1b, 0, 0, `11(${SLOT})`],
  ])('%s', (_name, attributes, cpl, rpl, outcome) => {
    const guest = withSlot(Guest.protected({ cpl }), attributes);
    const hlt = cpl === 3 ? '13(0)' : 'none';
    expect(guest.fault(`mov eax, ${SLOT | rpl}\n mov ds, eax\n mov ebx, ds\n hlt`)).toBe(
      outcome === 'none' ? hlt : outcome,
    );
    if (outcome !== 'none') return;
    expect(guest.reg('rbx')).toBe(BigInt(SLOT | rpl));
    // Loading sets the accessed bit.
    expect(guest.machine.peek(AT.gdt + SLOT + 5, 1) & 1n).toBe(1n);
  });

  it('of a null selector works, using it does not', () => {
    const guest = Guest.protected();
    expect(guest.fault('xor eax, eax\n mov ds, eax\n mov ebx, ds\n mov ecx, [0]\n hlt')).toBe('13(0)');
    expect(guest.reg('rbx')).toBe(0n);
    expect(Guest.long().fault('xor eax, eax\n mov ds, eax\n mov ecx, [0]\n hlt')).toBe('none');
  });

  it('outside its table', () => {
    expect(Guest.protected().fault('mov eax, 0x103\n mov ds, eax')).toBe('13(256)');
    expect(Guest.protected().fault('mov eax, 0xc\n mov ds, eax')).toBe('13(12)'); // no LDT
  });

  it('from the local table', () => {
    const guest = withSlot(Guest.protected(), 0x082, AT.data, 0xf);
    guest.machine.poke(AT.data + 8, 8, descriptor(0x1234, 0xfff, 0x493));
    expect(guest.fault(`mov ax, ${SLOT}\n lldt ax\n mov eax, 0xc\n mov es, eax\n sldt ecx\n hlt`)).toBe(
      'none',
    );
    expect(guest.cpu.segmentBase(0)).toBe(0x1234n);
    expect(guest.reg('rcx')).toBe(BigInt(SLOT));
    expect(guest.fault('mov eax, 0x14\n mov es, eax')).toBe('13(20)');
  });

  it('with a pointer: LSS loads both', () => {
    const guest = Guest.protected();
    expect(guest.fault(`lss esp, [pointer]\n hlt\n pointer: dd 0x4444\n dw ${SEL.data}`)).toBe('none');
    expect(guest.reg('rsp')).toBe(0x4444n);
  });
});

describe('loading SS', () => {
  const E = `13(${SLOT})`;
  it.each([
    ['own writable data', 0xc93, 0, 0, 'none'],
    ['read-only data', 0xc91, 0, 0, E],
    ['code', 0xc9b, 0, 0, E],
    ['another RPL', 0xc93, 0, 3, E],
    ['another DPL', 0xcf3, 0, 0, E],
    ['not present', 0xc13, 0, 0, `12(${SLOT})`],
  ])('%s', (_name, attributes, cpl, rpl, outcome) => {
    const guest = withSlot(Guest.protected({ cpl }), attributes);
    expect(guest.fault(`mov eax, ${SLOT | rpl}\n mov ss, eax\n hlt`)).toBe(outcome);
  });
  it('null: only in 64-bit mode below CPL 3', () => {
    expect(Guest.protected().fault('xor eax, eax\n mov ss, eax')).toBe('13(0)');
    expect(Guest.long().fault('xor eax, eax\n mov ss, eax\n push rax\n hlt')).toBe('none');
    expect(Guest.long({ cpl: 3 }).fault('mov eax, 3\n mov ss, eax')).toBe('13(0)');
  });
  it('CS cannot be loaded by MOV', () => {
    expect(Guest.long().fault('db 0x8e, 0xc8')).toBe('6');
  });
});

describe('limits of a segment', () => {
  it.each([
    ['the last byte', 0x493, 'mov al, es:[0xfff]', 'none'],
    ['one beyond', 0x493, 'mov al, es:[0x1000]', '13(0)'],
    ['a word across the end', 0x493, 'mov ax, es:[0xfff]', '13(0)'],
    ['writing read-only data', 0x491, 'mov es:[0], al', '13(0)'],
    ['expand-down, inside the limit', 0x497, 'mov al, es:[0xfff]', '13(0)'],
    ['expand-down, above it', 0x497, 'mov al, es:[0x1000]', 'none'],
    ['expand-down 16-bit, above 64 KiB', 0x097, 'mov al, es:[0x10000]', '13(0)'],
  ])('%s', (_name, attributes, instruction, outcome) => {
    const guest = withSlot(Guest.protected(), attributes, 0x2_0000, 0xfff);
    expect(guest.fault(`mov ecx, ${SLOT}\n mov es, ecx\n ${instruction}\n hlt`)).toBe(outcome);
  });
  it('of the stack raise #SS', () => {
    const guest = withSlot(Guest.protected(), 0x493, 0, 0xfff);
    expect(guest.fault(`mov ecx, ${SLOT}\n mov ss, ecx\n mov esp, 0x2000\n push eax`)).toBe('12(0)');
  });
  it('non-canonical addresses raise #GP, on the stack #SS', () => {
    expect(Guest.long().fault('mov rax, 0x800000000000\n mov [rax], al')).toBe('13(0)');
    expect(Guest.long().fault('mov rsp, 0x800000000100\n push rax')).toBe('12(0)');
  });
});

describe('far JMP and CALL to code', () => {
  const E = `13(${SLOT})`;
  it.each([
    ['own code', 0xc9b, 0, 0, 'none'],
    ['own code, a weaker RPL', 0xc9b, 0, 3, E],
    ['code of less privilege', 0xcfb, 0, 0, E],
    ['code of more privilege', 0xc9b, 3, 3, E],
    ['conforming code of more privilege', 0xc9f, 3, 3, 'none'],
    ['conforming code of less privilege', 0xcff, 0, 0, E],
    ['data', 0xc93, 0, 0, E],
    ['code that is not present', 0xc1b, 0, 0, `11(${SLOT})`],
  ])('%s', (_name, attributes, cpl, rpl, outcome) => {
    const guest = withSlot(Guest.protected({ cpl }), attributes);
    for (const instruction of ['jmp', 'call']) {
      const result = guest.fault(`${instruction} ${SLOT | rpl}:there\n nop\n there: mov eax, cs\n hlt`);
      expect(result).toBe(outcome === 'none' && cpl === 3 ? '13(0)' : outcome);
      if (outcome === 'none') expect(guest.reg('rax')).toBe(BigInt(SLOT | cpl)); // RPL becomes CPL
      guest.cpu.setSegment(1, {
        ...guest.cpu.getSegment(1),
        selector: (cpl ? SEL.userCode32 : SEL.code) | cpl,
      });
    }
  });

  it('checks the offset, and null selectors', () => {
    const guest = withSlot(Guest.protected(), 0x49b, 0, 0x7fff);
    expect(guest.fault(`jmp ${SLOT}:0x8000`)).toBe('13(0)');
    expect(guest.fault('jmp 3:0x8000')).toBe('13(0)');
  });

  it('in long mode: L and D together are #GP, a compatibility segment changes the mode', () => {
    const guest = withSlot(Guest.long(), 0xe9b);
    expect(guest.fault('jmp far [p]\n p: dd 0x8000\n dw 0x40')).toBe(E);
    withSlot(guest, 0xc9b);
    guest.go('jmp far [p]\n p: dd there\n dw 0x40\n bits 32\n there: mov eax, 1\n dec eax\n hlt');
    expect(guest.reg('rax')).toBe(0n);
    expect(guest.bits).toBe(32);
  });

  it('a task gate or TSS is refused in long mode, and not implemented in legacy mode', () => {
    expect(Guest.long().fault('jmp far [p]\n p: dd 0\n dw 0x30')).toBe('13(48)');
    expect(Guest.protected().fault('jmp 0x30:0')).toMatch(/not implemented: a task switch/);
  });
});

describe('call gates', () => {
  const TARGET = 0x9000;
  const gate = (selector: number, offset: number, type: number, dpl: number, parameters = 0): bigint =>
    BigInt(offset & 0xffff) |
    (BigInt(selector) << 16n) |
    (BigInt(parameters | (type << 8) | (dpl << 13) | 0x8000) << 32n) |
    (BigInt(offset >>> 16) << 48n);
  const withGate = (guest: Guest, value: bigint): Guest => {
    guest.machine.poke(AT.gdt + SLOT, 8, value);
    guest.machine.poke(AT.gdt + SLOT + 8, 8, 0);
    guest.cpu.setSegment(6, { ...guest.cpu.getSegment(6), limit: 0xff });
    return guest;
  };

  it('of long mode lead to CPL 0 and back', () => {
    const guest = withGate(Guest.long({ cpl: 3 }), gate(SEL.code, TARGET, 12, 3));
    guest.load('mov rbx, cs\n mov rcx, ss\n mov rdx, rsp\n retfq', TARGET);
    expect(guest.fault('call far [p]\n mov rsi, cs\n mov rdi, rsp\n hlt\n p: dd 0\n dw 0x43')).toBe('13(0)');
    expect(guest.reg('rbx')).toBe(BigInt(SEL.code));
    expect(guest.reg('rcx')).toBe(0n);
    expect(guest.reg('rdx')).toBe(BigInt(AT.stack0) - 32n);
    expect(guest.reg('rsi')).toBe(BigInt(SEL.userCode | 3));
    expect(guest.reg('rdi')).toBe(BigInt(AT.userStack));
    const [, cs, rsp, ss] = guest.words(AT.stack0 - 32, 4);
    expect([cs, rsp, ss]).toEqual([BigInt(SEL.userCode | 3), BigInt(AT.userStack), BigInt(SEL.userData | 3)]);
  });

  it('of legacy mode copy parameters to the new stack', () => {
    const guest = withGate(Guest.protected({ cpl: 3 }), gate(SEL.code, TARGET, 12, 3, 2));
    guest.load('mov eax, [esp+8]\n mov ebx, [esp+12]\n mov ecx, [esp+16]\n retf 8', TARGET);
    expect(guest.fault('push 0x11\n push 0x22\n call 0x43:0\n mov edx, esp\n hlt')).toBe('13(0)');
    expect(guest.reg('rax')).toBe(0x22n);
    expect(guest.reg('rbx')).toBe(0x11n);
    expect(guest.reg('rcx')).toBe(BigInt(AT.userStack) - 8n);
    expect(guest.reg('rdx')).toBe(BigInt(AT.userStack));
  });

  it.each([
    ['of too much privilege', gate(SEL.code, TARGET, 12, 0), 'call', `13(${SLOT})`],
    ['not present', gate(SEL.code, TARGET, 12, 3) & ~(1n << 47n), 'call', `11(${SLOT})`],
    ['to a null selector', gate(0, TARGET, 12, 3), 'call', '13(0)'],
    ['to data', gate(SEL.data, TARGET, 12, 3), 'call', `13(${SEL.data})`],
    ['to 32-bit code', gate(SEL.userCode32, TARGET, 12, 3), 'call', `13(${SEL.userCode32})`],
    ['of 16 bits, in long mode', gate(SEL.code, TARGET, 4, 3), 'call', `13(${SLOT})`],
    ['with JMP to more privilege', gate(SEL.code, TARGET, 12, 3), 'jmp', `13(${SEL.code})`],
  ])('%s', (_name, value, instruction, outcome) => {
    const guest = withGate(Guest.long({ cpl: 3 }), value);
    expect(guest.fault(`${instruction} far [p]\n p: dd 0\n dw 0x43`)).toBe(outcome);
  });
});

describe('RETF and IRET', () => {
  it.each([
    ['to a null CS', 'push 0\n push 0x8000\n retfq', '13(0)'],
    ['to more privilege', `push ${SEL.code}\n push 0x8000\n retfq`, `13(${SEL.code})`],
    ['to a CS of another DPL', `push ${SEL.code | 3}\n push 0x8000\n retfq`, `13(${SEL.code})`],
  ])('RETF %s', (_name, source, outcome) => {
    expect(Guest.long({ cpl: 3 }).fault(source)).toBe(outcome);
  });

  const iretq = (ss: number, cs: number, rip = 0x9000n): string =>
    `push ${ss}\n push ${AT.userStack}\n push 2\n push ${cs}\n mov rax, ${rip}\n push rax\n iretq`;
  it.each([
    ['to user mode with a null SS', iretq(0, SEL.userCode | 3), '13(0)'],
    ['with an SS of another privilege', iretq(SEL.data, SEL.userCode | 3), `13(${SEL.data})`],
    ['with a null SS to kernel mode', iretq(0, SEL.code), 'none'],
    ['to an address that is not canonical', iretq(SEL.data, SEL.code, 0x8000_0000_0000n), '13(0)'],
    ['with NT set', 'pushfq\n or dword [rsp], 0x4000\n popfq\n iretq', '13(0)'],
  ])('IRETQ %s', (_name, source, outcome) => {
    const guest = Guest.long();
    guest.load('hlt', 0x9000);
    expect(guest.fault(source)).toBe(outcome);
    // A refused return has changed nothing.
    if (outcome !== 'none') expect([guest.cpu.cpl, guest.selector('cs')]).toEqual([0, SEL.code]);
  });

  it('IRETQ keeps the FS base behind a null selector', () => {
    const guest = Guest.long();
    guest.cpu.setSegment(4, { selector: 0, attributes: 0, limit: 0, base: 0x1234_5000n });
    guest.cpu.setSegment(3, { selector: SEL.data, attributes: 0xc93, limit: 0xffff_ffff, base: 0n });
    guest.load('mov rax, ds\n hlt', 0x9000);
    expect(guest.fault(iretq(SEL.userData | 3, SEL.userCode | 3))).toBe('13(0)');
    expect(guest.cpu.segmentBase(4)).toBe(0x1234_5000n);
    expect(guest.reg('rax')).toBe(0n); // kernel data is not for CPL 3
    expect(guest.cpu.cpl).toBe(3);
  });

  it('IRET at CPL 3 changes neither IF nor IOPL', () => {
    const guest = Guest.long({ cpl: 3 });
    guest.load('pushfq\n pop rbx\n hlt', 0x9000);
    guest.go(
      `push ${SEL.userData | 3}\n push ${AT.userStack}\n push 0x3ad7\n push ${SEL.userCode | 3}\n push 0x9000\n iretq`,
    );
    expect(guest.reg('rbx') & 0xffffn).toBe(0x8d7n | 0n);
  });
});

describe('SYSCALL and SYSRET', () => {
  const system = (cpl: number): Guest => {
    const guest = Guest.long({ cpl });
    guest.cpu.setU64(STATE.efer, 0xd01n);
    guest.cpu.setU64(STATE.star, (BigInt(SEL.userCode32 | 3) << 48n) | (BigInt(SEL.code) << 32n));
    guest.cpu.setU64(STATE.lstar, 0x9000n);
    guest.cpu.setU64(STATE.cstar, 0x9800n);
    guest.cpu.setU64(STATE.sfmask, BigInt(FLAG.IF | FLAG.DF));
    return guest;
  };
  it('go to LSTAR and back', () => {
    const guest = system(3);
    guest.load('mov rax, cs\n mov rbx, ss\n pushfq\n pop rdx\n sysretq', 0x9000);
    guest.cpu.setReg(4, BigInt(AT.userStack));
    guest.cpu.rflags = FLAG.IF | FLAG.DF | FLAG.CF;
    expect(guest.fault('syscall\n mov rsi, cs\n mov rdi, ss\n pushfq\n pop r8\n hlt')).toBe('13(0)');
    expect(guest.reg('rax')).toBe(BigInt(SEL.code));
    expect(guest.reg('rbx')).toBe(BigInt(SEL.code + 8));
    expect(guest.reg('rcx')).toBe(BigInt(AT.code) + 2n);
    expect(guest.reg('r11')).toBe(BigInt(FLAG.IF | FLAG.DF | FLAG.CF | 2));
    expect(guest.reg('rdx')).toBe(BigInt(FLAG.CF | 2));
    expect(guest.reg('rsi')).toBe(BigInt((SEL.userCode32 | 3) + 16));
    expect(guest.reg('rdi')).toBe(BigInt((SEL.userCode32 | 3) + 8));
    expect(guest.reg('r8')).toBe(guest.reg('r11'));
  });
  it('return to 32-bit code without REX.W', () => {
    const guest = system(0);
    guest.load('mov eax, cs\n inc eax\n hlt', 0x9000, 32);
    expect(guest.fault('mov ecx, 0x9000\n mov r11d, 2\n sysret')).toBe('13(0)');
    expect(guest.reg('rax')).toBe(BigInt((SEL.userCode32 | 3) + 1));
    expect(guest.bits).toBe(32);
  });
  it('are #UD without EFER.SCE, and SYSENTER always in long mode', () => {
    expect(Guest.long().fault('syscall')).toBe('6');
    expect(Guest.long().fault('sysretq')).toBe('6');
    expect(system(0).fault('sysenter')).toBe('6');
  });
  it('SYSENTER and SYSEXIT work in legacy mode', () => {
    const guest = Guest.protected({ cpl: 3 });
    // SYSENTER wants code, data, user code, user data in this order.
    guest.machine.poke(AT.gdt + SEL.userCode32, 8, descriptor(0, 0xfffff, 0xcfb));
    guest.cpu.setU64(STATE.sysenterCs, BigInt(SEL.code));
    guest.cpu.setU64(STATE.sysenterEsp, 0x6000n);
    guest.cpu.setU64(STATE.sysenterEip, 0x9000n);
    guest.load(
      'mov eax, cs\n mov ebx, esp\n mov edx, back\n mov ecx, 0x28000\n sysexit\n back: mov esi, cs\n mov edi, ss\n hlt',
      0x9000,
    );
    expect(guest.fault('sysenter')).toBe('13(0)');
    expect(guest.reg('rax')).toBe(BigInt(SEL.code));
    expect(guest.reg('rbx')).toBe(0x6000n);
    expect(guest.reg('rsi')).toBe(BigInt(SEL.userCode32 | 3));
    expect(guest.reg('rdi')).toBe(BigInt(SEL.userData | 3));
  });
});
