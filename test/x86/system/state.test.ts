/** Saved processor state, ports, translations and identification (APM vol. 2, §11.5, §12.2; APM vol. 3). */
import { describe, expect, it } from 'vitest';
import { GuestException, VmExit } from '../../../src/x86/exceptions.ts';
import { FLAG, STATE } from '../../../src/x86/layout.ts';
import { resetProcessor } from '../../../src/x86/system/reset.ts';
import { AT, Guest } from '../support/guest.ts';

const AREA = AT.data;
const withXsave = (xcr0 = 7n): Guest => {
  const guest = Guest.long();
  guest.cpu.setU64(STATE.cr4, 0x4_06a0n);
  guest.cpu.setU64(STATE.xcr0, xcr0);
  return guest;
};
/** Recognisable register contents. */
function fill(guest: Guest): void {
  const { cpu } = guest;
  for (let i = 0; i < 16; i++)
    for (let lane = 0; lane < 4; lane++)
      cpu.setU64(STATE.ymm + i * 32 + lane * 8, BigInt(0x1000 * (i + 1) + lane));
  for (let i = 0; i < 8; i++) cpu.setU64(STATE.st + i * 16, BigInt(0x5700 + i));
  cpu.setU16(STATE.fcw, 0x27f);
  cpu.setU16(STATE.fsw, 3 << 11);
  cpu.setU16(STATE.ftw, 0xf8);
  cpu.setU32(STATE.mxcsr, 0x1fa0);
}
const registers = (guest: Guest): string => {
  const { u8 } = guest.machine.memory;
  const part = (at: number, length: number): string =>
    u8.slice(guest.cpu.base + at, guest.cpu.base + at + length).join();
  return part(STATE.st, 128) + part(STATE.ymm, 512) + part(STATE.fcw, 6);
};
const save = (instruction: string, mask: number): string =>
  `mov eax, ${mask}\n xor edx, edx\n ${instruction} [${AREA}]\n hlt`;

describe('FXSAVE', () => {
  it('has the layout of the manual and comes back', () => {
    const guest = Guest.long();
    fill(guest);
    expect(guest.fault(`fxsave [${AREA}]\n hlt`)).toBe('none');
    expect(guest.words(AREA, 3, 2)).toEqual([0x27fn, BigInt(3 << 11), 0xf8n]);
    expect(guest.words(AREA + 24, 2, 4)).toEqual([0x1fa0n, 0x2_ffffn]);
    // ST(0) is physical register TOP.
    expect(guest.machine.peek(AREA + 32, 8)).toBe(0x5703n);
    expect(guest.words(AREA + 160, 2)).toEqual([0x1000n, 0x1001n]);
    expect(guest.words(AREA + 160 + 15 * 16, 2)).toEqual([0x1_0000n, 0x1_0001n]);
    const before = registers(guest);
    guest.cpu.setU64(STATE.ymm, 0n);
    guest.cpu.setU64(STATE.st, 0n);
    guest.cpu.setU16(STATE.fsw, 0);
    expect(guest.fault(`fxrstor [${AREA}]\n hlt`)).toBe('none');
    expect(registers(guest)).toBe(before);
  });
  it('wants 16-byte alignment, and no reserved MXCSR bit back', () => {
    expect(Guest.long().fault(`fxsave [${AREA + 8}]`)).toBe('13(0)');
    const guest = Guest.long();
    guest.machine.poke(AREA + 24, 4, 0x4_0000);
    expect(guest.fault(`fxrstor [${AREA}]`)).toBe('13(0)');
    expect(guest.fault(`ldmxcsr [${AREA + 24}]`)).toBe('13(0)');
  });
  it('is #NM with CR0.TS and #UD with CR0.EM', () => {
    const guest = Guest.long();
    guest.cpu.setU64(STATE.cr0, 0x8001_003bn);
    expect(guest.fault(`fxsave [${AREA}]`)).toBe('7');
    guest.cpu.setU64(STATE.cr0, 0x8001_0037n);
    expect(guest.fault(`fxsave [${AREA}]`)).toBe('6');
  });
});

