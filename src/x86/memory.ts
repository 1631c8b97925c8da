/**
 * One WebAssembly memory holds guest frames, micro-ops, TLBs and register files, so that generated
 * code reaches all of them with plain loads. It is sized once at launch: growing would detach every
 * view, and the operating system commits pages only when they are touched.
 */
import { CvmError } from '../base/index.ts';

export const PAGE_SIZE = 4096;
const WASM_PAGE = 65536;
/** What may hang on the contents of a frame. */
const MARK = { code: 1, lastTable: 2, upperTable: 4 } as const;
const LIMIT = 65536 * WASM_PAGE - WASM_PAGE;

export class MachineMemory {
  readonly memory: WebAssembly.Memory;
  readonly buffer: ArrayBuffer;
  readonly u8: Uint8Array;
  readonly u32: Uint32Array;
  readonly i32: Int32Array;
  readonly u64: BigUint64Array;
  readonly view: DataView;
  readonly #end: number;
  #next = WASM_PAGE; // page 0 stays unused: offset 0 means "none"
  readonly #free: number[] = [];
  #frames = 0;
  /** One byte a frame: what hangs on its contents, bits of `MARK`. */
  readonly #marks: Uint8Array;
  /** Called before a frame that holds decoded code changes. */
  onCodeWrite: (frame: number) => void = () => {};
  /** Called when a page walk reads a frame that held no marked page table: write grants must go. */
  onTableRead: (frame: number) => void = () => {};
  /** Called before a frame that walks have read changes; `upper`: not only as a last-level table. */
  onTableWrite: (frame: number, upper: boolean) => void = () => {};

  /** @param bytes upper bound of everything ever allocated. */
  constructor(bytes: number) {
    const pages = Math.ceil(Math.min(bytes + WASM_PAGE, LIMIT) / WASM_PAGE);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.buffer = this.memory.buffer;
    this.u8 = new Uint8Array(this.buffer);
    this.u32 = new Uint32Array(this.buffer);
    this.i32 = new Int32Array(this.buffer);
    this.u64 = new BigUint64Array(this.buffer);
    this.view = new DataView(this.buffer);
    this.#end = pages * WASM_PAGE;
    this.#marks = new Uint8Array(this.#end / PAGE_SIZE);
  }

  isCode(frame: number): boolean {
    return (this.#marks[frame / PAGE_SIZE]! & MARK.code) !== 0;
  }
  markCode(frame: number, code: boolean): void {
    const at = frame / PAGE_SIZE;
    this.#marks[at] = (this.#marks[at]! & ~MARK.code) | (code ? MARK.code : 0);
  }
  /** Translations hang on this frame: a page walk has read it since it last changed. */
  isTable(frame: number): boolean {
    return (this.#marks[frame / PAGE_SIZE]! & (MARK.lastTable | MARK.upperTable)) !== 0;
  }
  /** A page walk reads an entry of this frame, on its last level or above. */
  markTable(frame: number, upper: boolean): void {
    const at = frame / PAGE_SIZE;
    const marks = this.#marks[at]!;
    const bit = upper ? MARK.upperTable : MARK.lastTable;
    if ((marks & bit) !== 0) return;
    this.#marks[at] = marks | bit;
    if ((marks & (MARK.lastTable | MARK.upperTable)) === 0) this.onTableRead(frame);
  }
  /** To be called by whoever is about to change a frame other than through a TLB write grant. */
  aboutToWrite(frame: number): void {
    const at = frame / PAGE_SIZE;
    const marks = this.#marks[at]!;
    if ((marks & MARK.code) !== 0) this.onCodeWrite(frame);
    if ((marks & (MARK.lastTable | MARK.upperTable)) === 0) return;
    this.#marks[at] = this.#marks[at]! & MARK.code;
    this.onTableWrite(frame, (marks & MARK.upperTable) !== 0);
  }

  /** Reserves a page-aligned, zeroed area that is never given back; returns its byte offset. */
  reserve(bytes: number): number {
    const size = Math.ceil(bytes / PAGE_SIZE) * PAGE_SIZE;
    if (this.#next + size > this.#end)
      throw new CvmError(
        'out-of-machine-memory',
        `the machine's memory of ${this.#end} bytes is full: give the guest less memory, or touch less of it`,
      );
    const at = this.#next;
    this.#next += size;
    return at;
  }

  /** Takes a zeroed 4 KiB frame; returns its byte offset. */
  takeFrame(): number {
    this.#frames++;
    const recycled = this.#free.pop();
    if (recycled === undefined) return this.reserve(PAGE_SIZE);
    this.u8.fill(0, recycled, recycled + PAGE_SIZE);
    this.#marks[recycled / PAGE_SIZE] = 0;
    return recycled;
  }

  /** Gives a frame back. The caller has dropped every TLB entry and decoded instruction on it. */
  releaseFrame(frame: number): void {
    this.#frames--;
    this.#free.push(frame);
  }

  /** Number of guest frames in use. */
  get frames(): number {
    return this.#frames;
  }

  frame(offset: number): Uint8Array {
    return this.u8.subarray(offset, offset + PAGE_SIZE);
  }
}
