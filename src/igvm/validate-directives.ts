/** Rules of the directive headers (`IgvmFile::validate_directive_headers` of the igvm crate, and more). */
import { hex } from '../base/index.ts';
import { readNumber } from './codec.ts';
import {
  IGVM_NATIVE_VP_CONTEXT_X64,
  IGVM_VP_CONTEXT_AARCH64_CCA,
  VBS_VP_CONTEXT_HEADER,
  VBS_VP_CONTEXT_REGISTER,
} from './contexts.ts';
import { LARGE_PAGE_SIZE, PAGE_DATA_FLAGS, PAGE_DATA_TYPES } from './tables.ts';
import type { ParameterType } from './tables.ts';
import type { InitializationRules } from './validate-initialization.ts';
import type { Of, Ruled, ValidationContext } from './validate.ts';

/** The least a parameter takes, where igvm_defs fixes it. */
const PARAMETER_SIZES: Partial<Record<ParameterType, number>> = {
  VP_COUNT: 4,
  ENVIRONMENT_INFO: 4,
  MMIO_RANGES: 32,
  MEMORY_MAP: 24,
};

/** Registers of one VBS context that are looked at; the largest known context has about thirty. */
const REGISTER_LIMIT = 64;

interface Area {
  readonly size: bigint;
  inserted: boolean;
}

export class DirectiveRules {
  private readonly context: ValidationContext;
  private readonly initialization: InitializationRules;
  private readonly areas = new Map<number, Area>();

  constructor(context: ValidationContext, initialization: InitializationRules) {
    this.context = context;
    this.initialization = initialization;
  }

  check(header: Ruled): void {
    switch (header.type) {
      case 'PAGE_DATA':
        return this.pageData(header);
      case 'PARAMETER_AREA':
        return this.parameterArea(header);
      case 'PARAMETER_INSERT':
        return this.parameterInsert(header);
      case 'VP_CONTEXT':
        return this.vpContext(header);
      case 'REQUIRED_MEMORY':
        this.pageAligned(header, 'gpa', header.gpa);
        this.pageAligned(header, 'numberOfBytes', header.numberOfBytes);
        if (header.flags > 1) this.warn(header, 'igvm-reserved', 'flags', 'reserved flag bits must be zero');
        return;
      case 'ERROR_RANGE':
        this.pageAligned(header, 'gpa', header.gpa);
        if (header.sizeBytes % 4096 !== 0)
          this.warn(header, 'igvm-alignment', 'sizeBytes', 'the size must be a multiple of 4 KiB');
        return;
      case 'SNP_ID_BLOCK':
        if (header.authorKeyEnabled > 1)
          this.warn(
            header,
            'igvm-id-block',
            'authorKeyEnabled',
            `the author key is on (1) or off (0), not ${header.authorKeyEnabled}`,
          );
        return;
      case 'SUPPORTED_PLATFORM':
      case 'VBS_MEASUREMENT':
        return;
      default:
        if ('byteOffset' in header) this.parameter(header);
    }
  }

  private error(header: Ruled, code: string, field: string, message: string): void {
    this.context.findings.field('error', code, header, field, message);
  }

  private warn(header: Ruled, code: string, field: string, message: string): void {
    this.context.findings.field('warning', code, header, field, message);
  }

  private pageAligned(header: Ruled, field: string, value: bigint | number): void {
    const low = typeof value === 'bigint' ? Number(value & 0xfffn) : value & 0xfff;
    if (low !== 0) this.error(header, 'igvm-alignment', field, `${hex(value)} is not a multiple of 4 KiB`);
  }

  private pageData(header: Of<'PAGE_DATA'>): void {
    this.pageAligned(header, 'gpa', header.gpa);
    if (header.dataType >= PAGE_DATA_TYPES.length)
      this.error(header, 'igvm-page-type', 'dataType', `page data type ${header.dataType} is not known`);
    if (header.flags > 7) this.warn(header, 'igvm-reserved', 'flags', 'reserved flag bits must be zero');
    if (!(header.flags & PAGE_DATA_FLAGS.is2mbPage)) return;
    if (header.gpa % BigInt(LARGE_PAGE_SIZE) !== 0n)
      this.warn(
        header,
        'igvm-alignment',
        'gpa',
        `${hex(header.gpa)} is not a multiple of 2 MiB, as a 2 MiB page must be`,
      );
    if (header.fileOffset !== 0)
      this.warn(
        header,
        'igvm-large-page',
        'flags',
        'loaders disagree about 2 MiB pages with data: QEMU and the igvm crate read 4 KiB of it',
      );
  }

  private parameterArea(header: Of<'PARAMETER_AREA'>): void {
    this.pageAligned(header, 'numberOfBytes', header.numberOfBytes);
    const index = header.parameterAreaIndex;
    if (this.areas.has(index))
      this.error(
        header,
        'igvm-area-index',
        'parameterAreaIndex',
        `parameter area ${index} is declared twice`,
      );
    else this.areas.set(index, { size: header.numberOfBytes, inserted: false });
  }

