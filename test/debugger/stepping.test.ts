/** Breakpoints and steps on a guest of the test's own: what stops where, by the text of the line. */
import { afterEach, describe, expect, it } from 'vitest';
import { Client, memoryHost } from './client.ts';
import { INLINED_PATH, RUNTIME, SOURCE_PATH, bytesOf, testGuest } from './guest.ts';
import type { TestGuest } from './guest.ts';

const FACTORIAL = testGuest(`
start:
  mov edi, 5                      ; first line
  call factorial                  ; calls factorial
  mov r12, rax                    ; back in start
  mov ecx, 1000                   ; before the loop
_again:
  dec ecx                         ; loop body
  jnz _again                       ; loop end
  call leaf                       ; calls leaf
  nop                             ; behind leaf
  call ghcb_setup                 ; sets up
  lea rsi, [rip+message]          ; takes the text
  call print_text                 ; prints
  mov edi, 0x10                   ; success
  call debug_exit                 ; exits
message:
  ${bytesOf('hello, debugger\n')}
factorial:
  push rbp                        ; factorial's first
  mov rbp, rsp                    ; sets up the frame
  push rdi                        ; behind the prologue
  cmp edi, 1                      ; compares
  ja _deeper                       ; not at the bottom
  mov eax, 1                      ; the bottom
  jmp _finish                      ; to the end
_deeper:
  dec edi                         ; one less
  call factorial                  ; recursion
  imul eax, [rbp-8]               ; multiplies
_finish:
  leave                           ; epilogue
  ret                             ; returns
leaf:
  xor eax, eax                    ; in the leaf
  push rax                        ; leaf pushes
  pop rax                         ; leaf pops
  ret                             ; leaf returns
${RUNTIME}`);

let client: Client;
afterEach(() => client.dispose());

async function launched(
  guest: TestGuest,
  args: Record<string, unknown> = {},
  configure?: (client: Client) => Promise<void>,
): Promise<void> {
  client = new Client(
    memoryHost({
      '/g/g.igvm': guest.igvm,
      '/g/g.elf': guest.elf,
      [SOURCE_PATH]: new Uint8Array(1),
      [INLINED_PATH]: new Uint8Array(1),
    }),
  );
  await client.launch({ program: '/g/g.igvm', stopOnEntry: true, ...args }, configure);
}

const source = { path: SOURCE_PATH };
const thread = { threadId: 1 };
const G = FACTORIAL;
const comment = (line: number): string => (G.text.split('\n')[line - 1] ?? '').replace(/^.*; /, '');

/** The comment of the line where the thread stands, and why. */
async function stopped(): Promise<string> {
  const { reason, threadId } = await client.event('stopped');
  const frame = await client.top(threadId!);
  return `${reason}: ${comment(frame.line)}`;
}
async function go(
  command: 'continue' | 'next' | 'stepIn' | 'stepOut',
  granularity?: string,
): Promise<string> {
  await client.request(command, { ...thread, ...(granularity ? { granularity } : {}) });
  return stopped();
}
const breakAt = (...markers: (string | Record<string, unknown>)[]) =>
  client.request('setBreakpoints', {
    source,
    breakpoints: markers.map((marker) =>
      typeof marker === 'string' ? { line: G.line(marker) } : { ...marker, line: G.line(String(marker.at)) },
    ),
  });
const value = async (expression: string): Promise<string> =>
  (await client.request('evaluate', { expression })).result;

