/**
 * One debug session: its states, from the first request to the last, and the requests that make the guest
 * run and stop. Free of any transport and of any host environment.
 */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { CvmError } from '../base/index.ts';
import type { Host } from '../base/index.ts';
import type { MachineThread } from '../vmm/index.ts';
import { Breakpoints } from './breakpoints.ts';
import { registerBreakpointRequests, toClient } from './breakpoint-requests.ts';
import { CAPABILITIES } from './capabilities.ts';
import { consoleOutput } from './console-output.ts';
import { Connection, SilentError } from './dap/connection.ts';
import type { After } from './dap/connection.ts';
import type { LaunchArguments } from './dap/protocol.ts';
import { Execution } from './execution.ts';
import { Inspection } from './inspection.ts';
import type { Stopped } from './inspection.ts';
import { loadGuest, parseLaunch } from './launch.ts';
import { LineStep } from './line-step.ts';
import type { Guest } from './launch.ts';
import { registerModuleRequests } from './modules.ts';
import { placesOf } from './places.ts';
import { linearRip } from './registers.ts';
import { scopeOf } from './scope.ts';
import { Slices } from './slices.ts';
import { Sources } from './sources.ts';
import { ContinuePlan, InstructionStep, OutStep } from './stepping.ts';
import type { Ground, Plan } from './stepping.ts';
import { exitCodeOf, present } from './stops.ts';
import type { Stop } from './stops.ts';

type State =
  /** No guest: nothing launched yet, or the launch failed. */
  | 'empty'
  | 'loading'
  /** Launched; waits for the client to finish its configuration. */
  | 'configuring'
  | 'stopped'
  | 'running'
  /** The guest is over; what it left can be looked at until the client leaves. */
  | 'ended';

export class DebugSession implements Stopped {
  readonly connection: Connection;
  readonly breakpoints = new Breakpoints();
  readonly sources: Sources;
  focus: MachineThread | undefined;
  client: P.InitializeRequestArguments = { adapterID: 'cvm' };
  /** How the guest is cut into slices; tests look at it. */
  readonly slices = new Slices();

  private readonly host: Host;
  private readonly inspection: Inspection;
  private state: State = 'empty';
  private initialized = false;
  private configured = false;
  private disposed = false;
  private current: { guest: Guest; ground: Ground } | undefined;
  private plan: Plan | undefined;
  private pauseRequested = false;
  private lastStop: Stop | undefined;
  private lastLaunch: LaunchArguments | undefined;

  constructor(host: Host, send: (message: P.ProtocolMessage) => void) {
    this.host = host;
    this.connection = new Connection(send);
    this.sources = new Sources(host.files);
    this.inspection = new Inspection(this);
    registerModuleRequests(this);
    this.registerLifecycle();
    registerBreakpointRequests(this);
    this.registerRunning();
  }

  receive(message: P.ProtocolMessage): void {
    if (!this.disposed) this.connection.receive(message);
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.leave();
    this.slices.dispose();
    this.connection.close();
  }

  get lineOffset(): number {
    return this.client.linesStartAt1 === false ? -1 : 0;
  }

  guest(): Guest {
    if (!this.current)
      throw new CvmError(
        'not-launched',
        this.state === 'loading' ? 'the guest is still being loaded' : 'no guest is launched yet',
      );
    return this.current.guest;
  }

  stopped(): Guest {
    const guest = this.guest();
    if (this.state === 'running')
      throw new SilentError('notStopped', 'the guest is running: pause it to look at it');
    return guest;
  }

  thread(id: number): MachineThread {
    const thread = this.guest().machine.threads.find((candidate) => candidate.id === id);
    if (!thread) throw new CvmError('unknown-thread', `there is no thread ${id}`);
    return thread;
  }

  // -- lifecycle ----------------------------------------------------------------------------------

