/**
 * The structures of the IGVM format, one table each, as igvm_defs 0.5 (`igvm_defs/src/lib.rs`) gives them.
 * Reading, writing, display and the TypeScript types of the headers all come from these rows. Field names
 * are the igvm_defs names in camel case.
 */
import { structure } from '../base/index.ts';
import type { FieldRow, Structure } from '../base/index.ts';

export const IGVM_MAGIC = 0x4d564749;
export const PAGE_SIZE = 4096;
export const LARGE_PAGE_SIZE = 0x20_0000;
/** `IGVM_VHT_OPTIONAL_BIT`: a loader that does not know the header may ignore it. */
export const OPTIONAL_BIT = 0x8000_0000;

type ValueOf<T> = T extends 'u64' ? bigint : T extends number ? Uint8Array : number;

/** The values of a table's fields: u8..u32 as number, u64 as bigint, byte arrays as views of the file. */
export type FieldsOf<R extends readonly FieldRow[]> = {
  readonly [N in R[number][1]]: ValueOf<Extract<R[number], readonly [number, N, ...unknown[]]>[2]>;
};

/** One kind of variable header: its type number and the table of its body. */
export interface HeaderSpec<R extends readonly FieldRow[] = readonly FieldRow[]> {
  /** `IgvmVariableHeaderType` without the optional bit. */
  readonly type: number;
  /** Name in igvm_defs, e.g. `IGVM_VHT_PAGE_DATA`. */
  readonly title: string;
  readonly structure: Structure;
  readonly rows: R;
}

function header<const R extends readonly FieldRow[]>(
  type: number,
  title: string,
  structureName: string,
  size: number,
  rows: R,
): HeaderSpec<R> {
  return { type, title: `IGVM_VHT_${title}`, structure: structure(structureName, size, rows), rows };
}

export const IGVM_FIXED_HEADER = structure('IGVM_FIXED_HEADER', 24, [
  [0, 'magic', 'u32'],
  [4, 'formatVersion', 'u32'],
  [8, 'variableHeaderOffset', 'u32'],
  [12, 'variableHeaderSize', 'u32'],
  [16, 'totalFileSize', 'u32'],
  [20, 'checksum', 'u32'],
]);

export const IGVM_FIXED_HEADER_V2 = structure('IGVM_FIXED_HEADER_V2', 32, [
  [0, 'magic', 'u32'],
  [4, 'formatVersion', 'u32'],
  [8, 'variableHeaderOffset', 'u32'],
  [12, 'variableHeaderSize', 'u32'],
  [16, 'totalFileSize', 'u32'],
  [20, 'checksum', 'u32'],
  [24, 'architecture', 'u32'],
  [28, 'pageSize', 'u32'],
]);

const PARAMETER = [
  [0, 'parameterAreaIndex', 'u32'],
  [4, 'byteOffset', 'u32'],
] as const;
const parameter = (type: number, title: string): HeaderSpec<typeof PARAMETER> =>
  header(type, title, 'IGVM_VHS_PARAMETER', 8, PARAMETER);

const CORIM = [
  [0, 'compatibilityMask', 'u32'],
  [4, 'fileOffset', 'u32'],
  [8, 'sizeBytes', 'u32'],
  [12, 'reserved', 'u32'],
] as const;

