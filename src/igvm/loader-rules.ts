/** What loaders do with a file as a whole, beside the order of its pages. */
import type { VcpuExpansion } from './launch.ts';
import type {
  LaunchOperation,
  PageOperation,
  ParameterPageOperation,
  VpContextOperation,
} from './operations.ts';
import type { LoaderProfile } from './profiles.ts';
import type { PlatformType } from './tables.ts';
import type { IgvmHeader } from './types.ts';

type PageLike = PageOperation | ParameterPageOperation | VpContextOperation;

/** What becomes a page, by address; everything else before it, in file order. */
export function sortByGpa(operations: readonly LaunchOperation[]): LaunchOperation[] {
  const isPage = (operation: LaunchOperation): operation is PageLike =>
    operation.kind === 'page' ||
    operation.kind === 'parameter-page' ||
    (operation.kind === 'vp-context' && operation.format === 'snp-vmsa');
  const pages = operations.filter(isPage);
  pages.sort((a, b) => (a.gpa < b.gpa ? -1 : a.gpa > b.gpa ? 1 : 0));
  return [...operations.filter((operation) => !isPage(operation)), ...pages];
}

/** Why the loader does not launch this platform, or `undefined`. */
export function platformProblem(
  { platforms, title }: LoaderProfile,
  platformType: PlatformType | undefined,
): string | undefined {
  if (!platforms || (platformType && platforms.includes(platformType))) return undefined;
  return `${title} does not launch ${platformType ?? 'this platform'} from an IGVM file`;
}

/** Whether the loader acts on a header, or passes over it. */
export function isHandled({ handles, name }: LoaderProfile, header: IgvmHeader): boolean {
  if (!handles || header.ignorable || header.section === 'platform' || handles.has(header.type)) return true;
  // Cloud Hypervisor looks for the guest policy among the initialization headers and skips the others.
  return header.section === 'initialization' && name !== 'qemu-kvm';
}

/** The contexts of the vCPUs that have none in the file. */
export function* resetContexts(
  contexts: ReadonlyMap<number, VpContextOperation>,
  { count, resetContext }: VcpuExpansion,
  profile: LoaderProfile,
): Generator<VpContextOperation, void, undefined> {
  const boot = contexts.get(0);
  let data: Uint8Array | undefined;
  for (let vpIndex = 0; vpIndex < count; vpIndex++)
    if (!contexts.has(vpIndex))
      yield {
        kind: 'vp-context',
        gpa: profile.vmsaGpa ?? 0n,
        vpIndex,
        format: 'snp-vmsa',
        data: (data ??= resetContext(boot?.data)),
        directive: boot?.directive ?? -1,
        reset: true,
      };
}
