/**
 * The notation of the opcode maps. One cell of a map is one string:
 *
 *   `name operands @size !64`
 *
 * name      an IR definition; `*name` a helper; `-name` valid but not implemented yet; `%name` a group
 *           chosen by ModRM.reg; `ud` invalid. `narrow~wide` chooses by REX.W. A name ending in `cc`
 *           takes its condition from the low opcode nibble; `name?` gets the address size in bits appended.
 * operands  APM vol. 3, appendix A ("Operand notation"), letter by letter:
 *           E general register or memory (ModRM.rm), G general register (ModRM.reg), Z general register in
 *           the opcode, R general register (ModRM.rm, register form only), M memory only, S segment register,
 *           C control register, D debug register, V XMM (ModRM.reg), W XMM or memory, U XMM (register form
 *           only), P/Q/N the same for MMX, I immediate, J relative branch, O absolute offset, A far pointer,
 *           B XMM register in ModRM.reg of an instruction that reads it as its source of a memory store.
 *           Fixed ones: AL, rAX, DX, 1, ES CS SS DS FS GS. `_` leaves the destination position empty.
 * sizes     b w d q x(16 bytes); v = 16/32/64 by prefixes; z = v, but 32 bits of immediate at most;
 *           s = v, but 64 bits by default in 64-bit mode (stack and near branches); y = 32/64 by REX.W alone;
 *           u = 16/32 (I/O). Immediates: Ib sign-extended byte, Iu unsigned byte, Iw unsigned word, Iz
 *           sign-extended, Iv full width.
 * @size     operand size when no operand says it.
 * !64 / 64  invalid in 64-bit mode / only valid there.
 * nolock    is implied: see LOCKABLE.
 */
export const KIND = { ir: 0, helper: 1, unimplemented: 2, ud: 3 } as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

export interface OperandSpec {
  /** Operand letter, or 'r' a fixed general register, 's' a fixed segment register, '1', '_'. */
  readonly letter: string;
  /** Size letter, '' if none. */
  readonly size: string;
  /** Index of a fixed register. */
  readonly fixed: number;
}

export interface Entry {
  readonly name: string;
  /** Name with REX.W. */
  readonly wide: string;
  readonly kind: Kind;
  readonly operands: readonly OperandSpec[];
  readonly size: string;
  readonly modrm: boolean;
  readonly condition: boolean;
  readonly perAddressSize: boolean;
  readonly invalid64: boolean;
  readonly only64: boolean;
  /** Eight entries by ModRM.reg. */
  readonly group: readonly Entry[] | undefined;
  /** Entry for ModRM.mod = 3 when it differs from the memory form. */
  readonly register: Entry | undefined;
  /** By mandatory prefix: none, 66, F3, F2. */
  readonly prefixed: readonly Entry[] | undefined;
}

const MODRM_LETTERS = 'EGRMSCDVWUPQNB';
const FIXED: Readonly<Record<string, OperandSpec>> = {
  AL: { letter: 'r', size: 'b', fixed: 0 },
  rAX: { letter: 'r', size: 'v', fixed: 0 },
  '1': { letter: '1', size: '', fixed: 0 },
  _: { letter: '_', size: '', fixed: 0 },
  ES: { letter: 's', size: '', fixed: 0 },
  CS: { letter: 's', size: '', fixed: 1 },
  SS: { letter: 's', size: '', fixed: 2 },
  DS: { letter: 's', size: '', fixed: 3 },
  FS: { letter: 's', size: '', fixed: 4 },
  GS: { letter: 's', size: '', fixed: 5 },
};

const blank = {
  name: 'ud',
  wide: 'ud',
  kind: KIND.ud as Kind,
  operands: [] as readonly OperandSpec[],
  size: '',
  modrm: false,
  condition: false,
  perAddressSize: false,
  invalid64: false,
  only64: false,
  group: undefined,
  register: undefined,
  prefixed: undefined,
};

export const UD: Entry = blank;

export type Groups = Readonly<Record<string, readonly string[]>>;

const operand = (text: string): OperandSpec =>
  FIXED[text] ?? { letter: text[0]!, size: text.slice(1), fixed: 0 };