/** Every header of igvm_defs 0.5 that has a structure (0x107 VERSION_STRING has none: its body is text). */
export const HEADERS = {
  SUPPORTED_PLATFORM: header(0x1, 'SUPPORTED_PLATFORM', 'IGVM_VHS_SUPPORTED_PLATFORM', 16, [
    [0, 'compatibilityMask', 'u32'],
    [4, 'highestVtl', 'u8'],
    [5, 'platformType', 'u8'],
    [6, 'platformVersion', 'u16'],
    [8, 'sharedGpaBoundary', 'u64'],
  ]),

  GUEST_POLICY: header(0x101, 'GUEST_POLICY', 'IGVM_VHS_GUEST_POLICY', 16, [
    [0, 'policy', 'u64'],
    [8, 'compatibilityMask', 'u32'],
    [12, 'reserved', 'u32'],
  ]),
  RELOCATABLE_REGION: header(0x102, 'RELOCATABLE_REGION', 'IGVM_VHS_RELOCATABLE_REGION', 48, [
    [0, 'compatibilityMask', 'u32'],
    [4, 'vpIndex', 'u16'],
    [6, 'vtl', 'u8'],
    [7, 'flags', 'u8'],
    [8, 'relocationAlignment', 'u64'],
    [16, 'relocationRegionGpa', 'u64'],
    [24, 'relocationRegionSize', 'u64'],
    [32, 'minimumRelocationGpa', 'u64'],
    [40, 'maximumRelocationGpa', 'u64'],
  ]),
  PAGE_TABLE_RELOCATION: header(0x103, 'PAGE_TABLE_RELOCATION_REGION', 'IGVM_VHS_PAGE_TABLE_RELOCATION', 32, [
    [0, 'compatibilityMask', 'u32'],
    [4, 'vpIndex', 'u16'],
    [6, 'vtl', 'u8'],
    [7, 'reserved', 'u8'],
    [8, 'gpa', 'u64'],
    [16, 'size', 'u64'],
    [24, 'usedSize', 'u64'],
  ]),
  CORIM_DOCUMENT: header(0x104, 'CORIM_DOCUMENT', 'IGVM_VHS_CORIM_DATA', 16, CORIM),
  CORIM_SIGNATURE: header(0x105, 'CORIM_SIGNATURE', 'IGVM_VHS_CORIM_DATA', 16, CORIM),
  CCA_POLICY: header(0x106, 'CCA_POLICY', 'IGVM_VHS_CCA_POLICY', 32, [
    [0, 'compatibilityMask', 'u32'],
    [4, 'reserved', 'u32'],
    [8, 'attributesRequiredZeroes', 'u64'],
    [16, 'attributesRequiredOnes', 'u64'],
    [24, 'hashAlgorithm', 'u8'],
    [25, 'lfaPolicy', 'u8'],
    [26, 'reserved2', 6],
  ]),

  PARAMETER_AREA: header(0x301, 'PARAMETER_AREA', 'IGVM_VHS_PARAMETER_AREA', 16, [
    [0, 'numberOfBytes', 'u64'],
    [8, 'parameterAreaIndex', 'u32'],
    [12, 'fileOffset', 'u32'],
  ]),
  PAGE_DATA: header(0x302, 'PAGE_DATA', 'IGVM_VHS_PAGE_DATA', 24, [
    [0, 'gpa', 'u64'],
    [8, 'compatibilityMask', 'u32'],
    [12, 'fileOffset', 'u32'],
    [16, 'flags', 'u32'],
    [20, 'dataType', 'u16'],
    [22, 'reserved', 'u16'],
  ]),
  PARAMETER_INSERT: header(0x303, 'PARAMETER_INSERT', 'IGVM_VHS_PARAMETER_INSERT', 16, [
    [0, 'gpa', 'u64'],
    [8, 'compatibilityMask', 'u32'],
    [12, 'parameterAreaIndex', 'u32'],
  ]),
  VP_CONTEXT: header(0x304, 'VP_CONTEXT', 'IGVM_VHS_VP_CONTEXT', 20, [
    [0, 'gpa', 'u64'],
    [8, 'compatibilityMask', 'u32'],
    [12, 'fileOffset', 'u32'],
    [16, 'vpIndex', 'u16'],
    [18, 'reserved', 'u16'],
  ]),
  REQUIRED_MEMORY: header(0x305, 'REQUIRED_MEMORY', 'IGVM_VHS_REQUIRED_MEMORY', 24, [
    [0, 'gpa', 'u64'],
    [8, 'compatibilityMask', 'u32'],
    [12, 'numberOfBytes', 'u32'],
    [16, 'flags', 'u32'],
    [20, 'reserved', 'u32'],
  ]),
  VP_COUNT: parameter(0x307, 'VP_COUNT_PARAMETER'),
  SRAT: parameter(0x308, 'SRAT'),
  MADT: parameter(0x309, 'MADT'),
  MMIO_RANGES: parameter(0x30a, 'MMIO_RANGES'),
  SNP_ID_BLOCK: header(0x30b, 'SNP_ID_BLOCK', 'IGVM_VHS_SNP_ID_BLOCK', 696, [
    [0, 'compatibilityMask', 'u32'],
    [4, 'authorKeyEnabled', 'u8'],
    [5, 'reserved', 3],
    [8, 'ld', 48],
    [56, 'familyId', 16],
    [72, 'imageId', 16],
    [88, 'version', 'u32'],
    [92, 'guestSvn', 'u32'],
    [96, 'idKeyAlgorithm', 'u32'],
    [100, 'authorKeyAlgorithm', 'u32'],
    [104, 'idKeySignatureR', 72],
    [176, 'idKeySignatureS', 72],
    [248, 'idPublicKeyCurve', 'u32'],
    [252, 'idPublicKeyReserved', 'u32'],
    [256, 'idPublicKeyQx', 72],
    [328, 'idPublicKeyQy', 72],
    [400, 'authorKeySignatureR', 72],
    [472, 'authorKeySignatureS', 72],
    [544, 'authorPublicKeyCurve', 'u32'],
    [548, 'authorPublicKeyReserved', 'u32'],
    [552, 'authorPublicKeyQx', 72],
    [624, 'authorPublicKeyQy', 72],
  ]),
  MEMORY_MAP: parameter(0x30c, 'MEMORY_MAP'),
  ERROR_RANGE: header(0x30d, 'ERROR_RANGE', 'IGVM_VHS_ERROR_RANGE', 16, [
    [0, 'gpa', 'u64'],
    [8, 'compatibilityMask', 'u32'],
    [12, 'sizeBytes', 'u32'],
  ]),
  COMMAND_LINE: parameter(0x30e, 'COMMAND_LINE'),
  SLIT: parameter(0x30f, 'SLIT'),
  PPTT: parameter(0x310, 'PPTT'),
  VBS_MEASUREMENT: header(0x311, 'VBS_MEASUREMENT', 'IGVM_VHS_VBS_MEASUREMENT', 864, [
    [0, 'compatibilityMask', 'u32'],
    [4, 'version', 'u32'],
    [8, 'productId', 'u32'],
    [12, 'moduleId', 'u32'],
    [16, 'securityVersion', 'u32'],
    [20, 'policyFlags', 'u32'],
    [24, 'bootDigestAlgo', 'u32'],
    [28, 'signingAlgo', 'u32'],
    [32, 'bootMeasurementDigest', 64],
    [96, 'signature', 256],
    [352, 'publicKey', 512],
  ]),
  DEVICE_TREE: parameter(0x312, 'DEVICE_TREE'),
  ENVIRONMENT_INFO: parameter(0x313, 'ENVIRONMENT_INFO_PARAMETER'),
} as const;

