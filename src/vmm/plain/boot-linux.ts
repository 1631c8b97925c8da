/** The Linux boot protocol (Documentation/arch/x86/boot.rst), 2.10 and later, by its 32-bit entry. */
import { CvmError } from '../../base/index.ts';
import { PLACE, placeHigh } from './boot.ts';
import type { BootContext, BootEntry } from './boot.ts';

/** Offsets in the setup header, which are those in the zero page too. */
const SETUP = {
  setupSects: 0x1f1,
  jump: 0x200,
  version: 0x206,
  typeOfLoader: 0x210,
  loadFlags: 0x211,
  ramdiskImage: 0x218,
  ramdiskSize: 0x21c,
  heapEnd: 0x224,
  commandLine: 0x228,
  initrdMax: 0x22c,
  commandLineSize: 0x238,
  preferred: 0x258,
  initSize: 0x260,
} as const;
/** Of the zero page (struct boot_params). */
const ZERO_PAGE = { rsdp: 0x70, e820Entries: 0x1e8, e820: 0x2d0, size: 4096 } as const;
const LOADED_HIGH = 1;

export function loadLinux({ kernel, initrd, memory, map, rsdp, commandLine }: BootContext): BootEntry {
  const file = new DataView(kernel.buffer, kernel.byteOffset, kernel.byteLength);
  const version = file.getUint16(SETUP.version, true);
  if (version < 0x20a || (kernel[SETUP.loadFlags]! & LOADED_HIGH) === 0)
    throw new CvmError(
      'kernel-format',
      `boot protocol ${version >> 8}.${version & 0xff} is too old: 2.10 and a bzImage are needed`,
    );
  const most = file.getUint32(SETUP.commandLineSize, true);
  if (commandLine.length > most)
    throw new CvmError('command-line', `the command line has more than the ${most} bytes this kernel takes`);
  const setup = ((kernel[SETUP.setupSects] || 4) + 1) * 512;
  const at = Number(file.getBigUint64(SETUP.preferred, true));
  const end = at + file.getUint32(SETUP.initSize, true);
  memory.write(at, kernel.subarray(Math.min(setup, kernel.length)));

  const page = new Uint8Array(ZERO_PAGE.size);
  const zero = new DataView(page.buffer);
  const headerEnd = 0x202 + kernel[SETUP.jump + 1]!;
  page.set(kernel.subarray(SETUP.setupSects, headerEnd), SETUP.setupSects);
  page[SETUP.typeOfLoader] = 0xff;
  zero.setUint32(SETUP.commandLine, PLACE.commandLine, true);
  if (initrd) {
    const place = placeHigh(memory, initrd.length, file.getUint32(SETUP.initrdMax, true));
    if (place < end)
      throw new CvmError(
        'memory-range',
        `kernel and initrd need more than the guest's ${memory.regions[0]!.end} bytes of memory`,
      );
    memory.write(place, initrd);
    zero.setUint32(SETUP.ramdiskImage, place, true);
    zero.setUint32(SETUP.ramdiskSize, initrd.length, true);
  }
  zero.setBigUint64(ZERO_PAGE.rsdp, BigInt(rsdp), true);
  page[ZERO_PAGE.e820Entries] = map.length;
  map.forEach(({ start, size, type }, i) => {
    const entry = ZERO_PAGE.e820 + i * 20;
    zero.setBigUint64(entry, BigInt(start), true);
    zero.setBigUint64(entry + 8, BigInt(size), true);
    zero.setUint32(entry + 16, type, true);
  });
  memory.write(PLACE.info, page);
  return { eip: at, esi: PLACE.info };
}
