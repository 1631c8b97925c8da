/** Puts a kernel into memory as a boot loader would, and the boot processor into the state it expects. */
import { CvmError, NotImplemented } from '../../base/index.ts';
import { CS, DS, ES, FS, GDTR, GS, SS, STATE, TR } from '../../x86/index.ts';
import type { Cpu } from '../../x86/index.ts';
import { ACPI_AREA, acpiTables } from './acpi.ts';
import { loadLinux } from './boot-linux.ts';
import { findMultibootHeader, loadMultiboot } from './boot-multiboot.ts';
import { loadPvh, pvhEntry } from './boot-pvh.ts';
import type { PlainMemory } from './memory.ts';

/** Fixed places below 640 KiB, all of them free memory to the guest. */
export const PLACE = {
  info: 0x9_0000,
  commandLine: 0x9_4000,
  commandLineEnd: 0x9_8000,
  gdt: 0x9_f000,
  /** The extended BIOS data area of a PC begins here. */
  ebda: 0x9_fc00,
} as const;

export interface BootOptions {
  readonly kernel: Uint8Array;
  readonly initrd?: Uint8Array | undefined;
  readonly commandLine: string;
  readonly vcpus: number;
}

export interface MemoryMapEntry {
  readonly start: number;
  readonly size: number;
  /** 1 usable, 2 reserved. */
  readonly type: number;
}

/** What the loaders share. */
export interface BootContext extends BootOptions {
  readonly memory: PlainMemory;
  readonly map: readonly MemoryMapEntry[];
  readonly rsdp: number;
}

/** Where to begin, in flat 32-bit protected mode, and the registers that matter. */
export interface BootEntry {
  readonly eip: number;
  readonly eax?: number;
  readonly ebx?: number;
  readonly esi?: number;
}

function memoryMap(memory: PlainMemory): MemoryMapEntry[] {
  const map: MemoryMapEntry[] = [];
  for (const { start, end } of memory.regions) {
    if (start !== 0) {
      map.push({ start, size: end - start, type: 1 });
      continue;
    }
    map.push(
      { start: 0, size: PLACE.ebda, type: 1 },
      { start: PLACE.ebda, size: 0xa_0000 - PLACE.ebda, type: 2 },
      { start: ACPI_AREA.start, size: ACPI_AREA.end - ACPI_AREA.start, type: 2 },
      { start: 0x10_0000, size: end - 0x10_0000, type: 1 },
    );
  }
  return map;
}

/** @throws CvmError `kernel-format`, `kernel-damaged` or `memory-range`. */
export function boot(memory: PlainMemory, cpu: Cpu, options: BootOptions): string {
  const { rsdp, pieces } = acpiTables(options.vcpus);
  for (const { at, bytes } of pieces) memory.write(at, bytes);
  const text = new TextEncoder().encode(`${options.commandLine}\0`);
  if (text.length > PLACE.commandLineEnd - PLACE.commandLine)
    throw new CvmError('command-line', `the command line of ${text.length - 1} bytes is too long`);
  memory.write(PLACE.commandLine, text);
  const context: BootContext = { ...options, memory, map: memoryMap(memory), rsdp };
  const { entry, format } = load(context);
  enterFlat(memory, cpu, entry);
  return format;
}

function load(context: BootContext): { entry: BootEntry; format: string } {
  const { kernel } = context;
  if (isLinux(kernel)) return { entry: loadLinux(context), format: 'Linux bzImage' };
  const header = findMultibootHeader(kernel);
  if (header) return { entry: loadMultiboot(context, header), format: 'Multiboot' };
  const entry = pvhEntry(kernel);
  if (entry !== undefined) return { entry: loadPvh(context, entry), format: 'PVH' };
  throw new CvmError(
    'kernel-format',
    'this is no kernel that can be started: no Linux bzImage, no Multiboot header in the first 8 KiB, no ELF file with a PVH entry',
  );
}

