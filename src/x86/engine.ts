/**
 * Runs processor contexts: owns the decoded-code cache and the generated interpreter, answers its
 * slow paths, and is the one place where a fault becomes an exception delivered to the guest, an
 * exit to the host, or a stop.
 */
import { CvmError, NotImplemented } from '../base/index.ts';
import { CodeCache } from './code-cache.ts';
import type { Cpu } from './cpu.ts';
import { DEFINITIONS } from './definitions/index.ts';
import { GuestException, VECTOR, VmExit } from './exceptions.ts';
import { HELPERS } from './helpers/index.ts';
import { HEAT_LIMIT_ADDRESS, REASON, generateInterpreter } from './interpreter.ts';
import type { GeneratedInterpreter } from './interpreter.ts';
import { CONTEXT, CS, FLAG, JUMP_ENTRIES, JUMP_ENTRY_SIZE, MODE, SS, STATE } from './layout.ts';
import { MICRO_OP } from './microop.ts';
import type { MachineMemory } from './memory.ts';
import { OpView } from './opview.ts';
import { RegionCache } from './region-cache.ts';
import { deliverWithNesting, interruptible } from './system/index.ts';
import { dropWriteGrants, lookup, slowLoad, slowStore } from './tlb.ts';

export type StopReason = 'budget' | 'breakpoint' | 'stop' | 'delivered' | 'exit' | 'shutdown' | 'error';

export interface RunResult {
  readonly reason: StopReason;
  /** Instructions retired in this call. */
  readonly retired: number;
  /** For 'exit': what the platform threw. */
  readonly exit?: VmExit;
  /** For 'error': what is missing or broken; for 'shutdown': what could not be delivered. */
  readonly error?: CvmError;
}

/** Jumps to a place before its region is compiled. */
export const DEFAULT_HEAT = 500;

/** Repeated instructions may be re-entered this often before `run` gives its caller a turn. */
const PARTIAL_LIMIT = 256;

const SOFTWARE_INTERRUPTS: ReadonlySet<string> = new Set(['int', 'int3', 'int1', 'into']);

const MASK64 = 0xffff_ffff_ffff_ffffn;
const DR6_BS = 1 << 14;

type RunFunction = (ctx: number, op: number, fuel: bigint) => number;

/** The module is the same for every machine of one memory size: compile once. */
const compiled = new Map<number, { module: WebAssembly.Module; generated: GeneratedInterpreter }>();

function compile(memoryPages: number): { module: WebAssembly.Module; generated: GeneratedInterpreter } {
  let entry = compiled.get(memoryPages);
  if (!entry) {
    const generated = generateInterpreter(DEFINITIONS, memoryPages);
    const module = new WebAssembly.Module(generated.bytes as Uint8Array<ArrayBuffer>);
    entry = { module, generated };
    compiled.set(memoryPages, entry);
  }
  return entry;
}

/** What an exception looked like when the guest raised it; given to `onException`. */
export interface ExceptionEvent {
  readonly cpu: Cpu;
  readonly exception: GuestException;
  readonly rip: bigint;
  /** Instructions the context has retired in its life. */
  readonly retired: bigint;
}

export class Engine {
  readonly memory: MachineMemory;
  readonly breakpoints: BreakpointSet;
  /**
   * Called before a guest exception is delivered; returning true stops the run instead, with nothing changed:
   * the next run raises the exception again.
   */
  onException: (event: ExceptionEvent) => boolean = () => false;
  /** The same for what the delivery of an exception raises, #DF at last. */
  onNestedException: (event: ExceptionEvent) => boolean = () => false;

  readonly #code: CodeCache;
  readonly #run: RunFunction;
  readonly #regions: RegionCache;
  readonly #view: OpView;
  readonly #cpus = new Set<Cpu>();
  /** Decoded code was dropped while generated code was running on it. */
  #codeDropped = false;
  #cpu!: Cpu;
  /** Instructions of the present `run` beyond what generated code was last entered with. */
  #unfueled = 0;
  #helpers: readonly ((cpu: Cpu, op: OpView) => boolean | void)[];

