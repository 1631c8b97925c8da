/** ID blocks: the firmware's structures, signatures, and their place in IGVM files. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign, verify } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, headerFields, parseIgvm } from '../../src/igvm/index.ts';
import type { IgvmFile } from '../../src/igvm/index.ts';
import {
  ID_AUTH,
  ID_BLOCK,
  assembleIdBlock,
  decodeIdBlock,
  embedIdBlock,
  encodeIdBlock,
  fromBase64,
  idBlocksOf,
  keyDigest,
  makeIdBlock,
  measureIgvm,
  readP384PrivateKey,
  readP384PublicKey,
  readP384Signature,
  signIdBlock,
  signedIdKey,
  toBase64,
  verifyEmbeddedIdBlock,
  verifyIdBlock,
} from '../../src/measure/index.ts';
import type { SignedIdBlock, Verdict } from '../../src/measure/index.ts';
import { Random, randomFile } from '../igvm/random.ts';

const failures = (verdict: Verdict): string[] =>
  verdict.checks.filter(({ result }) => result === 'fail').map(({ name }) => name);
const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const newKey = () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  return { node: privateKey, pem: text(privateKey.export({ type: 'pkcs8', format: 'pem' }) as string) };
};
const [id, author] = [newKey(), newKey()];
const idKey = readP384PrivateKey(id.pem, nodeCrypto);
const authorKey = readP384PrivateKey(author.pem, nodeCrypto);
const digest = new Uint8Array(48).map((_, i) => i + 1);
const block = makeIdBlock({ digest, policy: 0x30000n, guestSvn: 3, familyId: new Uint8Array(16).fill(7) });

describe('known answers', () => {
  it('the ID block of sev-snp-measure (tests/test_id_block.py) and of the sev crate (tests/id-block.rs)', () => {
    for (const [launchDigest, expected] of [
      [
        'B28FLQi9p6cAqipgjFyqawDrrSl7bWioWkWx5mmlWLZ+G5HShKMB/mPE+gdQRn7t',
        'B28FLQi9p6cAqipgjFyqawDrrSl7bWioWkWx5mmlWLZ+G5HShKMB/mPE+gdQRn7tAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAwAAAAAA',
      ],
      [
        'oU1jg0HlZ0Yo/h4C++3r5eWrT68d1y2JZgaOYVu5nv0T0hSzXCMXFbOOJj3GBZdF',
        'oU1jg0HlZ0Yo/h4C++3r5eWrT68d1y2JZgaOYVu5nv0T0hSzXCMXFbOOJj3GBZdFAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAwAAAAAA',
      ],
    ] as const) {
      const bytes = encodeIdBlock(makeIdBlock({ digest: fromBase64(launchDigest)!, policy: 0x30000n }));
      expect(toBase64(bytes)).toBe(expected);
      expect(decodeIdBlock(bytes).policy).toBe(0x30000n);
    }
  });

  /** Little-endian, as in tests/measurement/test_auth_block.bin of the sev crate: r, s, Qx, Qy. */
  const theirs = {
    idSignature: [
      'e5d3bf7d9bf9e061bd4e8f7c6acae05909a9c3c69f04f318f0135eae71ff7d05ef5c8c6b1bc8c047613a7b6f01b738da',
      'd4194dca67de8381ec6d267c032b03dd3c1f5eafa6aa61e92964e5548bef332b1ae921f26de16ac33b642744d197a5d8',
    ],
    idKey: [
      '1f6d3c80b8fb9ef29ff7dd47e8de3fcb95dd90438768b1932c55233c0c475df54ccab8c82c2ff22c1bcf09264d3e76f6',
      '3ebe939c38350b08cd9bda503c85380dfd7c6012f71966767b3214cbdea837ad1d6dbe0a19b150c7c1cdb947d0a8d7cc',
    ],
    authorSignature: [
      'bb887b94557f568689ff4855c3f7ed99810c3d54ecd429651134dc18dd020ecaa771a34cb97666771aa31f0eb462ea99',
      'f261e8b95da71b2a35425f48a219a77dbb0fee252f64d18ce99888b9fb4f70b104011b7dfea3e0349371a2bfaf6f9133',
    ],
    authorKey: [
      '8c8645dad57349a3c5ffc6c1a5f74a569f0f833c078bb22cd79474f0fe92ce716a73985ba2996233d14c90d68bc77062',
      'f5ac8771e0911103c9f2a2fe484377192accb388cc3afdb759b5563ecd08935fa9e2028108107aa74884c9a230793c86',
    ],
  };
  const number = (little: string): Uint8Array => hexToBytes(little).reverse();
  const pair = ([a, b]: readonly string[]): Uint8Array => Uint8Array.from([...number(a!), ...number(b!)]);
  const point = (key: readonly string[]): Uint8Array => Uint8Array.from([4, ...pair(key)]);

  it('the ID authentication of the sev crate: layout, key digests, signatures', () => {
    const { auth } = assembleIdBlock(encodeIdBlock(block), {
      idKey: point(theirs.idKey),
      idSignature: pair(theirs.idSignature),
      authorKey: point(theirs.authorKey),
      authorSignature: pair(theirs.authorSignature),
    });
    // The page written out from the specification's offsets.
    const page = new Uint8Array(4096);
    page.set([1, 0, 0, 0, 1, 0, 0, 0]);
    for (const [offset, first, [a, b]] of [
      [0x40, 0, theirs.idSignature],
      [0x240, 4, theirs.idKey],
      [0x680, 0, theirs.authorSignature],
      [0x880, 4, theirs.authorKey],
    ] as const) {
      if (first === 4) page[offset] = 2;
      page.set(hexToBytes(a!), offset + first);
      page.set(hexToBytes(b!), offset + first + 72);
    }
    expect(bytesToHex(auth)).toBe(bytesToHex(page));

    const { checks, idKeyDigest, authorKeyDigest } = verifyIdBlock(
      { block: encodeIdBlock(block), auth, authorKeyEnabled: true },
      {},
      nodeCrypto,
    );
    expect(toBase64(idKeyDigest)).toBe('WfssaG36T+9J84M5qndckAUcKNVzg93DuvO160sUlt87DbvcuuX+J2d6ZEggdz/i');
    expect(toBase64(authorKeyDigest)).toBe(
      '7tgRafsMteDsNHlPEo/U4MSkb2fGWhrfqB/LJLzAiMJyNpt//D6ytq9qQoShs2xf',
    );
    expect(checks.find(({ name }) => name === 'author-signature')?.result).toBe('pass');
  });
});

