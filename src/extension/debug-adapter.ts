import * as vscode from 'vscode';

/** The far end of a worker that runs a debug session; Node's and the browser's differ only here. */
export interface WorkerPort {
  post(message: unknown): void;
  onMessage(listener: (message: unknown) => void): void;
  /** The worker failed outside of any request: it ran out of memory, or threw where nobody caught. */
  onFailure(listener: (error: Error) => void): void;
  close(): void;
}

/** The parts of a DAP message this side looks at; everything else passes through unread. */
export interface ProtocolMessage extends vscode.DebugProtocolMessage {
  readonly seq: number;
  readonly type: 'request' | 'response' | 'event';
  readonly event?: string;
  readonly command?: string;
  readonly success?: boolean;
  readonly body?: Readonly<Record<string, unknown>>;
}

/** Carries DAP messages between VS Code and a worker, and lets the views listen to its events. */
export class WorkerDebugAdapter implements vscode.DebugAdapter {
  private readonly port: WorkerPort;
  private readonly sent = new vscode.EventEmitter<vscode.DebugProtocolMessage>();
  private disposed = false;
  readonly onDidSendMessage = this.sent.event;

  constructor(port: WorkerPort) {
    this.port = port;
    port.onMessage((message) => this.sent.fire(message as ProtocolMessage));
    port.onFailure((error) => this.fail(error));
  }

  handleMessage(message: vscode.DebugProtocolMessage): void {
    this.port.post(message);
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.port.close();
    this.sent.dispose();
  }

  /** A dead worker answers nothing: say why, and end the session. */
  private fail(error: Error): void {
    if (this.disposed) return;
    const output = `The debugger stopped working: ${error.stack ?? error.message}\n`;
    this.event('output', { category: 'important', output });
    this.event('terminated', {});
  }

  private event(event: string, body: Record<string, unknown>): void {
    const message: ProtocolMessage = { seq: 0, type: 'event', event, body };
    this.sent.fire(message);
  }
}
