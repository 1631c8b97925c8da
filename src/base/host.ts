/** What the host environment gives the rooms: injected, so that one core runs in Node and in a browser. */

export type HashAlgorithm = 'sha256' | 'sha384';

/** One hash in the making: memory does not grow with what it is fed. `digest` ends it, not its copies. */
export interface Hasher {
  update(chunk: Uint8Array): void;
  copy(): Hasher;
  digest(): Uint8Array;
}

/** Big-endian numbers of any length. */
export interface RsaPublicKey {
  readonly modulus: Uint8Array;
  readonly exponent: Uint8Array;
}

/**
 * Public-key operations: synchronous and deterministic. Every one hashes the message with SHA-384 itself.
 * Verifying answers `false` for whatever is not a valid signature, malformed keys and signatures included.
 */
export interface Signatures {
  /** Uncompressed point (SEC 1: 0x04, x, y; 97 bytes) of a 48-byte big-endian scalar. @throws CvmError `key-invalid`. */
  p384PublicKey(privateKey: Uint8Array): Uint8Array;
  /** ECDSA on P-384 with the nonce of RFC 6979: r then s, 48 bytes each, big-endian. @throws CvmError `key-invalid`. */
  p384Sign(privateKey: Uint8Array, message: Uint8Array): Uint8Array;
  /** `publicKey` and `signature` in the forms above. */
  p384Verify(publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array): boolean;
  /** RSASSA-PSS (RFC 8017 §8.1.2), MGF1 on SHA-384. */
  rsaPssVerify(key: RsaPublicKey, message: Uint8Array, signature: Uint8Array, saltLength: number): boolean;
}

/** Synchronous, deterministic hashing. `sha256` and `sha384` hash the concatenation of their chunks. */
export interface Crypto {
  sha256(...chunks: Uint8Array[]): Uint8Array;
  sha384(...chunks: Uint8Array[]): Uint8Array;
  createHash(algorithm: HashAlgorithm): Hasher;
  readonly signatures: Signatures;
}

/** A file read in ranges, for files that should not be held in memory. Synchronous, as hashing is. */
export interface RandomAccess {
  readonly size: number;
  /** Fills `into` from `offset` on. @throws CvmError `file-unreadable`, also where the file ends before. */
  read(offset: number, into: Uint8Array): void;
  close(): void;
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
