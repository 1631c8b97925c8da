import { Cursor, type SectionData } from '../cursor.ts';
import * as D from './constants.ts';
import type { DwarfSections } from './sections.ts';

/** One abbreviation declaration (DWARF 5, 7.5.3). */
export interface Abbreviation {
  readonly tag: number;
  readonly hasChildren: boolean;
  /** Triples: attribute, form, implicit constant. */
  readonly specs: readonly number[];
}

/**
 * An abbreviation table. It is scanned only as far as codes have been asked for, and only declarations asked
 * for are kept: gcc puts that of the root entry last, and a hostile file shares long tables.
 */
export class AbbreviationTable {
  private readonly cursor: Cursor;
  private readonly sections: DwarfSections;
  /** Where the declaration of a code starts, behind the code; 0 is "not seen". */
  private readonly positions = new Map<number, number>();
  private readonly known = new Map<number, Abbreviation>();
  private scanned: number;
  private complete = false;

  constructor(sections: DwarfSections, section: SectionData, offset: number) {
    this.sections = sections;
    this.cursor = new Cursor(section, offset);
    this.scanned = offset;
  }

  get(code: number): Abbreviation | undefined {
    let found = this.known.get(code);
    if (!found) {
      const at = this.positions.get(code) ?? this.scan(code);
      if (at === undefined) return undefined;
      this.cursor.pos = at;
      found = this.read();
      this.known.set(code, found);
    }
    return found;
  }

  /** Walks on to the declaration of `code`. */
  private scan(code: number): number | undefined {
    const { cursor } = this;
    while (!this.complete) {
      const start = this.scanned;
      cursor.pos = start;
      const read = cursor.uleb();
      if (read === 0) {
        this.complete = true;
        break;
      }
      const at = cursor.pos;
      cursor.uleb();
      cursor.u8();
      for (;;) {
        const attribute = cursor.uleb();
        const form = cursor.uleb();
        if (form === D.DW_FORM_implicit_const) cursor.sleb();
        else if (attribute === 0 && form === 0) break;
      }
      this.scanned = cursor.pos;
      this.sections.spend('abbreviationBytes', this.scanned - start);
      if (!this.positions.has(read)) this.positions.set(read, at);
      if (read === code) return this.positions.get(code);
    }
    return undefined;
  }

  private read(): Abbreviation {
    const { cursor } = this;
    const tag = cursor.uleb();
    const hasChildren = cursor.u8() !== 0;
    const specs: number[] = [];
    for (;;) {
      const attribute = cursor.uleb();
      const form = cursor.uleb();
      const implicit = form === D.DW_FORM_implicit_const ? cursor.sleb() : 0;
      if (attribute === 0 && form === 0) return { tag, hasChildren, specs };
      specs.push(attribute, form, implicit);
    }
  }
}
