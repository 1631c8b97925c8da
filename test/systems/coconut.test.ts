/**
 * COCONUT-SVSM, built outside the repository (`CVM_SVSM=dir`): the milestones of its boot without
 * firmware, by symbol, by what the host saw and by console, and a debug session over it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { parseIgvm } from '../../src/igvm/index.ts';
import { measureIgvm } from '../../src/measure/index.ts';
import { SymbolSpace } from '../../src/symbols/index.ts';
import { createMachine } from '../../src/vmm/index.ts';
import type { MachineEvent } from '../../src/vmm/index.ts';
import { Client } from '../debugger/client.ts';

const folder = process.env.CVM_SVSM;
if (!folder) console.warn('CVM_SVSM is not set: the COCONUT-SVSM boot is not tested in this run');

const file = (name: string): string => join(folder!, name);

interface Milestone {
  readonly name: string;
  readonly retired: number;
}

/** Boots to the end and notes when each milestone passed. */
function boot(vcpus: number) {
  const image = parseIgvm(new Uint8Array(readFileSync(file('coconut-qemu.igvm'))));
  const symbols = new SymbolSpace();
  for (const name of ['bldr.elf', 'svsm.elf'])
    symbols.add({ name, bytes: new Uint8Array(readFileSync(file(name))) });
  const reached: Milestone[] = [];
  const events: MachineEvent[] = [];
  let text = '';
  const machine = createMachine({
    image,
    crypto: nodeCrypto,
    vcpus,
    memory: 512 << 20,
    onConsole: (_port, bytes) => (text += new TextDecoder().decode(bytes)),
    onEvent: (event) => void events.push(event),
  });
  // `svsm_start` of the reference is `svsm_entry` in newer sources.
  const bySymbol = ['startup_32_bsp', 'bldr_main', 'startup_64', 'svsm_start', 'svsm_entry'];
  const at = new Map<bigint, string>();
  for (const name of bySymbol)
    for (const match of symbols.symbolByName(name)) {
      at.set(match.address, name);
      machine.addBreakpoint({ address: match.address });
    }
  const note = (name: string): void => void reached.push({ name, retired: machine.retired });
  if (at.has(machine.current.cpu.rip)) note(at.get(machine.current.cpu.rip)!);
  let longMode = false;
  let stop;
  do {
    // Small slices until the kernel runs, so that a milestone's count is close.
    stop = machine.run(machine.retired < 250_000 ? 200 : 1_000_000);
    if (!longMode && machine.current.cpu.longMode) note('long mode');
    longMode ||= machine.current.cpu.longMode;
    if (stop.reason === 'breakpoint') note(at.get(stop.rip) ?? '?');
  } while (!stop.final && stop.reason !== 'idle' && machine.retired < 50_000_000);
  return { machine, image, symbols, reached, events, text, stop };
}

