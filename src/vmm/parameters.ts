/** The values a loader deposits in IGVM parameter areas, as QEMU's `backends/igvm.c` computes them. */
import { CvmError, NotImplemented, writeField } from '../base/index.ts';
import { IGVM_VHS_MEMORY_MAP_ENTRY, MEMORY_MAP_ENTRY_TYPES } from '../igvm/index.ts';
import type { ParameterType } from '../igvm/index.ts';

export interface MemoryRange {
  readonly start: number;
  readonly end: number;
}
export interface ParameterValues {
  readonly vcpus: number;
  /** RAM, ascending. */
  readonly memory: readonly MemoryRange[];
  readonly commandLine: string;
}

/**
 * Writes one parameter into its area.
 * @throws CvmError `igvm-parameter` if it does not fit.
 */
export function depositParameter(
  area: Uint8Array,
  parameter: ParameterType,
  byteOffset: number,
  values: ParameterValues,
): void {
  const value = parameterValue(parameter, values);
  // QEMU ignores the offset of tables that fill an area.
  const at = parameter === 'MEMORY_MAP' || parameter === 'MADT' ? 0 : byteOffset;
  if (at + value.length > area.length)
    throw new CvmError(
      'igvm-parameter',
      `parameter ${parameter} needs ${value.length} bytes at offset ${at}, but its area has ${area.length}`,
      { name: parameter },
    );
  area.set(value, at);
}

function parameterValue(parameter: ParameterType, values: ParameterValues): Uint8Array {
  switch (parameter) {
    case 'VP_COUNT':
      return u32(values.vcpus);
    // IgvmEnvironmentInfo bit 0: memory_is_shared.
    case 'ENVIRONMENT_INFO':
      return u32(1);
    case 'MEMORY_MAP':
      return memoryMap(values.memory);
    case 'MADT':
      return madt(values.vcpus);
    case 'COMMAND_LINE':
      return new TextEncoder().encode(`${values.commandLine}\0`);
    // No device tree, no NUMA tables: the area stays zeros.
    case 'DEVICE_TREE':
    case 'SRAT':
    case 'SLIT':
    case 'PPTT':
      return new Uint8Array(0);
    case 'MMIO_RANGES':
      throw new NotImplemented('the MMIO_RANGES parameter', { name: parameter });
  }
}

const u32 = (value: number): Uint8Array => {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return bytes;
};

/** IGVM_VHS_MEMORY_MAP_ENTRY rows, ended by one of zero pages. */
export function memoryMap(memory: readonly MemoryRange[]): Uint8Array {
  const row = IGVM_VHS_MEMORY_MAP_ENTRY;
  const bytes = new Uint8Array((memory.length + 1) * row.size);
  memory.forEach(({ start, end }, index) => {
    const base = index * row.size;
    writeField(bytes, row.field('startingGpaPageNumber'), BigInt(start / 4096), base);
    writeField(bytes, row.field('numberOfPages'), BigInt((end - start) / 4096), base);
    writeField(bytes, row.field('entryType'), BigInt(MEMORY_MAP_ENTRY_TYPES.indexOf('MEMORY')), base);
  });
  return bytes;
}

/** ACPI multiple APIC description table (ACPI 6.5, §5.2.12): one enabled local APIC for each vCPU. */
export function madt(vcpus: number): Uint8Array {
  const length = 44 + vcpus * 8;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  const text = (at: number, value: string): void => bytes.set(new TextEncoder().encode(value), at);
  text(0, 'APIC');
  view.setUint32(4, length, true);
  bytes[8] = 3; // revision
  text(10, 'BOCHS ');
  text(16, 'BXPC    ');
  view.setUint32(24, 1, true);
  text(28, 'BXPC');
  view.setUint32(32, 1, true);
  view.setUint32(36, 0xfee0_0000, true);
  view.setUint32(40, 1, true); // PCAT_COMPAT
  for (let i = 0; i < vcpus; i++) {
    const at = 44 + i * 8;
    bytes[at] = 0; // processor local APIC
    bytes[at + 1] = 8;
    bytes[at + 2] = i;
    bytes[at + 3] = i;
    view.setUint32(at + 4, 1, true); // enabled
  }
  bytes[9] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
  return bytes;
}

/**
 * QEMU's q35 layout: memory from 0, the part above 2 GiB (2.75 GiB where everything fits below) moved to
 * 4 GiB.
 */
export function ramLayout(bytes: number): MemoryRange[] {
  const limit = bytes >= 0xb000_0000 ? 0x8000_0000 : 0xb000_0000;
  const low = Math.min(bytes, limit);
  const ranges: MemoryRange[] = [{ start: 0, end: low }];
  if (bytes > low) ranges.push({ start: 0x1_0000_0000, end: 0x1_0000_0000 + bytes - low });
  return ranges;
}
