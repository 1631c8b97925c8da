import { describe, expect, it } from 'vitest';
import { renderProblem, renderSummary } from '../../src/extension/summary-html.ts';
import type { IgvmSummary } from '../../src/listing/index.ts';

const page = { cspSource: 'https://csp.example', style: 's.css', script: 's.js', name: 'a<b>.igvm' };

const summary: IgvmSummary = {
  fileBytes: 4096,
  versionString: '<script>alert(1)</script>',
  platforms: [
    {
      mask: 1,
      type: 'SEV_SNP',
      title: 'SEV-SNP',
      highestVtl: 0,
      sharedGpaBoundary: '0x0',
      digest: 'ab'.repeat(48),
      digestAlgorithm: 'SHA-384',
      idBlock: {
        launchDigest: 'cd'.repeat(48),
        matches: false,
        familyId: '"<img src=x>"',
        imageId: '00',
        guestSvn: 3,
        authorKey: false,
      },
      processors: [],
      regions: [
        { kind: 'required', start: '0x0', end: '0x10000', pages: 16, title: '', line: 4 },
        { kind: 'data', start: '0x2000', end: '0x4000', pages: 2, title: '"quoted" & <b>', line: 5 },
      ],
    },
  ],
  diagnostics: [
    { severity: 'warning', code: 'igvm-x', message: 'a "finding" <here>', offset: 32, line: 7 },
    { severity: 'hint', code: 'igvm-y', message: 'odd', offset: 64 },
  ],
};

describe('summary page', () => {
  const text = renderSummary(summary, page);

  it('lets nothing of the file become markup', () => {
    expect(text).not.toMatch(/<script>|<img|<b>|<here>/);
    expect(text).toContain('&#60;script&#62;alert(1)&#60;/script&#62;');
  });

  it('forbids everything but the extension’s own style and script', () => {
    expect(text).toContain(
      `content="default-src &#39;none&#39;; style-src https://csp.example; script-src https://csp.example;"`,
    );
    expect(text).not.toMatch(/\sstyle=|\son[a-z]+=|javascript:/);
    expect(text.match(/<script/g)).toHaveLength(1);
  });

  it('shows the digest in full, a mismatch of the ID block, and problems before remarks', () => {
    const visible = text.replace(/<[^>]*>/g, '').replace(/\s+/g, '');
    expect(visible).toContain('ab'.repeat(48));
    expect(visible).toContain('digestdiffers');
    expect(visible.indexOf('Problems')).toBeLessThan(visible.indexOf('Remarks'));
  });

  it('draws each address once: required memory gives way to what is loaded into it', () => {
    const bars = [...text.matchAll(/<title[^>]*>\s*(0x[0-9a-f]+) – (0x[0-9a-f]+)/g)].map(
      ([, from, to]) => `${from}-${to}`,
    );
    expect(bars).toEqual(['0x0-0x2000', '0x2000-0x4000', '0x4000-0x10000']);
  });

  it('shows why a file cannot be shown', () => {
    expect(renderProblem('cannot open <x>', page)).toContain('cannot open &#60;x&#62;');
  });
});
