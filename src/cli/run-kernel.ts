/** `cvm run --kernel`: a guest without encryption, its kernel started directly. */
import { nodeHost } from '../base/node.ts';
import { SymbolSpace } from '../symbols/index.ts';
import { createPlainMachine } from '../vmm/index.ts';
import type { Machine } from '../vmm/index.ts';
import { usageError } from './options.ts';
import type { Values } from './options.ts';

const MAX_FILE = 2 ** 30;
const DEFAULT_MEMORY = 256 * 2 ** 20;

export interface KernelGuest {
  readonly machine: Machine;
  readonly symbols: SymbolSpace;
}

const read = (path: string): Promise<Uint8Array> => nodeHost.files.readFile(path, MAX_FILE);

/** @throws CvmError `usage`, or what is wrong with the files. */
export async function loadKernel(
  values: Values,
  shape: { readonly vcpus: number; readonly memory?: number },
  onConsole: (port: number, bytes: Uint8Array) => void,
): Promise<KernelGuest> {
  const { kernel, initrd, append, platform } = values;
  if (platform !== 'plain') throw usageError('--kernel needs --platform plain');
  const symbols = new SymbolSpace();
  for (const name of (values.symbols as string[] | undefined) ?? [])
    symbols.add({ name, bytes: await read(name) });
  const machine = createPlainMachine({
    kernel: await read(String(kernel)),
    ...(initrd === undefined ? {} : { initrd: await read(String(initrd)) }),
    commandLine: append === undefined ? '' : String(append),
    vcpus: shape.vcpus,
    memory: shape.memory ?? DEFAULT_MEMORY,
    onConsole,
  });
  return { machine, symbols };
}
