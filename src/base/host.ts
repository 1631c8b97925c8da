/** What the host environment gives the rooms: injected, so that one core runs in Node and in a browser. */

export type HashAlgorithm = 'sha256' | 'sha384';

/** One hash in the making: memory does not grow with what it is fed. `digest` ends it, not its copies. */
export interface Hasher {
  update(chunk: Uint8Array): void;
  copy(): Hasher;
  digest(): Uint8Array;
}

/** Synchronous, deterministic hashing. `sha256` and `sha384` hash the concatenation of their chunks. */
export interface Crypto {
  sha256(...chunks: Uint8Array[]): Uint8Array;
  sha384(...chunks: Uint8Array[]): Uint8Array;
  createHash(algorithm: HashAlgorithm): Hasher;
}

/** Reading files by path or URI. Rejects with a `CvmError` (`file-not-found`, `file-too-large`, …). */
export interface FileAccess {
  /** Whole contents; refuses files over `maxBytes`. */
  readFile(path: string, maxBytes: number): Promise<Uint8Array>;
  exists(path: string): Promise<boolean>;
  /** Names (not paths) of the entries of a folder; empty if it is not a folder. */
  list(folder: string): Promise<string[]>;
}

/** The things a room may be handed by `extension/`, `cli/` or a test. */
export interface Host {
  readonly crypto: Crypto;
  readonly files: FileAccess;
}
