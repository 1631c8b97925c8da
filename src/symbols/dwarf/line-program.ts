import { CvmError } from '../../base/index.ts';
import { Cursor } from '../cursor.ts';
import { lastAtOrBelow } from '../intervals.ts';
import { readOldFile, type LineHeader } from './line-header.ts';
import type { DwarfSections } from './sections.ts';

export const ROW_IS_STMT = 1;
export const ROW_BASIC_BLOCK = 2;
export const ROW_PROLOGUE_END = 4;
export const ROW_EPILOGUE_BEGIN = 8;
export const ROW_END_SEQUENCE = 16;

/**
 * The decoded rows of one line program, as parallel arrays. A sequence is a run of rows with ascending
 * addresses whose last row is its end (ROW_END_SEQUENCE, no line of its own); sequences are sorted by start.
 */
export interface LineTable {
  readonly address: Float64Array;
  /** File register as in the program: an index into the header's files. */
  readonly file: Uint32Array;
  readonly line: Uint32Array;
  /** 1-based column, 0 for "whole line". */
  readonly column: Uint16Array;
  readonly flags: Uint8Array;
  /** Start address, end address, first row and one past the last row (the end row) of each sequence. */
  readonly sequenceStart: Float64Array;
  readonly sequenceEnd: Float64Array;
  readonly firstRow: Uint32Array;
  readonly endRow: Uint32Array;
}

/** One program's rows; the largest real ones have some 200,000. */
const MAX_PROGRAM_ROWS = 1 << 22;

/** Growing columns for the rows of one program. */
class Rows {
  capacity = 1024;
  count = 0;
  address = new Float64Array(this.capacity);
  file = new Uint32Array(this.capacity);
  line = new Uint32Array(this.capacity);
  column = new Uint16Array(this.capacity);
  flags = new Uint8Array(this.capacity);

  push(address: number, file: number, line: number, column: number, flags: number): void {
    if (this.count === this.capacity) this.grow();
    const at = this.count++;
    this.address[at] = address;
    this.file[at] = file;
    this.line[at] = line;
    this.column[at] = Math.min(column, 0xffff);
    this.flags[at] = flags;
  }

  private grow(): void {
    if (this.capacity >= MAX_PROGRAM_ROWS)
      throw new CvmError('dwarf-limit', `A line table has more than ${MAX_PROGRAM_ROWS} rows.`);
    this.capacity *= 2;
    const wider = <T extends Float64Array | Uint32Array | Uint16Array | Uint8Array>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.address = wider(this.address, new Float64Array(this.capacity));
    this.file = wider(this.file, new Uint32Array(this.capacity));
    this.line = wider(this.line, new Uint32Array(this.capacity));
    this.column = wider(this.column, new Uint16Array(this.capacity));
    this.flags = wider(this.flags, new Uint8Array(this.capacity));
  }
}

/**
 * Runs a line number program (DWARF 5, 6.2.5). `keep(address)` says whether a sequence that starts there
 * belongs to the image: linkers leave sequences of discarded functions behind, at address 0 or -1.
 * A program that breaks off keeps its finished sequences, with a diagnostic. DW_LNE_define_file adds to
 * `header.files`. Throws only `CvmError` `dwarf-limit`.
 */
export function runLineProgram(
  sections: DwarfSections,
  header: LineHeader,
  keep: (address: number) => boolean,
): LineTable {
  const rows = new Rows();
  const sequences: { start: number; end: number; first: number; last: number }[] = [];
  try {
    execute(sections, header, keep, rows, sequences);
  } catch (error) {
    if (error instanceof CvmError && error.code === 'dwarf-limit') throw error;
    sections.note(error);
  }
  sequences.sort((a, b) => a.start - b.start || a.end - b.end || a.first - b.first);
  return {
    address: rows.address.slice(0, rows.count),
    file: rows.file.slice(0, rows.count),
    line: rows.line.slice(0, rows.count),
    column: rows.column.slice(0, rows.count),
    flags: rows.flags.slice(0, rows.count),
    sequenceStart: Float64Array.from(sequences, (sequence) => sequence.start),
    sequenceEnd: Float64Array.from(sequences, (sequence) => sequence.end),
    firstRow: Uint32Array.from(sequences, (sequence) => sequence.first),
    endRow: Uint32Array.from(sequences, (sequence) => sequence.last),
  };
}