describe('XSAVE and XRSTOR', () => {
  it.each(['xsave', 'xsaveopt'])(
    '%s writes what it is asked for, the rest of the area stays',
    (instruction) => {
      const guest = withXsave();
      fill(guest);
      guest.machine.write(AREA, new Uint8Array(0x400).fill(0xcc));
      guest.machine.poke(AREA + 512, 8, 0x2n); // SSE is in the old image
      guest.machine.write(AREA + 520, new Uint8Array(56));
      expect(guest.fault(save(instruction, 5))).toBe('none');
      expect(guest.machine.peek(AREA + 512, 8)).toBe(7n);
      expect(guest.machine.peek(AREA, 2)).toBe(0x27fn);
      expect(guest.machine.peek(AREA + 160, 8)).toBe(0xcccc_cccc_cccc_ccccn);
      expect(guest.words(AREA + 576, 2)).toEqual([0x1002n, 0x1003n]);
      expect(guest.machine.peek(AREA + 24, 4)).toBe(0x1fa0n); // MXCSR goes with AVX too
    },
  );

  it('XSAVEOPT leaves out what is in its initial state', () => {
    const guest = withXsave();
    guest.cpu.setU64(STATE.ymm + 8, 5n);
    resetX87(guest);
    guest.machine.write(AREA, new Uint8Array(512).fill(0xcc));
    expect(guest.fault(save('xsaveopt', 7))).toBe('none');
    expect(guest.machine.peek(AREA + 512, 8)).toBe(2n);
    expect(guest.machine.peek(AREA, 2)).toBe(0xccccn);
    expect(guest.words(AREA + 160, 2)).toEqual([0n, 5n]);
  });

  it.each(['xsave', 'xsaveopt', 'xsavec'])('XRSTOR brings back what %s saved', (instruction) => {
    const guest = withXsave();
    fill(guest);
    const before = registers(guest);
    expect(guest.fault(save(instruction, 7))).toBe('none');
    guest.machine.memory.u8.fill(0x77, guest.cpu.base + STATE.st, guest.cpu.base + STATE.ymm + 512);
    guest.cpu.setU16(STATE.fsw, 0);
    guest.cpu.setU32(STATE.mxcsr, 0x1f80);
    expect(guest.fault(save('xrstor', 7))).toBe('none');
    expect(registers(guest)).toBe(before);
    expect(guest.cpu.u32(STATE.mxcsr)).toBe(0x1fa0);
  });

  it('an area of zeros initialises every component', () => {
    const guest = withXsave();
    fill(guest);
    expect(guest.fault(save('xrstor', 7))).toBe('none');
    expect(guest.cpu.u16(STATE.fcw)).toBe(0x37f);
    expect(guest.cpu.u16(STATE.fsw)).toBe(0);
    const { u8 } = guest.machine.memory;
    expect(u8.slice(guest.cpu.base + STATE.ymm, guest.cpu.base + STATE.ymm + 512).every((b) => b === 0)).toBe(
      true,
    );
  });

  it('components not asked for keep their state', () => {
    const guest = withXsave();
    fill(guest);
    expect(guest.fault(save('xrstor', 4))).toBe('none');
    expect(guest.cpu.u64(STATE.ymm)).toBe(0x1000n);
    expect(guest.cpu.u64(STATE.ymm + 16)).toBe(0n);
    expect(guest.cpu.u16(STATE.fcw)).toBe(0x27f);
  });

  it.each<[string, (guest: Guest) => void]>([
    ['a component XCR0 has not', (g) => g.machine.poke(AREA + 512, 8, 0x10n)],
    ['a reserved header byte', (g) => g.machine.poke(AREA + 528, 1, 1)],
    ['XCOMP_BV without bit 63', (g) => g.machine.poke(AREA + 520, 8, 1)],
    [
      'a compacted image with more than it has room for',
      (g) => {
        g.machine.poke(AREA + 512, 8, 4n);
        g.machine.poke(AREA + 520, 8, (1n << 63n) | 3n);
      },
    ],
    ['a reserved MXCSR bit', (g) => g.machine.poke(AREA + 24, 4, 0x8000_0000)],
  ])('XRSTOR refuses %s', (_name, prepare) => {
    const guest = withXsave();
    fill(guest);
    const before = registers(guest);
    prepare(guest);
    expect(guest.fault(save('xrstor', 7))).toBe('13(0)');
    expect(registers(guest)).toBe(before);
  });

  it('need CR4.OSXSAVE and 64-byte alignment', () => {
    expect(Guest.long().fault(`xsave [${AREA}]`)).toBe('6');
    expect(Guest.long().fault('xgetbv')).toBe('6');
    expect(withXsave().fault(`xsave [${AREA + 16}]`)).toBe('13(0)');
  });

  it('check the whole area before they write', () => {
    const guest = withXsave();
    fill(guest);
    guest.machine.poke(AT.tables + 0x2000 + 8 * 8, 8, 0n); // 16 MiB and on is not mapped
    const at = 0x100_0000 - 0x200;
    expect(guest.fault(`mov eax, 7\n xor edx, edx\n mov ebx, ${at}\n xsave [rbx]`)).toBe('14(2)');
    expect(guest.field('cr2')).toBe(0n); // stopped before delivery
    expect(guest.machine.peek(at, 2)).toBe(0n);
  });

  it.each([
    [7, 'none'],
    [3, 'none'],
    [1, 'none'],
    [2, '13(0)'],
    [5, '13(0)'],
    [0x203, '13(0)'],
  ])('XSETBV of %i', (value, outcome) => {
    expect(withXsave().fault(`mov eax, ${value}\n xor edx, edx\n xor ecx, ecx\n xsetbv\n xgetbv\n hlt`)).toBe(
      outcome,
    );
  });
});

