/** The plain machine, by guests that use its devices as their data sheets say. */
import { describe, expect, it } from 'vitest';
import { createPlainMachine } from '../../../src/vmm/plain/index.ts';
import { assemble } from '../../x86/support/assemble.ts';
import { PIC, PIT, POWER_OFF, kernel, run } from './guest.ts';

/** Counts timer interrupts in ebx; the eighth powers off. */
const TICKS = `
  irq 0x20 tick
  ${PIC(1)}
  ${PIT(1000)}
  xor ebx, ebx
  sti
wait:
  hlt
  cmp ebx, 8
  jne wait
  ${POWER_OFF}
tick:
  push eax
  push edx
  print '.'
  inc ebx
  out8 0x20 0x20
  pop edx
  pop eax
  iretd
`;

const APIC = 0xfee0_0000;
const IO_APIC = 0xfec0_0000;
const SPURIOUS_ON = `mov dword [${APIC + 0xf0}], 0x1ff`;

describe('a kernel started by Multiboot', () => {
  it('takes timer interrupts of the 8254 through the 8259 and powers off through ACPI', () => {
    const { stop, text, machine } = run(TICKS);
    expect(stop).toMatchObject({ reason: 'exit', exitCode: 0, final: true });
    expect(text).toBe('........');
    // Halted between ticks: idle time costs no instructions.
    expect(machine.retired).toBeLessThan(1000);
  });

  it('runs the same however it is sliced and stepped', () => {
    const whole = run(TICKS);
    for (const slice of [1, 7, 100]) {
      const cut = run(TICKS, { slice });
      expect(cut.machine.retired).toBe(whole.machine.retired);
      expect(cut.text).toBe(whole.text);
      expect(cut.stop.rip).toBe(whole.stop.rip);
    }
    const machine = createPlainMachine({ kernel: kernel(TICKS), vcpus: 1, memory: 16 << 20 });
    // A halted processor cannot be stepped: run to its wake-up.
    for (let i = 0; i < 2000 && !machine.ended; i++)
      if (machine.stepInstruction().reason === 'idle') machine.run(1);
    expect(machine.retired).toBe(whole.machine.retired);
  });

  it('interrupts code that never halts, at the same instruction in every tier', () => {
    const body = TICKS.replace('hlt\n  cmp ebx, 8', 'inc ecx\n  cmp ebx, 8');
    const compiled = run(body);
    const interpreted = run(body, { heat: 0 });
    expect(compiled.stop.reason).toBe('exit');
    // Seven periods of 1 ms behind the first interrupt, of 4 ns an instruction.
    expect(compiled.machine.retired).toBeGreaterThan(1_749_000);
    expect(compiled.machine.retired).toBeLessThan(2_001_000);
    expect(interpreted.machine.retired).toBe(compiled.machine.retired);
    expect(interpreted.machine.current.cpu.reg(1)).toBe(compiled.machine.current.cpu.reg(1));
  });

  it('delivers a pending interrupt behind the instruction that follows STI', () => {
    const { text } = run(`
      irq 0x20 tick
      ${PIC(1)}
      ${PIT(10_000)}
      mov ecx, 200000
spin:
      dec ecx
      jnz spin
      sti
      print 'a'
      ${POWER_OFF}
tick:
      print 't'
      ${POWER_OFF}
    `);
    // `print` begins with one PUSH, which the shadow of STI covers.
    expect(text).toBe('t');
  });

  it('has the registers and the information Multiboot promises', () => {
    const { machine, stop } = run(
      `
      mov esi, eax
      mov ecx, [ebx]
      mov edi, [ebx + 16]
      mov edx, [ebx + 8]
      ${POWER_OFF}`.replace('mov dx, 0x604', 'mov ebp, edx\n mov dx, 0x604'),
      { commandLine: 'one two', initrd: Uint8Array.of(1, 2, 3) },
    );
    expect(stop.reason).toBe('exit');
    const { cpu } = machine.current;
    expect(cpu.reg(6)).toBe(0x2bad_b002n);
    expect(cpu.reg(1)).toBe(0x24dn);
    expect(cpu.reg(5)).toBe(15n * 1024n);
    const line = machine.readPhysical(cpu.reg(7), 15, 'private').bytes;
    expect(new TextDecoder().decode(line)).toBe('kernel one two\0');
    const info = Number(cpu.reg(3));
    const word = (at: number): number =>
      new DataView(machine.readPhysical(BigInt(at), 4, 'shared').bytes.buffer).getUint32(0, true);
    const module = word(info + 24);
    expect(word(module + 4) - word(module)).toBe(3);
    expect([...machine.readPhysical(BigInt(word(module)), 3, 'private').bytes]).toEqual([1, 2, 3]);
  });
});

