/**
 * AES-256-GCM (FIPS 197, NIST SP 800-38D) for guest messages: the secure processor is part of the machine, so
 * its cipher is too. Written plainly; it runs a few hundred blocks a request and protects nothing real.
 */

const SBOX = makeSbox();

function makeSbox(): Uint8Array {
  const box = new Uint8Array(256);
  let p = 1;
  let q = 1;
  do {
    p = (p ^ (p << 1) ^ (p & 0x80 ? 0x11b : 0)) & 0xff;
    q ^= q << 1;
    q ^= q << 2;
    q ^= q << 4;
    q &= 0xff;
    if (q & 0x80) q ^= 0x09;
    const rotate = (n: number): number => ((q << n) | (q >> (8 - n))) & 0xff;
    box[p] = q ^ rotate(1) ^ rotate(2) ^ rotate(3) ^ rotate(4) ^ 0x63;
  } while (p !== 1);
  box[0] = 0x63;
  return box;
}

const ROUNDS = 14;
const double = (value: number): number => ((value << 1) ^ (value & 0x80 ? 0x1b : 0)) & 0xff;

/** 15 round keys of 16 bytes (FIPS 197, §5.2, Nk = 8). */
function expandKey(key: Uint8Array): Uint8Array {
  if (key.length !== 32) throw new RangeError('an AES-256 key has 32 bytes');
  const words = new Uint8Array(16 * (ROUNDS + 1));
  words.set(key);
  let constant = 1;
  for (let at = 32; at < words.length; at += 4) {
    let word = [...words.subarray(at - 4, at)];
    if (at % 32 === 0) {
      word = [word[1]!, word[2]!, word[3]!, word[0]!].map((byte) => SBOX[byte]!);
      word[0]! ^= constant;
      constant = double(constant);
    } else if (at % 32 === 16) word = word.map((byte) => SBOX[byte]!);
    for (let i = 0; i < 4; i++) words[at + i] = words[at - 32 + i]! ^ word[i]!;
  }
  return words;
}

function encryptBlock(keys: Uint8Array, block: Uint8Array): Uint8Array {
  let state = block.map((byte, i) => byte ^ keys[i]!);
  for (let round = 1; round <= ROUNDS; round++) {
    // SubBytes and ShiftRows: byte (row, column) is at row + 4 * column.
    const shifted = state.map((_, i) => SBOX[state[(i + 4 * (i % 4)) % 16]!]!);
    if (round < ROUNDS)
      for (let column = 0; column < 16; column += 4) {
        const [a, b, c, d] = shifted.subarray(column, column + 4) as unknown as [
          number,
          number,
          number,
          number,
        ];
        const all = a ^ b ^ c ^ d;
        shifted[column] = a ^ all ^ double(a ^ b);
        shifted[column + 1] = b ^ all ^ double(b ^ c);
        shifted[column + 2] = c ^ all ^ double(c ^ d);
        shifted[column + 3] = d ^ all ^ double(d ^ a);
      }
    state = shifted.map((byte, i) => byte ^ keys[round * 16 + i]!);
  }
  return state;
}

const toBig = (bytes: Uint8Array): bigint => bytes.reduce((value, byte) => (value << 8n) | BigInt(byte), 0n);
const R = 0xe1n << 120n;

/** Multiplication in GF(2^128), bits in GCM's order (SP 800-38D, §6.3). */
function multiply(x: bigint, y: bigint): bigint {
  let z = 0n;
  let v = y;
  for (let bit = 127n; bit >= 0n; bit--) {
    if ((x >> bit) & 1n) z ^= v;
    v = v & 1n ? (v >> 1n) ^ R : v >> 1n;
  }
  return z;
}

function ghash(h: bigint, additional: Uint8Array, text: Uint8Array): bigint {
  let y = 0n;
  for (const part of [additional, text])
    for (let at = 0; at < part.length; at += 16) {
      const block = new Uint8Array(16);
      block.set(part.subarray(at, at + 16));
      y = multiply(y ^ toBig(block), h);
    }
  return multiply(y ^ ((BigInt(additional.length * 8) << 64n) | BigInt(text.length * 8)), h);
}

function counterBlock(iv: Uint8Array, counter: number): Uint8Array {
  const block = new Uint8Array(16);
  block.set(iv);
  new DataView(block.buffer).setUint32(12, counter);
  return block;
}

function crypt(keys: Uint8Array, iv: Uint8Array, text: Uint8Array): Uint8Array {
  const out = new Uint8Array(text.length);
  for (let at = 0, counter = 2; at < text.length; at += 16, counter++) {
    const pad = encryptBlock(keys, counterBlock(iv, counter));
    for (let i = at; i < Math.min(at + 16, text.length); i++) out[i] = text[i]! ^ pad[i - at]!;
  }
  return out;
}

function tagOf(keys: Uint8Array, iv: Uint8Array, additional: Uint8Array, cipherText: Uint8Array): Uint8Array {
  const h = toBig(encryptBlock(keys, new Uint8Array(16)));
  let tag = ghash(h, additional, cipherText) ^ toBig(encryptBlock(keys, counterBlock(iv, 1)));
  const bytes = new Uint8Array(16);
  for (let i = 15; i >= 0; i--, tag >>= 8n) bytes[i] = Number(tag & 0xffn);
  return bytes;
}

const need = (iv: Uint8Array): void => {
  if (iv.length !== 12) throw new RangeError('the IV has 12 bytes');
};

/** Cipher text and 16-byte tag. */
export function sealAesGcm(
  key: Uint8Array,
  iv: Uint8Array,
  additional: Uint8Array,
  plainText: Uint8Array,
): { readonly text: Uint8Array; readonly tag: Uint8Array } {
  need(iv);
  const keys = expandKey(key);
  const text = crypt(keys, iv, plainText);
  return { text, tag: tagOf(keys, iv, additional, text) };
}

/** Plain text, or undefined if the tag does not fit. */
export function openAesGcm(
  key: Uint8Array,
  iv: Uint8Array,
  additional: Uint8Array,
  cipherText: Uint8Array,
  tag: Uint8Array,
): Uint8Array | undefined {
  need(iv);
  const keys = expandKey(key);
  const expected = tagOf(keys, iv, additional, cipherText);
  return tag.length === 16 && expected.every((byte, i) => byte === tag[i])
    ? crypt(keys, iv, cipherText)
    : undefined;
}
