/** The base protocol of DAP on a byte stream: `Content-Length: N`, an empty line, N bytes of JSON. */
import { CvmError } from '../base/index.ts';

const MAX_HEADER = 4096;
const MAX_MESSAGE = 64 * 2 ** 20;
const HEADER_END = Buffer.from('\r\n\r\n');

/** Cuts a stream of bytes into messages. */
export class MessageReader {
  private readonly onMessage: (message: unknown) => void;
  private chunks: Buffer[] = [];
  private buffered = 0;
  /** Of the message whose header was read. */
  private length: number | undefined;

  constructor(onMessage: (message: unknown) => void) {
    this.onMessage = onMessage;
  }

  /** @throws CvmError `framing` when the stream is not this protocol: nothing after it can be trusted. */
  feed(chunk: Buffer): void {
    this.chunks.push(chunk);
    this.buffered += chunk.length;
    // A long message arrives in many chunks: they are joined once.
    if (this.length !== undefined && this.buffered < this.length) return;
    let data = Buffer.concat(this.chunks);
    for (;;) {
      if (this.length === undefined) {
        const end = data.indexOf(HEADER_END);
        if (end < 0 ? data.length > MAX_HEADER : end > MAX_HEADER)
          throw new CvmError('framing', 'the header of a message is too long');
        if (end < 0) break;
        this.length = contentLength(data.subarray(0, end).toString('latin1'));
        data = data.subarray(end + HEADER_END.length);
      }
      if (data.length < this.length) break;
      const text = data.subarray(0, this.length).toString('utf8');
      data = data.subarray(this.length);
      this.length = undefined;
      let message: unknown;
      try {
        message = JSON.parse(text);
      } catch {
        throw new CvmError('framing', 'a message is not JSON');
      }
      this.onMessage(message);
    }
    this.chunks = data.length > 0 ? [data] : [];
    this.buffered = data.length;
  }
}

function contentLength(header: string): number {
  const match = /^content-length:[ \t]*([0-9]{1,9})[ \t]*$/im.exec(header);
  const length = match ? Number(match[1]) : NaN;
  if (!(length <= MAX_MESSAGE))
    throw new CvmError(
      'framing',
      match ? `a message has ${match[1]} bytes` : 'a message has no Content-Length',
    );
  return length;
}

export function frame(message: unknown): Buffer {
  const body = Buffer.from(JSON.stringify(message), 'utf8');
  return Buffer.concat([Buffer.from(`Content-Length: ${body.length}\r\n\r\n`, 'latin1'), body]);
}
