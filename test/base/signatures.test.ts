import { constants, createPrivateKey, generateKeyPairSync, randomBytes, sign } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../src/base/index.ts';
import type { Signatures } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { portableSignatures } from '../../src/base/signatures.ts';

const implementations: readonly (readonly [string, Signatures])[] = [
  ['node', nodeCrypto.signatures],
  ['portable', portableSignatures],
];
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const flipped = (bytes: Uint8Array, bit: number): Uint8Array => {
  const copy = Uint8Array.from(bytes);
  copy[bit >> 3]! ^= 1 << (bit & 7);
  return copy;
};

describe.each(implementations)('signatures, %s', (_name, signatures) => {
  // RFC 6979 §A.2.6, SHA-384.
  const key = hexToBytes(
    '6b9d3dad2e1b8c1c05b19875b6659f4de23c3b667bf297ba9aa47740787137d896d5724e4c70a825f872c9ea60d2edf5',
  );
  const answers = {
    sample:
      '94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46' +
      '99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8',
    test:
      '8203b63d3c853e8d77227fb377bcf7b7b772e97892a80f36ab775d509d7a5feb0542a7f0812998da8f1dd3ca3cf023db' +
      'ddd0760448d42d8a43af45af836fce4de8be06b485e9b61b827c2f13173923e06a739f040649a667bf3b828246baa5a5',
  };
  it('RFC 6979 §A.2.6', () => {
    expect(bytesToHex(signatures.p384PublicKey(key))).toBe(
      '04' +
        'ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13' +
        '8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720',
    );
    for (const [message, answer] of Object.entries(answers))
      expect(bytesToHex(signatures.p384Sign(key, text(message)))).toBe(answer);
  });

  it('verifies what it should and nothing else', () => {
    const publicKey = signatures.p384PublicKey(key);
    const message = text('sample');
    const signature = hexToBytes(answers.sample);
    expect(signatures.p384Verify(publicKey, message, signature)).toBe(true);
    expect(signatures.p384Verify(publicKey, text('test'), signature)).toBe(false);
    for (let bit = 0; bit < 768; bit += 37)
      expect(signatures.p384Verify(publicKey, message, flipped(signature, bit))).toBe(false);
    // Not on the curve any more.
    for (let bit = 8; bit < 776; bit += 101)
      expect(signatures.p384Verify(flipped(publicKey, bit), message, signature)).toBe(false);
    expect(signatures.p384Verify(publicKey, message, signature.subarray(1))).toBe(false);
    expect(signatures.p384Verify(publicKey.subarray(1), message, signature)).toBe(false);
    expect(signatures.p384Verify(publicKey, message, new Uint8Array(96))).toBe(false);
    expect(signatures.p384Verify(publicKey, message, new Uint8Array(96).fill(0xff))).toBe(false);
  });

  it('refuses scalars out of range', () => {
    for (const bad of [new Uint8Array(48), new Uint8Array(48).fill(0xff), key.subarray(1)])
      expect(() => signatures.p384Sign(bad, text('x'))).toThrow(
        expect.objectContaining({ code: 'key-invalid' }),
      );
  });

  it('takes signatures of OpenSSL, high s included', () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
    const scalar = Buffer.from(privateKey.export({ format: 'jwk' }).d!, 'base64url');
    const publicKey = signatures.p384PublicKey(scalar);
    for (let n = 0; n < 12; n++) {
      const message = randomBytes(n * 7);
      const signature = sign('sha384', message, { key: privateKey, dsaEncoding: 'ieee-p1363' });
      expect(signatures.p384Verify(publicKey, message, signature)).toBe(true);
    }
  });

  it.each([2048, 2041])('RSASSA-PSS of OpenSSL, %i bits', (modulusLength) => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength });
    const jwk = createPrivateKey(privateKey.export({ type: 'pkcs8', format: 'pem' })).export({
      format: 'jwk',
    });
    const modulus = Uint8Array.from(Buffer.from(jwk.n!, 'base64url'));
    const exponent = Uint8Array.from(Buffer.from(jwk.e!, 'base64url'));
    const message = randomBytes(100);
    for (const saltLength of [48, 0, 32]) {
      const signature = new Uint8Array(
        sign('sha384', message, {
          key: privateKey,
          padding: constants.RSA_PKCS1_PSS_PADDING,
          saltLength,
        }),
      );
      const verify = (s: Uint8Array, m: Uint8Array = message, salt = saltLength) =>
        signatures.rsaPssVerify({ modulus, exponent }, m, s, salt);
      expect(verify(signature)).toBe(true);
      expect(verify(signature, message, saltLength + 1)).toBe(false);
      expect(verify(signature, randomBytes(100))).toBe(false);
      for (let bit = 0; bit < 2040; bit += 211) expect(verify(flipped(signature, bit))).toBe(false);
      expect(verify(signature.subarray(1))).toBe(false);
      expect(verify(modulus)).toBe(false);
    }
    const pkcs1 = new Uint8Array(sign('sha384', message, privateKey));
    expect(signatures.rsaPssVerify({ modulus, exponent }, message, pkcs1, 48)).toBe(false);
  });
});