const isLinux = (file: Uint8Array): boolean =>
  file.length > 0x264 &&
  file[0x1fe] === 0x55 &&
  file[0x1ff] === 0xaa &&
  String.fromCharCode(...file.subarray(0x202, 0x206)) === 'HdrS';

/** Flat 32-bit segments with the selectors Linux asks for (`__BOOT_CS` 0x10, `__BOOT_DS` 0x18), paging off. */
function enterFlat(memory: PlainMemory, cpu: Cpu, entry: BootEntry): void {
  const gdt = new Uint8Array(40);
  const view = new DataView(gdt.buffer);
  view.setBigUint64(0x10, 0x00cf_9b00_0000_ffffn, true);
  view.setBigUint64(0x18, 0x00cf_9300_0000_ffffn, true);
  view.setBigUint64(0x20, 0x0080_8b00_0000_0000n, true);
  memory.write(PLACE.gdt, gdt);
  cpu.setSegment(GDTR, { selector: 0, attributes: 0, limit: gdt.length - 1, base: BigInt(PLACE.gdt) });
  cpu.setSegment(CS, { selector: 0x10, attributes: 0xc9b, limit: 0xffff_ffff, base: 0n });
  for (const index of [DS, ES, SS, FS, GS])
    cpu.setSegment(index, { selector: 0x18, attributes: 0xc93, limit: 0xffff_ffff, base: 0n });
  cpu.setSegment(TR, { selector: 0x20, attributes: 0x8b, limit: 0x67, base: 0n });
  cpu.setU64(STATE.cr0, 0x11n); // PE, ET; caches on
  cpu.setReg(0, BigInt((entry.eax ?? 0) >>> 0));
  cpu.setReg(2, 0n);
  cpu.setReg(3, BigInt((entry.ebx ?? 0) >>> 0));
  cpu.setReg(6, BigInt((entry.esi ?? 0) >>> 0));
  cpu.rip = BigInt(entry.eip >>> 0);
  cpu.nextRip = cpu.rip;
  cpu.updateMode();
  cpu.flushTlb();
}

/** Highest page-aligned place for `size` bytes below `limit` in the memory that begins at 1 MiB. */
export function placeHigh(memory: PlainMemory, size: number, limit: number): number {
  const top = Math.min(memory.regions[0]!.end, limit);
  const at = Math.floor((top - size) / 4096) * 4096;
  if (at < 0x10_0000)
    throw new CvmError(
      'memory-range',
      `${size} bytes of initrd do not fit into the guest's memory: give it more`,
    );
  return at;
}

/** ELF program headers of type LOAD, by physical address. */
export function loadSegments(memory: PlainMemory, file: Uint8Array): { entry: number; end: number } {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const damaged = (): CvmError => new CvmError('kernel-damaged', 'the ELF file of the kernel is cut short');
  if (file.length < 64) throw damaged();
  const wide = file[4] === 2;
  if (file[5] !== 1) throw new NotImplemented('a big-endian kernel');
  const u = (at: number): number => {
    if (at + (wide ? 8 : 4) > file.length) throw damaged();
    return wide ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true);
  };
  const table = u(wide ? 0x20 : 0x1c);
  const size = view.getUint16(wide ? 0x36 : 0x2a, true);
  const count = view.getUint16(wide ? 0x38 : 0x2c, true);
  let end = 0;
  for (let i = 0; i < count; i++) {
    const at = table + i * size;
    if (at + (wide ? 56 : 32) > file.length) throw damaged();
    if (view.getUint32(at, true) !== 1) continue;
    const offset = u(at + (wide ? 8 : 4));
    const physical = u(at + (wide ? 24 : 12));
    const inFile = u(at + (wide ? 32 : 16));
    const inMemory = u(at + (wide ? 40 : 20));
    if (offset + inFile > file.length) throw damaged();
    // Memory starts as zeros: what the file does not hold needs no writing.
    memory.write(physical, file.subarray(offset, offset + inFile));
    end = Math.max(end, physical + inMemory);
  }
  return { entry: u(0x18), end };
}
