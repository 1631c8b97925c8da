/**
 * Attestation's peers: the `sev` crate and `go-sev-guest` verify reports and ID blocks, the `igvm` and `corim` crates
 * make and judge CoRIM documents. Runs when `CVM_PEERS` names a folder with their programs (scripts/peers.sh).
 */
import { execFileSync } from 'node:child_process';
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bytesToHex, hexToBytes } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import type { PlatformType } from '../../src/igvm/index.ts';
import {
  embedCorim,
  isEndorsementKey,
  makeIdBlock,
  measureIgvm,
  readP384PrivateKey,
  readReportFile,
  signCorim,
  signIdBlock,
  verifyIdBlock,
  verifyReport,
  writeLaunchMeasurement,
} from '../../src/measure/index.ts';
import type { Certificate } from '../../src/measure/index.ts';
import { Random } from '../igvm/random.ts';
import { REPORTS, certificates, haveFixtures } from '../measure/reports.ts';
import { fixture } from '../measure/reports.ts';

const folder = process.env['CVM_PEERS'] ?? '';
const program = (name: string): string => (folder ? join(folder, name) : '');
const [sev, go, corim] = [program('sev-peer'), program('go-sev-guest-peer'), program('corim-peer')];
const call = (peer: string, ...args: string[]): string =>
  execFileSync(peer, args, { stdio: 'pipe', timeout: 60_000 }).toString().trim();

const AT = '2025-06-01T00:00:00Z';
let scratch = '';
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'attestation-peer-'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const save = (name: string, bytes: Uint8Array | string): string => {
  const path = join(scratch, name);
  writeFileSync(path, bytes);
  return path;
};
const pem = ({ bytes }: Certificate): string =>
  `-----BEGIN CERTIFICATE-----\n${Buffer.from(bytes).toString('base64')}\n-----END CERTIFICATE-----\n`;

/** A report with its certificates as both peers take them: ASK or ASVK first, then ARK. */
function load([name, key, chain]: readonly [string, string, string]) {
  const file = readReportFile(fixture(name));
  const leaf = certificates(key).find(isEndorsementKey)!;
  const issuers = certificates(chain)
    .filter((one) => !isEndorsementKey(one))
    .sort((a, b) => Number(a.subjectName.startsWith('ARK')) - Number(b.subjectName.startsWith('ARK')));
  return { file, leaf, issuers };
}

const reportPeers = [
  ['the sev crate', sev, (report: string, leaf: string, chain: string) => ['report', report, leaf, chain]],
  ['go-sev-guest', go, (report: string, leaf: string, chain: string) => ['report', report, leaf, chain, AT]],
] as const;

for (const [name, peer, args] of reportPeers)
  describe.runIf(existsSync(peer) && haveFixtures)(`${name}, reports`, () => {
    it.each(REPORTS)('%s: verified there and here', (...which) => {
      const { file, leaf, issuers } = load(which);
      const { report } = file;
      const judge = (bytes: Uint8Array): string =>
        call(
          peer,
          ...args(
            save('report.bin', bytes),
            save('leaf.der', leaf.bytes),
            save('chain.pem', issuers.map(pem).join('')),
          ),
        );
      expect(judge(report.bytes)).toBe(
        `ok ${bytesToHex(report.measurement)} ${report.policy.toString(16)} ${report.version}`,
      );
      const random = new Random(which[0].length);
      // A bit anywhere in what is signed, or in the signature's numbers: refused by both.
      for (let n = 0; n < 12; n++) {
        const bytes = report.bytes.slice();
        const at = random.pick([
          random.below(0x2a0 - 4) + 4,
          0x2a0 + random.below(48),
          0x2e8 + random.below(48),
        ]);
        bytes[at]! ^= 1 << random.below(8);
        expect([at, judge(bytes).startsWith('bad')]).toEqual([at, true]);
        const changed = readReportFile(bytes);
        const verdict = verifyReport(changed, { leaf, issuers }, { at: AT }, nodeCrypto);
        expect([at, verdict.ok]).toEqual([at, false]);
      }
    });
  });

const newKey = () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const text = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string;
  const publicPem = createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }) as string;
  return { text, publicPem, key: readP384PrivateKey(new TextEncoder().encode(text), nodeCrypto) };
};

