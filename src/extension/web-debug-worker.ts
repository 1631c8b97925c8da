/** The worker a debug session lives in, in the browser; files come from the extension by message. */
import { CvmError } from '../base/index.ts';
import type { FileAccess } from '../base/index.ts';
import { createDebugSession } from '../debugger/index.ts';
import { webCrypto } from './web-crypto.ts';
import type { FileAnswer, FileRequest, FromWorker, ToWorker } from './web-messages.ts';

const scope = globalThis as unknown as {
  postMessage(message: FromWorker): void;
  onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
};

const waiting = new Map<number, (answer: FileAnswer) => void>();
let lastId = 0;

function ask<T>(request: Omit<FileRequest, 'id'>): Promise<T> {
  const id = ++lastId;
  return new Promise((resolve, reject) => {
    waiting.set(id, ({ result, error }) => {
      if (error) reject(new CvmError(error.code, error.message, { name: request.path }));
      else resolve(result as T);
    });
    scope.postMessage({ file: { id, ...request } });
  });
}

const files: FileAccess = {
  readFile: (path, maxBytes) => ask<Uint8Array>({ operation: 'read', path, maxBytes }),
  exists: (path) => ask<boolean>({ operation: 'exists', path }),
  list: (path) => ask<string[]>({ operation: 'list', path }),
};

const session = createDebugSession({ crypto: webCrypto, files }, (message) =>
  scope.postMessage({ dap: message }),
);

scope.onmessage = ({ data }) => {
  if (data.file) {
    const resolve = waiting.get(data.file.id);
    waiting.delete(data.file.id);
    resolve?.(data.file);
  }
  if (data.dap !== undefined) session.receive(data.dap as Parameters<typeof session.receive>[0]);
};