/** `IGVM_VHT_VERSION_STRING`: the body is UTF-8 text, as long as the header says. */
export const VERSION_STRING_TYPE = 0x107;

/** Names of the parameters a loader deposits in a parameter area. */
export const PARAMETER_TYPES = [
  'VP_COUNT',
  'SRAT',
  'MADT',
  'MMIO_RANGES',
  'MEMORY_MAP',
  'COMMAND_LINE',
  'SLIT',
  'PPTT',
  'DEVICE_TREE',
  'ENVIRONMENT_INFO',
] as const;
export type ParameterType = (typeof PARAMETER_TYPES)[number];

/** `IgvmPlatformType`, indexed by its number. */
export const PLATFORM_TYPES = ['NATIVE', 'VSM_ISOLATION', 'SEV_SNP', 'TDX', 'SEV', 'SEV_ES', 'CCA'] as const;
export type PlatformType = (typeof PLATFORM_TYPES)[number];

/** `IgvmArchitecture`, indexed by its number. */
export const ARCHITECTURES = ['X64', 'AARCH64'] as const;
export type Architecture = (typeof ARCHITECTURES)[number];

/** `IgvmPageDataType`, indexed by its number. */
export const PAGE_DATA_TYPES = ['NORMAL', 'SECRETS', 'CPUID_DATA', 'CPUID_XF'] as const;
export type PageDataType = (typeof PAGE_DATA_TYPES)[number];

/** Bits of `IGVM_VHS_PAGE_DATA::flags` (`IgvmPageDataFlags`). */
export const PAGE_DATA_FLAGS = { is2mbPage: 1, unmeasured: 2, shared: 4 } as const;
/** Bits of `IGVM_VHS_REQUIRED_MEMORY::flags` (`RequiredMemoryFlags`). */
export const REQUIRED_MEMORY_FLAGS = { vtl2Protectable: 1 } as const;
/** Bits of `IGVM_VHS_RELOCATABLE_REGION::flags` (`IGVM_VHF_RELOCATABLE_REGION_*`). */
export const RELOCATABLE_REGION_FLAGS = { isVtl2: 1, applyPc: 2, applyGdtr: 4 } as const;
/** `MemoryMapEntryType`, indexed by its number. */
export const MEMORY_MAP_ENTRY_TYPES = [
  'MEMORY',
  'PLATFORM_RESERVED',
  'PERSISTENT',
  'VTL2_PROTECTABLE',
  'SPECIFIC_PURPOSE',
  'HIDDEN',
] as const;
