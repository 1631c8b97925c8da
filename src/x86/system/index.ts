/**
 * The processor's system side: paging, segmentation, event delivery, far transfers, and every
 * instruction that is about privilege, mode or processor state. It never decides what a page or an
 * intercepted instruction means to a confidential guest: that is the `Platform`'s.
 */
import type { HelperTable } from '../helper.ts';
import { CONTROL_HELPERS } from './control.ts';
import { FLAG_HELPERS } from './flags.ts';
import { FPU_HELPERS } from './fpu.ts';
import { MISC_HELPERS } from './misc.ts';
import { MSR_HELPERS } from './msr.ts';
import { PORT_HELPERS } from './port.ts';
import { SYSCALL_HELPERS } from './syscall.ts';
import { TABLE_HELPERS } from './tables.ts';

export { CR0, CR4, EFER } from './bits.ts';
export { deliver, deliverWithNesting, eventOf, interruptible } from './interrupts.ts';
export type { EventKind, InterruptEvent } from './interrupts.ts';
export { MSR, readMsr, writeMsr } from './msr.ts';
export { permissions, walk } from './paging.ts';
export type { Permissions, Walk, WalkOptions } from './paging.ts';
export { resetProcessor } from './reset.ts';
export { XCR0_SUPPORTED, XSAVE_SIZE } from './fpu.ts';

/** Every system instruction, by the name the decoder gives it. */
export const SYSTEM_HELPERS: HelperTable = {
  ...CONTROL_HELPERS,
  ...FLAG_HELPERS,
  ...FPU_HELPERS,
  ...MISC_HELPERS,
  ...MSR_HELPERS,
  ...PORT_HELPERS,
  ...SYSCALL_HELPERS,
  ...TABLE_HELPERS,
};
