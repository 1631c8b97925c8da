/** The slow paths: what generated code may call, and with what. `engine.ts` implements them. */
import { I32, I64 } from './wasm.ts';

/** Functions of the run-time that generated code calls on its slow paths. */
export const IMPORTS = {
  /** (linear, size) -> value */
  load: { parameters: [I64, I32], results: [I64] },
  /** (linear) -> nothing; the 16 bytes are left in STATE.scratch */
  load128: { parameters: [I64], results: [] },
  /** (linear, size) -> value, checked for writing */
  loadForWrite: { parameters: [I64, I32], results: [I64] },
  /** (linear, size, value) -> nonzero when the run loop must be left after this instruction */
  store: { parameters: [I64, I32, I64], results: [I32] },
  /** (linear), the value in STATE.scratch -> as `store` */
  store128: { parameters: [I64], results: [I32] },
  /** (micro-op, access size, write) -> linear address, segmentation checked */
  address: { parameters: [I32, I32, I32], results: [I64] },
  /** (stack offset, access size, write) -> linear address, checked against SS */
  stackAddress: { parameters: [I64, I32, I32], results: [I64] },
  /** (vector, error code or -1): throws */
  raise: { parameters: [I32, I32], results: [] },
  /** (RFLAGS image): sets the six arithmetic flags */
  setFlags: { parameters: [I64], results: [] },
  /** (micro-op) -> 0 retired, 1 retired and stop, 2 partly done */
  helper: { parameters: [I32], results: [I32] },
  /** (rip) -> micro-op */
  enter: { parameters: [I64], results: [I32] },
  /** (rip, micro-op, address of the jump map's entry): the place has become hot */
  hot: { parameters: [I64, I32, I32], results: [] },
} as const;
export type ImportName = keyof typeof IMPORTS;
