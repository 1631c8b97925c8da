/** The directives of a file, one after the other, as the operations of one loader. */
import { hex } from '../base/index.ts';
import { Findings } from './findings.ts';
import type { LaunchOptions, VcpuExpansion } from './launch.ts';
import type {
  LaunchOperation,
  LaunchPageType,
  PageOperation,
  VpContextFormat,
  VpContextOperation,
} from './operations.ts';
import { isHandled, platformProblem, resetContexts, sortByGpa } from './loader-rules.ts';
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
  /** By vCPU, where VP contexts come last. */
  private readonly contexts = new Map<number, VpContextOperation>();
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
    if (!this.checkPlatform()) return [];
    for (const header of this.file.headers) {
      if (this.full) break;
      this.checkHandled(header);
      if (header.section === 'directive') this.directive(header);
    }
    this.flush();
    const { vcpus, platformType } = this.options;
    const hasVmsas = platformType === 'SEV_SNP' || platformType === 'SEV_ES';
    if (vcpus && hasVmsas && this.profile.vpContexts === 'last') this.expand(vcpus);
    // KVM walks its vCPUs in order when it finishes the launch.
    for (const context of [...this.contexts.values()].sort((a, b) => a.vpIndex - b.vpIndex))
      this.push(context);
    return this.profile.order === 'gpa' ? sortByGpa(this.operations) : this.operations;
  }

  private checkPlatform(): boolean {
    const message = platformProblem(this.profile, this.options.platformType);
    if (message === undefined) return true;
    const { compatibilityMask } = this.options;
    this.error(
      this.file.headers.find(
        (header) => header.type === 'SUPPORTED_PLATFORM' && header.compatibilityMask === compatibilityMask,
      ),
      'igvm-loader-platform',
      message,
    );
    return false;
  }

  /** Every vCPU without a context gets its reset state; a context without a vCPU is an error. */
  private expand(vcpus: VcpuExpansion): void {
    const { count } = vcpus;
    for (const { vpIndex, directive } of this.contexts.values())
      if (vpIndex >= count)
        this.error(
          this.file.headers[directive],
          'igvm-vp-index',
          `the VP context is for vCPU ${vpIndex}, but the guest has ${count} vCPU${count === 1 ? '' : 's'}`,
        );
    for (const context of resetContexts(this.contexts, vcpus, this.profile))
      this.contexts.set(context.vpIndex, context);
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
      this.file.headers[directive],
      'igvm-too-many-pages',
      'the file asks for more than 8 GiB of pages',
    );
  }

  private error(header: IgvmHeader | undefined, code: string, message: string): void {
    if (header) this.findings.header('error', code, header, message);
    else this.findings.add('error', code, message, 0, 0);
  }

  private checkHandled(header: IgvmHeader): void {
    if (isHandled(this.profile, header)) return;
    this.findings.header(
      'warning',
      this.profile.name === 'qemu-kvm' ? 'igvm-qemu-unsupported' : 'igvm-loader-unsupported',
      header,
      `${this.profile.title}'s IGVM loader does not know ${header.type} headers and may refuse the file`,
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
    const { largePages } = this.profile;
    const takesAll = large && largePages === 'all';
    if (large && largePages === 'refuse-data' && header.fileOffset !== 0)
      this.error(header, 'igvm-large-page', `${this.profile.title} panics at a 2 MiB page with data`);
    const data = this.dataOf(header, header.fileOffset, takesAll ? LARGE_PAGE_SIZE : PAGE_SIZE);
    const pageType = this.pageType(header);
    const shared = this.profile.sharedFlag === 'honour' && (header.flags & PAGE_DATA_FLAGS.shared) !== 0;
    // As QEMU compares: same flags, type, mask and has-data, next address, next directive.
    const key = `${header.flags}/${header.dataType}/${header.compatibilityMask}/${header.fileOffset !== 0}`;
    const runs = this.profile.order === 'page-runs';
    if (runs && !this.continuesRun(header, key)) this.flush();
    const pages = large && largePages !== 'one-4k' ? LARGE_PAGE_SIZE / PAGE_SIZE : 1;
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
      if (!runs) this.push(operation);
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
    if (kind !== 'normal') {
      if (kind === 'cpuid-xf' && this.profile.platforms?.length === 1)
        this.error(header, 'igvm-page-type', `${this.profile.title} panics at a CPUID_XF page`);
      if (hasSpecialPages(this.options.platformType)) return kind;
      if (this.profile.name === 'qemu-kvm' && this.options.platformType !== 'NATIVE')
        this.error(header, 'igvm-page-type', `QEMU refuses a ${kind} page on a platform other than SEV-SNP`);
    }
    if (header.flags & PAGE_DATA_FLAGS.unmeasured) return 'unmeasured';
    const empty = header.fileOffset === 0 && this.options.platformType === 'SEV_SNP';
    return empty ? this.profile.emptyPages : 'normal';
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
    const format = this.contextFormat(header);
    if (this.profile.name === 'qemu-kvm' && this.options.platformType === 'SEV')
      this.error(header, 'igvm-context-platform', 'QEMU refuses a VP context on SEV');
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
      data: format === 'vbs-registers' ? data : this.contextPage(header, data),
      directive: header.index,
    };
    if (vmsa && operation.gpa !== header.gpa)
      this.findings.field(
        'warning',
        this.profile.name === 'qemu-kvm' ? 'igvm-qemu-vmsa' : 'igvm-kvm-vmsa',
        header,
        'gpa',
        `KVM places every VMSA at ${hex(operation.gpa)}, not at ${hex(header.gpa)}` +
          (this.profile.name === 'qemu-kvm' ? '; QEMU refuses the file' : ''),
      );
    if (this.profile.vpContexts === 'in-order') this.push(operation);
    // A context for the same VP replaces the earlier one.
    else this.contexts.set(operation.vpIndex, operation);
  }

  /** The format of a context is that of the launched platform; igvmmeasure goes by the context's own mask. */
  private contextFormat(header: StructuredHeader<'VP_CONTEXT'>): VpContextFormat | undefined {
    const own = this.profile.vpContextMask === 'ignore' && this.byMask.get(header.compatibilityMask);
    const platform = own || this.options.platformType;
    return platform && CONTEXT_FORMATS[platform];
  }

  private contextPage(header: StructuredHeader<'VP_CONTEXT'>, data: Uint8Array): Uint8Array {
    if (this.profile.vpContextData === 'boot-only' && header.vpIndex !== 0) return new Uint8Array(PAGE_SIZE);
    return data.subarray(0, PAGE_SIZE);
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
      initialData: this.profile.initialData === 'ignore' ? undefined : data,
      directive: header.index,
    });
  }

  private idBlock(header: StructuredHeader<'SNP_ID_BLOCK'>): void {
    if (this.profile.handles && this.hasIdBlock)
      this.error(
        header,
        'igvm-id-block-twice',
        `${this.profile.title} refuses a file with two ID blocks for one platform`,
      );
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
