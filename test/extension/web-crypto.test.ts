import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { webCrypto } from '../../src/extension/web-crypto.ts';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('hashing in the browser', () => {
  // FIPS 180-4 examples, then every length around the padding boundaries against node:crypto.
  it('gives the examples of FIPS 180-4', () => {
    const abc = new TextEncoder().encode('abc');
    expect(hex(webCrypto.sha256(abc))).toBe(
      'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad',
    );
    expect(hex(webCrypto.sha384(abc))).toBe(
      'cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7',
    );
  });

  it('agrees with node:crypto at every length up to 300 bytes, in one chunk or in several', () => {
    const bytes = Uint8Array.from({ length: 300 }, (_, i) => (i * 167 + (i >> 3)) & 0xff);
    for (let length = 0; length <= bytes.length; length++) {
      const message = bytes.subarray(0, length);
      const parts = [message.subarray(0, length >> 1), message.subarray(length >> 1)];
      for (const algorithm of ['sha256', 'sha384'] as const) {
        const expected = createHash(algorithm).update(message).digest('hex');
        expect(hex(webCrypto[algorithm](message)), `${algorithm} of ${length} bytes`).toBe(expected);
        expect(hex(webCrypto[algorithm](...parts))).toBe(expected);
        const stream = webCrypto.createHash(algorithm);
        for (let at = 0; at < length; at += 7) stream.update(message.subarray(at, Math.min(at + 7, length)));
        const copy = stream.copy();
        copy.update(message);
        expect(hex(stream.digest())).toBe(expected);
        expect(hex(copy.digest())).toBe(createHash(algorithm).update(message).update(message).digest('hex'));
      }
    }
  });
});
