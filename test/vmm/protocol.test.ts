/** The GHCB MSR protocol and GHCB events, asked by guests (GHCB spec. 2.04). */
import { describe, expect, it } from 'vitest';
import { GhcbView, seal } from '../../src/snp/index.ts';
import { assemble } from '../x86/support/assemble.ts';
import { AT, GHCB_GPA, GHCB_VIEW, msrProtocol, nae, reg, run, setUpGhcb } from './guest.ts';
import type { GuestOptions, TestMachine } from './guest.ts';

/** The answer to one MSR request, EDX:EAX. */
function ask(request: bigint): bigint {
  const { machine } = run(`${msrProtocol(request)}\n hlt`);
  expect(machine.run(1000).reason).toBe('idle');
  return (reg(machine, 'rdx') << 32n) | reg(machine, 'rax');
}

describe('GHCB MSR protocol (§2.3.1)', () => {
  it('0x002 SEV information: versions 1 to 2, C-bit 51', () => {
    const answer = ask(0x2n);
    expect(answer & 0xfffn).toBe(1n);
    expect((answer >> 24n) & 0xffn).toBe(51n);
    expect((answer >> 32n) & 0xffffn).toBe(1n);
    expect(answer >> 48n).toBe(2n);
  });
  it.each([
    [1, 0x6874_7541n],
    [2, 0x444d_4163n],
    [3, 0x6974_6e65n],
  ])('0x004 CPUID leaf 0 register %i: AuthenticAMD', (register, value) => {
    const answer = ask((BigInt(register) << 30n) | 4n);
    expect(answer).toBe((value << 32n) | (BigInt(register) << 30n) | 5n);
  });
  it('0x010 preferred GHCB address: none', () => expect(ask(0x10n)).toBe(0xffff_ffff_ffff_f011n));
  it('0x012 register', () => expect(ask(0x60_0012n)).toBe(0x60_0013n));
  it('0x014 page state change', () => {
    expect(ask((2n << 52n) | 0x60_0014n)).toBe(0x15n);
    expect(ask((1n << 52n) | 0x60_0014n)).toBe(0x15n);
    // No such operation; no memory there.
    expect(ask((5n << 52n) | 0x60_0014n) >> 32n).not.toBe(0n);
    expect(ask((1n << 52n) | 0x7f_0000_0014n) >> 32n).not.toBe(0n);
  });
  it('0x016 run VMPL without a VMSA: an error', () =>
    expect(ask((2n << 32n) | 0x16n)).toBe((1n << 32n) | 0x17n));
  it('0x080 hypervisor features', () => expect(ask(0x80n)).toBe((0x27n << 12n) | 0x81n));
  it('0x100 termination ends the machine', () => {
    const { machine } = run(`${msrProtocol((3n << 16n) | (1n << 12n) | 0x100n)}\n hlt`);
    const stop = machine.run(1000);
    expect(stop).toMatchObject({ reason: 'terminated', final: true, termination: { set: 1, code: 3 } });
    expect(stop.message).toMatch(/VMPL0/);
    expect(machine.run(1)).toBe(stop);
    expect(machine.ended).toBe(stop);
    expect(machine.current.state).toBe('terminated');
  });
  it('anything else stops the machine with the value', () => {
    const stop = run(`${msrProtocol(0x7ffn)}\n hlt`).machine.run(1000);
    expect(stop).toMatchObject({ reason: 'error', final: true });
    expect(stop.message).toMatch(/0x7ff/);
  });
});

/** Runs events and returns the GHCB as the guest finds it. */
function event(code: string, options: GuestOptions = {}): TestMachine & { ghcb: GhcbView } {
  const test = run(`${setUpGhcb}\n${code}\n hlt`, options);
  expect(test.machine.run(10_000)).toMatchObject({ reason: 'idle' });
  const page = test.machine.readPhysical(BigInt(GHCB_GPA), 4096, 'shared');
  return { ...test, ghcb: new GhcbView(page.bytes) };
}
const outcome = (ghcb: GhcbView): readonly [bigint, bigint] => {
  expect(ghcb.isValid('sw_exit_info_1') && ghcb.isValid('sw_exit_info_2')).toBe(true);
  return [ghcb.get('sw_exit_info_1'), ghcb.get('sw_exit_info_2')];
};

