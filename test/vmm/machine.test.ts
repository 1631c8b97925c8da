/** The machine as a whole: #VC, nested faults, VMPLs, vCPUs, the schedule, and the debugger's interface. */
import { describe, expect, it } from 'vitest';
import { assemble } from '../x86/support/assemble.ts';
import { readVmsa } from '../../src/snp/index.ts';
import type { Machine } from '../../src/vmm/index.ts';
import {
  AT,
  GHCB_GPA,
  SHARED_VIEW,
  guestImage,
  longModeVmsa,
  machineOf,
  msrProtocol,
  nae,
  reg,
  run,
  setUpGhcb,
} from './guest.ts';

const done = (machine: Machine, limit = 100_000): void => {
  const stop = machine.run(limit);
  expect(stop, stop.message).toMatchObject({ reason: 'idle' });
};

describe('#VC (APM vol. 2, §15.35.5)', () => {
  it.each([
    ['cpuid', 0x72],
    ['in al, dx', 0x7b],
    ['out 0x80, al', 0x7b],
    ['mov ecx, 0x1b\n rdmsr', 0x7c],
    ['mov ecx, 0x1b\n wrmsr', 0x7c],
    ['wbinvd', 0x89],
    ['monitor', 0x8a],
    ['mwait', 0x8b],
    ['vmmcall', 0x81],
    ['mov rax, dr7', 0x27],
    ['mov dr7, rax', 0x37],
    [`mov rax, qword [${AT.free}]`, 0x404],
    [`mov rax, ${SHARED_VIEW + 0x3000_0000}\n mov rax, qword [rax]`, 0x400],
  ])('%s: error code %i', (instruction, code) => {
    const { machine } = run(`${instruction}\n hlt\n vc: pop rbx\n mov rcx, qword [rsp]\n hlt`, {
      handlers: { 29: 'vc' },
    });
    done(machine);
    expect(reg(machine, 'rbx')).toBe(BigInt(code));
  });
  it('DebugSwap leaves DR7 to the guest; RDTSC and RDRAND are not intercepted', () => {
    const code =
      'mov rax, 0x500\n mov dr7, rax\n mov rbx, dr7\n rdtsc\n mov r8, rax\n rdtsc\n mov r9, rax\n rdrand r10\n hlt';
    const { machine } = run(code, { vmsa: { sev_features: 0x21n } });
    done(machine);
    expect(reg(machine, 'rbx')).toBe(0x500n);
    expect(reg(machine, 'r9')).toBeGreaterThan(reg(machine, 'r8'));
    expect(reg(machine, 'r10')).not.toBe(0n);
  });
  it('SEV_STATUS is SEV_FEATURES moved by two, with SEV and SEV-ES', () => {
    const { machine } = run('mov ecx, 0xc0010131\n rdmsr\n hlt', { vmsa: { sev_features: 0x29n } });
    done(machine);
    expect(reg(machine, 'rax')).toBe(0xa7n);
  });
});

