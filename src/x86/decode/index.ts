/**
 * The instruction decoder: machine code to micro-ops. It knows encodings and nothing of what an
 * instruction does; it never reads registers or memory.
 */
export { decode, emptyMicroOp } from './decode.ts';
