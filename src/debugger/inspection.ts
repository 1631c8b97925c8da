/** The requests that look at a stopped guest: stack, variables, memory, disassembly, expressions. */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { CvmError, hex } from '../base/index.ts';
import type { MachineThread } from '../vmm/index.ts';
import { parseReference, readAt, virtualReference, writeAt } from './addresses.ts';
import type { Address } from './addresses.ts';
import type { Breakpoints } from './breakpoints.ts';
import { COMMAND_NAMES, runCommand } from './commands.ts';
import { SilentError } from './dap/connection.ts';
import type { After, Connection } from './dap/connection.ts';
import { disassemble } from './disassembly.ts';
import { evaluateText, formatValue, splitFormat } from './expression/index.ts';
import type { Scope, TypeName } from './expression/index.ts';
import { sourceFrames } from './inlining.ts';
import { rmpRanges, vmsaFields } from './inspectors.ts';
import type { Guest } from './launch.ts';
import { REGISTERS, formatRegister, registerNamed, writeRegister } from './registers.ts';
import { scopeOf } from './scope.ts';
import { symbolic } from './sources.ts';
import type { Position, Sources } from './sources.ts';
import { unwind } from './stack.ts';
import { Variables } from './variables.ts';
import type { FrameHandle } from './variables.ts';

/** What this part needs of the session. */
export interface Stopped {
  readonly connection: Connection;
  readonly breakpoints: Breakpoints;
  readonly sources: Sources;
  /** Lines as the client counts them: 0 or 1 is added to what the debugger counts from 1. */
  readonly lineOffset: number;
  /** The guest, running or not. @throws CvmError `not-launched`. */
  guest(): Guest;
  /** The guest, stopped. @throws CvmError `not-launched`, `notStopped`. */
  stopped(): Guest;
  thread(id: number): MachineThread;
  /** The thread whose stop or frame the user looks at. */
  focus: MachineThread | undefined;
  /** The client understands `invalidated` and `memory` events. */
  readonly client: P.InitializeRequestArguments;
}

const MAX_MEMORY = 16 * 2 ** 20;
const MAX_COMPLETIONS = 100;

export class Inspection {
  private readonly session: Stopped;
  private readonly variables = new Variables();
  private frames: FrameHandle[] = [];
  private firstFrame = 1;
  private readonly stacks = new Map<number, FrameHandle[]>();

  constructor(session: Stopped) {
    this.session = session;
    const { connection } = session;
    connection.handle('threads', () => this.threads());
    connection.handle('stackTrace', (args) => this.stackTrace(args));
    connection.handle('scopes', ({ frameId }) => {
      session.stopped();
      const at = this.frame(frameId);
      session.focus = at.thread;
      return { scopes: this.variables.scopes(at) };
    });
    connection.handle('variables', ({ variablesReference, start, count }) => {
      const all = this.variables.children(session.stopped(), variablesReference);
      const from = Math.max(0, start ?? 0);
      return { variables: count ? all.slice(from, from + count) : all.slice(from) };
    });
    connection.handle('setVariable', (args, after) => this.setVariable(args, after));
    connection.handle('setExpression', (args, after) => ({
      value: this.assign(session.stopped(), args.expression, args.value, args.frameId, after),
    }));
    connection.handle('evaluate', (args, after) => this.evaluate(args, after));
    connection.handle('completions', (args) => this.completions(args));
    connection.handle('readMemory', (args) => this.readMemory(args));
    connection.handle('writeMemory', (args, after) => this.writeMemory(args, after));
    connection.handle('disassemble', (args) => this.disassemble(args));
    connection.handle('cvm/vmsa', ({ threadId }) => {
      const { machine } = session.stopped();
      return { fields: vmsaFields(machine, session.thread(threadId)) };
    });
    connection.handle('cvm/rmp', ({ start, count }) => rmpRanges(session.stopped().machine, start, count));
  }

  /** The guest goes on: frames and variables are stale. */
  reset(): void {
    this.variables.reset();
    this.firstFrame += this.frames.length;
    this.frames = [];
    this.stacks.clear();
  }

