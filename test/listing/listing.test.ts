import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { nodeCrypto } from '../../src/base/node.ts';
import {
  folds,
  hoverText,
  imageDiagnostics,
  openImage,
  outline,
  renderListing,
} from '../../src/listing/index.ts';
import { IgvmBuilder } from '../../src/igvm/index.ts';
import { SNP, code, sampleDigests, sampleImage } from './sample.ts';

const open = (bytes: Uint8Array, coalesceAbove?: number) => {
  const image = openImage(bytes, nodeCrypto);
  const listing = renderListing(image.file, nodeCrypto, coalesceAbove === undefined ? {} : { coalesceAbove });
  return { image, listing, rows: listing.text.split('\n') };
};
const hashOf = (bytes: Uint8Array) => createHash('sha384').update(bytes).digest('hex').slice(0, 16);

describe('listing text', () => {
  it('is one line a directive, in file order and in sections', () => {
    const { rows } = open(sampleImage());
    expect(rows).toEqual([
      '# IGVM file',
      'IGVM                version 2  X64  4096 byte pages',
      '',
      '# Platforms',
      'SUPPORTED_PLATFORM  mask 0x1   SEV_SNP  version 1, vtl 0, shared gpa boundary 0x0',
      'SUPPORTED_PLATFORM  mask 0x2   NATIVE  version 1, vtl 0, shared gpa boundary 0x0',
      '',
      '# Initialization',
      'GUEST_POLICY        mask 0x1   0x30000  abi 0.0, SMT',
      '',
      '# Directives',
      'REQUIRED_MEMORY     0x000000800000  mask 0x3   0x100000 bytes',
      'PARAMETER_AREA      area 0  0x1000 bytes  zeros',
      'VP_COUNT            area 0  offset 0x0',
      'MEMORY_MAP          area 0  offset 0x8',
      `PAGE_DATA           0x000000800000  mask 0x3   NORMAL      sha384 ${hashOf(code.subarray(0, 4096))}`,
      `PAGE_DATA           0x000000801000  mask 0x3   NORMAL      sha384 ${hashOf(code.subarray(4096, 8192))}`,
      `PAGE_DATA           0x000000802000  mask 0x3   NORMAL      sha384 ${hashOf(code.subarray(8192))}`,
      'PAGE_DATA           0x000000803000  mask 0x3   NORMAL      zeros',
      'PAGE_DATA           0x000000810000  mask 0x1   SECRETS     zeros',
      `PAGE_DATA           0x000000811000  mask 0x1   CPUID_DATA  sha384 ${hashOf(new Uint8Array(4096).fill(1))}`,
      expect.stringMatching(
        /^PAGE_DATA +0x000000820000 {2}mask 0x1 {3}NORMAL unmeasured {2}sha384 [0-9a-f]{16}$/,
      ),
      'PARAMETER_INSERT    0x000000830000  mask 0x3   area 0',
      expect.stringMatching(/^VP_CONTEXT +0xfffffffff000 {2}mask 0x1 {3}vp 0 {2}sha384 [0-9a-f]{16}$/),
      '',
    ]);
  });

  it('changes in one line when a page is inserted, although everything behind it moves in the file', () => {
    const before = open(sampleImage()).rows;
    const after = open(sampleImage({ extraPage: true })).rows;
    expect(after.filter((row) => !before.includes(row))).toHaveLength(1);
    expect(before.filter((row) => !after.includes(row))).toEqual([]);
  });

  it('changes in the line of the page whose byte changed', () => {
    const before = open(sampleImage()).rows;
    const patched = sampleImage({ patch: (bytes) => (bytes[4096 + 5]! ^= 1) });
    const changed = open(patched).rows.filter((row, i) => row !== before[i]);
    expect(changed).toHaveLength(1);
    expect(changed[0]).toContain('0x000000801000');
  });

  it('joins adjacent pages above the bound and keeps every page on some line', () => {
    const { image, listing, rows } = open(sampleImage(), 5);
    expect(rows.filter((row) => row.startsWith('PAGE_DATA'))).toHaveLength(5);
    expect(rows).toContainEqual(
      `PAGE_DATA           0x000000800000  mask 0x3   NORMAL      sha384 ${hashOf(code)}  x 3 pages to 0x000000803000`,
    );
    const shown = listing.lines.flatMap(({ kind, first, last }) =>
      kind === 'directive' ? Array.from({ length: last - first + 1 }, (_, i) => first + i) : [],
    );
    expect(shown).toEqual(image.file.headers.map((_, i) => i));
  });

  it('cuts joined pages at every 2 MiB, so that a change shows where it is', () => {
    const builder = new IgvmBuilder().platform('SEV_SNP', SNP).guestPolicy(0x30000n, SNP);
    builder.pages(0x3f_0000n, SNP, new Uint8Array(0x40_0000 - 0x3f_0000 + 0x21_0000).fill(3));
    const { rows } = open(builder.build(), 5);
    const pages = rows.filter((row) => row.startsWith('PAGE_DATA'));
    expect(pages.map((row) => /x (\d+) pages/.exec(row)?.[1])).toEqual(['16', '512', '16']);
  });
});

