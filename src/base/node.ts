/** The Node.js side of `host.ts`. Imported by `extension/`, `cli/` and tests only. */
import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { open, readdir, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { CvmError } from './errors.ts';
import type { Crypto, FileAccess, Hasher, Host } from './host.ts';

const hash = (algorithm: string, chunks: Uint8Array[]): Uint8Array => {
  const hasher = createHash(algorithm);
  for (const chunk of chunks) hasher.update(chunk);
  return new Uint8Array(hasher.digest());
};

const wrap = (hash: Hash): Hasher => ({
  update: (chunk) => void hash.update(chunk),
  copy: () => wrap(hash.copy()),
  digest: () => new Uint8Array(hash.digest()),
});

export const nodeCrypto: Crypto = {
  sha256: (...chunks) => hash('sha256', chunks),
  sha384: (...chunks) => hash('sha384', chunks),
  createHash: (algorithm) => wrap(createHash(algorithm)),
};

const toPath = (path: string): string => (path.startsWith('file:') ? fileURLToPath(path) : path);

export const nodeFiles: FileAccess = {
  async readFile(path, maxBytes) {
    const handle = await open(toPath(path)).catch((error: NodeJS.ErrnoException) => {
      const code = error.code === 'ENOENT' ? 'file-not-found' : 'file-unreadable';
      throw new CvmError(code, `cannot open ${path}: ${error.message}`, { name: path });
    });
    try {
      const info = await handle.stat();
      if (!info.isFile())
        throw new CvmError('file-unreadable', `${path} is not a regular file`, { name: path });
      if (info.size > maxBytes)
        throw new CvmError(
          'file-too-large',
          `${path} has ${info.size} bytes; the limit here is ${maxBytes}`,
          { name: path },
        );
      return new Uint8Array(await handle.readFile());
    } finally {
      await handle.close();
    }
  },
  exists: (path) =>
    stat(toPath(path)).then(
      () => true,
      () => false,
    ),
  list: (folder) => readdir(toPath(folder)).catch(() => []),
};

export const nodeHost: Host = { crypto: nodeCrypto, files: nodeFiles };
