/** Collects console bytes into lines, so that a guest's 16550 does not cost a call for each byte. */
const LIMIT = 1024;

export class ConsoleBuffer {
  readonly #sink: ((port: number, bytes: Uint8Array) => void) | undefined;
  readonly #pending = new Map<number, number[]>();

  constructor(sink: ((port: number, bytes: Uint8Array) => void) | undefined) {
    this.#sink = sink;
  }
  put(port: number, byte: number): void {
    let bytes = this.#pending.get(port);
    if (!bytes) this.#pending.set(port, (bytes = []));
    bytes.push(byte);
    if (byte === 0x0a || bytes.length >= LIMIT) this.#send(port, bytes);
  }
  /** Gives out what is left. */
  flush(): void {
    for (const [port, bytes] of this.#pending) this.#send(port, bytes);
  }
  #send(port: number, bytes: number[]): void {
    if (bytes.length === 0) return;
    const chunk = Uint8Array.from(bytes);
    bytes.length = 0;
    this.#sink?.(port, chunk);
  }
}
