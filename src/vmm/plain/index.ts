/** Machines without encryption: what `vmm/index.ts` gives out of this folder. */
export { createPlainMachine } from './plain-machine.ts';
export type { PlainMachineOptions } from './plain-machine.ts';
