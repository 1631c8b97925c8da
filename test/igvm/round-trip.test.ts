import { describe, expect, it } from 'vitest';
import { HEADERS, makeHeader, parseIgvm, writeIgvm } from '../../src/igvm/index.ts';
import type { IgvmHeader } from '../../src/igvm/index.ts';
import { Random, fixCrc, randomFile, withGaps } from './random.ts';
import { mutateBlindly } from './mutate.ts';

const same = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describe('reading then writing', () => {
  it('gives the same bytes for random files of all header types', () => {
    const seen = new Set<string>();
    for (let seed = 0; seed < 300; seed++) {
      const bytes = randomFile(seed);
      const file = parseIgvm(bytes);
      const bad = file.diagnostics.filter(({ severity }) => severity === 'error');
      expect(bad, `seed ${seed}`).toEqual([]);
      for (const header of file.headers) seen.add(header.type);
      expect(same(writeIgvm(file), bytes), `seed ${seed}`).toBe(true);
    }
    expect([...seen].sort()).toEqual([...Object.keys(HEADERS), 'UNKNOWN', 'VERSION_STRING'].sort());
  });

  it('keeps gaps, trailing bytes and odd padding', () => {
    const random = new Random(77);
    for (let seed = 0; seed < 50; seed++) {
      const bytes = withGaps(
        randomFile(seed),
        random.bytes(8 * random.below(5)),
        random.bytes(random.below(50)),
      );
      const padded = parseIgvm(bytes).headers.find((header) => header.type === 'VP_CONTEXT')!;
      bytes[padded.offset + padded.length - 1] = 0xaa;
      fixCrc(bytes);
      const file = parseIgvm(bytes);
      expect(same(writeIgvm(file), bytes), `seed ${seed}`).toBe(true);
      expect(file.diagnostics.map(({ code }) => code)).toContain('igvm-padding');
    }
  });

  it('gives damaged files back as they are', () => {
    const random = new Random(78);
    let written = 0;
    for (let seed = 0; seed < 200; seed++) {
      const bytes = mutateBlindly(randomFile(seed), random);
      const file = parseIgvm(bytes);
      try {
        expect(same(writeIgvm(file), bytes), `seed ${seed}`).toBe(true);
        written++;
      } catch (error) {
        expect((error as { code?: string }).code, String(error)).toBe('igvm-unwritable');
      }
    }
    expect(written).toBeGreaterThan(120);
  });
});

describe('changing a file', () => {
  it('moves the file data and its offsets when a header is added', () => {
    for (let seed = 0; seed < 30; seed++) {
      const before = parseIgvm(randomFile(seed));
      const added = makeHeader('SNP_ID_BLOCK', { compatibilityMask: 4, ld: new Uint8Array(48).fill(7) });
      const after = parseIgvm(writeIgvm({ ...before, headers: [...before.headers, added] }));
      expect(after.diagnostics.filter(({ severity }) => severity === 'error')).toEqual([]);
      expect(after.headers.length).toBe(before.headers.length + 1);
      const data = (file: typeof before, header: IgvmHeader): Uint8Array | undefined =>
        header.data &&
        file.bytes.subarray(header.data.fileOffset, header.data.fileOffset + header.data.length);
      for (const [index, header] of before.headers.entries()) {
        const moved = after.headers[index]!;
        expect(moved.type).toBe(header.type);
        expect(moved.data?.fileOffset).toBe(header.data && header.data.fileOffset + 8 + 696);
        expect(Buffer.compare(data(after, moved) ?? Buffer.of(), data(before, header) ?? Buffer.of())).toBe(
          0,
        );
      }
    }
  });
});
