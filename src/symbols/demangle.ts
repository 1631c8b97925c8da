import { CvmError } from '../base/index.ts';

/** What of the `gecko-profiler-demangle` wasm (wasm-bindgen 0.2 calling convention) is called. */
interface DemanglerExports {
  readonly memory: WebAssembly.Memory;
  readonly __wbindgen_export_0: WebAssembly.Table;
  readonly __wbindgen_malloc: (size: number, align: number) => number;
  readonly __wbindgen_free: (pointer: number, size: number, align: number) => void;
  readonly __wbindgen_start: () => void;
  readonly demangle_any: (pointer: number, length: number) => [number, number];
}

/** Longer names stay as they are: only a hostile file has them. */
const MAX_MANGLED = 8192;
/** Longest readable name; a few hundred bytes of substitutions can stand for gigabytes. */
const MAX_DEMANGLED = 1 << 20;
/** 64 KiB pages the module may use: its own 17, and room for one such name. */
const MAX_PAGES = 80;

/** Characters of readable names that may still be produced: what bounds a file full of exploding names. */
export interface DemangleBudget {
  left: number;
}
/** Several times the names of the largest kernels. */
export const demangleBudget = (): DemangleBudget => ({ left: 1 << 26 });

let module: WebAssembly.Module | undefined;
let instance: DemanglerExports | undefined;
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * Makes demangling available; call once per worker before the first `SymbolSpace`. `wasm` is the content
 * of `gecko-profiler-demangle/index_bg.wasm` (or the compiled module): how it is shipped is the bundler's
 * affair. Without it names stay mangled and images say so in a diagnostic.
 * Throws `CvmError` `symbols-demangler` if it is not that module.
 */
export async function initSymbols(wasm: Uint8Array): Promise<void> {
  try {
    const compiled = await WebAssembly.compile(limitMemory(wasm));
    instance = instantiate(compiled);
    module = compiled;
  } catch (error) {
    throw new CvmError('symbols-demangler', `The demangler could not be loaded: ${String(error)}`);
  }
}

/**
 * The module with a maximum in its memory section (WebAssembly 1.0, 5.5.8), so that a name that expands
 * without end stops in milliseconds. Anything unexpected is left to the compiler to refuse.
 */
function limitMemory(wasm: Uint8Array): Uint8Array<ArrayBuffer> {
  let at = 8;
  const leb = (): number => {
    let value = 0;
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = wasm[at++] ?? 0;
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  while (at < wasm.length) {
    const start = at;
    const id = wasm[at++];
    const size = leb();
    // One memory, no maximum, an initial size of one byte: 01 00 nn.
    if (id === 5 && size === 3 && wasm[at] === 1 && wasm[at + 1] === 0 && wasm[at + 2]! < MAX_PAGES) {
      const limited = [5, 4, 1, 1, wasm[at + 2]!, MAX_PAGES];
      const out = new Uint8Array(wasm.length + 1);
      out.set(wasm.subarray(0, start));
      out.set(limited, start);
      out.set(wasm.subarray(at + size), start + limited.length);
      return out;
    }
    at += size;
  }
  return new Uint8Array(wasm);
}

function instantiate(compiled: WebAssembly.Module): DemanglerExports {
  let exports: DemanglerExports | undefined = undefined;
  const created = new WebAssembly.Instance(compiled, {
    './index_bg.js': {
      __wbindgen_init_externref_table: () => {
        // As wasm-bindgen's own glue does it: the four constants every module may refer to.
        const table = exports!.__wbindgen_export_0;
        const offset = table.grow(4);
        [undefined, null, true, false].forEach((value, i) => table.set(offset + i, value));
        table.set(0, undefined);
      },
    },
  });
  exports = created.exports as unknown as DemanglerExports;
  exports.__wbindgen_start();
  return exports;
}

/** Whether `initSymbols` has been called with success. */
export const canDemangle = (): boolean => instance !== undefined;

/**
 * Rust v0, Rust legacy and Itanium C++ names in readable form, with the `::h<hash>` of legacy Rust names;
 * anything else unchanged, as is everything once `budget` is used up.
 */
export function demangle(raw: string, budget?: DemangleBudget): string {
  // Only these prefixes are mangled: _Z (also __Z), _R (also __R).
  if (!instance || !/^_{1,2}[ZR]/.test(raw) || raw.length > MAX_MANGLED) return raw;
  if (budget && budget.left <= 0) return raw;
  const input = encoder.encode(raw);
  try {
    const pointer = instance.__wbindgen_malloc(input.length, 1) >>> 0;
    new Uint8Array(instance.memory.buffer, pointer, input.length).set(input);
    const [at, length] = instance.demangle_any(pointer, input.length);
    if (budget) budget.left -= length >>> 0;
    const text = decoder.decode(new Uint8Array(instance.memory.buffer, at >>> 0, length >>> 0));
    instance.__wbindgen_free(at, length, 1);
    // What it cannot decode comes back without its first underscore.
    return raw.endsWith(text) || text.length > MAX_DEMANGLED ? raw : text;
  } catch {
    if (budget) budget.left -= MAX_DEMANGLED;
    // A hostile name made the wasm trap; its memory is not to be trusted any more.
    instance = instantiate(module!);
    return raw;
  }
}

/** The demangled name without the `::h<16 hex digits>` of legacy Rust names. */
export const shortName = (demangled: string): string => demangled.replace(/::h[0-9a-f]{16}(?=$|\.| )/, '');

/** Splits a demangled name at `::` outside of brackets; `operator<`, `->` and `<=` do not open or close any. */
function splitTopLevel(name: string): string[] {
  const parts: string[] = [];
  let depth = 0;
  let start = 0;
  for (let i = 0; i < name.length; i++) {
    const char = name[i]!;
    if (char === '<' || char === '(' || char === '{' || char === '[') depth++;
    else if (char === ')' || char === '}' || char === ']' || (char === '>' && name[i - 1] !== '-'))
      depth = Math.max(0, depth - 1);
    else if (char === ':' && depth === 0 && name[i + 1] === ':') {
      parts.push(name.slice(start, i));
      start = i + 2;
      i++;
    }
  }
  parts.push(name.slice(start));
  return parts;
}

const bare = (segment: string): string => {
  const cut = segment.search(/[<([]/);
  return cut > 0 ? segment.slice(0, cut) : segment;
};

/**
 * The path segments of a name for matching: generic arguments and parameters removed, `<T as Trait>::f`
 * taken as `T::f`. `svsm::cpu::Foo<u8>::bar` -> svsm, cpu, Foo, bar.
 */
export function nameSegments(name: string): string[] {
  const parts = splitTopLevel(shortName(name)).filter((part) => part !== '');
  const segments: string[] = [];
  parts.forEach((part, index) => {
    if (index === 0 && part.startsWith('<') && part.endsWith('>') && parts.length > 1) {
      const type = part
        .slice(1, -1)
        .replace(/^impl /, '')
        .split(' as ')[0]!
        .replace(/^[&*]+(mut |const )?/, '');
      segments.push(...splitTopLevel(type).map(bare));
    } else if (!part.startsWith('<')) segments.push(bare(part));
  });
  return segments.length > 0 ? segments : [name];
}