describe('hover', () => {
  const { image, listing, rows } = open(sampleImage());
  const hoverAt = (text: string) =>
    hoverText(
      image,
      listing,
      rows.findIndex((row) => row.includes(text)),
    )!;
  // Digests stand in two lines.
  const joined = (text: string | undefined) => text?.replace(/`\s+`/g, '');

  it('gives the running launch digest of the firmware ABI after every page', () => {
    for (const [gpa, digest] of sampleDigests()) {
      const row = rows.findIndex(
        (text) => text.includes(`0x${gpa.slice(2).padStart(12, '0')}  mask 0x`) && !text.startsWith('REQ'),
      );
      expect(joined(hoverText(image, listing, row)), gpa).toContain(digest);
    }
  });

  it('shows the hash and the first bytes of the contents', () => {
    const hover = hoverAt('0x000000801000');
    expect(joined(hover)).toContain(createHash('sha384').update(code.subarray(4096, 8192)).digest('hex'));
    const first = Array.from(code.subarray(4096, 4104), (byte) => byte.toString(16).padStart(2, '0')).join(
      ' ',
    );
    expect(hover).toContain(`000000801000  ${first}`);
  });

  it('decodes the save area of a processor by the names of the manual', () => {
    const hover = hoverAt('VP_CONTEXT');
    expect(hover).toMatch(/^0x178 {2}rip +0xfff00000$/m);
    expect(hover).toMatch(/^0x158 {2}cr0 +0x31 +PE ET NE$/m);
    expect(hover).toMatch(/^0x3b0 {2}sev_features +0x1 +SNPActive$/m);
    expect(hover).toMatch(
      /^0x010 {2}cs +selector 0x8 \(readable code, accessed, DPL 0, present, 32-bit default/m,
    );
    expect(hover).toContain('32-bit protected mode, starts at 0xfff00000');
    expect(hover).not.toContain('lstar');
  });

  it('says what a parameter means and that it is not measured', () => {
    expect(hoverAt('VP_COUNT')).toContain('number of virtual processors');
    expect(hoverAt('PARAMETER_INSERT')).toContain('unmeasured');
    expect(hoverAt('REQUIRED_MEMORY')).toContain('adds nothing to the launch digest');
  });

  it('decodes the policy', () => {
    expect(hoverAt('GUEST_POLICY')).toMatch(/☑ SMT \(bit 16\)/);
    expect(hoverAt('GUEST_POLICY')).toMatch(/☐ DEBUG \(bit 19\)/);
  });

  it('has nothing to say about titles and blank lines', () => {
    expect(hoverText(image, listing, 0)).toBeUndefined();
    expect(hoverText(image, listing, 2)).toBeUndefined();
    expect(hoverText(image, listing, 10_000)).toBeUndefined();
  });
});

describe('outline and folds', () => {
  it('shows sections, and a run of adjacent pages of one kind as one entry', () => {
    const { image, listing } = open(sampleImage());
    const sections = outline(image, listing);
    expect(sections.map(({ name }) => name)).toEqual(['File', 'Platforms', 'Initialization', 'Directives']);
    const pages = sections[3]!.children.filter(({ kind }) => kind === 'pages');
    expect(pages.map(({ name, detail }) => `${name}: ${detail}`)).toEqual([
      '0x000000800000 NORMAL: 3 pages',
      '0x000000803000 NORMAL: 1 page',
      '0x000000810000 SECRETS: 1 page',
      '0x000000811000 CPUID_DATA: 1 page',
      '0x000000820000 NORMAL unmeasured: 1 page',
    ]);
    for (const { children, first, last } of sections)
      for (const child of children) expect(child.first > first && child.last <= last).toBe(true);
  });

  it('folds runs of four lines or more, inside the fold of their section', () => {
    const builder = new IgvmBuilder().platform('SEV_SNP', SNP).guestPolicy(0x30000n, SNP);
    builder.pages(0x1000n, SNP, new Uint8Array(6 * 4096).fill(9)).page(0x10_0000n, SNP);
    const { listing, rows } = open(builder.build());
    const first = rows.findIndex((row) => row.startsWith('PAGE_DATA'));
    expect(folds(listing)).toContainEqual({ first, last: first + 5 });
    expect(folds(listing)).toContainEqual({ first: rows.indexOf('# Directives'), last: first + 6 });
  });
});

describe('damaged files', () => {
  it('list what can be read and say what cannot', () => {
    const bytes = sampleImage();
    for (let length = 0; length < 1024; length += 13) {
      const { image, listing, rows } = open(bytes.subarray(0, length));
      rows.forEach((_, line) => hoverText(image, listing, line));
      outline(image, listing);
      expect(imageDiagnostics(image).length, `${length} bytes`).toBeGreaterThan(0);
    }
  });
});