describe('validating memory', () => {
  const validate = (linear: number, size: number, on = 1): string =>
    `mov rax, ${linear}\n mov ecx, ${size}\n mov edx, ${on}\n pvalidate\n`;

  it('a 2 MiB page that was never touched can be validated as one', () => {
    const { machine } = run(
      `${validate(AT.free, 1)} setc bl\n mov r8, rax\n ${validate(AT.free, 1)} setc bh\n mov r9, rax\n hlt`,
    );
    done(machine);
    expect([reg(machine, 'r8'), reg(machine, 'r9'), reg(machine, 'rbx')]).toEqual([0n, 0n, 0x100n]);
    expect(machine.rmp.entry(BigInt(AT.free) + 0x1f_f000n)).toMatchObject({
      validated: true,
      pageSize: 0x20_0000,
    });
  });
  it('4 KiB of it afterwards split it without the guest noticing', () => {
    const { machine } = run(
      `${validate(AT.free, 1)} ${validate(AT.free + 0x3000, 0, 0)} setc bl\n mov r8, rax\n hlt`,
    );
    done(machine);
    expect([reg(machine, 'r8'), reg(machine, 'rbx')]).toEqual([0n, 0n]);
    expect(machine.rmp.entry(BigInt(AT.free) + 0x3000n)).toMatchObject({ validated: false, pageSize: 4096 });
    expect(machine.rmp.entry(BigInt(AT.free) + 0x4000n)).toMatchObject({ validated: true, pageSize: 4096 });
  });
  it('on a host with 4 KiB pages only, 2 MiB give FAIL_SIZEMISMATCH', () => {
    const { machine } = run(`${validate(AT.free, 1)} mov r8, rax\n hlt`, { machine: { largePages: false } });
    done(machine);
    expect(reg(machine, 'r8')).toBe(6n);
  });
  it('sets ZF by the result, and faults outside CPL 0', () => {
    const { machine } = run(
      `${validate(AT.free, 0)} setz bl\n ${validate(AT.free, 3)} setz bh\n mov r8, rax\n hlt`,
    );
    done(machine);
    expect([reg(machine, 'rbx'), reg(machine, 'r8')]).toEqual([1n, 1n]);
  });
  it('an invalidated page is not reached through a translation that was cached', () => {
    const code = `${validate(AT.free, 0)} mov rbx, ${AT.free}\n mov qword [rbx], 7\n mov r8, qword [rbx]
      ${validate(AT.free, 0, 0)} mov r9, qword [rbx]\n hlt\n vc: pop r10\n hlt`;
    const { machine } = run(code, { handlers: { 29: 'vc' } });
    done(machine);
    expect([reg(machine, 'r8'), reg(machine, 'r10')]).toEqual([7n, 0x404n]);
  });
  it('RMPQUERY is #UD on a processor without it', () => {
    const { machine } = run('rmpquery\n hlt\n ud: mov ebx, 1\n hlt', { handlers: { 6: 'ud' } });
    done(machine);
    expect(reg(machine, 'rbx')).toBe(1n);
  });
});

describe('accesses the host must resolve', () => {
  it('a shared access to a private page converts it, as QEMU does, and says so', () => {
    const { machine, events } = run(
      `mov rbx, ${SHARED_VIEW + AT.free}\n mov qword [rbx], 5\n mov rcx, qword [rbx]\n hlt`,
    );
    done(machine);
    expect(reg(machine, 'rcx')).toBe(5n);
    expect(machine.rmp.entry(BigInt(AT.free))).toMatchObject({ assigned: false, hasShared: true });
    expect(events.find(({ kind }) => kind === 'npf')?.text).toMatch(
      /shared write at gpa 0x400000.*makes it shared/,
    );
  });
  it('a private access beyond memory stops the machine', () => {
    const { machine } = run('mov rax, qword [0x30000000]\n hlt');
    const stop = machine.run(100);
    expect(stop).toMatchObject({ reason: 'error', final: true });
    expect(stop.message).toMatch(/0x30000000.*no memory/);
    expect(stop.rip).toBe(BigInt(AT.code));
  });
  it('an exception without a handler is a triple fault', () => {
    const stop = run('ud2').machine.run(100);
    expect(stop).toMatchObject({ reason: 'shutdown', final: true });
  });
});

/**
 * VMPL0 makes a VMSA for `vmpl` from its own template at `VMSA_PAGE` and registers it for the vCPU of `apicId`.
 * The template is put there by the test through the debugger.
 */
