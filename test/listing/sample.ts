/** An image with every kind of directive a listing shows, and the launch digest worked out by hand. */
import { createHash } from 'node:crypto';
import { IgvmBuilder } from '../../src/igvm/index.ts';

export const SNP = 1;
export const NATIVE = 2;

export const code = Uint8Array.from({ length: 3 * 4096 }, (_, i) => (i * 7 + (i >> 8)) & 0xff);

/** A save area with the fields a reader looks for first, at the offsets of APM volume 2, table B-4. */
export function vmsa(): Uint8Array {
  const bytes = new Uint8Array(4096);
  const view = new DataView(bytes.buffer);
  view.setUint16(0x10, 0x8, true); // cs.selector
  view.setUint16(0x12, 0xc9b, true); // cs.attributes: 32-bit code, granular
  view.setBigUint64(0x0d0, 0x1000n, true); // efer.SVME
  view.setBigUint64(0x158, 0x31n, true); // cr0: PE, ET, NE
  view.setBigUint64(0x178, 0xfff0_0000n, true); // rip
  view.setBigUint64(0x3b0, 0x1n, true); // sev_features.SNPActive
  return bytes;
}

export interface SampleOptions {
  /** Adds a page in the middle. */
  readonly extraPage?: boolean;
  /** Bytes to put over the code. */
  readonly patch?: (bytes: Uint8Array) => void;
}

export function sampleImage({ extraPage = false, patch }: SampleOptions = {}): Uint8Array {
  const contents = code.slice();
  patch?.(contents);
  const builder = new IgvmBuilder({ version: 2 })
    .platform('SEV_SNP', SNP)
    .platform('NATIVE', NATIVE)
    .guestPolicy(0x30000n, SNP)
    .requiredMemory(0x80_0000n, SNP | NATIVE, 0x10_0000)
    .parameterArea(0, 4096n)
    .parameter('VP_COUNT', 0)
    .parameter('MEMORY_MAP', 0, 8)
    .pages(0x80_0000n, SNP | NATIVE, contents)
    .page(0x80_3000n, SNP | NATIVE);
  if (extraPage) builder.page(0x80_4000n, SNP | NATIVE, Uint8Array.of(1, 2, 3));
  return builder
    .page(0x81_0000n, SNP, undefined, { dataType: 'SECRETS' })
    .page(0x81_1000n, SNP, new Uint8Array(4096).fill(1), { dataType: 'CPUID_DATA' })
    .page(0x82_0000n, SNP, Uint8Array.of(0xaa), { unmeasured: true })
    .parameterInsert(0x83_0000n, SNP | NATIVE, 0)
    .vpContext(0xffff_ffff_f000n, SNP, vmsa())
    .build();
}

const sha384 = (bytes: Uint8Array) => createHash('sha384').update(bytes).digest();

/**
 * The running digest of the sample after each measured page, by the SEV-SNP firmware ABI
 * (SNP_LAUNCH_UPDATE, PAGE_INFO), written out here independently of `measure/`.
 */
export function sampleDigests(): Map<string, string> {
  const pages: [gpa: bigint, type: number, contents: Uint8Array | undefined][] = [
    [0x80_0000n, 1, code.subarray(0, 4096)],
    [0x80_1000n, 1, code.subarray(4096, 8192)],
    [0x80_2000n, 1, code.subarray(8192)],
    [0x80_3000n, 1, new Uint8Array(4096)],
    [0x81_0000n, 5, undefined],
    [0x81_1000n, 6, undefined],
    [0x82_0000n, 4, undefined],
    [0x83_0000n, 4, undefined],
    [0xffff_ffff_f000n, 2, vmsa()],
  ];
  let digest: Uint8Array = new Uint8Array(48);
  const after = new Map<string, string>();
  for (const [gpa, type, contents] of pages) {
    const info = Buffer.alloc(0x70);
    info.set(digest, 0);
    if (contents) info.set(sha384(contents), 0x30);
    info.writeUInt16LE(0x70, 0x60);
    info.writeUInt8(type, 0x62);
    info.writeBigUInt64LE(gpa, 0x68);
    digest = sha384(info);
    after.set(`0x${gpa.toString(16)}`, Buffer.from(digest).toString('hex'));
  }
  return after;
}
