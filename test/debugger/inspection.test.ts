/** Looking at a stopped guest: registers, memory in each space, disassembly, expressions, views. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Client, memoryHost } from './client.ts';
import { RUNTIME, SHARED, SOURCE_PATH, bytesOf, testGuest } from './guest.ts';

const G = testGuest(`
start:
  mov rax, 0x1122334455667788     ; entry
  call work                       ; calls work
  call ghcb_setup                 ; shares the GHCB
  nop                             ; shared
  ud2
work:
  push rbp                        ; work begins
  mov rbp, rsp                    ; frame
  mov ebx, 7                      ; in work
  add ebx, 1                      ; sets no carry
  leave
  ret
greeting:
  ${bytesOf('hello')}
${RUNTIME}`);
const at = (label: string): string => `0x${G.labels.get(label)!.toString(16)}`;

let client: Client;
let frameId: number;
beforeEach(async () => {
  client = new Client(
    memoryHost({ '/g/g.igvm': G.igvm, '/g/g.elf': G.elf, [SOURCE_PATH]: new Uint8Array(1) }),
  );
  await client.launch({ program: '/g/g.igvm', stopOnEntry: true });
  await client.event('stopped');
  frameId = (await client.top(1)).id;
});
afterEach(() => client.dispose());

const runTo = async (marker: string): Promise<void> => {
  await client.request('setBreakpoints', {
    source: { path: SOURCE_PATH },
    breakpoints: [{ line: G.line(marker) }],
  });
  await client.request('continue', { threadId: 1 });
  await client.event('stopped');
  frameId = (await client.top(1)).id;
};
const scope = async (name: string) => {
  const { scopes } = await client.request('scopes', { frameId });
  const { variablesReference } = scopes.find((one) => one.name === name)!;
  return { variablesReference, ...(await client.request('variables', { variablesReference })) };
};
const evaluate = async (expression: string, context = 'repl'): Promise<string> =>
  (await client.request('evaluate', { expression, frameId, context })).result;
const bytes = async (memoryReference: string, count: number, offset = 0): Promise<Buffer> => {
  const body = await client.request('readMemory', { memoryReference, count, offset });
  return Buffer.from(body.data ?? '', 'base64');
};

describe('registers', () => {
  it('have one scope with the registers hint', async () => {
    const { scopes } = await client.request('scopes', { frameId });
    expect(scopes.map(({ name, presentationHint }) => [name, presentationHint])).toEqual([
      ['Registers', 'registers'],
      ['VMSA', undefined],
      ['RMP entry of the current page', undefined],
    ]);
  });

  it('are those of the save area the vCPU starts with', async () => {
    const { variables } = await scope('Registers');
    const named = Object.fromEntries(variables.map(({ name, value }) => [name, value]));
    expect(named.rip).toBe('0x0000000000010000 <start>');
    expect(named.rsp).toMatch(/^0x000000000000e000/);
    expect(named.rflags).toMatch(/^0x0000000000000002/);
    const control = variables.find(({ name }) => name === 'Control')!;
    const inner = await client.request('variables', { variablesReference: control.variablesReference });
    const cr0 = inner.variables.find(({ name }) => name === 'cr0')!;
    expect(cr0.value).toMatch(/^0x0000000080010031 \[.*PG.*\]$/);
  });

  it('can be changed, and what hangs on them changes too', async () => {
    const { variablesReference } = await scope('Registers');
    const { value } = await client.request('setVariable', {
      variablesReference,
      name: 'rbx',
      value: '40 + 2',
    });
    expect(value).toBe('0x000000000000002a');
    await client.event('invalidated');
    expect(await evaluate('bl,d')).toBe('42');
    await client.request('setExpression', { expression: '$rip', value: 'work' });
    expect((await client.top(1)).line).toBe(G.line('work begins'));
    expect(await evaluate('ah = 0x12')).toBe('0x12');
    expect(await evaluate('zf = 1')).toBe('0x01');
    expect(await evaluate('rflags')).toMatch(/ZF/);
    await expect(
      client.request('setVariable', { variablesReference, name: 'cpl', value: '3' }),
    ).rejects.toThrow(/cannot be changed/);
    await expect(client.request('setExpression', { expression: 'al', value: '256' })).rejects.toThrow(
      /does not fit/,
    );
  });

  it('of a caller are its own where they are known', async () => {
    await runTo('in work');
    const { stackFrames } = await client.request('stackTrace', { threadId: 1 });
    expect(stackFrames.map(({ name }) => name)).toEqual(['work', 'start']);
    const inner = await evaluate('rsp,d');
    const outer = await client.request('evaluate', { expression: 'rsp,d', frameId: stackFrames[1]!.id });
    expect(Number(outer.result) - Number(inner)).toBe(16);
  });

  it('go stale when the guest goes on', async () => {
    const { variablesReference } = await scope('Registers');
    await client.request('next', { threadId: 1 });
    await client.event('stopped');
    await expect(client.request('variables', { variablesReference })).rejects.toThrow(/not valid any more/);
    await expect(client.request('scopes', { frameId })).rejects.toThrow(/not valid any more/);
  });
});

describe('memory', () => {
  it('is read by virtual address, as far as it is mapped', async () => {
    expect((await bytes(at('greeting'), 6)).toString()).toBe('hello\0');
    expect((await bytes(at('greeting'), 2, 3)).toString()).toBe('lo');
    const beyond = await client.request('readMemory', { memoryReference: '0xdff0', count: 32 });
    expect(beyond.unreadableBytes).toBe(16);
    const nothing = await client.request('readMemory', { memoryReference: '0x7fff00000000', count: 16 });
    expect(nothing).toMatchObject({ data: '', unreadableBytes: 16 });
  });

  it('has two backings by physical address, once a page is shared', async () => {
    await runTo('shared');
    await client.request('writeMemory', {
      memoryReference: 'gpa:0x8000:shared',
      data: Buffer.from('host').toString('base64'),
    });
    expect((await bytes(`0x${(SHARED + 0x8000).toString(16)}`, 4)).toString()).toBe('host');
    expect((await bytes('gpa:0x8000:shared', 4)).toString()).toBe('host');
    expect((await bytes('gpa:0x8000:private', 4)).toString()).not.toBe('host');
    expect(await evaluate('rmp 0x8000')).toMatch(/state +unassigned/);
  });

  it('can be written, code too', async () => {
    const { bytesWritten } = await client.request('writeMemory', {
      memoryReference: `0x${G.address('entry').toString(16)}`,
      // mov ebx, 99; then NOPs up to the length of what was there
      data: Buffer.from('bb63000000' + '90'.repeat(5), 'hex').toString('base64'),
    });
    expect(bytesWritten).toBe(10);
    expect(await client.event('memory')).toMatchObject({ count: 10 });
    await client.request('next', { threadId: 1, granularity: 'instruction' });
    await client.event('stopped');
    frameId = (await client.top(1)).id;
    expect(await evaluate('ebx,d')).toBe('99');
  });

  it('that is not there cannot be written', async () => {
    await expect(
      client.request('writeMemory', { memoryReference: '0x7fff00000000', data: 'AAAA' }),
    ).rejects.toThrow(/cannot write/i);
  });
});

describe('disassembly', () => {
  const disassemble = async (args: Record<string, unknown>) =>
    (await client.request('disassemble', { memoryReference: at('work'), ...args })).instructions;

  it('has symbols, bytes and the line where it changes', async () => {
    const [first, second] = await disassemble({ instructionCount: 2 });
    expect(first).toMatchObject({
      address: at('work'),
      instruction: 'push rbp',
      instructionBytes: '55',
      symbol: 'work',
      line: G.line('work begins'),
      location: { path: SOURCE_PATH },
    });
    expect(second).toMatchObject({ instruction: 'mov rbp, rsp', symbol: 'work+0x1' });
  });

  it('goes backwards over instruction boundaries', async () => {
    const around = await disassemble({ instructionOffset: -3, instructionCount: 5 });
    expect(around.map(({ instruction }) => instruction.replace(/ <.*/, ''))).toEqual([
      expect.stringMatching(/^call/),
      'nop',
      'ud2',
      'push rbp',
      'mov rbp, rsp',
    ]);
    const before = await disassemble({ instructionOffset: -2, instructionCount: 1 });
    expect(before.map(({ instruction }) => instruction)).toEqual(['nop']);
  });

  it('always gives as many rows as were asked for', async () => {
    expect(await disassemble({ memoryReference: '0x7fff00000000', instructionCount: 20 })).toHaveLength(20);
    const edge = await disassemble({
      memoryReference: at('start'),
      instructionOffset: -50,
      instructionCount: 60,
    });
    expect(edge).toHaveLength(60);
    expect(edge[50]!.address).toBe(at('start'));
    expect(
      await disassemble({ memoryReference: '0x0', instructionOffset: -4, instructionCount: 4 }),
    ).toHaveLength(4);
    await expect(disassemble({ instructionCount: 1e6 })).rejects.toThrow(/at most/i);
  });

  it('stands in for a source that is not here', async () => {
    client.dispose();
    client = new Client(memoryHost({ '/g/g.igvm': G.igvm, '/g/g.elf': G.elf }));
    await client.launch({ program: '/g/g.igvm', stopOnEntry: true });
    await client.event('stopped');
    const frame = await client.top(1);
    expect(frame.source).toMatchObject({ name: 'start (disassembly)' });
    const sourceReference = frame.source!.sourceReference!;
    const { content } = await client.request('source', { sourceReference });
    const lines = content.split('\n');
    expect(lines[frame.line - 1]).toMatch(/^0x10000 {2}mov rax, /);
    const wanted = lines.findIndex((line) => line.includes('<ghcb_setup>')) + 1;
    const { breakpoints } = await client.request('setBreakpoints', {
      source: { sourceReference },
      breakpoints: [{ line: wanted }],
    });
    expect(breakpoints[0]!.verified).toBe(true);
    await client.request('continue', { threadId: 1 });
    await client.event('stopped');
    expect((await client.top(1)).line).toBe(wanted);
  });
});