describe('GHCB events (§4.1)', () => {
  it('CPUID answers all four registers, marked valid, for a leaf and for the hypervisor', () => {
    const { ghcb } = event(nae(0x72, 0n, 0n, { rax: 0x8000_001fn, rcx: 0n }));
    expect(outcome(ghcb)).toEqual([0n, 0n]);
    for (const name of ['rax', 'rbx', 'rcx', 'rdx']) expect(ghcb.isValid(name), name).toBe(true);
    expect(ghcb.get('rbx') & 0x3fn).toBe(51n);
    expect(event(nae(0x72, 0n, 0n, { rax: 0x4000_0000n, rcx: 0n })).ghcb.get('rbx')).toBe(0x4b4d_564bn);
  });
  it('leaf 0xD needs XCR0; x87 and SSE state take 576 bytes', () => {
    expect(outcome(event(nae(0x72, 0n, 0n, { rax: 0xdn, rcx: 0n })).ghcb)).toEqual([2n, 4n]);
    expect(event(nae(0x72, 0n, 0n, { rax: 0xdn, rcx: 0n, xcr0: 3n })).ghcb.get('rbx')).toBe(0x240n);
  });
  it('RDMSR of the APIC base and the APIC ID; WRMSR is kept', () => {
    const base = event(nae(0x7c, 0n, 0n, { rcx: 0x1bn })).ghcb;
    expect([base.get('rax'), base.get('rdx')]).toEqual([0xfee0_0900n, 0n]);
    expect(event(nae(0x7c, 0n, 0n, { rcx: 0x802n })).ghcb.get('rax')).toBe(0n);
    const kept = event(
      nae(0x7c, 1n, 0n, { rcx: 0x80fn, rax: 0x1ffn, rdx: 0n }) + nae(0x7c, 0n, 0n, { rcx: 0x80fn }),
    );
    expect(kept.ghcb.get('rax')).toBe(0x1ffn);
  });
  it('an unknown MSR makes the guest raise #GP', () => {
    expect(outcome(event(nae(0x7c, 0n, 0n, { rcx: 0x1234_5678n })).ghcb)).toEqual([1n, 0x8000_0b0dn]);
  });
  it('port I/O: console, echo device, string forms', () => {
    const out = (port: number, value: bigint): string =>
      nae(0x7b, (BigInt(port) << 16n) | 0x10n, 0n, { rax: value });
    const hello = event(out(0x3f8, 0x48n) + out(0x3f8, 0x69n) + out(0x3f8, 0x0an) + out(0x2f8, 0x21n));
    expect(hello.console()).toBe('Hi\n');
    expect(hello.console(0x2f8)).toBe('!');
    const lsr = event(nae(0x7b, (0x3fdn << 16n) | 0x11n, 0n)).ghcb;
    expect(lsr.get('rax')).toBe(0x60n);
    const echo = event(
      nae(0x7b, (0xe0n << 16n) | 0x40n, 0n, { rax: 0x1234_5678n }) + nae(0x7b, (0xe0n << 16n) | 0x21n, 0n),
    );
    expect(echo.ghcb.get('rax')).toBe(0x5678n);
    // REP OUTSB of three bytes from the shared buffer.
    const string = event(
      `mov dword [r15 + 2048], 0x0a6b6f
       ${nae(0x7b, (0x3f8n << 16n) | 0x1cn, 3n, { sw_scratch: BigInt(GHCB_GPA) + 0x800n })}`,
    );
    expect(string.console()).toBe('ok\n');
  });
  it('a port without a device reads as ones', () => {
    expect(event(nae(0x7b, (0x70n << 16n) | 0x11n, 0n)).ghcb.get('rax')).toBe(0xffn);
  });
  it('isa-debug-exit ends the machine with QEMU exit code', () => {
    const { machine } = run(`${setUpGhcb}\n${nae(0x7b, (0xf4n << 16n) | 0x40n, 0n, { rax: 0x10n })}\n hlt`);
    expect(machine.run(10_000)).toMatchObject({ reason: 'exit', exitCode: 0x21, final: true });
  });
  it('input reaches the guest through LSR and RBR', () => {
    const code = `${setUpGhcb}\n${nae(0x7b, (0x3fdn << 16n) | 0x11n, 0n)}
      mov rbx, qword [r15 + 0x1f8]\n${nae(0x7b, (0x3f8n << 16n) | 0x11n, 0n)}\n hlt`;
    const { machine } = run(code);
    machine.input(0x3f8, Uint8Array.of(0x41));
    machine.run(10_000);
    expect(reg(machine, 'rbx')).toBe(0x61n);
    const ghcb = new GhcbView(machine.readPhysical(BigInt(GHCB_GPA), 4096, 'shared').bytes);
    expect(ghcb.get('rax')).toBe(0x41n);
  });

  it('hypervisor features', () => {
    expect(outcome(event(nae(0x8000_fffd, 0n, 0n)).ghcb)).toEqual([0n, 0x27n]);
  });
  it('MMIO without a device: reads give zeros', () => {
    const { ghcb, events } = event(
      `mov qword [r15 + 2048], -1
       ${nae(0x8000_0001, 0xfe00_0000n, 4n, { sw_scratch: BigInt(GHCB_GPA) + 0x800n })}`,
    );
    expect(outcome(ghcb)).toEqual([0n, 0n]);
    expect([...ghcb.page.subarray(0x800, 0x808)]).toEqual([0, 0, 0, 0, 255, 255, 255, 255]);
    expect(events.some(({ kind }) => kind === 'mmio')).toBe(true);
  });
  it.each([
    ['an unknown event', nae(0x8000_7777, 0n, 0n), 6n],
    ['a missing register', nae(0x7c, 0n, 0n), 4n],
    ['a scratch area outside the shared buffer', nae(0x8000_0001, 0n, 4n, { sw_scratch: 0x1000n }), 3n],
    ['a VMPL without a VMSA', nae(0x8000_0018, 2n, 0n), 5n],
    ['a port access of no size', nae(0x7b, 0n, 0n), 5n],
    ['a usage other than 0', `mov dword [r15 + 4092], 1\n${nae(0x72, 0n, 0n)}`, 2n],
  ])('refuses %s as malformed input', (_what, code, reason) => {
    expect(outcome(event(code).ghcb)).toEqual([2n, reason]);
  });
  it('an event it lacks stops with its name', () => {
    const { machine } = run(`${setUpGhcb}\n${nae(0x8000_001b, 0n, 0n)}\n hlt`);
    const stop = machine.run(10_000);
    expect(stop).toMatchObject({ reason: 'not-implemented', final: true });
    expect(stop.message).toMatch(/CONFIGURE_INTERRUPT_INJECTION/);
  });
  it.each([
    ['AP creation', 0x8000_0013, 0x25n],
    ['the doorbell page', 0x8000_0014, 0x23n],
    ['an IPI', 0x8000_0015, 0x23n],
    ['another VMPL', 0x8000_0018, 0x07n],
  ])('%s is no event where its feature is not advertised', (_what, exitCode, hypervisorFeatures) => {
    const { machine } = run(`${setUpGhcb}\n${nae(exitCode, 1n, 0n)}\n hlt`, {
      machine: { hypervisorFeatures },
    });
    machine.run(10_000);
    const ghcb = new GhcbView(machine.readPhysical(BigInt(GHCB_GPA), 4096, 'shared').bytes);
    expect(outcome(ghcb)).toEqual([2n, 6n]);
  });
  it('a GHCB that is not registered, or private, stops the machine', () => {
    const other = run(
      `mov ecx, 0xc0010130\n mov eax, 0x600000\n xor edx, edx\n wrmsr\n vmgexit\n hlt`,
    ).machine;
    expect(other.run(100).message).toMatch(/not the registered one/);
    const code = `${msrProtocol(BigInt(GHCB_GPA) | 0x12n)}
      mov ecx, 0xc0010130\n mov eax, ${GHCB_GPA}\n xor edx, edx\n wrmsr\n vmgexit\n hlt`;
    expect(run(code).machine.run(100).message).toMatch(/not a shared page/);
  });
});

