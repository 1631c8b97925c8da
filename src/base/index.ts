/**
 * The ground every room stands on: errors that carry a place, structure tables, and the interfaces
 * through which files, hashing and signing are injected. It knows no CPU, no IGVM and no editor, and
 * (node.ts apart, which only `extension/` and `cli/` import) no host environment.
 */
export * from './errors.ts';
export * from './structure.ts';
export * from './host.ts';
export * from './hex.ts';
export * from './ranged.ts';
