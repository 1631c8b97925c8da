/**
 * Frames of inlined functions, on the committed sample: its build without optimisation inlines next to nothing,
 * but core's own functions into each other. What is inlined where is tested against addr2line in test/symbols.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { SymbolSpace } from '../../src/symbols/index.ts';
import type { InlineFrame } from '../../src/symbols/index.ts';
import { Client, memoryHost } from './client.ts';

const SAMPLE = join(import.meta.dirname, '../../samples/mini-svsm');
const read = (name: string): Uint8Array => new Uint8Array(readFileSync(join(SAMPLE, name)));

/** The first place three functions deep, and the functions there. */
let place: bigint;
let levels: InlineFrame[];
beforeAll(() => {
  const symbols = new SymbolSpace();
  const image = symbols.add({ name: 'mini-svsm.elf', bytes: read('mini-svsm.elf') });
  const code = image.elf.segments.filter((segment) => segment.flags & 1);
  for (const { virtualAddress, memorySize } of code)
    for (place = virtualAddress; place < virtualAddress + memorySize; place++)
      if ((levels = symbols.inlineFramesAt(place)).length === 3) return;
  throw new Error('the sample has no function inlined into an inlined one');
});

let client: Client;
afterEach(() => client.dispose());

/** The stack at that place, with the sources of the named levels at hand. */
async function stackThere(present: readonly InlineFrame[]) {
  client = new Client(
    memoryHost({
      '/g/g.igvm': read('mini-svsm.igvm'),
      '/g/g.elf': read('mini-svsm.elf'),
      ...Object.fromEntries(present.map(({ file }) => [file, new Uint8Array(1)])),
    }),
  );
  await client.launch({ program: '/g/g.igvm', stopOnEntry: true });
  await client.event('stopped');
  await client.request('evaluate', { expression: `rip = 0x${place.toString(16)}`, context: 'repl' });
  const { stackFrames } = await client.request('stackTrace', { threadId: 1 });
  return stackFrames;
}

describe('inlined functions', () => {
  it('have frames of their own: the innermost at its line, the others where they call', async () => {
    const frames = (await stackThere(levels)).slice(0, 3);
    expect(levels.map(({ inlined }) => inlined)).toEqual([true, true, false]);
    expect(frames.map(({ name }) => name)).toEqual([
      expect.stringMatching(/count_ones \[inlined\]$/),
      expect.stringMatching(/is_power_of_two \[inlined\]$/),
      expect.stringMatching(/is_aligned_to$/),
    ]);
    expect(frames.map(({ source, line, column }) => [source?.path, line, column])).toEqual(
      levels.map(({ file, line, column }) => [file, line, column]),
    );
    expect(new Set(frames.map(({ instructionPointerReference }) => instructionPointerReference)).size).toBe(
      1,
    );
  });

  it('keep their ids, and show the registers of the function around them', async () => {
    const frames = await stackThere(levels);
    const registers: unknown[] = [];
    for (const { id } of frames.slice(0, 3)) {
      const { scopes } = await client.request('scopes', { frameId: id });
      const { variables } = await client.request('variables', {
        variablesReference: scopes[0]!.variablesReference,
      });
      registers.push(variables.map(({ name, value }) => `${name} ${value}`));
      const { result } = await client.request('evaluate', { expression: 'rip,x', frameId: id });
      expect(BigInt(result.split(' ')[0]!)).toBe(place);
    }
    expect(registers[1]).toEqual(registers[0]);
    expect(registers[2]).toEqual(registers[0]);
    const again = await client.request('stackTrace', { threadId: 1, startFrame: 1, levels: 2 });
    expect(again.stackFrames).toEqual(frames.slice(1, 3));
    expect(again.totalFrames).toBe(frames.length);
    expect(new Set(frames.map(({ id }) => id)).size).toBe(frames.length);
  });

  it('without their sources leave the focus to the code they are inlined into', async () => {
    const frames = await stackThere(levels.slice(2));
    for (const { source } of frames.slice(0, 2))
      expect(source).toMatchObject({ presentationHint: 'deemphasize', sourceReference: expect.any(Number) });
    expect(frames[2]!.source!.path).toBe(levels[2]!.file);
    client.dispose();
    const bare = await stackThere([]);
    expect(bare.slice(0, 3).map(({ source }) => source?.presentationHint)).toEqual(
      Array.from({ length: 3 }, () => 'normal'),
    );
  });
});
