/** Hashing parts of a file that is not in memory. */
import type { Crypto, HashAlgorithm, Hasher, RandomAccess } from './host.ts';

const WINDOW = 1 << 20;

/**
 * A `Crypto` for data that stands in a file: whatever is given to it as a view of `placeholder` (an array as long as
 * the file, its contents of no account) is read from the file at the same offset, a window at a time. All else is
 * hashed as it is. `onRead` is told how many bytes were read in all.
 */
export function rangedCrypto(
  crypto: Crypto,
  placeholder: Uint8Array,
  access: RandomAccess,
  onRead: (bytes: number) => void = () => {},
): Crypto {
  const window = new Uint8Array(WINDOW);
  let start = 0;
  let length = 0;
  let total = 0;

  /** At most a window of bytes; valid until the next call. */
  const view = (offset: number, size: number): Uint8Array => {
    if (offset < start || offset + size > start + length) {
      start = offset;
      length = Math.min(WINDOW, access.size - offset);
      access.read(offset, window.subarray(0, length));
      onRead((total += length));
    }
    return window.subarray(offset - start, offset - start + size);
  };
  function* pieces(chunk: Uint8Array): Generator<Uint8Array> {
    if (chunk.buffer !== placeholder.buffer) return yield chunk;
    const from = chunk.byteOffset - placeholder.byteOffset;
    for (let at = 0; at < chunk.length; at += WINDOW)
      yield view(from + at, Math.min(WINDOW, chunk.length - at));
  }
  const hash = (algorithm: HashAlgorithm, chunks: Uint8Array[]): Uint8Array => {
    const [only] = chunks;
    if (chunks.length === 1 && only!.length <= WINDOW) {
      const bytes =
        only!.buffer === placeholder.buffer && only!.length > 0
          ? view(only!.byteOffset - placeholder.byteOffset, only!.length)
          : only!;
      return crypto[algorithm](bytes);
    }
    const hasher = crypto.createHash(algorithm);
    for (const chunk of chunks) for (const piece of pieces(chunk)) hasher.update(piece);
    return hasher.digest();
  };
  const wrap = (hasher: Hasher): Hasher => ({
    update(chunk) {
      for (const piece of pieces(chunk)) hasher.update(piece);
    },
    copy: () => wrap(hasher.copy()),
    digest: () => hasher.digest(),
  });
  return {
    ...crypto,
    sha256: (...chunks) => hash('sha256', chunks),
    sha384: (...chunks) => hash('sha384', chunks),
    createHash: (algorithm) => wrap(crypto.createHash(algorithm)),
  };
}