describe('steps by line', () => {
  it('goes over calls, however deep they recurse', async () => {
    await launched(G);
    expect(await stopped()).toBe('entry: first line');
    expect(await go('next')).toBe('step: calls factorial');
    expect(await go('next')).toBe('step: back in start');
    expect(await value('eax,d')).toBe('120');
    expect(await go('next')).toBe('step: before the loop');
  });

  it('goes into calls, behind the prologue, and over recursion at its own depth', async () => {
    await launched(G);
    await stopped();
    await go('next');
    expect(await go('stepIn')).toBe('step: sets up the frame');
    for (const expected of [
      'behind the prologue',
      'compares',
      'not at the bottom',
      'one less',
      'recursion',
      'multiplies',
    ])
      expect(await go('next')).toBe(`step: ${expected}`);
    expect(await value('rdi,d')).toBe('1');
    expect(await value('*(u32*)(rbp-8),d')).toBe('5');
    expect(await go('next')).toBe('step: epilogue');
    expect(await go('next')).toBe('step: returns');
    expect(await go('next')).toBe('step: back in start');
  });

  it('goes out to the caller, from every depth and every place of a function', async () => {
    await launched(G);
    await stopped();
    await breakAt('the bottom');
    expect(await go('continue')).toBe('breakpoint: the bottom');
    const { stackFrames, totalFrames } = await client.request('stackTrace', thread);
    expect(totalFrames).toBe(6);
    expect(stackFrames.map(({ name, line }) => `${name} ${comment(line)}`)).toEqual([
      'factorial the bottom',
      ...Array.from({ length: 4 }, () => 'factorial recursion'),
      'start calls factorial',
    ]);
    await breakAt();
    expect(await go('stepOut')).toBe('step: multiplies');
    expect(await value('*(u32*)(rbp-8),d')).toBe('2');
    expect(await go('stepOut')).toBe('step: multiplies');
    expect(await value('*(u32*)(rbp-8),d')).toBe('3');
  });

  it('knows the caller before the prologue, in a leaf without a frame and in an epilogue', async () => {
    await launched(G);
    await stopped();
    const callers: string[] = [];
    for (const marker of [
      "factorial's first",
      'behind the prologue',
      'returns',
      'in the leaf',
      'leaf pops',
      'leaf returns',
    ]) {
      await client.request('setInstructionBreakpoints', {
        breakpoints: [{ instructionReference: `0x${G.address(marker).toString(16)}` }],
      });
      await go('continue');
      const { stackFrames } = await client.request('stackTrace', thread);
      callers.push(
        `${marker}: ${stackFrames[0]!.name} < ${stackFrames[1]!.name} ${comment(stackFrames[1]!.line)}`,
      );
    }
    expect(callers).toEqual([
      "factorial's first: factorial < start calls factorial",
      'behind the prologue: factorial < start calls factorial',
      'returns: factorial < factorial recursion',
      'in the leaf: leaf < start calls leaf',
      'leaf pops: leaf < start calls leaf',
      'leaf returns: leaf < start calls leaf',
    ]);
    expect(await go('stepOut')).toBe('step: behind leaf');
  });

  it('goes over a line that runs for long at full speed', async () => {
    const long = testGuest(`
start:
  call outer                      ; calls
  hlt
outer:
  push rbp
  mov rbp, rsp
  mov ecx, 1000000                ; sets up
_loop:
  dec ecx                         ; a long line
  jnz _loop                       ; (same line)
  mov r12, 1                      ; behind it
  leave
  ret
`);
    await launched(long);
    await client.event('stopped');
    await client.request('setBreakpoints', { source, breakpoints: [{ line: long.line('a long line') }] });
    await client.request('continue', thread);
    await client.event('stopped');
    await client.request('setBreakpoints', { source, breakpoints: [] });
    const lineOf = async (): Promise<string> =>
      long.text.split('\n')[(await client.top(1)).line - 1]!.replace(/^.*; /, '');
    await client.request('next', thread);
    await client.event('stopped');
    expect(await lineOf()).toBe('behind it');
  });

  it('stops at a breakpoint inside what it steps over', async () => {
    await launched(G);
    await stopped();
    await breakAt('the bottom');
    await go('next');
    expect(await go('next')).toBe('breakpoint: the bottom');
    expect(await go('stepOut')).toBe('step: multiplies');
  });
});

