/** Loaders read the same file differently; each difference is one row here. docs/measurement.md has the sources. */
import type { PlatformType } from './tables.ts';
import type { HeaderType } from './types.ts';

export type ProfileName =
  | 'file-order'
  | 'hyper-v'
  | 'igvmmeasure'
  | 'igvmmeasure-native-zero'
  | 'qemu-kvm'
  | 'cloud-hypervisor-kvm'
  | 'cloud-hypervisor-mshv';

export interface LoaderProfile {
  readonly name: ProfileName;
  /** The loader in running text. */
  readonly title: string;
  /** The platforms it loads (or measures); `undefined`: any. */
  readonly platforms: readonly PlatformType[] | undefined;
  /** The directives and initialization headers it acts on; `undefined`: all. Others make it give up. */
  readonly handles: ReadonlySet<HeaderType> | undefined;
  /**
   * `file`: as they stand. `page-runs`: QEMU's runs, which a parameter insert overtakes while they are still
   * being collected. `gpa`: everything that becomes a page, VMSAs too, sorted by address.
   */
  readonly order: 'file' | 'page-runs' | 'gpa';
  /** Where VP contexts stand: among the directives, or after everything else (KVM at LAUNCH_FINISH). */
  readonly vpContexts: 'in-order' | 'last';
  /** GPA of every VMSA, whatever the file says; `undefined`: the file's. */
  readonly vmsaGpa: bigint | undefined;
  /** Whether the mask of a VP context is looked at. */
  readonly vpContextMask: 'filter' | 'ignore';
  /** The VP contexts that reach the guest with their contents; others become pages of zeros. */
  readonly vpContextData: 'all' | 'boot-only';
  /** Whether PAGE_DATA with the `shared` flag stays out of the measurement. */
  readonly sharedFlag: 'honour' | 'ignore';
  /** How a measured page without data is given to SNP. */
  readonly emptyPages: 'normal' | 'zero';
  /** How many pages of a parameter area are inserted (and so measured). */
  readonly insertPages: 'all' | 'first';
  /** Whether a parameter area starts with its data in the file. */
  readonly initialData: 'honour' | 'ignore';
  /**
   * A 2 MiB page: `all` its data, as the format says; its `first-4k` of data and then zeros; `one-4k` page
   * altogether; or `refuse-data`, and 512 pages only where it has none.
   */
  readonly largePages: 'all' | 'first-4k' | 'one-4k' | 'refuse-data';
  /**
   * What SEV and SEV-ES hash: `measured` pages, 4 KiB each; or the `data` of every page, whatever its flags,
   * and nothing for a page without.
   */
  readonly legacyPages: 'measured' | 'data';
}

const FILE_ORDER: LoaderProfile = {
  name: 'file-order',
  title: 'the format itself',
  platforms: undefined,
  handles: undefined,
  order: 'file',
  vpContexts: 'in-order',
  vmsaGpa: undefined,
  vpContextMask: 'filter',
  vpContextData: 'all',
  sharedFlag: 'honour',
  emptyPages: 'normal',
  insertPages: 'all',
  initialData: 'honour',
  largePages: 'all',
  legacyPages: 'measured',
};

const IGVMMEASURE: LoaderProfile = {
  ...FILE_ORDER,
  name: 'igvmmeasure',
  title: 'igvmmeasure',
  platforms: ['SEV_SNP', 'SEV_ES', 'SEV'],
  vpContextMask: 'ignore',
  sharedFlag: 'ignore',
  insertPages: 'first',
  largePages: 'refuse-data',
  legacyPages: 'data',
};

/** KVM_VMSA_GPA: KVM puts every VMSA here. */
const KVM_VMSA_GPA = 0xffff_ffff_f000n;

/** Headers QEMU's loader acts on (`backends/igvm.c`). */
const QEMU_HANDLES: ReadonlySet<HeaderType> = new Set([
  'GUEST_POLICY',
  'PAGE_DATA',
  'VP_CONTEXT',
  'PARAMETER_AREA',
  'PARAMETER_INSERT',
  'MEMORY_MAP',
  'VP_COUNT',
  'ENVIRONMENT_INFO',
  'REQUIRED_MEMORY',
  'SNP_ID_BLOCK',
  'MADT',
]);

