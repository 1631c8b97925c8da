import { describe, expect, it } from 'vitest';
import { decode } from '../../src/debugger/disassembler.ts';

const bytes = (text: string): Uint8Array => Uint8Array.from(text.split(' '), (byte) => parseInt(byte, 16));

describe('decoding for the views', () => {
  it('tells calls, branches and returns, and where they go', () => {
    const code = decode(bytes('e8 10 00 00 00 74 fe eb 00 c3 55 cd 80 90'), 0x1000n, 64, 10);
    expect(code.map(({ flow, target, length }) => [flow, target, length])).toEqual([
      ['call', 0x1015n, 5],
      ['conditional', 0x1005n, 2],
      ['branch', 0x1009n, 2],
      ['return', undefined, 1],
      ['next', undefined, 1],
      ['interrupt', undefined, 2],
      ['next', undefined, 1],
    ]);
    expect(code[4]!.stackIncrement).toBe(-8);
  });

  it('knows the instructions of SEV-SNP', () => {
    const code = decode(bytes('f2 0f 01 ff f3 0f 01 fe f3 0f 01 d9 0f 01 d9'), 0n, 64, 4);
    expect(code.map(({ text }) => text.split(' ')[0])).toEqual([
      'pvalidate',
      'rmpadjust',
      'vmgexit',
      'vmmcall',
    ]);
  });

  it('decodes by mode', () => {
    expect(decode(bytes('b8 01 00 00 00'), 0n, 32, 1)[0]!.text).toBe('mov eax, 1');
    expect(decode(bytes('b8 01 00'), 0n, 16, 1)[0]!.text).toBe('mov ax, 1');
  });

  it('goes on behind invalid bytes, and stops at a cut instruction', () => {
    const code = decode(bytes('0f ff 06 90 48 b8 00'), 0n, 64, 10);
    expect(code.map(({ text, length }) => [text, length])).toContainEqual(['(bad)', 1]);
    expect(code.at(-1)!.address).toBeLessThan(5n);
  });
});
