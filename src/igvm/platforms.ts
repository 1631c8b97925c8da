/** The platforms a file declares, and which of them a loader takes. */
import { CvmError } from '../base/index.ts';
import { PLATFORM_TYPES } from './tables.ts';
import type { PlatformType } from './tables.ts';
import type { IgvmFile, IgvmHeader, Platform } from './types.ts';

/** The file's SUPPORTED_PLATFORM headers, in order. */
export function platforms(file: Pick<IgvmFile, 'headers'>): Platform[] {
  const found: Platform[] = [];
  for (const header of file.headers)
    if (header.type === 'SUPPORTED_PLATFORM')
      found.push({
        platformType: PLATFORM_TYPES[header.platformType],
        rawPlatformType: header.platformType,
        compatibilityMask: header.compatibilityMask,
        highestVtl: header.highestVtl,
        platformVersion: header.platformVersion,
        sharedGpaBoundary: header.sharedGpaBoundary,
        directive: header.index,
      });
  return found;
}

/** Compatibility mask to platform type; a later header with the same mask wins, as in the igvm crate. */
export function platformMap(headers: readonly IgvmHeader[]): Map<number, PlatformType> {
  const byMask = new Map<number, PlatformType>();
  for (const platform of platforms({ headers }))
    if (platform.platformType) byMask.set(platform.compatibilityMask, platform.platformType);
  return byMask;
}

/** What QEMU supports, strongest first (`backends/igvm.c`); it skips VSM, TDX and CCA headers. */
const QEMU_ORDER: readonly PlatformType[] = ['SEV_SNP', 'SEV_ES', 'SEV', 'NATIVE'];

/**
 * The platform to load. Without `requested`, QEMU's rule on a host that supports everything: the strongest
 * of SNP > ES > SEV > NATIVE. With it, that platform.
 *
 * @throws CvmError `igvm-no-platform` if the file does not declare it.
 */
export function choosePlatform(file: Pick<IgvmFile, 'headers'>, requested?: PlatformType): Platform {
  const declared = platforms(file);
  for (const type of requested ? [requested] : QEMU_ORDER) {
    const platform = declared.find((candidate) => candidate.platformType === type);
    if (platform) return platform;
  }
  const names = declared.map((platform) => platform.platformType ?? `type ${platform.rawPlatformType}`);
  throw new CvmError(
    'igvm-no-platform',
    `the file does not describe a compatible supported platform: ${requested ?? QEMU_ORDER.join(', ')} ` +
      `is asked for, the file declares ${names.length > 0 ? names.join(', ') : 'none'}`,
  );
}
