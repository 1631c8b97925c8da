/** Steps by source line: over or into the calls of a line, to the beginning of another. */
import type { LineInfo } from '../symbols/index.ts';
import type { MachineThread } from '../vmm/index.ts';
import { decode } from './disassembler.ts';
import type { Instruction } from './disassembler.ts';
import { codeBits, linearRip, linearRsp } from './registers.ts';
import { unwind } from './stack.ts';
import { StepPlan, next } from './stepping.ts';
import type { Ground } from './stepping.ts';
import type { Stop } from './stops.ts';

/** Instructions of one line that are stepped one by one before other vCPUs get their turn. */
const FAIR_STEPS = 256;
/** Instructions of one line after which its end is run to at full speed. */
const SLOW_STEPS = 1500;
/** A function with more rows than this in its line table is stepped slowly. */
const MAX_ROWS = 2000;
/** Bytes looked at for the end of a straight piece of code. */
const STRAIGHT = 512;

/** To the beginning of another line. */
export class LineStep extends StepPlan {
  private readonly kind: 'in' | 'over';
  private line: LineInfo | undefined;
  private functionStart: bigint | undefined;
  private steps = 0;
  private slowSteps = 0;

  constructor(ground: Ground, thread: MachineThread, kind: 'in' | 'over') {
    super(ground, thread);
    this.kind = kind;
    this.line = ground.symbols.lineAt(linearRip(thread.cpu));
    this.functionStart = ground.symbols.functionAt(linearRip(thread.cpu))?.start;
  }

  protected advance(): Stop | undefined {
    const { cpu } = this.thread;
    const before = linearRip(cpu);
    const stack = linearRsp(cpu);
    const instruction = this.instruction();
    if (instruction?.flow === 'call') {
      if (this.kind === 'over') return this.over([next(instruction)], stack);
      return this.intoCall(instruction, stack);
    }
    if (instruction?.flow === 'interrupt') return this.over([next(instruction)], stack);
    if (this.kind === 'over' && ++this.slowSteps > SLOW_STEPS) {
      this.slowSteps = 0;
      const ends = this.ends();
      if (ends.length > 0) return this.over(ends, stack);
    }
    if (instruction && ++this.steps > FAIR_STEPS && this.othersRun()) {
      const ahead = this.ahead(instruction);
      if (ahead.length > 0) {
        this.steps = 0;
        // The line may wait for another vCPU: everybody runs until this one is a little further.
        return this.over(ahead, 0n);
      }
    }
    const result = this.single();
    if (result === 'waiting') return undefined;
    if (result !== 'stepped') return { kind: 'machine', thread: result.thread, stop: result };
    const rip = linearRip(cpu);
    if (instruction && this.wasInterrupted(instruction, rip))
      // An exception or interrupt was taken: its handler is not part of the line.
      return this.over([before, next(instruction)], stack);
    const user = this.ground.userStop(this.thread);
    if (user) return user;
    return this.check(instruction?.flow === 'return');
  }

  protected override arrived(): Stop | undefined {
    return this.check(true);
  }

  /** Whether the step has got somewhere. */
  private check(returned: boolean): Stop | undefined {
    const { symbols } = this.ground;
    const rip = linearRip(this.thread.cpu);
    const line = symbols.lineAt(rip);
    if (!line) {
      // Code without lines: stepping from one, one instruction at a time is all there is.
      if (this.line === undefined) return this.done();
      return symbols.functionAt(rip)?.start === this.functionStart && !returned ? undefined : this.done();
    }
    if (line.line === 0) return undefined;
    const start = symbols.functionAt(rip)?.start;
    if (this.kind === 'over' && start === this.functionStart && this.isInlined(line, start)) return undefined;
    const same =
      this.line?.line === line.line && this.line.file === line.file && start === this.functionStart;
    if (same) return undefined;
    if (rip === line.range[0] && line.isStmt) return this.done();
    // In the middle of a line (back in the caller, or behind a jump): on to the next one.
    this.line = line;
    this.functionStart = start;
    return undefined;
  }

  /** Code of another file inside the function that is stepped: an inlined call, stepped over as any other. */
  private isInlined(line: LineInfo, start: bigint | undefined): boolean {
    if (start === undefined || line.file === this.line?.file) return false;
    return line.file !== this.ground.symbols.lineAt(start)?.file;
  }

  /** Into a function that has lines: to behind its prologue. Any other is stepped over. */
  private intoCall(instruction: Instruction, stack: bigint): Stop | undefined {
    const { symbols } = this.ground;
    const result = this.single();
    if (result === 'waiting') return undefined;
    if (result !== 'stepped') return { kind: 'machine', thread: result.thread, stop: result };
    const rip = linearRip(this.thread.cpu);
    const line = symbols.lineAt(rip);
    if (!line || (instruction.target !== undefined && rip !== instruction.target))
      return this.over([next(instruction), instruction.address], stack);
    const user = this.ground.userStop(this.thread);
    if (user) return user;
    const body = symbols.afterPrologue(rip);
    this.line = undefined;
    this.functionStart = undefined;
    return body === rip ? this.done() : this.over([body], 0n);
  }

  private wasInterrupted(instruction: Instruction, rip: bigint): boolean {
    switch (instruction.flow) {
      case 'next':
        // A repeated string instruction may stand where it is.
        return rip !== next(instruction) && rip !== instruction.address;
      case 'conditional':
        return rip !== next(instruction) && rip !== instruction.target;
      case 'branch':
        return instruction.target !== undefined && rip !== instruction.target;
      default:
        return false;
    }
  }

  private othersRun(): boolean {
    const { threads } = this.ground.execution.machine;
    return threads.some(
      (other) => other.vcpu !== this.thread.vcpu && other.active && other.state !== 'halted',
    );
  }

  /** Where the present line can end: the beginnings of the function's other lines, and its caller. */
  private ends(): bigint[] {
    const { symbols, execution } = this.ground;
    const range = symbols.functionAt(linearRip(this.thread.cpu));
    const [, caller] = unwind(execution.machine, symbols, this.thread, 2);
    if (!range || !caller || !this.line) return [];
    const ends = [caller.rip];
    for (let at = range.start; at < range.end;) {
      const row = symbols.lineAt(at);
      if (!row || row.range[1] <= at || ends.length > MAX_ROWS) return [];
      const other = row.line !== this.line.line || row.file !== this.line.file;
      if (other && row.line !== 0 && row.isStmt && row.range[0] === at) ends.push(at);
      at = row.range[1];
    }
    return ends;
  }

  /** Where execution must come next: the next branch of the line, or the places a direct branch leads to. */
  private ahead(from: Instruction): bigint[] {
    if (from.flow === 'branch' || from.flow === 'conditional')
      return from.target === undefined ? [] : [...new Set([next(from), from.target])];
    if (from.flow !== 'next') return [];
    const { machine } = this.ground.execution;
    const { bytes, readable } = machine.readVirtual(this.thread, from.address, STRAIGHT);
    const code = decode(bytes.subarray(0, readable), from.address, codeBits(this.thread.cpu), STRAIGHT);
    const { line } = this;
    for (const instruction of code) {
      const inside = line && instruction.address >= line.range[0] && instruction.address < line.range[1];
      if (instruction.address !== from.address && (instruction.flow !== 'next' || !inside))
        return [instruction.address];
    }
    return [];
  }
}