  private registerLifecycle(): void {
    const { connection } = this;
    connection.handle('initialize', (args) => {
      if (this.initialized) throw new CvmError('out-of-order', 'initialize was already received');
      if (args.pathFormat !== undefined && args.pathFormat !== 'path')
        throw new CvmError('unsupported', `path format '${args.pathFormat}' is not supported`);
      this.initialized = true;
      this.client = args;
      return CAPABILITIES;
    });
    connection.handle('launch', (args, after) => this.launch(args, after));
    connection.handle('attach', () => {
      throw new CvmError('unsupported', 'a guest is launched, not attached to: use a launch configuration');
    });
    connection.handle('configurationDone', (_, after) => {
      if (!this.initialized) throw new CvmError('out-of-order', 'initialize must come first');
      if (this.configured) return;
      this.configured = true;
      if (this.state === 'configuring') after(() => this.begin());
    });
    connection.handle('restart', async ({ arguments: changed }, after) => {
      const args = changed ?? this.lastLaunch;
      if (!args) throw new CvmError('not-launched', 'no guest is launched yet');
      if (this.state === 'loading') throw new CvmError('out-of-order', 'the guest is still being loaded');
      this.leave();
      try {
        await this.load(args);
      } catch (error) {
        // The guest that was is gone, and there is no other.
        connection.event('terminated', {});
        throw error;
      }
      after(() => this.begin());
    });
    for (const goodbye of ['terminate', 'disconnect'] as const)
      connection.handle(goodbye, (_, after) => {
        const over = this.state === 'ended' || !this.current;
        this.leave();
        if (!over) after(() => connection.event('terminated', {}));
      });
    connection.handle('cancel', () => {});
  }

  private async launch(args: LaunchArguments, after: After): Promise<void> {
    if (!this.initialized) throw new CvmError('out-of-order', 'initialize must come before launch');
    if (this.state !== 'empty')
      throw new CvmError('out-of-order', 'a guest is launched already: restart it instead');
    await this.load(args);
    after(() => {
      this.connection.event('initialized', undefined);
      if (this.configured) this.begin();
    });
  }

  private async load(args: LaunchArguments): Promise<void> {
    const options = parseLaunch(args);
    this.state = 'loading';
    try {
      const guest = await loadGuest(this.host, options, {
        onConsole: consoleOutput((output) => this.connection.event('output', { category: 'stdout', output })),
      });
      if (this.disposed || this.state !== 'loading')
        throw new SilentError('cancelled', 'the session ended while the guest was being loaded');
      this.sources.reset();
      const execution = new Execution(guest.machine);
      const ground: Ground = {
        execution,
        symbols: guest.symbols,
        userStop: (thread) => this.userStop(thread),
      };
      this.current = { guest, ground };
      this.lastLaunch = args;
      this.state = 'configuring';
      for (const warning of guest.warnings) this.say(`${warning}\n`);
      for (const { image, path } of guest.images)
        this.connection.event('module', {
          reason: 'new',
          module: { id: image.name, name: image.name, path },
        });
      if (!options.noDebug)
        for (const breakpoint of this.breakpoints.attach(execution, placesOf(guest, this.sources)))
          this.connection.event('breakpoint', { reason: 'changed', breakpoint: toClient(this, breakpoint) });
    } catch (error) {
      if (this.state === 'loading') this.state = 'empty';
      throw error;
    }
  }

  /** Configured and launched: the guest runs, or stands at its first instruction. */
  private begin(): void {
    if (this.state !== 'configuring' || !this.current) return;
    const { guest } = this.current;
    if (guest.options.stopOnEntry) this.halt({ kind: 'entry', thread: guest.machine.current });
    else this.run(new ContinuePlan(this.current.ground));
  }

  /** The guest goes away; breakpoints stay. */
  private leave(): void {
    this.plan?.dispose();
    this.plan = undefined;
    this.breakpoints.detach();
    this.inspection.reset();
    this.current = undefined;
    this.focus = undefined;
    this.lastStop = undefined;
    this.state = 'empty';
  }

  // -- breakpoints --------------------------------------------------------------------------------

  /** What the user's breakpoints say to a thread at its rip. */
  private userStop(thread: MachineThread): Stop | undefined {
    const rip = linearRip(thread.cpu);
    if (!this.current || !this.breakpoints.has(rip)) return undefined;
    const { machine, symbols } = this.current.guest;
    const { stop, output } = this.breakpoints.reached(rip, thread, scopeOf(machine, symbols, thread));
    for (const text of output) this.say(text);
    return stop;
  }

  // -- running and stopping -----------------------------------------------------------------------

