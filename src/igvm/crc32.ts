/** CRC-32 as IEEE 802.3 defines it (reflected, polynomial 0xEDB88320), which the IGVM checksum uses. */
const TABLE = new Uint32Array(256);
for (let i = 0; i < 256; i++) {
  let value = i;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  TABLE[i] = value >>> 0;
}

/** CRC-32 of the concatenation of the chunks. */
export function crc32(...chunks: readonly Uint8Array[]): number {
  let crc = 0xffff_ffff;
  for (const chunk of chunks)
    for (let i = 0; i < chunk.length; i++) crc = TABLE[(crc ^ chunk[i]!) & 0xff]! ^ (crc >>> 8);
  return (crc ^ 0xffff_ffff) >>> 0;
}