const VMSA_PAGE = 0x40_1000;
const prepare = (vmpl: number, permissions = 0xf): string => `
  ${setUpGhcb}
  mov rax, ${AT.free}
  mov ecx, 1
  mov edx, 1
  pvalidate
  ; the lower VMPL may use the code page, its tables, its stack and the descriptor tables
  ${[AT.code, AT.pml4, AT.pdpt, AT.privateDirectory, AT.sharedDirectory, 0x7000, AT.idt, AT.gdt]
    .map((gpa) => `mov rax, ${gpa}\n xor ecx, ecx\n mov edx, ${(permissions << 8) | vmpl}\n rmpadjust`)
    .join('\n')}
  ; a copy of the template
  mov rsi, 0x20000
  mov rdi, ${VMSA_PAGE}
  mov ecx, 512
  cld
  rep movsq
  mov rax, ${VMSA_PAGE}
  xor ecx, ecx
  mov edx, ${0x1_0100 | vmpl}
  rmpadjust
  mov r11, rax
`;
const withTemplate = (vmsa: Uint8Array) => ({
  build: (builder: { page(gpa: bigint, mask: number, data: Uint8Array): unknown }) =>
    void builder.page(0x2_0000n, 1, vmsa),
});
const create = (kind: number, vmpl: number, apicId: number, gpa = VMSA_PAGE, features = 1n): string =>
  nae(0x8000_0013, BigInt(kind) | (BigInt(vmpl) << 16n) | (BigInt(apicId) << 32n), BigInt(gpa), {
    rax: features,
  });

describe('VMPLs', () => {
  const label = (code: string, name: string): number => Number(guestLabels(code).get(name)!);

  it('runs a lower VMPL and comes back: registers travel by the VMSA, the MSR is per VMPL', () => {
    const body = (target: number): string => `${prepare(2)}
      ${create(0, 2, 0)}
      mov ebx, 0x11
      ${msrProtocol((2n << 32n) | 0x16n)}
      mov r8, rax
      hlt
      guest: mov ebx, 0x22
      ${msrProtocol(0x16n)}
      mov ebx, 0x33
      hlt
      db ${target & 0xff}`;
    const rip = label(body(0), 'guest');
    const { machine, events } = machineOf(guestImage(body(0), withTemplate(lower(rip, 2))));
    done(machine);
    expect(machine.threads.map(({ name, state, active }) => [name, state, active])).toEqual([
      ['vCPU 0 · VMPL0', 'halted', true],
      ['vCPU 0 · VMPL2', 'runnable', false],
    ]);
    expect([reg(machine, 'rbx'), reg(machine, 'r8')]).toEqual([0x11n, 0x17n]);
    const saved = machine.vmsa(machine.threads[1]!);
    expect([readVmsa(saved, 'rbx'), readVmsa(saved, 'guest_exit_code'), readVmsa(saved, 'vmpl')]).toEqual([
      0x22n,
      0x403n,
      2n,
    ]);
    expect(events.filter(({ kind }) => kind === 'vmpl-switch').map(({ vmpl }) => vmpl)).toEqual([2, 0]);
  });

  it('is also entered by a GHCB event', () => {
    const code = `${prepare(2)}\n${create(0, 2, 0)}\n${nae(0x8000_0018, 2n, 0n)}\n hlt\n guest: mov ebx, 0x22\n hlt`;
    const { machine } = machineOf(guestImage(code, withTemplate(lower(label(code, 'guest'), 2))));
    done(machine);
    expect([machine.current.vmpl, reg(machine, 'rbx')]).toEqual([2, 0x22n]);
  });

  it('a VMSA with SVME clear is not run', () => {
    const code = `${prepare(2)}\n${create(0, 2, 0)}\n${msrProtocol((2n << 32n) | 0x16n)}\n hlt`;
    const { machine } = machineOf(guestImage(code, withTemplate(lower(0, 2, { efer: 0xd00n }))));
    expect(machine.run(100_000).message).toMatch(/VMEXIT_INVALID: efer 0xd00 has SVME clear/);
  });

  it('a VMPL without permission stops with what it tried', () => {
    const code = `${prepare(2, 0xd)}\n${create(0, 2, 0)}\n${msrProtocol((2n << 32n) | 0x16n)}\n hlt
      guest: push rax\n hlt`;
    const rip = label(code, 'guest');
    const { machine } = machineOf(guestImage(code, withTemplate(lower(rip, 2))));
    const stop = machine.run(100_000);
    expect(stop).toMatchObject({ reason: 'error', thread: { vmpl: 2 } });
    expect(stop.message).toMatch(/private write at gpa 0x7000.*VMPL2 may not write/);
  });

  it('PVALIDATE is #GP(0) below VMPL0', () => {
    const code = `${prepare(1)}\n${create(0, 1, 0)}\n${msrProtocol((1n << 32n) | 0x16n)}\n hlt
      guest: pvalidate\n hlt
      gp: mov ebx, 0x99\n hlt`;
    const rip = label(code, 'guest');
    const image = guestImage(code, { ...withTemplate(lower(rip, 1)), handlers: { 13: 'gp' } });
    const { machine } = machineOf(image);
    done(machine);
    expect(machine.current.name).toBe('vCPU 0 · VMPL1');
    expect(reg(machine, 'rbx')).toBe(0x99n);
  });
});

