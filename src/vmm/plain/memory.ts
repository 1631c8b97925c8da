/** Memory of a machine without encryption: one frame a page, taken on first touch. */
import { CvmError, hex } from '../../base/index.ts';
import type { MachineMemory } from '../../x86/index.ts';
import { ramLayout } from '../parameters.ts';
import type { MemoryRange } from '../parameters.ts';

const PAGE = 4096;

export class PlainMemory {
  readonly regions: readonly MemoryRange[];
  readonly #machine: MachineMemory;
  /** Byte offset of the frame of each page, by region; 0: none yet. */
  readonly #frames: readonly Uint32Array[];

  /** @param bytes of guest memory, a multiple of 4 KiB. */
  constructor(machine: MachineMemory, bytes: number) {
    this.#machine = machine;
    this.regions = ramLayout(bytes);
    this.#frames = this.regions.map(({ start, end }) => new Uint32Array((end - start) / PAGE));
  }

  isMemory(gpa: number): boolean {
    return this.regions.some(({ start, end }) => gpa >= start && gpa < end);
  }

  /** Byte offset of the frame of a page, taken if there is none; 0 where there is no memory. */
  frame(gpa: number): number {
    for (const [i, { start, end }] of this.regions.entries())
      if (gpa >= start && gpa < end)
        return (this.#frames[i]![Math.floor((gpa - start) / PAGE)] ||= this.#machine.takeFrame());
    return 0;
  }
  /** The same, taking nothing. */
  existingFrame(gpa: number): number {
    for (const [i, { start, end }] of this.regions.entries())
      if (gpa >= start && gpa < end) return this.#frames[i]![Math.floor((gpa - start) / PAGE)]!;
    return 0;
  }

  /** @throws CvmError `memory-range` unless all of it is memory. */
  write(gpa: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const at = gpa + done;
      const offset = at % PAGE;
      const count = Math.min(PAGE - offset, bytes.length - done);
      const frame = this.frame(at);
      if (frame === 0)
        throw new CvmError(
          'memory-range',
          `${bytes.length} bytes at ${hex(gpa)} do not fit into the guest's memory: give it more`,
          { gpa: BigInt(gpa) },
        );
      this.#machine.aboutToWrite(frame);
      this.#machine.u8.set(bytes.subarray(done, done + count), frame + offset);
      done += count;
    }
  }

  /** As far as there is memory; untouched pages are zeros. */
  read(gpa: number, length: number): { bytes: Uint8Array; readable: number } {
    const bytes = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      const at = gpa + done;
      if (!this.isMemory(at)) break;
      const offset = at % PAGE;
      const count = Math.min(PAGE - offset, length - done);
      const frame = this.existingFrame(at);
      if (frame !== 0) bytes.set(this.#machine.u8.subarray(frame + offset, frame + offset + count), done);
      done += count;
    }
    return { bytes, readable: done };
  }
}
