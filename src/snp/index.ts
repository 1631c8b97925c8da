/**
 * The room of SEV-SNP: what the architecture adds to the processor. It knows no IGVM file and no editor.
 */
export * from './launch-digest.ts';
