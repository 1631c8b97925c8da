import { describe, expect, it } from 'vitest';
import { MessageReader, frame } from '../../src/cli/framing.ts';
import { TextWatch } from '../../src/cli/text-watch.ts';
import { count, parse } from '../../src/cli/options.ts';

describe('Content-Length framing', () => {
  const messages = [{ seq: 1, type: 'request', command: 'initialize' }, { text: 'größer ≠ kleiner 🦀' }, {}];
  const stream = Buffer.concat(messages.map(frame));

  it.each([1, 2, 3, 7, 64, 10_000])('finds the messages in pieces of %i bytes', (size) => {
    const found: unknown[] = [];
    const reader = new MessageReader((message) => found.push(message));
    for (let at = 0; at < stream.length; at += size) reader.feed(stream.subarray(at, at + size));
    expect(found).toEqual(messages);
  });

  it('takes other header fields, in any case', () => {
    const found: unknown[] = [];
    new MessageReader((message) => found.push(message)).feed(
      Buffer.from('Content-Type: application/json\r\ncontent-length: 2\r\n\r\n{}'),
    );
    expect(found).toEqual([{}]);
  });

  it.each([
    ['GET / HTTP/1.1\r\n\r\n', /no Content-Length/],
    ['Content-Length: -1\r\n\r\n', /no Content-Length/],
    ['Content-Length: 999999999\r\n\r\n', /999999999 bytes/],
    ['Content-Length: 3\r\n\r\n{x}', /not JSON/],
    ['x'.repeat(5000), /too long/],
  ])('refuses %j', (text, message) => {
    expect(() => new MessageReader(() => {}).feed(Buffer.from(text))).toThrow(message);
  });
});

describe('waiting for a text', () => {
  const feed = (watch: TextWatch, ...parts: string[]): string =>
    parts.map((part) => Buffer.from(watch.feed(Buffer.from(part))).toString()).join('');

  it('finds it across writes, and shows nothing behind it', () => {
    const watch = new TextWatch('Unpacking done');
    expect(feed(watch, 'Unpac', 'k', 'ing', ' UnpackingX Unpacki')).toBe('Unpacking UnpackingX Unpacki');
    expect(watch.found).toBe(false);
    expect(feed(watch, 'ng done\nmore')).toBe('ng done');
    expect(watch.found).toBe(true);
  });

  it('finds it byte by byte, beyond ASCII too', () => {
    const watch = new TextWatch('größer');
    for (const byte of Buffer.from('ist grögrößer als')) if (!watch.found) watch.feed(Uint8Array.of(byte));
    expect(watch.found).toBe(true);
  });
});

describe('arguments', () => {
  it('reads numbers with units', () => {
    expect(count('n', '2G', 1, 1e12)).toBe(2e9);
    expect(count('n', '10_000', 1, 1e12)).toBe(10_000);
    expect(() => count('n', '-1', 0, 9)).toThrow(/--n must be a number from 0 to 9/);
    expect(() => count('n', '1e3', 0, 9)).toThrow(/not '1e3'/);
  });
  it('names what is wrong', () => {
    expect(() => parse(['--no-such'], {}, 1)).toThrow(/--no-such/);
    expect(() => parse([], {}, 1)).toThrow(/FILE is missing/);
    expect(() => parse(['a', 'b'], {}, 1)).toThrow(/not 'b' too/);
    expect(() => parse(['a', '--x'], { x: { type: 'string' } }, 1)).toThrow(/--x/);
  });
});
