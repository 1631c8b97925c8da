/** What the host environment gives the rooms: injected, so that one core runs in Node and in a browser. */

/** Synchronous, deterministic hashing. Each call hashes the concatenation of its chunks. */
export interface Crypto {
  sha256(...chunks: Uint8Array[]): Uint8Array;
  sha384(...chunks: Uint8Array[]): Uint8Array;
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
