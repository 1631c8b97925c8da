/**
 * SHA-256 and SHA-384 (FIPS 180-4) for the browser, where the platform's own hashing is asynchronous
 * and the machine's must not be.
 */
import type { Crypto, HashAlgorithm, Hasher } from '../base/index.ts';
import { portableSignatures } from '../base/signatures.ts';

/** The first 80 primes: the constants of both hashes are bits of their roots. */
const PRIMES: readonly bigint[] = (() => {
  const found: bigint[] = [];
  for (let n = 2n; found.length < 80; n++) if (found.every((prime) => n % prime !== 0n)) found.push(n);
  return found;
})();

/** Floor of the `k`-th root. */
function root(value: bigint, k: bigint): bigint {
  let low = 0n;
  let high = 1n << (BigInt(value.toString(2).length) / k + 1n);
  while (low < high) {
    const middle = (low + high + 1n) / 2n;
    if (middle ** k <= value) low = middle;
    else high = middle - 1n;
  }
  return low;
}

/** The first 64 bits of the fractional part of the `k`-th root of a prime, as two 32-bit words. */
function fraction(prime: bigint, k: bigint): [high: number, low: number] {
  const bits = BigInt.asUintN(64, root(prime << (64n * k), k));
  return [Number(bits >> 32n), Number(bits & 0xffff_ffffn)];
}

const K_HIGH = new Int32Array(80);
const K_LOW = new Int32Array(80);
PRIMES.forEach((prime, i) => {
  [K_HIGH[i], K_LOW[i]] = fraction(prime, 3n) as [number, number];
});
const H256 = PRIMES.slice(0, 8).map((prime) => fraction(prime, 2n)[0]);
/** SHA-384 starts from the ninth to sixteenth primes. */
const H384 = PRIMES.slice(8, 16).flatMap((prime) => fraction(prime, 2n));

/** A hash function: its state's first value, and what a block does to it. */
interface Algorithm {
  readonly block: 64 | 128;
  readonly initial: readonly number[];
  readonly size: number;
  readonly compress: (h: Int32Array, message: DataView, at: number) => void;
}

function digest(words: Int32Array, length: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(words.length * 4));
  words.forEach((word, i) => view.setInt32(i * 4, word));
  return new Uint8Array(view.buffer, 0, length);
}

/**
 * Cuts a stream into blocks; at the end adds the padding: 0x80, zeros, and the length in bits at the end of the
 * last block.
 */
class StreamHasher implements Hasher {
  private readonly algorithm: Algorithm;
  private readonly state: Int32Array;
  private readonly pending: Uint8Array;
  private readonly view: DataView;
  private held = 0;
  private length = 0;

  constructor(algorithm: Algorithm) {
    this.algorithm = algorithm;
    this.state = Int32Array.from(algorithm.initial);
    this.pending = new Uint8Array(2 * algorithm.block);
    this.view = new DataView(this.pending.buffer);
  }

  update(chunk: Uint8Array): void {
    const { block, compress } = this.algorithm;
    this.length += chunk.length;
    let from = 0;
    if (this.held > 0) {
      from = Math.min(block - this.held, chunk.length);
      this.pending.set(chunk.subarray(0, from), this.held);
      this.held += from;
      if (this.held < block) return;
      compress(this.state, this.view, 0);
    }
    const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    for (; from + block <= chunk.length; from += block) compress(this.state, view, from);
    this.pending.set(chunk.subarray(from));
    this.held = chunk.length - from;
  }

  copy(): StreamHasher {
    const copy = new StreamHasher(this.algorithm);
    copy.state.set(this.state);
    copy.pending.set(this.pending);
    copy.held = this.held;
    copy.length = this.length;
    return copy;
  }

  digest(): Uint8Array {
    const { block, compress, size } = this.algorithm;
    const total = this.held + 1 + block / 8 <= block ? block : 2 * block;
    this.pending.fill(0, this.held, total);
    this.pending[this.held] = 0x80;
    this.view.setBigUint64(total - 8, BigInt(this.length) * 8n);
    for (let at = 0; at < total; at += block) compress(this.state, this.view, at);
    return digest(this.state, size);
  }
}

function sha256Algorithm(): Algorithm {
  const w = new Int32Array(64);
  const rotate = (x: number, n: number) => (x >>> n) | (x << (32 - n));
  const compress = (h: Int32Array, message: DataView, at: number): void => {
    for (let i = 0; i < 16; i++) w[i] = message.getInt32(at + i * 4);
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15]!;
      const y = w[i - 2]!;
      const s0 = rotate(x, 7) ^ rotate(x, 18) ^ (x >>> 3);
      const s1 = rotate(y, 17) ^ rotate(y, 19) ^ (y >>> 10);
      w[i] = (w[i - 16]! + s0 + w[i - 7]! + s1) | 0;
    }
    let [a, b, c, d, e, f, g, k] = h as unknown as [
      number,
      number,
      number,
      number,
      number,
      number,
      number,
      number,
    ];
    for (let i = 0; i < 64; i++) {
      const s1 = rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25);
      const t1 = (k + s1 + ((e & f) ^ (~e & g)) + K_HIGH[i]! + w[i]!) | 0;
      const s0 = rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22);
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      [k, g, f, e, d, c, b, a] = [g, f, e, (d + t1) | 0, c, b, a, (t1 + t2) | 0];
    }
    [a, b, c, d, e, f, g, k].forEach((word, i) => (h[i] = (h[i]! + word) | 0));
  };
  return { block: 64, initial: H256, size: 32, compress };
}

