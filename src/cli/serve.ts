/** `cvm dap` and `cvm lsp`: one session on standard input and output. */
import { ProposedFeatures, createConnection } from 'vscode-languageserver/node';
import { CvmError } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { createDebugSession } from '../debugger/index.ts';
import { startLanguageServer } from '../listing/index.ts';
import { EXIT } from './exit-codes.ts';
import { MessageReader, frame } from './framing.ts';
import { parse } from './options.ts';
import { complain } from './output.ts';

/** Ends with its client: when that disconnects, or closes its end. */
export function dap(args: readonly string[]): Promise<number> {
  parse(args, {}, 0);
  return new Promise((resolve) => {
    const end = (code: number): void => {
      session.dispose();
      process.stdin.destroy();
      resolve(code);
    };
    const session = createDebugSession(nodeHost, (message) => {
      process.stdout.write(frame(message));
      const { type, command } = message as { type: string; command?: string };
      // The event that may follow the answer goes out first.
      if (type === 'response' && command === 'disconnect') setImmediate(() => end(EXIT.success));
    });
    const reader = new MessageReader((message) =>
      session.receive(message as Parameters<typeof session.receive>[0]),
    );
    process.stdin.on('data', (chunk: Buffer) => {
      try {
        reader.feed(chunk);
      } catch (error) {
        if (!(error instanceof CvmError)) throw error;
        complain(`cvm: ${error.toString()}`);
        end(EXIT.usage);
      }
    });
    process.stdin.on('end', () => end(EXIT.success));
    process.stdin.on('error', () => end(EXIT.success));
  });
}

/** The library ends the process when its client exits or closes its end. */
export function lsp(args: readonly string[]): Promise<number> {
  parse(args, {}, 0);
  startLanguageServer(createConnection(ProposedFeatures.all, process.stdin, process.stdout), nodeHost);
  return new Promise(() => {});
}
