/** The functions that were inlined into a frame, as frames of their own: one physical frame, several of the source. */
import type { SymbolSpace } from '../symbols/index.ts';
import type { Frame } from './stack.ts';

/** A place in a source file; `line` is 0 where the debug information names none. */
export interface SourcePlace {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

export interface SourceFrame {
  /** Undefined: there is no symbol. */
  readonly name: string | undefined;
  /** Of the innermost the line of the address, of the others that of the inlined call. */
  readonly place: SourcePlace | undefined;
}

/**
 * What a frame is in the source, innermost first: the functions inlined at its address, then the one that was
 * really called, which is always there.
 */
export function sourceFrames(symbols: SymbolSpace, { lookup }: Frame): SourceFrame[] {
  const chain = symbols.inlineFramesAt(lookup);
  const inlined = chain.filter((level) => level.inlined);
  const symbol = symbols.functionAt(lookup) ?? symbols.symbolAt(lookup);
  const place = inlined.length > 0 ? chain.find((level) => !level.inlined) : symbols.lineAt(lookup);
  return [
    ...inlined.map((level) => ({ name: `${level.name || 'a function'} [inlined]`, place: level })),
    { name: symbol?.name, place },
  ];
}
