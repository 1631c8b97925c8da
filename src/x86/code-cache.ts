/**
 * Decoded instructions, cached by physical frame, decoding mode and offset. Records live in an arena
 * of machine memory; a store to a frame drops what was decoded from it.
 */
import { NotImplemented } from '../base/index.ts';
import { decode, emptyMicroOp } from './decode/index.ts';
import { HANDLER, caseKey } from './handlers.ts';
import { FS, GS, MODE } from './layout.ts';
import type { Mode } from './layout.ts';
import { PAGE_SIZE } from './memory.ts';
import type { MachineMemory } from './memory.ts';
import { MICRO_OP, OP_FLAG } from './microop.ts';
import type { MicroOp } from './microop.ts';

/** Room for about half a million decoded instructions; a full arena starts again. */
export const CODE_ARENA_BYTES = 16 << 20;
const MAX_BLOCK = 64;
const MODES = 3;

export class CodeCache {
  readonly #memory: MachineMemory;
  readonly #handlers: ReadonlyMap<string, number>;
  readonly #helpers = new Map<string, number>();
  readonly #helperNames: readonly string[];
  readonly #isBreakpoint: (pageOffset: number) => boolean;
  readonly #pages = new Map<number, Uint32Array>();
  readonly #start: number;
  readonly #end: number;
  /** Record (and its `end`) of an instruction that crosses a page: decoded anew each time. */
  readonly #transient: number;
  #next: number;
  /** Set when the arena was started again: every jump map is stale. */
  flushed = false;
  readonly #op = emptyMicroOp();