describe('signing and verifying', () => {
  const signed = signIdBlock(block, { idKey, authorKey }, nodeCrypto);

  it('OpenSSL verifies our signatures', () => {
    const check = (key: typeof id.node, message: Uint8Array, at: number): boolean => {
      const signature = Buffer.concat([
        Buffer.from(signed.auth.slice(at, at + 48).reverse()),
        Buffer.from(signed.auth.slice(at + 72, at + 72 + 48).reverse()),
      ]);
      return verify('sha384', message, { key: createPublicKey(key), dsaEncoding: 'ieee-p1363' }, signature);
    };
    expect(check(id.node, signed.block, 0x40)).toBe(true);
    expect(check(author.node, signed.auth.slice(0x240, 0x240 + 1028), 0x680)).toBe(true);
    expect(verifyIdBlock(signed, { digest, policy: 0x30000n }, nodeCrypto).ok).toBe(true);
  });

  it('the same keys and block give the same bytes', () => {
    const again = signIdBlock(block, { idKey, authorKey }, nodeCrypto);
    expect(bytesToHex(again.auth)).toBe(bytesToHex(signed.auth));
  });

  it('a flipped bit in anything but unused room fails', () => {
    for (const table of [ID_BLOCK, ID_AUTH])
      for (const field of table.fields)
        for (const place of [0, 5, 71, 73, 145, 500]) {
          if (place >= field.size) continue;
          const changed = { ...signed, block: signed.block.slice(), auth: signed.auth.slice() };
          (table === ID_BLOCK ? changed.block : changed.auth)[field.offset + place]! ^= 4;
          expect([field.name, place, verifyIdBlock(changed, {}, nodeCrypto).ok]).toEqual([
            field.name,
            place,
            false,
          ]);
        }
  });

  it('names what does not fit', () => {
    const wrong = (expected: object) => failures(verifyIdBlock(signed, expected, nodeCrypto));
    const { idKeyDigest, authorKeyDigest } = verifyIdBlock(signed, {}, nodeCrypto);
    expect(wrong({ digest, policy: 0x30000n, idKeyDigest, authorKeyDigest })).toEqual([]);
    expect(wrong({ digest: new Uint8Array(48) })).toEqual(['launch-digest']);
    expect(wrong({ policy: 0x20000n })).toEqual(['policy']);
    expect(wrong({ idKeyDigest: authorKeyDigest })).toEqual(['id-key-digest']);
    expect(wrong({ authorKeyDigest: idKeyDigest })).toEqual(['author-key-digest']);
    const noBit17 = signIdBlock({ ...block, policy: 0x10000n }, { idKey }, nodeCrypto);
    expect(failures(verifyIdBlock(noBit17, {}, nodeCrypto))).toEqual(['policy-form']);
    const version2 = signIdBlock({ ...block, version: 2 }, { idKey }, nodeCrypto);
    expect(failures(verifyIdBlock(version2, {}, nodeCrypto))).toEqual(['id-block-version']);
  });

  it('without an author, his fields are zero and his digest too', () => {
    const alone = signIdBlock(block, { idKey }, nodeCrypto);
    expect(alone.auth.slice(0x680).every((byte) => byte === 0)).toBe(true);
    expect(alone.auth.slice(4, 8)).toEqual(new Uint8Array(4));
    const verdict = verifyIdBlock(alone, {}, nodeCrypto);
    expect(verdict.ok).toBe(true);
    expect(bytesToHex(verdict.authorKeyDigest)).toBe('00'.repeat(48));
  });

  it('takes what an HSM signed', () => {
    const bytes = encodeIdBlock(block);
    const der = (key: typeof id.node, message: Uint8Array) =>
      readP384Signature(new Uint8Array(sign('sha384', message, key)));
    const parts = {
      idKey: idKey.publicKey,
      idSignature: der(id.node, bytes),
      authorKey: authorKey.publicKey,
      authorSignature: der(author.node, signedIdKey(idKey.publicKey)),
    };
    expect(verifyIdBlock(assembleIdBlock(bytes, parts), { digest }, nodeCrypto).ok).toBe(true);
    expect(() => assembleIdBlock(bytes, { ...parts, authorKey: undefined })).toThrow(/belong together/);
  });
});

