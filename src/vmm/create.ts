/** Makes a machine: launch, then a schedule over its vCPUs. */
import type { Machine, MachineOptions } from './machine.ts';
import { SnpMachine } from './snp-machine.ts';

/**
 * Launches `options.image` and returns the machine before its first instruction.
 * @throws CvmError naming the directive or field when the launch is refused.
 */
export const createMachine = (options: MachineOptions): Machine => new SnpMachine(options);