  private threads(): P.ThreadsResponse['body'] {
    // Asked for while the guest runs too.
    const { machine } = this.session.guest();
    return { threads: machine.threads.map((thread) => ({ id: thread.id, name: threadName(thread) })) };
  }

  private stackOf(guest: Guest, thread: MachineThread): FrameHandle[] {
    let stack = this.stacks.get(thread.id);
    if (!stack) {
      stack = unwind(guest.machine, guest.symbols, thread).flatMap((frame, level) =>
        sourceFrames(guest.symbols, frame).map((source) => ({ thread, frame, level, source })),
      );
      this.stacks.set(thread.id, stack);
      this.frames.push(...stack);
    }
    return stack;
  }

  private async stackTrace(args: P.StackTraceArguments): Promise<P.StackTraceResponse['body']> {
    const guest = this.session.stopped();
    const thread = this.session.thread(args.threadId);
    const stack = this.stackOf(guest, thread);
    const start = Math.max(0, args.startFrame ?? 0);
    const handles = stack.slice(start, args.levels ? start + args.levels : undefined);
    const first = this.firstFrame;
    const ids = handles.map((handle) => first + this.frames.indexOf(handle));
    await this.session.sources.probe(
      stack.flatMap(({ source }) => (source.place ? [source.place.file] : [])),
    );
    const stackFrames = handles.map((handle, i): P.StackFrame => {
      const { frame, source } = handle;
      const position = this.position(guest, handle, stack);
      const image = guest.symbols.imageAt(frame.lookup);
      return {
        id: ids[i]!,
        name: source.name ?? '[no symbols]',
        line: position ? position.line + this.session.lineOffset : 0,
        column: position ? position.column : 0,
        ...(position ? { source: position.source } : {}),
        instructionPointerReference: virtualReference(frame.rip),
        ...(image ? { moduleId: image.name } : {}),
        ...(source.name === undefined ? { presentationHint: 'subtle' as const } : {}),
      };
    });
    return { stackFrames, totalFrames: stack.length };
  }

  /** Where a frame is shown: its file if it is here, else the disassembly around it. */
  private position(guest: Guest, at: FrameHandle, stack: readonly FrameHandle[]): Position | undefined {
    const { sources } = this.session;
    const file = sources.inFile(at.source.place);
    if (file) return file;
    const listing = sources.inDisassembly(guest.machine, guest.symbols, at.thread, at.frame.lookup);
    // Library code inlined into code whose file is here: the editor goes to that file.
    const outer = stack.slice(stack.indexOf(at) + 1).filter(({ frame }) => frame === at.frame);
    if (!listing || !outer.some(({ source }) => sources.inFile(source.place))) return listing;
    return { ...listing, source: { ...listing.source, presentationHint: 'deemphasize' } };
  }

  private frame(id: number): FrameHandle {
    const handle = this.frames[id - this.firstFrame];
    if (!handle) throw new CvmError('unknown-frame', `stack frame ${id} is not valid any more`);
    return handle;
  }

  /** The frame an expression is meant for: the one given, else the innermost of the thread in focus. */
  private context(guest: Guest, frameId?: number): { thread: MachineThread; scope: Scope; at: FrameHandle } {
    const at =
      frameId !== undefined && frameId !== 0
        ? this.frame(frameId)
        : this.stackOf(guest, this.session.focus ?? guest.machine.current)[0]!;
    const frame = at.level > 0 ? at.frame : undefined;
    return { thread: at.thread, at, scope: scopeOf(guest.machine, guest.symbols, at.thread, frame) };
  }

  private setVariable(args: P.SetVariableArguments, after: After): P.SetVariableResponse['body'] {
    const guest = this.session.stopped();
    const { thread, frame, level } = this.variables.frameOf(args.variablesReference);
    const scope = scopeOf(guest.machine, guest.symbols, thread, level > 0 ? frame : undefined);
    const { value } = this.variables.set(args.variablesReference, args.name, args.value, scope);
    this.changed(after);
    return { value };
  }

