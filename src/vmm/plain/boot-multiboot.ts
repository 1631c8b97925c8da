/** Multiboot 0.6.96 (version 1), as kvm-unit-tests and small kernels use it. */
import { CvmError, NotImplemented } from '../../base/index.ts';
import { PLACE, loadSegments } from './boot.ts';
import type { BootContext, BootEntry } from './boot.ts';

const HEADER_MAGIC = 0x1bad_b002;
const BOOT_MAGIC = 0x2bad_b002;
const SEARCHED = 8192;
const FLAG = { video: 4, addresses: 0x1_0000 } as const;
/** Flags of the information structure: memory, command line, modules, memory map, loader name. */
const INFO = { memory: 1, commandLine: 4, modules: 8, map: 0x40, loader: 0x200 } as const;
const PAGE = 4096;

export interface MultibootHeader {
  readonly offset: number;
  readonly flags: number;
}

export function findMultibootHeader(file: Uint8Array): MultibootHeader | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  for (let offset = 0; offset + 12 <= Math.min(file.length, SEARCHED); offset += 4) {
    if (view.getUint32(offset, true) !== HEADER_MAGIC) continue;
    const flags = view.getUint32(offset + 4, true);
    if (((HEADER_MAGIC + flags + view.getUint32(offset + 8, true)) & 0xffff_ffff) === 0)
      return { offset, flags };
  }
  return undefined;
}

export function loadMultiboot(context: BootContext, header: MultibootHeader): BootEntry {
  const { kernel, memory, initrd, map } = context;
  if ((header.flags & 0xfff8) !== 0)
    throw new NotImplemented(`the Multiboot requirements ${(header.flags & 0xffff).toString(16)}`);
  const { entry, end } =
    (header.flags & FLAG.addresses) !== 0 ? loadFlat(context, header) : loadSegments(memory, kernel);

  const info = new Uint8Array(PAGE);
  const view = new DataView(info.buffer);
  const u32 = (offset: number, value: number): void => view.setUint32(offset, value, true);
  const at = PLACE.info;
  const maps = 0x100;
  let flags = INFO.memory | INFO.commandLine | INFO.map | INFO.loader;
  u32(4, 640);
  u32(8, Math.floor((memory.regions[0]!.end - 0x10_0000) / 1024));
  // The first word is the name of the kernel.
  const text = new TextEncoder().encode(`kernel ${context.commandLine}`.trimEnd() + '\0');
  memory.write(PLACE.commandLine, text);
  u32(16, PLACE.commandLine);
  if (initrd) {
    const place = Math.ceil(Math.max(end, 0x10_0000) / PAGE) * PAGE;
    memory.write(place, initrd);
    flags |= INFO.modules;
    u32(20, 1);
    u32(24, at + 0x80);
    u32(0x80, place);
    u32(0x84, place + initrd.length);
    u32(0x88, PLACE.commandLine);
  }
  map.forEach(({ start, size, type }, i) => {
    const entryAt = maps + i * 24;
    u32(entryAt, 20);
    view.setBigUint64(entryAt + 4, BigInt(start), true);
    view.setBigUint64(entryAt + 12, BigInt(size), true);
    u32(entryAt + 20, type);
  });
  u32(44, map.length * 24);
  u32(48, at + maps);
  u32(64, at + 0xf0);
  info.set(new TextEncoder().encode('cvm\0'), 0xf0);
  u32(0, flags);
  memory.write(at, info);
  return { eip: entry, eax: BOOT_MAGIC, ebx: at };
}

/** The address fields of the header: the file is a plain image. */
function loadFlat(
  { kernel, memory }: BootContext,
  { offset }: MultibootHeader,
): { entry: number; end: number } {
  const view = new DataView(kernel.buffer, kernel.byteOffset, kernel.byteLength);
  if (offset + 32 > kernel.length) throw new CvmError('kernel-damaged', 'the Multiboot header is cut short');
  const [header, load, loadEnd, bssEnd, entry] = [12, 16, 20, 24, 28].map((each) =>
    view.getUint32(offset + each, true),
  ) as [number, number, number, number, number];
  const from = offset - (header - load);
  const length = loadEnd === 0 ? kernel.length - from : loadEnd - load;
  if (from < 0 || length < 0 || from + length > kernel.length)
    throw new CvmError('kernel-damaged', 'the addresses in the Multiboot header lie outside the file');
  memory.write(load, kernel.subarray(from, from + length));
  return { entry, end: Math.max(load + length, bssEnd) };
}
