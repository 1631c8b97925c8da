/** From a launch configuration to a guest before its first instruction, with its symbols. */
import { CvmError } from '../base/index.ts';
import type { Host } from '../base/index.ts';
import { parseIgvm } from '../igvm/index.ts';
import { SymbolSpace } from '../symbols/index.ts';
import type { SourceMapEntry, SymbolImage } from '../symbols/index.ts';
import { createMachine } from '../vmm/index.ts';
import type { Machine, MachineOptions } from '../vmm/index.ts';
import { loadDemangler } from './demangler.ts';

export interface LaunchOptions {
  /** The image, a path or URI. */
  readonly program: string;
  /** ELF files; empty: those beside the image are looked for. */
  readonly symbols: readonly string[];
  readonly vcpus: number;
  /** In bytes. */
  readonly memory: number;
  readonly platform: 'snp';
  readonly stopOnEntry: boolean;
  /** Run without debugging: nothing stops the guest but its end. */
  readonly noDebug: boolean;
  /** Longest prefix first. */
  readonly sourceMap: readonly SourceMapEntry[];
}

/** A guest and what is known about it. */
export interface Guest {
  readonly machine: Machine;
  readonly symbols: SymbolSpace;
  readonly options: LaunchOptions;
  /** In the order they were loaded. */
  readonly images: readonly { readonly image: SymbolImage; readonly path: string }[];
  /** What went wrong without preventing the launch, as sentences. */
  readonly warnings: readonly string[];
}

export const DEFAULT_MEMORY = 256 * 2 ** 20;
const MAX_IMAGE = 2 ** 30;
const MAX_ELF = 2 ** 29;
const MAX_VCPUS = 64;
const MAX_SYMBOL_FILES = 64;
/** A COCONUT-SVSM image has no name of its own in its ELF files: they lie beside it under these. */
const BESIDE = ['svsm.elf', 'bldr.elf', 'userinit.elf'];

const refuse = (name: string, message: string): CvmError =>
  new CvmError('launch-attribute', `launch attribute '${name}' ${message}`);

/** Bytes from `268435456`, `256M`, `1G`, `512K`. @throws CvmError `memory-size`. */
export function parseMemorySize(text: string | number): number {
  const match = /^([0-9]{1,16})([KMG]?)$/.exec(String(text).trim().toUpperCase());
  const unit = { '': 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 }[match?.[2] ?? ''] ?? 1;
  const bytes = match ? Number(match[1]) * unit : NaN;
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % 4096 !== 0)
    throw new CvmError(
      'memory-size',
      `'${String(text).slice(0, 40)}' is no memory size: write a multiple of 4K, such as 256M or 1G`,
    );
  return bytes;
}

function parseSourceMap(value: unknown): SourceMapEntry[] {
  const entries: SourceMapEntry[] = [];
  const add = (from: unknown, to: unknown): void => {
    if (typeof from !== 'string' || typeof to !== 'string' || from === '')
      throw refuse('sourceMap', 'must map path prefixes to path prefixes');
    entries.push({ from, to });
  };
  if (Array.isArray(value))
    for (const entry of value as unknown[]) {
      const pair = entry as { from?: unknown; to?: unknown } | null;
      add(pair?.from, pair?.to);
    }
  else if (typeof value === 'object' && value !== null)
    for (const [from, to] of Object.entries(value)) add(from, to);
  else throw refuse('sourceMap', 'must be an object or an array of { from, to }');
  return entries.sort((a, b) => b.from.length - a.from.length);
}

