/** The directives of a file, one after the other, as the operations of one loader. */
import { hex } from '../base/index.ts';
import { Findings } from './findings.ts';
import type { LaunchOptions } from './launch.ts';
import type {
  LaunchOperation,
  LaunchPageType,
  PageOperation,
  VpContextFormat,
  VpContextOperation,
} from './operations.ts';
import { platformMap } from './platforms.ts';
import { PROFILES } from './profiles.ts';
import type { LoaderProfile } from './profiles.ts';
import { dataOf } from './read.ts';
import { LARGE_PAGE_SIZE, PAGE_DATA_FLAGS, PAGE_DATA_TYPES, PAGE_SIZE } from './tables.ts';
import type { PlatformType } from './tables.ts';
import type { IgvmFile, IgvmHeader, StructuredHeader } from './types.ts';

/**
 * Bound of one plan: 2^21 operations are 8 GiB of pages, twice what a file can hold; empty 2 MiB pages
 * and large parameter areas could otherwise ask for any number.
 */
const OPERATION_LIMIT = 1 << 21;

/** Bound of all parameter areas and error ranges together, in bytes; real ones are a few pages. */
const AREA_LIMIT = 1n << 27n;

/** Bound of all VBS register lists together: 32 bytes a register, real files have some thirty. */
const REGISTER_LIMIT = 1 << 20;

const PAGE_KINDS: readonly LaunchPageType[] = ['normal', 'secrets', 'cpuid', 'cpuid-xf'];

const CONTEXT_FORMATS: Partial<Record<PlatformType, VpContextFormat>> = {
  NATIVE: 'native',
  SEV: 'native',
  SEV_ES: 'snp-vmsa',
  SEV_SNP: 'snp-vmsa',
  VSM_ISOLATION: 'vbs-registers',
  CCA: 'cca',
};

/** Only SNP knows secrets and CPUID pages; elsewhere such a page is a page. */
const hasSpecialPages = (platform: PlatformType | undefined): boolean => platform === 'SEV_SNP';

