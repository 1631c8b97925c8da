/**
 * Vector instructions whose immediate chooses lanes at run time, and cryptography: SSE4.1 blends and
 * inserts, SSE4.2 string comparison, AES, PCLMULQDQ, SHA (APM vol. 4; FIPS 197, FIPS 180-4).
 */
import type { Cpu } from '../cpu.ts';
import { generalProtection } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { ARITHMETIC_FLAGS, FLAG, FS, MODE, RAX, RCX, RDX, STATE, gpr } from '../layout.ts';
import type { OpView } from '../opview.ts';
import { requireSse } from '../system/checks.ts';
import { AES_INVERSE, AES_SBOX, multiply } from './aes.ts';

const xmmAt = (cpu: Cpu, index: number): number => cpu.base + STATE.ymm + index * 32;
const readXmm = (cpu: Cpu, index: number): Uint8Array =>
  cpu.memory.u8.slice(xmmAt(cpu, index), xmmAt(cpu, index) + 16);
const writeXmm = (cpu: Cpu, index: number, bytes: Uint8Array): void =>
  cpu.memory.u8.set(bytes, xmmAt(cpu, index));

/** The source operand's 16 bytes; memory must be aligned unless the instruction says otherwise. */
export const vectorSource = (cpu: Cpu, op: OpView, aligned = true): Uint8Array => {
  if (op.isRegister) return readXmm(cpu, op.b);
  if (aligned) {
    const base = cpu.mode === MODE.code64 && op.segment < FS ? 0n : cpu.segmentBase(op.segment);
    if (((base + cpu.effectiveAddress(op)) & 15n) !== 0n) throw generalProtection();
  }
  const at = cpu.address(op, 16, false);
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setBigUint64(0, cpu.load(at, 8), true);
  view.setBigUint64(8, cpu.load(at + 8n, 8), true);
  return bytes;
};

type Vectors = (x: Uint8Array, y: Uint8Array, immediate: number) => Uint8Array;

/** destination = f(destination, source, immediate). */
const binary =
  (f: Vectors): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const y = vectorSource(cpu, op);
    writeXmm(cpu, op.a, f(readXmm(cpu, op.a), y, Number(op.immediate)));
  };

/** Elements of `width` bytes from the source where the immediate has a 1. */
const blend = (width: number): Helper =>
  binary((x, y, immediate) => x.map((byte, i) => ((immediate >> Math.floor(i / width)) & 1 ? y[i]! : byte)));

/** PINSRB, PINSRD, PINSRQ: an element from a general register or memory. */
const insert =
  (width: (op: OpView) => number): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const size = width(op);
    const value = op.isRegister ? cpu.readRegister(op.b, size) : cpu.load(cpu.address(op, size, false), size);
    const index = Number(op.immediate) & (16 / size - 1);
    const x = readXmm(cpu, op.a);
    for (let i = 0; i < size; i++) x[index * size + i] = Number((value >> BigInt(8 * i)) & 0xffn);
    writeXmm(cpu, op.a, x);
  };

/** PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS: to memory of the element's size, or a whole register. */
const extract =
  (width: (op: OpView) => number): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const size = width(op);
    const index = Number(op.immediate) & (16 / size - 1);
    const x = readXmm(cpu, op.b);
    let value = 0n;
    for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(x[index * size + i]!);
    if (op.isRegister) cpu.setU64(op.a, value);
    else cpu.store(cpu.address(op, size, true), size, value);
  };

const insertps: Helper = (cpu, op) => {
  requireSse(cpu);
  const immediate = Number(op.immediate);
  const value = op.isRegister
    ? readXmm(cpu, op.b).slice((immediate >> 6) * 4, (immediate >> 6) * 4 + 4)
    : Uint8Array.from({ length: 4 }, (_, i) => i).map(
        (
          (raw) => (i: number) =>
            Number((raw >> BigInt(8 * i)) & 0xffn)
        )(cpu.load(cpu.address(op, 4, false), 4)),
      );
  const x = readXmm(cpu, op.a);
  x.set(value, ((immediate >> 4) & 3) * 4);
  for (let lane = 0; lane < 4; lane++) if ((immediate >> lane) & 1) x.fill(0, lane * 4, lane * 4 + 4);
  writeXmm(cpu, op.a, x);
};

