/** Loaders read the same file differently; each difference is one row here. */

export type ProfileName = 'file-order' | 'igvmmeasure' | 'qemu-kvm';

export interface LoaderProfile {
  readonly name: ProfileName;
  /** Where VP contexts stand: among the directives, or after everything else (KVM at LAUNCH_FINISH). */
  readonly vpContexts: 'in-order' | 'last';
  /** GPA of every VMSA, whatever the file says; `undefined`: the file's. */
  readonly vmsaGpa: bigint | undefined;
  /** Whether the mask of a VP context is looked at. */
  readonly vpContextMask: 'filter' | 'ignore';
  /** Whether PAGE_DATA with the `shared` flag stays out of the measurement. */
  readonly sharedFlag: 'honour' | 'ignore';
  /** How many pages of a parameter area are inserted (and so measured). */
  readonly insertPages: 'all' | 'first';
  /** Data of a 2 MiB page: all of it as the format says, or 4 KiB and then zeros. */
  readonly largePageData: 'all' | 'first-4k';
  /** QEMU's page runs: a parameter insert overtakes the run that is still being collected. */
  readonly pageRuns: boolean;
}

/**
 * - `file-order`: directives in file order, as igvmfilegen and `igvm::measurement` (0.5) take them: shared
 *   pages stay out of the digest, every page of a parameter insert counts, VP contexts are filtered by mask.
 *   Beyond the crate, a 2 MiB page is 512 pages with all of its data, as the format defines it.
 * - `igvmmeasure`: as COCONUT-SVSM's igvmmeasure reads a file: `shared` and the mask of VP contexts are
 *   ignored, a parameter insert counts one page. For comparing digests; a guest with a larger area would lack
 *   pages if it were launched with it.
 * - `qemu-kvm`: as QEMU's `backends/igvm.c` with KVM: adjacent PAGE_DATA of one kind merge into a run that is
 *   handed over at the next PAGE_DATA that does not continue it (next address, same kind, next directive), so a
 *   PARAMETER_INSERT behind a run comes before it; VMSAs
 *   come last, at GPA 0xFFFFFFFFF000; `shared` and the initial data of parameter areas are ignored; of a 2 MiB
 *   page the first 4 KiB carry data. Only the VMSAs in the file are listed: KVM measures one for each vCPU.
 */
export const PROFILES: Readonly<Record<ProfileName, LoaderProfile>> = {
  'file-order': {
    name: 'file-order',
    vpContexts: 'in-order',
    vmsaGpa: undefined,
    vpContextMask: 'filter',
    sharedFlag: 'honour',
    insertPages: 'all',
    largePageData: 'all',
    pageRuns: false,
  },
  igvmmeasure: {
    name: 'igvmmeasure',
    vpContexts: 'in-order',
    vmsaGpa: undefined,
    vpContextMask: 'ignore',
    sharedFlag: 'ignore',
    insertPages: 'first',
    largePageData: 'first-4k',
    pageRuns: false,
  },
  'qemu-kvm': {
    name: 'qemu-kvm',
    vpContexts: 'last',
    vmsaGpa: 0xffff_ffff_f000n,
    vpContextMask: 'filter',
    sharedFlag: 'ignore',
    insertPages: 'all',
    largePageData: 'first-4k',
    pageRuns: true,
  },
};
