/**
 * Instructions that are written in TypeScript: rare or complex ones, one function each, called by
 * every engine tier. Rules: check and read everything before the first side effect; throw a
 * `GuestException` to fault; `cpu.nextRip` already holds the following instruction (a jump writes
 * it); call `cpu.updateMode()` after changing CR0, EFER, CS, SS, CPL or AC. A helper that has done
 * only part of a repeated instruction returns `true`: it is entered again, and not counted.
 */
import type { Cpu } from './cpu.ts';
import type { OpView } from './opview.ts';

export type Helper = (cpu: Cpu, op: OpView) => boolean | void;
export type HelperTable = Readonly<Record<string, Helper>>;
