/**
 * The host's side of guest memory, as KVM's guest_memfd keeps it: every page of memory has a private or a
 * shared attribute and at most one frame for each; frames are taken on first touch and zeroed. Changing the
 * attribute drops the old frame, as QEMU's discard does.
 */
import { CvmError, hex } from '../base/index.ts';
import { LARGE_PAGE } from '../snp/index.ts';
import type { Rmp } from '../snp/index.ts';
import type { MachineMemory } from '../x86/index.ts';
import type { MemorySpace } from './machine.ts';

const PAGE = 4096;
const PAGES = LARGE_PAGE / PAGE;

interface Chunk {
  readonly privateFrames: Uint32Array;
  readonly sharedFrames: Uint32Array;
  /** 1: the page's attribute is shared. */
  readonly shared: Uint8Array;
}
interface Region {
  readonly start: number;
  readonly end: number;
}

export interface MemoryHooks {
  /** Before a frame is given back: its decoded code must go. */
  frameDropped(frame: number): void;
  /** Before any attribute changes: translations must go. */
  flushTranslations(): void;
}

export class GuestMemory {
  readonly #machine: MachineMemory;
  readonly #rmp: Rmp;
  readonly #hooks: MemoryHooks;
  readonly #largePages: boolean;
  readonly #chunks = new Map<number, Chunk>();
  readonly #regions: Region[] = [];

  /** @param largePages assign 2 MiB RMP entries where a whole 2 MiB area is private and untouched. */
  constructor(machine: MachineMemory, rmp: Rmp, hooks: MemoryHooks, largePages: boolean) {
    this.#machine = machine;
    this.#rmp = rmp;
    this.#hooks = hooks;
    this.#largePages = largePages;
  }

  /** Ascending, disjoint, not touching. */
  get regions(): readonly Region[] {
    return this.#regions;
  }

  /** Makes [start, start+size) memory; what already is stays. Both must be multiples of 4 KiB. */
  addRegion(start: number, size: number): void {
    if (start % PAGE || size % PAGE)
      throw new CvmError(
        'memory-alignment',
        `memory at ${hex(start)} of ${hex(size)} bytes is not page-aligned`,
      );
    if (start + size > 2 ** 52)
      throw new CvmError('memory-range', `memory at ${hex(start)} lies beyond 52 address bits`);
    const end = start + size;
    // The regions that overlap or touch the new one become one with it.
    const first = this.#firstEndingAtOrAfter(start);
    let last = first;
    let merged: Region = { start, end };
    for (; last < this.#regions.length && this.#regions[last]!.start <= end; last++) {
      const region = this.#regions[last]!;
      merged = { start: Math.min(merged.start, region.start), end: Math.max(merged.end, region.end) };
    }
    if (size > 0) this.#regions.splice(first, last - first, merged);
  }

