import { bytesToHex, hex } from '../base/index.ts';
import { LARGE_PAGE_SIZE, PAGE_DATA_FLAGS, PAGE_DATA_TYPES, PAGE_SIZE } from '../igvm/index.ts';
import type { IgvmHeader, StructuredHeader } from '../igvm/index.ts';
import { idText } from './columns.ts';
import { imageDiagnostics } from './image.ts';
import type { Image, ImagePlatform } from './image.ts';
import { lineOfHeader, lineOfOffset } from './places.ts';
import { policyAbi, policyBits } from './policy.ts';
import type {
  IdBlockSummary,
  IgvmSummary,
  PlatformSummary,
  PolicySummary,
  ProcessorSummary,
  RegionKind,
  RegionSummary,
} from './protocol.ts';
import type { Listing } from './text.ts';
import { describeContext, vpContext } from './vp-context.ts';

/** Bounds of what a summary carries; the listing has the rest. */
const MAX_REGIONS = 2_000;
const MAX_DIAGNOSTICS = 500;
const MAX_PROCESSORS = 512;

/** What the custom editor shows of an image. `listing` gives the places its links lead to. */
export function summarize(image: Image, listing: Listing): IgvmSummary {
  const { file } = image;
  const { header, headers } = file;
  const version = headers.find((candidate) => candidate.type === 'VERSION_STRING');
  const headerEnd = header.variableHeaderOffset + header.variableHeaderSize;
  return {
    fileBytes: file.bytes.length,
    header: {
      version: header.version,
      architecture: header.architecture ?? `architecture ${header.rawArchitecture}`,
      pageSize: header.pageSize,
      crc: hex(header.crc32, 8),
      crcValid: header.crc32 === header.computedCrc32,
      directives: headers.length,
      headerBytes: header.variableHeaderSize,
      dataBytes: Math.max(0, file.bytes.length - headerEnd),
    },
    ...(version?.type === 'VERSION_STRING' ? { versionString: version.text } : {}),
    platforms: image.platforms.map((platform) => summarizePlatform(image, platform, listing)),
    diagnostics: imageDiagnostics(image)
      .slice(0, MAX_DIAGNOSTICS)
      .map(({ severity, code, message, offset }) => ({
        severity,
        code,
        message,
        offset,
        line: lineOfOffset(file, listing, offset),
      })),
  };
}

function summarizePlatform(image: Image, platform: ImagePlatform, listing: Listing): PlatformSummary {
  const { mask, measurement, title } = platform;
  const own = image.file.headers.filter(
    (header) => 'compatibilityMask' in header && (header.compatibilityMask & mask) !== 0,
  );
  const digest = measurement && 'digest' in measurement ? bytesToHex(measurement.digest) : undefined;
  const policy = own.find((header) => header.type === 'GUEST_POLICY');
  const block = own.find((header) => header.type === 'SNP_ID_BLOCK');
  return {
    mask,
    type: platform.platform.platformType ?? `${platform.platform.rawPlatformType}`,
    title,
    highestVtl: platform.platform.highestVtl,
    sharedGpaBoundary: hex(platform.platform.sharedGpaBoundary),
    ...(digest === undefined ? {} : { digest }),
    ...(measurement && 'digest' in measurement ? { digestAlgorithm: measurement.algorithm } : {}),
    ...(measurement && 'problem' in measurement ? { digestProblem: measurement.problem } : {}),
    ...(policy?.type === 'GUEST_POLICY' ? { policy: summarizePolicy(policy) } : {}),
    ...(block?.type === 'SNP_ID_BLOCK' ? { idBlock: summarizeIdBlock(block, digest) } : {}),
    processors: own.flatMap((header) => processor(image, header)).slice(0, MAX_PROCESSORS),
    regions: regionsOf(image, platform, listing),
  };
}

function summarizePolicy({ policy }: StructuredHeader<'GUEST_POLICY'>): PolicySummary {
  return {
    value: hex(policy),
    abi: policyAbi(policy),
    bits: policyBits(policy).map(({ name, set, meaning }) => ({ name, set, meaning })),
  };
}

function summarizeIdBlock(
  block: StructuredHeader<'SNP_ID_BLOCK'>,
  digest: string | undefined,
): IdBlockSummary {
  const launchDigest = bytesToHex(block.ld);
  return {
    launchDigest,
    ...(digest === undefined ? {} : { matches: digest === launchDigest }),
    familyId: idText(block.familyId),
    imageId: idText(block.imageId),
    guestSvn: block.guestSvn,
    authorKey: block.authorKeyEnabled !== 0,
  };
}

