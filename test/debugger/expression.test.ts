import { describe, expect, it } from 'vitest';
import { evaluateText, formatValue, interpolate, splitFormat } from '../../src/debugger/expression/index.ts';
import type { Scope } from '../../src/debugger/expression/index.ts';
import { parseHitCondition } from '../../src/debugger/expression/hits.ts';

const memory = new Map<bigint, bigint>([[0x1000n, 0xffff_fff0_1234_56f8n]]);
const scope: Scope = {
  register: (name) =>
    ({
      rax: { value: 0xffff_ffff_ffff_fffen, bits: 64 },
      al: { value: 0xfen, bits: 8 },
      zf: { value: 1n, bits: 8 },
    })[name],
  symbol: (name) => ({ 'svsm::main': 0x1000n, rax_symbol: 7n, rax: 99n })[name],
  load(address, size) {
    const value = memory.get(address);
    if (value === undefined) throw new Error(`cannot read ${address}`);
    return BigInt.asUintN(size * 8, value);
  },
};
const value = (text: string): bigint => evaluateText(text, scope).value;
const text = (source: string): string => formatValue(evaluateText(source, scope));

describe('expressions', () => {
  it('has the precedence of C', () => {
    expect(value('2 + 3 * 4')).toBe(14n);
    expect(value('1 << 2 + 1')).toBe(8n);
    expect(value('1 | 2 == 2')).toBe(1n);
    expect(value('10 - 4 - 3')).toBe(3n);
    expect(value('-3 + 5')).toBe(2n);
    expect(value('!0 && 2 || 0')).toBe(1n);
    expect(value('1 ? 2 : 3')).toBe(2n);
    expect(value('(1 + 2) * 3')).toBe(9n);
  });

  it('reads numbers in four bases, with separators', () => {
    expect(value('0xffff_f000')).toBe(0xfffff000n);
    expect(value('0b1010')).toBe(10n);
    expect(value('0o17')).toBe(15n);
    expect(value('1_000')).toBe(1000n);
  });

  it('wraps at 64 bits, and knows signed from unsigned', () => {
    expect(value('$rax + 3')).toBe(1n);
    expect(value('rax > 5')).toBe(1n);
    expect(value('(i64)rax < 0')).toBe(1n);
    expect(value('(i8)al')).toBe(-2n);
    expect(value('rax == -2')).toBe(1n);
    expect(value('(u8)0x1ff')).toBe(0xffn);
    expect(value('~0')).toBe(0xffff_ffff_ffff_ffffn);
    expect(value('1 << 64')).toBe(0n);
    expect(value('(i64)rax >> 1')).toBe(-1n);
  });

  it('takes registers before symbols, and reads memory by type', () => {
    expect(value('rax')).toBe(0xffff_ffff_ffff_fffen);
    expect(value('&svsm::main')).toBe(0x1000n);
    expect(value('*svsm::main')).toBe(0xffff_fff0_1234_56f8n);
    expect(value('*(u16*)0x1000')).toBe(0x56f8n);
    expect(value('*(i8*)(0x800 * 2)')).toBe(-8n);
    expect(value("*(u32*)'svsm::main' & 0xff")).toBe(0xf8n);
  });

  it.each([
    ['', /unexpected end at column 1/],
    ['1 +', /unexpected end at column 4/],
    ['1 2', /unexpected '2' at column 3/],
    ['nothing', /no register or symbol named 'nothing'/],
    ['$nothing', /no register named 'nothing'/],
    ['1 / 0', /division by zero/],
    ['0x', /bad number/],
    ['0x1ffffffffffffffff', /more than 64 bits/],
    ['"', /unexpected '"'/],
    [`${'('.repeat(500)}1`, /nests too deeply/],
    ['1'.repeat(5000), /more than 4096 characters/],
    ['*0x2000', /cannot read/],
    ['&5', /takes the address of a symbol only/],
  ])('refuses %j with a reason', (source, message) => {
    expect(() => value(source)).toThrow(message);
  });

  it('prints what a person reads', () => {
    expect(text('7')).toBe('7');
    expect(text('255')).toBe('0xff (255)');
    expect(text('(i8)al')).toBe('-2 (0xfe)');
    expect(text('rax')).toBe('0xfffffffffffffffe');
    expect(splitFormat('rax , d')).toEqual({ expression: 'rax', format: 'd' });
    expect(interpolate('al is {al,b}, {1+1}, {oops}', scope)).toBe(
      "al is 0b11111110, 2, <there is no register or symbol named 'oops'>",
    );
  });
});

describe('hit conditions', () => {
  const stops = (condition: string): number[] => {
    const test = parseHitCondition(condition);
    return [1, 2, 3, 4, 5, 6].filter(test);
  };
  it('counts', () => {
    expect(stops('3')).toEqual([3]);
    expect(stops('== 3')).toEqual([3]);
    expect(stops('>= 5')).toEqual([5, 6]);
    expect(stops('>4')).toEqual([5, 6]);
    expect(stops('< 2')).toEqual([1]);
    expect(stops('<= 2')).toEqual([1, 2]);
    expect(stops('% 2')).toEqual([2, 4, 6]);
  });
  it.each(['', 'x', '% 0', '-1', '1 2'])('refuses %j', (condition) => {
    expect(() => parseHitCondition(condition)).toThrow(/hit condition|never stops/);
  });
});
