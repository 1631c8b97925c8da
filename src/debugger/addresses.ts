/** Addresses with their space, as the opaque `memoryReference` of the protocol carries them. */
import { CvmError, hex } from '../base/index.ts';
import type { Machine, MachineThread, MemoryRead, MemorySpace } from '../vmm/index.ts';

export type Address =
  | { readonly space: 'virtual'; readonly address: bigint; readonly threadId?: number }
  | { readonly space: MemorySpace; readonly address: bigint };

/** `0x…`: guest-virtual of the thread in focus. */
export const virtualReference = (address: bigint): string => hex(address);
/** `gpa:0x…:private` or `gpa:0x…:shared`: one backing of a guest-physical page. */
export const physicalReference = (address: bigint, space: MemorySpace): string =>
  `gpa:${hex(address)}:${space}`;

const bad = (text: string): CvmError =>
  new CvmError(
    'memory-reference',
    `'${text.slice(0, 80)}' is no address: write 0x…, gva:0x…:THREAD, gpa:0x…:private or gpa:0x…:shared`,
  );

function number(text: string): bigint {
  if (!/^(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})$/.test(text)) throw bad(text);
  return BigInt.asUintN(64, BigInt(text));
}

/** @throws CvmError `memory-reference`. */
export function parseReference(text: string, offset = 0): Address {
  const parts = text.trim().split(':');
  const move = (address: bigint): bigint => BigInt.asUintN(64, address + BigInt(offset));
  if (parts.length === 1) return { space: 'virtual', address: move(number(parts[0]!)) };
  if (parts.length === 3 && parts[0] === 'gva' && /^[0-9]{1,6}$/.test(parts[2]!))
    return { space: 'virtual', address: move(number(parts[1]!)), threadId: Number(parts[2]) };
  if (parts.length === 3 && parts[0] === 'gpa' && (parts[2] === 'private' || parts[2] === 'shared'))
    return { space: parts[2], address: move(number(parts[1]!)) };
  throw bad(text);
}

export const readAt = (machine: Machine, thread: MachineThread, at: Address, length: number): MemoryRead =>
  at.space === 'virtual'
    ? machine.readVirtual(thread, at.address, length)
    : machine.readPhysical(at.address, length, at.space);

export const writeAt = (machine: Machine, thread: MachineThread, at: Address, bytes: Uint8Array): number =>
  at.space === 'virtual'
    ? machine.writeVirtual(thread, at.address, bytes)
    : machine.writePhysical(at.address, bytes, at.space);

/** A little-endian integer of virtual memory; undefined if any byte cannot be read. */
export function readInteger(
  machine: Machine,
  thread: MachineThread,
  address: bigint,
  size: number,
): bigint | undefined {
  const { bytes, readable } = machine.readVirtual(thread, BigInt.asUintN(64, address), size);
  if (readable < size) return undefined;
  let value = 0n;
  for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
  return value;
}
