/** Changing modes, and the rules control registers and EFER keep (APM vol. 2, chapters 3 and 14). */
import { describe, expect, it } from 'vitest';
import { MODE, STATE } from '../../../src/x86/layout.ts';
import { AT, Guest, SEL } from '../support/guest.ts';
import { identityTables } from '../support/plain-machine.ts';

describe('from reset to 64-bit mode', () => {
  it('through real mode, protected mode and compatibility mode', () => {
    const guest = new Guest();
    const { machine, cpu } = guest;
    identityTables(machine, AT.tables);
    // The first instruction is sixteen bytes below 4 GiB.
    machine.load('jmp 0x0:0x7c00', 0xffff_fff0, 16);
    machine.load(
      `
      bits 16
        xor ax, ax
        mov ds, ax
        mov ss, ax
        mov sp, 0x7000
        cli
        lgdt [gdtr]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp 8:protected
      bits 32
      protected:
        mov ax, 0x10
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov eax, cr4
        or eax, 0x20
        mov cr4, eax
        mov eax, ${AT.tables}
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 0x100
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        rdmsr                 ; still 32-bit code, but long mode is active now
        mov ebx, eax
        jmp 0x18:long
      bits 64
      long:
        mov rax, 0x1122334455667788
        mov r8, rax
        mov ecx, cs
        hlt
      align 8
      gdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
      gdtr: dw 31
        dd gdt
      `,
      0x7c00,
      16,
    );
    expect(guest.run()).toMatchObject({ reason: 'exit', exit: { reason: 'hlt' } });
    expect(cpu.mode).toBe(MODE.code64);
    expect(guest.reg('r8')).toBe(0x1122_3344_5566_7788n);
    expect(guest.reg('rbx')).toBe(0x500n); // LME and LMA
    expect(guest.reg('rcx')).toBe(0x18n);
  });

  it('and back to real mode', () => {
    const guest = Guest.long();
    guest.machine.poke(AT.gdt + 8 * 3, 8, 0x00cf_9b00_0000_ffffn); // 0x18: 32-bit code
    guest.machine.poke(AT.gdt + 8 * 4, 8, 0x0000_9b00_0000_ffffn); // 0x20: 16-bit code
    const result = guest.go(`
        push 0x18
        push compatibility
        retfq
      bits 32
      compatibility:
        mov eax, cr0
        and eax, 0x7fffffff
        mov cr0, eax          ; long mode is left with paging
        mov ecx, 0xc0000080
        rdmsr
        mov ebx, eax
        jmp 0x20:sixteen
      bits 16
      sixteen:
        mov eax, cr0
        and al, 0xfe
        mov cr0, eax
        jmp 0:real
      real:
        mov ax, 0x1234
        mov ds, ax
        hlt
    `);
    expect(result).toMatchObject({ reason: 'exit' });
    expect(guest.reg('rbx')).toBe(0x900n); // LME stays, LMA is gone
    expect(guest.cpu.protectedMode).toBe(false);
    expect(guest.cpu.segmentBase(3)).toBe(0x12340n);
    expect(guest.selector('cs')).toBe(0);
  });
});

describe('real mode', () => {
  const real = (): Guest => {
    const guest = new Guest();
    guest.cpu.setSegment(1, { ...guest.cpu.getSegment(1), selector: 0, base: 0n });
    guest.cpu.setReg(4, 0x7000n);
    return guest;
  };

  it('delivers interrupts through the vector table and returns from them', () => {
    const guest = real();
    guest.stopAtException = false;
    guest.machine.poke(0x21 * 4, 4, 0x0100_0040); // 0100:0040
    guest.machine.load('mov bx, cs\n iret', 0x1040, 16);
    guest.cpu.rflags = 0x202;
    guest.go('stc\n int 0x21\n mov cx, sp\n pushf\n pop dx\n hlt');
    expect(guest.reg('rbx') & 0xffffn).toBe(0x100n);
    expect(guest.reg('rcx') & 0xffffn).toBe(0x7000n);
    expect(guest.reg('rdx') & 0xffffn).toBe(0x203n);
    expect(guest.words(0x6ffa, 3, 2)).toEqual([0x8003n, 0n, 0x203n]);
  });

  it('delivers a fault without an error code', () => {
    const guest = real();
    guest.stopAtException = false;
    guest.machine.poke(6 * 4, 4, 0x0000_9000);
    guest.machine.load('hlt', 0x9000, 16);
    guest.go('nop\n ud2');
    expect(guest.cpu.rip).toBe(0x9001n);
    expect(guest.words(0x6ffa, 3, 2)[0]).toBe(0x8001n);
    // RF is bit 16: it does not fit a 16-bit image.
    expect(guest.reg('rsp') & 0xffffn).toBe(0x6ffan);
  });

  it('keeps the limit of a segment loaded in protected mode', () => {
    const guest = real();
    guest.cpu.setSegment(3, { ...guest.cpu.getSegment(3), limit: 0xffff_ffff });
    guest.machine.poke(0x12_3456, 1, 0x5a);
    expect(guest.fault('mov ax, 0\n mov ds, ax\n mov ebx, 0x123456\n mov al, [ebx]\n hlt')).toBe('none');
    expect(guest.reg('rax') & 0xffn).toBe(0x5an);
    expect(guest.fault('mov bx, 0xffff\n mov ax, es:[bx]\n hlt')).toBe('13(0)');
  });

  it('calls and returns far', () => {
    const guest = real();
    guest.machine.load('mov ax, cs\n retf 4', 0x1_2345, 16);
    guest.go('push 1\n push 2\n call 0x1234:5\n mov cx, cs\n hlt');
    expect(guest.reg('rax') & 0xffffn).toBe(0x1234n);
    expect(guest.reg('rcx') & 0xffffn).toBe(0n);
    expect(guest.reg('rsp') & 0xffffn).toBe(0x7000n);
  });
});

