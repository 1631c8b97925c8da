/**
 * Guest messages: what a guest and the secure firmware tell each other behind the hypervisor's back (SEV-SNP
 * Firmware ABI, §7 "Guest Messages", §8.26 SNP_GUEST_REQUEST), sealed with a VMPCK.
 */
import { NotImplemented, readField, structure, writeField } from '../base/index.ts';
import { openAesGcm, sealAesGcm } from './aes-gcm.ts';

export const MESSAGE_HEADER = structure('SNP_GUEST_MESSAGE_HEADER', 0x60, [
  [0x00, 'AUTHTAG', 32],
  [0x20, 'MSG_SEQNO', 'u64'],
  [0x28, 'RESERVED_28', 8],
  [0x30, 'ALGO', 'u8'],
  [0x31, 'HDR_VERSION', 'u8'],
  [0x32, 'HDR_SIZE', 'u16'],
  [0x34, 'MSG_TYPE', 'u8'],
  [0x35, 'MSG_VERSION', 'u8'],
  [0x36, 'MSG_SIZE', 'u16'],
  [0x38, 'RESERVED_38', 4],
  [0x3c, 'MSG_VMPCK', 'u8'],
  [0x3d, 'RESERVED_3D', 35],
]);
export const MESSAGE_TYPE = {
  cpuidRequest: 1,
  keyRequest: 3,
  reportRequest: 5,
  reportResponse: 6,
  exportRequest: 7,
  importRequest: 9,
  absorbRequest: 11,
  vmrkRequest: 13,
  tscInfoRequest: 17,
} as const;

/** ATTESTATION_REPORT (Firmware ABI, table "ATTESTATION_REPORT Structure", version 3). */
export const ATTESTATION_REPORT = structure('ATTESTATION_REPORT', 0x4a0, [
  [0x000, 'VERSION', 'u32'],
  [0x004, 'GUEST_SVN', 'u32'],
  [0x008, 'POLICY', 'u64'],
  [0x010, 'FAMILY_ID', 16],
  [0x020, 'IMAGE_ID', 16],
  [0x030, 'VMPL', 'u32'],
  [0x034, 'SIGNATURE_ALGO', 'u32'],
  [0x038, 'CURRENT_TCB', 'u64'],
  [0x040, 'PLATFORM_INFO', 'u64'],
  [0x048, 'KEY_INFO', 'u32'],
  [0x04c, 'RESERVED_04C', 4],
  [0x050, 'REPORT_DATA', 64],
  [0x090, 'MEASUREMENT', 48],
  [0x0c0, 'HOST_DATA', 32],
  [0x0e0, 'ID_KEY_DIGEST', 48],
  [0x110, 'AUTHOR_KEY_DIGEST', 48],
  [0x140, 'REPORT_ID', 32],
  [0x160, 'REPORT_ID_MA', 32],
  [0x180, 'REPORTED_TCB', 'u64'],
  [0x188, 'CPUID_FAM_ID', 'u8'],
  [0x189, 'CPUID_MOD_ID', 'u8'],
  [0x18a, 'CPUID_STEP', 'u8'],
  [0x18b, 'RESERVED_18B', 21],
  [0x1a0, 'CHIP_ID', 64],
  [0x1e0, 'COMMITTED_TCB', 'u64'],
  [0x1e8, 'CURRENT_BUILD', 'u8'],
  [0x1e9, 'CURRENT_MINOR', 'u8'],
  [0x1ea, 'CURRENT_MAJOR', 'u8'],
  [0x1eb, 'RESERVED_1EB', 1],
  [0x1ec, 'COMMITTED_BUILD', 'u8'],
  [0x1ed, 'COMMITTED_MINOR', 'u8'],
  [0x1ee, 'COMMITTED_MAJOR', 'u8'],
  [0x1ef, 'RESERVED_1EF', 1],
  [0x1f0, 'LAUNCH_TCB', 'u64'],
  [0x1f8, 'RESERVED_1F8', 168],
  [0x2a0, 'SIGNATURE', 512],
]);

/** Firmware status codes (Firmware ABI, "Status Codes"; Linux include/uapi/linux/psp-sev.h). */
export const FIRMWARE_STATUS = {
  success: 0,
  badMeasurement: 11,
  invalidParam: 22,
  aeadOverflow: 0x1d,
} as const;

/** What the secure processor knows of the guest a message comes from. */
export interface MessageContext {
  readonly vmpcks: readonly Uint8Array[];
  /** The attestation report for a VMPL and 64 bytes of the guest's. */
  report(vmpl: number, reportData: Uint8Array): Uint8Array;
}

