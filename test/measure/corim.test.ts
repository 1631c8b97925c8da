/** CoRIM documents: the launch-measurement profile, signatures, their place in IGVM files. */
import { generateKeyPairSync } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import type { IgvmFile } from '../../src/igvm/index.ts';
import {
  checkCorim,
  corimOf,
  embedCorim,
  measureIgvm,
  readCorim,
  readCoseSign1,
  readP384PrivateKey,
  signCorim,
  verifyCorim,
  verifyCoseSign1,
  writeLaunchMeasurement,
} from '../../src/measure/index.ts';
import type { MeasuredPlatform, Verdict } from '../../src/measure/index.ts';
import { Tagged, decodeCbor, encodeCbor } from '../../src/measure/cbor.ts';

const failures = (verdict: Verdict): string[] =>
  verdict.checks.filter(({ result }) => result === 'fail').map(({ name }) => name);
const digest = new Uint8Array(48).fill(0xaa);
const newKey = () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  return readP384PrivateKey(new TextEncoder().encode(pem), nodeCrypto);
};
const key = newKey();

describe('CBOR', () => {
  it('RFC 8949 appendix A, as far as it matters here', () => {
    for (const [hexadecimal, value] of [
      ['00', 0],
      ['1903e8', 1000],
      ['1bffffffffffffffff', 18446744073709551615n],
      ['3903e7', -1000],
      ['4401020304', Uint8Array.of(1, 2, 3, 4)],
      ['6449455446', 'IETF'],
      ['83010203', [1, 2, 3]],
      ['8301820203820405', [1, [2, 3], [4, 5]]],
      ['a201020304', new Map([[1, 2], [3, 4]])], // prettier-ignore
      ['f6', null],
    ] as const) {
      expect(decodeCbor(hexToBytes(hexadecimal), 'it')).toEqual(value);
      expect(bytesToHex(encodeCbor(value))).toBe(hexadecimal);
    }
    expect(decodeCbor(hexToBytes('d9022863616263'), 'it')).toEqual(new Tagged(552, 'abc'));
    expect(decodeCbor(hexToBytes('9f018202039f0405ffff'), 'it')).toEqual([1, [2, 3], [4, 5]]);
  });

  it('is bounded, and says where', () => {
    const refused = (bytes: Uint8Array, offset: number): void =>
      expect(() => decodeCbor(bytes, 'it', 1000)).toThrow(
        expect.objectContaining({ code: 'cbor-invalid', place: { fileOffset: 1000 + offset } }),
      );
    refused(new Uint8Array(100_000).fill(0x81), 65);
    refused(new Uint8Array(100_000).fill(0xd8), 2 * 64 + 2);
    refused(new Uint8Array(100_000).fill(0x9f), 65);
    // A length of 2^32 - 1 with nothing behind it, a map key twice, something behind the value.
    for (const bad of ['9affffffff', 'bbffffffffffffffff', '5bffffffffffffff00', '9bffffffffffffffff01'])
      expect(() => decodeCbor(hexToBytes(bad), 'it')).toThrow(
        expect.objectContaining({ code: 'cbor-invalid' }),
      );
    for (const bad of ['a201020103', '0000', '', 'ff', '81'])
      expect(() => decodeCbor(hexToBytes(bad), 'it')).toThrow(/it is no CBOR/);
    const many = new Uint8Array(300_005).fill(1);
    many.set([0x9a, 0, 4, 0x93, 0xe0]);
    expect(() => decodeCbor(many, 'it')).toThrow(/more than 200000 values/);
  });
});

