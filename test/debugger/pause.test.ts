/** A guest that never stops by itself: pause, breakpoints while running, and leaving. */
import { afterEach, describe, expect, it } from 'vitest';
import { SLICE_MS, Slices } from '../../src/debugger/slices.ts';
import type { Slice } from '../../src/debugger/slices.ts';
import { Client, memoryHost } from './client.ts';
import { SOURCE_PATH, testGuest } from './guest.ts';

const ENDLESS = testGuest(`
start:
  xor eax, eax
_loop:
  inc rax                         ; counts
  cmp rax, 0
  jne _loop
  jmp never
never:
  nop                             ; never reached
  hlt
`);

let client: Client;
afterEach(() => client.dispose());
const running = async (): Promise<void> => {
  client = new Client(
    memoryHost({ '/g.igvm': ENDLESS.igvm, '/g.elf': ENDLESS.elf, [SOURCE_PATH]: new Uint8Array(1) }),
  );
  await client.launch({ program: '/g.igvm' });
};
/** Waits until the guest has had some slices. */
const slices = async (count: number): Promise<void> => {
  const until = client.session.slices.count + count;
  while (client.session.slices.count < until) await new Promise((resolve) => setTimeout(resolve, 1));
};

describe('pause', () => {
  it('is answered at once, and the guest runs at most one slice more', async () => {
    await running();
    await slices(3);
    const before = client.session.slices.count;
    await client.request('pause', { threadId: 1 });
    expect(client.session.slices.count - before).toBeLessThanOrEqual(1);
    const stop = await client.event('stopped');
    expect(stop).toMatchObject({ reason: 'pause', threadId: 1, allThreadsStopped: true });
    expect(client.session.slices.count - before).toBeLessThanOrEqual(2);
    expect((await client.top(1)).name).toBe('start');
  });

  it('leads back to running, again and again', async () => {
    await running();
    let last = -1;
    for (let i = 0; i < 3; i++) {
      await client.request('pause', { threadId: 1 });
      await client.event('stopped');
      const { result } = await client.request('evaluate', { expression: 'rax,d' });
      expect(Number(result)).toBeGreaterThan(last);
      last = Number(result);
      await client.request('continue', { threadId: 1 });
      await slices(1);
    }
  });

  it('of a stopped guest does nothing', async () => {
    await running();
    await client.request('pause', { threadId: 1 });
    await client.event('stopped');
    await client.request('pause', { threadId: 1 });
    await client.request('continue', { threadId: 1 });
    await slices(2);
    expect(client.pending('stopped')).toEqual([]);
  });
});

describe('while the guest runs', () => {
  it('breakpoints can be set, and are hit', async () => {
    await running();
    await slices(1);
    const { breakpoints } = await client.request('setBreakpoints', {
      source: { path: SOURCE_PATH },
      breakpoints: [{ line: ENDLESS.line('counts') }],
    });
    expect(breakpoints[0]!.verified).toBe(true);
    expect(await client.event('stopped')).toMatchObject({ reason: 'breakpoint' });
    await client.request('setBreakpoints', { source: { path: SOURCE_PATH }, breakpoints: [] });
    await client.request('continue', { threadId: 1 });
    await slices(2);
    expect(client.pending('stopped')).toEqual([]);
  });

  it('a condition that never holds does not lengthen the slices', async () => {
    await running();
    await client.request('setBreakpoints', {
      source: { path: SOURCE_PATH },
      breakpoints: [{ line: ENDLESS.line('counts'), condition: 'rax == 0 - 1' }],
    });
    await slices(3);
    await client.request('pause', { threadId: 1 });
    expect(await client.event('stopped')).toMatchObject({ reason: 'pause' });
  });

  it('a line that never ends can be paused too', async () => {
    await running();
    await client.request('pause', { threadId: 1 });
    await client.event('stopped');
    await client.request('setFunctionBreakpoints', { breakpoints: [{ name: 'never' }] });
    await client.request('stepOut', { threadId: 1 }).then(
      () => expect.unreachable('nobody called start'),
      (error: Error) => expect(error.message).toMatch(/caller/),
    );
  });

  it('what needs a stopped guest says so, and is not shown as an error', async () => {
    await running();
    for (const [command, args] of [
      ['stackTrace', { threadId: 1 }],
      ['evaluate', { expression: 'rax' }],
      ['next', { threadId: 1 }],
      ['readMemory', { memoryReference: '0x0', count: 1 }],
    ] as const) {
      const response = await client.raw({ command, arguments: args });
      expect(response).toMatchObject({ success: false, message: 'notStopped' });
      expect((response.body as { error: { showUser: boolean } }).error.showUser).toBe(false);
    }
    expect((await client.request('threads')).threads).toHaveLength(1);
  });

  it.each(['disconnect', 'terminate'] as const)('%s ends it', async (command) => {
    await running();
    await slices(1);
    await client.request(command);
    await client.event('terminated');
    const { count } = client.session.slices;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(client.session.slices.count - count).toBeLessThanOrEqual(1);
  });

  it('restart begins from the first instruction', async () => {
    await running();
    await slices(1);
    await client.request('restart', { arguments: { program: '/g.igvm', stopOnEntry: true } });
    expect(await client.event('stopped')).toMatchObject({ reason: 'entry' });
    expect((await client.request('evaluate', { expression: 'rip,x' })).result).toBe('0x10000 <start>');
  });
});

describe('slices', () => {
  /** A machine that does `rate` instructions a millisecond, on a clock of the test's own. */
  function simulate(rate: number, turns: number): Promise<{ longest: number; calls: number[] }> {
    let now = 0;
    const calls: number[] = [];
    let longest = 0;
    const slices = new Slices({ now: () => now });
    return new Promise((resolve) => {
      let turn = 0;
      slices.start((slice: Slice) => {
        const start = now;
        do {
          const count = slice.instructions;
          calls.push(count);
          now += count / rate;
          slice.done(count);
        } while (!slice.expired());
        if (turn > 3) longest = Math.max(longest, now - start);
        if (++turn < turns) return true;
        slices.dispose();
        resolve({ longest, calls });
        return false;
      });
    });
  }

  it.each([100, 3_000, 50_000, 1_000_000])(
    'of a machine that does %i instructions a millisecond stay near their bound',
    async (rate) => {
      const { longest } = await simulate(rate, 30);
      // The last call of a slice may begin just before the bound.
      expect(longest).toBeLessThanOrEqual(2 * SLICE_MS);
    },
  );
});
