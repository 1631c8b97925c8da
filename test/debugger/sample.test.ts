/**
 * The committed sample in the debugger: what its sources say is where it stops. Lines are found by their text,
 * so that the sample may be edited.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { Client } from './client.ts';

const SAMPLES = join(import.meta.dirname, '../../samples');
const SAMPLE = join(SAMPLES, 'mini-svsm');
const path = (file: string): string => join(SAMPLE, 'src', file);
const lines = (file: string): string[] => readFileSync(path(file), 'utf8').split('\n');
/** Line (from 1) of a source that has the text; the first after `after`. */
function line(file: string, text: string, after = ''): number {
  const all = lines(file);
  const from = after === '' ? 0 : all.findIndex((one) => one.includes(after));
  const found = all.findIndex((one, index) => index >= from && one.includes(text));
  if (from < 0 || found < 0) throw new Error(`${file} has no line with "${text}"`);
  return found + 1;
}

let client: Client;
afterEach(() => client.dispose());

async function launch(args: Record<string, unknown> = {}): Promise<void> {
  client = new Client();
  await client.launch({
    program: join(SAMPLE, 'mini-svsm.igvm'),
    symbols: [join(SAMPLE, 'mini-svsm.elf')],
    sourceMap: { '/cvm-samples': SAMPLES },
    stopOnEntry: true,
    ...args,
  });
}
const breakAt = (file: string, ...at: number[]) =>
  client.request('setBreakpoints', {
    source: { path: path(file) },
    breakpoints: at.map((one) => ({ line: one })),
  });
/** `file:line name` of the thread that stops next, and its id. */
async function stop(): Promise<{ at: string; text: string; threadId: number; frameId: number }> {
  const { threadId = 0 } = await client.event('stopped');
  const frame = await client.top(threadId);
  const file = frame.source?.name ?? '';
  const text = frame.source?.path ? (lines(file)[frame.line - 1] ?? '').trim() : '';
  return { at: `${file} ${frame.name}`, text, threadId, frameId: frame.id };
}
async function go(command: 'continue' | 'next' | 'stepIn' | 'stepOut', threadId = 1) {
  await client.request(command, { threadId });
  return stop();
}
const evaluate = async (expression: string, frameId?: number): Promise<string> =>
  (await client.request('evaluate', { expression, ...(frameId ? { frameId } : {}), context: 'repl' })).result;

