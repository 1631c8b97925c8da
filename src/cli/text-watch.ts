/** Finds a text in a stream of bytes, however it is cut into writes. */
export class TextWatch {
  readonly text: string;
  found = false;
  private readonly wanted: Buffer;
  private tail: Buffer = Buffer.alloc(0);

  constructor(text: string) {
    this.text = text;
    this.wanted = Buffer.from(text, 'utf8');
  }

  /** The next bytes; returns those of them up to the end of the text, all if it is not there yet. */
  feed(bytes: Uint8Array): Uint8Array {
    const all = Buffer.concat([this.tail, bytes]);
    const at = all.indexOf(this.wanted);
    if (at >= 0) {
      this.found = true;
      return bytes.subarray(0, Math.max(0, at + this.wanted.length - this.tail.length));
    }
    this.tail = all.subarray(Math.max(0, all.length - this.wanted.length + 1));
    return bytes;
  }
}
