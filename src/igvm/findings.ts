/** Collecting diagnostics, with a bound: a hostile file must not buy memory with its mistakes. */
import type { Diagnostic, Severity } from '../base/index.ts';
import { specOf } from './codec.ts';
import type { IgvmHeader } from './types.ts';

const LIMIT = 1000;

export class Findings {
  readonly list: Diagnostic[] = [];
  private dropped = 0;

  add(severity: Severity, code: string, message: string, offset: number, length: number): void {
    if (this.list.length < LIMIT) this.list.push({ severity, code, message, offset, length });
    else this.dropped++;
  }

  /** A finding about a whole header. */
  header(severity: Severity, code: string, header: IgvmHeader, message: string): void {
    this.add(severity, code, message, header.offset, header.length);
  }

  /** A finding about one field of a header. */
  field(severity: Severity, code: string, header: IgvmHeader, field: string, message: string): void {
    if (header.type === 'UNKNOWN' || header.type === 'VERSION_STRING') {
      this.header(severity, code, header, message);
      return;
    }
    const { offset, size } = specOf(header.type).structure.field(field);
    this.add(severity, code, message, header.offset + 8 + offset, size);
  }

  /** The list, in file order, with a last line that says how much was left out. */
  finish(): readonly Diagnostic[] {
    this.list.sort((a, b) => a.offset - b.offset);
    if (this.dropped > 0)
      this.list.push({
        severity: 'info',
        code: 'igvm-more-findings',
        message: `${this.dropped} more findings are not listed`,
        offset: 0,
        length: 0,
      });
    return this.list;
  }
}