function execute(
  sections: DwarfSections,
  header: LineHeader,
  keep: (address: number) => boolean,
  rows: Rows,
  sequences: { start: number; end: number; first: number; last: number }[],
): void {
  const cursor = new Cursor(sections.get('line')!, header.program, header.end);
  const { minimumInstructionLength, maximumOperations, lineBase, lineRange, opcodeBase } = header;
  let address = 0;
  let operation = 0;
  let file = 1;
  let line = 1;
  let column = 0;
  let isStmt = header.defaultIsStmt;
  let marks = 0;
  let first = rows.count;
  let sorted = true;

  const reset = (): void => {
    address = operation = column = marks = 0;
    file = line = 1;
    isStmt = header.defaultIsStmt;
    first = rows.count;
    sorted = true;
  };
  // "operation advance" (6.2.5.1): VLIW machines count operations inside an instruction.
  const advance = (operations: number): void => {
    if (maximumOperations === 1) address += minimumInstructionLength * operations;
    else {
      const sum = operation + operations;
      address += minimumInstructionLength * Math.floor(sum / maximumOperations);
      operation = sum % maximumOperations;
    }
    if (!Number.isSafeInteger(address)) cursor.fail('dwarf-line-address', 'an address is not canonical');
  };
  const emit = (): void => {
    if (rows.count > first && address < rows.address[rows.count - 1]!) sorted = false;
    rows.push(address, file, line >>> 0, column, marks | (isStmt ? ROW_IS_STMT : 0));
    marks = 0;
  };
  const endSequence = (): void => {
    if (!sorted) sortRows(rows, first);
    const start = rows.count > first ? rows.address[first]! : address;
    rows.push(address, file, line >>> 0, column, ROW_END_SEQUENCE);
    const belongs =
      rows.count - first > 1 && start < address && rows.address[rows.count - 2]! <= address && keep(start);
    if (belongs) {
      sections.spend('rows', rows.count - first);
      sequences.push({ start, end: address, first, last: rows.count });
    } else rows.count = first;
    reset();
  };

  let opcodes = 0;
  while (cursor.pos < header.end) {
    if ((++opcodes & 0xffff) === 0) sections.spend('opcodes', 0x10000);
    const opcode = cursor.u8();
    if (opcode >= opcodeBase) {
      if (lineRange === 0) cursor.fail('dwarf-line-range', 'line_range is 0');
      const adjusted = opcode - opcodeBase;
      advance(Math.floor(adjusted / lineRange));
      line += lineBase + (adjusted % lineRange);
      emit();
      continue;
    }
    switch (opcode) {
      case 0: {
        const length = cursor.uleb();
        const next = cursor.pos + length;
        if (length === 0 || next > header.end)
          cursor.fail('dwarf-line-opcode', `an extended opcode of ${length} bytes does not fit`);
        const extended = cursor.u8();
        if (extended === 1) endSequence();
        else if (extended === 2) {
          if (length !== 9) cursor.fail('dwarf-address-size', `DW_LNE_set_address has ${length - 1} bytes`);
          address = cursor.address();
          operation = 0;
          // Tombstones (-1, -2) and wild values: keep() and the advance check see to them.
          if (Number.isNaN(address)) cursor.fail('dwarf-line-address', 'an address is not canonical');
        } else if (extended === 3) header.files.push(readOldFile(sections, cursor, header.directories));
        // DW_LNE_set_discriminator and vendors' opcodes change nothing we keep.
        cursor.pos = next;
        break;
      }
      case 1:
        emit();
        break;
      case 2:
        advance(cursor.uleb());
        break;
      case 3:
        line += cursor.sleb();
        if (!Number.isSafeInteger(line)) cursor.fail('dwarf-line-opcode', 'a line number overflows');
        break;
      case 4:
        file = cursor.uleb();
        break;
      case 5:
        column = cursor.uleb();
        break;
      case 6:
        isStmt = !isStmt;
        break;
      case 7:
        marks |= ROW_BASIC_BLOCK;
        break;
      case 8:
        if (lineRange === 0) cursor.fail('dwarf-line-range', 'line_range is 0');
        advance(Math.floor((255 - opcodeBase) / lineRange));
        break;
      case 9:
        address += cursor.u16();
        operation = 0;
        break;
      case 10:
        marks |= ROW_PROLOGUE_END;
        break;
      case 11:
        marks |= ROW_EPILOGUE_BEGIN;
        break;
      case 12:
        cursor.uleb();
        break;
      default:
        for (let i = 0; i < header.opcodeLengths[opcode]!; i++) cursor.uleb();
    }
  }
  // Rows without an end are not a sequence: nobody knows how far the last one reaches.
  rows.count = first;
}

/** Sorts the rows from `first` on by address, keeping the order of equals (producers may not, 6.2.5 wants it). */
function sortRows(rows: Rows, first: number): void {
  const order = Uint32Array.from({ length: rows.count - first }, (_, i) => first + i);
  order.sort((a, b) => rows.address[a]! - rows.address[b]! || a - b);
  const reorder = (column: Float64Array | Uint32Array | Uint16Array | Uint8Array): void => {
    column.set(
      Array.from(order, (index) => column[index]!),
      first,
    );
  };
  for (const column of [rows.address, rows.file, rows.line, rows.column, rows.flags]) reorder(column);
}

/** The row that answers for an address: index, and the end of its range. `undefined` outside all sequences. */
export function rowAt(
  table: LineTable,
  address: number,
): { row: number; start: number; end: number } | undefined {
  let sequence = lastAtOrBelow(table.sequenceStart, address);
  // Sequences of one program may overlap only in broken files; look a few back, the latest start first.
  for (let tries = 0; sequence >= 0 && tries < 8; sequence--, tries++) {
    if (address >= table.sequenceEnd[sequence]!) continue;
    const first = table.firstRow[sequence]!;
    const last = table.endRow[sequence]!;
    const row = lastAtOrBelow(table.address, address, first, last);
    if (row < first || table.flags[row]! & ROW_END_SEQUENCE) continue;
    return { row, start: table.address[row]!, end: table.address[row + 1]! };
  }
  return undefined;
}