/** @throws CvmError `launch-attribute` or `memory-size`, naming the attribute. */
export function parseLaunch(args: Readonly<Record<string, unknown>>): LaunchOptions {
  const { program, symbols, vcpus, memory, platform, stopOnEntry, sourceMap } = args;
  const noDebug = args.noDebug === true;
  if (typeof program !== 'string' || program.trim() === '')
    throw refuse('program', 'is missing: name an IGVM file');
  if (symbols !== undefined && !(Array.isArray(symbols) && symbols.every((path) => typeof path === 'string')))
    throw refuse('symbols', 'must be an array of paths of ELF files');
  if ((symbols as unknown[] | undefined) && (symbols as unknown[]).length > MAX_SYMBOL_FILES)
    throw refuse('symbols', `names more than ${MAX_SYMBOL_FILES} files`);
  if (
    vcpus !== undefined &&
    !(Number.isInteger(vcpus) && (vcpus as number) >= 1 && (vcpus as number) <= MAX_VCPUS)
  )
    throw refuse('vcpus', `must be a number from 1 to ${MAX_VCPUS}`);
  if (memory !== undefined && typeof memory !== 'string' && typeof memory !== 'number')
    throw refuse('memory', 'must be a number of bytes or a text such as 256M');
  if (platform !== undefined && platform !== 'snp')
    throw refuse('platform', `must be 'snp': no other platform can be run yet`);
  if (stopOnEntry !== undefined && typeof stopOnEntry !== 'boolean')
    throw refuse('stopOnEntry', 'must be true or false');
  return {
    program,
    symbols: (symbols as string[] | undefined) ?? [],
    vcpus: (vcpus as number | undefined) ?? 1,
    memory: memory === undefined ? DEFAULT_MEMORY : parseMemorySize(memory),
    platform: 'snp',
    stopOnEntry: !noDebug && (stopOnEntry ?? false),
    noDebug,
    sourceMap: sourceMap === undefined || sourceMap === null ? [] : parseSourceMap(sourceMap),
  };
}

/** The folder of a path or URI, with its separator; empty for a bare name. */
export const folderOf = (path: string): string => /^.*[\\/]/s.exec(path)?.[0] ?? '';
export const baseName = (path: string): string => path.slice(folderOf(path).length);
const isAbsolute = (path: string): boolean => /^([\\/]|[A-Za-z]:[\\/]|[A-Za-z][A-Za-z0-9+.-]+:)/.test(path);

async function symbolPaths(host: Host, options: LaunchOptions): Promise<string[]> {
  const folder = folderOf(options.program);
  const found: string[] = [];
  if (options.symbols.length > 0) {
    for (const path of options.symbols) {
      const beside = folder + path;
      // A relative path: as given, else in the image's folder.
      found.push(
        !isAbsolute(path) && !(await host.files.exists(path)) && (await host.files.exists(beside))
          ? beside
          : path,
      );
    }
    return found;
  }
  const own = `${baseName(options.program).replace(/\.[^.]*$/, '')}.elf`;
  for (const name of [own, ...BESIDE])
    if (!found.includes(folder + name) && (await host.files.exists(folder + name))) found.push(folder + name);
  return found;
}

/**
 * Reads the image and its symbols and launches the guest.
 * @throws CvmError naming the file or attribute; a symbol file that was looked for beside the image and
 * cannot be read is only a warning.
 */
export async function loadGuest(
  host: Host,
  options: LaunchOptions,
  callbacks: Pick<MachineOptions, 'onConsole' | 'onEvent'>,
): Promise<Guest> {
  const bytes = await host.files.readFile(options.program, MAX_IMAGE);
  const file = parseIgvm(bytes);
  const fatal = file.headers.length === 0 && file.diagnostics.find((finding) => finding.severity === 'error');
  if (fatal)
    throw new CvmError(
      fatal.code,
      `${baseName(options.program)} is not a usable IGVM file: ${fatal.message}`,
      {
        fileOffset: fatal.offset,
      },
    );
  await loadDemangler();
  const symbols = new SymbolSpace();
  const images: { image: SymbolImage; path: string }[] = [];
  const warnings: string[] = [];
  for (const path of await symbolPaths(host, options)) {
    try {
      const elf = await host.files.readFile(path, MAX_ELF);
      images.push({
        image: symbols.add({ name: baseName(path), bytes: elf, sourceMap: options.sourceMap }),
        path,
      });
    } catch (error) {
      if (!(error instanceof CvmError)) throw error;
      const text = `cannot use the symbols of ${path}: ${error.toString()}`;
      if (options.symbols.length > 0) throw new CvmError(error.code, text);
      warnings.push(text);
    }
  }
  for (const { image } of images)
    for (const finding of image.diagnostics.slice(0, 5))
      if (finding.severity !== 'hint') warnings.push(`${image.name}: ${finding.message}`);
  const machine = createMachine({
    image: file,
    crypto: host.crypto,
    vcpus: options.vcpus,
    memory: options.memory,
    platform: options.platform,
    ...callbacks,
  });
  return { machine, symbols, options, images, warnings };
}
