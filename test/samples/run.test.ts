/** The sample runs to its end; each step is asserted on RMP entries, VMSA contents and what the host saw. */
import { beforeAll, describe, expect, test } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { parseIgvm } from '../../src/igvm/index.ts';
import { measureIgvm } from '../../src/measure/index.ts';
import { Guest } from './guest.ts';
import { loadDemangler, sampleFile } from './sample.ts';

const PAGE = 0x1000n;
const HEAP = 0x20_0000n;
const POOL = 0x40_0000n;
const LARGE = 0x20_0000;
const GUEST_STACK = POOL + 5n * PAGE;
const CALLING_AREA = POOL + 6n * PAGE;
const GUEST_VMSA = POOL + 7n * PAGE;
const CPUID_PAGE = 0x41_2000n;
const C_BIT = 1n << 51n;
const SVME = 0x1000n;

/** Permission bits of RMPADJUST. */
const R = 1;
const W = 2;
const XS = 8;

const pages = (from: bigint, count: number): bigint[] =>
  Array.from({ length: count }, (_, index) => from + BigInt(index) * PAGE);

const CONSOLE = (heap: string): string => `mini-svsm: a small SVSM
[1] long mode, C-bit is bit 51
[2] GDT and IDT installed
[3] GHCB registered at 0x109000, hypervisor features 0x27
[4] memory validated: ${heap}, 16 pages of 4 KiB; processors: 1
[5] #VC handled: CPUID from its page, RDMSR by the host: APIC base 0xfee00900
[6] this console, through the GHCB
[7] the VMPL2 guest has its pages
[8] VMPL2 made call 0x6, was answered and has finished
[9] success
`;

beforeAll(() => loadDemangler());