const sizeFrom = (operands: readonly OperandSpec[]): string => {
  for (const { letter, size } of operands) {
    if (letter === 'I' || letter === 'J' || letter === 'A' || letter === 'C' || letter === 'D') continue;
    if (size !== '') return size;
    if (letter === 'V' || letter === 'W' || letter === 'U' || letter === 'B') return 'x';
  }
  return '';
};

/** Reads one cell. `inherited` are the operands of the opcode for group members that name none. */
export const parseEntry = (text: string, groups: Groups = {}, inherited = ''): Entry => {
  const trimmed = text.trim();
  if (trimmed === '' || trimmed === 'ud' || trimmed === '.') return UD;
  if (trimmed.includes(' / ')) {
    const [memory, register] = trimmed.split(' / ');
    return {
      ...parseEntry(memory!, groups, inherited),
      modrm: true,
      register: parseEntry(register!, groups, inherited),
    };
  }
  const words = trimmed.split(/\s+/);
  let name = words.shift()!;
  let operandText = '';
  let size = '';
  let invalid64 = false;
  let only64 = false;
  for (const word of words) {
    if (word === '!64') invalid64 = true;
    else if (word === '64') only64 = true;
    else if (word.startsWith('@')) size = word.slice(1);
    else operandText = word;
  }
  if (operandText === '') operandText = inherited;
  if (name.startsWith('%')) {
    const members = groups[name.slice(1)];
    if (members === undefined) throw new Error(`no group ${name}`);
    return {
      ...blank,
      modrm: true,
      invalid64,
      group: members.map((member) => parseEntry(member, groups, operandText)),
    };
  }
  const kind: Kind = name.startsWith('*') ? KIND.helper : name.startsWith('-') ? KIND.unimplemented : KIND.ir;
  if (kind !== KIND.ir) name = name.slice(1);
  const perAddressSize = name.endsWith('?');
  if (perAddressSize) name = name.slice(0, -1);
  const [narrow, wide] = name.split('~');
  const operands = operandText === '' ? [] : operandText.split(',').map(operand);
  return {
    ...blank,
    name: narrow!,
    wide: wide ?? narrow!,
    kind,
    operands,
    size: size === '' ? sizeFrom(operands) : size,
    modrm: operands.some(({ letter }) => MODRM_LETTERS.includes(letter)),
    condition: narrow!.endsWith('cc'),
    perAddressSize,
    invalid64,
    only64,
  };
};

/** Reads a map of 32 rows of eight cells: row n holds opcodes 8n … 8n+7. */
export const parseMap = (rows: readonly (readonly string[])[], groups: Groups): Entry[] => {
  const cells = rows.flat();
  if (cells.length !== 256) throw new Error(`an opcode map has 256 cells, not ${cells.length}`);
  return cells.map((cell) => parseEntry(cell, groups));
};

/**
 * Reads lines `opcode none | 66 | F3 | F2` of opcodes that a mandatory prefix tells apart. A column
 * `^` repeats the first one (the prefix has no meaning here).
 */
export const parsePrefixed = (text: string, groups: Groups, into: Entry[]): Entry[] => {
  for (const line of text.split('\n')) {
    const match = /^\s*([0-9A-F]{2})\s+(.*)$/.exec(line);
    if (match === null) continue;
    const cells = match[2]!.split('|').map((cell) => cell.trim());
    const first = parseEntry(cells[0]!, groups);
    const prefixed = [0, 1, 2, 3].map((column) => {
      const cell = cells[column] ?? 'ud';
      return cell === '^' ? first : parseEntry(cell, groups);
    });
    into[parseInt(match[1]!, 16)] = {
      ...blank,
      prefixed,
      modrm: prefixed.some((entry) => entry.modrm),
    };
  }
  return into;
};

/** What LOCK may precede, with a memory destination (APM vol. 3, §1.2.5). */
export const LOCKABLE: ReadonlySet<string> = new Set([
  'add',
  'or',
  'adc',
  'sbb',
  'and',
  'sub',
  'xor',
  'inc',
  'dec',
  'neg',
  'not',
  'bts',
  'btr',
  'btc',
  'xchg',
  'xadd',
  'cmpxchg',
  'cmpxchg8b',
  'cmpxchg16b',
]);