  /** @param heat jumps to a place before its region is compiled; 0 leaves all to the interpreter. */
  constructor(memory: MachineMemory, heat: number = DEFAULT_HEAT) {
    this.memory = memory;
    const memoryPages = memory.memory.buffer.byteLength / 65536;
    const { module, generated } = compile(memoryPages);
    const helperNames = Object.keys(HELPERS);
    this.#helpers = helperNames.map((name) => HELPERS[name]!);
    this.breakpoints = new BreakpointSet((offset) => this.#drop(this.#code.framesWith(offset)));
    this.#code = new CodeCache(memory, generated.handlers, helperNames, (offset) =>
      this.breakpoints.hasPageOffset(offset),
    );
    this.#view = new OpView(memory);
    memory.onCodeWrite = (frame) => this.codeChanged(frame);
    const imports: Record<string, unknown> = { memory: memory.memory, ...this.#imports() };
    this.#regions = new RegionCache({ view: memory.view, memoryPages, imports, cases: generated.cases });
    imports.table = this.#regions.table;
    const instance = new WebAssembly.Instance(module, { env: imports as WebAssembly.ModuleImports });
    imports.normalize = instance.exports.normalize;
    this.#run = instance.exports.run as RunFunction;
    memory.u32[HEAT_LIMIT_ADDRESS / 4] = heat;
  }

  /** Regions compiled so far. */
  get compiledRegions(): number {
    return this.#regions.compiled;
  }

  /** Someone changed or re-purposed a frame: what was decoded from it is dropped. */
  codeChanged(frame: number): void {
    this.#drop([frame]);
  }

  #drop(frames: readonly number[]): void {
    let found = false;
    for (const frame of frames)
      if (this.#code.drop(frame)) {
        this.#regions.drop(frame);
        found = true;
      }
    if (!found) return;
    this.#codeDropped = true;
    for (const cpu of this.#cpus) cpu.flushJumps();
  }

  /** Instructions of the present `run` that have not retired yet; exact where a helper or the platform asks. */
  get remaining(): number {
    return this.#unfueled + Number(this.#cpu.u64(STATE.budget));
  }

  /**
   * Runs until `maxInstructions` have retired or something stops the context.
   * @param stopAtDelivery also stop ('delivered') at the first instruction of an exception's handler.
   */
  run(cpu: Cpu, maxInstructions: number, stopAtDelivery = false): RunResult {
    this.#cpus.add(cpu);
    this.#cpu = cpu;
    let left = maxInstructions;
    let partials = 0;
    let passBreakpoint = true;
    const done = (reason: StopReason, more: Partial<RunResult> = {}): RunResult => {
      const retired = maxInstructions - left;
      cpu.setU64(STATE.retired, cpu.u64(STATE.retired) + BigInt(retired));
      return { reason, retired, ...more };
    };
    for (let first = true; left > 0; first = false) {
      if (!first && letsInterruptIn(cpu)) return done('stop');
      cpu.setU32(STATE.stopRequested, 0);
      this.#codeDropped = false;
      const interruptShadow = cpu.u32(STATE.interruptShadow);
      const shadow = interruptShadow !== 0;
      const trap = (cpu.u32(STATE.systemFlags) & FLAG.TF) !== 0;
      const fuel = shadow || trap ? 1 : left;
      this.#unfueled = left - fuel;
      if (shadow) cpu.setU32(STATE.interruptShadow, 0);
      try {
        const ip = cpu.rip;
        // `enter` below may fault on the fetch: rip is exact, nothing has run.
        cpu.setU32(STATE.currentOp, 0);
        cpu.setU64(STATE.budget, BigInt(fuel));
        const op = this.#enter(ip);
        cpu.setU32(STATE.skipBreak, passBreakpoint && this.#code.isBreakpoint(op) ? 1 : 0);
        passBreakpoint = false;
        const reason = this.#run(cpu.base, op, BigInt(fuel));
        const used = fuel - Number(cpu.u64(STATE.budget));
        left -= used;
        // INT n and its kin clear TF as they go: nothing is pending at the handler (APM vol. 2, §13.1.4).
        if (trap && used > 0 && !SOFTWARE_INTERRUPTS.has(this.#code.helperOf(op) ?? '')) {
          deliverWithNesting(cpu, { vector: VECTOR.DB, kind: 'exception', dr6: DR6_BS });
        }
        if (reason === REASON.breakpoint) {
          if (this.breakpoints.has(this.#linear(cpu))) return done('breakpoint');
          passBreakpoint = true; // another address with the same page offset
        } else if (reason === REASON.partial && ++partials > PARTIAL_LIMIT) return done('budget');
        else if (cpu.u32(STATE.stopRequested) !== 0) return done('stop');
      } catch (thrown) {
        const retiring = thrown instanceof VmExit && thrown.retire;
        if (retiring) cpu.rip = cpu.nextRip;
        else this.#restoreRip(cpu);
        left -= fuel - Number(cpu.u64(STATE.budget)) + (retiring ? 1 : 0);
        if (thrown instanceof VmExit) return done('exit', { exit: thrown });
        if (thrown instanceof CvmError) return done('error', { error: atRip(thrown, cpu.rip) });
        if (!(thrown instanceof GuestException)) throw thrown;
        try {
          const retired = cpu.u64(STATE.retired) + BigInt(maxInstructions - left);
          const event = (exception: GuestException): ExceptionEvent => ({
            cpu,
            exception,
            rip: cpu.rip,
            retired,
          });
          const held =
            this.onException(event(thrown)) ||
            !deliverWithNesting(cpu, thrown, (raised) => this.onNestedException(event(raised)));
          if (held) {
            // Still in the shadow: no interrupt may come before the instruction is tried again.
            if (shadow) cpu.setU32(STATE.interruptShadow, interruptShadow);
            return done('stop');
          }
        } catch (second) {
          if (second instanceof VmExit)
            return done(second.reason === 'shutdown' ? 'shutdown' : 'exit', { exit: second });
          if (second instanceof CvmError) return done('error', { error: atRip(second, cpu.rip) });
          throw second;
        }
        if (stopAtDelivery) return done('delivered');
        // An exception takes the place of an instruction: a storm of them must not run for ever.
        if (++partials > PARTIAL_LIMIT) return done('budget');
      }
    }
    return done('budget');
  }

  /** Linear address of the current instruction. */
  #linear(cpu: Cpu): bigint {
    return cpu.mode === MODE.code64 ? cpu.rip : (cpu.segmentBase(CS) + cpu.rip) & 0xffff_ffffn;
  }

  #restoreRip(cpu: Cpu): void {
    const op = cpu.u32(STATE.currentOp);
    if (op !== 0) cpu.rip = this.#ripOf(cpu, op);
  }

  #ripOf(cpu: Cpu, op: number): bigint {
    const rip =
      (cpu.u64(STATE.codePage) + BigInt(this.memory.view.getUint16(op + MICRO_OP.pageOffset, true))) & MASK64;
    return cpu.mode === MODE.code64 ? rip : rip & 0xffff_ffffn;
  }

  /** Finds or decodes the instruction at rip; throws what the fetch raises. */
  #enter(ip: bigint): number {
    const cpu = this.#cpu;
    const { mode } = cpu;
    cpu.rip = ip;
    let linear = ip;
    if (mode !== MODE.code64) {
      if (ip > BigInt(cpu.limit(CS))) throw new GuestException(VECTOR.GP, 0);
      linear = (cpu.segmentBase(CS) + ip) & 0xffff_ffffn;
    }
    const host = lookup(cpu, linear, 'execute', 'current');
    if (host === undefined) throw new NotImplemented('executing from a device page', { rip: ip });
    const offset = host & 0xfff;
    const frame = host - offset;
    let op = this.#code.find(frame, mode, offset);
    if (op === 0) {
      const flat = mode === MODE.code64;
      const next = (): Uint8Array => this.#nextPage(cpu, linear);
      const fresh = !this.memory.isCode(frame);
      op = this.#code.decode(frame, mode, offset, flat, next);
      if (fresh && this.memory.isCode(frame)) for (const each of this.#cpus) dropWriteGrants(each, frame);
      if (this.#code.flushed) {
        this.#code.flushed = false;
        this.#regions.dropAll();
        for (const each of this.#cpus) each.flushJumps();
      }
    }
    cpu.setU64(STATE.codePage, (ip - BigInt(offset)) & MASK64);
    if (!this.#code.isTransient(op)) {
      const slot = Number((ip ^ (ip >> 12n)) & BigInt(JUMP_ENTRIES - 1));
      const at = cpu.base + CONTEXT.jumps + slot * JUMP_ENTRY_SIZE;
      this.memory.u64[at / 8] = ip;
      this.memory.u32[at / 4 + 2] = op;
      this.memory.u32[at / 4 + 3] = this.#regions.word(op);
    }
    return op;
  }

  /** A place was jumped to often: compiles its region and marks the jump map's entry. */
  #hot(ip: bigint, op: number, entry: number): void {
    const cpu = this.#cpu;
    if (cpu.mode !== MODE.code64 || this.#code.isTransient(op)) return;
    const host = this.#fetched(cpu, ip);
    if (host === undefined) return;
    const offset = host & 0xfff;
    const page = this.#code.page(host - offset, cpu.mode);
    if (page?.[offset] !== op) return;
    const word = this.#regions.compile(host - offset, page, offset);
    if (word !== 0) this.memory.i32[entry / 4 + CONTEXT.jumps / 4 + 3] = word;
  }

  /** Where code that the jump map knows lies; undefined if its translation is gone by now. */
  #fetched(cpu: Cpu, ip: bigint): number | undefined {
    try {
      return lookup(cpu, ip, 'execute', 'current');
    } catch (error) {
      if (error instanceof GuestException || error instanceof VmExit) return undefined;
      throw error;
    }
  }

  /** The page behind the one `linear` lies in, for an instruction that crosses into it. */
  #nextPage(cpu: Cpu, linear: bigint): Uint8Array {
    const next = ((linear | 0xfffn) + 1n) & (cpu.mode === MODE.code64 ? MASK64 : 0xffff_ffffn);
    const host = lookup(cpu, next, 'execute', 'current');
    if (host === undefined) throw new NotImplemented('executing from a device page', { rip: cpu.rip });
    return this.memory.frame(host);
  }

  // -- what generated code calls ------------------------------------------------------------------------

  #imports(): Record<string, (...args: never[]) => unknown> {
    const { memory } = this;
    const u = (value: bigint): bigint => BigInt.asUintN(64, value);
    const leaving = (): number => (this.#codeDropped || this.#cpu.u32(STATE.stopRequested) ? 1 : 0);
    return {
      load: (linear: bigint, size: number) =>
        BigInt.asIntN(64, slowLoad(this.#cpu, u(linear), size, 'current', false)),
      load128: (linear: bigint) => {
        const low = slowLoad(this.#cpu, u(linear), 8, 'current', false);
        const high = slowLoad(this.#cpu, u(linear + 8n), 8, 'current', false);
        this.#cpu.setU64(STATE.scratch, low);
        this.#cpu.setU64(STATE.scratch + 8, high);
      },
      loadForWrite: (linear: bigint, size: number) =>
        BigInt.asIntN(64, slowLoad(this.#cpu, u(linear), size, 'current', true)),
      store: (linear: bigint, size: number, value: bigint) => {
        slowStore(this.#cpu, u(linear), size, u(value), 'current');
        return leaving();
      },
      store128: (linear: bigint) => {
        const cpu = this.#cpu;
        const low = cpu.u64(STATE.scratch);
        const high = cpu.u64(STATE.scratch + 8);
        cpu.probe(u(linear), 16, 'write');
        slowStore(cpu, u(linear), 8, low, 'current');
        slowStore(cpu, u(linear + 8n), 8, high, 'current');
        return leaving();
      },
      address: (op: number, size: number, write: number) => {
        this.#view.at = op;
        return BigInt.asIntN(64, this.#cpu.address(this.#view, size, write !== 0));
      },
      stackAddress: (offset: bigint, size: number, write: number) => {
        const cpu = this.#cpu;
        const cut = u(offset) & cpu.u64(STATE.stackMask);
        return BigInt.asIntN(64, cpu.segmented(SS, cut, size, write !== 0));
      },
      raise: (vector: number, errorCode: number) => {
        throw new GuestException(vector, errorCode < 0 ? undefined : errorCode);
      },
      setFlags: (image: bigint) => this.#cpu.setArithmeticFlags(Number(image & 0xffff_ffffn)),
      helper: (op: number) => {
        const cpu = this.#cpu;
        const view = this.#view;
        view.at = op;
        const rip = this.#ripOf(cpu, op);
        cpu.rip = rip;
        const next = rip + BigInt(view.length);
        cpu.nextRip = cpu.mode === MODE.code64 ? next & MASK64 : next & 0xffff_ffffn;
        const index = memory.view.getUint16(op + MICRO_OP.helper, true);
        if (this.#helpers[index]!(cpu, view) === true) return 2;
        // An interrupt shadow, or TF just set, ends with the next instruction: back to where it is counted.
        const watched = cpu.u32(STATE.interruptShadow) !== 0 || (cpu.u32(STATE.systemFlags) & FLAG.TF) !== 0;
        return leaving() || watched || letsInterruptIn(cpu) ? 1 : 0;
      },
      enter: (ip: bigint) => this.#enter(u(ip)),
      hot: (ip: bigint, op: number, entry: number) => this.#hot(u(ip), op, entry),
    };
  }
}

/** Whoever runs the context has an interrupt for it, and it would take one now. */
const letsInterruptIn = (cpu: Cpu): boolean => cpu.u32(STATE.interruptWaiting) !== 0 && interruptible(cpu);

const atRip = (error: CvmError, rip: bigint): CvmError =>
  error.place.rip !== undefined
    ? error
    : error instanceof NotImplemented
      ? new NotImplemented(error.message.replace(/^not implemented: /, ''), { ...error.place, rip })
      : new CvmError(error.code, error.message, { ...error.place, rip });

/** Linear addresses at which to stop, for every context. */
export class BreakpointSet {
  readonly #addresses = new Map<bigint, number>();
  readonly #offsets = new Map<number, number>();
  readonly #changed: (offset: number) => void;

  /** @param changed called when a page offset gets its first address, or has lost its last. */
  constructor(changed: (offset: number) => void) {
    this.#changed = changed;
  }
  /** Counted: an address added twice must be removed twice. */
  add(linear: bigint): void {
    const count = this.#addresses.get(linear) ?? 0;
    this.#addresses.set(linear, count + 1);
    if (count > 0) return;
    const offset = Number(linear & 0xfffn);
    const others = this.#offsets.get(offset) ?? 0;
    this.#offsets.set(offset, others + 1);
    if (others === 0) this.#changed(offset);
  }
  remove(linear: bigint): void {
    const count = this.#addresses.get(linear);
    if (count === undefined) return;
    if (count > 1) {
      this.#addresses.set(linear, count - 1);
      return;
    }
    this.#addresses.delete(linear);
    const offset = Number(linear & 0xfffn);
    const offsets = this.#offsets.get(offset)!;
    if (offsets > 1) {
      this.#offsets.set(offset, offsets - 1);
      return;
    }
    this.#offsets.delete(offset);
    this.#changed(offset);
  }
  clear(): void {
    const offsets = [...this.#offsets.keys()];
    this.#addresses.clear();
    this.#offsets.clear();
    for (const offset of offsets) this.#changed(offset);
  }
  has(linear: bigint): boolean {
    return this.#addresses.has(linear);
  }
  /** Decoded code is shared by all mappings of a frame: it is marked by the offset alone. */
  hasPageOffset(offset: number): boolean {
    return this.#offsets.has(offset);
  }
}