describe('mini-svsm', () => {
  test('is launched as measured, in 32-bit protected mode', () => {
    const guest = new Guest();
    const file = parseIgvm(sampleFile('mini-svsm.igvm'));
    expect(bytesToHex(guest.machine.launchDigest)).toBe(bytesToHex(measureIgvm(file, {}, nodeCrypto).digest));
    expect(guest.register('rip')).toBe(guest.address('startup_32'));
    expect(guest.register('cr0')).toBe(0x31n);
    expect(guest.register('efer')).toBe(0x1800n);
    // What was launched is validated and VMPL0's alone; what was not is not.
    const launched = [guest.address('startup_32'), guest.address('guest_entry'), CPUID_PAGE, 0x41_3000n];
    for (const gpa of launched)
      expect(guest.rmp(gpa)).toMatchObject({ assigned: true, validated: true, vmsa: false, pageSize: 4096 });
    for (const gpa of launched) expect(guest.rmp(gpa).permissions.slice(1)).toEqual([0, 0, 0]);
    for (const gpa of [HEAP, ...pages(POOL, 16)]) expect(guest.rmp(gpa).validated).toBe(false);
  });

  test('step 1: page tables with the C-bit of the CPUID page, long mode', () => {
    const guest = new Guest();
    guest.runTo('enter_long_mode');
    expect(guest.register('cr0') >> 31n).toBe(0n);
    const thread = guest.runTo('startup_64');
    expect(guest.register('cr0') & 0x8001_0001n).toBe(0x8001_0001n); // PG, WP, PE
    expect(guest.register('efer')).toBe(0x1d00n); // SVME, NXE, LMA, LME
    expect(guest.register('cs.attributes') & 0x200n).toBe(0x200n); // L
    const root = guest.register('cr3');
    expect(root & C_BIT).toBe(0n);
    expect(guest.private64(root) & C_BIT).toBe(C_BIT);
    // EBX[5:0] of leaf 0x8000001F, wherever it is in the page.
    const cpuid = guest.machine.readPhysical(CPUID_PAGE, 4096, 'private').bytes;
    const view = new DataView(cpuid.buffer);
    const rows = Array.from({ length: view.getUint32(0, true) }, (_, index) => 16 + index * 48);
    const leaf = rows.find((at) => view.getUint32(at, true) === 0x8000_001f)!;
    expect(1n << BigInt(view.getUint32(leaf + 28, true) & 0x3f)).toBe(C_BIT);
    const { translate } = guest.machine;
    const at = (address: bigint) => translate.call(guest.machine, thread, address);
    expect(at(HEAP)).toMatchObject({ gpa: HEAP, encrypted: true, pageSize: LARGE });
    expect(at(guest.address('GHCB_PAGE'))).toMatchObject({ encrypted: true, pageSize: 4096 });
    expect(at(1n << 30n)).toBeUndefined();
  });

  test('step 2: descriptor tables', () => {
    const guest = new Guest();
    guest.runTo('negotiate_version');
    expect(guest.register('gdtr.limit')).toBe(23n);
    expect(guest.register('idtr.limit')).toBe(32n * 16n - 1n);
    // Gate 29 (#VC) leads to the 29th entry.
    const gate = guest.register('idtr.base') + 29n * 16n;
    const [low, high] = [guest.private64(gate), guest.private64(gate + 8n)];
    const target = (low & 0xffffn) | ((low >> 32n) & 0xffff_0000n) | (high << 32n);
    expect(target).toBe(guest.address('trap_29'));
    expect(guest.kinds()).toEqual(['launch']); // the host has not been asked anything yet
  });

  test('step 3: the GHCB page becomes shared and is registered', () => {
    const guest = new Guest();
    const page = guest.address('GHCB_PAGE');
    guest.runTo('share_ghcb_page');
    expect(guest.rmp(page)).toMatchObject({ assigned: true, validated: true, hasShared: false });
    const thread = guest.runTo('register_ghcb');
    expect(guest.rmp(page)).toMatchObject({
      assigned: false,
      validated: false,
      hasPrivate: false,
      hasShared: true,
    });
    expect(guest.machine.translate(thread, page)?.encrypted).toBe(false);
    expect(guest.kinds()).toEqual(['launch', 'page-state']);
    guest.runTo('initialize_console');
    expect(guest.kinds()).toEqual(['launch', 'page-state', 'ghcb-msr']);
    expect(guest.events.at(-1)!.text).toContain(`0x${page.toString(16)}`);
  });

  test.each([
    { largePages: true, pageSize: LARGE, validations: 1 },
    { largePages: false, pageSize: 4096, validations: 1 + 512 },
  ])('step 4: memory is validated, large pages: $largePages', ({ largePages, pageSize, validations }) => {
    const guest = new Guest('mini-svsm.igvm', { largePages });
    guest.runTo('validate_memory');
    for (const gpa of [...pages(HEAP, 512), ...pages(POOL, 16)]) expect(guest.rmp(gpa).validated).toBe(false);
    guest.runTo('take_vc_exceptions');
    for (const gpa of pages(HEAP, 512))
      expect(guest.rmp(gpa)).toMatchObject({ assigned: true, validated: true, pageSize });
    for (const gpa of pages(POOL, 16))
      expect(guest.rmp(gpa)).toMatchObject({ assigned: true, validated: true, pageSize: 4096 });
    expect(guest.rmp(0x60_0000n).validated).toBe(false);
    const heap = validations === 1 ? '1 page of 2 MiB' : '512 pages of 4 KiB';
    expect(guest.runToEnd().exitCode).toBe(33);
    expect(guest.console).toBe(CONSOLE(heap));
  });

  test('step 5: two intercepted instructions become #VC and are emulated', () => {
    const guest = new Guest();
    guest.runTo('take_vc_exceptions');
    const exits = [
      { code: 0x72n, bytes: [0x0f, 0xa2], back: 'CPUID' },
      { code: 0x7cn, bytes: [0x0f, 0x32], back: 'RDMSR' },
    ];
    for (const { code, bytes } of exits) {
      const thread = guest.runTo('handle_trap');
      const frame = guest.register('rdi'); // TrapFrame: 15 registers, vector, error code, RIP
      expect(guest.private64(frame + 15n * 8n)).toBe(29n);
      expect(guest.private64(frame + 16n * 8n)).toBe(code);
      const rip = guest.private64(frame + 17n * 8n);
      expect([...guest.machine.readVirtual(thread, rip, 2).bytes]).toEqual(bytes);
      const iretq = guest.address('memcpy') - 2n;
      guest.machine.addBreakpoint({ address: iretq });
      expect(guest.machine.run(1_000_000).reason).toBe('breakpoint');
      guest.machine.clearBreakpoints();
      expect(guest.machine.stepInstruction().rip).toBe(rip + 2n);
      if (code === 0x72n) expect(guest.register('rbx') & 0x3fn).toBe(51n);
      else expect(guest.register('rax')).toBe(0xfee0_0900n);
    }
    const asked = guest.events.filter(({ kind }) => kind === 'msr').map(({ text }) => text);
    expect(asked).toEqual(['RDMSR 0x1b gives 0xfee00900']);
  });

  test('step 7: VMPL2 gets its pages and no others', () => {
    const guest = new Guest();
    guest.runTo('grant_guest_pages');
    for (const gpa of [guest.address('guest_entry'), ...pages(POOL, 16)])
      expect(guest.rmp(gpa).permissions.slice(1)).toEqual([0, 0, 0]);
    guest.runTo('register_guest_vmsa');
    expect(guest.rmp(guest.address('guest_entry')).permissions[2]).toBe(R | XS);
    for (const gpa of [...pages(POOL, 5), GUEST_STACK, CALLING_AREA])
      expect(guest.rmp(gpa).permissions[2]).toBe(R | W);
    const granted = guest.machine.rmp
      .ranges()
      .filter(({ permissions }) => permissions[1] !== 0 || permissions[2] !== 0 || permissions[3] !== 0)
      .reduce((sum, range) => sum + range.pages, 0);
    expect(granted).toBe(8);
    expect(guest.rmp(GUEST_VMSA)).toMatchObject({ vmsa: false, validated: true });
  });

  test('step 8: VMPL2 runs, makes one call by the calling convention, gets its answer', () => {
    const guest = new Guest();
    guest.runTo('register_guest_vmsa');
    expect(guest.thread(2)).toBeUndefined();
    guest.runTo('run_guest');
    expect(guest.rmp(GUEST_VMSA)).toMatchObject({ vmsa: true, validated: true });
    expect(guest.rmp(GUEST_VMSA).permissions[2]).toBe(0);
    expect(guest.thread(2)).toMatchObject({ active: false, vmsaGpa: GUEST_VMSA });
    expect(guest.events.at(-1)).toMatchObject({ kind: 'ap-create', vmpl: 0 });
    expect(guest.vmsaField(GUEST_VMSA, 'efer') & SVME).toBe(0n); // not to be run by the host yet

    const thread = guest.runTo('guest_entry');
    expect(thread).toBe(guest.thread(2));
    expect(thread.active).toBe(true);
    expect(guest.thread(0)!.active).toBe(false);
    expect(guest.register('vmpl')).toBe(2n);
    expect(guest.register('cr3')).toBe(POOL);
    expect(guest.register('rdi')).toBe(CALLING_AREA);
    expect(guest.register('rsp')).toBe(GUEST_STACK + PAGE);
    // VMPL0 rests in its own VMSA, which the host gave it.
    expect(guest.register('guest_exit_code', guest.thread(0))).toBe(0x403n);
    expect(guest.machine.translate(thread, guest.address('svsm_main'))).toBeUndefined();

    expect(guest.runTo('serve_request')).toBe(guest.thread(0));
    expect(guest.private8(CALLING_AREA)).toBe(1);
    expect(guest.vmsaField(GUEST_VMSA, 'guest_exit_code')).toBe(0x403n); // VMGEXIT
    expect(guest.vmsaField(GUEST_VMSA, 'rax')).toBe(6n); // SVSM_CORE_QUERY_PROTOCOL
    expect(guest.vmsaField(GUEST_VMSA, 'rcx')).toBe(1n);
    expect(guest.vmsaField(GUEST_VMSA, 'efer') & SVME).toBe(0n);

    guest.runTo('run_guest');
    expect(guest.private8(CALLING_AREA)).toBe(0);
    expect(guest.vmsaField(GUEST_VMSA, 'rax')).toBe(0n); // SVSM_SUCCESS
    expect(guest.vmsaField(GUEST_VMSA, 'rcx')).toBe(0x1_0000_0001n);

    expect(guest.runTo('guest_finished').vmpl).toBe(2);
    expect(guest.register('rbx')).toBe(0x600dn);
    guest.runTo('check_guest_finished');
    expect(guest.vmsaField(GUEST_VMSA, 'rbx')).toBe(0x600dn);
    const switches = guest.events.filter(({ kind }) => kind === 'vmpl-switch').map(({ vmpl }) => vmpl);
    expect(switches).toEqual([2, 0, 2, 0]);
  });

  test('steps 6 and 9: the console through the GHCB, and the documented end', () => {
    const guest = new Guest();
    guest.runTo('initialize_console');
    expect(guest.console).toBe('');
    const stop = guest.runToEnd();
    expect(stop).toMatchObject({ reason: 'exit', exitCode: 33, final: true });
    expect(stop.thread).toBe(guest.thread(0));
    expect(guest.events.at(-1)).toMatchObject({ kind: 'port', text: 'OUT to port 0xf4' });
    expect(guest.console).toBe(CONSOLE('1 page of 2 MiB'));
    expect(guest.machine.run(1)).toMatchObject({ reason: 'exit', exitCode: 33 });
  });

  test('is a function: slices of any size give the same run', () => {
    const whole = new Guest();
    whole.runToEnd();
    const sliced = new Guest();
    for (let size = 1; sliced.machine.ended === undefined; size = (size * 7 + 3) % 30_011)
      sliced.machine.run(size + 1);
    expect(sliced.machine.retired).toBe(whole.machine.retired);
    expect(sliced.events).toEqual(whole.events);
    expect(sliced.console).toBe(whole.console);
  });
});