describe('guest requests (§4.1.7)', () => {
  const [request, response, data] = [0x62_0000, 0x63_0000, 0x64_0000];
  const share = [request, response, data]
    .map((gpa) => msrProtocol((2n << 52n) | BigInt(gpa) | 0x14n))
    .join('\n');
  /** A report request; the test is the guest's driver, with the VMPCK from the guest's secrets page. */
  function ask(exitCode: number, inputs = {}, sequence = 1n): TestMachine & { ghcb: GhcbView } {
    const code = `${setUpGhcb}\n${share}\n ask: nop
      ${nae(exitCode, BigInt(request), BigInt(response), inputs)}\n hlt`;
    const test = run(code);
    const { machine } = test;
    machine.addBreakpoint({ address: assemble(code, AT.code).labels.get('ask')! });
    expect(machine.run(100_000).reason).toBe('breakpoint');
    const secrets = machine.readPhysical(BigInt(AT.secrets), 4096, 'private').bytes;
    const payload = new Uint8Array(96).fill(0xab, 0, 64);
    machine.writePhysical(
      BigInt(request),
      seal(secrets.subarray(0x20, 0x40), sequence, 5, 0, payload),
      'shared',
    );
    machine.writePhysical(BigInt(data), new Uint8Array(32).fill(0xff), 'shared');
    expect(machine.run(100_000).reason).toBe('idle');
    return { ...test, ghcb: new GhcbView(machine.readPhysical(BigInt(GHCB_GPA), 4096, 'shared').bytes) };
  }
  const typeOfResponse = (test: TestMachine): number =>
    test.machine.readPhysical(BigInt(response), 4096, 'shared').bytes[0x34]!;

  it('are carried to the firmware and back', () => {
    const test = ask(0x8000_0011);
    expect(outcome(test.ghcb)).toEqual([0n, 0n]);
    expect(typeOfResponse(test)).toBe(6);
  });
  it('come back with the status of the firmware if it refuses', () => {
    const test = ask(0x8000_0011, {}, 7n);
    expect(outcome(test.ghcb)).toEqual([0n, 0x1dn]);
    expect(typeOfResponse(test)).toBe(0);
  });
  it('extended ones say how much room certificates need, then that there are none', () => {
    const short = ask(0x8000_0012, { rax: BigInt(data), rbx: 0n });
    expect([outcome(short.ghcb), short.ghcb.get('rbx')]).toEqual([[0n, 1n << 32n], 1n]);
    const enough = ask(0x8000_0012, { rax: BigInt(data), rbx: 1n });
    expect(outcome(enough.ghcb)).toEqual([0n, 0n]);
    const table = enough.machine.readPhysical(BigInt(data), 32, 'shared').bytes;
    expect([...table]).toEqual([...new Uint8Array(24), ...new Uint8Array(8).fill(0xff)]);
  });
});