describe('inlined code of another file', () => {
  const inlining = testGuest(`
start:
  mov ebx, 1                      ; before
  mov ecx, 2
  add ecx, 1                      ; first of it (inlined)
  add ecx, 2                      ; second of it (inlined)
  mov edx, 3                      ; after
  hlt
`);

  it('is stepped over, and gone through when the user stands in it', async () => {
    await launched(inlining);
    await client.event('stopped');
    await go('next');
    await client.request('next', thread);
    await client.event('stopped');
    expect((await client.top(1)).line).toBe(inlining.line('after'));
    await client.request('restart');
    await client.event('stopped');
    const at: string[] = [];
    for (const command of ['stepIn', 'stepIn', 'next', 'next'] as const) {
      await client.request(command, thread);
      await client.event('stopped');
      const frame = await client.top(1);
      at.push(
        `${frame.source?.name} ${inlining.text.split('\n')[frame.line - 1]!.replace(/^.*; /, '').trim()}`,
      );
    }
    expect(at).toEqual([
      'guest.asm mov ecx, 2',
      'inlined.asm first of it (inlined)',
      'inlined.asm second of it (inlined)',
      'guest.asm after',
    ]);
  });
});

describe('exceptions', () => {
  /** Handlers as COCONUT-SVSM's entry code: no frame of their own, all registers pushed. */
  const trapping = testGuest(`
start:
  lgdt [rip+gdtr]
  lidt [rip+idtr]
  lea rdi, [rip+idt+48]
  lea rax, [rip+entry_bp]
  call set_gate
  lea rdi, [rip+idt+208]
  lea rax, [rip+entry_gp]
  call set_gate
  mov ebx, 5                      ; ready
  call work                       ; works
  nop                             ; worked
  hlt
set_gate:
  mov [rdi], ax
  mov word [rdi+2], 8
  mov word [rdi+4], 0x8e00
  shr rax, 16
  mov [rdi+6], ax
  ret
work:
  push rbp
  mov rbp, rsp
  inc ebx                         ; before the breakpoint
  int3                            ; raises #BP
  inc ebx                         ; behind the breakpoint
  mov rax, 0x8000000000000000
  mov [rax], ebx                  ; raises #GP
  leave                           ; done
  ret
entry_bp:
  push 0
  push rax                        ; saves RAX
  push rbp
  push rdi
  call handler                    ; handles #BP
  pop rdi
  pop rbp
  pop rax
  add rsp, 8
  iretq
entry_gp:
  push rax
  push rbp
inner_label:
  push rdi
  call handler                    ; handles #GP
  pop rdi
  pop rbp
  pop rax
  add rsp, 8
  add qword [rsp], 2              ; behind the store
  iretq
handler:
  push rbp
  mov rbp, rsp
  mov ecx, 1                      ; in the handler
  leave
  ret
align 16
gdt:
  dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff
gdtr:
  dw 23
  dq gdt
idtr:
  dw 255
  dq idt
align 16
idt:
  times 256 db 0
`);
  const lineText = (line: number): string => trapping.text.split('\n')[line - 1]!.replace(/^.*; /, '');
  const stack = async (): Promise<string[]> =>
    (await client.request('stackTrace', thread)).stackFrames.map(
      ({ name, line }) => `${name} ${lineText(line)}`,
    );
  const stopAt = async (marker: string): Promise<void> => {
    await client.request('setBreakpoints', { source, breakpoints: [{ line: trapping.line(marker) }] });
    await client.request('continue', thread);
    await client.event('stopped');
    await client.request('setBreakpoints', { source, breakpoints: [] });
  };

  it('have the interrupted function in the stack, with and without an error code', async () => {
    await launched(trapping);
    await client.event('stopped');
    const below = ['work behind the breakpoint', 'start works'];
    await stopAt('saves RAX');
    expect(await stack()).toEqual(['entry_bp saves RAX', ...below]);
    await stopAt('in the handler');
    expect(await stack()).toEqual(['handler in the handler', 'entry_bp handles #BP', ...below]);
    await stopAt('in the handler');
    expect(await stack()).toEqual([
      'handler in the handler',
      'inner_label handles #GP',
      'work raises #GP',
      'start works',
    ]);
    await client.request('stepOut', thread);
    await client.event('stopped');
    await client.request('stepOut', thread);
    await client.event('stopped');
    expect(await stack()).toEqual(['work done', 'start works']);
  });

  it('are stepped over with the line that raises them', async () => {
    await launched(trapping);
    await client.event('stopped');
    await stopAt('before the breakpoint');
    const seen: string[] = [];
    for (let i = 0; i < 5; i++) {
      await client.request('next', thread);
      await client.event('stopped');
      seen.push(lineText((await client.top(1)).line).trim());
    }
    expect(seen).toEqual([
      'raises #BP',
      'behind the breakpoint',
      'mov rax, 0x8000000000000000',
      'raises #GP',
      'done',
    ]);
  });
});