describe('broken variants end as README.md says', () => {
  test('without PVALIDATE: #VC 0x404, which its handler reports', () => {
    const guest = new Guest('broken/no-pvalidate.igvm');
    guest.runTo('handle_trap');
    const frame = guest.register('rdi');
    expect(guest.private64(frame + 15n * 8n)).toBe(29n);
    expect(guest.private64(frame + 16n * 8n)).toBe(0x404n);
    expect(guest.rmp(HEAP)).toMatchObject({ assigned: true, validated: false });
    const stop = guest.runToEnd();
    expect(stop).toMatchObject({ reason: 'terminated', termination: { set: 7, code: 0x60 }, final: true });
    expect(guest.events.at(-1)!.kind).toBe('terminate');
  });

  test('with a wrong page size: PVALIDATE returns FAIL_SIZEMISMATCH', () => {
    const guest = new Guest('broken/wrong-page-size.igvm');
    const stop = guest.runToEnd();
    expect(stop).toMatchObject({ reason: 'terminated', termination: { set: 7, code: 0x26 }, final: true });
    expect(guest.rmp(HEAP)).toMatchObject({ validated: true, pageSize: LARGE });
    expect(guest.rmp(POOL)).toMatchObject({ assigned: true, validated: false, pageSize: 4096 });
  });

  test('with an unregistered GHCB: the host refuses the exit', () => {
    const guest = new Guest('broken/unregistered-ghcb.igvm');
    const stop = guest.runToEnd();
    expect(stop).toMatchObject({ reason: 'error', final: true });
    expect(stop.error?.code).toBe('ghcb-unregistered');
    expect(guest.kinds()).toEqual(['launch', 'page-state']);
    expect(guest.console).toBe('');
  });

  test('without RMPADJUST: nested page fault for VMPL permissions at the first access', () => {
    const guest = new Guest('broken/no-rmpadjust.igvm');
    const stop = guest.runToEnd();
    expect(stop).toMatchObject({ reason: 'error', final: true });
    expect(stop.error?.code).toBe('rmp-violation');
    expect(stop.error?.place.gpa).toBe(POOL); // the root of its page tables
    expect(stop.thread).toBe(guest.thread(2));
    expect(stop.rip).toBe(guest.address('guest_entry'));
    expect(guest.rmp(POOL)).toMatchObject({ validated: true, permissions: [0x1f, 0, 0, 0] });
    expect(guest.events.at(-1)!.kind).toBe('vmpl-switch');
  });
});

describe('on a wrong platform', () => {
  test.each([
    ['no SNP features', 0x26n],
    ['no AP creation', 0x25n],
    ['no multi-VMPL', 0x07n],
  ])('%s: the feature check fails', (_, hypervisorFeatures) => {
    const stop = new Guest('mini-svsm.igvm', { hypervisorFeatures }).runToEnd();
    expect(stop).toMatchObject({ reason: 'terminated', termination: { set: 0, code: 2 } });
  });

  test('too little memory: the memory map is not enough', () => {
    const stop = new Guest('mini-svsm.igvm', { memory: 3 << 20 }).runToEnd();
    expect(stop).toMatchObject({ reason: 'terminated', termination: { set: 7, code: 0x80 } });
  });
});
