/**
 * Addresses <-> source: ELF64 x86-64 files, their symbol tables, DWARF line tables, demangling. One
 * `SymbolSpace` holds the images of a guest (loader, kernel, user programs) and answers what is at an
 * address and where a line or a name is. Everything is read lazily and bounded: a hostile file gives
 * `CvmError` or diagnostics and partial tables, never a hang. It never opens files, never reads guest
 * memory, knows no machine and no debugger; types, variables and frames are not here yet.
 */
export { readElf } from './elf.ts';
export type { ElfFile, ElfSection, ElfSegment } from './elf.ts';
export { canDemangle, demangle, initSymbols, shortName } from './demangle.ts';
export { SymbolImage } from './image.ts';
export type {
  FunctionRange,
  ImageOptions,
  InlineFrame,
  LineInfo,
  SourceFile,
  SymbolHit,
  SymbolInfo,
} from './image.ts';
export { mapSource, normalizePath, unmapSource } from './paths.ts';
export type { SourceMap, SourceMapEntry } from './paths.ts';
export { SymbolSpace } from './space.ts';
export type { LineAddresses } from './space.ts';
export type { SymbolKind } from './symbol-table.ts';
