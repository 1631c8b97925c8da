import * as vscode from 'vscode';

/** A worker in the browser has no files of its own: it asks the extension, beside the DAP's messages. */
export interface FileRequest {
  readonly id: number;
  readonly operation: 'read' | 'exists' | 'list';
  readonly path: string;
  readonly maxBytes?: number;
}
export interface FileAnswer {
  readonly id: number;
  readonly result?: Uint8Array | boolean | string[];
  readonly error?: { readonly code: string; readonly message: string };
}
export interface FromWorker {
  readonly dap?: unknown;
  readonly file?: FileRequest;
}
export interface ToWorker {
  readonly dap?: unknown;
  readonly file?: FileAnswer;
}

/** Sends a worker's message where it belongs. */
export function fromWorker(
  message: FromWorker,
  dap: (message: unknown) => void,
  file: (request: FileRequest) => void,
): void {
  if (message.dap !== undefined) dap(message.dap);
  if (message.file) file(message.file);
}

/** Answers from VS Code's file systems; `path` is a URI. */
export async function answerFileRequest(request: FileRequest): Promise<ToWorker> {
  const { id, operation, path, maxBytes } = request;
  try {
    const uri = vscode.Uri.parse(path, true);
    if (operation === 'list') {
      const entries = await vscode.workspace.fs.readDirectory(uri).then(
        (list) => list.map(([name]) => name),
        () => [],
      );
      return { file: { id, result: entries } };
    }
    if (operation === 'exists') {
      const found = await vscode.workspace.fs.stat(uri).then(
        () => true,
        () => false,
      );
      return { file: { id, result: found } };
    }
    const { size } = await vscode.workspace.fs.stat(uri);
    if (maxBytes !== undefined && size > maxBytes) {
      const message = `${path} has ${size} bytes; the limit here is ${maxBytes}`;
      return { file: { id, error: { code: 'file-too-large', message } } };
    }
    return { file: { id, result: await vscode.workspace.fs.readFile(uri) } };
  } catch (error) {
    const found = error instanceof vscode.FileSystemError ? error.code : '';
    const code = found === 'FileNotFound' ? 'file-not-found' : 'file-unreadable';
    const message = `cannot open ${path}: ${error instanceof Error ? error.message : String(error)}`;
    return { file: { id, error: { code, message } } };
  }
}