describe('the console and the views', () => {
  it('evaluates for hovers and watches', async () => {
    expect(await evaluate('work', 'hover')).toMatch(/<work>$/);
    expect(await evaluate('rsp', 'hover')).toMatch(/^0xe000/);
    // A keyword of Rust, and a flag.
    await expect(evaluate('if', 'hover')).rejects.toThrow(/write \$if/);
    expect(await evaluate('$if', 'hover')).toBe('0');
    expect(await evaluate('if', 'watch')).toBe('0');
    expect(await evaluate('*(u8*)greeting,c', 'watch')).toBe("'h'");
    await expect(
      client.request('evaluate', { expression: 'info registers', context: 'watch', frameId }),
    ).rejects.toThrow(/unexpected/i);
  });

  it('has commands', async () => {
    expect(await evaluate('help')).toContain('x/8gx ADDRESS');
    expect(await evaluate('x/5bx greeting')).toBe(`${at('greeting')}: 0x68 0x65 0x6c 0x6c 0x6f`);
    expect(await evaluate('x/s greeting')).toBe('"hello"');
    expect(await evaluate('x/2i work')).toBe(
      `${at('work')}  push rbp\n0x${(G.labels.get('work')! + 1n).toString(16)}  mov rbp, rsp`,
    );
    expect(await evaluate('x/gx 0x7fff00000000')).toMatch(/\?\?$/);
    expect(await evaluate('info registers rip')).toMatch(/^rip +0x0000000000010000/);
    expect(await evaluate('info threads')).toMatch(/^\* 1 vCPU 0 · VMPL0/);
    expect(await evaluate('info breakpoints')).toBe('no breakpoints');
    expect(await evaluate('translate')).toMatch(/C-bit +1 \(private\)/);
    expect(await evaluate('symbol work + 1')).toMatch(/work\+0x1 at \/guest\/guest\.asm:/);
    expect(await evaluate('digest')).toMatch(/^[0-9a-f]{96}$/);
    expect(await evaluate('info events')).toMatch(/launch digest/);
    await expect(evaluate('info weather')).rejects.toThrow(/info knows/i);
  });

  it('completes commands, registers and symbols', async () => {
    const labels = async (text: string): Promise<string[]> =>
      (await client.request('completions', { text, column: text.length + 1, frameId })).targets.map(
        ({ label }) => label,
      );
    expect(await labels('info re')).toContain('info registers');
    expect(await labels('$rs')).toEqual(['$rsp', '$rsi']);
    expect(await labels('1 + greet')).toEqual(['greeting']);
  });

  it('gives the save area by its table', async () => {
    const { fields } = await client.request('cvm/vmsa', { threadId: 1 });
    const named = Object.fromEntries(fields.map((field) => [field.name, field]));
    // AMD APM volume 2, table B-4.
    expect(named.rip).toMatchObject({ offset: 0x178, size: 8, value: '0x0000000000010000' });
    expect(named.sev_features).toMatchObject({
      offset: 0x3b0,
      value: '0x0000000000000001',
      note: 'SNPActive',
    });
    expect(named.cr3).toMatchObject({ offset: 0x150, value: '0x0000000000001000' });
    await expect(client.request('cvm/vmsa', { threadId: 99 })).rejects.toThrow(/no thread 99/);
  });

  it('gives the reverse map table as ranges, in pages of them', async () => {
    const { ranges, total } = await client.request('cvm/rmp', {});
    expect(total).toBe(ranges.length);
    expect(ranges[0]).toMatchObject({ start: '0x1000', end: '0x4000', state: 'validated', asid: 1 });
    expect(ranges[0]!.permissions).toEqual(['rwx', 'none', 'none', 'none']);
    const page = await client.request('cvm/rmp', { start: 1, count: 1 });
    expect(page).toEqual({ ranges: [ranges[1]], total });
  });

  it('shows the RMP entry of the page it stands on', async () => {
    const { variables } = await scope('RMP entry of the current page');
    const facts = Object.fromEntries(variables.map(({ name, value }) => [name, value]));
    expect(facts).toMatchObject({
      gpa: '0x10000',
      'C-bit': '1 (private)',
      validated: 'yes',
      VMPL0: 'rwx',
      VMPL2: 'none',
    });
  });

  it('lists modules and sources', async () => {
    const { modules } = await client.request('modules', {});
    expect(modules).toMatchObject([{ id: 'g.elf', path: '/g/g.elf', symbolStatus: 'Symbols loaded' }]);
    const { sources } = await client.request('loadedSources', {});
    expect(sources).toContainEqual({ name: 'guest.asm', path: SOURCE_PATH });
  });
});
