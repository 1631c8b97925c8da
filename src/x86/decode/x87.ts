/**
 * The x87 escapes D8-DF: APM vol. 3, table A-15 and following. Only the control instructions are
 * executed so far; the others are recognised, so that undefined encodings raise #UD.
 */
import { UD, parseEntry } from './entry.ts';
import type { Entry } from './entry.ts';

const UNIMPLEMENTED = parseEntry('-x87 M');

/** `opcode/reg` of the memory forms that are known. */
const MEMORY: Readonly<Record<string, Entry>> = {
  'd9/5': parseEntry('*fldcw Mw'),
  'd9/7': parseEntry('*fnstcw Mw'),
  'dd/7': parseEntry('*fnstsw Mw'),
};
const INVALID_MEMORY = new Set(['d9/1', 'db/4', 'db/6', 'dd/5']);

const REGISTER: Readonly<Record<string, Entry>> = {
  dbe2: parseEntry('*fnclex'),
  dbe3: parseEntry('*fninit'),
  dfe0: parseEntry('*fnstsw_ax @w'),
};

/** Undefined register forms: opcode, first and last ModRM byte. */
const INVALID_REGISTER: readonly (readonly [number, number, number])[] = [
  [0xd9, 0xd1, 0xd7],
  [0xd9, 0xe2, 0xe3],
  [0xd9, 0xe6, 0xe7],
  [0xd9, 0xef, 0xef],
  [0xda, 0xe0, 0xe8],
  [0xda, 0xea, 0xff],
  [0xdb, 0xe5, 0xe7],
  [0xdb, 0xf8, 0xff],
  [0xdd, 0xf0, 0xff],
  [0xde, 0xd8, 0xd8],
  [0xde, 0xda, 0xdf],
  [0xdf, 0xe1, 0xe7],
  [0xdf, 0xf8, 0xff],
];

export const x87Entry = (opcode: number, modrm: number): Entry => {
  const hex = opcode.toString(16);
  if (modrm < 0xc0) {
    const key = `${hex}/${(modrm >> 3) & 7}`;
    return INVALID_MEMORY.has(key) ? UD : (MEMORY[key] ?? UNIMPLEMENTED);
  }
  for (const [byte, first, last] of INVALID_REGISTER)
    if (byte === opcode && modrm >= first && modrm <= last) return UD;
  return REGISTER[hex + modrm.toString(16)] ?? X87_REGISTER;
};
const X87_REGISTER = parseEntry('-x87');