describe('keys', () => {
  it('SEC 1 and PKCS #8, PEM and DER, give the same key', () => {
    for (const [type, format] of [
      ['sec1', 'pem'],
      ['sec1', 'der'],
      ['pkcs8', 'pem'],
      ['pkcs8', 'der'],
    ] as const) {
      const file = id.node.export({ type, format } as { type: 'sec1'; format: 'pem' }) as string | Buffer;
      const bytes = typeof file === 'string' ? text(file) : new Uint8Array(file);
      expect(bytesToHex(readP384PrivateKey(bytes, nodeCrypto).scalar)).toBe(bytesToHex(idKey.scalar));
    }
    // openssl ecparam -genkey writes the parameters first.
    const sec1 = id.node.export({ type: 'sec1', format: 'pem' }) as string;
    const withParameters = `-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n${sec1}`;
    expect(readP384PrivateKey(text(withParameters), nodeCrypto).scalar).toEqual(idKey.scalar);
    const spki = createPublicKey(id.node).export({ type: 'spki', format: 'pem' }) as string;
    expect(readP384PublicKey(text(spki), nodeCrypto)).toEqual(idKey.publicKey);
    expect(readP384PublicKey(id.pem, nodeCrypto)).toEqual(idKey.publicKey);
  });

  it('other keys are refused with the reason', () => {
    const refused = (bytes: Uint8Array, reason: RegExp): void =>
      expect(() => readP384PrivateKey(bytes, nodeCrypto)).toThrow(reason);
    const pem = (pair: { privateKey: ReturnType<typeof createPrivateKey> }, extra: object = {}) =>
      text(pair.privateKey.export({ type: 'pkcs8', format: 'pem', ...extra }) as string);
    refused(pem(generateKeyPairSync('ec', { namedCurve: 'P-256' })), /curve P-256/);
    refused(pem(generateKeyPairSync('ed25519')), /no elliptic-curve key/);
    refused(pem({ privateKey: id.node }, { cipher: 'aes-256-cbc', passphrase: 'x' }), /encrypted/);
    refused(text('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n'), /no private key/);
    refused(text('-----BEGIN PRIVATE KEY-----\nAAAA\n'), /no end/);
    refused(text('hello'), /private key/);
    // The public half of another key.
    const der = new Uint8Array(id.node.export({ type: 'sec1', format: 'der' }));
    der.set(authorKey.publicKey, der.length - 97);
    refused(der, /that of another/);
  });
});

