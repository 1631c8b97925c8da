/** Attestation reports of real machines against AMD's certificates, and what must not verify. */
import { X509Certificate } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { CvmError, bytesToHex } from '../../src/base/index.ts';
import type { Crypto } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { portableSignatures } from '../../src/base/signatures.ts';
import {
  compareReport,
  decodeTcb,
  isEndorsementKey,
  parseReport,
  readCertificate,
  readEndorsementKey,
  readReportFile,
  reportTable,
  toBase64,
  verifyChain,
  verifyReport,
} from '../../src/measure/attestation.ts';
import type { Certificate, Verdict } from '../../src/measure/attestation.ts';
import { REPORTS, certificates, fixture, haveFixtures } from './reports.ts';

const AT = '2025-06-01T00:00:00Z';
const portable: Crypto = { ...nodeCrypto, signatures: portableSignatures };
const failures = (verdict: Verdict): string[] =>
  verdict.checks.filter(({ result }) => result === 'fail').map(({ name }) => name);

function load(report: string, key: string, chain: string) {
  const leaf = certificates(key).find(isEndorsementKey)!;
  return { file: readReportFile(fixture(report)), certificates: { leaf, issuers: certificates(chain) } };
}

describe.runIf(haveFixtures)('reports of real machines', () => {
  it.each(REPORTS)('%s verifies', (report, key, chain) => {
    const { file, certificates } = load(report, key, chain);
    expect(failures(verifyReport(file, certificates, { at: AT }, nodeCrypto))).toEqual([]);
    expect(failures(verifyReport(file, certificates, { at: AT }, portable))).toEqual([]);
    expect(file.report.diagnostics).toEqual([]);
  });

  it.each(REPORTS)('%s: a flipped bit in any field fails', (report, key, chain) => {
    const { file, certificates } = load(report, key, chain);
    const table = reportTable(file.report.version);
    for (const field of table.fields) {
      const bytes = file.report.bytes.slice();
      // Of the signature, a byte of R, of S and of the reserved rest.
      const places = field.name === 'SIGNATURE' ? [field.offset, 0x2a0 + 72, 0x2a0 + 200] : [field.offset];
      for (const place of places) {
        bytes[place]! ^= 0x10;
        const changed = { ...file, report: parseReport(bytes) };
        const { ok, checks } = verifyReport(changed, certificates, { at: AT }, nodeCrypto);
        expect([field.name, ok]).toEqual([field.name, false]);
        expect(checks.find(({ name }) => name === 'report-signature')?.result).toBe('fail');
        bytes[place]! ^= 0x10;
      }
    }
  });

  it('no report verifies with the key of another', () => {
    for (const [report, key, chain] of REPORTS)
      for (const [other] of REPORTS)
        if (other !== report) {
          const { certificates } = load(report, key, chain);
          const file = readReportFile(fixture(other));
          expect(failures(verifyReport(file, certificates, { at: AT }, nodeCrypto))).toContain(
            'report-signature',
          );
        }
  });

  it.each(['trustee-vcek-invalid-legacy.der', 'trustee-vcek-invalid-new.der'])('%s fails', (name) => {
    const [leaf] = certificates(name) as [Certificate];
    const chain = verifyChain(leaf, certificates('chain-milan.pem'), { at: AT }, nodeCrypto);
    expect(failures(chain)).toEqual(['chain-leaf']);
    const file = readReportFile(fixture('trustee-vcek-report.bin'));
    const issuers = certificates('chain-milan.pem');
    expect(verifyReport(file, { leaf, issuers }, { at: AT }, nodeCrypto).ok).toBe(false);
  });

  it("Turin's VCEK: extensions, chain and layout of the TCB", () => {
    const [leaf] = certificates('virtee-turin-vcek.der') as [Certificate];
    const key = readEndorsementKey(leaf);
    expect(key).toMatchObject({ kind: 'VCEK', product: 'Turin', tcb: { fmc: 0, microcode: 9 } });
    expect(key.hardwareId).toHaveLength(8);
    expect(failures(verifyChain(leaf, certificates('chain-turin.pem'), { at: AT }, nodeCrypto))).toEqual([]);
    // Another product's authorities did not sign it.
    expect(failures(verifyChain(leaf, certificates('chain-milan.pem'), { at: AT }, nodeCrypto))).toContain(
      'chain-leaf',
    );
  });

  it('certificates expire, must be given, must come from AMD', () => {
    const { file, certificates: given } = load(...REPORTS[3]);
    const verdict = (options: object, issuers = given.issuers) =>
      failures(verifyReport(file, { ...given, issuers }, options, nodeCrypto));
    expect(verdict({ at: '2026-11-21T00:00:00Z' })).toEqual(['chain-validity']);
    expect(verdict({ at: '2024-01-01T00:00:00Z' })).toEqual(['chain-validity']);
    expect(verdict({})).toEqual([]);
    expect(verdict({}, [])).toEqual(['chain-leaf', 'chain']);
    expect(verdict({}, given.issuers.slice(0, 1))).toContain('chain-signer');
    const [asvk, ark] = given.issuers as [Certificate, Certificate];
    const otherRoot = { ...ark, publicKeyInfo: ark.publicKeyInfo.slice().fill(0, 100, 101) };
    expect(verdict({}, [asvk, otherRoot])).toEqual(['chain-root-key']);
    expect(verdict({ anyRoot: true }, [asvk, otherRoot])).toEqual([]);
    expect(verdict({}, [{ ...asvk, isAuthority: false }, ark])).toEqual(['chain-authority']);
    expect(verdict({}, [{ ...asvk, unknownCritical: ['1.2.3'] }, ark])).toEqual(['chain-critical']);
  });

  it('a VCEK of another TCB, chip, product or kind is refused even if it signed', () => {
    const { file, certificates: given } = load(...REPORTS[0]);
    const changed = (extension: string, value: number[]) => {
      const extensions = new Map(given.leaf.extensions);
      extensions.set(`1.3.6.1.4.1.3704.1.${extension}`, Uint8Array.from(value));
      const leaf = { ...given.leaf, extensions };
      return failures(verifyReport(file, { ...given, leaf }, { at: AT }, nodeCrypto));
    };
    for (const level of ['3.1', '3.2', '3.3', '3.8']) expect(changed(level, [2, 1, 99])).toEqual(['tcb']);
    expect(changed('4', new Array<number>(64).fill(1))).toEqual(['chip-id']);
    expect(changed('2', [0x16, 5, ...Buffer.from('Genoa')])).toEqual(['chain-product']);
    expect(changed('2', [0x16, 4, ...Buffer.from('Rome')])).toEqual(['product']);
    const vlek = { ...given.leaf, subjectName: 'SEV-VLEK' };
    expect(failures(verifyReport(file, { ...given, leaf: vlek }, { at: AT }, nodeCrypto))).toEqual([
      'signing-key',
    ]);
  });

  it('certificates read as node:crypto reads them', () => {
    const names = [...new Set(REPORTS.flatMap(([, key, chain]) => [key, chain]))];
    for (const certificate of certificates(...names, 'virtee-turin-vcek.der', 'chain-turin.pem')) {
      const peer = new X509Certificate(certificate.bytes);
      expect(new Date(peer.validFrom).toISOString()).toBe(certificate.notBefore.replace('Z', '.000Z'));
      expect(new Date(peer.validTo).toISOString()).toBe(certificate.notAfter.replace('Z', '.000Z'));
      expect(peer.subject).toContain(`CN=${certificate.subjectName}`);
      expect(peer.issuer).toContain(`CN=${certificate.issuerName}`);
      expect(peer.ca).toBe(certificate.isAuthority ?? false);
      const spki = new Uint8Array(peer.publicKey.export({ type: 'spki', format: 'der' }));
      expect(bytesToHex(spki)).toBe(bytesToHex(certificate.publicKeyInfo));
    }
  });

  it("Azure's container: the runtime data is what the report vouches for", () => {
    const bytes = fixture('azure-hcl-report.bin');
    const { file, certificates } = load(...REPORTS[4]);
    const { azure } = file;
    expect(JSON.parse(new TextDecoder().decode(azure!.data))).toHaveProperty('keys');
    const changed = bytes.slice();
    changed[azure!.fileOffset + 20]! ^= 1;
    expect(failures(verifyReport(readReportFile(changed), certificates, { at: AT }, nodeCrypto))).toEqual([
      'azure-data',
    ]);
  });

  it('the same report in every container', () => {
    const raw = fixture('go-sev-guest-report.bin');
    const expected = parseReport(raw);
    const text = (value: string): Uint8Array => new TextEncoder().encode(value);
    const response = new Uint8Array(0x20 + 1184 + 64);
    new DataView(response.buffer).setUint32(4, 1184, true);
    response.set(raw, 0x20);
    // One certificate in the table of the extended guest request.
    const vcek = fixture('go-sev-guest-vcek.der');
    const extended = new Uint8Array(1184 + 48 + vcek.length + 100);
    extended.set(raw);
    extended.set(Buffer.from('63da758de6644564adc5f4b93be8accd', 'hex'), 1184);
    new DataView(extended.buffer).setUint32(1184 + 16, 48, true);
    new DataView(extended.buffer).setUint32(1184 + 20, vcek.length, true);
    extended.set(vcek, 1184 + 48);
    for (const [container, bytes] of [
      ['raw', raw],
      ['hex', text(`${bytesToHex(raw).replace(/(.{64})/g, '$1\n')}\n`)],
      ['base64', text(toBase64(raw))],
      ['response', response],
      ['extended', extended],
    ] as const) {
      const file = readReportFile(bytes);
      expect(file.container).toBe(container);
      expect(bytesToHex(file.report.bytes)).toBe(bytesToHex(expected.bytes));
    }
    expect(bytesToHex(readReportFile(extended).certificates[0]!)).toBe(bytesToHex(vcek));
  });
});