const mpsadbw = binary((x, y, immediate) => {
  const from = (immediate & 4) !== 0 ? 4 : 0;
  const block = (immediate & 3) * 4;
  const result = new Uint8Array(16);
  const view = new DataView(result.buffer);
  for (let i = 0; i < 8; i++) {
    let sum = 0;
    for (let j = 0; j < 4; j++) sum += Math.abs(x[from + i + j]! - y[block + j]!);
    view.setUint16(i * 2, sum, true);
  }
  return result;
});

const phminposuw = binary((_x, y) => {
  const words = new Uint16Array(y.buffer.slice(y.byteOffset, y.byteOffset + 16));
  let best = 0;
  for (let i = 1; i < 8; i++) if (words[i]! < words[best]!) best = i;
  const result = new Uint16Array(8);
  result[0] = words[best]!;
  result[1] = best;
  return new Uint8Array(result.buffer);
});

// -- SSE4.2 string comparison (APM vol. 4, "String Compare Instructions") --------------------------------

/** PCMPxSTRx: `explicit` lengths in rAX, rDX; result an index in ECX or a mask in XMM0. */
const stringCompare =
  (explicit: boolean, toIndex: boolean): Helper =>
  (cpu, op) => {
    requireSse(cpu);
    const immediate = Number(op.immediate);
    const words = (immediate & 1) !== 0;
    const signed = (immediate & 2) !== 0;
    const count = words ? 8 : 16;
    const b = vectorSource(cpu, op, false);
    const a = readXmm(cpu, op.a);
    const elements = (bytes: Uint8Array): number[] =>
      Array.from({ length: count }, (_, i) => {
        const raw = words ? bytes[2 * i]! | (bytes[2 * i + 1]! << 8) : bytes[i]!;
        if (!signed) return raw;
        return words ? (raw << 16) >> 16 : (raw << 24) >> 24;
      });
    const first = elements(a);
    const second = elements(b);
    const lengthOf = (list: number[], register: number): number => {
      if (!explicit) {
        const end = list.indexOf(0);
        return end < 0 ? count : end;
      }
      const raw = BigInt.asIntN(op.size * 8, cpu.readRegister(gpr(register), op.size));
      const magnitude = raw < 0n ? -raw : raw;
      return magnitude > BigInt(count) ? count : Number(magnitude);
    };
    const lengthA = lengthOf(first, RAX);
    const lengthB = lengthOf(second, RDX);
    let mask = 0;
    for (let j = 0; j < count; j++) {
      let bit = false;
      switch ((immediate >> 2) & 3) {
        case 0: // equal any
          for (let i = 0; i < lengthA; i++) bit ||= j < lengthB && first[i] === second[j];
          break;
        case 1: // ranges
          for (let i = 0; i + 1 < lengthA; i += 2)
            bit ||= j < lengthB && first[i]! <= second[j]! && second[j]! <= first[i + 1]!;
          break;
        case 2: // equal each
          bit = j < lengthA && j < lengthB ? first[j] === second[j] : j >= lengthA && j >= lengthB;
          break;
        default: // equal ordered
          bit = true;
          for (let i = 0; i < lengthA && i + j < count; i++)
            bit &&= i + j < lengthB && first[i] === second[i + j];
      }
      if (bit) mask |= 1 << j;
    }
    const all = (1 << count) - 1;
    if (immediate & 0x10) mask ^= immediate & 0x20 ? (1 << lengthB) - 1 : all;
    if (toIndex) {
      const low = mask === 0 ? count : 31 - Math.clz32(mask & -mask);
      const high = mask === 0 ? count : 31 - Math.clz32(mask);
      cpu.setU64(gpr(RCX), BigInt(immediate & 0x40 ? high : low));
    } else {
      const result = new Uint8Array(16);
      if (immediate & 0x40) {
        const width = words ? 2 : 1;
        for (let j = 0; j < count; j++) if ((mask >> j) & 1) result.fill(0xff, j * width, j * width + width);
      } else {
        result[0] = mask & 0xff;
        result[1] = mask >> 8;
      }
      writeXmm(cpu, 0, result);
    }
    const flags =
      (mask !== 0 ? FLAG.CF : 0) |
      (lengthB < count ? FLAG.ZF : 0) |
      (lengthA < count ? FLAG.SF : 0) |
      (mask & 1 ? FLAG.OF : 0);
    cpu.changeFlags(ARITHMETIC_FLAGS, flags);
  };