  constructor(
    memory: MachineMemory,
    handlers: ReadonlyMap<string, number>,
    helperNames: readonly string[],
    isBreakpoint: (pageOffset: number) => boolean,
  ) {
    this.#memory = memory;
    this.#handlers = handlers;
    this.#helperNames = helperNames;
    helperNames.forEach((name, index) => this.#helpers.set(name, index));
    this.#isBreakpoint = isBreakpoint;
    this.#transient = memory.reserve(2 * MICRO_OP.size);
    this.#start = this.#next = memory.reserve(CODE_ARENA_BYTES);
    this.#end = this.#start + CODE_ARENA_BYTES;
  }

  isTransient(op: number): boolean {
    return op === this.#transient;
  }
  /** Name of the helper a record calls; undefined if it is an IR definition's. */
  helperOf(op: number): string | undefined {
    const { view } = this.#memory;
    if (view.getUint16(op + MICRO_OP.original, true) !== HANDLER.helper) return undefined;
    return this.#helperNames[view.getUint16(op + MICRO_OP.helper, true)];
  }
  isBreakpoint(op: number): boolean {
    return this.#memory.view.getUint16(op, true) === HANDLER.breakpoint;
  }

  /** Records of a frame by page offset (0: not decoded). */
  page(frame: number, mode: Mode): Uint32Array | undefined {
    return this.#pages.get(frame + mode);
  }

  /** Address of the record decoded for this place, or 0. */
  find(frame: number, mode: Mode, offset: number): number {
    return this.#pages.get(frame + mode)?.[offset] ?? 0;
  }

  /** The frames of which an instruction at this page offset has been decoded, in any mode. */
  framesWith(offset: number): number[] {
    const frames = new Set<number>();
    for (const [key, page] of this.#pages) if (page[offset] !== 0) frames.add(key - (key % PAGE_SIZE));
    return [...frames];
  }

  /** Drops what was decoded from a frame; false if there was nothing. */
  drop(frame: number): boolean {
    let found = false;
    for (let mode = 0; mode < MODES; mode++) found = this.#pages.delete(frame + mode) || found;
    this.#memory.markCode(frame, false);
    return found;
  }

  dropAll(): void {
    for (const key of this.#pages.keys()) this.#memory.markCode(key & ~(PAGE_SIZE - 1), false);
    this.#pages.clear();
    // Generated code may still stand on a record: the arena is reused only when it is full.
  }

  /**
   * Decodes from an offset of a frame to the end of the block.
   * @param nextPage the following linear page, asked for only if the first instruction crosses into it.
   */
  decode(frame: number, mode: Mode, offset: number, flat: boolean, nextPage: () => Uint8Array): number {
    const { u8 } = this.#memory;
    if (this.#next + (MAX_BLOCK + 2) * MICRO_OP.size > this.#end) {
      this.dropAll();
      this.#next = this.#start;
      this.flushed = true;
    }
    const op = this.#op;
    let at = offset;
    const first = this.#next;
    let page: Uint32Array | undefined;
    for (let count = 0; count < MAX_BLOCK; count++) {
      if (decode(u8, frame + at, frame + PAGE_SIZE, mode, at, op) === 'truncated') {
        if (count > 0) break;
        return this.#decodeCrossing(frame, mode, offset, flat, nextPage());
      }
      if (!page) {
        page = this.#pages.get(frame + mode);
        if (!page) {
          page = new Uint32Array(PAGE_SIZE);
          this.#pages.set(frame + mode, page);
          this.#memory.markCode(frame, true);
        }
      }
      page[at] = this.#next;
      this.#write(this.#next, op, mode, at, flat);
      this.#next += MICRO_OP.size;
      at += op.length;
      if (at >= PAGE_SIZE || (op.endsBlock && !isConditional(op))) break;
    }
    this.#writeEnd(this.#next, at);
    this.#next += MICRO_OP.size;
    return first;
  }

  /** An instruction on two pages belongs to neither: it is not cached, so nothing can be stale. */
  #decodeCrossing(frame: number, mode: Mode, offset: number, flat: boolean, next: Uint8Array): number {
    const bytes = new Uint8Array(32);
    const here = PAGE_SIZE - offset;
    bytes.set(this.#memory.u8.subarray(frame + offset, frame + PAGE_SIZE));
    bytes.set(next.subarray(0, 16), here);
    const op = this.#op;
    if (decode(bytes, 0, here + 16, mode, offset, op) === 'truncated')
      throw new Error('an instruction of more than 15 bytes was decoded');
    this.#write(this.#transient, op, mode, offset, flat);
    this.#writeEnd(this.#transient + MICRO_OP.size, offset + op.length);
    return this.#transient;
  }

  #writeEnd(at: number, pageOffset: number): void {
    this.#memory.u8.fill(0, at, at + MICRO_OP.size);
    this.#memory.view.setUint16(at, HANDLER.end, true);
    this.#memory.view.setUint16(at + MICRO_OP.pageOffset, pageOffset, true);
  }

  #write(at: number, op: MicroOp, mode: Mode, pageOffset: number, flat: boolean): void {
    const { u8, view } = this.#memory;
    let handler: number;
    if (op.helper) {
      handler = HANDLER.helper;
      const helper = this.#helpers.get(op.name) ?? this.#helpers.get('unimplemented');
      if (helper === undefined) throw new NotImplemented(`the instruction ${op.name}`);
      view.setUint16(at + MICRO_OP.helper, helper, true);
    } else handler = this.#handler(op, mode);
    const breakpoint = this.#isBreakpoint(pageOffset);
    view.setUint16(at + MICRO_OP.handler, breakpoint ? HANDLER.breakpoint : handler, true);
    view.setUint16(at + MICRO_OP.original, handler, true);
    let flags = 0;
    const memoryForm = op.form === 'm' || op.form === 'rm' || op.form === 'mr' || op.form === 'mi';
    if (!flat || op.addressSize !== 8 || op.segment === FS || op.segment === GS) flags |= OP_FLAG.slowAddress;
    if (op.lock) flags |= OP_FLAG.lock;
    if (!memoryForm) flags |= OP_FLAG.register;
    u8[at + MICRO_OP.length] = op.length;
    u8[at + MICRO_OP.flags] = flags;
    u8[at + MICRO_OP.a] = op.a;
    u8[at + MICRO_OP.b] = op.b;
    u8[at + MICRO_OP.base] = op.base;
    u8[at + MICRO_OP.index] = op.index;
    u8[at + MICRO_OP.scale] = op.scale;
    u8[at + MICRO_OP.segment] = op.segment;
    view.setUint16(at + MICRO_OP.pageOffset, pageOffset, true);
    view.setInt32(at + MICRO_OP.displacement, op.displacement, true);
    view.setBigInt64(at + MICRO_OP.immediate, op.immediate, true);
    u8[at + MICRO_OP.operandSize] = op.size;
    u8[at + MICRO_OP.addressSize] = op.addressSize;
    u8[at + MICRO_OP.condition] = op.condition;
    u8[at + MICRO_OP.rep] = op.rep;
  }

  #handler(op: MicroOp, mode: Mode): number {
    const legacy = mode !== MODE.code64;
    const find = (isLegacy: boolean, condition: number): number | undefined =>
      this.#handlers.get(caseKey(op.name, op.form, op.size, isLegacy, condition));
    const handler =
      find(legacy, op.condition) ?? find(legacy, 0) ?? find(false, op.condition) ?? find(false, 0);
    if (handler === undefined)
      throw new Error(`the decoder names ${op.name} ${op.form} of size ${op.size}, which no definition has`);
    return handler;
  }
}

/** A branch that may fall through: decoding goes on behind it. */
const isConditional = (op: MicroOp): boolean => !op.helper && op.name === 'jcc';
