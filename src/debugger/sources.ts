/**
 * Sources as the client sees them: a file where it exists, else the disassembly of the function, as a
 * document of its own that the adapter serves.
 */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { CvmError, hex } from '../base/index.ts';
import type { FileAccess } from '../base/index.ts';
import type { Machine, MachineThread } from '../vmm/index.ts';
import type { SymbolSpace } from '../symbols/index.ts';
import { decode } from './disassembler.ts';
import type { SourcePlace } from './inlining.ts';
import { baseName } from './launch.ts';
import { codeBits } from './registers.ts';

/** The disassembly of one function. */
interface Listing {
  readonly reference: number;
  readonly name: string;
  readonly text: string;
  /** Address of each line from line 1 on; undefined for headings. */
  readonly addresses: readonly (bigint | undefined)[];
}

export interface Position {
  readonly source: P.Source;
  readonly line: number;
  readonly column: number;
}

/** Longest function shown as a document, in bytes. */
const MAX_FUNCTION = 64 * 1024;
const MAX_LISTINGS = 1000;

export class Sources {
  private readonly files: FileAccess;
  private readonly found = new Map<string, boolean>();
  private readonly listings = new Map<string, Listing>();
  private readonly byReference = new Map<number, Listing>();

  constructor(files: FileAccess) {
    this.files = files;
  }

  /** The guest is another: its disassembly is too. References stay unique. */
  reset(): void {
    this.listings.clear();
  }

  /** Asks once whether the files exist. */
  async probe(paths: Iterable<string>): Promise<void> {
    const unknown = [...new Set(paths)].filter((path) => path !== '' && !this.found.has(path));
    await Promise.all(
      unknown.map(async (path) => {
        this.found.set(path, await this.files.exists(path).catch(() => false));
      }),
    );
  }

  /** A position in an existing file (after `probe`), or undefined. */
  inFile(line: SourcePlace | undefined): Position | undefined {
    if (!line || line.line === 0 || !this.found.get(line.file)) return undefined;
    return { source: fileSource(line.file), line: line.line, column: line.column };
  }

  /** A position in the disassembly of the function around an address; undefined without symbols. */
  inDisassembly(
    machine: Machine,
    symbols: SymbolSpace,
    thread: MachineThread,
    address: bigint,
  ): Position | undefined {
    const range = symbols.functionAt(address);
    if (!range || range.end - range.start > BigInt(MAX_FUNCTION)) return undefined;
    const key = `${range.image.name}:${range.start}`;
    let listing = this.listings.get(key);
    if (!listing) {
      if (this.byReference.size >= MAX_LISTINGS) return undefined;
      const length = Number(range.end - range.start);
      const { bytes, readable } = machine.readVirtual(thread, range.start, length);
      if (readable < length) return undefined;
      listing = this.add(key, range.name, range.start, bytes, codeBits(thread.cpu), symbols);
    }
    // A return address may lie behind the function: the line is that of the call.
    let index = listing.addresses.length - 1;
    while (index >= 0 && !(listing.addresses[index]! <= address)) index--;
    return {
      source: {
        name: `${listing.name} (disassembly)`,
        sourceReference: listing.reference,
        presentationHint: 'normal',
        origin: 'its source file is not here',
      },
      line: index < 0 ? 1 : index + 1,
      column: 1,
    };
  }

  /** The text of a served document. @throws CvmError `unknown-source`. */
  content(reference: number): P.SourceResponse['body'] {
    const listing = this.byReference.get(reference);
    if (!listing) throw new CvmError('unknown-source', `there is no source with reference ${reference}`);
    return { content: listing.text, mimeType: 'text/x-asm' };
  }

  /** The address of a line of a served document, or of the next that has one. */
  addressAt(reference: number, line: number): { address: bigint; line: number } | undefined {
    const addresses = this.byReference.get(reference)?.addresses ?? [];
    for (let at = Math.max(1, line); at <= addresses.length; at++) {
      const address = addresses[at - 1];
      if (address !== undefined) return { address, line: at };
    }
    return undefined;
  }

  private add(
    key: string,
    name: string,
    start: bigint,
    code: Uint8Array,
    bits: 16 | 32 | 64,
    symbols: SymbolSpace,
  ): Listing {
    const lines: string[] = [`; ${name}`];
    const addresses: (bigint | undefined)[] = [undefined];
    let last = '';
    for (const instruction of decode(code, start, bits, MAX_FUNCTION)) {
      const at = symbols.lineAt(instruction.address);
      const place = at && at.line > 0 ? `${at.file}:${at.line}` : '';
      if (place && place !== last) {
        lines.push(`; ${place}`);
        addresses.push(undefined);
        last = place;
      }
      lines.push(`${hex(instruction.address)}  ${describeTarget(instruction, symbols)}`);
      addresses.push(instruction.address);
    }
    const listing = { reference: this.byReference.size + 1, name, text: `${lines.join('\n')}\n`, addresses };
    this.listings.set(key, listing);
    this.byReference.set(listing.reference, listing);
    return listing;
  }
}

export const fileSource = (path: string): P.Source => ({ name: baseName(path), path });

/** Text of an instruction, with the symbol a direct branch goes to. */
export function describeTarget(
  instruction: { readonly text: string; readonly target: bigint | undefined },
  symbols: SymbolSpace,
): string {
  if (instruction.target === undefined) return instruction.text;
  const name = symbolic(symbols, instruction.target);
  return name === undefined ? instruction.text : `${instruction.text}  <${name}>`;
}

/** `name` or `name+0x10`; undefined where nothing is known. */
export function symbolic(symbols: SymbolSpace, address: bigint): string | undefined {
  const hit = symbols.symbolAt(address);
  if (!hit) return undefined;
  return hit.offset === 0n ? hit.name : `${hit.name}+${hex(hit.offset)}`;
}