describe('with two vCPUs', () => {
  const two = testGuest(`
start:
  call ghcb_setup
  call start_ap                   ; starts the other
  mov r12, 1                      ; both run
_wait:
  cmp dword [rip+flag], 1         ; waits for the other
  jne _wait                       ; (same line)
  nop                             ; went on
  cli
  hlt
ap:
  mov ecx, 5000                   ; begins
_delay:
  dec ecx                         ; delays
  jnz _delay
  mov dword [rip+flag], 1         ; sets the flag
  cli
  hlt
flag:
  dd 0
${RUNTIME}`);
  const lineOf = async (threadId: number): Promise<string> =>
    two.text.split('\n')[(await client.top(threadId)).line - 1]!.replace(/^.*; /, '');
  const at = (marker: string) =>
    client.request('setBreakpoints', { source, breakpoints: [{ line: two.line(marker) }] });

  it('a line that waits for the other vCPU comes to its end', async () => {
    await launched(two, { vcpus: 2 });
    await client.event('stopped');
    await at('waits for the other');
    await client.request('continue', thread);
    await client.event('stopped');
    await client.request('setBreakpoints', { source, breakpoints: [] });
    await client.request('next', thread);
    expect(await client.event('stopped')).toMatchObject({ reason: 'step', threadId: 1 });
    expect(await lineOf(1)).toBe('went on');
  });

  it('each is stepped by itself', async () => {
    await launched(two, { vcpus: 2 });
    await client.event('stopped');
    await at('begins');
    await client.request('continue', thread);
    const { threadId } = await client.event('stopped');
    const { threads } = await client.request('threads');
    expect(threads.find(({ id }) => id === threadId)!.name).toBe('vCPU 1 · VMPL0');
    await client.request('setBreakpoints', { source, breakpoints: [] });
    const waiting = await lineOf(1);
    await client.request('next', { threadId: threadId! });
    expect(await client.event('stopped')).toMatchObject({ reason: 'step', threadId });
    expect(await lineOf(threadId!)).toBe('delays');
    expect(await lineOf(1)).toBe(waiting);
  });
});

describe('steps by instruction', () => {
  it('goes in, and over', async () => {
    await launched(G);
    await stopped();
    await go('stepIn', 'instruction');
    expect(await go('stepIn', 'instruction')).toBe("step: factorial's first");
    expect(await value('*(u64*)rsp')).toMatch(`0x${G.address('back in start').toString(16)}`);
  });

  it('goes over a call to the instruction behind it', async () => {
    await launched(G);
    await stopped();
    await go('next', 'instruction');
    expect(await go('next', 'instruction')).toBe('step: back in start');
  });
});