describe.runIf(existsSync(sev))('the sev crate, ID blocks', () => {
  it('its blocks are ours but for the nonces, and verify here; ours verify there', () => {
    const random = new Random(41);
    for (let n = 0; n < 25; n++) {
      const [id, author] = [newKey(), newKey()];
      const block = makeIdBlock({
        digest: random.bytes(48),
        familyId: random.bytes(16),
        imageId: random.bytes(16),
        guestSvn: random.below(0x7fff_ffff),
        policy: BigInt(0x20000 + random.below(0x1_0000)),
      });
      const ours = signIdBlock(block, { idKey: id.key, authorKey: author.key }, nodeCrypto);
      const lines = call(
        sev,
        'id-block',
        save('id.pem', id.text),
        save('author.pem', author.text),
        bytesToHex(block.digest),
        bytesToHex(block.familyId),
        bytesToHex(block.imageId),
        String(block.guestSvn),
        String(block.policy),
      ).split('\n');
      const [theirBlock, theirAuth] = [hexToBytes(lines[0]!), hexToBytes(lines[1]!)];
      expect(bytesToHex(ours.block)).toBe(lines[0]);
      const verdict = verifyIdBlock(
        { block: theirBlock, auth: theirAuth, authorKeyEnabled: true },
        { digest: block.digest, policy: block.policy },
        nodeCrypto,
      );
      expect(verdict.checks.filter(({ result }) => result !== 'pass')).toEqual([]);
      expect([bytesToHex(verdict.idKeyDigest), bytesToHex(verdict.authorKeyDigest)]).toEqual(
        lines.slice(2, 4),
      );
      // All but the signatures is the same.
      const blank = (auth: Uint8Array): string => {
        const copy = auth.slice();
        for (const at of [0x40, 0x680]) copy.fill(0, at, at + 512);
        return bytesToHex(copy);
      };
      expect(blank(ours.auth)).toBe(blank(theirAuth));
      const judge = (auth: Uint8Array): string =>
        call(sev, 'id-auth', save('block.bin', ours.block), save('auth.bin', auth));
      expect(judge(ours.auth)).toBe('ok');
      const changed = ours.auth.slice();
      changed[random.pick([0x40, 0x88, 0x680, 0x6c8]) + random.below(48)]! ^= 1;
      expect(judge(changed)).toMatch(/^bad/);
    }
  });
});

describe.runIf(existsSync(go))('go-sev-guest, key digests', () => {
  it('are the ones of our ID blocks', () => {
    for (let n = 0; n < 10; n++) {
      const id = newKey();
      const block = makeIdBlock({ digest: new Uint8Array(48), policy: 0x30000n });
      const signed = signIdBlock(block, { idKey: id.key }, nodeCrypto);
      const { idKeyDigest } = verifyIdBlock(signed, {}, nodeCrypto);
      expect(call(go, 'key', save('public.pem', id.publicPem))).toBe(bytesToHex(idKeyDigest));
    }
  });
});

describe.runIf(existsSync(corim))('the igvm and corim crates, CoRIM documents', () => {
  const platforms = [
    ['snp', 'SEV_SNP'],
    ['tdx', 'TDX'],
    ['vbs', 'VSM_ISOLATION'],
  ] as const;
  it.each(platforms)('%s: the same bytes as the igvm crate writes', (name, platformType) => {
    const random = new Random(9);
    for (const svn of [0, 1, 23, 24, 255, 256, 65_536, 4_294_967_295]) {
      const builder = new IgvmBuilder().platform(platformType as PlatformType, 1);
      if (name === 'snp') builder.guestPolicy(0x30000n, 1);
      const bytes = builder.page(0x1000n, 1, random.bytes(100)).build();
      const file = parseIgvm(bytes);
      const { digest } = measureIgvm(file, { platformType }, nodeCrypto);
      const document = writeLaunchMeasurement(platformType, digest, BigInt(svn));
      expect(call(corim, 'make', save('file.igvm', bytes), name, String(svn))).toBe(bytesToHex(document));
      expect(call(corim, 'check', save('document.cbor', document))).toMatch(/^ok .*launch-measurement 1$/);
      const { key } = newKey();
      const signature = signCorim(document, key, 'somebody', nodeCrypto);
      expect(call(corim, 'signature', save('signature.cbor', signature))).toBe('ok Es384 true');
      const embedded = embedCorim(file, 1, document, signature);
      expect(call(corim, 'make', save('embedded.igvm', embedded), name, String(svn))).toBe(
        bytesToHex(document),
      );
    }
  });
});
