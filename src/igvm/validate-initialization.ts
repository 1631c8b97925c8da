/** Rules of the initialization headers (`IgvmFile::validate_initialization_headers` of the igvm crate). */
import { hex } from '../base/index.ts';
import type { Of, Ruled, ValidationContext } from './validate.ts';

interface Region {
  readonly mask: number;
  readonly start: bigint;
  readonly end: bigint;
}

interface VpReference {
  readonly header: Ruled;
  readonly mask: number;
  readonly vpIndex: number;
  readonly vtl: number;
}

/** More regions than this are not compared pairwise: no real file has ten, a hostile one may have a million. */
const REGION_LIMIT = 64;

const aligned = (value: bigint, to: bigint): boolean => to !== 0n && value % to === 0n;

export class InitializationRules {
  /** Page-table regions, where no parameter area may be inserted. */
  readonly pageTableRegions: Region[] = [];
  private readonly context: ValidationContext;
  private readonly regions: Region[] = [];
  private pageTableMasks = 0;
  private corimDocuments = 0;
  private corimSignatures = 0;
  private vpReferences: VpReference[] = [];

  constructor(context: ValidationContext) {
    this.context = context;
  }

  check(header: Ruled): void {
    switch (header.type) {
      case 'RELOCATABLE_REGION':
        return this.relocatable(header);
      case 'PAGE_TABLE_RELOCATION':
        return this.pageTable(header);
      case 'CORIM_DOCUMENT':
        if (header.compatibilityMask & this.corimDocuments)
          this.error(
            header,
            'igvm-corim',
            'compatibilityMask',
            'a platform may have one CoRIM document; this is one more',
          );
        this.corimDocuments |= header.compatibilityMask;
        return;
      case 'CORIM_SIGNATURE':
        if (header.compatibilityMask & this.corimSignatures)
          this.error(
            header,
            'igvm-corim',
            'compatibilityMask',
            'a platform may have one CoRIM signature; this is one more',
          );
        if (header.compatibilityMask & ~this.corimDocuments)
          this.error(
            header,
            'igvm-corim',
            'compatibilityMask',
            'a CoRIM signature must follow the document it signs',
          );
        this.corimSignatures |= header.compatibilityMask;
        return;
      case 'CCA_POLICY':
        return this.ccaPolicy(header);
      default:
        return;
    }
  }

  /** A VBS context for this VP and VTL was seen. */
  vbsContext(mask: number, vtl: number): void {
    this.vpReferences = this.vpReferences.filter(
      (reference) => !((reference.mask & mask) !== 0 && reference.vpIndex === 0 && reference.vtl === vtl),
    );
  }

  finish(): void {
    for (const { header, vpIndex, vtl } of this.vpReferences)
      this.error(
        header,
        'igvm-relocation-context',
        'vpIndex',
        `the relocation names VP ${vpIndex} at VTL ${vtl}; no VBS VP context matches it`,
      );
  }

  private error(header: Ruled, code: string, field: string, message: string): void {
    this.context.findings.field('error', code, header, field, message);
  }

  private relocatable(header: Of<'RELOCATABLE_REGION'>): void {
    const alignment = header.relocationAlignment;
    if (!aligned(header.relocationRegionSize, 4096n))
      this.error(header, 'igvm-alignment', 'relocationRegionSize', 'the size must be a multiple of 4 KiB');
    if (alignment === 0n || !aligned(alignment, 4096n))
      this.error(
        header,
        'igvm-alignment',
        'relocationAlignment',
        'the alignment must be a multiple of 4 KiB, and not 0',
      );
    else
      for (const field of ['relocationRegionGpa', 'minimumRelocationGpa', 'maximumRelocationGpa'] as const)
        if (!aligned(header[field], alignment))
          this.error(
            header,
            'igvm-alignment',
            field,
            `${hex(header[field])} is not a multiple of the relocation alignment ${hex(alignment)}`,
          );
    this.region(header, header.relocationRegionGpa, header.relocationRegionSize);
    this.reference(header);
  }

  private pageTable(header: Of<'PAGE_TABLE_RELOCATION'>): void {
    for (const field of ['gpa', 'size', 'usedSize'] as const)
      if (!aligned(header[field], 4096n))
        this.error(header, 'igvm-alignment', field, `${hex(header[field])} is not a multiple of 4 KiB`);
    if (header.usedSize > header.size)
      this.error(header, 'igvm-page-table-size', 'usedSize', 'the used size exceeds the size of the region');
    if (header.compatibilityMask & this.pageTableMasks)
      this.error(
        header,
        'igvm-page-table-twice',
        'compatibilityMask',
        'a platform may have one page-table region; this is one more',
      );
    this.pageTableMasks |= header.compatibilityMask;
    this.region(header, header.gpa, header.size);
    this.reference(header);
    if (this.pageTableRegions.length < REGION_LIMIT)
      this.pageTableRegions.push({
        mask: header.compatibilityMask,
        start: header.gpa,
        end: header.gpa + header.size,
      });
  }

  private region(
    header: Of<'RELOCATABLE_REGION' | 'PAGE_TABLE_RELOCATION'>,
    start: bigint,
    size: bigint,
  ): void {
    const region = { mask: header.compatibilityMask, start, end: start + size };
    const field = header.type === 'PAGE_TABLE_RELOCATION' ? 'gpa' : 'relocationRegionGpa';
    if (size === 0n || region.end > 1n << 64n)
      this.error(header, 'igvm-relocation-range', field, 'the region is empty or leaves the address space');
    else if (
      this.regions.some(
        (other) => (other.mask & region.mask) !== 0 && other.start < region.end && region.start < other.end,
      )
    )
      this.error(
        header,
        'igvm-relocation-overlap',
        field,
        'the region overlaps another relocation region of the same platform',
      );
    if (this.regions.length < REGION_LIMIT) this.regions.push(region);
  }

  private reference(header: Of<'RELOCATABLE_REGION' | 'PAGE_TABLE_RELOCATION'>): void {
    if (header.vtl > 2)
      this.error(header, 'igvm-vtl', 'vtl', `VTL ${header.vtl} does not exist; 0, 1 and 2 do`);
    if (this.vpReferences.length < REGION_LIMIT)
      this.vpReferences.push({
        header,
        mask: header.compatibilityMask,
        vpIndex: header.vpIndex,
        vtl: header.vtl,
      });
  }

  private ccaPolicy(header: Of<'CCA_POLICY'>): void {
    const { file, byMask } = this.context;
    if (header.attributesRequiredZeroes & header.attributesRequiredOnes)
      this.error(
        header,
        'igvm-cca-policy',
        'attributesRequiredOnes',
        'an attribute is required to be both 0 and 1',
      );
    if (file.header.architecture === 'X64')
      this.error(
        header,
        'igvm-header-architecture',
        'compatibilityMask',
        'CCA_POLICY is a header of AARCH64 files',
      );
    for (let bit = 0; bit < 32; bit++) {
      const mask = (1 << bit) >>> 0;
      if ((header.compatibilityMask & mask) !== 0 && byMask.get(mask) !== 'CCA') {
        this.error(header, 'igvm-cca-policy', 'compatibilityMask', `mask ${hex(mask)} is not a CCA platform`);
        return;
      }
    }
  }
}
