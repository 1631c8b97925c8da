/** Where breakpoints are placed, by the symbols of a guest. */
import type { Places } from './breakpoints.ts';
import type { Guest } from './launch.ts';
import { fileSource } from './sources.ts';
import type { Sources } from './sources.ts';

export function placesOf({ symbols }: Guest, sources: Sources): Places {
  return {
    line(source, line) {
      if (source.sourceReference) {
        const found = sources.addressAt(source.sourceReference, line);
        return found ? { addresses: [found.address], line: found.line } : 'No instruction follows this line';
      }
      const path = source.path ?? source.name;
      if (!path) return 'The source has no path';
      const { files, ambiguous } = symbols.matchSource(path);
      if (ambiguous.length > 0)
        return `Several files of the debug information could be meant: ${ambiguous.slice(0, 5).join(', ')}. A sourceMap decides`;
      if (files.length === 0) return 'No symbol file of this guest has debug information for this file';
      const found = symbols.addressesOf(path, line);
      return found ?? 'No code follows this line';
    },
    function(name) {
      const found = symbols.symbolByName(name).filter((symbol) => symbol.kind !== 'object');
      if (found.length === 0) return `There is no function named '${name.slice(0, 200)}'`;
      return [...new Set(found.map((symbol) => symbols.afterPrologue(symbol.address)))];
    },
    describe(address) {
      const line = symbols.lineAt(address);
      return line && line.line > 0 ? { source: fileSource(line.file), line: line.line } : {};
    },
  };
}