function resetX87(guest: Guest): void {
  expect(guest.fault('fninit\n hlt')).toBe('none');
}

describe('x87 control', () => {
  it('FNINIT, FLDCW, FNSTCW, FNSTSW, FNCLEX', () => {
    const guest = Guest.long();
    guest.cpu.setU16(STATE.fsw, 0x80ff);
    expect(
      guest.fault(
        `fnclex\n fnstsw ax\n fninit\n fnstcw [${AREA}]\n mov word [${AREA + 2}], 0x27f\n fldcw [${AREA + 2}]\n fnstcw [${AREA + 4}]\n hlt`,
      ),
    ).toBe('none');
    expect(guest.reg('rax') & 0xffffn).toBe(0n);
    expect(guest.words(AREA, 3, 2)).toEqual([0x37fn, 0x27fn, 0x27fn]);
  });
  it('FWAIT looks at MP and TS together, x87 instructions at TS or EM', () => {
    const guest = Guest.long();
    guest.cpu.setU64(STATE.cr0, 0x8001_0039n);
    expect(guest.fault('wait\n hlt')).toBe('none');
    expect(guest.fault('fninit\n hlt')).toBe('7');
    guest.cpu.setU64(STATE.cr0, 0x8001_003bn);
    expect(guest.fault('wait\n hlt')).toBe('7');
  });
});

