import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CvmError, bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { measureTdvf } from '../../src/measure/index.ts';
import { ovmfImage } from './ovmf-image.ts';
import type { ImageParts } from './ovmf-image.ts';
import { sha384, tdxAdd, tdxExtend } from './slow.ts';

type Section = NonNullable<ImageParts['tdxSections']>[number];
const image = (...tdxSections: Section[]): Uint8Array =>
  ovmfImage({ size: 16384, fill: (index) => (index * 31 + (index >> 9)) & 0xff, tdxSections });
const code = (bytes: Uint8Array): string => {
  try {
    measureTdvf(bytes, nodeCrypto);
  } catch (error) {
    if (error instanceof CvmError) return error.code;
    throw error;
  }
  return 'measured';
};

// Firmware code (measured), variables (not), a HOB, memory that comes later, one section longer than its data.
const tdvf = image(
  [0x1000, 0x2000, 0xffff_d000n, 0x2000n, 0, 1],
  [0, 0x1000, 0xffff_c000n, 0x1000n, 1, 0],
  [0, 0, 0x80_9000n, 0x1000n, 2, 0],
  [0, 0, 0x100_0000n, 0x4000_0000n, 4, 2],
  [0x3000, 0x800, 0x81_0000n, 0x2000n, 5, 1],
);
const code0 = tdvf.subarray(0x1000, 0x2000);
const code1 = tdvf.subarray(0x2000, 0x3000);
const short = new Uint8Array(4096);
short.set(tdvf.subarray(0x3000, 0x3800));
const zero = new Uint8Array(4096);

describe('MRTD of OVMF', () => {
  it('in one pass', () => {
    const expected = sha384(
      tdxAdd(0xffff_d000n),
      tdxExtend(0xffff_d000n, code0),
      tdxAdd(0xffff_e000n),
      tdxExtend(0xffff_e000n, code1),
      tdxAdd(0xffff_c000n),
      tdxAdd(0x80_9000n),
      tdxAdd(0x81_0000n),
      tdxExtend(0x81_0000n, short),
      tdxAdd(0x81_1000n),
      tdxExtend(0x81_1000n, zero),
    );
    const { digest, parts } = measureTdvf(tdvf, nodeCrypto);
    expect(bytesToHex(digest)).toBe(expected.toString('hex'));
    expect(parts.map(({ name }) => name)).toEqual([
      'BFV',
      'CFV (not measured)',
      'TD_HOB (not measured)',
      'Payload',
    ]);
  });

  it('in two passes: a section at a time', () => {
    const expected = sha384(
      tdxAdd(0xffff_d000n),
      tdxAdd(0xffff_e000n),
      tdxExtend(0xffff_d000n, code0),
      tdxExtend(0xffff_e000n, code1),
      tdxAdd(0xffff_c000n),
      tdxAdd(0x80_9000n),
      tdxAdd(0x81_0000n),
      tdxAdd(0x81_1000n),
      tdxExtend(0x81_0000n, short),
      tdxExtend(0x81_1000n, zero),
    );
    expect(bytesToHex(measureTdvf(tdvf, nodeCrypto, 'two-pass').digest)).toBe(expected.toString('hex'));
  });

  it('is refused where it cannot be known', () => {
    expect(code(tdvf)).toBe('measured');
    for (const section of [
      [0, 0, 0x1234n, 0x1000n, 3, 0],
      [0, 0, 0x1000n, 0x1001n, 3, 0],
      [0, 0x2000, 0x1000n, 0x1000n, 0, 1],
      [0x3000, 0x2000, 0x1000n, 0x2000n, 0, 1],
      [0, 0, 0x1000n, 0x1000n, 2, 1],
      [0, 0, 0x1000n, 0x8000_0000n, 3, 0],
    ] as Section[])
      expect(code(image(section)), String(section)).toBe('ovmf-format');
    expect(code(ovmfImage({ size: 4096, fill: () => 0 }))).toBe('ovmf-format');
  });
});

const DEBIAN = '/usr/share/ovmf/OVMF.fd';
describe.runIf(existsSync(DEBIAN))("Debian's OVMF.fd", () => {
  it('has TDX metadata that measures the code and not the variables', () => {
    const { parts } = measureTdvf(new Uint8Array(readFileSync(DEBIAN)), nodeCrypto);
    expect(parts.map(({ name }) => name)).toEqual(expect.arrayContaining(['BFV', 'TD_HOB (not measured)']));
  });
});
