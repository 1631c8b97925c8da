/**
 * The room of SEV-SNP: what the architecture adds to the processor. The RMP, VMPLs, the VMSA, #VC, the formats
 * of the GHCB and of the special pages, and the emulated secure firmware that launches a guest. It knows no
 * IGVM file, no host policy and no editor.
 */
export * from './launch-digest.ts';
export * from './vmsa.ts';
export * from './vmsa-describe.ts';
export * from './exit-codes.ts';
export * from './rmp.ts';
export * from './rmp-instructions.ts';
export * from './ghcb.ts';
export * from './cpuid-page.ts';
export * from './secrets-page.ts';
export * from './firmware.ts';
export * from './guest-messages.ts';
export { openAesGcm, sealAesGcm } from './aes-gcm.ts';
export * from './sev-platform.ts';
