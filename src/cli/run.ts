/** `cvm run`: the guest to its end, its console on standard output. */
import { CvmError, hex } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import {
  backtrace,
  describeMachineStop,
  loadGuest,
  parseLaunch,
  parseMemorySize,
} from '../debugger/index.ts';
import type { MachineStop } from '../vmm/index.ts';
import { EXIT, exitCodeOfStop } from './exit-codes.ts';
import { count, parse, usageError } from './options.ts';
import { complain } from './output.ts';
import { loadKernel } from './run-kernel.ts';
import type { KernelGuest } from './run-kernel.ts';
import { TextWatch } from './text-watch.ts';

/** COM1: the console. The other ports carry protocols. */
const CONSOLE_PORT = 0x3f8;
/** Instructions between looks at the console; fixed, so that a run always ends at the same instruction. */
const CHUNK = 50_000;
/** The same with `--stop-at`: how far behind the text a run may end. */
const CHUNK_WATCHING = 1_000;

export async function run(args: readonly string[]): Promise<number> {
  const direct = args.some((arg) => arg === '--kernel' || arg.startsWith('--kernel='));
  const { values, files } = parse(
    args,
    {
      symbols: { type: 'string', multiple: true },
      vcpus: { type: 'string' },
      memory: { type: 'string' },
      'stop-at': { type: 'string' },
      'max-instructions': { type: 'string' },
      platform: { type: 'string' },
      kernel: { type: 'string' },
      initrd: { type: 'string' },
      append: { type: 'string' },
    },
    direct ? 0 : 1,
  );
  const vcpus = count('vcpus', values.vcpus, 1, 64) ?? 1;
  const limit = count('max-instructions', values['max-instructions'], 1, Number.MAX_SAFE_INTEGER) ?? Infinity;
  const text = values['stop-at'];
  if (text === '') throw usageError('--stop-at needs a text');
  const memory = memoryOf(values.memory);
  const watch = typeof text === 'string' ? new TextWatch(text) : undefined;
  const onConsole = (port: number, bytes: Uint8Array): void => {
    if (port !== CONSOLE_PORT || watch?.found) return;
    process.stdout.write(watch ? watch.feed(bytes) : bytes);
  };
  if (direct) {
    const guest = await loadKernel(values, { vcpus, ...memory }, onConsole);
    return report(guest, go(guest, limit, watch), watch);
  }
  if (values.initrd !== undefined || values.append !== undefined)
    throw usageError('--initrd and --append go with --kernel');
  const { platform } = values;
  const options = parseLaunch({
    program: files[0],
    symbols: values.symbols ?? [],
    vcpus,
    ...memory,
    platform,
  });
  const guest = await loadGuest(nodeHost, options, { onConsole });
  for (const warning of guest.warnings) complain(`cvm: ${warning}`);
  return report(guest, go(guest, limit, watch), watch);
}

function memoryOf(text: unknown): { memory?: number } {
  if (text === undefined) return {};
  try {
    return { memory: parseMemorySize(String(text)) };
  } catch (error) {
    throw usageError((error as CvmError).message);
  }
}

/** Runs until the guest, the text or the limit ends it; undefined for the text. */
function go({ machine }: KernelGuest, limit: number, watch: TextWatch | undefined): MachineStop | undefined {
  const chunk = watch ? CHUNK_WATCHING : CHUNK;
  for (;;) {
    const left = limit - machine.retired;
    const stop = machine.run(Math.min(chunk, left));
    if (watch?.found) return undefined;
    if (stop.reason !== 'budget' || machine.retired >= limit) return stop;
  }
}

function report(guest: KernelGuest, stop: MachineStop | undefined, watch: TextWatch | undefined): number {
  const { machine } = guest;
  const instructions = `${machine.retired} instructions`;
  if (!stop) {
    complain(`\ncvm: stopped at '${watch!.text}' after ${instructions}`);
    return EXIT.success;
  }
  const code = exitCodeOfStop(stop);
  const reason = stop.reason === 'budget' ? 'reached --max-instructions' : describeMachineStop(stop);
  complain(`\ncvm: ${reason}, after ${instructions}`);
  if (code !== EXIT.success) {
    const thread = stop.thread;
    complain(`${thread.name}, rip ${hex(stop.rip)}`);
    for (const line of backtrace(guest, thread)) complain(`  ${line}`);
  }
  return code;
}
