/** A client that asks too early, too late or nonsense gets an error, and the session lives on. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { SHAPES } from '../../src/debugger/dap/shape.ts';
import { Client, memoryHost } from './client.ts';

const SAMPLE = join(import.meta.dirname, '../../samples/mini-svsm/mini-svsm.igvm');

let client: Client;
afterEach(() => client.dispose());

const initialized = async (): Promise<void> => {
  client = new Client();
  await client.request('initialize', { adapterID: 'cvm' });
};

describe('order', () => {
  it('refuses a launch before initialize, and a second initialize', async () => {
    client = new Client();
    await expect(client.request('launch', { program: 'x.igvm' })).rejects.toThrow(
      /initialize must come before/i,
    );
    await client.request('initialize', { adapterID: 'cvm' });
    await expect(client.request('initialize', { adapterID: 'cvm' })).rejects.toThrow(/already received/);
  });

  it('says of every request that needs a guest that there is none', async () => {
    await initialized();
    const needs = {
      threads: {},
      stackTrace: { threadId: 1 },
      scopes: { frameId: 1 },
      variables: { variablesReference: 1 },
      evaluate: { expression: 'rax' },
      continue: { threadId: 1 },
      next: { threadId: 1 },
      stepIn: { threadId: 1 },
      stepOut: { threadId: 1 },
      pause: { threadId: 1 },
      readMemory: { memoryReference: '0x0', count: 1 },
      writeMemory: { memoryReference: '0x0', data: '' },
      disassemble: { memoryReference: '0x0', instructionCount: 1 },
      modules: {},
      loadedSources: {},
      exceptionInfo: { threadId: 1 },
      completions: { text: 'r', column: 2 },
      setVariable: { variablesReference: 1, name: 'rax', value: '1' },
      'cvm/vmsa': { threadId: 1 },
      'cvm/rmp': {},
    } as const;
    for (const [command, args] of Object.entries(needs))
      await expect(client.request(command as keyof typeof needs, args), command).rejects.toMatchObject({
        code: 'not-launched',
      });
  });

  it('keeps breakpoints that are set before the launch, unverified', async () => {
    await initialized();
    const { breakpoints } = await client.request('setBreakpoints', {
      source: { path: '/src/main.rs' },
      breakpoints: [{ line: 3 }, { line: 5, condition: 'rax ==' }, { line: 6, hitCondition: 'often' }],
    });
    expect(breakpoints.map(({ verified, message, line }) => ({ verified, message, line }))).toEqual([
      { verified: false, message: 'Set when the guest is loaded', line: 3 },
      { verified: false, message: expect.stringMatching(/unexpected end/), line: 5 },
      { verified: false, message: expect.stringMatching(/hit condition/), line: 6 },
    ]);
    const again = await client.request('setBreakpoints', {
      source: { path: '/src/main.rs' },
      breakpoints: [{ line: 3 }],
    });
    expect(again.breakpoints[0]!.id).toBe(breakpoints[0]!.id);
  });

  it('answers disconnect, terminate and cancel at any time', async () => {
    client = new Client();
    await client.request('cancel', { requestId: 7 });
    await client.request('terminate');
    await client.request('disconnect');
  });
});

describe('a launch that cannot be', () => {
  it.each([
    [{}, /'program' is missing/],
    [{ program: '' }, /'program' is missing/],
    [{ program: 7 }, /'program' is missing/],
    [{ program: '/nowhere/x.igvm' }, /cannot open/i],
    [{ program: '/a', vcpus: 0 }, /'vcpus' must be a number from 1 to 64/],
    [{ program: '/a', vcpus: 1.5 }, /'vcpus'/],
    [{ program: '/a', memory: 'lots' }, /no memory size/],
    [{ program: '/a', memory: '4097' }, /no memory size/],
    [{ program: '/a', memory: {} }, /'memory'/],
    [{ program: '/a', platform: 'tdx' }, /'platform' must be 'snp'/],
    [{ program: '/a', symbols: 'x.elf' }, /'symbols' must be an array/],
    [{ program: '/a', symbols: [1] }, /'symbols' must be an array/],
    [{ program: '/a', stopOnEntry: 'yes' }, /'stopOnEntry'/],
    [{ program: '/a', sourceMap: 'x' }, /'sourceMap'/],
    [{ program: '/a', sourceMap: { '/a': 3 } }, /'sourceMap'/],
  ])('%j is refused, and another one can follow', async (args, message) => {
    await initialized();
    await expect(client.request('launch', args)).rejects.toThrow(message);
    await expect(client.request('launch', args)).rejects.toThrow(message);
  });

  it('is refused for files that are something else', async () => {
    const text = new TextEncoder().encode('#!/bin/sh\necho this is no guest at all, only a script\n');
    client = new Client(memoryHost({ '/empty.igvm': new Uint8Array(0), '/text.igvm': text }));
    await client.request('initialize', { adapterID: 'cvm' });
    for (const program of ['/empty.igvm', '/text.igvm'])
      await expect(client.request('launch', { program })).rejects.toThrow(/IGVM/);
  });
});

describe('a client that leaves while the guest is loaded', () => {
  it('has its launch cancelled', async () => {
    let give: (bytes: Uint8Array) => void = () => {};
    const slow = memoryHost({});
    client = new Client({
      ...slow,
      files: { ...slow.files, readFile: () => new Promise((resolve) => (give = resolve)) },
    });
    await client.request('initialize', { adapterID: 'cvm' });
    const launch = client.raw({ command: 'launch', arguments: { program: '/slow.igvm' } });
    await expect(client.request('threads')).rejects.toThrow(/still being loaded/);
    await client.request('disconnect');
    give(new Uint8Array(readFileSync(SAMPLE)));
    expect(await launch).toMatchObject({ success: false, message: 'cancelled' });
    expect(client.pending('initialized')).toEqual([]);
  });
});

describe('hostile messages', () => {
  const nonsense: unknown[] = [
    null,
    1,
    'text',
    [],
    {},
    { threadId: 'one' },
    { threadId: -1, frameId: 1e9, variablesReference: 2 ** 40 },
    { breakpoints: 7, source: 'x', filters: [1], expression: [], memoryReference: {}, count: -5, text: 3 },
    { breakpoints: [null], source: {}, line: 1.5, instructionCount: 1e300, data: '!!', column: 'a' },
    { source: { path: 5 }, breakpoints: [{ line: '7' }], name: {}, value: [] },
  ];

  it('get an answer each', async () => {
    await initialized();
    for (const command of [...Object.keys(SHAPES), 'toString', '__proto__', 'constructor', 'unknown'])
      for (const args of nonsense) {
        if (command === 'initialize' || command === 'disconnect') continue;
        const response = await client.raw({ command, arguments: args });
        expect(typeof response.success, `${command} ${JSON.stringify(args)}`).toBe('boolean');
        if (!response.success)
          expect(response.message, `${command} ${JSON.stringify(args)}`).not.toBe('internal-error');
      }
  });

  it('that are no requests are ignored', async () => {
    await initialized();
    for (const message of [
      null,
      5,
      'x',
      [],
      {},
      { type: 'request' },
      { type: 'request', seq: 'a', command: 'b' },
    ])
      client.session.receive(message as never);
    await client.request('cancel');
  });

  it('name the field that is wrong', async () => {
    await initialized();
    await expect(
      client.request('setBreakpoints', { source: {}, breakpoints: [{ line: 1 }, { line: 'x' }] }),
    ).rejects.toThrow(/breakpoints\[1\]\.line must be an integer/i);
  });
});