describe('the APICs', () => {
  it('time: one shot, periodic and deadline', () => {
    const timer = (setup: string): string => `
      irq 0x50 tick
      out8 0x21 0xff
      ${SPURIOUS_ON}
      mov dword [${APIC + 0x3e0}], 0xb
      xor ebx, ebx
      sti
      ${setup}
wait:
      hlt
      jmp wait
tick:
      print 't'
      mov dword [${APIC + 0xb0}], 0
      inc ebx
      cmp ebx, 3
      je done
      iretd
done:
      ${POWER_OFF}
    `;
    const set = (lvt: number, count: number): string => `
      mov dword [${APIC + 0x320}], ${lvt}
      mov dword [${APIC + 0x380}], ${count}`;
    expect(run(timer(set(0x2_0050, 100_000))).text).toBe('ttt');
    const once = run(timer(set(0x50, 100_000)));
    expect(once.text).toBe('t');
    expect(once.stop.reason).toBe('idle');
    const deadline = run(
      timer(`
        mov dword [${APIC + 0x320}], 0x40050
        rdtsc
        add eax, 1000000
        adc edx, 0
        mov ecx, 0x6e0
        wrmsr`),
    );
    expect(deadline.text).toBe('t');
    expect(deadline.stop.reason).toBe('idle');
  });

  it('count down at one tick a nanosecond, divided', () => {
    const { machine } = run(`
      ${SPURIOUS_ON}
      mov dword [${APIC + 0x3e0}], 0x3
      mov dword [${APIC + 0x380}], 0x100000
      mov ecx, 400000
spin:
      dec ecx
      jnz spin
      mov edi, [${APIC + 0x390}]
      ${POWER_OFF}
    `);
    // 800,000 instructions of 4 ns at a division by 16.
    expect(0x10_0000 - Number(machine.current.cpu.reg(7))).toBeCloseTo(200_000, -2);
  });

  it('route an ISA line through the I/O APIC: IRQ 0 is pin 2', () => {
    const { stop, text } = run(`
      irq 0x60 tick
      out8 0x21 0xff
      ${SPURIOUS_ON}
      mov dword [${IO_APIC}], 0x14
      mov dword [${IO_APIC + 0x10}], 0x60
      ${PIT(1000)}
      sti
wait:
      hlt
      jmp wait
tick:
      print 'i'
      ${POWER_OFF}
    `);
    expect(text).toBe('i');
    expect(stop.reason).toBe('exit');
  });

  it('deliver by priority, and after EOI what waited', () => {
    const { text } = run(`
      irq 0x50 low
      irq 0x90 high
      out8 0x21 0xff
      ${SPURIOUS_ON}
      mov dword [${APIC + 0x300}], 0x40050
      mov dword [${APIC + 0x300}], 0x40090
      sti
      nop
      nop
      ${POWER_OFF}
high:
      print 'h'
      sti
      nop
      nop
      print 'H'
      mov dword [${APIC + 0xb0}], 0
      iretd
low:
      print 'l'
      mov dword [${APIC + 0xb0}], 0
      iretd
    `);
    expect(text).toBe('hHl');
  });

  it('hold back what CR8 masks', () => {
    const { text } = run(`
      irq 0x50 low
      out8 0x21 0xff
      ${SPURIOUS_ON}
      mov dword [${APIC + 0x80}], 0x50
      mov dword [${APIC + 0x300}], 0x40050
      sti
      nop
      nop
      print 'm'
      mov dword [${APIC + 0x80}], 0x40
      nop
      print 'n'
      ${POWER_OFF}
low:
      print 'l'
      mov dword [${APIC + 0xb0}], 0
      iretd
    `);
    expect(text).toBe('mln');
  });

  it('start a second processor by INIT and startup IPIs', () => {
    const start = assemble(
      'bits 16\n mov ax, 0\n mov ds, ax\n inc byte [0x6000]\n cli\n hlt',
      0x9000,
      16,
    ).bytes;
    const copy = [...start].map((byte, i) => `mov byte [${0x9000 + i}], ${byte}`).join('\n');
    const { machine, stop, text } = run(
      `
      ${SPURIOUS_ON}
      ${copy}
      mov dword [${APIC + 0x310}], 0x1000000
      mov dword [${APIC + 0x300}], 0x4500
      mov dword [${APIC + 0x300}], 0x4609
wait:
      pause
      cmp byte [0x6000], 0
      je wait
      print 's'
      ${POWER_OFF}
    `,
      { vcpus: 2 },
    );
    expect(text).toBe('s');
    expect(stop.reason).toBe('exit');
    expect(machine.threads.map(({ name }) => name)).toEqual(['vCPU 0', 'vCPU 1']);
  });
});