// -- AES ---------------------------------------------------------------------------------------------------

/** Byte i of the state comes from byte (i + 4 * row * direction) of the one before (ShiftRows). */
const shiftRows = (state: Uint8Array, inverse: boolean): Uint8Array =>
  state.map((_, i) => state[(i + (inverse ? 16 - 4 * (i & 3) : 4 * (i & 3))) & 15]!);
const mixColumns = (state: Uint8Array, factors: readonly number[]): Uint8Array =>
  state.map((_, i) => {
    const column = i & 12;
    let sum = 0;
    for (let k = 0; k < 4; k++) sum ^= multiply(state[column + k]!, factors[(k - (i & 3) + 4) & 3]!);
    return sum;
  });
const FORWARD = [2, 3, 1, 1];
const BACKWARD = [14, 11, 13, 9];
const xor = (x: Uint8Array, y: Uint8Array): Uint8Array => x.map((byte, i) => byte ^ y[i]!);
const encrypt = (state: Uint8Array): Uint8Array => shiftRows(state, false).map((byte) => AES_SBOX[byte]!);
const decrypt = (state: Uint8Array): Uint8Array => shiftRows(state, true).map((byte) => AES_INVERSE[byte]!);

const aeskeygenassist = binary((_x, y, round) => {
  const result = new Uint8Array(16);
  for (const half of [0, 8]) {
    const word = y.slice(half + 4, half + 8).map((byte) => AES_SBOX[byte]!);
    result.set(word, half);
    result.set([word[1]! ^ round, word[2]!, word[3]!, word[0]!], half + 4);
  }
  return result;
});

// -- carry-less multiplication --------------------------------------------------------------------------------

const pclmulqdq = binary((x, y, immediate) => {
  const half = (bytes: Uint8Array, upper: boolean): bigint =>
    new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(upper ? 8 : 0, true);
  const a = half(x, (immediate & 1) !== 0);
  let b = half(y, (immediate & 0x10) !== 0);
  let product = 0n;
  for (let shift = 0n; b !== 0n; shift++, b >>= 1n) if (b & 1n) product ^= a << shift;
  const result = new Uint8Array(16);
  const view = new DataView(result.buffer);
  view.setBigUint64(0, BigInt.asUintN(64, product), true);
  view.setBigUint64(8, product >> 64n, true);
  return result;
});

// -- SHA -------------------------------------------------------------------------------------------------------

const wordsOf = (bytes: Uint8Array): Uint32Array =>
  new Uint32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + 16));
const bytesOf = (words: readonly number[]): Uint8Array => new Uint8Array(Uint32Array.from(words).buffer);
const rotateLeft = (x: number, n: number): number => (x << n) | (x >>> (32 - n));
const rotateRight = (x: number, n: number): number => (x >>> n) | (x << (32 - n));
const sigma0 = (x: number): number => rotateRight(x, 7) ^ rotateRight(x, 18) ^ (x >>> 3);
const sigma1 = (x: number): number => rotateRight(x, 17) ^ rotateRight(x, 19) ^ (x >>> 10);