describe('in IGVM files', () => {
  const MASK = 1;
  const image = (version: 1 | 2, policy = 0x30000n): IgvmFile =>
    parseIgvm(
      new IgvmBuilder({ version })
        .platform('SEV_SNP', MASK)
        .guestPolicy(policy, MASK)
        .page(0x1000n, MASK, text('page'))
        .build(),
    );
  const sealed = (file: IgvmFile, keys: Parameters<typeof signIdBlock>[1]): SignedIdBlock =>
    signIdBlock(
      makeIdBlock({ digest: measureIgvm(file, {}, nodeCrypto).digest, policy: 0x30000n }),
      keys,
      nodeCrypto,
    );

  it.each([1, 2] as const)('version %i: embedded, read back, verified; the digest stays', (version) => {
    const file = image(version);
    const signed = sealed(file, { idKey, authorKey });
    const after = parseIgvm(embedIdBlock(file, signed));
    expect(after.header.version).toBe(version);
    expect(after.diagnostics).toEqual([]);
    const found = idBlocksOf(after, MASK);
    expect(found).toHaveLength(1);
    expect(bytesToHex(found[0]!.signed.block)).toBe(bytesToHex(signed.block));
    expect(bytesToHex(found[0]!.signed.auth)).toBe(bytesToHex(signed.auth));
    const digest = measureIgvm(after, {}, nodeCrypto).digest;
    expect(bytesToHex(digest)).toBe(bytesToHex(measureIgvm(file, {}, nodeCrypto).digest));
    expect(verifyEmbeddedIdBlock(found, { digest, policy: 0x30000n }, nodeCrypto)).toMatchObject({
      ok: true,
    });
    // igvm_defs: the key in the file has one u32 more, behind the curve.
    const rows = new Map(headerFields(found[0]!.header).map((row) => [row.field.name, row]));
    expect(rows.get('idPublicKeyQx')!.offset - rows.get('idPublicKeyCurve')!.offset).toBe(8);
  });

  it('replaces in place, refuses a second one, and without the block the file is what it was', () => {
    const file = image(2);
    const once = parseIgvm(embedIdBlock(file, sealed(file, { idKey, authorKey })));
    const other = sealed(file, { idKey: authorKey });
    expect(() => embedIdBlock(once, other)).toThrow(expect.objectContaining({ code: 'id-block-exists' }));
    const twice = parseIgvm(embedIdBlock(once, other, { replace: true }));
    const [found] = idBlocksOf(twice, MASK);
    expect(twice.headers).toHaveLength(once.headers.length);
    expect(twice.bytes.length).toBe(once.bytes.length);
    expect(bytesToHex(found!.signed.auth)).toBe(bytesToHex(other.auth));
    expect(verifyEmbeddedIdBlock([found!], {}, nodeCrypto)?.ok).toBe(true);
  });

  it('is lossless on random files: only the header comes in, and offsets move with it', () => {
    let embedded = 0;
    for (let n = 0; n < 300; n++) {
      const file = parseIgvm(randomFile(n));
      const snp = file.headers.find(
        (header) => header.type === 'SUPPORTED_PLATFORM' && header.platformType === 2,
      );
      const had = file.headers.some(({ type }) => type === 'SNP_ID_BLOCK');
      if (snp?.type !== 'SUPPORTED_PLATFORM' || had) continue;
      const mask = snp.compatibilityMask;
      const policy =
        file.headers.flatMap((header) =>
          header.type === 'GUEST_POLICY' && header.compatibilityMask & mask ? [header.policy] : [],
        )[0] ?? 0n;
      const signed = signIdBlock(makeIdBlock({ digest, policy }), { idKey }, nodeCrypto);
      const after = parseIgvm(embedIdBlock(file, signed, { compatibilityMask: mask }));
      expect(after.headers).toHaveLength(file.headers.length + 1);
      for (const [index, header] of file.headers.entries()) {
        const now = after.headers[index]!;
        expect(now.type).toBe(header.type);
        if (header.data)
          expect(
            Buffer.compare(
              after.bytes.subarray(now.data!.fileOffset, now.data!.fileOffset + now.data!.length),
              file.bytes.subarray(header.data.fileOffset, header.data.fileOffset + header.data.length),
            ),
          ).toBe(0);
      }
      embedded++;
    }
    expect(embedded).toBeGreaterThan(20);
  });

  it('the policy signed must be the one of the file', () => {
    const file = image(1, 0x20000n);
    expect(() => embedIdBlock(file, sealed(file, { idKey }))).toThrow(
      expect.objectContaining({ code: 'id-block-policy' }),
    );
  });

  it("what QEMU makes of the author's flag, and two blocks", () => {
    const file = image(1);
    const once = parseIgvm(embedIdBlock(file, sealed(file, { idKey, authorKey })));
    const found = idBlocksOf(once, MASK);
    const flag = verifyEmbeddedIdBlock([{ ...found[0]!, authorKeyFlag: 0 }], {}, nodeCrypto)!;
    expect(flag.checks.find(({ name }) => name === 'author-key-flag')?.result).toBe('warning');
    expect(flag.ok).toBe(true);
    expect(failures(verifyEmbeddedIdBlock([found[0]!, found[0]!], {}, nodeCrypto)!)).toEqual([
      'id-block-single',
    ]);
    expect(verifyEmbeddedIdBlock([], {}, nodeCrypto)).toBeUndefined();
    const auth = found[0]!.signed.auth;
    expect(keyDigest(auth.slice(0x240, 0x240 + 1028), nodeCrypto)).toEqual(
      verifyIdBlock(found[0]!.signed, {}, nodeCrypto).idKeyDigest,
    );
  });

  it('reserved room that the header lacks is refused', () => {
    const file = image(1);
    const signed = sealed(file, { idKey });
    const random = new Random(3);
    for (const name of ['RESERVED_008', 'RESERVED_644', 'RESERVED_C84']) {
      const auth = signed.auth.slice();
      const { offset, size } = ID_AUTH.field(name);
      auth[offset + random.below(size)] = 1;
      expect(() => embedIdBlock(file, { ...signed, auth })).toThrow(
        expect.objectContaining({ code: 'id-block-field' }),
      );
    }
  });
});