const ALGO_AES_256_GCM = 1n;
const PAYLOAD_LIMIT = 4096 - MESSAGE_HEADER.size;
const REPORT_REQUEST_SIZE = 96;
const REPORT_OFFSET = 0x20;

export class GuestMessages {
  readonly #context: MessageContext;
  /** Last sequence number of each VMPCK. */
  readonly #sequence = [0n, 0n, 0n, 0n];

  constructor(context: MessageContext) {
    this.#context = context;
  }

  /**
   * Answers one request page; the response is a page too. A status other than 0 means that nothing was answered
   * and the sequence number did not move.
   * @throws NotImplemented for a message type this firmware does not have.
   */
  request(page: Uint8Array): { readonly status: number; readonly response?: Uint8Array } {
    const get = (name: string): bigint => readField(page, MESSAGE_HEADER.field(name));
    const size = Number(get('MSG_SIZE'));
    const vmpck = Number(get('MSG_VMPCK'));
    const key = this.#context.vmpcks[vmpck];
    if (
      get('ALGO') !== ALGO_AES_256_GCM ||
      get('HDR_VERSION') !== 1n ||
      get('HDR_SIZE') !== BigInt(MESSAGE_HEADER.size) ||
      get('MSG_VERSION') !== 1n ||
      size > PAYLOAD_LIMIT ||
      key === undefined
    )
      return { status: FIRMWARE_STATUS.invalidParam };
    const sequence = get('MSG_SEQNO');
    if (sequence !== this.#sequence[vmpck]! + 1n) return { status: FIRMWARE_STATUS.aeadOverflow };
    const payload = page.subarray(MESSAGE_HEADER.size, MESSAGE_HEADER.size + size);
    const text = openAesGcm(key, ivOf(sequence), page.subarray(0x30, 0x60), payload, page.subarray(0, 16));
    if (!text) return { status: FIRMWARE_STATUS.badMeasurement };
    const type = Number(get('MSG_TYPE'));
    if (type !== MESSAGE_TYPE.reportRequest)
      throw new NotImplemented(`guest message type ${type} (${messageName(type)})`);
    const answer = this.#report(text, vmpck);
    // The response has the next number; the next request the one after.
    this.#sequence[vmpck] = sequence + 1n;
    return { status: FIRMWARE_STATUS.success, response: seal(key, sequence + 1n, type + 1, vmpck, answer) };
  }

  /** MSG_REPORT_REQ: 64 bytes of data, the VMPL, the key; MSG_REPORT_RSP: status, size, the report at 0x20. */
  #report(request: Uint8Array, vmpck: number): Uint8Array {
    const view = new DataView(request.buffer, request.byteOffset, request.byteLength);
    const vmpl = request.length === REPORT_REQUEST_SIZE ? view.getUint32(64, true) : -1;
    const refused = vmpl < vmpck || vmpl > 3 || request.subarray(72).some((byte) => byte !== 0);
    const response = new Uint8Array(REPORT_OFFSET + ATTESTATION_REPORT.size);
    const out = new DataView(response.buffer);
    if (refused) out.setUint32(0, FIRMWARE_STATUS.invalidParam, true);
    else {
      const report = this.#context.report(vmpl, request.slice(0, 64));
      out.setUint32(4, report.length, true);
      response.set(report, REPORT_OFFSET);
    }
    return response;
  }
}

/** The sequence number in little-endian order, 12 bytes. */
function ivOf(sequence: bigint): Uint8Array {
  const iv = new Uint8Array(12);
  new DataView(iv.buffer).setBigUint64(0, sequence, true);
  return iv;
}

/** A message page (also the guest's side of the protocol, for tests). */
export function seal(
  key: Uint8Array,
  sequence: bigint,
  type: number,
  vmpck: number,
  payload: Uint8Array,
): Uint8Array {
  const page = new Uint8Array(4096);
  const put = (name: string, value: bigint): void => writeField(page, MESSAGE_HEADER.field(name), value);
  put('MSG_SEQNO', sequence);
  put('ALGO', ALGO_AES_256_GCM);
  put('HDR_VERSION', 1n);
  put('HDR_SIZE', BigInt(MESSAGE_HEADER.size));
  put('MSG_TYPE', BigInt(type));
  put('MSG_VERSION', 1n);
  put('MSG_SIZE', BigInt(payload.length));
  put('MSG_VMPCK', BigInt(vmpck));
  const { text, tag } = sealAesGcm(key, ivOf(sequence), page.slice(0x30, 0x60), payload);
  page.set(tag);
  page.set(text, MESSAGE_HEADER.size);
  return page;
}

const messageName = (type: number): string =>
  Object.entries(MESSAGE_TYPE).find(([, value]) => value === type)?.[0] ?? 'reserved';
