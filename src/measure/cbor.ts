/**
 * CBOR (RFC 8949), bounded. `cborg` does the work: maintained, no dependencies, runs in a browser, refuses what it does
 * not know; what it does not bound (depth, number of values) and where it failed is added here.
 */
import { Tagged, Tokenizer, decode, encode } from 'cborg';
import type { DecodeOptions } from 'cborg/interface';
import { CvmError } from '../base/index.ts';

/** The CoRIM document limit of the corim crate. */
export const MAX_CBOR_BYTES = 16 << 20;
const MAX_DEPTH = 64;
const MAX_VALUES = 200_000;

/** A CBOR value: maps are `Map`s, byte strings `Uint8Array`s, tags `Tagged`, whole numbers number or bigint. */
export type Cbor = unknown;
export { Tagged };

/** Every tag is kept, whatever its number. */
const tags = new Proxy({} as Record<number, ReturnType<typeof Tagged.decoder>>, {
  get: (_, tag) => Tagged.decoder(Number(tag)),
});

/** Cuts the input into tokens, counting them and the containers they are in. */
class BoundedTokenizer extends Tokenizer {
  /** Values still to come in each open container; Infinity where a break ends it. */
  private readonly open: number[] = [];
  private values = 0;

  override next() {
    const token = super.next();
    if (++this.values > MAX_VALUES) throw new Error(`more than ${MAX_VALUES} values`);
    const type = token.type.name;
    if (type === 'break') this.open.pop();
    else if (type === 'array' || type === 'map' || type === 'tag') {
      const count = type === 'tag' ? 1 : Number(token.value) * (type === 'map' ? 2 : 1);
      this.open.push(count);
      if (this.open.length > MAX_DEPTH) throw new Error(`nested deeper than ${MAX_DEPTH}`);
      if (count > 0) return token;
      this.open.pop();
    }
    this.close();
    return token;
  }

  /** A value ended, and with it every container whose last value it was. */
  private close(): void {
    while (this.open.length > 0) {
      const left = this.open[this.open.length - 1]! - 1;
      this.open[this.open.length - 1] = left;
      if (left > 0) return;
      this.open.pop();
    }
  }
}

/**
 * One CBOR value and nothing behind it. `fileOffset` is where it stands in its file, `name` what it is, for errors.
 * @throws CvmError `cbor-invalid`.
 */
export function decodeCbor(bytes: Uint8Array, name: string, fileOffset = 0): Cbor {
  if (bytes.length > MAX_CBOR_BYTES)
    throw new CvmError('cbor-invalid', `${name} has ${bytes.length} bytes; the limit is ${MAX_CBOR_BYTES}`, {
      fileOffset,
    });
  const options: DecodeOptions = { useMaps: true, rejectDuplicateMapKeys: true, allowBigInt: true, tags };
  const tokenizer = new BoundedTokenizer(bytes, options);
  try {
    return decode(bytes, { ...options, tokenizer });
  } catch (error) {
    const why = (error as Error).message.replace(/^CBOR decode error: /, '');
    throw new CvmError('cbor-invalid', `${name} is no CBOR: ${why}`, {
      fileOffset: fileOffset + Math.min(tokenizer.pos(), bytes.length),
    });
  }
}

/** Deterministic encoding (RFC 8949 §4.2): shortest forms, map keys in order. */
export const encodeCbor = (value: Cbor): Uint8Array => Uint8Array.from(encode(value));
