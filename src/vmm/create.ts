/** Makes a machine: launch, then a schedule over its vCPUs. */
import { NotImplemented } from '../base/index.ts';
import type { Machine, MachineOptions } from './machine.ts';

/**
 * Launches `options.image` and returns the machine before its first instruction.
 * @throws CvmError naming the directive or field when the launch is refused.
 */
export function createMachine(_options: MachineOptions): Machine {
  throw new NotImplemented('createMachine');
}
