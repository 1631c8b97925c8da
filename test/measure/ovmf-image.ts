/** OVMF images made in the test: pages of noise, then the tables that a VMM reads (edk2 OvmfPkg/ResetVector). */
const guid = (text: string): Buffer => {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
};
const FOOTER = '96b582de-1fb2-45f7-baea-a366c55a082d';
export const HASH_TABLE = '7255371f-3a3b-4b04-927b-1da6efa8d454';
export const RESET_BLOCK = '00f771de-1a7e-4fcb-890e-68c77e2fb44e';
export const SEV_METADATA = 'dc886566-984a-4798-a75e-5585a7bf67cc';
export const TDX_METADATA = 'e47a6535-984a-4798-865e-4685a7bf8ec2';
export const SVSM_INFO = 'a789a612-0597-4c4b-a49f-cbb1fe9d1ddd';

export interface ImageParts {
  /** Bytes of the image, at least 4096. */
  readonly size: number;
  readonly fill: (index: number) => number;
  readonly hashTableGpa?: number;
  readonly resetEip?: number;
  readonly svsmOffset?: number;
  /** `[gpa, size, type]` */
  readonly sections?: readonly (readonly [number, number, number])[];
  /** `[data offset, raw size, gpa, memory size, type, attributes]` */
  readonly tdxSections?: readonly (readonly [number, number, bigint, bigint, number, number])[];
  /** Other entries of the footer table. */
  readonly extra?: readonly (readonly [string, Buffer])[];
}

const u32 = (...values: number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => bytes.writeUInt32LE(value >>> 0, 4 * index));
  return bytes;
};

export function ovmfImage(parts: ImageParts): Uint8Array {
  const image = Buffer.alloc(parts.size);
  for (let i = 0; i < parts.size; i++) image[i] = parts.fill(i);
  const entries: [string, Buffer][] = [...(parts.extra ?? [])].map(([name, data]) => [name, data]);
  if (parts.hashTableGpa !== undefined) entries.push([HASH_TABLE, u32(parts.hashTableGpa, 0x400)]);
  if (parts.resetEip !== undefined) entries.push([RESET_BLOCK, u32(parts.resetEip)]);
  if (parts.svsmOffset !== undefined) entries.push([SVSM_INFO, u32(parts.svsmOffset)]);
  if (parts.sections) {
    // 1 KiB before the end, in front of the table.
    const fromEnd = 1024;
    const size = 16 + 12 * parts.sections.length;
    Buffer.concat([
      Buffer.from('ASEV'),
      u32(size, 1, parts.sections.length),
      u32(...parts.sections.flat()),
    ]).copy(image, parts.size - fromEnd);
    entries.push([SEV_METADATA, u32(fromEnd)]);
  }
  if (parts.tdxSections) {
    const fromEnd = 2048;
    const header = Buffer.concat([
      Buffer.from('TDVF'),
      u32(16 + 32 * parts.tdxSections.length, 1, parts.tdxSections.length),
    ]);
    header.copy(image, parts.size - fromEnd);
    for (const [index, [offset, raw, gpa, memory, type, attributes]] of parts.tdxSections.entries()) {
      const at = parts.size - fromEnd + 16 + 32 * index;
      u32(offset, raw).copy(image, at);
      image.writeBigUInt64LE(gpa, at + 8);
      image.writeBigUInt64LE(memory, at + 16);
      u32(type, attributes).copy(image, at + 24);
    }
    entries.push([TDX_METADATA, u32(fromEnd)]);
  }
  const table = entries.map(([name, data]) => {
    const size = Buffer.alloc(2);
    size.writeUInt16LE(data.length + 18);
    return Buffer.concat([data, size, guid(name)]);
  });
  const total = table.reduce((sum, entry) => sum + entry.length, 18);
  const size = Buffer.alloc(2);
  size.writeUInt16LE(total);
  const footer = Buffer.concat([...table, size, guid(FOOTER)]);
  footer.copy(image, parts.size - 32 - footer.length);
  return new Uint8Array(image);
}
