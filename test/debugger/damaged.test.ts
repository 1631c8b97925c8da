/** Damaged images and symbols: a launch is refused with a reason or the session works; it never breaks. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Client, memoryHost } from './client.ts';

const SAMPLE = join(import.meta.dirname, '../../samples/mini-svsm');
const igvm = new Uint8Array(readFileSync(join(SAMPLE, 'mini-svsm.igvm')));
const elf = new Uint8Array(readFileSync(join(SAMPLE, 'mini-svsm.elf')));

/** A fixed sequence of numbers below 2^32 (Numerical Recipes' generator). */
function sequence(seed: number): () => number {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
}

/** Cuts the file, or changes some bytes, near its beginning more often than elsewhere. */
function damage(bytes: Uint8Array, seed: number): Uint8Array {
  const next = sequence(seed);
  const copy = bytes.slice();
  if (seed % 4 === 0) return copy.subarray(0, next() % copy.length);
  const reach = seed % 2 === 0 ? copy.length : Math.min(copy.length, 2048);
  for (let i = 0; i < 1 + (seed % 5); i++) copy[next() % reach] = next() & 0xff;
  return copy;
}

/** Every request that reads symbols, and some that read the guest. */
async function look(client: Client): Promise<void> {
  const ask = async (command: string, args: object): Promise<void> => {
    const response = await client.raw({ command, arguments: args });
    expect(response.message ?? '', `${command}: ${JSON.stringify(response.body)}`).not.toBe('internal-error');
  };
  await ask('stackTrace', { threadId: 1 });
  await ask('loadedSources', {});
  await ask('modules', {});
  await ask('setFunctionBreakpoints', { breakpoints: [{ name: 'svsm_main' }] });
  await ask('setBreakpoints', { source: { path: '/x/src/main.rs' }, breakpoints: [{ line: 20 }] });
  await ask('disassemble', { memoryReference: '0x100010', instructionOffset: -4, instructionCount: 12 });
  await ask('evaluate', { expression: 'svsm_main', context: 'repl' });
  await ask('completions', { text: 'svsm', column: 5 });
  await ask('cvm/rmp', {});
  await ask('next', { threadId: 1 });
}

describe('damaged files', () => {
  it.each(Array.from({ length: 24 }, (_, i) => i + 1))('image %i', async (seed) => {
    const client = new Client(memoryHost({ '/m.igvm': damage(igvm, seed), '/m.elf': elf }));
    await client.request('initialize', { adapterID: 'cvm' });
    const launched = await client.raw({
      command: 'launch',
      arguments: { program: '/m.igvm', stopOnEntry: true, memory: '32M' },
    });
    if (launched.success) {
      await client.request('configurationDone');
      await client.event('stopped');
      await look(client);
    } else expect(launched.message).not.toBe('internal-error');
    await client.request('disconnect');
    client.dispose();
  });

  it.each(Array.from({ length: 24 }, (_, i) => i + 1))('symbols %i', async (seed) => {
    const client = new Client(memoryHost({ '/m.igvm': igvm, '/m.elf': damage(elf, seed) }));
    await client.launch({ program: '/m.igvm', stopOnEntry: true, memory: '32M' });
    await client.event('stopped');
    await look(client);
    await client.request('disconnect');
    client.dispose();
  });
});
