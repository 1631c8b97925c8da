/** A micro-op record read back from machine memory: what a helper gets beside the `Cpu`. */
import type { MachineMemory } from './memory.ts';
import { MICRO_OP, OP_FLAG } from './microop.ts';

export class OpView {
  readonly #memory: MachineMemory;
  /** Byte offset of the record. */
  at = 0;

  constructor(memory: MachineMemory) {
    this.#memory = memory;
  }

  /** First operand: register byte offset, or plain index (CR, DR, XMM, ST). */
  get a(): number {
    return this.#memory.u8[this.at + MICRO_OP.a]!;
  }
  get b(): number {
    return this.#memory.u8[this.at + MICRO_OP.b]!;
  }
  get base(): number {
    return this.#memory.u8[this.at + MICRO_OP.base]!;
  }
  get index(): number {
    return this.#memory.u8[this.at + MICRO_OP.index]!;
  }
  get scale(): number {
    return this.#memory.u8[this.at + MICRO_OP.scale]!;
  }
  get segment(): number {
    return this.#memory.u8[this.at + MICRO_OP.segment]!;
  }
  get displacement(): number {
    return this.#memory.view.getInt32(this.at + MICRO_OP.displacement, true);
  }
  /** Sign-extended. */
  get immediate(): bigint {
    return this.#memory.view.getBigInt64(this.at + MICRO_OP.immediate, true);
  }
  get length(): number {
    return this.#memory.u8[this.at + MICRO_OP.length]!;
  }
  /** Operand size in bytes. */
  get size(): number {
    return this.#memory.u8[this.at + MICRO_OP.operandSize]!;
  }
  /** Address size in bytes. */
  get addressSize(): number {
    return this.#memory.u8[this.at + MICRO_OP.addressSize]!;
  }
  get condition(): number {
    return this.#memory.u8[this.at + MICRO_OP.condition]!;
  }
  /** 0 none, 2 REPNE (F2), 3 REP/REPE (F3). */
  get rep(): number {
    return this.#memory.u8[this.at + MICRO_OP.rep]!;
  }
  get lock(): boolean {
    return (this.#memory.u8[this.at + MICRO_OP.flags]! & OP_FLAG.lock) !== 0;
  }
  /** The ModRM operand is a register (`b` of an 'rr' form, `a` of an 'r' form), not memory. */
  get isRegister(): boolean {
    return (this.#memory.u8[this.at + MICRO_OP.flags]! & OP_FLAG.register) !== 0;
  }
}