describe('CR0', () => {
  // Written in 32-bit protected mode, paging off, EFER.LME as given.
  it.each([
    ['PG without PE', 0x8000_0010n, '13(0)'],
    ['NW without CD', 0x2000_0011n, '13(0)'],
    ['CD and NW', 0x6000_0011n, 'none'],
    ['a reserved bit, which is ignored', 0x51n, 'none'],
  ])('%s', (_name, value, outcome) => {
    const guest = Guest.protected();
    expect(guest.fault(`mov eax, ${value}\n mov cr0, eax\n mov ebx, cr0\n hlt`)).toBe(outcome);
    if (outcome === 'none') expect(guest.reg('rbx')).toBe((value & ~0x40n) | 0x10n);
  });

  it('refuses an upper half', () => {
    expect(Guest.long().fault('mov rax, 0x100000011\n mov cr0, rax\n hlt')).toBe('13(0)');
  });

  it('cannot turn paging off in 64-bit mode', () => {
    expect(Guest.long().fault('mov rax, cr0\n btr rax, 31\n mov cr0, rax\n hlt')).toBe('13(0)');
  });

  it('activates long mode only with PAE', () => {
    const guest = Guest.protected();
    guest.cpu.setU64(STATE.efer, 0x100n);
    expect(guest.fault('mov eax, 0x80000011\n mov cr0, eax\n hlt')).toBe('13(0)');
  });

  it('is reached by LMSW, which cannot clear PE, and CLTS', () => {
    const guest = Guest.protected();
    expect(guest.fault('mov ax, 0xe\n lmsw ax\n smsw ebx\n clts\n smsw ecx\n hlt')).toBe('none');
    expect(guest.reg('rbx')).toBe(0x3fn);
    expect(guest.reg('rcx')).toBe(0x37n);
  });
});

