/**
 * The room of IGVM files: bytes to typed headers and back without losing a bit, the rules of the format as
 * diagnostics, and the list of operations a loader makes of the directives. It knows no processor and no
 * editor, hashes nothing but the checksum, and never copies or interprets what the pages contain.
 */
export { parseIgvm, dataOf } from './read.ts';
export { parseSparseIgvm } from './sparse.ts';
export { writeIgvm } from './write.ts';
export type { IgvmModel } from './write.ts';
export { IgvmBuilder, makeHeader } from './builder.ts';
export type { BuilderOptions, HeaderOptions } from './builder.ts';
export { buildFromSpec } from './spec.ts';
export type { SpecFiles } from './spec.ts';
export { choosePlatform, platforms } from './platforms.ts';
export { launchOperations, requireComplete } from './launch.ts';
export type { LaunchOptions, LaunchPlan, VcpuExpansion } from './launch.ts';
export type * from './operations.ts';
export { PROFILES } from './profiles.ts';
export type { LoaderProfile, ProfileName } from './profiles.ts';
export { headerFields, specOf } from './codec.ts';
export type { FieldValue, HeaderFieldRow } from './codec.ts';
export * from './tables.ts';
export * from './contexts.ts';
export type * from './types.ts';
