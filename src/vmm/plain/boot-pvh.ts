/** PVH direct boot (Xen's `public/arch-x86/hvm/start_info.h`): an ELF kernel with a 32-bit entry in a note. */
import { PLACE, loadSegments, placeHigh } from './boot.ts';
import type { BootContext, BootEntry } from './boot.ts';

const START_INFO_MAGIC = 0x336e_c578;
/** Note type XEN_ELFNOTE_PHYS32_ENTRY. */
const PHYS32_ENTRY = 18;
const NOTE = 4;

/** The physical entry point of an ELF kernel's Xen note; undefined if it has none. */
export function pvhEntry(file: Uint8Array): number | undefined {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  if (file.length < 64 || view.getUint32(0, false) !== 0x7f45_4c46) return undefined;
  const wide = file[4] === 2;
  const word = (at: number): number => {
    if (at + 8 > file.length) return 0;
    return wide ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true);
  };
  const table = word(wide ? 0x20 : 0x1c);
  const size = view.getUint16(wide ? 0x36 : 0x2a, true);
  const count = view.getUint16(wide ? 0x38 : 0x2c, true);
  for (let i = 0; i < count; i++) {
    const header = table + i * size;
    if (header + 56 > file.length) return undefined;
    if (view.getUint32(header, true) !== NOTE) continue;
    let at = word(header + (wide ? 8 : 4));
    const end = Math.min(at + word(header + (wide ? 32 : 16)), file.length);
    while (at + 12 <= end) {
      const nameSize = view.getUint32(at, true);
      const valueSize = view.getUint32(at + 4, true);
      const value = at + 12 + Math.ceil(nameSize / 4) * 4;
      const name = String.fromCharCode(...file.subarray(at + 12, at + 15));
      if (view.getUint32(at + 8, true) === PHYS32_ENTRY && name === 'Xen' && value + 4 <= end)
        return view.getUint32(value, true);
      at = value + Math.ceil(valueSize / 4) * 4;
    }
  }
  return undefined;
}

export function loadPvh({ kernel, initrd, memory, map, rsdp }: BootContext, entry: number): BootEntry {
  loadSegments(memory, kernel);
  const info = new Uint8Array(4096);
  const view = new DataView(info.buffer);
  const u64 = (offset: number, value: number): void => view.setBigUint64(offset, BigInt(value), true);
  const modules = 0x80;
  const maps = 0x100;
  view.setUint32(0, START_INFO_MAGIC, true);
  view.setUint32(4, 1, true);
  if (initrd) {
    const place = placeHigh(memory, initrd.length, 0x8000_0000);
    memory.write(place, initrd);
    view.setUint32(12, 1, true);
    u64(16, PLACE.info + modules);
    u64(modules, place);
    u64(modules + 8, initrd.length);
  }
  u64(24, PLACE.commandLine);
  u64(32, rsdp);
  u64(40, PLACE.info + maps);
  view.setUint32(48, map.length, true);
  map.forEach(({ start, size, type }, i) => {
    u64(maps + i * 24, start);
    u64(maps + i * 24 + 8, size);
    view.setUint32(maps + i * 24 + 16, type, true);
  });
  memory.write(PLACE.info, info);
  return { eip: entry, ebx: PLACE.info };
}
