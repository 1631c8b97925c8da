/** The secrets page of an SNP guest (SEV-SNP Firmware ABI, §8.17, SECRETS; SVSM fields: SVSM spec. §5). */
import { structure, writeField } from '../base/index.ts';

export const SECRETS_PAGE = structure('SECRETS', 4096, [
  [0x000, 'VERSION', 'u32'],
  [0x004, 'FLAGS', 'u32'],
  [0x008, 'FMS', 'u32'],
  [0x00c, 'RESERVED_00C', 4],
  [0x010, 'GOSVW', 16],
  [0x020, 'VMPCK0', 32],
  [0x040, 'VMPCK1', 32],
  [0x060, 'VMPCK2', 32],
  [0x080, 'VMPCK3', 32],
  [0x0a0, 'GUEST_AREA_1', 96],
  [0x100, 'VMSA_TWEAK_BITMAP', 64],
  [0x140, 'SVSM_BASE', 'u64'],
  [0x148, 'SVSM_SIZE', 'u64'],
  [0x150, 'SVSM_CAA', 'u64'],
  [0x158, 'SVSM_MAX_VERSION', 'u32'],
  [0x15c, 'SVSM_GUEST_VMPL', 'u8'],
  [0x15d, 'RESERVED_15D', 3],
  [0x160, 'TSC_FACTOR', 'u32'],
  [0x164, 'RESERVED_164', 3740],
]);
const VERSION = 3n;

export interface Secrets {
  /** VMPCK0 to VMPCK3, 32 bytes each. */
  readonly vmpcks: readonly [Uint8Array, Uint8Array, Uint8Array, Uint8Array];
  /** CPUID Fn0000_0001 EAX of the chip. */
  readonly familyModelStepping: number;
}

/** The 4096 bytes the secure firmware puts in the guest. */
export function encodeSecretsPage(secrets: Secrets): Uint8Array {
  const page = new Uint8Array(SECRETS_PAGE.size);
  writeField(page, SECRETS_PAGE.field('VERSION'), VERSION);
  writeField(page, SECRETS_PAGE.field('FMS'), BigInt(secrets.familyModelStepping >>> 0));
  secrets.vmpcks.forEach((key, i) => page.set(key, SECRETS_PAGE.field(`VMPCK${i}`).offset));
  return page;
}