describe('the sample', () => {
  it('is stepped from its first instruction, in 32-bit mode', async () => {
    await launch();
    expect(await stop()).toMatchObject({ at: 'entry.s startup_32', text: 'cli' });
    expect((await go('next')).text).toBe('cld');
    expect((await go('next')).text).toBe('mov     esi, CPUID_PAGE');
    await go('next');
    expect(await evaluate('esi')).toMatch(/^0x412000/);
    const { instructions } = await client.request('disassemble', {
      memoryReference: '0x100000',
      instructionCount: 2,
    });
    expect(instructions.map(({ instruction }) => instruction)).toEqual(['cli', 'cld']);
  });

  it('has a stack with files and lines from Rust back to the assembly entry', async () => {
    await launch();
    await stop();
    await client.request('setFunctionBreakpoints', { breakpoints: [{ name: 'validate_memory' }] });
    const { threadId } = await go('continue');
    const { stackFrames } = await client.request('stackTrace', { threadId });
    expect(stackFrames.map(({ name, source }) => `${name} ${source?.name}`)).toEqual([
      'mini_svsm::memory::validate_memory memory.rs',
      'svsm_main main.rs',
      'startup_64 entry.s',
    ]);
    expect(lines('main.rs')[stackFrames[1]!.line - 1]).toContain('validate_memory()');
  });

  it('steps over a line that raises #VC as over any other', async () => {
    await launch();
    await stop();
    await breakAt('vc.rs', line('vc.rs', 'cpu::read_msr(MSR_APIC_BASE)'));
    expect((await go('continue')).text).toMatch(/read_msr/);
    await breakAt('vc.rs');
    expect((await go('next')).text).toMatch(/^check\(/);
    expect((await go('next')).text).toMatch(/^check\(apic_base/);
    expect(await evaluate('HANDLED')).toMatch(/<mini_svsm::vc::HANDLED> = 2$/);
    expect((await go('stepOut')).at).toBe('main.rs svsm_main');
  });

  it('stops at exceptions by filter, before the handler, in a run and in a step', async () => {
    await launch();
    await stop();
    const set = async (...filters: string[]) =>
      (await client.request('setExceptionBreakpoints', { filters }))!.breakpoints;
    expect(await set('vc', 'df', 'nothing')).toEqual([
      { verified: true },
      { verified: true },
      { verified: false, message: "there is no exception filter 'nothing'" },
    ]);
    await client.request('continue', { threadId: 1 });
    const stopped = await client.event('stopped');
    expect(stopped).toMatchObject({ reason: 'exception', description: 'Paused on #VC' });
    const { stackFrames } = await client.request('stackTrace', { threadId: 1 });
    const rip = stackFrames[0]!.instructionPointerReference;
    const info = await client.request('exceptionInfo', { threadId: 1 });
    expect(info).toMatchObject({ exceptionId: '#VC', breakMode: 'always', description: stopped.text });
    expect(info.description).toMatch(new RegExp(`^#VC [A-Z]+ \\(0x[0-9a-f]+\\) at ${rip}$`));
    await set();
    await breakAt('vc.rs', line('vc.rs', 'cpu::read_msr(MSR_APIC_BASE)'));
    expect((await go('continue')).text).toMatch(/read_msr/);
    await set('any');
    expect((await go('next')).text).toMatch(/rdmsr/);
    expect((await client.request('exceptionInfo', { threadId: 1 })).description).toMatch(/^#VC MSR \(0x7c\)/);
    await set();
    expect((await go('stepOut')).text).toMatch(/read_msr/);
  });

  it('goes into the #VC handler by a breakpoint, and shows who raised it', async () => {
    await launch();
    await stop();
    await client.request('setFunctionBreakpoints', { breakpoints: [{ name: 'emulate_rdmsr' }] });
    const { threadId } = await go('continue');
    const { stackFrames } = await client.request('stackTrace', { threadId });
    const names = stackFrames.map(({ name }) => name);
    expect(names.slice(0, 3)).toEqual(['mini_svsm::vc::emulate_rdmsr', 'handle_trap', 'trap_common']);
    expect(names).toContain('mini_svsm::vc::take_vc_exceptions');
  });

  it('follows the processor to VMPL2 and shows each VMPL as a thread', async () => {
    await launch();
    await stop();
    await breakAt('guest.s', line('guest.s', 'mov     r12, rdi'));
    const { at, threadId, frameId } = await go('continue');
    expect(at).toBe('guest.s guest_entry');
    const { threads } = await client.request('threads');
    expect(threads.map(({ name }) => name.replace(/ \(.*/, ''))).toEqual([
      'vCPU 0 · VMPL0',
      'vCPU 0 · VMPL2',
    ]);
    expect(threads[1]!.id).toBe(threadId);

    const { fields } = await client.request('cvm/vmsa', { threadId });
    const field = (name: string) => fields.find((one) => one.name === name)!;
    expect(field('vmpl').value).toBe('0x02');
    expect(BigInt(field('rip').value)).toBe(BigInt((await evaluate('rip,x', frameId)).split(' ')[0]!));

    const { scopes } = await client.request('scopes', { frameId });
    const { variables } = await client.request('variables', {
      variablesReference: scopes[2]!.variablesReference,
    });
    const facts = Object.fromEntries(variables.map(({ name, value }) => [name, value]));
    expect(facts).toMatchObject({ validated: 'yes', VMPL0: 'rwx', 'C-bit': '1 (private)' });
    expect(facts.VMPL2).toMatch(/^r-[xs]$/);

    // The SVSM's own thread stands where it entered the guest.
    const svsm = await client.request('stackTrace', { threadId: 1 });
    expect(svsm.stackFrames.map(({ name }) => name)).toContain('mini_svsm::guest::run_guest');
  });

  it('steps over the call of the guest that its SVSM serves', async () => {
    await launch();
    await stop();
    const call = line('guest.s', 'call    guest_call_svsm', 'guest_query_protocol:');
    await breakAt('guest.s', call);
    const { threadId } = await go('continue');
    await breakAt('guest.s');
    const after = await go('next', threadId);
    expect(after).toMatchObject({ at: 'guest.s guest_query_protocol', text: 'xor     edx, edx', threadId });
    // SVSM_SUCCESS
    expect(await evaluate('rax', after.frameId)).toBe('0');
  });

  it('steps in the SVSM over the guest it runs', async () => {
    await launch();
    await stop();
    await breakAt('main.rs', line('main.rs', 'guest::run_guest()'));
    await go('continue');
    await breakAt('main.rs');
    const after = await go('next');
    expect(after).toMatchObject({ at: 'main.rs svsm_main', threadId: 1 });
    expect(after.text).toContain('serve_request');
  });

  it('shows the RMP as it becomes: validated, shared, given to VMPL2', async () => {
    await launch();
    await stop();
    const states = async (gpa: bigint): Promise<string> => {
      const { ranges } = await client.request('cvm/rmp', {});
      const range = ranges.find(({ start, end }) => gpa >= BigInt(start) && gpa < BigInt(end));
      return range ? `${range.state} ${range.permissions[2]}` : 'untouched';
    };
    expect(await states(0x40_0000n)).not.toMatch(/^validated/);
    await breakAt('main.rs', line('main.rs', '[9]'));
    await go('continue');
    expect(await states(0x40_0000n)).toMatch(/^validated r/);
    const { ranges } = await client.request('cvm/rmp', {});
    expect(ranges.some(({ state }) => state === 'vmsa')).toBe(true);
    expect(ranges.some(({ state }) => state === 'unassigned')).toBe(true);
  });

  it('runs to its success, its console in order', async () => {
    await launch({ stopOnEntry: false });
    expect(await client.event('exited')).toEqual({ exitCode: 0 });
    const output = client.output();
    for (let step = 1; step <= 9; step++) expect(output).toContain(`[${step}]`);
    expect(output.trimEnd()).toMatch(/success$/);
  });

  it('ends at the same instruction however it was stopped and stepped', async () => {
    const count = (): string => /\((\d+) instructions\)/.exec(client.output('console'))![1]!;
    await launch({ stopOnEntry: false });
    await client.event('exited');
    const straight = count();
    client.dispose();
    await launch();
    await stop();
    await breakAt('main.rs', line('main.rs', 'memory::validate_memory()'));
    await breakAt('guest.s', line('guest.s', 'mov     r12, rdi'));
    await go('continue');
    for (const command of ['stepIn', 'stepIn', 'next', 'next', 'stepOut'] as const) await go(command);
    const { threadId } = await go('continue');
    expect(threadId).not.toBe(1);
    for (let i = 0; i < 5; i++) {
      await client.request('stepIn', { threadId, granularity: 'instruction' });
      await client.event('stopped');
    }
    await client.request('continue', { threadId });
    await client.event('exited');
    expect(count()).toBe(straight);
  });

  it.each(['no-pvalidate', 'wrong-page-size', 'unregistered-ghcb', 'no-rmpadjust'])(
    'broken as %s it stops with a reason that can be looked at',
    async (name) => {
      await launch({ program: join(SAMPLE, `broken/${name}.igvm`), stopOnEntry: false });
      const stopped = await client.event('stopped');
      expect(stopped.reason).toBe('exception');
      expect(stopped.text!.length).toBeGreaterThan(20);
      const { stackFrames } = await client.request('stackTrace', { threadId: stopped.threadId! });
      expect(stackFrames[0]!.name).not.toBe('[no symbols]');
      await client.request('continue', { threadId: stopped.threadId! });
      const { exitCode } = await client.event('exited');
      expect(exitCode).not.toBe(0);
    },
  );
});
