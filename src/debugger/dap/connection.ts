/**
 * One end of a DAP conversation, free of any transport: messages in by `receive`, out by `send`. It
 * checks and dispatches requests, turns what handlers throw into error responses, and numbers messages.
 */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { CvmError } from '../../base/index.ts';
import { SHAPES, checkShape } from './shape.ts';
import type { Command, EventName, Events, Requests } from './protocol.ts';

/** Takes what is to be done once the answer has been sent; dropped if the request fails. */
export type After = (action: () => void) => void;

export type Handler<K extends Command> = (
  args: Requests[K][0],
  after: After,
) => Requests[K][1] | Promise<Requests[K][1]>;

/** Requests a person made by hand: their errors are shown. Those of hovers, watches and views are not. */
const BY_HAND: ReadonlySet<string> = new Set<Command>([
  'launch',
  'attach',
  'restart',
  'continue',
  'next',
  'stepIn',
  'stepOut',
  'setVariable',
  'setExpression',
  'writeMemory',
]);

/** Thrown by a handler that must not show an error box: the client asked too late, nothing is wrong. */
export class SilentError extends CvmError {}

export class Connection {
  private readonly send: (message: P.ProtocolMessage) => void;
  private readonly handlers = new Map<string, (args: unknown, after: After) => unknown>();
  private sequence = 0;
  private closed = false;

  constructor(send: (message: P.ProtocolMessage) => void) {
    this.send = send;
  }

  handle<K extends Command>(command: K, handler: Handler<K>): void {
    this.handlers.set(command, (args, after) => {
      checkShape(SHAPES[command], args);
      return handler((args ?? {}) as Requests[K][0], after);
    });
  }

  event<K extends EventName>(event: K, body: Events[K]): void {
    this.post({ type: 'event', event, ...(body === undefined ? {} : { body }) });
  }

  close(): void {
    this.closed = true;
  }

  receive(message: unknown): void {
    const request = message as Partial<P.Request> | null;
    if (typeof request !== 'object' || request === null) return;
    // Responses (to reverse requests, of which there are none) and events are not for an adapter.
    if (request.type !== 'request' || typeof request.seq !== 'number') return;
    if (typeof request.command !== 'string') return;
    void this.dispatch(request as P.Request);
  }

  private async dispatch(request: P.Request): Promise<void> {
    const actions: (() => void)[] = [];
    try {
      const handler = this.handlers.get(request.command);
      if (!handler)
        throw new CvmError(
          'unknown-request',
          `the debug adapter does not know the request '${request.command.slice(0, 80)}'`,
        );
      // A handler that is not asynchronous answers before the next message is looked at.
      const result = handler(request.arguments, (action) => actions.push(action));
      this.respond(request, result instanceof Promise ? await result : result);
    } catch (error) {
      this.fail(request, error);
      return;
    }
    for (const action of actions) action();
  }

  private respond(request: P.Request, body: unknown): void {
    this.post({
      type: 'response',
      request_seq: request.seq,
      command: request.command,
      success: true,
      ...(body === undefined ? {} : { body }),
    });
  }

  private fail(request: P.Request, error: unknown): void {
    const known = error instanceof CvmError;
    const text = known ? error.toString() : `internal error: ${(error as Error)?.message ?? String(error)}`;
    this.post({
      type: 'response',
      request_seq: request.seq,
      command: request.command,
      success: false,
      message: known ? error.code : 'internal-error',
      body: {
        error: {
          id: errorId(known ? error.code : 'internal-error'),
          // `format` has placeholders in braces: the text goes in as a variable.
          format: '{text}',
          variables: { text: `${text.charAt(0).toUpperCase()}${text.slice(1)}` },
          showUser: BY_HAND.has(request.command) && !(error instanceof SilentError),
        },
      },
    });
  }

  private post(message: object): void {
    if (!this.closed) this.send({ seq: ++this.sequence, ...message } as P.ProtocolMessage);
  }
}

/** Unique number of an error code, as `Message.id` asks: FNV-1a of the code, positive. */
function errorId(code: string): number {
  let id = 0x811c9dc5;
  for (let i = 0; i < code.length; i++) id = Math.imul(id ^ code.charCodeAt(i), 0x01000193);
  return (id >>> 1) % 1_000_000;
}
