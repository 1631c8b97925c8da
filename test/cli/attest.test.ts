/** verify, id-block, report and corim, as programs. */
import { createPublicKey, generateKeyPairSync } from 'node:crypto';
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { IgvmBuilder } from '../../src/igvm/index.ts';
import { haveFixtures, fixturePath } from '../measure/reports.ts';
import { cvm } from './cvm.ts';

const folder = mkdtempSync(join(tmpdir(), 'cvm-attest-'));
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string): string => join(folder, name);
const newKey = (name: string): void => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  writeFileSync(at(`${name}.pem`), privateKey.export({ type: 'sec1', format: 'pem' }));
  writeFileSync(at(`${name}.pub`), createPublicKey(privateKey).export({ type: 'spki', format: 'pem' }));
};
newKey('id');
newKey('author');
const image = new IgvmBuilder({ version: 2 })
  .platform('SEV_SNP', 1)
  .guestPolicy(0x30000n, 1)
  .page(0x1000n, 1, Uint8Array.of(1, 2, 3));
writeFileSync(at('guest.igvm'), image.build());
const json = (text: string) => JSON.parse(text) as Record<string, unknown>;

describe('id-block', () => {
  it('embed, show, verify; a second one needs --replace; another image fails', async () => {
    const signed = at('signed.igvm');
    const keys = ['--id-key', at('id.pem'), '--author-key', at('author.pem')];
    const made = await cvm('id-block', 'embed', at('guest.igvm'), ...keys, '--svn', '4', '--output', signed);
    expect([made.code, made.stderr]).toEqual([0, '']);
    const shown = json((await cvm('id-block', 'show', signed, '--json')).stdout);
    expect(shown).toMatchObject({ guestSvn: 4, policy: '0x30000', authorKeyEnabled: true, version: 1 });
    const verified = await cvm('id-block', 'verify', signed, '--json');
    expect(verified.code).toBe(0);
    expect(json(verified.stdout)).toMatchObject({ ok: true, idKeyDigest: shown['idKeyDigest'] });
    expect((await cvm('verify', signed)).code).toBe(0);

    const again = await cvm('id-block', 'embed', signed, ...keys, '--output', at('x.igvm'));
    expect([again.code, again.stderr.includes('it can be replaced')]).toEqual([3, true]);
    expect(
      (await cvm('id-block', 'embed', signed, ...keys, '--replace', '--output', at('x.igvm'))).code,
    ).toBe(0);

    // The page changed after signing.
    const bytes = readFileSync(signed);
    bytes[bytes.length - 4096]! ^= 1;
    writeFileSync(at('changed.igvm'), bytes);
    const changed = await cvm('id-block', 'verify', at('changed.igvm'));
    expect(changed.code).toBe(1);
    expect(changed.stdout).toMatch(/^FAILED {2}launch-digest: the ID block is for launch digest/m);
  });

  it('create and sign as files; what they give verifies', async () => {
    const [block, auth] = [at('block.bin'), at('auth.bin')];
    expect((await cvm('id-block', 'create', at('guest.igvm'), '--output', block)).code).toBe(0);
    const signed = await cvm('id-block', 'sign', block, '--id-key', at('id.pem'), '--output', auth, '--json');
    expect(signed.code).toBe(0);
    expect(Buffer.from(json(signed.stdout)['id-block'] as string, 'base64')).toEqual(readFileSync(block));
    expect(readFileSync(auth)).toHaveLength(4096);
    const raw = ['--block', block, '--auth', auth];
    expect((await cvm('id-block', 'verify', ...raw, '--image', at('guest.igvm'))).code).toBe(0);
    expect((await cvm('id-block', 'verify', ...raw, '--digest', '00'.repeat(48))).code).toBe(1);
    expect((await cvm('verify', at('guest.igvm'), '--id-block', block, '--id-auth', auth)).code).toBe(0);
    expect((await cvm('id-block', 'embed', at('guest.igvm'), ...raw, '--output', at('y.igvm'))).code).toBe(0);
    expect((await cvm('verify', at('y.igvm'))).code).toBe(0);
  });

  it.each([
    [['id-block']],
    [['id-block', 'frobnicate']],
    [['id-block', 'create', 'x']],
    [['id-block', 'create', '--digest', 'abc', '--output', 'x']],
    [['id-block', 'sign', 'x']],
    [['id-block', 'verify', '--block', 'x']],
    [['report']],
    [['report', 'show']],
    [['report', 'verify', 'x', '--at', 'tomorrow']],
    [['corim', 'embed', 'x']],
    [['verify']],
    [['verify', 'x', '--id-auth', 'y']],
  ])('%j exits with 2 or names the missing file', async (args) => {
    const { code, stderr } = await cvm(...args);
    expect([2, 3]).toContain(code);
    expect(stderr).toMatch(/^cvm: /);
  });
});

