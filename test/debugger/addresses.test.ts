import { describe, expect, it } from 'vitest';
import { parseReference, physicalReference } from '../../src/debugger/addresses.ts';
import { parseLaunch, parseMemorySize } from '../../src/debugger/launch.ts';

describe('memory references', () => {
  it('carry the address space', () => {
    expect(parseReference('0xffffff8000000000', 8)).toEqual({
      space: 'virtual',
      address: 0xffffff8000000008n,
    });
    expect(parseReference('gpa:0x1000:shared')).toEqual({ space: 'shared', address: 0x1000n });
    expect(parseReference('gva:0x1000:7', -1)).toEqual({ space: 'virtual', address: 0xfffn, threadId: 7 });
    expect(parseReference(physicalReference(0x8000n, 'private'), 4)).toEqual({
      space: 'private',
      address: 0x8004n,
    });
    expect(parseReference('0x0', -1).address).toBe(0xffff_ffff_ffff_ffffn);
  });
  it.each(['', '0x', 'main', 'gpa:0x1000', 'gpa:0x1000:both', '0x1:2:3', '-5', '0x12345678901234567'])(
    'refuse %j',
    (text) => {
      expect(() => parseReference(text)).toThrow(/is no address/);
    },
  );
});

describe('launch attributes', () => {
  it('reads memory sizes', () => {
    expect(parseMemorySize('256M')).toBe(2 ** 28);
    expect(parseMemorySize('1g')).toBe(2 ** 30);
    expect(parseMemorySize(8192)).toBe(8192);
  });
  it('takes the longest source map prefix first', () => {
    const { sourceMap } = parseLaunch({
      program: 'a',
      sourceMap: { '/a': '/x', '/a/b/c': '/z', '/a/b': '/y' },
    });
    expect(sourceMap.map(({ from }) => from)).toEqual(['/a/b/c', '/a/b', '/a']);
  });
});