describe('page state change through the GHCB (§4.1.6)', () => {
  const scratch = { sw_scratch: BigInt(GHCB_GPA) + 0x800n };
  const request = (entries: readonly bigint[], header = BigInt(entries.length - 1) << 16n): string => `
    mov rax, ${header}
    mov qword [r15 + 2048], rax
    ${entries.map((entry, i) => `mov rax, ${entry}\n mov qword [r15 + ${2056 + i * 8}], rax`).join('\n')}
    ${nae(0x8000_0010, 0n, 0n, scratch)}`;

  it('works through 4 KiB and 2 MiB entries and moves cur_entry on', () => {
    const { machine, ghcb } = event(
      request([(2n << 52n) | 0x70_0000n, (2n << 52n) | (1n << 56n) | 0x80_0000n, (1n << 52n) | 0x70_0000n]),
    );
    expect(outcome(ghcb)).toEqual([0n, 0n]);
    expect(new DataView(ghcb.page.buffer).getUint16(0x800, true)).toBe(3);
    expect(machine.rmp.entry(0x70_0000n)).toMatchObject({ hasShared: false });
    for (const gpa of [0x80_0000n, 0x9f_f000n])
      expect(machine.rmp.entry(gpa)).toMatchObject({ hasShared: true });
    expect(machine.rmp.entry(0xa0_0000n)).toMatchObject({ hasShared: false });
  });
  it.each([
    ['end over 252', request([], 253n << 16n), (1n << 32n) | 1n],
    ['an unknown operation', request([(9n << 52n) | 0x70_0000n]), (1n << 32n) | 2n],
    ['no memory there', request([(1n << 52n) | 0x7f_0000_0000n]), (1n << 32n) | 2n],
    ['a misaligned 2 MiB page', request([(1n << 52n) | (1n << 56n) | 0x70_0000n]), (1n << 32n) | 2n],
  ])('reports %s in SW_EXITINFO2', (_what, code, error) => {
    expect(outcome(event(code).ghcb)).toEqual([0n, error]);
  });
  it('takes a page away from the guest: the next private access is #VC, and its old contents are gone', () => {
    const { machine } = event(
      `mov ecx, 0
       mov edx, 1
       mov rax, ${AT.free}
       pvalidate
       mov rbx, ${AT.free}
       mov qword [rbx], 0x1234
       ${request([(2n << 52n) | BigInt(AT.free)])}
       mov r8, qword [rbx + ${GHCB_VIEW - GHCB_GPA}]
       ${request([(1n << 52n) | BigInt(AT.free)])}
       mov r9, qword [rbx]
       hlt
       vc: pop r10`,
      { handlers: { 29: 'vc' } },
    );
    expect(reg(machine, 'r8')).toBe(0n);
    expect(reg(machine, 'r10')).toBe(0x404n);
  });
});