const QEMU_KVM: LoaderProfile = {
  ...FILE_ORDER,
  name: 'qemu-kvm',
  title: 'QEMU',
  platforms: ['SEV_SNP', 'SEV_ES', 'SEV', 'NATIVE'],
  handles: QEMU_HANDLES,
  order: 'page-runs',
  vpContexts: 'last',
  vmsaGpa: KVM_VMSA_GPA,
  sharedFlag: 'ignore',
  initialData: 'ignore',
  largePages: 'first-4k',
};

/** Headers Cloud Hypervisor's loader acts on (`vmm/src/igvm/igvm_loader.rs`); it panics at other directives. */
const CLOUD_HYPERVISOR_HANDLES: ReadonlySet<HeaderType> = new Set([
  'GUEST_POLICY',
  'PAGE_DATA',
  'VP_CONTEXT',
  'PARAMETER_AREA',
  'PARAMETER_INSERT',
  'MEMORY_MAP',
  'VP_COUNT',
  'COMMAND_LINE',
  'REQUIRED_MEMORY',
  'SNP_ID_BLOCK',
]);

const CLOUD_HYPERVISOR_KVM: LoaderProfile = {
  ...FILE_ORDER,
  name: 'cloud-hypervisor-kvm',
  title: 'Cloud Hypervisor',
  platforms: ['SEV_SNP'],
  handles: CLOUD_HYPERVISOR_HANDLES,
  vpContexts: 'last',
  vmsaGpa: KVM_VMSA_GPA,
  sharedFlag: 'ignore',
  emptyPages: 'zero',
  largePages: 'one-4k',
};

/**
 * - `file-order`: directives in file order, as the format says: shared pages stay out of the digest, every
 *   page of a parameter insert counts, VP contexts are filtered by mask, a 2 MiB page is 512 pages with all of
 *   its data. `igvm::measurement` (0.5) gives the same but refuses 2 MiB pages.
 * - `hyper-v`: as igvmfilegen measures for Hyper-V: the same, with 4 KiB of a 2 MiB page.
 * - `igvmmeasure`: as COCONUT-SVSM's igvmmeasure reads a file: `shared` and the mask of VP contexts are
 *   ignored, a parameter insert counts one page. For comparing digests; a guest with a larger area would lack
 *   pages if it were launched with it. `igvmmeasure-native-zero` is `igvmmeasure --native-zero`: a page
 *   without data is of SNP's type ZERO.
 * - `qemu-kvm`: as QEMU's `backends/igvm.c` with KVM: adjacent PAGE_DATA of one kind merge into a run that is
 *   handed over at the next PAGE_DATA that does not continue it (next address, same kind, next directive), so a
 *   PARAMETER_INSERT behind a run comes before it; VMSAs come last, at GPA 0xFFFFFFFFF000, one for each vCPU
 *   (see `LaunchOptions.vcpus`); `shared` and the initial data of parameter areas are ignored; of a 2 MiB page
 *   the first 4 KiB carry data.
 * - `cloud-hypervisor-kvm`: file order, VMSAs last as KVM does, pages without data are of type ZERO.
 * - `cloud-hypervisor-mshv`: every page, VMSAs too, sorted by address; a parameter insert counts one page;
 *   the VMSA of any VP but 0 is a page of zeros.
 */
export const PROFILES: Readonly<Record<ProfileName, LoaderProfile>> = {
  'file-order': FILE_ORDER,
  'hyper-v': {
    ...FILE_ORDER,
    name: 'hyper-v',
    title: 'Hyper-V',
    platforms: ['SEV_SNP', 'TDX', 'VSM_ISOLATION'],
    largePages: 'one-4k',
  },
  igvmmeasure: IGVMMEASURE,
  'igvmmeasure-native-zero': { ...IGVMMEASURE, name: 'igvmmeasure-native-zero', emptyPages: 'zero' },
  'qemu-kvm': QEMU_KVM,
  'cloud-hypervisor-kvm': CLOUD_HYPERVISOR_KVM,
  'cloud-hypervisor-mshv': {
    ...CLOUD_HYPERVISOR_KVM,
    name: 'cloud-hypervisor-mshv',
    order: 'gpa',
    vpContexts: 'in-order',
    vmsaGpa: undefined,
    vpContextData: 'boot-only',
    emptyPages: 'normal',
    insertPages: 'first',
  },
};
