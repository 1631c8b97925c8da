/**
 * The compiled regions that are alive: which records they are entered at, and which frame they hang
 * on. What is dropped from the code cache is dropped here.
 */
import type { Case } from './handlers.ts';
import { REGION_TABLE } from './region-abi.ts';
import { compilable, compileRegion } from './region-compiler.ts';
import { formRegion } from './region.ts';

/** A region below this size costs more to enter than it saves. */
const MIN_OPS = 3;
/** Entry numbers are kept in eight bits of the jump map's word. */
const MAX_ENTRIES = 200;

export interface RegionEnvironment {
  readonly view: DataView;
  readonly memoryPages: number;
  readonly imports: Record<string, unknown>;
  readonly cases: readonly (Case | undefined)[];
}

export class RegionCache {
  readonly table = new WebAssembly.Table({ element: 'anyfunc', initial: REGION_TABLE });
  readonly #environment: RegionEnvironment;
  readonly #cases: readonly (Case | undefined)[];
  /** Micro-op record -> word of the jump map. */
  readonly #words = new Map<number, number>();
  readonly #byFrame = new Map<number, { index: number; records: number[] }[]>();
  readonly #free: number[] = [];
  #next = 0;
  compiled = 0;

  constructor(environment: RegionEnvironment) {
    this.#environment = environment;
    this.#cases = environment.cases.map((c) => (c && compilable(c) ? c : undefined));
  }

  /** The jump map's third word for a record: negative if a region starts there, else 0. */
  word(record: number): number {
    return this.#words.get(record) ?? 0;
  }

  /** Compiles the region at a hot offset of a frame; gives its word, or 0 if there is none to make. */
  compile(frame: number, page: Uint32Array, offset: number): number {
    const known = this.word(page[offset]!);
    if (known) return known;
    const { view, memoryPages, imports } = this.#environment;
    const region = formRegion({ record: (at) => page[at]!, view, cases: this.#cases }, offset);
    if (!region) return 0;
    let ops = 0;
    for (const block of region.blocks.values()) ops += block.ops.length;
    const index = this.#free.pop() ?? (this.#next < REGION_TABLE ? this.#next++ : -1);
    if (ops < MIN_OPS || index < 0) return 0;
    const { module, entries } = compileRegion(region, index, view, memoryPages);
    const instance = new WebAssembly.Instance(module, { env: imports as WebAssembly.ModuleImports });
    this.table.set(index, instance.exports.region as () => bigint);
    this.compiled++;
    const records: number[] = [];
    entries.slice(0, MAX_ENTRIES).forEach((entry, number) => {
      const record = page[entry]!;
      if (this.#words.has(record)) return;
      this.#words.set(record, 0x8000_0000 | (number << 20) | index | 0);
      records.push(record);
    });
    const list = this.#byFrame.get(frame) ?? [];
    list.push({ index, records });
    this.#byFrame.set(frame, list);
    return this.word(page[offset]!);
  }

  drop(frame: number): void {
    for (const { index, records } of this.#byFrame.get(frame) ?? []) {
      for (const record of records) this.#words.delete(record);
      // The function may be running: its slot is empty for those who come, not for it.
      this.table.set(index, null);
      this.#free.push(index);
    }
    this.#byFrame.delete(frame);
  }

  dropAll(): void {
    for (const frame of [...this.#byFrame.keys()]) this.drop(frame);
  }
}
