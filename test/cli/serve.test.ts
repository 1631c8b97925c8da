/** `cvm dap` and `cvm lsp` over pipes: one session, ended by its client. */
import { describe, expect, it } from 'vitest';
import { MessageReader, frame } from '../../src/cli/framing.ts';
import { SAMPLE, SAMPLE_ELF, finish, start } from './cvm.ts';

/** A client of a server on pipes. */
function connect(command: 'dap' | 'lsp') {
  const child = start(command);
  const messages: Record<string, unknown>[] = [];
  const waiting: {
    test: (message: Record<string, unknown>) => boolean;
    resolve: (message: never) => void;
  }[] = [];
  const reader = new MessageReader((message) => {
    messages.push(message as Record<string, unknown>);
    const index = waiting.findIndex(({ test }) => test(message as Record<string, unknown>));
    if (index >= 0) waiting.splice(index, 1)[0]!.resolve(message as never);
  });
  const done = finish(child);
  child.stdout.on('data', (chunk: Buffer) => reader.feed(chunk));
  return {
    child,
    done,
    send: (message: object): void => void child.stdin.write(frame(message)),
    until: (test: (message: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> => {
      const found = messages.find(test);
      if (found) return Promise.resolve(found);
      return new Promise((resolve) => waiting.push({ test, resolve }));
    },
  };
}

describe('dap', () => {
  it('serves a session and ends with disconnect', async () => {
    const { send, until, done } = connect('dap');
    const request = (seq: number, command: string, args: object = {}): void =>
      send({ seq, type: 'request', command, arguments: args });
    const event = (name: string) => until((message) => message.event === name);
    request(1, 'initialize', { adapterID: 'cvm' });
    request(2, 'launch', { program: SAMPLE, symbols: [SAMPLE_ELF] });
    await event('initialized');
    request(3, 'setFunctionBreakpoints', { breakpoints: [{ name: 'validate_memory' }] });
    request(4, 'configurationDone');
    const stopped = await event('stopped');
    expect(stopped.body).toMatchObject({ reason: 'function breakpoint' });
    request(5, 'stackTrace', { threadId: 1 });
    const stack = await until((message) => message.request_seq === 5);
    // The bundle has the demangler.
    expect((stack.body as { stackFrames: { name: string }[] }).stackFrames[0]!.name).toBe(
      'mini_svsm::memory::validate_memory',
    );
    request(6, 'continue', { threadId: 1 });
    const exited = await event('exited');
    expect(exited.body).toEqual({ exitCode: 0 });
    request(7, 'disconnect');
    expect(await done).toMatchObject({ code: 0, stderr: '' });
  });

  it('ends when its client closes its end, while the guest runs too', async () => {
    const { child, send, until, done } = connect('dap');
    send({ seq: 1, type: 'request', command: 'initialize', arguments: { adapterID: 'cvm' } });
    send({ seq: 2, type: 'request', command: 'launch', arguments: { program: SAMPLE } });
    await until((message) => message.event === 'initialized');
    send({ seq: 3, type: 'request', command: 'configurationDone' });
    child.stdin.end();
    expect((await done).code).toBe(0);
  });

  it('ends with an error when its client speaks another protocol', async () => {
    const { child, done } = connect('dap');
    child.stdin.end('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const { code, stderr } = await done;
    expect(code).toBe(2);
    expect(stderr).toMatch(/no Content-Length/);
  });
});

describe('lsp', () => {
  it('serves its client and ends with it', async () => {
    const { send, until, done } = connect('lsp');
    send({
      jsonrpc: '2.0',
      id: 1,
      method: 'initialize',
      params: { processId: null, rootUri: null, capabilities: {} },
    });
    const answer = await until((message) => message.id === 1);
    expect(answer.result).toMatchObject({ capabilities: { hoverProvider: true } });
    send({ jsonrpc: '2.0', method: 'initialized', params: {} });
    send({ jsonrpc: '2.0', id: 2, method: 'shutdown' });
    await until((message) => message.id === 2);
    send({ jsonrpc: '2.0', method: 'exit' });
    expect((await done).code).toBe(0);
  });
});