  private assign(
    guest: Guest,
    name: string,
    text: string,
    frameId: number | undefined,
    after: After,
  ): string {
    const { thread, scope } = this.context(guest, frameId);
    const register = registerNamed(name.trim());
    if (!register)
      throw new CvmError('unknown-register', `only a register can be changed, and '${name.trim()}' is none`);
    writeRegister(register, thread.cpu, evaluateText(text, scope).value);
    this.changed(after);
    return formatRegister(register, thread.cpu);
  }

  /** Registers or memory are not what the client saw. */
  private changed(after: After): void {
    // Frames hold copies of rip, rsp and rbp: worked out again, under new ids.
    this.stacks.clear();
    if (this.session.client.supportsInvalidatedEvent)
      after(() => this.session.connection.event('invalidated', { areas: ['stacks', 'variables'] }));
  }

  private evaluate(args: P.EvaluateArguments, after: After): P.EvaluateResponse['body'] {
    const guest = this.session.stopped();
    const { thread, scope } = this.context(guest, args.frameId);
    const text = args.expression.trim();
    if (text === '') return { result: '', variablesReference: 0 };
    if (args.context === 'repl') {
      const ground = { guest, thread, scope, breakpoints: this.session.breakpoints };
      const output = runCommand(ground, text);
      if (output !== undefined) return { result: output, variablesReference: 0 };
      const assignment = /^([$%]?[A-Za-z_][A-Za-z0-9_]*)\s*=(?!=)\s*(.+)$/s.exec(text);
      if (assignment)
        return {
          result: this.assign(guest, assignment[1]!, assignment[2]!, args.frameId, after),
          variablesReference: 0,
        };
    }
    if (args.context === 'hover' && isSourceWord(text))
      throw new SilentError(
        'unknown-name',
        `'${text}' is a word of the source: write $${text} for the register`,
      );
    const { expression, format } = splitFormat(text);
    const register = format === '' ? registerNamed(expression) : undefined;
    if (register && register.bits === 128)
      return { result: formatRegister(register, thread.cpu), type: 'u128', variablesReference: 0 };
    const value = evaluateText(expression, scope);
    const note = register?.note?.(value.value, thread.cpu);
    const name = value.value > 0xffffn ? symbolic(guest.symbols, value.value) : undefined;
    const result = [
      formatValue(value, format || (args.format?.hex ? 'x' : '')),
      ...(note ? [`[${note}]`] : name ? [`<${name}>`] : []),
      ...dataOf(guest, expression, scope),
    ].join(' ');
    return {
      result,
      type: value.type === 'int' ? 'integer' : value.type,
      variablesReference: 0,
      ...(value.value >= 0n ? { memoryReference: virtualReference(value.value) } : {}),
    };
  }

  private completions(args: P.CompletionsArguments): P.CompletionsResponse['body'] {
    const guest = this.session.stopped();
    // Columns count from 1 unless the client said otherwise.
    const column = args.column - (this.session.client.columnsStartAt1 === false ? 0 : 1);
    const before = args.text.slice(0, Math.max(0, column));
    const word = /[$%]?[A-Za-z_][A-Za-z0-9_:]*$/.exec(before)?.[0] ?? '';
    const plain = word.replace(/^[$%]/, '').toLowerCase();
    const place = { start: before.length - word.length, length: word.length };
    const targets: P.CompletionItem[] = [];
    if (before.trim() !== '' || args.text === '')
      for (const name of COMMAND_NAMES)
        if (name.startsWith(before) && name !== before)
          targets.push({ label: name, type: 'function', start: 0, length: before.length });
    if (word !== '')
      for (const register of REGISTERS)
        if (register.name.startsWith(plain))
          targets.push({ label: `$${register.name}`, type: 'variable', ...place });
    if (word.length > 1 && !/^[$%]/.test(word))
      for (const symbol of guest.symbols.lookup(word, MAX_COMPLETIONS))
        targets.push({
          label: symbol.name,
          type: symbol.kind === 'function' ? 'function' : 'variable',
          ...place,
        });
    return { targets: targets.slice(0, MAX_COMPLETIONS) };
  }

  private memoryThread(guest: Guest, at: Address): MachineThread {
    if (at.space === 'virtual' && at.threadId !== undefined) return this.session.thread(at.threadId);
    return this.session.focus ?? guest.machine.current;
  }

