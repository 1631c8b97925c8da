/** The debugger's eyes and hands: reads and writes that set no A bit, fill no TLB entry and raise nothing. */
import type { GuestMemory } from './guest-memory.ts';
import { LARGE_PAGE } from '../snp/index.ts';
import type { Rmp } from '../snp/index.ts';
import { GuestException, VmExit, walk } from '../x86/index.ts';
import type { Cpu, MachineMemory, Walk } from '../x86/index.ts';
import type { MemoryRead, MemorySpace, RmpInspector, RmpRange, RmpState, Translation } from './machine.ts';

const PAGE = 4096;
const READ_LIMIT = 1 << 28;

const peek = (cpu: Cpu, linear: bigint): Walk | undefined =>
  walk(cpu, linear, 'read', 'system', { peek: true });

export function translate(cpu: Cpu, address: bigint): Translation | undefined {
  const linear = BigInt.asUintN(64, address);
  const page = peek(cpu, linear);
  if (!page) return undefined;
  return {
    gpa: BigInt(page.gpa) + (linear & 0xfffn),
    encrypted: page.encrypted,
    pageSize: page.pageSize,
    writable: page.writable,
    user: page.user,
    executable: page.executable,
  };
}

/** Byte offset of the frame that the thread's mapping of a linear page reaches now; undefined if none. */
function frameOf(cpu: Cpu, linear: bigint): number | undefined {
  const page = peek(cpu, linear);
  if (!page) return undefined;
  const request = {
    gpa: page.gpa,
    encrypted: page.encrypted,
    access: 'read',
    user: false,
    pageTable: false,
    linear,
    peek: true,
  } as const;
  try {
    const grant = cpu.platform.page(cpu, request);
    return 'device' in grant ? undefined : grant.frame;
  } catch (error) {
    if (error instanceof GuestException || error instanceof VmExit) return undefined;
    throw error;
  }
}

const clamp = (length: number): number => Math.max(0, Math.min(Math.floor(length), READ_LIMIT));

export function readVirtual(memory: MachineMemory, cpu: Cpu, address: bigint, length: number): MemoryRead {
  const bytes = new Uint8Array(clamp(length));
  let done = 0;
  while (done < bytes.length) {
    const linear = BigInt.asUintN(64, address + BigInt(done));
    const offset = Number(linear & 0xfffn);
    const frame = frameOf(cpu, linear - BigInt(offset));
    if (frame === undefined) break;
    const count = Math.min(PAGE - offset, bytes.length - done);
    bytes.set(memory.u8.subarray(frame + offset, frame + offset + count), done);
    done += count;
  }
  return { bytes, readable: done };
}

export function writeVirtual(memory: MachineMemory, cpu: Cpu, address: bigint, bytes: Uint8Array): number {
  const pieces: { at: number; frame: number; from: number; count: number }[] = [];
  for (let done = 0; done < bytes.length;) {
    const linear = BigInt.asUintN(64, address + BigInt(done));
    const offset = Number(linear & 0xfffn);
    const frame = frameOf(cpu, linear - BigInt(offset));
    if (frame === undefined) return 0;
    const count = Math.min(PAGE - offset, bytes.length - done);
    pieces.push({ at: frame + offset, frame, from: done, count });
    done += count;
  }
  for (const { at, frame, from, count } of pieces) {
    memory.aboutToWrite(frame);
    memory.u8.set(bytes.subarray(from, from + count), at);
  }
  return bytes.length;
}

export function readPhysical(
  memory: MachineMemory,
  guest: GuestMemory,
  gpa: bigint,
  length: number,
  space: MemorySpace,
): MemoryRead {
  const bytes = new Uint8Array(clamp(length));
  let done = 0;
  while (done < bytes.length) {
    const at = Number(gpa) + done;
    const offset = at % PAGE;
    if (!guest.isMemory(at)) break;
    const count = Math.min(PAGE - offset, bytes.length - done);
    const frame = guest.existingFrame(at, space);
    if (frame !== 0) bytes.set(memory.u8.subarray(frame + offset, frame + offset + count), done);
    done += count;
  }
  return { bytes, readable: done };
}

export function writePhysical(
  memory: MachineMemory,
  guest: GuestMemory,
  gpa: bigint,
  bytes: Uint8Array,
  space: MemorySpace,
): number {
  const start = Number(gpa);
  for (let at = start - (start % PAGE); at < start + bytes.length; at += PAGE)
    if (!guest.isMemory(at)) return 0;
  for (let done = 0; done < bytes.length;) {
    const at = start + done;
    const offset = at % PAGE;
    const count = Math.min(PAGE - offset, bytes.length - done);
    const frame = guest.frameFor(at, space);
    memory.aboutToWrite(frame);
    memory.u8.set(bytes.subarray(done, done + count), frame + offset);
    done += count;
  }
  return bytes.length;
}

export class RmpView implements RmpInspector {
  readonly #rmp: Rmp;
  readonly #memory: GuestMemory;
  constructor(rmp: Rmp, memory: GuestMemory) {
    this.#rmp = rmp;
    this.#memory = memory;
  }

  entry(gpa: bigint): RmpState | undefined {
    const page = Number(gpa - (gpa & 0xfffn));
    return this.#memory.isMemory(page) ? this.#state(page) : undefined;
  }

  #state(gpa: number): RmpState {
    const entry = this.#rmp.entry(gpa);
    return {
      gpa: BigInt(gpa),
      assigned: entry.assigned,
      validated: entry.validated,
      vmsa: entry.vmsa,
      immutable: entry.immutable,
      pageSize: entry.pageSize === LARGE_PAGE ? LARGE_PAGE : PAGE,
      permissions: entry.permissions,
      hasPrivate: this.#memory.existingFrame(gpa, 'private') !== 0,
      hasShared: this.#memory.isShared(gpa),
    };
  }

  ranges(limit = 4096): readonly RmpRange[] {
    const areas = new Set([...this.#rmp.areas(), ...this.#memory.areas()]);
    const ranges: { state: RmpState; key: string; pages: number; next: number }[] = [];
    for (const area of [...areas].sort((a, b) => a - b))
      for (let gpa = area; gpa < area + LARGE_PAGE; gpa += PAGE) {
        if (!this.#memory.isMemory(gpa)) continue;
        const raw = this.#rmp.raw(gpa);
        const shared = this.#memory.isShared(gpa);
        if (raw === 0 && !shared) continue;
        // Whether a frame was touched yet is no difference worth a line.
        const key = `${raw}/${shared}`;
        const last = ranges[ranges.length - 1];
        if (last && last.key === key && last.next === gpa) {
          last.pages++;
          last.next += PAGE;
        } else {
          if (ranges.length >= limit) return ranges.map(({ state, pages }) => ({ ...state, pages }));
          ranges.push({ state: this.#state(gpa), key, pages: 1, next: gpa + PAGE });
        }
      }
    return ranges.map(({ state, pages }) => ({ ...state, pages }));
  }
}
