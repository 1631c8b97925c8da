/** The measurements laid out by hand from the specifications, for comparing with the real ones. */
import { createHash } from 'node:crypto';

export const sha384 = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash('sha384');
  for (const part of parts) hash.update(part);
  return hash.digest();
};
export const sha256 = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};

export const page = (fill: number): Uint8Array => new Uint8Array(4096).fill(fill);

/** Types of SNP_LAUNCH_UPDATE. */
export const TYPE = { NORMAL: 1, VMSA: 2, ZERO: 3, UNMEASURED: 4, SECRETS: 5, CPUID: 6 } as const;

/** A page: type, address, contents (for NORMAL and VMSA). */
export type SlowPage = readonly [type: number, gpa: bigint, contents?: Uint8Array];

/** The SNP launch digest: SEV-SNP Firmware ABI, PAGE_INFO. */
export function slowLaunchDigest(pages: readonly SlowPage[]): string {
  let digest = Buffer.alloc(48);
  for (const [type, gpa, contents] of pages) {
    const info = Buffer.alloc(0x70);
    info.set(digest, 0);
    if (contents) info.set(sha384(contents), 0x30);
    info.writeUInt16LE(0x70, 0x60);
    info[0x62] = type;
    info.writeBigUInt64LE(gpa, 0x68);
    digest = Buffer.from(sha384(info));
  }
  return digest.toString('hex');
}

const tdxRecord = (name: string, gpa: bigint): Buffer => {
  const record = Buffer.alloc(128);
  record.write(name, 'latin1');
  record.writeBigUInt64LE(gpa, 16);
  return record;
};
/** What TDH.MEM.PAGE.ADD hashes. */
export const tdxAdd = (gpa: bigint): Buffer => tdxRecord('MEM.PAGE.ADD', gpa);
/** What sixteen TDH.MR.EXTEND of a page hash. */
export const tdxExtend = (gpa: bigint, contents: Uint8Array): Buffer =>
  Buffer.concat(
    Array.from({ length: 16 }, (_, i) =>
      Buffer.concat([
        tdxRecord('MR.EXTEND', gpa + BigInt(256 * i)),
        contents.subarray(256 * i, 256 * (i + 1)),
      ]),
    ),
  );