const guestLabels = (code: string): ReadonlyMap<string, bigint> => assemble(code, AT.code).labels;
const lower = (rip: number, vmpl: number, changes: Record<string, bigint> = {}): Uint8Array =>
  longModeVmsa(rip, { vmpl: BigInt(vmpl), rsp: 0x7800n, ...changes });

describe('AP creation', () => {
  const two = { vcpus: 2 };
  it('starts the second vCPU from a VMSA; both run in turn', () => {
    const code = `${prepare(1)}
      ${create(1, 0, 1)}
      mov rbx, ${AT.gdt + 0x800}
      wait: cmp dword [rbx], 0x77
      jne wait
      hlt
      ap: mov rbx, ${AT.gdt + 0x800}
      mov dword [rbx], 0x77
      hlt`;
    const rip = Number(guestLabels(code).get('ap')!);
    const { machine } = machineOf(guestImage(code, withTemplate(lower(rip, 0))), two);
    done(machine);
    expect(machine.threads.map(({ name, state }) => [name, state])).toEqual([
      ['vCPU 0 · VMPL0', 'halted'],
      ['vCPU 1 · VMPL0', 'halted'],
    ]);
  });

  const refused = (request: string): readonly bigint[] => {
    const code = `${prepare(1)}\n${request}\n hlt`;
    const { machine } = machineOf(guestImage(code, withTemplate(lower(0, 1))), two);
    done(machine);
    const view = new DataView(machine.readPhysical(BigInt(GHCB_GPA), 4096, 'shared').bytes.buffer);
    return [view.getBigUint64(0x398, true), view.getBigUint64(0x3a0, true)];
  };
  it.each([
    ['a vCPU that does not exist', create(1, 0, 9)],
    ['VMPL 4', create(1, 4, 1)],
    ['a page that is no VMSA', create(1, 0, 1, AT.code)],
    ['a VMSA on a 2 MiB boundary', create(1, 0, 1, AT.free)],
    ['other SEV features than the VMSA has', create(1, 1, 1, VMSA_PAGE, 0x21n)],
    ['an unknown request', create(7, 1, 1)],
  ])('refuses %s', (_what, request) => expect(refused(request)).toEqual([2n, 5n]));
  it('wants the features in RAX', () => {
    expect(refused(nae(0x8000_0013, 1n | (1n << 32n), BigInt(VMSA_PAGE)))).toEqual([2n, 4n]);
  });
});

