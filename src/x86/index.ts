/**
 * The processor: decoding, semantics, paging, exceptions, and the engine that runs them. It knows
 * x86-64 and asks a `Platform` for everything around it; it never knows SNP, IGVM or a host.
 */
export * from './cpu.ts';
export * from './engine.ts';
export * from './exceptions.ts';
export * from './helper.ts';
export * from './layout.ts';
export * from './memory.ts';
export { OpView } from './opview.ts';
export * from './platform.ts';
export * from './system/index.ts';
