/** Guest messages: the cipher against node:crypto, the protocol against the Firmware ABI. */
import { createCipheriv, createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { readField } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import {
  ATTESTATION_REPORT,
  GuestMessages,
  MESSAGE_HEADER,
  MESSAGE_TYPE,
  Rmp,
  SecureProcessor,
  openAesGcm,
  seal,
  sealAesGcm,
} from '../../src/snp/index.ts';

const bytes = (length: number, seed: number): Uint8Array =>
  new Uint8Array(
    createHash('shake256', { outputLength: Math.max(1, length) })
      .update(`${seed}`)
      .digest(),
  ).subarray(0, length);

describe('AES-256-GCM', () => {
  it.each([0, 1, 15, 16, 17, 64, 1216])('seals %i bytes as OpenSSL does, and opens them', (length) => {
    const [key, iv, aad, text] = [bytes(32, 1), bytes(12, 2), bytes(48, 3), bytes(length, 4)];
    const peer = createCipheriv('aes-256-gcm', key, iv).setAAD(aad);
    const expected = Buffer.concat([peer.update(text), peer.final()]);
    const sealed = sealAesGcm(key, iv, aad, text);
    expect(Buffer.from(sealed.text).toString('hex')).toBe(expected.toString('hex'));
    expect(Buffer.from(sealed.tag).toString('hex')).toBe(peer.getAuthTag().toString('hex'));
    expect(openAesGcm(key, iv, aad, sealed.text, sealed.tag)).toEqual(text);
  });
  it('opens nothing that was touched', () => {
    const [key, iv, aad] = [bytes(32, 1), bytes(12, 2), bytes(48, 3)];
    const { text, tag } = sealAesGcm(key, iv, aad, bytes(20, 9));
    const flipped = (value: Uint8Array): Uint8Array => value.map((byte, i) => (i === 3 ? byte ^ 1 : byte));
    expect(openAesGcm(key, iv, aad, flipped(text), tag)).toBeUndefined();
    expect(openAesGcm(key, iv, aad, text, flipped(tag))).toBeUndefined();
    expect(openAesGcm(key, iv, flipped(aad), text, tag)).toBeUndefined();
    expect(openAesGcm(key, flipped(iv), aad, text, tag)).toBeUndefined();
    expect(openAesGcm(key, iv, aad, text, tag.subarray(0, 12))).toBeUndefined();
  });
});

const KEYS = [1, 2, 3, 4].map((seed) => bytes(32, seed));
const messages = (): GuestMessages =>
  new GuestMessages({
    vmpcks: KEYS,
    report: (vmpl, data) =>
      Uint8Array.from([...data, ...new Uint8Array(ATTESTATION_REPORT.size - 64).fill(vmpl)]),
  });
function reportRequest(vmpl: number, data: Uint8Array = new Uint8Array(64)): Uint8Array {
  const request = new Uint8Array(96);
  request.set(data);
  new DataView(request.buffer).setUint32(64, vmpl, true);
  return request;
}
const open = (page: Uint8Array, key: Uint8Array): Uint8Array => {
  const sequence = readField(page, MESSAGE_HEADER.field('MSG_SEQNO'));
  const size = Number(readField(page, MESSAGE_HEADER.field('MSG_SIZE')));
  const iv = new Uint8Array(12);
  new DataView(iv.buffer).setBigUint64(0, sequence, true);
  return openAesGcm(
    key,
    iv,
    page.subarray(0x30, 0x60),
    page.subarray(0x60, 0x60 + size),
    page.subarray(0, 16),
  )!;
};

describe('SNP_GUEST_REQUEST', () => {
  it('answers a report request with type and sequence number one higher', () => {
    const data = bytes(64, 8);
    const { status, response } = messages().request(
      seal(KEYS[0]!, 1n, MESSAGE_TYPE.reportRequest, 0, reportRequest(2, data)),
    );
    expect(status).toBe(0);
    const get = (name: string): bigint => readField(response!, MESSAGE_HEADER.field(name));
    expect([get('MSG_TYPE'), get('MSG_SEQNO'), get('MSG_VMPCK')]).toEqual([6n, 2n, 0n]);
    const text = open(response!, KEYS[0]!);
    const view = new DataView(text.buffer, text.byteOffset);
    expect([view.getUint32(0, true), view.getUint32(4, true)]).toEqual([0, 0x4a0]);
    expect(text.subarray(0x20, 0x60)).toEqual(data);
  });
  it('wants the next sequence number of that VMPCK', () => {
    const service = messages();
    const ask = (vmpck: number, sequence: bigint): number =>
      service.request(seal(KEYS[vmpck]!, sequence, 5, vmpck, reportRequest(3))).status;
    expect([ask(0, 2n), ask(0, 1n), ask(0, 1n), ask(0, 2n), ask(0, 3n)]).toEqual([0x1d, 0, 0x1d, 0x1d, 0]);
    expect(ask(1, 1n)).toBe(0);
  });
  it('refuses a page sealed with another key, or with a header it does not know', () => {
    const page = seal(KEYS[1]!, 1n, 5, 0, reportRequest(0));
    expect(messages().request(page).status).toBe(11);
    for (const [offset, value] of [
      [0x30, 2],
      [0x31, 2],
      [0x32, 0x61],
      [0x35, 2],
      [0x37, 0x10],
      [0x3c, 4],
    ] as const) {
      const wrong = seal(KEYS[0]!, 1n, 5, 0, reportRequest(0));
      wrong[offset] = value;
      expect(messages().request(wrong).status, `offset ${offset}`).toBe(22);
    }
  });
  it.each([
    ['a more privileged VMPL', 1, reportRequest(0)],
    ['a VMPL that does not exist', 0, reportRequest(4)],
    ['a wrong size', 0, new Uint8Array(95)],
    ['reserved bytes', 0, reportRequest(0).fill(1, 90)],
  ] as const)('answers %s with a status', (_what, vmpck, payload) => {
    const { status, response } = messages().request(seal(KEYS[vmpck]!, 1n, 5, vmpck, payload));
    expect(status).toBe(0);
    const text = open(response!, KEYS[vmpck]!);
    expect(new DataView(text.buffer, text.byteOffset).getUint32(0, true)).toBe(22);
    expect(text.subarray(0x20).every((byte) => byte === 0)).toBe(true);
  });
  it('names the messages it lacks', () => {
    expect(() => messages().request(seal(KEYS[0]!, 1n, 3, 0, new Uint8Array(32)))).toThrow(/keyRequest/);
  });
});

describe('attestation report', () => {
  // Linux include/uapi/linux/sev-guest.h and go-sev-guest abi.go give these offsets.
  it.each([
    ['POLICY', 0x8],
    ['VMPL', 0x30],
    ['REPORT_DATA', 0x50],
    ['MEASUREMENT', 0x90],
    ['ID_KEY_DIGEST', 0xe0],
    ['REPORT_ID', 0x140],
    ['CHIP_ID', 0x1a0],
    ['LAUNCH_TCB', 0x1f0],
    ['SIGNATURE', 0x2a0],
  ] as const)('%s is at 0x%s', (name, offset) => expect(ATTESTATION_REPORT.field(name).offset).toBe(offset));

  it('says what was launched, and that nobody signed it', () => {
    const firmware = new SecureProcessor(
      { rmp: new Rmp(), crypto: nodeCrypto, privatePage: () => new Uint8Array(4096), cpuid: () => undefined },
      0n,
      0xa00f11,
    );
    expect(() => firmware.guestRequest(new Uint8Array(4096))).toThrow(/SNP_GUEST_REQUEST/);
    firmware.launchStart(0x3_0000n);
    firmware.launchUpdateVmsa(0xffff_ffff_f000, new Uint8Array(4096));
    const idKeyDigest = new Uint8Array(48).fill(7);
    const identity = { familyId: bytes(16, 1), imageId: bytes(16, 2), guestSvn: 5, idKeyDigest };
    firmware.launchFinish({ ...identity, digest: firmware.digest, policy: 0x3_0000n });
    const report = firmware.attestationReport(2, bytes(64, 3));
    const get = (name: string): bigint => readField(report, ATTESTATION_REPORT.field(name));
    const part = (name: string): Uint8Array => {
      const { offset, size } = ATTESTATION_REPORT.field(name);
      return report.slice(offset, offset + size);
    };
    expect([get('VERSION'), get('POLICY'), get('VMPL'), get('GUEST_SVN')]).toEqual([3n, 0x3_0000n, 2n, 5n]);
    expect(part('MEASUREMENT')).toEqual(firmware.digest);
    expect(part('REPORT_DATA')).toEqual(bytes(64, 3));
    expect(part('ID_KEY_DIGEST')).toEqual(idKeyDigest);
    expect([get('CPUID_FAM_ID'), get('CPUID_MOD_ID'), get('CPUID_STEP')]).toEqual([0x19n, 1n, 1n]);
    // MASK_CHIP_KEY set, SIGNING_KEY none.
    expect([get('KEY_INFO') & 2n, (get('KEY_INFO') >> 2n) & 7n, get('SIGNATURE_ALGO')]).toEqual([2n, 7n, 0n]);
    expect(part('SIGNATURE').every((byte) => byte === 0)).toBe(true);
  });
});