describe('ports', () => {
  it('IN zero-extends 32 bits and keeps the rest below', () => {
    const guest = Guest.long();
    guest.machine.input = [0x12, 0x3456, 0x89ab_cdef];
    expect(
      guest.fault(
        'mov rax, -1\n in al, 0x60\n mov rbx, rax\n mov dx, 0x1234\n in ax, dx\n mov rcx, rax\n in eax, dx\n hlt',
      ),
    ).toBe('none');
    expect(guest.reg('rbx')).toBe(0xffff_ffff_ffff_ff12n);
    expect(guest.reg('rcx')).toBe(0xffff_ffff_ffff_3456n);
    expect(guest.reg('rax')).toBe(0x89ab_cdefn);
    expect(guest.machine.ports.map(({ port, size }) => [port, size])).toEqual([
      [0x60, 1],
      [0x1234, 2],
      [0x1234, 4],
    ]);
  });

  it.each([
    ['IOPL 3', 3, 0xff, 0x60, 'none'],
    ['a clear bit', 0, 0x00, 0x60, 'none'],
    ['a set bit', 0, 0x01, 0x60, '13(0)'],
    ['a set bit of another port', 0, 0x02, 0x60, 'none'],
  ])('at CPL 3 with %s', (_name, iopl, byte, port, outcome) => {
    const guest = Guest.long({ cpl: 3 });
    guest.cpu.rflags = iopl << 12;
    guest.machine.write(AT.tss + 0x68, new Uint8Array(0x2000));
    guest.machine.poke(AT.tss + 0x68 + port / 8, 1, byte);
    expect(guest.fault(`in al, ${port}\n mov ebx, 1\n hlt`)).toBe('13(0)'); // HLT at the latest
    expect(guest.reg('rbx')).toBe(outcome === 'none' ? 1n : 0n);
  });
  it('a wide access needs every bit, across bytes, inside the limit', () => {
    const guest = Guest.long({ cpl: 3 });
    guest.machine.write(AT.tss + 0x68, new Uint8Array(0x2000));
    guest.machine.poke(AT.tss + 0x68 + 0x41, 1, 1); // port 0x208
    const allowed = (source: string): boolean => {
      guest.cpu.setReg(3, 0n);
      guest.fault(`${source}\n mov ebx, 1\n hlt`);
      return guest.reg('rbx') === 1n;
    };
    expect(allowed('mov dx, 0x205\n in ax, dx')).toBe(true);
    expect(allowed('mov dx, 0x206\n in eax, dx')).toBe(false);
    expect(allowed('mov dx, 0xfff0\n in al, dx')).toBe(true);
    guest.cpu.setSegment(9, { ...guest.cpu.getSegment(9), limit: 0x67 + 0x20 });
    expect(allowed('mov dx, 0x100\n in al, dx')).toBe(false);
    expect(allowed('mov dx, 0xf0\n in al, dx')).toBe(true);
  });

  it('REP OUTS and REP INS go one by one, both ways', () => {
    const guest = Guest.long();
    guest.machine.write(AREA, [1, 2, 3, 4, 5, 6, 7, 8]);
    guest.machine.input = [0xa1, 0xa2, 0xa3];
    expect(
      guest.fault(
        `mov dx, 0xe0\n mov esi, ${AREA}\n mov ecx, 4\n rep outsw\n mov edi, ${AREA + 0x12}\n mov ecx, 3\n std\n rep insb\n hlt`,
      ),
    ).toBe('none');
    expect(guest.machine.ports.slice(0, 4).map((p) => p.value)).toEqual([0x201, 0x403, 0x605, 0x807]);
    expect(guest.machine.ports[0]!.instruction).toEqual({
      string: true,
      rep: true,
      addressSize: 8,
      segment: 3,
    });
    expect([...guest.machine.read(AREA + 0x10, 3)]).toEqual([0xa3, 0xa2, 0xa1]);
    expect(guest.reg('rsi')).toBe(BigInt(AREA) + 8n);
    expect(guest.reg('rdi')).toBe(BigInt(AREA) + 0xfn);
    expect(guest.reg('rcx')).toBe(0n);
  });
  it('a fault in the middle keeps what is done', () => {
    const guest = Guest.long();
    guest.machine.poke(AT.tables + 0x2000 + 8 * 8, 8, 0n);
    expect(guest.fault('mov edi, 0xfffffe\n mov ecx, 5\n rep insb')).toBe('14(2)');
    expect(guest.reg('rcx')).toBe(3n);
    expect(guest.reg('rdi')).toBe(0x100_0000n);
    expect(guest.machine.ports.length).toBe(2);
  });
  it('a count of zero touches nothing', () => {
    const guest = Guest.long();
    expect(guest.fault('xor ecx, ecx\n mov rdi, -1\n rep insb\n hlt')).toBe('none');
    expect(guest.machine.ports).toEqual([]);
  });
});

