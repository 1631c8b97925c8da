/** Damaged files through the whole room: text, hovers, outline, findings and summary. */
import { describe, expect, it } from 'vitest';
import { nodeCrypto } from '../../src/base/node.ts';
import {
  folds,
  hoverText,
  imageDiagnostics,
  openImage,
  outline,
  renderListing,
  summarize,
} from '../../src/listing/index.ts';
import { mutateBlindly, mutateByStructure } from '../igvm/mutate.ts';
import { Random } from '../igvm/random.ts';
import { sampleImage } from './sample.ts';

const FILES = 400;

describe('damaged files', () => {
  it.each([
    ['anywhere', mutateBlindly],
    ['by structure, with a right checksum', mutateByStructure],
  ])('changed %s: every line has its hover, every finding its line', (_, mutate) => {
    const random = new Random(0x1157);
    const original = sampleImage();
    for (let n = 0; n < FILES; n++) {
      const image = openImage(mutate(original, random), nodeCrypto);
      const listing = renderListing(image.file, nodeCrypto);
      const rows = listing.text.split('\n');
      expect(rows.length).toBe(listing.lines.length + 1);
      listing.lines.forEach(({ kind }, line) => {
        expect(hoverText(image, listing, line) !== undefined).toBe(kind === 'file' || kind === 'directive');
      });
      for (const { children } of outline(image, listing))
        for (const child of children) expect(child.last).toBeLessThan(listing.lines.length);
      for (const fold of folds(listing)) expect(fold.last).toBeGreaterThan(fold.first);
      const summary = summarize(image, listing);
      for (const { line } of summary.diagnostics) expect(listing.lines[line!]).toBeDefined();
      if (summary.diagnostics.length === 0) expect(imageDiagnostics(image)).toEqual([]);
      // Plain data: it crosses to the editor as JSON.
      expect(JSON.parse(JSON.stringify(summary))).toEqual(summary);
    }
  });
});
