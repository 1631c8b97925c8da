/** Writes a cpio archive in the `newc` format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst). */

export interface CpioEntry {
  readonly name: string;
  /** Type and permissions, as in `st_mode`. */
  readonly mode: number;
  readonly data?: Uint8Array;
  /** Of a device node: major and minor. */
  readonly device?: readonly [number, number];
}

const pad = (bytes: number): number => -bytes & 3;

export function cpio(entries: readonly CpioEntry[]): Uint8Array {
  const chunks: Uint8Array[] = [];
  const encoder = new TextEncoder();
  const write = (
    { name, mode, data = new Uint8Array(), device = [0, 0] }: CpioEntry,
    inode: number,
  ): void => {
    const label = encoder.encode(`${name}\0`);
    const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, device[0], device[1], label.length, 0];
    const header = encoder.encode(
      '070701' + fields.map((field) => field.toString(16).padStart(8, '0')).join(''),
    );
    const start = pad(header.length + label.length);
    chunks.push(header, label, new Uint8Array(start), data, new Uint8Array(pad(data.length)));
  };
  entries.forEach((entry, i) => write(entry, i + 1));
  write({ name: 'TRAILER!!!', mode: 0 }, 0);
  const result = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of chunks) {
    result.set(chunk, at);
    at += chunk.length;
  }
  return result;
}