function processor(image: Image, header: IgvmHeader): ProcessorSummary[] {
  if (header.type !== 'VP_CONTEXT') return [];
  const context = vpContext(image, header);
  const description = context ? describeContext(context) : 'state in a form this reader does not decode';
  return [{ index: header.vpIndex, gpa: hex(header.gpa), description }];
}

interface Region {
  readonly kind: RegionKind;
  readonly start: bigint;
  readonly end: bigint;
  readonly title: string;
  readonly directive: number;
}

/** What the platform's directives put into guest memory: adjacent ranges of one kind joined, by address. */
function regionsOf(image: Image, { mask }: ImagePlatform, listing: Listing): RegionSummary[] {
  const areas = new Map<number, { size: bigint; parameters: string[] }>();
  const found: Region[] = [];
  for (const header of image.file.headers) {
    if (header.section !== 'directive') continue;
    if (header.type === 'PARAMETER_AREA')
      areas.set(header.parameterAreaIndex, { size: header.numberOfBytes, parameters: [] });
    else if ('byteOffset' in header) areas.get(header.parameterAreaIndex)?.parameters.push(header.type);
    if (!('compatibilityMask' in header) || !(header.compatibilityMask & mask)) continue;
    const region = regionOf(header, areas);
    if (region && region.end > region.start) found.push(region);
  }
  found.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : a.directive - b.directive));
  const joined: Region[] = [];
  for (const region of found) {
    const last = joined.at(-1);
    if (last && last.kind === region.kind && last.end === region.start && last.title === region.title)
      joined[joined.length - 1] = { ...last, end: region.end };
    else joined.push(region);
  }
  return joined.slice(0, MAX_REGIONS).map(({ kind, start, end, title, directive }) => {
    const line = lineOfHeader(listing, directive);
    return {
      kind,
      start: hex(start),
      end: hex(end),
      pages: Number((end - start + BigInt(PAGE_SIZE - 1)) / BigInt(PAGE_SIZE)),
      title,
      ...(line === undefined ? {} : { line }),
    };
  });
}

function regionOf(
  header: IgvmHeader,
  areas: ReadonlyMap<number, { size: bigint; parameters: readonly string[] }>,
): Region | undefined {
  const directive = header.index;
  switch (header.type) {
    case 'PAGE_DATA': {
      const size = header.flags & PAGE_DATA_FLAGS.is2mbPage ? LARGE_PAGE_SIZE : PAGE_SIZE;
      const end = header.gpa + BigInt(size);
      const title = size === PAGE_SIZE ? '' : '2 MiB pages';
      return { kind: pageRegion(header), start: header.gpa, end, title, directive };
    }
    case 'PARAMETER_INSERT': {
      const area = areas.get(header.parameterAreaIndex);
      const what = area?.parameters.map((name) => name.toLowerCase().replaceAll('_', ' ')).join(', ');
      const title = `area ${header.parameterAreaIndex}${what ? `: ${what}` : ''}`;
      return { kind: 'parameter', start: header.gpa, end: header.gpa + (area?.size ?? 0n), title, directive };
    }
    case 'VP_CONTEXT':
      if (header.gpa === 0n) return undefined;
      return {
        kind: 'vmsa',
        start: header.gpa,
        end: header.gpa + BigInt(PAGE_SIZE),
        title: `vCPU ${header.vpIndex}`,
        directive,
      };
    case 'REQUIRED_MEMORY':
      return {
        kind: 'required',
        start: header.gpa,
        end: header.gpa + BigInt(header.numberOfBytes),
        title: '',
        directive,
      };
    case 'ERROR_RANGE':
      return {
        kind: 'error',
        start: header.gpa,
        end: header.gpa + BigInt(header.sizeBytes),
        title: '',
        directive,
      };
    default:
      return undefined;
  }
}

function pageRegion(header: StructuredHeader<'PAGE_DATA'>): RegionKind {
  switch (PAGE_DATA_TYPES[header.dataType]) {
    case 'SECRETS':
      return 'secrets';
    case 'CPUID_DATA':
    case 'CPUID_XF':
      return 'cpuid';
    default:
      if (header.flags & PAGE_DATA_FLAGS.shared) return 'shared';
      if (header.flags & PAGE_DATA_FLAGS.unmeasured) return 'unmeasured';
      return header.fileOffset === 0 ? 'zero' : 'data';
  }
}