describe('interrupts', () => {
  const ipi = (icr: bigint): string => nae(0x8000_0015, icr, 0n);
  it('an IPI to itself wakes a guest without doorbell through its IDT when IF is set', () => {
    const code = `${setUpGhcb}\n${ipi(0x4_0050n)}\n sti\n hlt\n cli\n hlt\n irq: mov ebx, 0x50\n iretq`;
    const { machine } = run(code, { handlers: { 0x50: 'irq' } });
    done(machine);
    expect(reg(machine, 'rbx')).toBe(0x50n);
  });
  it('an interrupt that waits for IF comes at the first boundary that allows it, whatever the slices', () => {
    const code = `${setUpGhcb}\n${ipi(0x4_0050n)}\n xor ebx, ebx\n nop\n inc ebx\n sti\n inc ebx\n inc ebx\n hlt
      irq: mov r8, rbx\n hlt`;
    for (const slice of [1, 3, 100_000]) {
      const { machine } = run(code, { handlers: { 0x50: 'irq' } });
      for (let stop = machine.run(slice); stop.reason === 'budget';) stop = machine.run(slice);
      // The instruction behind STI still runs.
      expect(reg(machine, 'r8')).toBe(2n);
    }
  });
  it('a second vector waits behind the first until the guest ends that one', () => {
    const doorbell = 0x61_0000;
    const code = `${setUpGhcb}
      ${msrProtocol((2n << 52n) | BigInt(doorbell) | 0x14n)}
      ${nae(0x8000_0014, 1n, BigInt(doorbell))}
      mov rbx, ${SHARED_VIEW + doorbell}
      ${ipi(0x4_0050n)}
      hlt
      hv: ${ipi(0x4_0040n)}
      mov r8d, dword [rbx]
      xor eax, eax
      xchg byte [rbx], al
      mov r9, rax
      ${nae(0x7c, 1n, 0n, { rcx: 0x80bn, rax: 0n, rdx: 0n })}
      mov r10d, dword [rbx]
      hlt`;
    const { machine } = run(code, { handlers: { 28: 'hv' }, vmsa: { sev_features: 9n } });
    done(machine);
    // 0x50 shown and an EOI required for the sake of 0x40; after the EOI 0x40, and none required.
    expect([reg(machine, 'r8'), reg(machine, 'r9'), reg(machine, 'r10')]).toEqual([
      0x8050n,
      0x50n,
      0x01_8040n,
    ]);
  });
  it('restricted injection without a doorbell: nothing comes, the guest stays halted', () => {
    const code = `${setUpGhcb}\n${ipi(0x4_0050n)}\n sti\n hlt\n irq: mov ebx, 1\n hlt`;
    const { machine } = run(code, { handlers: { 0x50: 'irq' }, vmsa: { sev_features: 9n } });
    done(machine);
    expect(reg(machine, 'rbx')).toBe(0n);
    expect(machine.run(100).reason).toBe('idle');
  });
  it('with a doorbell the vector is posted and #HV raised, once', () => {
    const doorbell = 0x61_0000;
    const code = `${setUpGhcb}
      ${msrProtocol((2n << 52n) | BigInt(doorbell) | 0x14n)}
      ${nae(0x8000_0014, 1n, BigInt(doorbell))}
      xor ebx, ebx
      ${ipi(0x4_0050n)}
      hlt
      hv: inc ebx
      mov r8d, dword [${SHARED_VIEW + doorbell}]
      hlt`;
    const { machine } = run(code, { handlers: { 28: 'hv' }, vmsa: { sev_features: 9n } });
    done(machine);
    // Vector 0x50, NoFurtherSignal, no EOI required.
    expect([reg(machine, 'rbx'), reg(machine, 'r8')]).toEqual([1n, 0x01_8050n]);
  });
});

