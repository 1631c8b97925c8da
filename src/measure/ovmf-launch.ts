/**
 * Launch digests of a guest that boots from OVMF rather than from an IGVM file, with sev-snp-measure's
 * modes and its words for them.
 */
import { CvmError, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import type { LaunchOperation, LaunchPageType } from '../igvm/index.ts';
import { cpuSignature, signatureOfType } from './cpu-signature.ts';
import { RESET_EIP, initialVmsa, svsmVmsa } from './initial-vmsa.ts';
import type { VmmType } from './initial-vmsa.ts';
import { hashTable, hashTablePage } from './kernel-hashes.ts';
import type { BootFiles, FileContents } from './kernel-hashes.ts';
import { OvmfImage } from './ovmf.ts';
import type { SevSection } from './ovmf.ts';
import { sevDigest } from './sev.ts';
import { DigestTrace } from './snp.ts';

/**
 * `snp:ovmf-hash`: the launch digest after the OVMF image alone, for `snpOvmfHash`. `snp:svsm`: an SVSM binary
 * below OVMF, as QEMU with COCONUT-SVSM's patches launched it before IGVM.
 */
export const OVMF_MODES = ['sev', 'seves', 'snp', 'snp:ovmf-hash', 'snp:svsm'] as const;
export type OvmfMode = (typeof OVMF_MODES)[number];

export interface OvmfLaunch {
  readonly mode: OvmfMode;
  readonly ovmf: Uint8Array;
  /** Number of vCPUs: needed wherever VMSAs are measured. */
  readonly vcpus?: number;
  /** The guest's CPU, one of three ways: QEMU's name, the CPUID signature, or family, model, stepping. */
  readonly vcpuType?: string;
  readonly vcpuSig?: number;
  readonly vcpuFamily?: number;
  readonly vcpuModel?: number;
  readonly vcpuStepping?: number;
  /** Default `QEMU`. */
  readonly vmmType?: VmmType;
  readonly kernel?: FileContents;
  readonly initrd?: FileContents;
  readonly append?: string;
  /** SEV_FEATURES of every VMSA (mode `snp`); default 1, SNPActive. */
  readonly guestFeatures?: bigint;
  /** The digest of mode `snp:ovmf-hash`, 48 bytes: `ovmf` then gives the metadata only. */
  readonly snpOvmfHash?: Uint8Array;
  /** Mode `snp:svsm`: the SVSM binary, and the size of the variable store between it and OVMF. */
  readonly svsm?: Uint8Array;
  readonly varsSize?: number;
  /** VMSA fields (`rdx`, `x87_fcw`) to set on every vCPU, for a VMM that none of the types describes. */
  readonly vmsaFields?: Readonly<Record<string, bigint>>;
  /** Where the VMSAs are measured; default 0xFFFFFFFFF000, KVM's. GCE's is ((1 << bits) - 1) & ~0xfff. */
  readonly vmsaGpa?: bigint;
}

/** A piece of the launch, in the order in which it is given to the platform. */
export interface OvmfPart {
  /** For example `OVMF image`, `SEC_MEM`, `kernel hashes`, `VMSA of vCPU 0`. */
  readonly name: string;
  readonly gpa: bigint;
  readonly size: number;
}

export interface OvmfMeasurement {
  readonly mode: OvmfMode;
  readonly algorithm: 'SHA-384' | 'SHA-256';
  /** 48 bytes for SNP, 32 for SEV and SEV-ES. */
  readonly digest: Uint8Array;
  /** What `directive` of an operation and of a step is an index of. */
  readonly parts: readonly OvmfPart[];
  readonly operations: readonly LaunchOperation[];
  /** SNP: the running digest. */
  readonly steps: DigestTrace | undefined;
  /** The measured VMSAs by vCPU, 4096 bytes each (vCPUs after the first share one array). */
  readonly vmsas: readonly Uint8Array[];
}

const PAGE_SIZE = 4096;
const KVM_VMSA_GPA = 0xffff_ffff_f000n;
/** Bound of all pages together: images have a few MiB, their sections too. */
const SIZE_LIMIT = 1 << 30;
/** KVM_MAX_VCPUS. */
export const MAX_VCPUS = 4096;

const refuse = (code: string, message: string): CvmError => new CvmError(code, message);

/**
 * The CPUID signature that a launch names, by sev-snp-measure's precedence: family, signature, type;
 * `undefined` if it names none.
 *
 * @throws CvmError `measure-cpu-type`
 */
export function signatureOf(
  launch: Pick<OvmfLaunch, 'vcpuType' | 'vcpuSig' | 'vcpuFamily' | 'vcpuModel' | 'vcpuStepping'>,
): number | undefined {
  const { vcpuFamily, vcpuModel, vcpuStepping, vcpuSig, vcpuType } = launch;
  if (vcpuFamily !== undefined) {
    if (vcpuModel === undefined || vcpuStepping === undefined)
      throw refuse('measure-cpu-type', 'a vCPU family needs its model and stepping');
    return cpuSignature({ family: vcpuFamily, model: vcpuModel, stepping: vcpuStepping });
  }
  if (vcpuSig !== undefined) return vcpuSig;
  return vcpuType === undefined ? undefined : signatureOfType(vcpuType);
}

/** Collects operations and the parts they belong to. */
class Launch {
  readonly parts: OvmfPart[] = [];
  readonly operations: LaunchOperation[] = [];
  private total = 0;

  /** Pages of one type; without `data` as many as `size` has. */
  pages(name: string, gpa: number, size: number, pageType: LaunchPageType, data?: Uint8Array): void {
    if (size % PAGE_SIZE !== 0)
      throw refuse('ovmf-format', `${name} at gpa ${hex(gpa)} has ${size} bytes, not a multiple of 4 KiB`);
    if ((this.total += size) > SIZE_LIMIT)
      throw refuse('ovmf-format', `with ${name} the launch has over ${SIZE_LIMIT >> 20} MiB of pages`);
    const directive = this.parts.push({ name, gpa: BigInt(gpa), size }) - 1;
    for (let offset = 0; offset < size; offset += PAGE_SIZE)
      this.operations.push({
        kind: 'page',
        gpa: BigInt(gpa + offset),
        pageType,
        data: data?.subarray(offset, offset + PAGE_SIZE),
        shared: false,
        directive,
      });
  }

  /** Bytes that SEV hashes as they are; the last page may be short. */
  bytes(name: string, gpa: number, bytes: Uint8Array): void {
    const directive = this.parts.push({ name, gpa: BigInt(gpa), size: bytes.length }) - 1;
    for (let offset = 0; offset < bytes.length; offset += PAGE_SIZE) {
      const data = bytes.subarray(offset, offset + PAGE_SIZE);
      const at = BigInt(gpa + offset);
      this.operations.push({ kind: 'page', gpa: at, pageType: 'normal', data, shared: false, directive });
    }
  }

  vmsas(vmsas: readonly Uint8Array[], gpa: bigint): void {
    for (const [vpIndex, data] of vmsas.entries()) {
      const directive = this.parts.push({ name: `VMSA of vCPU ${vpIndex}`, gpa, size: PAGE_SIZE }) - 1;
      this.operations.push({ kind: 'vp-context', gpa, vpIndex, format: 'snp-vmsa', data, directive });
    }
  }
}

function bootFiles(launch: OvmfLaunch): BootFiles | undefined {
  const { kernel, initrd, append } = launch;
  if (kernel) return { kernel, ...(initrd && { initrd }), ...(append !== undefined && { append }) };
  if (initrd || append) throw refuse('measure-usage', 'an initrd or a command line needs a kernel');
  return undefined;
}

interface MetadataContext {
  readonly image: OvmfImage;
  readonly vmm: VmmType;
  readonly files: BootFiles | undefined;
  readonly crypto: Crypto;
}

function section(launch: Launch, { gpa, size, type, rawType }: SevSection, context: MetadataContext): void {
  switch (type) {
    case 'SEC_MEM':
      return launch.pages(type, gpa, size, context.vmm === 'gce' ? 'unmeasured' : 'zero');
    case 'SVSM_CAA':
      return launch.pages(type, gpa, size, 'zero');
    case 'SECRETS':
      return launch.pages(type, gpa, PAGE_SIZE, 'secrets');
    case 'CPUID':
      return launch.pages(type, gpa, PAGE_SIZE, 'cpuid');
    case 'KERNEL_HASHES': {
      const { files, image, crypto } = context;
      if (!files) return launch.pages('kernel hashes (none)', gpa, size, 'zero');
      const table = image.hashTableGpa;
      if (table === undefined)
        throw refuse('ovmf-kernel-hashes', 'the OVMF image has no place for kernel hashes');
      if (size !== PAGE_SIZE)
        throw refuse('ovmf-format', `the section for kernel hashes has ${size} bytes, not 4096`);
      const page = hashTablePage(files, table & 0xfff, crypto);
      return launch.pages('kernel hashes', gpa, size, 'normal', page);
    }
    case undefined:
      throw refuse('ovmf-format', `SEV metadata section of unknown type ${rawType}`);
  }
}

/** Sections in the order of the VMM: EC2 leaves the CPUID page to the end. */
function metadata(launch: Launch, context: MetadataContext): void {
  const sections = context.image.sevSections;
  const isLast = ({ type }: SevSection): boolean => context.vmm === 'ec2' && type === 'CPUID';
  for (const one of sections) if (!isLast(one)) section(launch, one, context);
  for (const one of sections) if (isLast(one)) section(launch, one, context);
  if (context.files && !sections.some(({ type }) => type === 'KERNEL_HASHES'))
    throw refuse(
      'ovmf-kernel-hashes',
      "a kernel is given, but the OVMF image's SEV metadata has no section for kernel hashes: use an AmdSev build",
    );
}

function vmsasOf(launch: OvmfLaunch, apEip: number | undefined): Uint8Array[] {
  const { vcpus, vmmType: vmm = 'QEMU', mode } = launch;
  if (vcpus === undefined) throw refuse('measure-usage', `mode ${mode} needs the number of vCPUs`);
  if (!Number.isInteger(vcpus) || vcpus < 0 || vcpus > MAX_VCPUS)
    throw refuse('measure-usage', `${vcpus} vCPUs: from 0 to ${MAX_VCPUS} can be measured`);
  const signature = signatureOf(launch);
  if (signature === undefined && vmm === 'QEMU')
    throw refuse(
      'measure-cpu-type',
      `mode ${mode} needs the vCPU type or signature: QEMU puts it into RDX of every VMSA`,
    );
  const common = {
    vmm,
    signature: signature ?? 0,
    ...(launch.vmsaFields && { overrides: launch.vmsaFields }),
  };
  const sevFeatures = mode === 'seves' ? 0n : (launch.guestFeatures ?? 1n);
  if (vcpus > 1 && !apEip)
    throw refuse('ovmf-format', 'the OVMF image names no reset address for other vCPUs than the first');
  const ap = vcpus > 1 ? initialVmsa({ ...common, eip: apEip!, sevFeatures }) : undefined;
  return Array.from({ length: vcpus }, (_, index) =>
    index === 0 ? initialVmsa({ ...common, eip: RESET_EIP, sevFeatures }) : ap!,
  );
}

function svsmVmsas(launch: OvmfLaunch, eip: bigint): Uint8Array[] {
  // The same checks; all vCPUs start at the SVSM's entry.
  const vcpus = vmsasOf({ ...launch, vmsaFields: {} }, RESET_EIP).length;
  const vmsa = svsmVmsa({
    eip,
    signature: signatureOf(launch)!,
    ...(launch.vmsaFields && { overrides: launch.vmsaFields }),
  });
  return Array.from({ length: vcpus }, () => vmsa);
}

function legacyParts(launch: Launch, options: OvmfLaunch, image: OvmfImage, crypto: Crypto): void {
  launch.bytes('OVMF image', image.gpa, image.bytes);
  const files = bootFiles(options);
  if (!files) return;
  const table = image.hashTableGpa;
  if (!table)
    throw refuse(
      'ovmf-kernel-hashes',
      'a kernel is given, but the OVMF image has no place for kernel hashes: use an AmdSev build',
    );
  launch.bytes('kernel hashes', table, hashTable(files, crypto));
}

/**
 * The launch digest of an OVMF guest, as the platform will report it, with every piece it is made of.
 *
 * @throws CvmError `ovmf-format` for an image without what the mode needs, `ovmf-kernel-hashes` for a kernel
 *   that the image cannot verify, `measure-cpu-type`, `measure-vmsa-field`, and `measure-usage` for options
 *   that contradict each other.
 */
export function measureOvmf(options: OvmfLaunch, crypto: Crypto): OvmfMeasurement {
  const { mode, vmmType = 'QEMU', snpOvmfHash, vmsaGpa = KVM_VMSA_GPA } = options;
  const image = new OvmfImage(options.ovmf);
  const launch = new Launch();
  let vmsas: Uint8Array[] = [];
  if (snpOvmfHash && mode !== 'snp')
    throw refuse('measure-usage', 'a hash of OVMF is of use in mode snp only');
  if (snpOvmfHash && snpOvmfHash.length !== 48)
    throw refuse('measure-usage', `the hash of OVMF has 48 bytes, not ${snpOvmfHash.length}`);
  if (mode === 'sev' || mode === 'seves') {
    legacyParts(launch, options, image, crypto);
    if (mode === 'seves') vmsas = vmsasOf(options, image.apResetEip);
  } else {
    if (!snpOvmfHash) launch.pages('OVMF image', image.gpa, image.bytes.length, 'normal', image.bytes);
    if (mode === 'snp') {
      metadata(launch, { image, vmm: vmmType, files: bootFiles(options), crypto });
      vmsas = vmsasOf(options, image.apResetEip);
    } else if (mode === 'snp:svsm') vmsas = svsmParts(launch, options, image, crypto);
  }
  launch.vmsas(vmsas, vmsaGpa);
  const { parts, operations } = launch;
  const common = { mode, parts, operations, vmsas };
  if (mode === 'sev' || mode === 'seves')
    return {
      ...common,
      algorithm: 'SHA-256',
      steps: undefined,
      digest: sevDigest(operations, 'data', crypto),
    };
  const steps = new DigestTrace(operations, crypto, snpOvmfHash);
  return { ...common, algorithm: 'SHA-384', steps, digest: steps.digest };
}

function svsmParts(launch: Launch, options: OvmfLaunch, ovmf: OvmfImage, crypto: Crypto): Uint8Array[] {
  if ((options.vmmType ?? 'QEMU') !== 'QEMU') throw refuse('measure-usage', 'mode snp:svsm is for QEMU only');
  if (!options.svsm) throw refuse('measure-usage', 'mode snp:svsm needs the SVSM binary');
  if (options.varsSize === undefined)
    throw refuse('measure-usage', 'mode snp:svsm needs the size of the OVMF variable store');
  const svsm = new OvmfImage(options.svsm);
  const gpa = ovmf.gpa - options.varsSize - svsm.bytes.length;
  if (gpa < 0 || options.varsSize < 0)
    throw refuse('measure-usage', `a variable store of ${options.varsSize} bytes leaves no room`);
  const offset = svsm.svsmLaunchOffset;
  if (offset === undefined) throw refuse('ovmf-format', 'the SVSM binary does not say where it starts');
  launch.pages('SVSM binary', gpa, svsm.bytes.length, 'normal', svsm.bytes);
  metadata(launch, { image: svsm, vmm: 'QEMU', files: undefined, crypto });
  return svsmVmsas(options, BigInt(offset + gpa));
}