describe('interception', () => {
  it('is asked before anything happens', () => {
    const guest = Guest.long();
    for (const name of ['rdtsc', 'wbinvd', 'hlt', 'mov_dr7_write'])
      guest.machine.intercepted.set(name, () => {
        throw new GuestException(29, 0x72);
      });
    for (const source of ['rdtsc', 'wbinvd', 'hlt', 'mov eax, 0x400\n mov dr7, rax']) {
      expect(guest.fault(source)).toBe('29(114)');
    }
  });
  it('an exit that retires leaves rip behind the instruction, one that does not leaves it on it', () => {
    const guest = Guest.long();
    guest.machine.intercepted.set('wbinvd', () => {
      throw new VmExit('again', false);
    });
    const result = guest.go('nop\n wbinvd');
    expect([result.reason, result.retired, guest.cpu.rip]).toEqual(['exit', 1, BigInt(AT.code) + 1n]);
    const halted = guest.go('nop\n hlt');
    expect([halted.reason, halted.retired, guest.cpu.rip]).toEqual(['exit', 2, BigInt(AT.code) + 2n]);
  });
  it('VMMCALL, PVALIDATE and VMGEXIT are #UD where nobody answers; TLBSYNC and INVLPGB broadcast', () => {
    const guest = Guest.long();
    expect(guest.fault('vmmcall')).toBe('6');
    expect(guest.fault('pvalidate')).toBe('6');
    expect(guest.fault('vmgexit')).toBe('6');
    expect(guest.fault('invlpgb\n tlbsync\n hlt')).toBe('none');
    expect(guest.machine.broadcasts).toBe(1);
    expect(Guest.long({ cpl: 3 }).fault('pvalidate')).toBe('13(0)');
  });
});

describe('translations', () => {
  /** Maps 0x1000000 to `gpa` with a 2 MiB page. */
  const remap = (gpa: number): string => `mov qword [${AT.tables + 0x2000 + 64}], ${gpa | 0x87}`;
  it.each([
    ['INVLPG', 'invlpg [0x1000000]'],
    ['INVLPG of another part of the large page', 'invlpg [0x11ff000]'],
    ['a CR3 write', 'mov rax, cr3\n mov cr3, rax'],
    ['CR4.PGE', 'mov rax, cr4\n btc rax, 7\n mov cr4, rax'],
    ['INVPCID', `mov eax, 2\n invpcid rax, [${AREA}]`],
  ])('%s makes a new one visible', (_name, source) => {
    const guest = Guest.long();
    guest.machine.poke(0x40_0000, 4, 0x1111);
    guest.machine.poke(0x60_0000, 4, 0x2222);
    const code = `${remap(0x40_0000)}\n mov ebx, [0x1000000]\n ${remap(0x60_0000)}\n ${source}\n mov ecx, [0x1000000]\n hlt`;
    expect(guest.fault(code)).toBe('none');
    expect([guest.reg('rbx'), guest.reg('rcx')]).toEqual([0x1111n, 0x2222n]);
  });
  it('that were not present are never remembered', () => {
    const guest = Guest.long();
    guest.stopAtException = false;
    guest.gate(14, 0x9000);
    guest.load(`${remap(0x40_0000)}\n add rsp, 8\n iretq`, 0x9000);
    guest.machine.poke(AT.tables + 0x2000 + 64, 8, 0n);
    guest.machine.poke(0x40_0000, 4, 0x1111);
    guest.go('mov ebx, [0x1000000]\n hlt');
    expect(guest.reg('rbx')).toBe(0x1111n);
  });
  it('INVPCID checks its descriptor', () => {
    const guest = Guest.long();
    expect(guest.fault(`mov eax, 4\n invpcid rax, [${AREA}]`)).toBe('13(0)');
    guest.machine.poke(AREA, 8, 1);
    expect(guest.fault(`mov eax, 1\n invpcid rax, [${AREA}]`)).toBe('13(0)');
    guest.machine.poke(AREA, 8, 0);
    guest.machine.poke(AREA + 8, 8, 1n << 47n);
    expect(guest.fault(`mov eax, 0\n invpcid rax, [${AREA}]`)).toBe('13(0)');
  });
});