describe('running and stopping', () => {
  const LOOP = 'xor eax, eax\n again: inc rax\n cmp rax, 5000\n jne again\n hlt';
  const labels = guestLabels(LOOP);
  const again = labels.get('again')!;

  it('retires exactly what is asked, in slices of any size', () => {
    const state = (machine: Machine): readonly unknown[] => [
      machine.retired,
      machine.current.cpu.rip,
      reg(machine, 'rax'),
    ];
    const whole = run(LOOP).machine;
    expect(whole.run(7777).reason).toBe('budget');
    expect(whole.retired).toBe(7777);
    for (const size of [1, 7, 1000]) {
      const sliced = run(LOOP).machine;
      while (sliced.retired < 7777) sliced.run(Math.min(size, 7777 - sliced.retired));
      expect(state(sliced)).toEqual(state(whole));
    }
    const stepped = run(LOOP).machine;
    while (stepped.retired < 777) expect(stepped.stepInstruction().reason).toBe('step');
    const ran = run(LOOP).machine;
    ran.run(777);
    expect(state(stepped)).toEqual(state(ran));
  });
  it('the time-stamp counter is retired instructions, in slices of any size and behind STI', () => {
    const code = `mov ecx, 3000
      again: rdtsc
      imul rbx, rbx, 31
      add rbx, rax
      sti
      rdtsc
      mov r9, rax
      sti
      nop
      rdtsc
      sub rax, r9
      add r8, rax
      dec ecx
      jnz again
      hlt`;
    const state = (slice: number): readonly unknown[] => {
      const { machine } = run(code);
      for (let stop = machine.run(slice); stop.reason === 'budget';) stop = machine.run(slice);
      return [reg(machine, 'rbx'), reg(machine, 'r8'), machine.retired];
    };
    const whole = state(1_000_000);
    expect(whole[1]).toBe(3000n * 4n);
    expect(state(1)).toEqual(whole);
    expect(state(997)).toEqual(whole);
  });
  it('two vCPUs are scheduled alike whatever the slices', () => {
    const code = `${prepare(1)}\n${create(1, 0, 1)}\n spin: inc r12\n jmp spin\n ap: inc r12\n jmp ap`;
    const rip = Number(guestLabels(code).get('ap')!);
    const image = guestImage(code, withTemplate(lower(rip, 0)));
    const state = (slice: number): readonly unknown[] => {
      const { machine } = machineOf(image, { vcpus: 2 });
      while (machine.retired < 100_000) machine.run(Math.min(slice, 100_000 - machine.retired));
      return machine.threads.map(({ cpu }) => [cpu.rip, cpu.reg(12)]);
    };
    const whole = state(100_000);
    expect(whole).toHaveLength(2);
    expect(state(3333)).toEqual(whole);
    expect(state(20_000)).toEqual(whole);
  });
  it('stops at a breakpoint before the instruction, steps over it, and stops there again', () => {
    const { machine } = run(LOOP);
    machine.addBreakpoint({ address: again });
    for (const value of [0n, 1n, 2n]) {
      expect(machine.run(1_000_000)).toMatchObject({ reason: 'breakpoint', rip: again });
      expect(reg(machine, 'rax')).toBe(value);
    }
    expect(machine.stepInstruction()).toMatchObject({ reason: 'step' });
    expect(reg(machine, 'rax')).toBe(3n);
    machine.removeBreakpoint({ address: again });
    expect(machine.run(1_000_000).reason).toBe('idle');
  });
  it('a breakpoint behind an instruction that leaves to the host is not missed', () => {
    const code = `${msrProtocol(2n)}\n after: hlt`;
    const first = code.indexOf('rdmsr');
    const address = guestLabels(`${code.slice(0, first)} here: ${code.slice(first)}`).get('here')!;
    const { machine } = run(code);
    machine.addBreakpoint({ address });
    expect(machine.run(1000)).toMatchObject({ reason: 'breakpoint', rip: address });
  });
  it('a breakpoint may be for one vCPU or VMPL only', () => {
    const { machine } = run(LOOP);
    machine.addBreakpoint({ address: again, vcpu: 1 });
    machine.addBreakpoint({ address: again, vmpl: 2 });
    expect(machine.run(1_000_000).reason).toBe('idle');
    machine.clearBreakpoints();
  });
  it('a step onto a breakpoint does not stop there twice', () => {
    const { machine } = run(LOOP);
    machine.addBreakpoint({ address: again });
    expect(machine.stepInstruction()).toMatchObject({ reason: 'step', rip: again });
    expect(machine.run(1_000_000)).toMatchObject({ reason: 'breakpoint' });
    expect(reg(machine, 'rax')).toBe(1n);
  });
  it('a halted machine is idle for ever, without moving its clock', () => {
    const { machine } = run('hlt');
    done(machine);
    const { retired } = machine;
    done(machine);
    expect(machine.retired).toBe(retired);
    expect(machine.stepInstruction().reason).toBe('idle');
  });
  it('every host event is numbered and placed', () => {
    const { events } = ((test) => (done(test.machine), test))(run(`${setUpGhcb}\n hlt`));
    expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, i) => i));
    expect(events.map(({ kind }) => kind)).toEqual(['launch', 'page-state', 'ghcb-msr', 'hlt']);
    expect(events.every(({ rip }) => rip >= BigInt(AT.code))).toBe(true);
  });
});

