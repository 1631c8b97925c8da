/**
 * Steps, as plans a run follows slice by slice: by instruction and out (by line: line-step.ts). Code that is
 * stepped over runs at full speed to a breakpoint at its return address; a deeper activation of the same
 * code is told apart by its stack pointer. Breakpoints of the user end any step.
 */
import { CvmError } from '../base/index.ts';
import type { SymbolSpace } from '../symbols/index.ts';
import type { MachineStop, MachineThread } from '../vmm/index.ts';
import { MAX_INSTRUCTION, decode } from './disassembler.ts';
import type { Instruction } from './disassembler.ts';
import type { Execution } from './execution.ts';
import { codeBits, linearRip, linearRsp } from './registers.ts';
import type { Slice } from './slices.ts';
import { unwind } from './stack.ts';
import type { Stop } from './stops.ts';

/** What a run does in its slices. */
export interface Plan {
  /** Undefined: the slice is used up, go on in the next. */
  slice(slice: Slice): Stop | undefined;
  /** Takes its temporary breakpoints back. */
  dispose(): void;
}

/** What plans need of the session. */
export interface Ground {
  readonly execution: Execution;
  readonly symbols: SymbolSpace;
  /** Asks the user's breakpoints at a place the thread has reached. */
  userStop(thread: MachineThread): Stop | undefined;
}

/** Runs until something stops the guest. */
export class ContinuePlan implements Plan {
  private readonly ground: Ground;

  constructor(ground: Ground) {
    this.ground = ground;
  }

  slice(slice: Slice): Stop | undefined {
    do {
      const stop = this.ground.execution.run(slice);
      if (stop.reason === 'breakpoint') {
        const user = this.ground.userStop(stop.thread);
        if (user) return user;
      } else if (stop.reason !== 'budget') return { kind: 'machine', thread: stop.thread, stop };
    } while (!slice.expired());
    return undefined;
  }

  dispose(): void {}
}

/** Waits for a thread to arrive at one of some addresses with its stack no deeper than it was. */
interface Target {
  readonly addresses: readonly bigint[];
  readonly stack: bigint;
}

export abstract class StepPlan implements Plan {
  protected readonly ground: Ground;
  protected readonly thread: MachineThread;
  private target: Target | undefined;

  constructor(ground: Ground, thread: MachineThread) {
    this.ground = ground;
    this.thread = thread;
  }

  slice(slice: Slice): Stop | undefined {
    do {
      const stop = this.target ? this.towards(this.target, slice) : this.advance();
      if (stop) return stop;
    } while (!slice.expired());
    return undefined;
  }

  dispose(): void {
    this.aim(undefined);
  }

  /** One move of the step, with nothing being waited for. */
  protected abstract advance(): Stop | undefined;

  protected done(): Stop {
    // A breakpoint at the very place is not hit again when the guest goes on.
    return { kind: 'step', thread: this.thread };
  }

  protected aim(target: Target | undefined): void {
    for (const address of this.target?.addresses ?? []) this.ground.execution.release(address);
    this.target = target;
    for (const address of target?.addresses ?? []) this.ground.execution.hold(address);
  }

  private towards(target: Target, slice: Slice): Stop | undefined {
    const stop = this.ground.execution.run(slice);
    if (stop.reason === 'budget') return undefined;
    if (stop.reason !== 'breakpoint') return { kind: 'machine', thread: stop.thread, stop };
    const arrived =
      stop.thread.id === this.thread.id &&
      target.addresses.includes(linearRip(this.thread.cpu)) &&
      linearRsp(this.thread.cpu) >= target.stack;
    if (arrived) this.aim(undefined);
    return this.ground.userStop(stop.thread) ?? (arrived ? this.arrived() : undefined);
  }

  /** The target is reached; undefined goes on stepping. */
  protected arrived(): Stop | undefined {
    return undefined;
  }

  protected instruction(rip = linearRip(this.thread.cpu)): Instruction | undefined {
    const { machine } = this.ground.execution;
    const { bytes, readable } = machine.readVirtual(this.thread, rip, MAX_INSTRUCTION);
    return decode(bytes.subarray(0, readable), rip, codeBits(this.thread.cpu), 1)[0];
  }

  /**
   * Executes one instruction. Where the thread cannot run now (halted, or its vCPU is at another VMPL)
   * everything runs until it is back.
   */
  protected single(): MachineStop | 'stepped' | 'waiting' {
    const stop = this.ground.execution.step(this.thread);
    if (stop.reason === 'step') return 'stepped';
    if (stop.reason !== 'idle' || stop.final) return stop;
    this.aim({ addresses: [linearRip(this.thread.cpu)], stack: 0n });
    return 'waiting';
  }

  /** Runs over a call, or over the handler of an interrupt that was taken, until one of `addresses`. */
  protected over(addresses: readonly bigint[], stack: bigint): undefined {
    this.aim({ addresses, stack });
    return undefined;
  }
}

/** One instruction; `over` does not go into calls, nor into the handler of what the instruction raises. */
export class InstructionStep extends StepPlan {
  private readonly kind: 'in' | 'over';
  private started = false;

  constructor(ground: Ground, thread: MachineThread, kind: 'in' | 'over') {
    super(ground, thread);
    this.kind = kind;
  }

  protected advance(): Stop | undefined {
    if (this.started) return this.done();
    this.started = true;
    const instruction = this.instruction();
    if (
      this.kind === 'over' &&
      instruction &&
      (instruction.flow === 'call' || instruction.flow === 'interrupt')
    )
      return this.over([next(instruction)], linearRsp(this.thread.cpu));
    const result = this.single();
    if (result === 'waiting') return undefined;
    if (result !== 'stepped') return { kind: 'machine', thread: result.thread, stop: result };
    return this.ground.userStop(this.thread) ?? this.done();
  }

  protected override arrived(): Stop {
    return this.done();
  }
}

/** Address behind an instruction. */
export const next = (instruction: Instruction): bigint =>
  BigInt.asUintN(64, instruction.address + BigInt(instruction.length));

/** To the caller, right behind the call. */
export class OutStep extends StepPlan {
  private started = false;
  private readonly to: readonly bigint[];
  private readonly stack: bigint;

  /** @throws CvmError `no-caller`. */
  constructor(ground: Ground, thread: MachineThread) {
    super(ground, thread);
    const [, caller] = unwind(ground.execution.machine, ground.symbols, thread, 2);
    if (!caller) throw new CvmError('no-caller', 'the caller of this function is not known');
    // A handler may have the instruction repeated, or go on behind it.
    const at = caller.interrupted ? this.instruction(caller.rip) : undefined;
    this.to = at ? [caller.rip, next(at)] : [caller.rip];
    this.stack = caller.rsp;
  }

  protected advance(): Stop | undefined {
    if (this.started) return this.done();
    this.started = true;
    return this.over(this.to, this.stack);
  }

  protected override arrived(): Stop {
    return this.done();
  }
}