describe('corim', () => {
  it('embed, show, verify', async () => {
    const endorsed = at('endorsed.igvm');
    const made = await cvm(
      'corim',
      'embed',
      at('guest.igvm'),
      '--svn',
      '7',
      '--key',
      at('id.pem'),
      '--output',
      endorsed,
    );
    expect([made.code, made.stderr]).toEqual([0, '']);
    expect(json((await cvm('corim', 'show', endorsed, '--json')).stdout)).toMatchObject({
      id: 'AMD/SEV-SNP/launch-measurement',
      signed: true,
    });
    expect((await cvm('corim', 'verify', endorsed, '--key', at('id.pub'))).code).toBe(0);
    expect((await cvm('verify', endorsed, '--corim-key', at('id.pub'))).code).toBe(0);
    expect((await cvm('corim', 'verify', endorsed, '--key', at('author.pub'))).code).toBe(1);
    const missing = await cvm('corim', 'show', at('guest.igvm'));
    expect([missing.code, missing.stderr.includes('no CoRIM document')]).toEqual([3, true]);
  });
});

describe('verify', () => {
  it('against a digest', async () => {
    const digest = (await cvm('measure', at('guest.igvm'))).stdout.trim();
    expect((await cvm('verify', at('guest.igvm'), '--digest', digest)).code).toBe(0);
    const other = await cvm('verify', at('guest.igvm'), '--digest', '11'.repeat(48), '--json');
    expect(other.code).toBe(1);
    expect(json(other.stdout)).toMatchObject({ ok: false, digest, policy: '0x30000' });
    const nothing = await cvm('verify', at('guest.igvm'));
    expect([nothing.code, nothing.stderr.includes('--digest')]).toEqual([3, true]);
  });
});

describe.runIf(haveFixtures)('report', () => {
  const name = fixturePath('trustee-vlek-report.bin');
  const certificates = ['trustee-vlek.der', 'go-sev-guest-chain-milan-vlek.pem'].flatMap((file) => [
    '--cert',
    fixturePath(file),
  ]);

  it('show, as text and as JSON', async () => {
    const { code, stdout } = await cvm('report', 'show', name);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^VMPL +1$/m);
    expect(json((await cvm('report', 'show', name, '--json')).stdout)).toMatchObject({
      version: 3,
      signingKey: 'VLEK',
      product: 'Milan',
    });
  });

  it('verify: dates, expectations, a changed report', async () => {
    const verify = (...more: string[]) => cvm('report', 'verify', name, ...certificates, ...more);
    expect((await verify('--at', '2025-06-01')).code).toBe(0);
    expect((await verify('--at', 'any', '--vmpl', '1')).code).toBe(0);
    expect((await verify('--at', '2030-01-01')).code).toBe(1);
    expect((await verify('--at', 'any', '--measurement', '00'.repeat(48))).code).toBe(1);
    copyFileSync(name, at('report.bin'));
    const bytes = readFileSync(at('report.bin'));
    bytes[0x90]! ^= 1;
    writeFileSync(at('report.bin'), bytes);
    const changed = await cvm('report', 'verify', at('report.bin'), ...certificates, '--at', 'any');
    expect(changed.code).toBe(1);
    expect(changed.stdout).toMatch(/^FAILED {2}report-signature/m);
    const missing = await cvm('report', 'verify', name);
    expect([missing.code, missing.stderr.includes('--cert FILE')]).toEqual([3, true]);
    // Against an image: another one was measured.
    const image = await cvm('verify', at('guest.igvm'), '--report', name, ...certificates, '--at', 'any');
    expect(image.code).toBe(1);
    expect(image.stdout).toMatch(/^FAILED {2}measurement/m);
  });
});