describe.runIf(folder)('COCONUT-SVSM without firmware', () => {
  it('has the digest that igvmmeasure gives, in measure/ and in the machine', () => {
    const { machine, image } = boot(1);
    const { digest } = measureIgvm(image, { platformType: 'SEV_SNP' }, nodeCrypto);
    expect(bytesToHex(machine.launchDigest)).toBe(bytesToHex(digest));
    const readme = join(folder!, 'igvmmeasure-verbose.txt');
    if (existsSync(readme)) expect(readFileSync(readme, 'utf8').toLowerCase()).toContain(bytesToHex(digest));
    else console.warn(`${basename(readme)} is not there: the digest is not compared with igvmmeasure's`);
  });

  it('passes every milestone and ends in HLT', () => {
    const { machine, reached, events, text, stop, symbols } = boot(1);
    const names = reached.map((milestone) => milestone.name.replace('svsm_start', 'svsm_entry'));
    expect(names.slice(0, 6)).toEqual([
      'startup_32_bsp',
      'long mode',
      'startup_64', // bldr's
      'bldr_main',
      'startup_64', // the kernel's
      'svsm_entry',
    ]);
    const first = (match: (event: MachineEvent) => boolean): number =>
      events.find(match)?.retired ?? Infinity;
    const registered = first((e) => e.kind === 'ghcb-msr' && /regist/i.test(e.text));
    expect(registered).toBeLessThan(Infinity);
    const lines = [
      'COCONUT Secure Virtual Machine Service Module Version',
      'Order-00: total pages:',
      'Total memory:',
      'Boot stack @',
      'Kernel shadow stacks not supported',
      'Guest Memory Regions:',
      'Unpacking FS archive...',
      'Unpacked init',
      'Unpacking done',
      'Invalidating boot region',
      'Virtual memory pages used: 0 * 4K, 0 * 2M',
      '[init] COCONUT-SVSM init process starting',
      'Launching request-processing task on CPU 0',
    ];
    let from = 0;
    for (const line of lines) {
      const found = text.indexOf(line, from);
      expect(found, line).toBeGreaterThanOrEqual(0);
      from = found;
    }
    expect(stop.reason).toBe('idle');
    expect(symbols.symbolAt(stop.rip - 1n)?.name).toMatch(/snp_idle/);
    // The figures go into docs/results.md and the closing note.
    console.log(
      [
        ...reached.map((m) => `${m.name} ${m.retired}`),
        `GHCB registered ${registered}`,
        `HLT ${machine.retired}`,
      ].join('\n'),
    );
  });

  it('runs the same with four vCPUs', () => {
    const { text, stop, events } = boot(4);
    for (let cpu = 1; cpu < 4; cpu++) expect(text).toContain(`CPU ${cpu} is online`);
    expect(events.filter((e) => e.kind === 'ap-create')).toHaveLength(3);
    expect(stop.reason).toBe('idle');
  });
});

describe.runIf(folder)('a debug session on COCONUT-SVSM', () => {
  it('stops at source breakpoints in the loader and in the kernel, with file and line on the stack', async () => {
    const client = new Client();
    const lineOf = (elf: string, symbol: string) => {
      const space = new SymbolSpace();
      space.add({ name: elf, bytes: new Uint8Array(readFileSync(file(elf))) });
      const address = space.symbolByName(symbol)[0]!.address;
      // A line of the body: the prologue's line belongs to the signature.
      for (let at = address; at < address + 64n; at++) {
        const line = space.lineAt(at);
        if (line && line.line > 0 && at > address + 8n) return line;
      }
      throw new Error(`${symbol} has no line`);
    };
    const bldr = lineOf('bldr.elf', 'bldr_main');
    const kernel = lineOf('svsm.elf', 'svsm_main');
    await client.launch(
      {
        program: file('coconut-qemu.igvm'),
        symbols: ['bldr.elf', 'svsm.elf', 'userinit.elf'].map(file).filter(existsSync),
        vcpus: 1,
        memory: '512M',
        stopOnEntry: true,
      },
      async (c) => {
        for (const line of [bldr, kernel])
          await c.request('setBreakpoints', {
            source: { path: line.file },
            breakpoints: [{ line: line.line }],
          });
      },
    );
    const entry = await client.event('stopped');
    expect(entry.reason).toBe('entry');
    for (const line of [bldr, kernel]) {
      await client.request('continue', { threadId: 1 });
      const stop = await client.event('stopped');
      expect(stop.reason).toBe('breakpoint');
      const frame = await client.top(stop.threadId ?? 1);
      expect(frame.source?.path).toBe(line.file);
      expect(frame.line).toBeGreaterThanOrEqual(line.line);
    }
    client.dispose();
  });

  it('shows the function around code that was inlined, as a frame behind it', async () => {
    const client = new Client();
    await client.launch(
      {
        program: file('coconut-qemu.igvm'),
        symbols: ['bldr.elf', 'svsm.elf'].map(file),
        vcpus: 1,
        memory: '512M',
      },
      async (c) => {
        await c.request('setFunctionBreakpoints', { breakpoints: [{ name: 'svsm::svsm_main' }] });
      },
    );
    const stop = await client.event('stopped');
    expect(stop.reason).toBe('function breakpoint');
    const { stackFrames } = await client.request('stackTrace', { threadId: stop.threadId! });
    const names = stackFrames.map(({ name }) => name);
    const main = names.indexOf('svsm::svsm_main');
    expect(main).toBeGreaterThanOrEqual(0);
    for (const name of names.slice(0, main)) expect(name).toMatch(/ \[inlined\]$/);
    expect(stackFrames[main]!.source?.name).toBe('svsm.rs');
    client.dispose();
  });
});