describe('breakpoints', () => {
  it('slide to the next line with code, and say so', async () => {
    await launched(G);
    await stopped();
    const { breakpoints } = await client.request('setBreakpoints', {
      source,
      breakpoints: [{ line: G.line('_again:') }, { line: 100_000 }],
    });
    expect(breakpoints[0]).toMatchObject({ verified: true, line: G.line('loop body') });
    expect(breakpoints[1]).toMatchObject({ verified: false, message: expect.stringMatching(/No code/) });
  });

  it('set before the launch are placed by it', async () => {
    client = new Client(
      memoryHost({ '/g/g.igvm': G.igvm, '/g/g.elf': G.elf, [SOURCE_PATH]: new Uint8Array(1) }),
    );
    await client.request('initialize', { adapterID: 'cvm' });
    const { breakpoints } = await client.request('setBreakpoints', {
      source,
      breakpoints: [{ line: G.line('before the loop') }],
    });
    expect(breakpoints[0]!.verified).toBe(false);
    await client.request('launch', { program: '/g/g.igvm' });
    const { breakpoint } = await client.event('breakpoint');
    expect(breakpoint).toMatchObject({ id: breakpoints[0]!.id, verified: true });
    await client.request('configurationDone');
    expect(await stopped()).toBe('breakpoint: before the loop');
  });

  it('hold by condition and by count', async () => {
    await launched(G);
    await stopped();
    await breakAt({ at: 'loop body', condition: 'ecx == 500' });
    expect(await go('continue')).toBe('breakpoint: loop body');
    expect(await value('ecx,d')).toBe('500');
    await breakAt({ at: 'loop body', hitCondition: '% 100' });
    await go('continue');
    expect(await value('ecx,d')).toBe('400');
    await breakAt({ at: 'loop body', condition: 'ecx % 7 == 0', hitCondition: '3' });
    await go('continue');
    expect(await value('ecx,d')).toBe('385');
  });

  it('stop, with the reason on the console, when their condition cannot be computed', async () => {
    await launched(G);
    await stopped();
    await breakAt({ at: 'before the loop', condition: '*(u8*)0xdead000000000000 == 1' });
    expect(await go('continue')).toBe('breakpoint: before the loop');
    expect(client.output('console')).toMatch(/condition of the breakpoint .* failed: cannot read/);
  });

  it('log without stopping', async () => {
    await launched(G);
    await stopped();
    await breakAt(
      { at: 'multiplies', logMessage: 'n = {*(u32*)(rbp-8),d}, so far {eax,d}' },
      'back in start',
    );
    expect(await go('continue')).toBe('breakpoint: back in start');
    expect(client.output('console')).toBe(
      'n = 2, so far 1\nn = 3, so far 2\nn = 4, so far 6\nn = 5, so far 24\n',
    );
  });

  it('are found by function name, and by address', async () => {
    await launched(G);
    await stopped();
    const functions = await client.request('setFunctionBreakpoints', {
      breakpoints: [{ name: 'leaf' }, { name: 'nowhere' }],
    });
    expect(functions.breakpoints).toMatchObject([
      { verified: true },
      { verified: false, message: "There is no function named 'nowhere'" },
    ]);
    const { breakpoints } = await client.request('setInstructionBreakpoints', {
      breakpoints: [
        { instructionReference: `0x${G.address('before the loop').toString(16)}` },
        { instructionReference: 'gpa:0x1000:private' },
        { instructionReference: 'nonsense' },
      ],
    });
    expect(breakpoints.map(({ verified }) => verified)).toEqual([true, false, false]);
    expect(await go('continue')).toBe('instruction breakpoint: before the loop');
    expect(await go('continue')).toBe('function breakpoint: in the leaf');
  });

  it('at the very first instruction are hit once, and not again when going on', async () => {
    await launched(
      G,
      { stopOnEntry: false },
      async () => void (await breakAt('first line', 'back in start')),
    );
    expect(await stopped()).toBe('breakpoint: first line');
    expect(await go('continue')).toBe('breakpoint: back in start');
    expect(await go('stepIn', 'instruction')).toBe('step: before the loop');
  });

  it('reached by a step are not hit a second time', async () => {
    await launched(G);
    await stopped();
    await breakAt('calls factorial', 'back in start');
    expect(await go('next')).toBe('breakpoint: calls factorial');
    expect(await go('continue')).toBe('breakpoint: back in start');
  });

  it('and frames count lines as the client does', async () => {
    client = new Client(
      memoryHost({ '/g/g.igvm': G.igvm, '/g/g.elf': G.elf, [SOURCE_PATH]: new Uint8Array(1) }),
    );
    await client.request('initialize', { adapterID: 'cvm', linesStartAt1: false });
    await client.request('launch', { program: '/g/g.igvm' });
    const zeroBased = G.line('back in start') - 1;
    const { breakpoints } = await client.request('setBreakpoints', {
      source,
      breakpoints: [{ line: zeroBased }],
    });
    expect(breakpoints[0]!.line).toBe(zeroBased);
    await client.request('configurationDone');
    await client.event('stopped');
    expect((await client.top(1)).line).toBe(zeroBased);
  });

  it('outlive a restart', async () => {
    await launched(G);
    await stopped();
    await breakAt({ at: 'loop body', hitCondition: '10' });
    await go('continue');
    expect(await value('ecx,d')).toBe('991');
    await client.request('restart');
    expect(await stopped()).toBe('entry: first line');
    await go('continue');
    expect(await value('ecx,d')).toBe('991');
  });
});