describe('CR3, CR4 and CR8', () => {
  it.each([
    ['CR4: a reserved bit', 'mov rax, cr4\n bts rax, 27\n mov cr4, rax', '13(0)'],
    ['CR4: an upper half', 'mov rax, cr4\n bts rax, 40\n mov cr4, rax', '13(0)'],
    ['CR4: PAE cannot go in long mode', 'mov rax, cr4\n btr rax, 5\n mov cr4, rax', '13(0)'],
    ['CR4: PCIDE in long mode', 'mov rax, cr4\n bts rax, 17\n mov cr4, rax', 'none'],
    [
      'CR4: PCIDE with CR3[11:0] set',
      'mov rax, cr3\n or rax, 8\n mov cr3, rax\n mov rax, cr4\n bts rax, 17\n mov cr4, rax',
      '13(0)',
    ],
    [
      'CR0: PG off with PCIDE',
      'mov rax, cr4\n bts rax, 17\n mov cr4, rax\n mov rax, cr0\n btr rax, 31\n mov cr0, rax',
      '13(0)',
    ],
    [
      'CR4: CET without WP',
      'mov rax, cr0\n btr rax, 16\n mov cr0, rax\n mov rax, cr4\n bts rax, 23\n mov cr4, rax',
      '13(0)',
    ],
    ['CR3: above the physical addresses', 'mov rax, cr3\n bts rax, 50\n mov cr3, rax', '13(0)'],
    ['CR3: bit 63 without PCIDE', 'mov rax, cr3\n bts rax, 63\n mov cr3, rax', '13(0)'],
    [
      'CR3: bit 63 with PCIDE',
      'mov rax, cr4\n bts rax, 17\n mov cr4, rax\n mov rax, cr3\n bts rax, 63\n mov cr3, rax',
      'none',
    ],
    ['CR8: 15', 'mov eax, 15\n mov cr8, rax\n mov rbx, cr8', 'none'],
    ['CR8: 16', 'mov eax, 16\n mov cr8, rax', '13(0)'],
    ['CR1', 'db 0x0f, 0x20, 0xc8', '6'],
  ])('%s', (_name, source, outcome) => {
    expect(Guest.long().fault(`${source}\n hlt`)).toBe(outcome);
  });

  it.each([
    'mov rax, cr0',
    'mov cr3, rax',
    'mov rax, cr8',
    'clts',
    'hlt',
    'invlpg [0]',
    'wbinvd',
    'rdmsr',
    'wrmsr',
    'lgdt [0]',
    'mov rax, dr6',
    'swapgs',
    'sysretq',
    'cli',
    'sti',
    'in al, dx',
    'xsetbv',
  ])('%s is #GP(0) at CPL 3', (instruction) => {
    const guest = Guest.long({ cpl: 3 });
    guest.cpu.setU64(STATE.cr4, 0x4_06a0n); // OSXSAVE
    guest.cpu.setU64(STATE.efer, 0xd01n); // SCE
    guest.cpu.setReg(2, 0x60n);
    guest.machine.write(AT.tss + 0x68, new Uint8Array(0x40).fill(0xff));
    expect(guest.fault(instruction)).toBe('13(0)');
  });
});

describe('EFER and other MSRs', () => {
  const write = (index: number, value: bigint): string =>
    `mov ecx, ${index}\n mov rax, ${value}\n mov rdx, rax\n shr rdx, 32\n wrmsr\n rdmsr\n hlt`;
  it.each([
    ['EFER: SVME', 0xc000_0080, 0x1d00n, 'none'],
    ['EFER: LMA cannot be cleared', 0xc000_0080, 0x900n, '13(0)'],
    ['EFER: LME cannot change while paging', 0xc000_0080, 0xc00n, '13(0)'],
    ['EFER: a reserved bit', 0xc000_0080, 0xd02n, '13(0)'],
    ['FS base, canonical', 0xc000_0100, 0xffff_8000_0000_0000n, 'none'],
    ['FS base, not canonical', 0xc000_0100, 0x8000_0000_0000n, '13(0)'],
    ['LSTAR, not canonical', 0xc000_0082, 0x8000_0000_0000n, '13(0)'],
    ['STAR', 0xc000_0081, 0x1122_3344_5566_7788n, 'none'],
    ['PAT', 0x277, 0x0007_0106_0007_0106n, 'none'],
    ['PAT with a reserved type', 0x277, 0x0200n, '13(0)'],
    ['TSC_AUX', 0xc000_0103, 0x1234n, 'none'],
    ['TSC_AUX, upper half', 0xc000_0103, 0x1_0000_0000n, '13(0)'],
    ['one nobody has', 0xc001_9999, 0n, '13(0)'],
  ])('%s', (_name, index, value, outcome) => {
    const guest = Guest.long();
    expect(guest.fault(write(index, value))).toBe(outcome);
    if (outcome === 'none') expect((guest.reg('rdx') << 32n) | guest.reg('rax')).toBe(value);
  });

  it('SWAPGS and the FSGSBASE instructions reach the same bases', () => {
    const guest = Guest.long();
    expect(guest.fault('rdgsbase rax\n hlt')).toBe('6'); // CR4.FSGSBASE is clear
    guest.cpu.setU64(STATE.cr4, 0x1_06a0n);
    expect(
      guest.fault(`
        mov rax, 0x123456789000
        wrgsbase rax
        swapgs
        rdgsbase rbx
        mov ecx, 0xc0000102
        rdmsr
        hlt`),
    ).toBe('none');
    expect(guest.reg('rbx')).toBe(0n);
    expect((guest.reg('rdx') << 32n) | guest.reg('rax')).toBe(0x1234_5678_9000n);
    expect(guest.fault('mov rax, 0x800000000000\n wrfsbase rax\n hlt')).toBe('13(0)');
  });
});

