import { CvmError } from '../base/index.ts';
import type { Crypto, Diagnostic } from '../base/index.ts';
import { launchOperations, parseIgvm, platforms } from '../igvm/index.ts';
import type { IgvmFile, LaunchPlan, Platform, PlatformType, ProfileName } from '../igvm/index.ts';
import { MEASURED_PLATFORMS, checkImage, launchDigestTrace, measureIgvm } from '../measure/index.ts';
import type { DigestTrace } from '../measure/index.ts';

/** An expected launch measurement, or why there is none. */
export type MeasurementResult =
  | {
      readonly digest: Uint8Array;
      readonly name: string;
      readonly algorithm: string;
      /** Running digests, where the platform's measurement has them. */
      readonly steps?: DigestTrace;
    }
  | { readonly problem: string };

/** One platform of the file, with what a loader would do for it; both computed when first asked for. */
export class ImagePlatform {
  readonly platform: Platform;
  private readonly file: IgvmFile;
  private readonly crypto: Crypto;
  private planned: LaunchPlan | undefined;
  private measured: { result: MeasurementResult | undefined } | undefined;

  constructor(file: IgvmFile, platform: Platform, crypto: Crypto) {
    this.file = file;
    this.platform = platform;
    this.crypto = crypto;
  }

  get mask(): number {
    return this.platform.compatibilityMask;
  }

  get title(): string {
    const { platformType, rawPlatformType } = this.platform;
    return platformType ? PLATFORM_TITLES[platformType] : `platform type ${rawPlatformType}`;
  }

  get plan(): LaunchPlan {
    return (this.planned ??= launchOperations(this.file, this.platform));
  }

  /** `undefined` for a platform that has no launch measurement. */
  get measurement(): MeasurementResult | undefined {
    this.measured ??= { result: this.measure() };
    return this.measured.result;
  }

  private measure(): MeasurementResult | undefined {
    const { platformType, compatibilityMask } = this.platform;
    const type = MEASURED_PLATFORMS.find((candidate) => candidate === platformType);
    if (!type) return undefined;
    try {
      if (type === 'SEV_SNP') {
        const { digest, steps } = launchDigestTrace(this.file, { compatibilityMask }, this.crypto);
        return { digest, steps, name: 'launch digest', algorithm: 'SHA-384' };
      }
      return measureIgvm(this.file, { platformType: type, compatibilityMask }, this.crypto);
    } catch (error) {
      if (error instanceof CvmError) return { problem: error.toString() };
      throw error;
    }
  }
}

/** How the platforms are called in running text. */
export const PLATFORM_TITLES: Readonly<Record<PlatformType, string>> = {
  NATIVE: 'native',
  VSM_ISOLATION: 'VSM isolation',
  SEV_SNP: 'SEV-SNP',
  TDX: 'TDX',
  SEV: 'SEV',
  SEV_ES: 'SEV-ES',
  CCA: 'CCA',
};

/** An IGVM file as the listing and the summary look at it: parsed once, measured at most once a platform. */
export interface Image {
  readonly file: IgvmFile;
  readonly platforms: readonly ImagePlatform[];
  readonly crypto: Crypto;
}

/** Reads a file; never throws for its contents. */
export function openImage(bytes: Uint8Array, crypto: Crypto): Image {
  const file = parseIgvm(bytes);
  return {
    file,
    crypto,
    platforms: platforms(file).map((platform) => new ImagePlatform(file, platform, crypto)),
  };
}

/** QEMU's rules are of interest where QEMU may load the file. */
const loaderOf = (image: Image): ProfileName =>
  image.platforms.some(({ platform: { platformType } }) => platformType?.startsWith('SEV'))
    ? 'qemu-kvm'
    : 'file-order';

/** Findings of the file and of each platform's loader, each once, in file order. */
export function imageDiagnostics(image: Image): Diagnostic[] {
  const seen = new Set<string>();
  const found: Diagnostic[] = [];
  for (const list of [
    image.file.diagnostics,
    ...image.platforms.map(({ plan }) => plan.diagnostics),
    checkImage(image.file, { profile: loaderOf(image) }),
  ])
    for (const diagnostic of list) {
      // A loader repeats what validation said of the same header.
      const key = `${diagnostic.code}/${diagnostic.offset}`;
      const place = `${diagnostic.code.replace(/-[a-z]+$/, '')}/${diagnostic.offset}/${diagnostic.message}`;
      if (seen.has(key) || seen.has(place)) continue;
      seen.add(key).add(place);
      found.push(diagnostic);
    }
  return found.sort((a, b) => a.offset - b.offset);
}
