/** The worker of the language server, in the browser. It reads no files: it asks its client for them. */
import { BrowserMessageReader, BrowserMessageWriter, createConnection } from 'vscode-languageserver/browser';
import { CvmError } from '../base/index.ts';
import { startLanguageServer } from '../listing/index.ts';
import { webCrypto } from './web-crypto.ts';

const scope = globalThis as unknown as Worker;
const connection = createConnection(new BrowserMessageReader(scope), new BrowserMessageWriter(scope));
startLanguageServer(connection, {
  crypto: webCrypto,
  files: {
    readFile: (path) =>
      Promise.reject(
        new CvmError('file-unreadable', `${path} cannot be read from a browser`, { name: path }),
      ),
    exists: () => Promise.resolve(false),
    list: () => Promise.resolve([]),
  },
});