/**
 * 64-bit words as pairs of 32-bit ones, high first. Sums of low halves stay exact in a double and
 * their carry is the quotient by 2^32.
 */
function sha384Algorithm(): Algorithm {
  const w = new Int32Array(160);
  const s = new Int32Array(16);
  const compress = (h: Int32Array, message: DataView, at: number): void => {
    for (let i = 0; i < 32; i++) w[i] = message.getInt32(at + i * 4);
    for (let i = 32; i < 160; i += 2) {
      const xh = w[i - 30]!;
      const xl = w[i - 29]!;
      const yh = w[i - 4]!;
      const yl = w[i - 3]!;
      const s0h = ((xh >>> 1) | (xl << 31)) ^ ((xh >>> 8) | (xl << 24)) ^ (xh >>> 7);
      const s0l = ((xl >>> 1) | (xh << 31)) ^ ((xl >>> 8) | (xh << 24)) ^ ((xl >>> 7) | (xh << 25));
      const s1h = ((yh >>> 19) | (yl << 13)) ^ ((yl >>> 29) | (yh << 3)) ^ (yh >>> 6);
      const s1l = ((yl >>> 19) | (yh << 13)) ^ ((yh >>> 29) | (yl << 3)) ^ ((yl >>> 6) | (yh << 26));
      const low = (w[i - 31]! >>> 0) + (s0l >>> 0) + (w[i - 13]! >>> 0) + (s1l >>> 0);
      w[i + 1] = low;
      w[i] = w[i - 32]! + s0h + w[i - 14]! + s1h + Math.floor(low / 0x1_0000_0000);
    }
    s.set(h);
    for (let i = 0; i < 80; i++) {
      const [ah, al, bh, bl, ch, cl] = [s[0]!, s[1]!, s[2]!, s[3]!, s[4]!, s[5]!];
      const [eh, el, fh, fl, gh, gl] = [s[8]!, s[9]!, s[10]!, s[11]!, s[12]!, s[13]!];
      const s1h = ((eh >>> 14) | (el << 18)) ^ ((eh >>> 18) | (el << 14)) ^ ((el >>> 9) | (eh << 23));
      const s1l = ((el >>> 14) | (eh << 18)) ^ ((el >>> 18) | (eh << 14)) ^ ((eh >>> 9) | (el << 23));
      const chh = (eh & fh) ^ (~eh & gh);
      const chl = (el & fl) ^ (~el & gl);
      const low1 = (s[15]! >>> 0) + (s1l >>> 0) + (chl >>> 0) + (K_LOW[i]! >>> 0) + (w[2 * i + 1]! >>> 0);
      const t1h = (s[14]! + s1h + chh + K_HIGH[i]! + w[2 * i]! + Math.floor(low1 / 0x1_0000_0000)) | 0;
      const t1l = low1 | 0;
      const s0h = ((ah >>> 28) | (al << 4)) ^ ((al >>> 2) | (ah << 30)) ^ ((al >>> 7) | (ah << 25));
      const s0l = ((al >>> 28) | (ah << 4)) ^ ((ah >>> 2) | (al << 30)) ^ ((ah >>> 7) | (al << 25));
      const majh = (ah & bh) ^ (ah & ch) ^ (bh & ch);
      const majl = (al & bl) ^ (al & cl) ^ (bl & cl);
      const low2 = (s0l >>> 0) + (majl >>> 0) + (t1l >>> 0);
      const lowE = (s[7]! >>> 0) + (t1l >>> 0);
      const newE = s[6]! + t1h + Math.floor(lowE / 0x1_0000_0000);
      s.copyWithin(2, 0, 14);
      s[8] = newE;
      s[9] = lowE;
      s[0] = s0h + majh + t1h + Math.floor(low2 / 0x1_0000_0000);
      s[1] = low2;
    }
    for (let i = 0; i < 16; i += 2) {
      const low = (h[i + 1]! >>> 0) + (s[i + 1]! >>> 0);
      h[i + 1] = low;
      h[i] = h[i]! + s[i]! + Math.floor(low / 0x1_0000_0000);
    }
  };
  return { block: 128, initial: H384, size: 48, compress };
}

const ALGORITHMS: Readonly<Record<HashAlgorithm, Algorithm>> = {
  sha256: sha256Algorithm(),
  sha384: sha384Algorithm(),
};

function whole(algorithm: HashAlgorithm, chunks: readonly Uint8Array[]): Uint8Array {
  const hash = new StreamHasher(ALGORITHMS[algorithm]);
  for (const chunk of chunks) hash.update(chunk);
  return hash.digest();
}

/** Synchronous hashing without any host. */
export const webCrypto: Crypto = {
  sha256: (...chunks) => whole('sha256', chunks),
  sha384: (...chunks) => whole('sha384', chunks),
  createHash: (algorithm) => new StreamHasher(ALGORITHMS[algorithm]),
  signatures: portableSignatures,
};
