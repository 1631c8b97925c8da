/** Whole conversations against committed texts: what a client sees, message by message. */
import { afterEach, describe, it } from 'vitest';
import { Client, memoryHost } from './client.ts';
import { conversation, expectGolden } from './golden.ts';
import { RUNTIME, SOURCE_PATH, bytesOf, testGuest } from './guest.ts';

const G = testGuest(`
start:
  call ghcb_setup                 ; shares the GHCB
  lea rsi, [rip+hello]            ; takes the text
  call print_text                 ; prints it
  call square                     ; squares
  mov edi, 0x10                   ; success
  call debug_exit
square:
  push rbp
  mov rbp, rsp
  mov eax, 12                     ; in square
  imul eax, eax                   ; the product
  leave
  ret
hello:
  ${bytesOf('hello\n')}
${RUNTIME}`);
const files = { '/g/g.igvm': G.igvm, '/g/g.elf': G.elf, [SOURCE_PATH]: new Uint8Array(1) };

let client: Client;
afterEach(() => client.dispose());

const stop = async (): Promise<number> => {
  const { threadId } = await client.event('stopped');
  const { stackFrames } = await client.request('stackTrace', { threadId: threadId! });
  return stackFrames[0]!.id;
};

describe('conversations', () => {
  it('a session from launch to exit', async () => {
    client = new Client(memoryHost(files));
    await client.launch({ program: '/g/g.igvm', stopOnEntry: true }, async () => {
      await client.request('setBreakpoints', {
        source: { path: SOURCE_PATH },
        breakpoints: [{ line: G.line('the product') }],
      });
      await client.request('setFunctionBreakpoints', { breakpoints: [] });
      await client.request('setExceptionBreakpoints', { filters: [] });
    });
    await client.request('threads');
    await stop();
    await client.request('next', { threadId: 1 });
    await stop();
    await client.request('continue', { threadId: 1 });
    const frameId = await stop();
    const { scopes } = await client.request('scopes', { frameId });
    await client.request('variables', { variablesReference: scopes[0]!.variablesReference });
    await client.request('variables', { variablesReference: scopes[2]!.variablesReference });
    await client.request('setVariable', {
      variablesReference: scopes[0]!.variablesReference,
      name: 'rax',
      value: '7',
    });
    await client.request('evaluate', { expression: 'eax * eax', frameId: 0, context: 'repl' });
    await client.request('readMemory', { memoryReference: 'gpa:0x8000:shared', count: 16, offset: 0xff0 });
    await client.request('disassemble', {
      memoryReference: `0x${G.address('the product').toString(16)}`,
      instructionOffset: -1,
      instructionCount: 3,
      resolveSymbols: true,
    });
    await client.request('stepOut', { threadId: 1 });
    await stop();
    await client.request('continue', { threadId: 1 });
    await client.event('terminated');
    await client.request('disconnect');
    expectGolden('launch-to-exit', conversation(client.log));
  });

  it('without symbols', async () => {
    client = new Client(memoryHost({ '/g/g.igvm': G.igvm }));
    await client.launch({ program: '/g/g.igvm', stopOnEntry: true });
    await stop();
    await client.request('stepIn', { threadId: 1 });
    await stop();
    await client.request('stepOut', { threadId: 1 }).catch(() => {});
    await client.request('setBreakpoints', { source: { path: SOURCE_PATH }, breakpoints: [{ line: 3 }] });
    await client.request('terminate');
    await client.event('terminated');
    expectGolden('without-symbols', conversation(client.log));
  });

  it('a guest that fails', async () => {
    const failing = testGuest(`start:\n  mov edi, 1\n  call request_termination\n${RUNTIME}`);
    client = new Client(memoryHost({ '/g.igvm': failing.igvm, '/g.elf': failing.elf }));
    await client.launch({ program: '/g.igvm' });
    const { threadId } = await client.event('stopped');
    await client.request('exceptionInfo', { threadId: threadId! });
    await client.request('continue', { threadId: threadId! });
    await client.event('terminated');
    await client.request('disconnect');
    expectGolden('guest-failure', conversation(client.log));
  });

  it('a launch that is refused, then one that is not', async () => {
    client = new Client(memoryHost({ ...files, '/bad.igvm': G.igvm.slice(0, 200), '/bad.elf': G.igvm }));
    await client.request('initialize', { adapterID: 'cvm' });
    for (const args of [
      {},
      { program: '/bad.igvm' },
      { program: '/g/g.igvm', symbols: ['/bad.elf'] },
      { program: '/g/g.igvm', memory: '3' },
      { program: '/g/g.igvm', memory: '8K' },
    ])
      await client.request('launch', args).catch(() => {});
    await client.request('launch', { program: '/g/g.igvm' });
    await client.request('launch', { program: '/g/g.igvm' }).catch(() => {});
    await client.request('continue', { threadId: 1 }).catch(() => {});
    await client.request('disconnect');
    expectGolden('refused-launch', conversation(client.log));
  });
});