describe('debug registers', () => {
  it('alias DR4 and DR5 unless CR4.DE', () => {
    const guest = Guest.long();
    expect(guest.fault('mov eax, 0x1000\n mov dr0, rax\n mov rbx, dr4\n mov rcx, dr7\n hlt')).toBe('none');
    expect(guest.reg('rbx')).toBe(0xffff_0ff0n);
    expect(guest.reg('rcx')).toBe(0x400n);
    guest.cpu.setU64(STATE.cr4, 0x6a8n);
    expect(guest.fault('mov rbx, dr4\n hlt')).toBe('6');
  });
  it('have no upper half in DR6 and DR7', () => {
    expect(Guest.long().fault('mov rax, 0x100000000\n mov dr7, rax\n hlt')).toBe('13(0)');
  });
  it('raise #DB on access with DR7.GD, and clear it for the handler', () => {
    const guest = Guest.long();
    guest.stopAtException = false;
    guest.gate(1, 0x9000);
    guest.load('mov rax, dr6\n mov rbx, dr7\n hlt', 0x9000);
    guest.go('mov eax, 0x2000\n mov dr7, rax\n mov rcx, dr0\n hlt');
    expect(guest.exception).toMatchObject({ vector: 1, errorCode: undefined });
    expect(guest.reg('rax')).toBe(0xffff_2ff0n);
    expect(guest.reg('rbx')).toBe(0x400n);
  });
  it('stop the machine with a clear word when a breakpoint is enabled', () => {
    expect(Guest.long().fault('mov eax, 1\n mov dr7, rax\n hlt')).toMatch(
      /^error: not implemented: breakpoints/,
    );
  });
});

describe('selectors', () => {
  it('UMIP guards SGDT, SIDT, SLDT, STR and SMSW', () => {
    for (const instruction of ['sgdt [rsp-32]', 'sidt [rsp-32]', 'sldt ax', 'str ax', 'smsw ax']) {
      const guest = Guest.long({ cpl: 3 });
      expect(guest.fault(`${instruction}\n mov eax, ebx\n hlt`)).toBe('13(0)'); // HLT
      expect(guest.cpu.rip).not.toBe(BigInt(AT.code));
      guest.cpu.setU64(STATE.cr4, 0xea0n);
      expect(guest.fault(`${instruction}\n hlt`)).toBe('13(0)');
      expect(guest.cpu.rip).toBe(BigInt(AT.code));
    }
  });
  it('SGDT stores what LGDT loaded', () => {
    const guest = Guest.long();
    guest.go(`lgdt [gdtr]\n sgdt [${AT.data}]\n hlt\n gdtr: dw 0x37\n dq 0xffff800000001000`);
    expect(guest.words(AT.data, 5, 2)).toEqual([0x37n, 0x1000n, 0n, 0x8000n, 0xffffn]);
  });
  it('LGDT wants a canonical base', () => {
    expect(Guest.long().fault('lgdt [gdtr]\n hlt\n gdtr: dw 0\n dq 0x800000000000')).toBe('13(0)');
  });
  it('LTR marks the TSS busy, and will not load a busy one', () => {
    const guest = Guest.long();
    expect(guest.fault(`mov ax, ${SEL.tss}\n ltr ax\n str ebx\n ltr ax\n hlt`)).toBe(`13(${SEL.tss})`);
    expect(guest.reg('rbx')).toBe(BigInt(SEL.tss));
    expect(guest.machine.peek(AT.gdt + SEL.tss + 5, 1)).toBe(0x8bn);
    expect(guest.cpu.getSegment(9)).toMatchObject({ base: BigInt(AT.tss), limit: 0x2067, attributes: 0x8b });
  });
  it('LAR, LSL, VERR and VERW answer by ZF', () => {
    const guest = Guest.long({ cpl: 3 });
    guest.stopAtException = true;
    guest.go(`
      mov cx, ${SEL.userData}
      lar eax, ecx
      setz r8b
      lsl ebx, ecx
      setz r9b
      mov cx, ${SEL.data}
      lar edx, ecx
      setz r10b
      verr cx
      setz r11b
      mov cx, ${SEL.userData}
      verw cx
      setz r12b
      mov cx, ${SEL.userCode}
      verw cx
      setz r13b
      verr cx
      setz r14b
      mov cx, 0
      lar edx, ecx
      setz r15b
      hlt`);
    expect(guest.reg('rax')).toBe(0xcf_f300n);
    expect(guest.reg('rbx')).toBe(0xffff_ffffn);
    const zf = [8, 9, 10, 11, 12, 13, 14, 15].map((i) => Number(guest.cpu.reg(i)));
    expect(zf).toEqual([1, 1, 0, 0, 1, 0, 1, 0]);
  });
});
