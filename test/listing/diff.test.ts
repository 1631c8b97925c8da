import { describe, expect, it } from 'vitest';
import { nodeCrypto } from '../../src/base/node.ts';
import { diffImages, openImage } from '../../src/listing/index.ts';
import { sampleDigests, sampleImage } from './sample.ts';

const open = (...args: Parameters<typeof sampleImage>) => openImage(sampleImage(...args), nodeCrypto);

describe('diffImages', () => {
  it('an image and itself', () => {
    expect(diffImages(open(), open())).toMatchObject({ equal: true, header: [], directives: [] });
  });

  it('one byte of one page: the directive, the byte, and where the digests part', () => {
    const patch = (bytes: Uint8Array) => void (bytes[4096 + 0x123]! ^= 0xff);
    const { equal, directives, digests } = diffImages(open(), open({ patch }));
    expect(equal).toBe(false);
    expect(directives).toHaveLength(1);
    expect(directives[0]).toMatchObject({
      kind: 'changed',
      fields: [],
      contents: { offset: 0x123, bytes: 1 },
    });
    expect(directives[0]!.rightText).toContain('0x000000801000');
    const [snp] = digests;
    expect(snp).toMatchObject({
      platform: 'SEV-SNP',
      equal: false,
      first: { page: 1, left: { gpa: '0x801000' }, agreed: sampleDigests().get('0x800000') },
      pages: [{ kind: 'contents', gpa: '0x801000' }],
    });
  });

  it('a page more', () => {
    const { directives, digests } = diffImages(open(), open({ extraPage: true }));
    expect(directives.map(({ kind, rightText }) => [kind, rightText?.split('  ')[1]])).toEqual([
      ['added', '0x000000804000'],
    ]);
    expect(digests[0]!.pages).toEqual([{ kind: 'added', gpa: '0x804000' }]);
    expect(diffImages(open({ extraPage: true }), open()).directives[0]!.kind).toBe('removed');
  });
});
