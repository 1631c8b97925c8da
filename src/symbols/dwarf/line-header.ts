import { bytesToHex } from '../../base/index.ts';
import { Cursor } from '../cursor.ts';
import * as D from './constants.ts';
import { formValue, readForm, resolveString, type Encoding } from './forms.ts';
import { joinPath } from '../paths.ts';
import type { DwarfSections } from './sections.ts';

/** One file of a line program. */
export interface LineFile {
  /** Absolute where the compiler recorded a directory; normalised. */
  readonly path: string;
  /** Lower-case hex MD5 of the source, where the producer wrote one (DWARF 5). */
  readonly md5?: string;
}

/** Header of a line number program (DWARF 5, 6.2.4), with what its program needs. */
export interface LineHeader extends Encoding {
  readonly offset: number;
  readonly minimumInstructionLength: number;
  readonly maximumOperations: number;
  readonly defaultIsStmt: boolean;
  readonly lineBase: number;
  readonly lineRange: number;
  readonly opcodeBase: number;
  /** Operand count of standard opcode i at [i]. */
  readonly opcodeLengths: Uint8Array;
  /** Indexed by the file register: entry 0 is a duplicate or the primary file, as the version says. */
  readonly files: LineFile[];
  readonly directories: readonly string[];
  /** Where the opcodes start and end in .debug_line. */
  readonly program: number;
  readonly end: number;
}

/**
 * Reads the header at `offset` of .debug_line. `compDir` and `unitName` are the unit's DW_AT_comp_dir and
 * DW_AT_name, from which versions 2 to 4 leave out directory 0 and (for us) file 0.
 * Throws `CvmError` (`dwarf-*`) when it cannot be read.
 */
export function readLineHeader(
  sections: DwarfSections,
  offset: number,
  compDir: string,
  unitName: string,
): LineHeader {
  const section = sections.get('line');
  const cursor = new Cursor(
    section ?? { name: '.debug_line', bytes: new Uint8Array(0), fileOffset: 0 },
    offset,
  );
  const { end, dwarf64 } = cursor.unitLength();
  cursor.end = end;
  const version = cursor.u16();
  if (version < 2 || version > 5)
    cursor.fail('dwarf-version', `line table version ${version} is not supported`);
  let addressSize = 8;
  if (version >= 5) {
    addressSize = cursor.u8();
    if (addressSize !== 8 || cursor.u8() !== 0)
      cursor.fail(
        'dwarf-address-size',
        'a line table with segments or without 8-byte addresses is not x86-64',
      );
  }
  const headerLength = cursor.offset(dwarf64);
  const program = cursor.pos + headerLength;
  if (program > end) cursor.fail('dwarf-truncated', 'the line table header is longer than the table');
  const encoding: Encoding = { version, dwarf64, addressSize };
  const minimumInstructionLength = cursor.u8();
  const maximumOperations = version >= 4 ? Math.max(1, cursor.u8()) : 1;
  const defaultIsStmt = cursor.u8() !== 0;
  const lineBase = cursor.i8();
  const lineRange = cursor.u8();
  const opcodeBase = cursor.u8();
  const opcodeLengths = new Uint8Array(Math.max(1, opcodeBase));
  for (let i = 1; i < opcodeBase; i++) opcodeLengths[i] = cursor.u8();

  const directories: string[] = [];
  const files: LineFile[] = [];
  if (version >= 5) {
    for (const row of readEntries(sections, cursor, encoding)) {
      // Directory 0 is the compilation directory, the others are relative to it.
      directories.push(joinPath(directories[0] ?? compDir, row.path));
    }
    for (const row of readEntries(sections, cursor, encoding)) {
      const path = joinPath(directories[row.directory] ?? directories[0] ?? compDir, row.path);
      files.push(row.md5 === undefined ? { path } : { path, md5: row.md5 });
    }
  } else {
    directories.push(normalDirectory(compDir));
    while (cursor.bytes[cursor.pos] !== 0 || cursor.pos >= end) {
      sections.spend('files');
      directories.push(joinPath(directories[0]!, cursor.string()));
    }
    cursor.skip(1);
    files.push({ path: joinPath(compDir, unitName) });
    while (cursor.bytes[cursor.pos] !== 0 || cursor.pos >= end)
      files.push(readOldFile(sections, cursor, directories));
    cursor.skip(1);
  }
  return {
    ...encoding,
    offset,
    minimumInstructionLength,
    maximumOperations,
    defaultIsStmt,
    lineBase,
    lineRange,
    opcodeBase,
    opcodeLengths,
    files,
    directories,
    program,
    end,
  };
}

const normalDirectory = (path: string): string => joinPath(path, '');

/** A file entry of versions 2 to 4, also behind DW_LNE_define_file: name, directory, time, length. */
export function readOldFile(
  sections: DwarfSections,
  cursor: Cursor,
  directories: readonly string[],
): LineFile {
  sections.spend('files');
  const name = cursor.string();
  const directory = cursor.uleb();
  cursor.uleb();
  cursor.uleb();
  return { path: joinPath(directories[directory] ?? directories[0] ?? '', name) };
}

interface EntryRow {
  path: string;
  directory: number;
  md5?: string;
}

/** A directory or file table of version 5: its format, then its entries (6.2.4.1). */
function* readEntries(sections: DwarfSections, cursor: Cursor, encoding: Encoding): Generator<EntryRow> {
  const format: number[] = [];
  const formats = cursor.u8();
  for (let i = 0; i < formats; i++) format.push(cursor.uleb(), cursor.uleb());
  const count = cursor.uleb();
  const value = formValue();
  for (let i = 0; i < count; i++) {
    // Entries without content would let a short table declare any number of them.
    if (formats === 0) cursor.fail('dwarf-line-entries', `${count} entries are declared without a format`);
    sections.spend('files');
    const row: EntryRow = { path: '', directory: 0 };
    for (let column = 0; column < format.length; column += 2) {
      readForm(cursor, format[column + 1]!, encoding, 0, value);
      if (format[column] === D.DW_LNCT_path)
        row.path = resolveString(sections, cursor.section, value, encoding, undefined) ?? '';
      else if (format[column] === D.DW_LNCT_directory_index) row.directory = value.value;
      else if (format[column] === D.DW_LNCT_MD5 && value.class === 'block' && value.length === 16)
        row.md5 = bytesToHex(cursor.bytes.subarray(value.value, value.value + 16));
    }
    yield row;
  }
}

/** Whether there is anything behind the header at `offset` (units of types only have empty programs). */
export function hasOpcodes(sections: DwarfSections, offset: number): boolean {
  try {
    const cursor = new Cursor(sections.get('line')!, offset);
    const { end, dwarf64 } = cursor.unitLength();
    if (cursor.u16() >= 5) cursor.skip(2);
    return cursor.offset(dwarf64) < end - cursor.pos;
  } catch {
    return false;
  }
}