  private readMemory(args: P.ReadMemoryArguments): P.ReadMemoryResponse['body'] {
    const guest = this.session.stopped();
    const at = parseReference(args.memoryReference, args.offset ?? 0);
    if (args.count < 0 || args.count > MAX_MEMORY)
      throw new CvmError('invalid-arguments', `count must be between 0 and ${MAX_MEMORY}`);
    const { bytes, readable } = readAt(guest.machine, this.memoryThread(guest, at), at, args.count);
    return {
      address: hex(at.address),
      data: toBase64(bytes.subarray(0, readable)),
      ...(readable < args.count ? { unreadableBytes: args.count - readable } : {}),
    };
  }

  private writeMemory(args: P.WriteMemoryArguments, after: After): P.WriteMemoryResponse['body'] {
    const guest = this.session.stopped();
    const at = parseReference(args.memoryReference, args.offset ?? 0);
    const bytes = fromBase64(args.data);
    const written = writeAt(guest.machine, this.memoryThread(guest, at), at, bytes);
    if (written < bytes.length && !args.allowPartial)
      throw new CvmError(
        'unwritable-memory',
        `cannot write ${bytes.length} bytes at ${args.memoryReference}: not all of them are mapped`,
      );
    if (this.session.client.supportsMemoryEvent)
      after(() =>
        this.session.connection.event('memory', {
          memoryReference: args.memoryReference,
          offset: args.offset ?? 0,
          count: written,
        }),
      );
    this.changed(after);
    return { offset: 0, bytesWritten: written };
  }

  private disassemble(args: P.DisassembleArguments): P.DisassembleResponse['body'] {
    const guest = this.session.stopped();
    const at = parseReference(args.memoryReference);
    const thread = this.memoryThread(guest, at);
    const body = disassemble({ machine: guest.machine, symbols: guest.symbols, thread }, args);
    const { lineOffset } = this.session;
    if (lineOffset !== 0)
      for (const row of body.instructions) if (row.line !== undefined) row.line += lineOffset;
    return body;
  }
}

/** Names under the mouse that are registers beyond doubt; `if`, `id`, `pat`, `al` are more often other things. */
const PLAIN_REGISTER =
  /^(r[a-d]x|r[sd]i|r[sb]p|r\d+[dwb]?|rip|rflags|e[a-d]x|e[sd]i|e[sb]p|cr\d|dr\d|efer|[xy]mm\d+)$/i;
const isSourceWord = (text: string): boolean =>
  /^[a-z_]\w*$/i.test(text) && registerNamed(text) !== undefined && !PLAIN_REGISTER.test(text);

/** What a plain name of a data symbol holds, where that is a number. */
function dataOf(guest: Guest, name: string, scope: Scope): string[] {
  if (!/^[A-Za-z_][\w:]*$/.test(name) || registerNamed(name)) return [];
  const [symbol] = guest.symbols.symbolByName(name);
  if (symbol?.kind !== 'object' || ![1n, 2n, 4n, 8n].includes(symbol.size)) return [];
  try {
    const value = scope.load(symbol.address, Number(symbol.size));
    return [`= ${formatValue({ value, type: `u${8 * Number(symbol.size)}` as TypeName })}`];
  } catch {
    return ['(not mapped)'];
  }
}

const threadName = (thread: MachineThread): string =>
  thread.state === 'running' || thread.state === 'runnable'
    ? thread.name
    : `${thread.name} (${thread.state})`;

/** Base64 of bytes, in pieces that `String.fromCharCode` takes. */
function toBase64(bytes: Uint8Array): string {
  let text = '';
  for (let at = 0; at < bytes.length; at += 0x2000)
    text += String.fromCharCode(...bytes.subarray(at, at + 0x2000));
  return btoa(text);
}

function fromBase64(text: string): Uint8Array {
  let decoded: string;
  try {
    decoded = atob(text);
  } catch {
    throw new CvmError('invalid-arguments', 'data must be base64');
  }
  if (decoded.length > MAX_MEMORY)
    throw new CvmError('invalid-arguments', `at most ${MAX_MEMORY} bytes can be written at once`);
  return Uint8Array.from(decoded, (character) => character.charCodeAt(0));
}
