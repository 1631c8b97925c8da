/** Rows of 16 bytes: address, bytes, printable ASCII. A row equal to the one before becomes `*`, once. */
export function hexDump(bytes: Uint8Array, start: bigint, maxRows: number): string {
  const rows: string[] = [];
  let previous = '';
  for (let at = 0; at < bytes.length && rows.length < maxRows; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const digits = Array.from(row, (byte) => byte.toString(16).padStart(2, '0'));
    const cells = `${digits.slice(0, 8).join(' ').padEnd(23)}  ${digits.slice(8).join(' ').padEnd(23)}`;
    if (cells === previous) {
      if (rows.at(-1) !== '*') rows.push('*');
      continue;
    }
    previous = cells;
    const ascii = Array.from(row, (byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.'));
    rows.push(`${(start + BigInt(at)).toString(16).padStart(12, '0')}  ${cells}  ${ascii.join('')}`);
  }
  return rows.join('\n');
}