  private registerRunning(): void {
    const { connection } = this;
    connection.handle('continue', (_, after) => {
      const ground = this.mayRun();
      after(() => this.run(new ContinuePlan(ground)));
      return { allThreadsContinued: true };
    });
    const step = (make: (ground: Ground, thread: MachineThread, byLine: boolean) => Plan) => {
      return ({ threadId, granularity }: P.NextArguments, after: After): void => {
        const ground = this.mayRun();
        const thread = this.thread(threadId);
        // A line can only be stepped where there are lines.
        const byLine =
          granularity !== 'instruction' && ground.symbols.lineAt(linearRip(thread.cpu)) !== undefined;
        const plan = make(ground, thread, byLine);
        after(() => this.run(plan));
      };
    };
    connection.handle(
      'next',
      step((ground, thread, byLine) =>
        byLine ? new LineStep(ground, thread, 'over') : new InstructionStep(ground, thread, 'over'),
      ),
    );
    connection.handle(
      'stepIn',
      step((ground, thread, byLine) =>
        byLine ? new LineStep(ground, thread, 'in') : new InstructionStep(ground, thread, 'in'),
      ),
    );
    connection.handle(
      'stepOut',
      step((ground, thread) => new OutStep(ground, thread)),
    );
    connection.handle('pause', () => {
      this.guest();
      if (this.state === 'running') this.pauseRequested = true;
    });
    connection.handle('exceptionInfo', () => {
      this.stopped();
      const stop = this.lastStop;
      if (stop?.kind !== 'machine')
        throw new CvmError('no-exception', 'the guest did not stop because of an exception');
      const { body } = present(stop);
      return {
        exceptionId: stop.stop.exception?.name ?? stop.stop.reason,
        description: body.text ?? stop.stop.reason,
        breakMode: stop.stop.final ? ('unhandled' as const) : ('always' as const),
        ...(stop.stop.error ? { details: { message: stop.stop.error.toString() } } : {}),
      };
    });
  }

  /** @throws CvmError when there is nothing that could run. */
  private mayRun(): Ground {
    this.stopped();
    if (this.state === 'ended') throw new CvmError('ended', 'the guest has ended: restart it');
    if (this.state === 'configuring')
      throw new CvmError('out-of-order', 'configurationDone must come before the guest can run');
    return this.current!.ground;
  }

  private run(plan: Plan): void {
    const { current } = this;
    if (!current || (this.state !== 'stopped' && this.state !== 'configuring')) return plan.dispose();
    const ended = current.guest.machine.ended;
    if (ended) {
      // The user has seen why; going on ends the session.
      plan.dispose();
      return this.end(exitCodeOf(ended));
    }
    this.inspection.reset();
    this.state = 'running';
    this.pauseRequested = false;
    this.lastStop = undefined;
    this.plan = plan;
    this.slices.start((slice) => {
      if (this.plan !== plan) return false;
      if (this.pauseRequested) {
        this.halt({ kind: 'pause', thread: this.pausedThread(current.guest) });
        return false;
      }
      let stop: Stop | undefined;
      try {
        stop = plan.slice(slice);
      } catch (error) {
        // The machine's own failures are stops; this is a fault of the debugger itself.
        this.say(`The debugger failed: ${(error as Error).stack ?? String(error)}\n`, 'stderr');
        stop = { kind: 'pause', thread: this.pausedThread(current.guest) };
      }
      if (!stop) return true;
      this.halt(stop);
      return false;
    });
  }

  /** Where a pause shows the user: the thread he was looking at, if it is there, else who runs. */
  private pausedThread(guest: Guest): MachineThread {
    return this.focus?.active ? this.focus : guest.machine.current;
  }

  /** The one place where a stop becomes events. */
  private halt(stop: Stop): void {
    const { current } = this;
    if (!current) return;
    this.plan?.dispose();
    this.plan = undefined;
    this.state = 'stopped';
    this.lastStop = stop;
    this.focus = stop.thread;
    current.ground.execution.seen(stop.thread);
    const { body, sentence, ended, exitCode } = present(stop);
    if (sentence) this.say(`${sentence} (${current.guest.machine.retired} instructions)\n`);
    const over = ended || (current.guest.options.noDebug && stop.kind === 'machine');
    if (over) this.end(exitCode);
    else this.connection.event('stopped', body);
  }

  private end(exitCode: number): void {
    this.state = 'ended';
    this.connection.event('exited', { exitCode });
    this.connection.event('terminated', {});
  }

  // -- output -------------------------------------------------------------------------------------

  private say(output: string, category: 'console' | 'stderr' = 'console'): void {
    this.connection.event('output', { category, output });
  }
}
