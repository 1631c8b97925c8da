/**
 * The untrusted host: loads an image through the emulated secure firmware, schedules the vCPUs by retired
 * instructions, answers the GHCB, and carries the devices. It reaches guest state only through what the
 * architecture lets a host reach; it never reads the wall clock.
 */
export type * from './machine.ts';
export { createMachine } from './create.ts';
export { createPlainMachine } from './plain/index.ts';
export type { PlainMachineOptions } from './plain/index.ts';