describe('identification', () => {
  it('CPUID asks by leaf and subleaf, and clears the upper halves', () => {
    const guest = Guest.long();
    guest.machine.leaves.set('13.1', [0xffff_ffff, 2, 3, 4]);
    expect(
      guest.fault(
        'mov rax, 0xabcdef000000000d\n mov rcx, 0x123400000001\n mov rbx, -1\n mov rdx, -1\n cpuid\n hlt',
      ),
    ).toBe('none');
    expect(['rax', 'rbx', 'rcx', 'rdx'].map((name) => guest.reg(name))).toEqual([0xffff_ffffn, 2n, 3n, 4n]);
  });
  it('RDTSC is restricted by CR4.TSD', () => {
    const guest = Guest.long({ cpl: 3 });
    expect(guest.fault('rdtsc\n mov ebx, eax\n rdtscp\n hlt')).toBe('13(0)');
    expect(guest.reg('rax')).toBeGreaterThan(guest.reg('rbx'));
    guest.cpu.setU64(STATE.cr4, 0x6a4n);
    guest.cpu.setReg(0, 0n);
    expect(guest.fault('rdtsc\n mov ebx, 5')).toBe('13(0)');
    expect(guest.reg('rax')).toBe(0n);
  });
  it('RDRAND sets CF and clears the others', () => {
    const guest = Guest.long();
    guest.cpu.rflags = FLAG.ZF | FLAG.OF | FLAG.SF;
    expect(guest.fault('rdrand rax\n pushfq\n pop rbx\n mov rcx, -1\n rdseed ecx\n hlt')).toBe('none');
    expect(guest.reg('rbx')).toBe(3n);
    expect(guest.reg('rcx') >> 32n).toBe(0n);
  });
  it('RDSSP is a NOP without shadow stacks, other CET instructions are #UD', () => {
    const guest = Guest.long();
    expect(guest.fault('mov rax, 5\n rdsspq rax\n hlt')).toBe('none');
    expect(guest.reg('rax')).toBe(5n);
    expect(guest.fault('incsspq rax')).toBe('6');
    guest.cpu.setU64(STATE.cr4, 0x80_06a0n);
    expect(guest.fault('incsspq rax')).toBe('6');
    expect(guest.fault('mov ecx, 0x6a2\n mov eax, 1\n xor edx, edx\n wrmsr')).toMatch(
      /not implemented: shadow/,
    );
    guest.cpu.setU64(STATE.sCet, 1n);
    expect(guest.fault('incsspq rax')).toMatch(/not implemented: shadow stacks/);
  });
  it('what is not implemented says its bytes', () => {
    expect(Guest.long().fault('fsin')).toMatch(/not implemented: the instruction .*d9 fe/);
  });
});

describe('reset', () => {
  // APM vol. 2, table 14-1.
  it('leaves the state of the manual', () => {
    const guest = new Guest();
    const { cpu } = guest;
    fill(guest);
    cpu.setU64(STATE.lstar, 5n);
    resetProcessor(cpu);
    expect(cpu.rip).toBe(0xfff0n);
    expect(cpu.rflags).toBe(2);
    expect(guest.field('cr0')).toBe(0x6000_0010n);
    expect(cpu.getSegment(1)).toEqual({
      selector: 0xf000,
      attributes: 0x9b,
      limit: 0xffff,
      base: 0xffff_0000n,
    });
    expect(cpu.getSegment(3)).toEqual({ selector: 0, attributes: 0x93, limit: 0xffff, base: 0n });
    expect(guest.field('dr6')).toBe(0xffff_0ff0n);
    expect(guest.field('dr7')).toBe(0x400n);
    expect(guest.field('pat')).toBe(0x0007_0406_0007_0406n);
    expect(guest.field('xcr0')).toBe(1n);
    expect(guest.field('lstar')).toBe(0n);
    expect(cpu.u32(STATE.mxcsr)).toBe(0x1f80);
    expect(cpu.u16(STATE.fcw)).toBe(0x40);
  });
  it('INIT keeps caches, MSRs and vector state', () => {
    const guest = Guest.long();
    const { cpu } = guest;
    fill(guest);
    cpu.setU64(STATE.lstar, 5n);
    cpu.setU64(STATE.cr0, 0x4001_0033n);
    resetProcessor(cpu, 'init');
    expect(guest.field('cr0')).toBe(0x4000_0010n);
    expect(guest.field('lstar')).toBe(5n);
    expect(cpu.u64(STATE.ymm)).toBe(0x1000n);
    expect(cpu.u16(STATE.fcw)).toBe(0x27f);
    expect(cpu.longMode).toBe(false);
    expect(guest.bits).toBe(16);
  });
});