describe('the launch-measurement profile', () => {
  it.each([
    ['SEV_SNP', 48, 'AMD/SEV-SNP/launch-measurement', '77e8061e-4634-5e53-a848-d1d09e996843', 'MEASUREMENT'],
    ['TDX', 48, 'Intel/TDX/launch-measurement', 'e0510081-7b78-5b2a-97a6-d73d890e07b6', 'MRTD'],
    [
      'VSM_ISOLATION',
      32,
      'Microsoft/VBS/launch-measurement',
      '2e29068e-e0fa-59e6-b0ff-3bfe09132e13',
      'MEASUREMENT',
    ],
  ] as const)('%s', (platform, size, id, tagId, mkey) => {
    const own = new Uint8Array(size).fill(0xaa);
    const corim = readCorim(writeLaunchMeasurement(platform, own, 5n));
    expect(corim).toMatchObject({ id, comids: [{ tag: 0, tagId }], references: [{ mkey, digest: own }] });
    expect(corim.endorsements).toEqual([{ tag: 0, digest: own, svn: 5n, exact: true }]);
    expect(checkCorim(corim, platform, own).ok).toBe(true);
    expect(failures(checkCorim(corim, platform, new Uint8Array(size)))).toEqual(['corim-digest']);
    for (const other of ['SEV_SNP', 'TDX', 'VSM_ISOLATION'] as const)
      if (other !== platform) expect(checkCorim(corim, other, own).ok).toBe(false);
    expect(() => writeLaunchMeasurement(platform, new Uint8Array(20), 1n)).toThrow(/bytes, not 20/);
  });

  it('is what the igvm crate 0.5 writes, byte for byte', () => {
    const builder = new IgvmBuilder().platform('SEV_SNP', 1).guestPolicy(0x30000n, 1);
    const file = parseIgvm(builder.page(0x1000n, 1, Uint8Array.of(1)).build());
    const { digest } = measureIgvm(file, {}, nodeCrypto);
    expect(bytesToHex(writeLaunchMeasurement('SEV_SNP', digest, 2n))).toBe(
      'd901f5a300781e414d442f5345562d534e502f6c61756e63682d6d6561737572656d656e740181d901fa58efa201a1007824' +
        '37376538303631652d343633342d356535332d613834382d64316430396539393638343304a2008182a100a20163414d4402' +
        '675345562d534e5081a2006b4d4541535552454d454e5401a102818207583055915d18ee205c41d4ce1af5911a215de21542' +
        '611cbd4284a6b6acd56827d2c62e72619e1bc315db6e7f3872e664f53808818282a100a20163414d4402675345562d534e50' +
        '80818281a2006b4d4541535552454d454e5401a102818207583055915d18ee205c41d4ce1af5911a215de21542611cbd4284' +
        'a6b6acd56827d2c62e72619e1bc315db6e7f3872e664f53881a101a101d902280203782c7461673a6d6963726f736f66742e' +
        '636f6d2c323032363a6c61756e63682d6d6561737572656d656e742f7631',
    );
  });

  it('has no other platform', () => {
    expect(() => writeLaunchMeasurement('SEV' as MeasuredPlatform, digest, 1n)).toThrow(/has no platform/);
  });

  it('what breaks it is named', () => {
    const change = (edit: (corim: Map<number, unknown>, comid: Map<number, unknown>) => void) => {
      const document = decodeCbor(writeLaunchMeasurement('SEV_SNP', digest, 5n), 'it') as Tagged;
      const corim = document.value as Map<number, unknown>;
      const tag = (corim.get(1) as Tagged[])[0]!;
      const comid = decodeCbor(tag.value as Uint8Array, 'it') as Map<number, unknown>;
      edit(corim, comid);
      tag.value = encodeCbor(comid);
      const verdict = checkCorim(readCorim(encodeCbor(document)), 'SEV_SNP', digest);
      return verdict.checks.filter(({ result }) => result !== 'pass').map(({ message }) => message);
    };
    const triples = (comid: Map<number, unknown>) => comid.get(4) as Map<number, unknown>;
    expect(change(() => {})).toEqual([]);
    expect(change((_, comid) => (comid.get(1) as Map<number, unknown>).set(0, 'other'))[0]).toMatch(/tag-id/);
    expect(change((_, comid) => triples(comid).delete(8))[0]).toMatch(/one exact security version/);
    expect(
      change((corim) => corim.set(1, [...(corim.get(1) as unknown[]), new Tagged(505, digest)]))[0],
    ).toMatch(/one CoMID and no other tag/);
    expect(change((corim) => corim.delete(3))[0]).toMatch(/profile is not named/);
    const text = JSON.stringify(change((_, comid) => triples(comid).delete(0)));
    expect(text).toMatch(/one reference value, not 0/);
    expect(text).toMatch(/no MEASUREMENT of AMD\/SEV-SNP/);
  });

  it('what is no CoRIM is refused with a place', () => {
    for (const bad of [
      '00',
      'd901f500',
      'd901f5a0',
      'd901f5a10180',
      'd901f5a10181d901fa00',
      'd901f5a10181d901fa4100',
    ])
      expect(() => readCorim(hexToBytes(bad), 77)).toThrow(
        expect.objectContaining({ place: expect.objectContaining({ fileOffset: expect.any(Number) }) }),
      );
  });
});