const SHA1_CONSTANTS = [0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6] as const;
const sha1rnds4 = binary((x, y, immediate) => {
  const state = wordsOf(x);
  const message = wordsOf(y);
  const kind = immediate & 3;
  let [a, b, c, d] = [state[3]!, state[2]!, state[1]!, state[0]!];
  let e = 0;
  for (let i = 0; i < 4; i++) {
    const mixed = kind === 0 ? (b & c) ^ (~b & d) : kind === 2 ? (b & c) ^ (b & d) ^ (c & d) : b ^ c ^ d;
    const next = (mixed + rotateLeft(a, 5) + message[3 - i]! + e + SHA1_CONSTANTS[kind]!) | 0;
    [e, d, c, b, a] = [d, c, rotateLeft(b, 30), a, next];
  }
  return bytesOf([d, c, b, a]);
});
const sha1nexte = binary((x, y) => {
  const words = wordsOf(y);
  return bytesOf([words[0]!, words[1]!, words[2]!, words[3]! + rotateLeft(wordsOf(x)[3]!, 30)]);
});
const sha1msg1 = binary((x, y) => {
  const [a, b] = [wordsOf(x), wordsOf(y)];
  return bytesOf([b[2]! ^ a[0]!, b[3]! ^ a[1]!, a[0]! ^ a[2]!, a[1]! ^ a[3]!]);
});
const sha1msg2 = binary((x, y) => {
  const [a, b] = [wordsOf(x), wordsOf(y)];
  const w16 = rotateLeft(a[3]! ^ b[2]!, 1);
  const w17 = rotateLeft(a[2]! ^ b[1]!, 1);
  const w18 = rotateLeft(a[1]! ^ b[0]!, 1);
  return bytesOf([rotateLeft(a[0]! ^ w16, 1), w18, w17, w16]);
});
/** Two rounds; the round's words plus constants are in XMM0. */
const sha256rnds2: Helper = (cpu, op) => {
  requireSse(cpu);
  const low = wordsOf(vectorSource(cpu, op));
  const high = wordsOf(readXmm(cpu, op.a));
  const keys = wordsOf(readXmm(cpu, 0));
  let [a, b, e, f] = [low[3]!, low[2]!, low[1]!, low[0]!];
  let [c, d, g, h] = [high[3]!, high[2]!, high[1]!, high[0]!];
  for (let i = 0; i < 2; i++) {
    const choice = (e & f) ^ (~e & g);
    const majority = (a & b) ^ (a & c) ^ (b & c);
    const first = (h + (rotateRight(e, 6) ^ rotateRight(e, 11) ^ rotateRight(e, 25)) + choice + keys[i]!) | 0;
    const second = ((rotateRight(a, 2) ^ rotateRight(a, 13) ^ rotateRight(a, 22)) + majority) | 0;
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + first) | 0, c, b, a, (first + second) | 0];
  }
  writeXmm(cpu, op.a, bytesOf([f, e, b, a]));
};
const sha256msg1 = binary((x, y) => {
  const a = wordsOf(x);
  const next = [a[1]!, a[2]!, a[3]!, wordsOf(y)[0]!];
  return bytesOf(next.map((word, i) => a[i]! + sigma0(word)));
});
const sha256msg2 = binary((x, y) => {
  const [a, b] = [wordsOf(x), wordsOf(y)];
  const w16 = a[0]! + sigma1(b[2]!);
  const w17 = a[1]! + sigma1(b[3]!);
  return bytesOf([w16, w17, a[2]! + sigma1(w16), a[3]! + sigma1(w17)]);
});

export const VECTOR_HELPERS: Readonly<Record<string, Helper>> = {
  blendps: blend(4),
  blendpd: blend(8),
  pblendw: blend(2),
  pinsrb: insert(() => 1),
  pinsrd: insert((op) => op.size),
  insertps,
  pextrb: extract(() => 1),
  pextrw_store: extract(() => 2),
  pextrd: extract((op) => op.size),
  extractps: extract(() => 4),
  mpsadbw,
  phminposuw,
  pcmpestrm: stringCompare(true, false),
  pcmpestri: stringCompare(true, true),
  pcmpistrm: stringCompare(false, false),
  pcmpistri: stringCompare(false, true),
  aesenc: binary((x, y) => xor(mixColumns(encrypt(x), FORWARD), y)),
  aesenclast: binary((x, y) => xor(encrypt(x), y)),
  aesdec: binary((x, y) => xor(mixColumns(decrypt(x), BACKWARD), y)),
  aesdeclast: binary((x, y) => xor(decrypt(x), y)),
  aesimc: binary((_x, y) => mixColumns(y, BACKWARD)),
  aeskeygenassist,
  pclmulqdq,
  sha1rnds4,
  sha1nexte,
  sha1msg1,
  sha1msg2,
  sha256rnds2,
  sha256msg1,
  sha256msg2,
};
