/** The Node.js side of `host.ts`. Imported by `extension/`, `cli/` and tests only. */
import nodeCryptoModule, { constants, createHash, createPublicKey, verify } from 'node:crypto';
import type { Hash, JsonWebKey } from 'node:crypto';
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { CvmError } from './errors.ts';
import type { Crypto, FileAccess, Hasher, Host, RandomAccess, Signatures } from './host.ts';
import { portableSignatures } from './signatures.ts';

type OneShot = (algorithm: string, data: Uint8Array, encoding: 'buffer') => Buffer;
/** `crypto.hash` (Node 20.12 on), twice as fast for a page or a PAGE_INFO. */
const oneShot = (nodeCryptoModule as unknown as { readonly hash?: OneShot }).hash;

const hash = (algorithm: string, chunks: Uint8Array[]): Uint8Array => {
  if (oneShot && chunks.length === 1) return new Uint8Array(oneShot(algorithm, chunks[0]!, 'buffer'));
  const hasher = createHash(algorithm);
  for (const chunk of chunks) hasher.update(chunk);
  return new Uint8Array(hasher.digest());
};

const wrap = (hash: Hash): Hasher => ({
  update: (chunk) => void hash.update(chunk),
  copy: () => wrap(hash.copy()),
  digest: () => new Uint8Array(hash.digest()),
});

const base64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url');

/** OpenSSL's answer to a verification; it throws where a key is malformed. */
function verified(key: JsonWebKey, message: Uint8Array, signature: Uint8Array, options: object): boolean {
  try {
    const publicKey = createPublicKey({ key, format: 'jwk' });
    return verify('sha384', message, { key: publicKey, ...options }, signature);
  } catch {
    return false;
  }
}

/** Verifying is OpenSSL's; signing is not, because node:crypto draws its nonces at random. */
const nodeSignatures: Signatures = {
  ...portableSignatures,
  p384Verify(publicKey, message, signature) {
    if (publicKey.length !== 97 || publicKey[0] !== 4) return false;
    const x = base64url(publicKey.subarray(1, 49));
    const y = base64url(publicKey.subarray(49));
    return verified({ kty: 'EC', crv: 'P-384', x, y }, message, signature, { dsaEncoding: 'ieee-p1363' });
  },
  rsaPssVerify(key, message, signature, saltLength) {
    // OpenSSL also takes a signature without its leading zero bytes, which RFC 8017 does not.
    const first = key.modulus.findIndex((byte) => byte !== 0);
    if (first < 0 || signature.length !== key.modulus.length - first) return false;
    const n = base64url(key.modulus);
    const e = base64url(key.exponent);
    const padding = constants.RSA_PKCS1_PSS_PADDING;
    return verified({ kty: 'RSA', n, e }, message, signature, { padding, saltLength });
  },
};

export const nodeCrypto: Crypto = {
  sha256: (...chunks) => hash('sha256', chunks),
  sha384: (...chunks) => hash('sha384', chunks),
  createHash: (algorithm) => wrap(createHash(algorithm)),
  signatures: nodeSignatures,
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

/** Opens a regular file for reading in ranges. @throws CvmError `file-not-found`, `file-unreadable`. */
export function openRandomAccess(path: string): RandomAccess {
  const unreadable = (error: unknown): CvmError => {
    const { code, message } = error as NodeJS.ErrnoException;
    const kind = code === 'ENOENT' ? 'file-not-found' : 'file-unreadable';
    return new CvmError(kind, `cannot open ${path}: ${message}`, { name: path });
  };
  let descriptor: number;
  try {
    descriptor = openSync(toPath(path), 'r');
  } catch (error) {
    throw unreadable(error);
  }
  const info = fstatSync(descriptor);
  if (!info.isFile()) {
    closeSync(descriptor);
    throw new CvmError('file-unreadable', `${path} is not a regular file`, { name: path });
  }
  return {
    size: info.size,
    read(offset, into) {
      for (let done = 0; done < into.length;) {
        let got = 0;
        try {
          got = readSync(descriptor, into, done, into.length - done, offset + done);
        } catch (error) {
          throw unreadable(error);
        }
        if (got === 0)
          throw new CvmError('file-unreadable', `${path} ends before offset ${offset + into.length}`, {
            name: path,
          });
        done += got;
      }
    },
    close: () => closeSync(descriptor),
  };
}