describe('looking and changing', () => {
  it('translates, reads and writes through the thread tables and sets nothing', () => {
    const { machine } = run(`mov rax, qword [${AT.code + 0x800}]\n hlt`, {
      build: (builder) => void builder.page(0x3_0000n, 1, Uint8Array.of(1)),
    });
    const { current } = machine;
    const before = machine.readPhysical(BigInt(AT.pdpt), 4096, 'private').bytes;
    expect(machine.translate(current, 0x8123n)).toEqual({
      gpa: 0x8123n,
      encrypted: true,
      pageSize: 0x20_0000,
      writable: true,
      user: false,
      executable: true,
    });
    expect(machine.translate(current, BigInt(SHARED_VIEW) + 0x8123n)).toMatchObject({
      gpa: 0x8123n,
      encrypted: false,
    });
    expect(machine.translate(current, 0x1_0000_0000_0000n)).toBeUndefined();
    expect(machine.readVirtual(current, 0x3_0000n, 2)).toEqual({ bytes: Uint8Array.of(1, 0), readable: 2 });
    // The page behind is not in the guest: reading ends there.
    expect(machine.readVirtual(current, 0x3_0ffen, 8).readable).toBe(2);
    expect(machine.writeVirtual(current, 0x3_0ffen, new Uint8Array(8))).toBe(0);
    expect(machine.writeVirtual(current, 0x3_0000n, Uint8Array.of(7, 8))).toBe(2);
    expect([...machine.readPhysical(0x3_0000n, 2, 'private').bytes]).toEqual([7, 8]);
    expect(machine.readPhysical(0x3_0000n, 2, 'shared').bytes).toEqual(new Uint8Array(2));
    expect(machine.readPhysical(0x400_0000n - 2n, 8, 'private').readable).toBe(2);
    const after = machine.readPhysical(BigInt(AT.pdpt), 4096, 'private').bytes;
    expect(Buffer.compare(before, after)).toBe(0);
    expect(machine.rmp.entry(0x3_1000n)).toMatchObject({ assigned: false, hasPrivate: false });
  });
  it('code changed by the debugger is what runs next', () => {
    const { machine } = run('again: mov ebx, 1\n jmp again');
    machine.run(100);
    expect(reg(machine, 'rbx')).toBe(1n);
    expect(machine.writeVirtual(machine.current, BigInt(AT.code) + 1n, Uint8Array.of(2))).toBe(1);
    machine.run(100);
    expect(reg(machine, 'rbx')).toBe(2n);
  });
  it('the VMSA shows the live registers', () => {
    const { machine } = run('mov rbx, 0x123456789\n hlt');
    done(machine);
    const vmsa = machine.vmsa(machine.current);
    expect([readVmsa(vmsa, 'rbx'), readVmsa(vmsa, 'rip')]).toEqual([0x1_2345_6789n, machine.current.cpu.rip]);
  });
});
