import { describe, expect, it } from 'vitest';
import { nodeCrypto } from '../../src/base/node.ts';
import {
  TOKEN_TYPES,
  findAddress,
  inlayDigests,
  openImage,
  parseAddress,
  platformLenses,
  renderListing,
  semanticTokens,
} from '../../src/listing/index.ts';
import { SNP, sampleDigests, sampleImage } from './sample.ts';

const image = openImage(sampleImage(), nodeCrypto);
const listing = renderListing(image.file, nodeCrypto);
const lines = listing.text.split('\n');
const lineOf = (text: string): number => lines.findIndex((line) => line.includes(text));

describe('semanticTokens', () => {
  it('names, addresses, kinds, hashes and titles', () => {
    const words = semanticTokens(lines).map(
      ({ line, start, length, type }) => `${TOKEN_TYPES[type]} ${lines[line]!.slice(start, start + length)}`,
    );
    for (const word of [
      'comment # Directives',
      'keyword PAGE_DATA',
      'number 0x000000800000',
      'enumMember NORMAL',
      'enumMember SEV_SNP',
      'modifier zeros',
      'modifier unmeasured',
    ])
      expect(words).toContain(word);
  });

  it('of a range: only its lines, no overlaps', () => {
    const all = semanticTokens(lines, 3, 8);
    expect(all.every(({ line }) => line >= 3 && line <= 8)).toBe(true);
    for (let i = 1; i < all.length; i++)
      if (all[i]!.line === all[i - 1]!.line)
        expect(all[i]!.start).toBeGreaterThanOrEqual(all[i - 1]!.start + all[i - 1]!.length);
  });
});

it('inlay digests are the running digest of the firmware ABI', () => {
  const hints = inlayDigests(image, listing, 0, lines.length);
  for (const [gpa, digest] of sampleDigests()) {
    const line = lineOf(gpa.slice(2).padStart(12, '0'));
    const hint = hints.find((candidate) => candidate.line === line && candidate.tooltip.includes(digest));
    if (gpa === '0x800000') expect(lines[line]).toContain('REQUIRED_MEMORY');
    else expect(hint?.label, gpa).toBe(`→ ${digest.slice(0, 12)}`);
  }
  expect(inlayDigests(image, listing, 0, 2)).toEqual([]);
});

it('one lens for each measured platform', () => {
  const lenses = platformLenses(image, listing);
  expect(lenses).toHaveLength(1);
  expect(lenses[0]).toMatchObject({ line: lineOf('SEV_SNP'), mask: SNP, launchable: true });
  expect(lenses[0]!.digest).toBe([...sampleDigests().values()].at(-1));
});

describe('addresses', () => {
  it('as people write them', () => {
    expect(['0x1000', '1000', '1000h', '0xffff_f000', 'gpa:0x10', ' 0X1F '].map(parseAddress)).toEqual([
      0x1000n,
      0x1000n,
      0x1000n,
      0xffff_f000n,
      0x10n,
      0x1fn,
    ]);
    expect(['', 'zero', '0x', '0x1ffffffffffffffff'].map(parseAddress)).toEqual(Array(4).fill(undefined));
  });

  it('lead to the page that has them, before memory that is only required', () => {
    const hits = findAddress(image, listing, 0x80_1fffn);
    expect(hits.map(({ line }) => lines[line]!.split(' ')[0])).toEqual(['PAGE_DATA', 'REQUIRED_MEMORY']);
    expect(hits[0]!.gpa).toBe(0x80_1000n);
    expect(findAddress(image, listing, 0x83_0010n)[0]!.line).toBe(lineOf('PARAMETER_INSERT'));
    expect(findAddress(image, listing, 0x1n)).toEqual([]);
  });
});