  /** Index of the first region whose end is not below `gpa`. */
  #firstEndingAtOrAfter(gpa: number): number {
    let low = 0;
    let high = this.#regions.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#regions[middle]!.end < gpa) low = middle + 1;
      else high = middle;
    }
    return low;
  }
  #regionOf(gpa: number): Region | undefined {
    let index = this.#firstEndingAtOrAfter(gpa);
    if (this.#regions[index]?.end === gpa) index++;
    const region = this.#regions[index];
    return region && gpa >= region.start ? region : undefined;
  }

  isMemory(gpa: number): boolean {
    return this.#regionOf(gpa) !== undefined;
  }
  #coversLarge(base: number): boolean {
    return (this.#regionOf(base)?.end ?? 0) >= base + LARGE_PAGE;
  }

  #chunk(gpa: number): Chunk {
    const index = Math.floor(gpa / LARGE_PAGE);
    let chunk = this.#chunks.get(index);
    if (!chunk) {
      chunk = {
        privateFrames: new Uint32Array(PAGES),
        sharedFrames: new Uint32Array(PAGES),
        shared: new Uint8Array(PAGES),
      };
      this.#chunks.set(index, chunk);
    }
    return chunk;
  }
  #find(gpa: number): Chunk | undefined {
    return this.#chunks.get(Math.floor(gpa / LARGE_PAGE));
  }

  isShared(gpa: number): boolean {
    return (this.#find(gpa)?.shared[pageIndex(gpa)] ?? 0) === 1;
  }

  /** Frame of a private page, taken if there is none. The caller has checked that it is memory. */
  privateFrame(gpa: number): number {
    const { privateFrames } = this.#chunk(gpa);
    const index = pageIndex(gpa);
    return (privateFrames[index] ||= this.#machine.takeFrame());
  }
  /** Frame of a page whose attribute is shared, taken if there is none; 0 if it is private. */
  sharedFrame(gpa: number): number {
    const chunk = this.#find(gpa);
    const index = pageIndex(gpa);
    if (!chunk || chunk.shared[index] === 0) return 0;
    return (chunk.sharedFrames[index] ||= this.#machine.takeFrame());
  }
  /** The frame of a backing if it exists; 0 if not. Takes nothing. */
  existingFrame(gpa: number, space: MemorySpace): number {
    const chunk = this.#find(gpa);
    if (!chunk) return 0;
    return (space === 'private' ? chunk.privateFrames : chunk.sharedFrames)[pageIndex(gpa)]!;
  }
  /** For the debugger's writes. */
  frameFor(gpa: number, space: MemorySpace): number {
    if (space === 'private') return this.privateFrame(gpa);
    const chunk = this.#chunk(gpa);
    return (chunk.sharedFrames[pageIndex(gpa)] ||= this.#machine.takeFrame());
  }

  /**
   * Gives the guest the page a private access or RMP instruction needs (KVM: `kvm_gmem_get_pfn`, RMPUPDATE).
   * A shared page becomes private first.
   */
  assign(gpa: number): void {
    this.setPrivate(gpa, false);
    const base = gpa - (gpa % LARGE_PAGE);
    if (this.#largePages && this.#coversLarge(base) && this.#untouched(base)) {
      if (this.#rmp.update(base, { assigned: true, large: true }) === 0) return;
    }
    const result = this.#rmp.update(gpa, { assigned: true });
    if (result !== 0) throw new CvmError('rmp-update', `RMPUPDATE of ${hex(gpa)} failed with ${result}`);
  }
  #untouched(base: number): boolean {
    if (this.#find(base)?.shared.includes(1)) return false;
    for (let gpa = base; gpa < base + LARGE_PAGE; gpa += PAGE) if (this.#rmp.raw(gpa) !== 0) return false;
    return true;
  }

  isAssigned(gpa: number): boolean {
    return this.#rmp.isAssigned(gpa);
  }
  /** The 4096 bytes of a frame, live. */
  frameBytes(frame: number): Uint8Array {
    return this.#machine.frame(frame);
  }

  /** A page the loader puts into the guest: assigned and owned by the firmware until it is done. */
  assignForLaunch(gpa: number): void {
    const result = this.#rmp.update(gpa, { assigned: true, immutable: true });
    if (result !== 0) throw new CvmError('rmp-update', `RMPUPDATE of ${hex(gpa)} failed with ${result}`);
  }

  /** Attribute private; the shared frame is discarded. Returns how many of its pages changed. */
  setPrivate(gpa: number, large: boolean): number {
    let changed = 0;
    for (const page of pagesOf(gpa, large)) {
      const chunk = this.#find(page);
      const index = pageIndex(page);
      if (!chunk || chunk.shared[index] === 0) continue;
      if (changed++ === 0) this.#hooks.flushTranslations();
      chunk.shared[index] = 0;
      this.#drop(chunk.sharedFrames, index);
    }
    return changed;
  }

  /** Attribute shared; the page is taken from the guest and its private frame discarded. */
  setShared(gpa: number, large: boolean): number {
    let changed = 0;
    for (const page of pagesOf(gpa, large)) {
      const chunk = this.#chunk(page);
      const index = pageIndex(page);
      if (chunk.shared[index] === 1) continue;
      if (changed++ === 0) this.#hooks.flushTranslations();
      if (this.#rmp.isLarge(page)) this.#rmp.psmash(page);
      if (this.#rmp.isAssigned(page)) this.#rmp.update(page, { assigned: false });
      chunk.shared[index] = 1;
      this.#drop(chunk.privateFrames, index);
    }
    return changed;
  }

  #drop(frames: Uint32Array, index: number): void {
    const frame = frames[index]!;
    if (frame === 0) return;
    frames[index] = 0;
    this.#hooks.frameDropped(frame);
    this.#machine.releaseFrame(frame);
  }

  /** Start addresses of the 2 MiB areas with a frame or a shared page, ascending. */
  areas(): number[] {
    return [...this.#chunks.keys()].sort((a, b) => a - b).map((index) => index * LARGE_PAGE);
  }
}

const pageIndex = (gpa: number): number => Math.floor(gpa / PAGE) % PAGES;
function* pagesOf(gpa: number, large: boolean): Generator<number> {
  if (!large) yield gpa;
  else for (let page = gpa - (gpa % LARGE_PAGE), i = 0; i < PAGES; i++) yield page + i * PAGE;
}
