/** Entry point of the Node extension host: machine and language server each in a thread or process of its own. */
import { Worker } from 'node:worker_threads';
import type { ExtensionContext } from 'vscode';
import { LanguageClient, TransportKind } from 'vscode-languageclient/node';
import { activateExtension } from './activate.ts';
import { WorkerDebugAdapter } from './debug-adapter.ts';
import { registerTasks } from './tasks.ts';

export function activate(context: ExtensionContext): void {
  registerTasks(context);
  activateExtension(context, {
    languageClient: (options) =>
      new LanguageClient(
        'cvm',
        'IGVM listings',
        { module: context.asAbsolutePath('dist/language-server.cjs'), transport: TransportKind.ipc },
        options,
      ),
    debugAdapter: () => {
      const worker = new Worker(context.asAbsolutePath('dist/debug-worker.cjs'));
      return new WorkerDebugAdapter({
        post: (message) => worker.postMessage(message),
        onMessage: (listener) => worker.on('message', listener),
        onFailure: (listener) => worker.on('error', listener),
        close: () => void worker.terminate(),
      });
    },
  });
}
