import { CvmError, type Diagnostic } from '../../base/index.ts';
import type { SectionData } from '../cursor.ts';
import type { ElfFile } from '../elf.ts';

export type DwarfSectionName =
  | 'info'
  | 'abbrev'
  | 'line'
  | 'str'
  | 'line_str'
  | 'str_offsets'
  | 'addr'
  | 'ranges'
  | 'rnglists'
  | 'aranges';

/** How much one image may make us decode; only a hostile or absurd file comes near. */
const LIMITS = {
  /** Unit headers in .debug_info. */
  units: 1 << 20,
  /** Bytes of abbreviation tables gone through. */
  abbreviationBytes: 1 << 27,
  /** Address ranges of units and of scopes. */
  ranges: 1 << 22,
  /** Directory and file entries in line tables. */
  files: 1 << 21,
  /** Line table rows kept, of all units together (25 bytes each). */
  rows: 1 << 24,
  /** Line table opcodes run. */
  opcodes: 1 << 27,
  /** Debugging entries visited when looking for functions. */
  entries: 1 << 26,
};
export type LimitName = keyof typeof LIMITS;

/** The DWARF sections of one ELF file, taken out (and decompressed) on first use, and its work budget. */
export class DwarfSections {
  private readonly elf: ElfFile;
  readonly diagnostics: Diagnostic[];
  private readonly cache = new Map<DwarfSectionName, SectionData | undefined>();
  private readonly left: Record<LimitName, number> = { ...LIMITS };

  constructor(elf: ElfFile, diagnostics: Diagnostic[]) {
    this.elf = elf;
    this.diagnostics = diagnostics;
  }

  get(name: DwarfSectionName): SectionData | undefined {
    if (!this.cache.has(name)) {
      const section = this.elf.section(`.debug_${name}`) ?? this.elf.section(`.zdebug_${name}`);
      const data = section && this.elf.data(section);
      this.cache.set(name, data && data.bytes.length > 0 ? data : undefined);
    }
    return this.cache.get(name);
  }

  /** Counts work against its limit; throws `CvmError` `dwarf-limit` beyond it. */
  spend(name: LimitName, amount = 1): void {
    this.left[name] -= amount;
    if (this.left[name] < 0)
      throw new CvmError('dwarf-limit', `The debug information has more than ${LIMITS[name]} ${name}.`);
  }

  /** Notes a survivable error; anything but a CvmError is a bug of ours and passes through. */
  note(error: unknown, severity: Diagnostic['severity'] = 'warning'): void {
    if (!(error instanceof CvmError)) throw error;
    if (this.diagnostics.length >= 200) return;
    this.diagnostics.push({
      severity,
      code: error.code,
      message: error.message,
      offset: error.place.fileOffset ?? 0,
      length: 0,
    });
  }
}
