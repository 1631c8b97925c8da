/** A typed DAP client over a session in the same thread, and a log of the conversation. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import type { FileAccess, Host } from '../../src/base/index.ts';
import { nodeHost } from '../../src/base/node.ts';
import type { Command, EventName, Events, Requests } from '../../src/debugger/dap/protocol.ts';
import { DebugSession } from '../../src/debugger/session.ts';
import { initSymbols } from '../../src/symbols/index.ts';

// The bundler puts the demangler into the bundles; here it comes from the package.
await initSymbols(
  readFileSync(createRequire(import.meta.url).resolve('gecko-profiler-demangle/index_bg.wasm')),
);

type Args<K extends Command> = Partial<Requests[K][0]> | Record<string, unknown>;
type Body<K extends Command> = Requests[K][1] extends infer B ? Exclude<B, undefined> : never;

/** A request the adapter refused. */
export class Refused extends Error {
  readonly code: string;
  constructor(response: P.Response) {
    const body = response.body as P.ErrorResponse['body'];
    super(String(body.error?.variables?.text ?? response.message));
    this.code = response.message ?? '';
  }
}

export class Client {
  readonly session: DebugSession;
  readonly log: P.ProtocolMessage[] = [];
  private sequence = 0;
  private readonly answers = new Map<number, (response: P.Response) => void>();
  private readonly waiting: { event: string; resolve: (body: unknown) => void }[] = [];
  private readonly unread: P.Event[] = [];

  constructor(host: Host = nodeHost) {
    this.session = new DebugSession(host, (message) => this.heard(message));
  }

  private heard(message: P.ProtocolMessage): void {
    // What crosses a port is a copy; a message that JSON cannot carry would be an error there.
    const copy = JSON.parse(JSON.stringify(message)) as P.ProtocolMessage;
    this.log.push(copy);
    if (copy.type === 'response') {
      const response = copy as P.Response;
      this.answers.get(response.request_seq)?.(response);
      this.answers.delete(response.request_seq);
      return;
    }
    const event = copy as P.Event;
    const index = this.waiting.findIndex((one) => one.event === event.event);
    if (index < 0) this.unread.push(event);
    else this.waiting.splice(index, 1)[0]!.resolve(event.body);
  }

  /** Rejects with `Refused`. */
  async request<K extends Command>(command: K, args?: Args<K>): Promise<Body<K>> {
    const response = await this.raw({ command, ...(args === undefined ? {} : { arguments: args }) });
    if (!response.success) throw new Refused(response);
    return response.body as Body<K>;
  }

  /** Any request, however wrong; the answer as it came. */
  raw(message: { command: string; arguments?: unknown }): Promise<P.Response> {
    const seq = ++this.sequence;
    return new Promise((resolve) => {
      this.answers.set(seq, resolve);
      const request = { seq, type: 'request', ...message } as P.Request;
      this.log.push(request);
      this.session.receive(request);
    });
  }

  /** The next event of a name: one that came and was not asked for yet, else one that comes. */
  event<K extends EventName>(event: K): Promise<NonNullable<Events[K]>> {
    const index = this.unread.findIndex((one) => one.event === event);
    if (index >= 0) return Promise.resolve(this.unread.splice(index, 1)[0]!.body as NonNullable<Events[K]>);
    return new Promise((resolve) => {
      this.waiting.push({ event, resolve: resolve as (body: unknown) => void });
    });
  }

  /** Events of a name that came and were not asked for; they stay. */
  pending<K extends EventName>(event: K): NonNullable<Events[K]>[] {
    return this.unread.filter((one) => one.event === event).map((one) => one.body as NonNullable<Events[K]>);
  }

  /** Console output so far, of one category. */
  output(category = 'stdout'): string {
    return this.log
      .filter((message): message is P.OutputEvent => (message as P.Event).event === 'output')
      .filter((message) => message.body.category === category)
      .map((message) => message.body.output)
      .join('');
  }

  /** Initialize, launch, configure; returns when the guest runs or stands. */
  async launch(args: Record<string, unknown>, configure?: (client: Client) => Promise<void>): Promise<void> {
    await this.request('initialize', {
      adapterID: 'cvm',
      supportsInvalidatedEvent: true,
      supportsMemoryEvent: true,
    });
    await this.request('launch', args);
    await this.event('initialized');
    await configure?.(this);
    await this.request('configurationDone');
  }

  /** Where the thread of a stop is. */
  async top(threadId: number): Promise<P.StackFrame> {
    const { stackFrames } = await this.request('stackTrace', { threadId, levels: 1 });
    return stackFrames[0]!;
  }

  dispose(): void {
    this.session.dispose();
  }
}

/** Files in memory. */
export function memoryHost(files: Readonly<Record<string, Uint8Array>>): Host {
  const access: FileAccess = {
    async readFile(path, maxBytes) {
      const bytes = files[path];
      if (!bytes) return nodeHost.files.readFile(path, maxBytes);
      return bytes;
    },
    exists: async (path) => path in files,
    list: async () => [],
  };
  return { crypto: nodeHost.crypto, files: access };
}