describe('the end', () => {
  it('is the guest’s own: console, exit code, terminated', async () => {
    await launched(G, { stopOnEntry: false });
    expect(await client.event('exited')).toEqual({ exitCode: 0 });
    await client.event('terminated');
    expect(client.output()).toBe('hello, debugger\n');
    expect(client.output('console')).toMatch(/isa-debug-exit.*instructions/);
    await expect(client.request('next', thread)).rejects.toThrow(/has ended: restart/);
    await client.request('restart');
    expect(await client.event('exited')).toEqual({ exitCode: 0 });
  });

  it('is all that is told of a run without debugging', async () => {
    await launched(G, { noDebug: true }, async () => void (await breakAt('first line', 'back in start')));
    expect(await client.event('exited')).toEqual({ exitCode: 0 });
    expect(client.pending('stopped')).toEqual([]);
    client.dispose();
    await launched(testGuest(`start:\n ud2\n${RUNTIME}`), { noDebug: true });
    expect(await client.event('exited')).toEqual({ exitCode: 1 });
    expect(client.output('console')).toMatch(/triple fault/);
  });

  it('says why a guest asked to be terminated, and lets the user look', async () => {
    await launched(testGuest(`start:\n mov edi, 0x42\n call request_termination\n${RUNTIME}`), {
      stopOnEntry: false,
    });
    const stop = await client.event('stopped');
    expect(stop).toMatchObject({ reason: 'exception', description: 'The guest asked to be terminated' });
    expect(stop.text).toMatch(/reason code 66 of set 3/);
    const info = await client.request('exceptionInfo', { threadId: stop.threadId! });
    expect(info).toMatchObject({ exceptionId: 'terminated', breakMode: 'unhandled' });
    expect((await client.request('stackTrace', { threadId: 1 })).stackFrames[0]!.name).toBe(
      'request_termination',
    );
    await client.request('continue', thread);
    expect(await client.event('exited')).toEqual({ exitCode: 1 });
  });

  it('names the shutdown of a guest without exception handlers', async () => {
    await launched(testGuest(`start:\n nop\n ud2\n${RUNTIME}`), { stopOnEntry: false });
    const stop = await client.event('stopped');
    expect(stop).toMatchObject({ reason: 'exception', description: 'Shutdown (triple fault)' });
    expect(stop.text).toMatch(/triple fault/);
  });

  it('of all processors halting is a stop, not an end', async () => {
    await launched(testGuest(`start:\n cli\n hlt\n nop\n${RUNTIME}`), { stopOnEntry: false });
    expect(await client.event('stopped')).toMatchObject({ description: 'Every vCPU is halted' });
    expect((await client.request('threads')).threads[0]!.name).toMatch(/halted/);
  });
});
