/** The data of the views: the save area of a thread, and the reverse map table. */
import { CvmError, bytesToHex, fieldBytes, hex, readField } from '../base/index.ts';
import { VMSA, describeVmsaField } from '../snp/index.ts';
import type { Machine, MachineThread, RmpRange, RmpState } from '../vmm/index.ts';
import type { RmpRangeInfo, VmsaFieldInfo } from './dap/protocol.ts';

/** The one guest of a machine has the first ASID a host gives. */
const GUEST_ASID = 1;
/** More ranges are not asked of the machine. */
const MAX_RANGES = 65_536;

/** Every field of the save area that is not reserved, in the order of its table. */
export function vmsaFields(machine: Machine, thread: MachineThread): VmsaFieldInfo[] {
  const bytes = machine.vmsa(thread);
  return VMSA.fields
    .filter((field) => !field.name.startsWith('reserved'))
    .map((field) => {
      const { name, offset, size } = field;
      if (field.type === 'bytes') return { name, offset, size, value: bytesToHex(fieldBytes(bytes, field)) };
      const value = readField(bytes, field);
      const note = describeVmsaField(name, value);
      return { name, offset, size, value: hex(value, size * 2), ...(note ? { note } : {}) };
    });
}

export const rmpStateName = (entry: RmpState): string =>
  entry.vmsa ? 'vmsa' : entry.validated ? 'validated' : entry.assigned ? 'assigned' : 'unassigned';

/** `rwx`; `u` or `s` instead of `x` where only user or only supervisor code may execute. */
export function permissionText(bits: number): string {
  if ((bits & 15) === 0) return 'none';
  const execute = bits & 4 ? (bits & 8 ? 'x' : 'u') : bits & 8 ? 's' : '-';
  return `${bits & 1 ? 'r' : '-'}${bits & 2 ? 'w' : '-'}${execute}`;
}

const rangeInfo = (range: RmpRange): RmpRangeInfo => ({
  start: hex(range.gpa),
  end: hex(range.gpa + BigInt(range.pages) * 4096n),
  state: rmpStateName(range),
  pageSize: range.pageSize,
  asid: range.assigned ? GUEST_ASID : 0,
  permissions: range.permissions.map((bits) => permissionText(bits)),
});

/** Runs of equal RMP state; `start` and `count` page through them. @throws CvmError `invalid-arguments`. */
export function rmpRanges(
  machine: Machine,
  start = 0,
  count = MAX_RANGES,
): { ranges: RmpRangeInfo[]; total: number } {
  if (start < 0 || count < 0) throw new CvmError('invalid-arguments', 'start and count must not be negative');
  const ranges = machine.rmp.ranges(MAX_RANGES);
  return { ranges: ranges.slice(start, start + count).map(rangeInfo), total: ranges.length };
}

/** What is known about the page of a virtual address, one fact a row. */
export function pageFacts(
  machine: Machine,
  thread: MachineThread,
  address: bigint,
): { name: string; value: string }[] {
  const mapping = machine.translate(thread, address);
  if (!mapping) return [{ name: 'mapping', value: `${hex(address)} is not mapped` }];
  const facts = [
    { name: 'virtual', value: hex(address & ~0xfffn) },
    { name: 'gpa', value: hex(mapping.gpa & ~0xfffn) },
    { name: 'mapping size', value: hex(mapping.pageSize) },
    { name: 'C-bit', value: mapping.encrypted ? '1 (private)' : '0 (shared)' },
    {
      name: 'mapping',
      value: [
        mapping.writable ? 'writable' : 'read-only',
        mapping.executable ? 'executable' : 'no-execute',
        mapping.user ? 'user' : 'supervisor',
      ].join(', '),
    },
  ];
  return [...facts, ...rmpFacts(machine, mapping.gpa)];
}

/** The RMP entry of a guest-physical page, one fact a row. */
export function rmpFacts(machine: Machine, gpa: bigint): { name: string; value: string }[] {
  const entry = machine.rmp.entry(gpa & ~0xfffn);
  if (!entry) return [{ name: 'RMP', value: 'outside guest memory' }];
  return [
    { name: 'state', value: rmpStateName(entry) },
    { name: 'assigned', value: entry.assigned ? 'yes' : 'no' },
    { name: 'validated', value: entry.validated ? 'yes' : 'no' },
    { name: 'VMSA page', value: entry.vmsa ? 'yes' : 'no' },
    { name: 'RMP page size', value: entry.pageSize === 4096 ? '4K' : '2M' },
    ...entry.permissions.map((bits, vmpl) => ({ name: `VMPL${vmpl}`, value: permissionText(bits) })),
    {
      name: 'backing',
      value:
        [entry.hasPrivate ? 'private' : '', entry.hasShared ? 'shared' : ''].filter(Boolean).join(' and ') ||
        'none yet',
    },
  ];
}