describe('other devices', () => {
  it('raise IRQ 4 when the transmitter of COM1 is empty', () => {
    const { text } = run(`
      irq 0x24 serial
      ${PIC(0x10)}
      out8 0x3fc 0x0b
      mov ebx, 3
      sti
      out8 0x3f9 0x02
wait:
      hlt
      jmp wait
serial:
      mov dx, 0x3fa
      in al, dx
      test ebx, ebx
      jz done
      dec ebx
      out8 0x3f8 'x'
      out8 0x20 0x20
      iretd
done:
      ${POWER_OFF}
    `);
    expect(text).toBe('xxx');
  });

  it('hand input to the guest by interrupt', () => {
    let text = '';
    const machine = createPlainMachine({
      kernel: kernel(`
        irq 0x24 serial
        ${PIC(0x10)}
        out8 0x3fc 0x0b
        out8 0x3f9 0x01
        sti
wait:
        hlt
        jmp wait
serial:
        ; The line is edge triggered: all of it, or no more interrupts.
        mov dx, 0x3f8
        in al, dx
        out dx, al
        mov dx, 0x3fd
        in al, dx
        test al, 1
        jnz serial
        out8 0x20 0x20
        iretd
      `),
      vcpus: 1,
      memory: 16 << 20,
      onConsole: (_port, bytes) => (text += new TextDecoder().decode(bytes)),
    });
    expect(machine.run(100_000).reason).toBe('idle');
    machine.input(0x3f8, new TextEncoder().encode('ok'));
    expect(machine.run(100_000).reason).toBe('idle');
    expect(text).toBe('ok');
  });

  it('measure 10 ms by channel 2 of the 8254 as by the time-stamp counter and the ACPI timer', () => {
    const { machine } = run(`
      out8 0x61 0x01
      out8 0x43 0xb0
      out8 0x42 ${11932 & 0xff}
      out8 0x42 ${11932 >> 8}
      rdtsc
      mov esi, eax
      mov dx, 0x608
      in eax, dx
      mov ebx, eax
wait:
      in al, 0x61
      test al, 0x20
      jz wait
      rdtsc
      sub eax, esi
      mov esi, eax
      mov dx, 0x608
      in eax, dx
      sub eax, ebx
      mov ebx, eax
      ${POWER_OFF}
    `);
    const { cpu } = machine.current;
    expect(Number(cpu.reg(6)) / 1e7).toBeCloseTo(1, 3);
    expect(Number(cpu.reg(3)) / 35_795).toBeCloseTo(1, 3);
  });

  it('tell a fixed date', () => {
    const read = (index: number): string => `
      out8 0x70 ${index}
      in al, 0x71
      mov [0x6000 + ${index}], al`;
    const { machine } = run([9, 8, 7, 6, 4, 2, 0].map(read).join('\n') + POWER_OFF);
    const bytes = machine.readPhysical(0x6000n, 10, 'private').bytes;
    expect([9, 8, 7, 6, 4, 2, 0].map((i) => bytes[i])).toEqual([0x24, 1, 1, 2, 0, 0, 0]);
  });

  it('end the machine: reset, test exit, a triple fault', () => {
    expect(run('out8 0xcf9 0x06').stop.reason).toBe('shutdown');
    expect(run('out8 0x64 0xfe').stop.reason).toBe('shutdown');
    expect(run('out8 0xf4 0x10').stop).toMatchObject({ reason: 'exit', exitCode: 0x21 });
    expect(run('lidt [nothing]\nint 3\nnothing: dd 0, 0').stop.reason).toBe('shutdown');
    expect(run('cli\nhlt').stop.reason).toBe('idle');
  });

  it('read as ones where nobody is: ports, PCI, addresses', () => {
    const { machine } = run(`
      mov dx, 0x300
      in al, dx
      movzx ebx, al
      mov dx, 0xcf8
      mov eax, 0x80000000
      out dx, eax
      mov dx, 0xcfc
      in eax, dx
      mov esi, eax
      mov edi, [0xd0000000]
      ${POWER_OFF}
    `);
    const { cpu } = machine.current;
    expect([cpu.reg(3), cpu.reg(6), cpu.reg(7)]).toEqual([0xffn, 0xffff_ffffn, 0xffff_ffffn]);
  });

  it('fault on an MSR that is not there', () => {
    const { text } = run(`
      irq 13 gp
      mov ecx, 0x12345
      rdmsr
      ${POWER_OFF}
gp:
      print 'g'
      ${POWER_OFF}
    `);
    expect(text).toBe('g');
  });
});

describe('kernels that cannot be started', () => {
  const start = (file: Uint8Array, memory = 16 << 20): void => {
    createPlainMachine({ kernel: file, vcpus: 1, memory });
  };
  it('are refused by name', () => {
    expect(() => start(new Uint8Array(100))).toThrow(/no Linux bzImage, no Multiboot header/);
    expect(() =>
      start(Uint8Array.from({ length: 600 }, (_, i) => [0x7f, 0x45, 0x4c, 0x46, 2, 1][i] ?? 0)),
    ).toThrow(/no kernel that can be started/);
    const image = kernel('hlt');
    new DataView(image.buffer, image.byteOffset).setUint32(20, 0x7000_0000, true);
    expect(() => start(image)).toThrow(/outside the file/);
    const far = kernel('hlt');
    const view = new DataView(far.buffer, far.byteOffset);
    for (const at of [12, 16]) view.setUint32(at, 0x4000_0000, true);
    expect(() => start(far)).toThrow(/do not fit into the guest's memory/);
  });
});