  /** The area a header uses, if it is declared and still open. */
  private area(header: Ruled, index: number): Area | undefined {
    const area = this.areas.get(index);
    if (!area)
      this.error(
        header,
        'igvm-area-index',
        'parameterAreaIndex',
        `parameter area ${index} is not declared before this`,
      );
    else if (area.inserted)
      this.error(
        header,
        'igvm-area-index',
        'parameterAreaIndex',
        `parameter area ${index} is already inserted and can no longer be used`,
      );
    return area;
  }

  private parameter(header: Of<ParameterType>): void {
    const area = this.area(header, header.parameterAreaIndex);
    const size = PARAMETER_SIZES[header.type] ?? 1;
    if (area && BigInt(header.byteOffset) + BigInt(size) > area.size)
      this.warn(
        header,
        'igvm-parameter-offset',
        'byteOffset',
        `the parameter does not fit: its area has ${area.size} bytes`,
      );
  }

  private parameterInsert(header: Of<'PARAMETER_INSERT'>): void {
    this.pageAligned(header, 'gpa', header.gpa);
    const area = this.area(header, header.parameterAreaIndex);
    if (area) area.inserted = true;
    for (const region of this.initialization.pageTableRegions)
      if (
        (region.mask & header.compatibilityMask) !== 0 &&
        header.gpa >= region.start &&
        header.gpa < region.end
      ) {
        this.error(
          header,
          'igvm-insert-in-page-tables',
          'gpa',
          'a parameter area may not be inserted in a page-table region',
        );
        return;
      }
  }

  private vpContext(header: Of<'VP_CONTEXT'>): void {
    const { file, byMask } = this.context;
    const platform = byMask.get(header.compatibilityMask);
    if (platform === undefined || platform === 'TDX') {
      this.error(
        header,
        'igvm-context-platform',
        'compatibilityMask',
        platform === 'TDX'
          ? 'TDX has an architectural reset state and no VP context'
          : `the mask of a VP context must be exactly that of one platform; ${hex(header.compatibilityMask)} is not`,
      );
      return;
    }
    if (header.fileOffset === 0) {
      this.error(header, 'igvm-data-range', 'fileOffset', 'a VP context must have data');
      return;
    }
    const data = header.data
      ? file.bytes.subarray(header.data.fileOffset, header.data.fileOffset + header.data.length)
      : undefined;
    if (platform === 'SEV_SNP' || platform === 'SEV_ES') this.pageAligned(header, 'gpa', header.gpa);
    else if (header.gpa !== 0n)
      this.warn(
        header,
        'igvm-context-gpa',
        'gpa',
        `a ${platform} context is not placed in memory; its gpa must be 0`,
      );
    if (!data) return;
    if (platform === 'NATIVE' || platform === 'SEV') {
      this.architecture(header, 'X64');
      this.zeroAfter(header, data, IGVM_NATIVE_VP_CONTEXT_X64.size);
    } else if (platform === 'CCA') {
      this.architecture(header, 'AARCH64');
      this.zeroAfter(header, data, IGVM_VP_CONTEXT_AARCH64_CCA.size);
    } else if (platform === 'VSM_ISOLATION') this.vbsContext(header, data);
  }

  private architecture(header: Of<'VP_CONTEXT'>, wanted: string): void {
    const { architecture } = this.context.file.header;
    if (architecture !== undefined && architecture !== wanted)
      this.error(
        header,
        'igvm-header-architecture',
        'compatibilityMask',
        `this VP context is one of ${wanted} files`,
      );
  }

  private zeroAfter(header: Of<'VP_CONTEXT'>, data: Uint8Array, size: number): void {
    for (let i = size; i < data.length; i++)
      if (data[i] !== 0) {
        this.error(
          header,
          'igvm-context-data',
          'fileOffset',
          `the VP context has ${size} bytes; the rest of its page must be zero`,
        );
        return;
      }
  }

  private vbsContext(header: Of<'VP_CONTEXT'>, data: Uint8Array): void {
    const size = VBS_VP_CONTEXT_REGISTER.size;
    const first = VBS_VP_CONTEXT_HEADER.size;
    if (header.vpIndex !== 0)
      this.error(header, 'igvm-context-vp', 'vpIndex', 'the igvm crate supports a VBS context for VP 0 only');
    if (data.length < first + size) {
      this.error(header, 'igvm-context-data', 'fileOffset', 'a VBS context needs at least one register');
      return;
    }
    const vtl = data[first]!;
    let mixed = vtl > 2;
    const end = Math.min(data.length, first + REGISTER_LIMIT * size);
    for (let at = first; at + size <= end; at += size)
      if (readNumber(data, VBS_VP_CONTEXT_REGISTER, 'vtl', at) !== vtl) mixed = true;
    if (mixed)
      this.error(
        header,
        'igvm-vtl',
        'fileOffset',
        'the registers of a VBS context belong to one VTL of 0, 1 and 2',
      );
    this.initialization.vbsContext(header.compatibilityMask, vtl);
  }
}