describe('signatures', () => {
  const document = writeLaunchMeasurement('SEV_SNP', digest, 5n);
  const signature = signCorim(document, key, 'release', nodeCrypto);

  it('verify with the key, over the document, and not otherwise', () => {
    const cose = readCoseSign1(signature);
    expect(cose).toMatchObject({
      algorithmName: 'ES384',
      payload: undefined,
      contentType: 'application/rim+cbor',
    });
    expect(verifyCoseSign1(cose, document, key.publicKey, nodeCrypto).checks).toEqual([
      { name: 'corim-signature', result: 'pass', message: 'the key signed the document' },
    ]);
    expect(verifyCoseSign1(cose, document, newKey().publicKey, nodeCrypto).ok).toBe(false);
    expect(verifyCoseSign1(cose, document.slice(1), key.publicKey, nodeCrypto).ok).toBe(false);
    const header = cose.protectedBytes.slice();
    header[header.length - 1]! ^= 1;
    expect(verifyCoseSign1({ ...cose, protectedBytes: header }, document, key.publicKey, nodeCrypto).ok).toBe(
      false,
    );
    expect(verifyCoseSign1(cose, document, undefined, nodeCrypto).checks[0]!.result).toBe('skipped');
    expect(verifyCoseSign1({ ...cose, algorithm: -7 }, document, key.publicKey, nodeCrypto).ok).toBe(false);
    expect(verifyCoseSign1({ ...cose, payload: digest }, document, key.publicKey, nodeCrypto).ok).toBe(false);
  });

  it('what is no COSE_Sign1 is refused', () => {
    for (const bad of ['00', '80', '8400a0f640', '844100a0f640', '8440a00040', '8440a0f600'])
      expect(() => readCoseSign1(hexToBytes(bad))).toThrow(
        expect.objectContaining({ code: expect.stringMatching(/cose-invalid|cbor-invalid/) }),
      );
  });
});

describe('in IGVM files', () => {
  const MASK = 1;
  const image = (version: 1 | 2): IgvmFile =>
    parseIgvm(
      new IgvmBuilder({ version })
        .platform('SEV_SNP', MASK)
        .guestPolicy(0x30000n, MASK)
        .page(0x1000n, MASK, Uint8Array.of(1))
        .build(),
    );

  it.each([1, 2] as const)('version %i: embedded, read back, checked against the digest', (version) => {
    const file = image(version);
    const measured = measureIgvm(file, {}, nodeCrypto);
    const document = writeLaunchMeasurement('SEV_SNP', measured.digest, 2n);
    const signature = signCorim(document, key, 'release', nodeCrypto);
    const after = parseIgvm(embedCorim(file, MASK, document, signature));
    expect(after.diagnostics.filter(({ severity }) => severity === 'error')).toEqual([]);
    const found = corimOf(after, MASK)!;
    expect(bytesToHex(found.bytes)).toBe(bytesToHex(document));
    expect(bytesToHex(found.signatureBytes!)).toBe(bytesToHex(signature));
    const { digest } = measureIgvm(after, {}, nodeCrypto);
    const verdict = verifyCorim(found, { platform: 'SEV_SNP', digest }, key.publicKey, nodeCrypto);
    expect(verdict.checks.map(({ result }) => result)).toEqual(['pass', 'pass', 'pass']);
    expect(() => embedCorim(after, MASK, document, undefined)).toThrow(
      expect.objectContaining({ code: 'corim-exists' }),
    );
    const replaced = parseIgvm(embedCorim(after, MASK, document, undefined, true));
    const again = corimOf(replaced, MASK)!;
    expect(again.signature).toBeUndefined();
    expect(failures(verifyCorim(again, { platform: 'SEV_SNP', digest }, key.publicKey, nodeCrypto))).toEqual([
      'corim-signature',
    ]);
    expect(verifyCorim(again, { platform: 'SEV_SNP', digest }, undefined, nodeCrypto).ok).toBe(true);
  });
});
