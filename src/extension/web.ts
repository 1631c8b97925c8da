/** Entry point of VS Code in the browser: machine and language server each in a worker of their own. */
import * as vscode from 'vscode';
import { BrowserMessageReader, BrowserMessageWriter, LanguageClient } from 'vscode-languageclient/browser';
import { activateExtension } from './activate.ts';
import { WorkerDebugAdapter } from './debug-adapter.ts';
import { fromWorker, answerFileRequest } from './web-messages.ts';
import type { FromWorker, ToWorker } from './web-messages.ts';

export async function activate(context: vscode.ExtensionContext): Promise<void> {
  const bundle = async (name: string) => {
    const at = vscode.Uri.joinPath(context.extensionUri, 'dist/web', name);
    const source = await vscode.workspace.fs.readFile(at);
    // The extension may be served from another origin, which a worker cannot be started from.
    return URL.createObjectURL(new Blob([source as BlobPart], { type: 'text/javascript' }));
  };
  const [languageServer, debugWorker] = await Promise.all([
    bundle('language-server.js'),
    bundle('debug-worker.js'),
  ]);
  context.subscriptions.push({
    dispose: () => [languageServer, debugWorker].forEach((url) => URL.revokeObjectURL(url)),
  });

  activateExtension(context, {
    languageClient: (options) => {
      // Given as a function, so that the worker starts on first use. Its result must not be the worker
      // itself: the class of the extension host's workers is not the one the client looks for.
      const start = async () => {
        const worker = new Worker(languageServer);
        return { reader: new BrowserMessageReader(worker), writer: new BrowserMessageWriter(worker) };
      };
      return new LanguageClient('cvm', 'IGVM listings', start, options);
    },
    debugAdapter: () => {
      const worker = new Worker(debugWorker);
      const post = (message: ToWorker) => worker.postMessage(message);
      return new WorkerDebugAdapter({
        post: (message) => post({ dap: message }),
        onMessage: (listener) =>
          worker.addEventListener('message', ({ data }: MessageEvent<FromWorker>) =>
            fromWorker(data, listener, (request) => answerFileRequest(request).then(post)),
          ),
        onFailure: (listener) =>
          worker.addEventListener('error', (event) => listener(new Error(event.message))),
        close: () => worker.terminate(),
      });
    },
  });
}