/** Headers QEMU's loader acts on; any other makes it give up (`backends/igvm.c`). */
const QEMU_HANDLES: ReadonlySet<IgvmHeader['type']> = new Set([
  'SUPPORTED_PLATFORM',
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

interface Area {
  readonly size: bigint;
  inserted: boolean;
}

export class Planner {
  readonly findings = new Findings();
  private readonly file: IgvmFile;
  private readonly options: LaunchOptions;
  private readonly profile: LoaderProfile;
  private readonly byMask: ReadonlyMap<number, PlatformType>;
  private readonly operations: LaunchOperation[] = [];
  private readonly areas = new Map<number, Area>();
  /** QEMU's run of pages that was not handed over yet. */
  private pending: PageOperation[] = [];
  private runKey = '';
  private runNext = -1n;
  private runLast = -1;
  private readonly contexts: VpContextOperation[] = [];
  private readonly contextAt = new Map<number, number>();
  private full = false;
  private hasIdBlock = false;
  /** Bytes of all parameter areas and error ranges so far. */
  private areaBytes = 0n;
  private registerBytes = 0;

  constructor(file: IgvmFile, options: LaunchOptions) {
    this.file = file;
    this.options = options;
    this.profile = PROFILES[options.profile ?? 'file-order'];
    this.byMask = platformMap(file.headers);
  }

  run(): LaunchOperation[] {
    for (const header of this.file.headers)
      if (header.type === 'GUEST_POLICY' && this.applies(header.compatibilityMask))
        this.push({ kind: 'policy', policy: header.policy, directive: header.index });
    for (const header of this.file.headers) {
      if (this.full) break;
      if (this.profile.name === 'qemu-kvm') this.checkQemu(header);
      if (header.section === 'directive') this.directive(header);
    }
    this.flush();
    // KVM walks its vCPUs in order when it finishes the launch.
    for (const context of this.contexts.sort((a, b) => a.vpIndex - b.vpIndex)) this.push(context);
    return this.operations;
  }

  private applies(mask: number): boolean {
    return (mask & this.options.compatibilityMask) !== 0;
  }

  private push(operation: LaunchOperation): void {
    if (this.operations.length + this.pending.length < OPERATION_LIMIT) this.operations.push(operation);
    else this.overflow(operation.directive);
  }

  private overflow(directive: number): void {
    if (this.full) return;
    this.full = true;
    this.error(
      this.file.headers[directive]!,
      'igvm-too-many-pages',
      'the file asks for more than 8 GiB of pages',
    );
  }

  private error(header: IgvmHeader, code: string, message: string): void {
    this.findings.header('error', code, header, message);
  }

  private checkQemu(header: IgvmHeader): void {
    if (header.ignorable || header.section === 'platform' || QEMU_HANDLES.has(header.type)) return;
    this.findings.header(
      'warning',
      'igvm-qemu-unsupported',
      header,
      `QEMU's IGVM loader does not know ${header.type} headers and may refuse the file`,
    );
  }

  private directive(header: IgvmHeader): void {
    const directive = header.index;
    switch (header.type) {
      case 'PAGE_DATA':
        if (this.applies(header.compatibilityMask)) this.pageData(header);
        return;
      case 'VP_CONTEXT':
        if (this.takesContext(header)) this.vpContext(header);
        return;
      case 'PARAMETER_AREA':
        return this.parameterArea(header);
      case 'PARAMETER_INSERT':
        if (this.applies(header.compatibilityMask)) this.parameterInsert(header);
        return;
      case 'REQUIRED_MEMORY':
        if (this.applies(header.compatibilityMask))
          this.push({
            kind: 'required-memory',
            gpa: header.gpa,
            size: header.numberOfBytes,
            flags: header.flags,
            directive,
          });
        return;
      case 'ERROR_RANGE':
        if (this.applies(header.compatibilityMask)) this.errorRange(header);
        return;
      case 'SNP_ID_BLOCK':
        if (this.applies(header.compatibilityMask)) this.idBlock(header);
        return;
      case 'UNKNOWN':
        if (!header.ignorable)
          this.error(
            header,
            'igvm-unknown-header',
            `header type ${hex(header.rawType)} is not understood and not optional`,
          );
        return;
      default:
        if ('byteOffset' in header) {
          if (!this.areas.has(header.parameterAreaIndex))
            this.error(
              header,
              'igvm-area-index',
              `parameter area ${header.parameterAreaIndex} is not declared before this`,
            );
          this.push({
            kind: 'parameter',
            parameter: header.type,
            area: header.parameterAreaIndex,
            byteOffset: header.byteOffset,
            directive,
          });
        }
    }
  }

  /** The data of a header, or an error if the file names data it does not have. */
  private dataOf(header: IgvmHeader, fileOffset: number, needs: number): Uint8Array | undefined {
    if (fileOffset === 0 || needs === 0) return undefined;
    if (!header.data || header.data.length < needs) {
      this.error(header, 'igvm-data-range', `the data at file offset ${hex(fileOffset)} is not in the file`);
      return undefined;
    }
    return dataOf(this.file, header.data);
  }

  private checkGpa(header: IgvmHeader, gpa: bigint): void {
    if (gpa & 0xfffn) this.error(header, 'igvm-alignment', `gpa ${hex(gpa)} is not a multiple of 4 KiB`);
  }

  private pageData(header: StructuredHeader<'PAGE_DATA'>): void {
    this.checkGpa(header, header.gpa);
    const large = (header.flags & PAGE_DATA_FLAGS.is2mbPage) !== 0;
    const takesAll = large && this.profile.largePageData === 'all';
    const data = this.dataOf(header, header.fileOffset, takesAll ? LARGE_PAGE_SIZE : PAGE_SIZE);
    const pageType = this.pageType(header);
    const shared = this.profile.sharedFlag === 'honour' && (header.flags & PAGE_DATA_FLAGS.shared) !== 0;
    // As QEMU compares: same flags, type, mask and has-data, next address, next directive.
    const key = `${header.flags}/${header.dataType}/${header.compatibilityMask}/${header.fileOffset !== 0}`;
    if (this.profile.pageRuns && !this.continuesRun(header, key)) this.flush();
    const pages = large ? LARGE_PAGE_SIZE / PAGE_SIZE : 1;
    const has = data && !takesAll ? PAGE_SIZE : (data?.length ?? 0);
    for (let page = 0; page < pages && !this.full; page++) {
      const at = page * PAGE_SIZE;
      const operation: PageOperation = {
        kind: 'page',
        gpa: header.gpa + BigInt(at),
        pageType,
        data: at < has ? data!.subarray(at, at + PAGE_SIZE) : undefined,
        shared,
        directive: header.index,
      };
      if (!this.profile.pageRuns) this.push(operation);
      else if (this.operations.length + this.pending.length < OPERATION_LIMIT) this.pending.push(operation);
      else this.overflow(header.index);
    }
    this.runKey = key;
    this.runNext = header.gpa + BigInt(pages * PAGE_SIZE);
    this.runLast = header.index;
  }

  private continuesRun(header: StructuredHeader<'PAGE_DATA'>, key: string): boolean {
    return key === this.runKey && header.gpa === this.runNext && header.index === this.runLast + 1;
  }

  private pageType(header: StructuredHeader<'PAGE_DATA'>): LaunchPageType {
    const kind = PAGE_KINDS[header.dataType];
    if (kind === undefined) {
      this.error(
        header,
        'igvm-page-type',
        `page data type ${header.dataType} is not one of ${PAGE_DATA_TYPES.join(', ')}`,
      );
      return 'normal';
    }
    // The special types outrank the unmeasured flag.
    if (kind !== 'normal' && hasSpecialPages(this.options.platformType)) return kind;
    return header.flags & PAGE_DATA_FLAGS.unmeasured ? 'unmeasured' : 'normal';
  }

  private flush(): void {
    for (const operation of this.pending) this.operations.push(operation);
    this.pending = [];
  }

  private takesContext(header: StructuredHeader<'VP_CONTEXT'>): boolean {
    if (this.applies(header.compatibilityMask)) return true;
    if (this.profile.vpContextMask === 'filter') return false;
    // igvmmeasure takes every context that is a VMSA, whichever platform it is for.
    const platform = this.byMask.get(header.compatibilityMask);
    return platform !== undefined && CONTEXT_FORMATS[platform] === 'snp-vmsa';
  }

  private vpContext(header: StructuredHeader<'VP_CONTEXT'>): void {
    const format = this.options.platformType && CONTEXT_FORMATS[this.options.platformType];
    if (!format) {
      this.error(
        header,
        'igvm-context-platform',
        `${this.options.platformType ?? 'this platform'} has no VP context`,
      );
      return;
    }
    if (format === 'snp-vmsa') this.checkGpa(header, header.gpa);
    const data = this.dataOf(header, header.fileOffset, format === 'vbs-registers' ? 4 : PAGE_SIZE);
    if (!data) {
      if (header.fileOffset === 0) this.error(header, 'igvm-data-range', 'a VP context must have data');
      return;
    }
    if (format === 'vbs-registers' && (this.registerBytes += data.length) > REGISTER_LIMIT) {
      this.error(
        header,
        'igvm-context-data',
        `the VBS contexts have more than ${REGISTER_LIMIT / 32} registers`,
      );
      return;
    }
    const vmsa = format === 'snp-vmsa';
    const operation: VpContextOperation = {
      kind: 'vp-context',
      gpa: vmsa && this.profile.vmsaGpa !== undefined ? this.profile.vmsaGpa : header.gpa,
      vpIndex: header.vpIndex,
      format,
      data: format === 'vbs-registers' ? data : data.subarray(0, PAGE_SIZE),
      directive: header.index,
    };
    if (vmsa && operation.gpa !== header.gpa)
      this.findings.field(
        'warning',
        'igvm-qemu-vmsa',
        header,
        'gpa',
        `KVM places every VMSA at ${hex(operation.gpa)}; QEMU refuses ${hex(header.gpa)}`,
      );
    if (this.profile.vpContexts === 'in-order') this.push(operation);
    else this.replaceContext(operation);
  }

  /** A context for the same VP replaces the earlier one. */
  private replaceContext(operation: VpContextOperation): void {
    const at = this.contextAt.get(operation.vpIndex);
    if (at !== undefined) this.contexts[at] = operation;
    else this.contextAt.set(operation.vpIndex, this.contexts.push(operation) - 1);
  }

  private parameterArea(header: StructuredHeader<'PARAMETER_AREA'>): void {
    const area = header.parameterAreaIndex;
    if (this.areas.has(area)) {
      this.error(header, 'igvm-area-index', `parameter area ${area} is declared twice`);
      return;
    }
    const size = header.numberOfBytes;
    if (size & 0xfffn)
      this.error(header, 'igvm-alignment', `the size ${hex(size)} is not a multiple of 4 KiB`);
    if (!this.takeArea(header, size)) return;
    this.areas.set(area, { size, inserted: false });
    const needs = size < BigInt(this.file.bytes.length) ? Number(size) : this.file.bytes.length;
    const data = this.dataOf(header, header.fileOffset, needs);
    this.push({
      kind: 'parameter-area',
      area,
      size,
      initialData: this.profile.name === 'qemu-kvm' ? undefined : data,
      directive: header.index,
    });
  }

  private idBlock(header: StructuredHeader<'SNP_ID_BLOCK'>): void {
    if (this.profile.name === 'qemu-kvm' && this.hasIdBlock)
      this.error(header, 'igvm-id-block-twice', 'QEMU refuses a file with two ID blocks for one platform');
    else this.push({ kind: 'id-block', directive: header.index });
    this.hasIdBlock = true;
  }

  private errorRange(header: StructuredHeader<'ERROR_RANGE'>): void {
    this.checkGpa(header, header.gpa);
    const size = header.sizeBytes;
    if (this.takeArea(header, BigInt(size)))
      this.push({ kind: 'error-range', gpa: header.gpa, size, directive: header.index });
  }

  private takeArea(header: IgvmHeader, size: bigint): boolean {
    this.areaBytes += size;
    if (this.areaBytes <= AREA_LIMIT) return true;
    this.error(
      header,
      'igvm-area-size',
      `with these ${size} bytes the parameter areas and error ranges exceed the limit of ${AREA_LIMIT} bytes`,
    );
    return false;
  }

  private parameterInsert(header: StructuredHeader<'PARAMETER_INSERT'>): void {
    this.checkGpa(header, header.gpa);
    const area = this.areas.get(header.parameterAreaIndex);
    if (!area || area.inserted) {
      this.error(
        header,
        'igvm-area-index',
        `parameter area ${header.parameterAreaIndex} ${area ? 'is already inserted' : 'is not declared before this'}`,
      );
      return;
    }
    area.inserted = true;
    const size =
      this.profile.insertPages === 'all' ? Number(area.size) : Math.min(Number(area.size), PAGE_SIZE);
    for (let offset = 0; offset < size && !this.full; offset += PAGE_SIZE)
      this.push({
        kind: 'parameter-page',
        gpa: header.gpa + BigInt(offset),
        area: header.parameterAreaIndex,
        offset,
        directive: header.index,
      });
  }
}
