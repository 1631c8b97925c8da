/** The VMSA of a vCPU at launch, as each VMM leaves it (sev-snp-measure's `vmsa.py`, virtee/sev's `vmsa.rs`). */
import { CvmError } from '../base/index.ts';
import { VMSA, VMSA_SIZE, writeVmsa } from '../snp/index.ts';

export const VMM_TYPES = ['QEMU', 'ec2', 'gce', 'KRUN'] as const;
export type VmmType = (typeof VMM_TYPES)[number];

/** Where the boot processor starts. */
export const RESET_EIP = 0xffff_fff0;

/** KVM and the VMMs on it agree on this much: the processor's reset state, EFER.SVME and CR4.MCE set by KVM. */
const COMMON: Readonly<Record<string, bigint>> = {
  'es.attributes': 0x93n,
  'ds.attributes': 0x93n,
  'fs.attributes': 0x93n,
  'gs.attributes': 0x93n,
  'ldtr.attributes': 0x82n,
  'cs.selector': 0xf000n,
  efer: 0x1000n,
  cr4: 0x40n,
  cr0: 0x10n,
  dr7: 0x400n,
  dr6: 0xffff_0ff0n,
  rflags: 2n,
  g_pat: 0x0007_0406_0007_0406n,
  xcr0: 1n,
};
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'gdtr', 'ldtr', 'idtr', 'tr'];

/** What differs from one VMM to the next. RDX 0x600 is what KVM gives a vCPU whose CPUID is not set yet. */
function vmmFields(vmm: VmmType, eip: number, signature: number): Record<string, bigint> {
  const written = { 'cs.attributes': 0x9bn, 'ss.attributes': 0x93n, 'tr.attributes': 0x8bn };
  const untouched = { 'cs.attributes': 0x9an, 'ss.attributes': 0x92n, 'tr.attributes': 0x83n };
  switch (vmm) {
    case 'QEMU':
      return { ...written, rdx: BigInt(signature), mxcsr: 0x1f80n, x87_fcw: 0x37fn };
    case 'ec2':
      return { ...untouched, 'cs.attributes': eip === RESET_EIP ? 0x9an : 0x9bn, rdx: 0x600n };
    case 'gce':
      return { ...written, g_pat: 0x0007_0106n, rdx: 0x600n };
    case 'KRUN':
      return untouched;
  }
}

export interface InitialVmsaOptions {
  readonly vmm: VmmType;
  /** First instruction: CS base and RIP are cut from it. */
  readonly eip: number;
  /** CPUID signature; only QEMU's VMSA has it. */
  readonly signature: number;
  readonly sevFeatures: bigint;
  /** Fields to set after all others, by their names in the VMSA (`rdx`, `cs.attributes`). */
  readonly overrides?: Readonly<Record<string, bigint>>;
}

function build(
  fields: Readonly<Record<string, bigint>>,
  overrides: InitialVmsaOptions['overrides'],
): Uint8Array {
  const vmsa = new Uint8Array(VMSA_SIZE);
  for (const [name, value] of Object.entries(fields)) writeVmsa(vmsa, name, value);
  for (const [name, value] of Object.entries(overrides ?? {})) {
    const field = VMSA.fields.find((candidate) => candidate.name === name);
    if (!field || field.type === 'bytes')
      throw new CvmError('measure-vmsa-field', `the VMSA has no integer field '${name}'`, { name });
    if (value < 0n || value >> BigInt(8 * field.size))
      throw new CvmError('measure-vmsa-field', `${value} does not fit ${name} (${field.size} bytes)`, {
        name,
      });
    writeVmsa(vmsa, name, value);
  }
  return vmsa;
}

/**
 * The 4096 bytes of a vCPU's VMSA as KVM measures it at LAUNCH_FINISH.
 *
 * @throws CvmError `measure-vmsa-field` for an override that is not an integer field, or does not fit it.
 */
export function initialVmsa(options: InitialVmsaOptions): Uint8Array {
  const { vmm, eip, signature, sevFeatures, overrides } = options;
  const limits = Object.fromEntries(SEGMENTS.map((name) => [`${name}.limit`, 0xffffn]));
  return build(
    {
      ...COMMON,
      ...limits,
      ...vmmFields(vmm, eip, signature),
      'cs.base': BigInt(eip) & 0xffff_0000n,
      rip: BigInt(eip) & 0xffffn,
      sev_features: sevFeatures,
    },
    overrides,
  );
}

/**
 * The VMSA that QEMU with COCONUT-SVSM's patches (before IGVM) gives every vCPU: flat 32-bit protected mode at
 * `eip`. x87_fcw is 0, as in sev-snp-measure's known answers: see docs/measurement.md.
 */
export function svsmVmsa(
  options: Omit<InitialVmsaOptions, 'vmm' | 'sevFeatures' | 'eip'> & { eip: bigint },
): Uint8Array {
  const flat = (name: string, selector: bigint, attributes: bigint): Record<string, bigint> => ({
    [`${name}.selector`]: selector,
    [`${name}.attributes`]: attributes,
    [`${name}.limit`]: 0xffff_ffffn,
  });
  const limits = Object.fromEntries(SEGMENTS.map((name) => [`${name}.limit`, 0xffffn]));
  return build(
    {
      ...COMMON,
      ...limits,
      ...flat('cs', 8n, 0xc9bn),
      ...flat('es', 16n, 0xc93n),
      ...flat('ss', 16n, 0xc93n),
      ...flat('ds', 16n, 0xc93n),
      ...flat('fs', 16n, 0xc93n),
      'tr.attributes': 0x8bn,
      cr0: 0x11n,
      rip: options.eip,
      rdx: BigInt(options.signature),
      mxcsr: 0x1f80n,
      sev_features: 1n,
    },
    options.overrides,
  );
}
