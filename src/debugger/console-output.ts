/** The guest's serial ports as text. */

/**
 * Takes what the guest writes and gives it on as text: a character that is cut by the end of a write
 * waits for its rest. Each port is a stream of its own.
 */
export function consoleOutput(write: (text: string) => void): (port: number, bytes: Uint8Array) => void {
  const decoders = new Map<number, TextDecoder>();
  return (port, bytes) => {
    let decoder = decoders.get(port);
    if (!decoder) decoders.set(port, (decoder = new TextDecoder()));
    const text = decoder.decode(bytes, { stream: true });
    if (text !== '') write(text);
  };
}
