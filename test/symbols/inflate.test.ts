import { constants, deflateSync } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { CvmError } from '../../src/base/index.ts';
import { inflateZlib } from '../../src/symbols/inflate.ts';
import { random } from './oracle.ts';

/** Data of several kinds: noise, few symbols, text with long repeats, runs. */
function sample(seed: number, size: number): Uint8Array {
  const next = random(seed);
  const bytes = new Uint8Array(size);
  for (let i = 0; i < size; i++) {
    const mode = (i >> 10) % 4;
    if (mode === 0) bytes[i] = next();
    else if (mode === 1) bytes[i] = next() & 3;
    else if (mode === 2) bytes[i] = i > 700 ? bytes[i - 1 - (next() % 4 ? 699 : 300)]! : i;
    else bytes[i] = 0x55;
  }
  return bytes;
}

describe('inflateZlib', () => {
  it('inflates what zlib deflates, at every level and strategy', () => {
    const strategies = [
      constants.Z_DEFAULT_STRATEGY,
      constants.Z_FIXED,
      constants.Z_HUFFMAN_ONLY,
      constants.Z_RLE,
    ];
    for (let seed = 0; seed < 24; seed++)
      for (const strategy of strategies) {
        const plain = sample(seed, [0, 1, 300, 5000, 70_000][seed % 5]!);
        const packed = deflateSync(plain, { level: seed % 10, strategy });
        expect(Buffer.compare(inflateZlib(packed, plain.length), plain)).toBe(0);
      }
  });

  it('refuses a wrong size, damage and truncation', () => {
    const plain = sample(7, 5000);
    const packed = new Uint8Array(deflateSync(plain));
    expect(() => inflateZlib(packed, 4999)).toThrow(CvmError);
    expect(() => inflateZlib(packed, 5001)).toThrow(CvmError);
    expect(() => inflateZlib(packed.subarray(0, 200), 5000)).toThrow(CvmError);
    expect(() => inflateZlib(new Uint8Array(0), 0)).toThrow(CvmError);
    const next = random(99);
    for (let i = 0; i < 300; i++) {
      const damaged = packed.slice();
      damaged[next() % damaged.length]! ^= 1 << (next() & 7);
      try {
        inflateZlib(damaged, 5000);
      } catch (error) {
        expect(error).toBeInstanceOf(CvmError);
      }
    }
  });
});