describe('the report by its versions', () => {
  const report = (version: number, fill: (view: DataView) => void = () => {}): Uint8Array => {
    const bytes = new Uint8Array(1184);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, version, true);
    fill(view);
    return bytes;
  };

  it('version 2 has no CPUID; 3 and 4 have; 5 has the mitigations', () => {
    const fill = (view: DataView): void => {
      view.setUint8(0x188, 0x1a);
      view.setUint8(0x189, 0x02);
      view.setUint8(0x18a, 0x01);
      view.setBigUint64(0x1f8, 0x11n, true);
      view.setBigUint64(0x200, 0x22n, true);
    };
    const two = parseReport(report(2, fill));
    expect(two.cpuid).toBeUndefined();
    expect(two.diagnostics.map(({ offset }) => offset)).toEqual(
      [0x188, 0x1f8].sort((a, b) => b - a).reverse(),
    );
    for (const version of [3, 4]) {
      const three = parseReport(report(version, fill));
      expect(three.cpuid).toEqual({ family: 0x1a, model: 2, stepping: 1 });
      expect(three.product).toBe('Turin');
      expect(three.launchMitigations).toBeUndefined();
      expect(three.diagnostics.map(({ offset }) => offset)).toEqual([0x1f8]);
    }
    const five = parseReport(report(5, fill));
    expect([five.launchMitigations, five.currentMitigations]).toEqual([0x11n, 0x22n]);
    expect(five.diagnostics).toEqual([]);
    expect(parseReport(report(6, fill)).diagnostics.map(({ code }) => code)).toEqual(['report-version']);
  });

  it('processors by CPUID', () => {
    const product = (family: number, model: number) =>
      parseReport(
        report(3, (view) => {
          view.setUint8(0x188, family);
          view.setUint8(0x189, model);
        }),
      ).product;
    expect(product(0x19, 0x01)).toBe('Milan');
    expect(product(0x19, 0x11)).toBe('Genoa');
    expect(product(0x19, 0xa0)).toBe('Genoa');
    expect(product(0x1a, 0x02)).toBe('Turin');
    expect(product(0x17, 0x31)).toBeUndefined();
  });

  it('TCB_VERSION of Milan and of Turin', () => {
    expect(decodeTcb(0x73_08_00_00_00_00_00_03n, 'Milan')).toEqual({
      fmc: undefined,
      bootLoader: 3,
      tee: 0,
      snp: 8,
      microcode: 0x73,
      reservedSet: false,
    });
    expect(decodeTcb(0x44_00_00_00_04_03_02_01n, 'Turin')).toEqual({
      fmc: 1,
      bootLoader: 2,
      tee: 3,
      snp: 4,
      microcode: 0x44,
      reservedSet: false,
    });
    expect(decodeTcb(0x44_00_00_00_04_03_02_01n, 'Milan').reservedSet).toBe(true);
  });

  it('KEY_INFO', () => {
    const keyInfo = (value: number) => parseReport(report(3, (view) => view.setUint32(0x48, value, true)));
    expect(keyInfo(0)).toMatchObject({ signingKey: 'VCEK', authorKeyEnabled: false, maskChipKey: false });
    expect(keyInfo(0b00101)).toMatchObject({ signingKey: 'VLEK', authorKeyEnabled: true });
    expect(keyInfo(0b11110)).toMatchObject({ signingKey: 'none', maskChipKey: true });
    expect(keyInfo(0b01000)).toMatchObject({ signingKey: 'reserved' });
  });

  it('what is compared, and nothing else', () => {
    const bytes = report(3, (view) => {
      view.setBigUint64(8, 0x30000n, true);
      view.setUint32(4, 7, true);
      view.setUint8(0x90, 0xaa);
    });
    const is = parseReport(bytes);
    const { measurement } = is;
    expect(compareReport(is, {}).checks).toEqual([]);
    expect(compareReport(is, { measurement, policy: 0x30000n, guestSvn: 7, vmpl: 0 }).ok).toBe(true);
    for (const wrong of [
      { measurement: new Uint8Array(48) },
      { policy: 0x20000n },
      { guestSvn: 8 },
      { vmpl: 1 },
      { idKeyDigest: new Uint8Array(48).fill(1) },
      { authorKeyDigest: new Uint8Array(48).fill(1) },
      { hostData: new Uint8Array(32).fill(1) },
      { reportData: new Uint8Array(64).fill(1) },
      { familyId: new Uint8Array(16).fill(1) },
      { imageId: new Uint8Array(16).fill(1) },
    ])
      expect(compareReport(is, { policy: 0x30000n, ...wrong }).ok).toBe(false);
  });

  it('what is no report is refused with a place', () => {
    const refused = (bytes: Uint8Array, code: string): void => {
      let error: unknown;
      try {
        readReportFile(bytes);
      } catch (caught) {
        error = caught;
      }
      expect(error).toBeInstanceOf(CvmError);
      expect((error as CvmError).code).toBe(code);
    };
    refused(new Uint8Array(), 'report-truncated');
    refused(report(2).subarray(1), 'report-truncated');
    refused(report(1), 'report-version');
    refused(Uint8Array.from([...report(2), 1, 2, 3]), 'report-unknown');
    refused(new Uint8Array((1 << 20) + 1), 'report-unknown');
    expect(() => readCertificate(new Uint8Array(10))).toThrow(CvmError);
  });
});
