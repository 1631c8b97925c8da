/**
 * A small Intel-syntax assembler for guests written in tests: a text front end over the encoder of
 * iced-x86. Every encoding of the mnemonic that suits the operands is tried; the shortest wins.
 *
 * Lines: `label:`, `[lock|rep|repe|repne] mnemonic operands`, `db|dw|dd|dq values`, `bits 16|32|64`,
 * `org address`, `align n`, `times n db values`, `name equ value`; comments after `;`. Values are
 * numbers, labels, `$`, and sums of them. Memory is `[fs: base + index*4 + label]` with an optional
 * `byte|word|dword|qword|xmmword|far` before it; a far pointer is `selector:offset`.
 */
import {
  Code,
  EncodingKind,
  Encoder,
  Instruction,
  MemorySizeExt,
  Mnemonic,
  OpCodeOperandKind,
  OpKind,
  Register,
} from 'iced-x86';
import type { OpCodeInfo } from 'iced-x86';
import * as iced from 'iced-x86';

export interface Assembled {
  readonly bytes: Uint8Array;
  /** Address of the first byte. */
  readonly origin: bigint;
  readonly labels: ReadonlyMap<string, bigint>;
}

interface Memory {
  size: number | 'far' | undefined;
  segment: Register;
  base: Register;
  index: Register;
  scale: number;
  displacement: bigint;
  hasDisplacement: boolean;
}

type Operand =
  | { kind: 'register'; register: Register; name: string }
  | { kind: 'memory'; memory: Memory }
  | { kind: 'value'; value: bigint }
  | { kind: 'far'; selector: number; offset: bigint; wide: boolean | undefined };

/** iced's enums list number -> name; the other way round is what a front end needs. */
const enumNames = (table: object): Map<string, number> =>
  new Map(
    Object.entries(table)
      .filter(([number]) => /^\d+$/.test(number))
      .map(([number, name]) => [String(name).toLowerCase(), Number(number)]),
  );
const REGISTERS = enumNames(Register);
for (let i = 8; i < 16; i++) REGISTERS.set(`r${i}b`, REGISTERS.get(`r${i}l`)!);
const kindName = (kind: OpCodeOperandKind): string => (OpCodeOperandKind as unknown as string[])[kind]!;

const SIZES: Record<string, number | 'far'> = {
  byte: 1,
  word: 2,
  dword: 4,
  qword: 8,
  tword: 10,
  xmmword: 16,
  ymmword: 32,
  far: 'far',
};
const PREFIXES = new Set(['lock', 'rep', 'repe', 'repz', 'repne', 'repnz']);

interface Encoding {
  readonly code: Code;
  readonly kinds: readonly string[];
  readonly memorySize: number;
  readonly text: string;
  readonly modes: ReadonlySet<number>;
}

let encodings: Map<string, Encoding[]> | undefined;

/** All encodings of a mnemonic; the table is made once. */
function encodingsOf(mnemonic: string): readonly Encoding[] {
  if (!encodings) {
    encodings = new Map();
    const mnemonics = new Map<number, string>([...enumNames(Mnemonic)].map(([name, value]) => [value, name]));
    for (const value of enumNames(Code).values() as IterableIterator<Code>) {
      const info: OpCodeInfo = iced.CodeExt.opCode(value);
      const usable =
        info.isInstruction && (info.encoding === EncodingKind.Legacy || info.encoding === EncodingKind.VEX);
      if (usable) {
        const name = mnemonics.get(info.mnemonic)!;
        const entry: Encoding = {
          code: value,
          kinds: Array.from({ length: info.opCount }, (_, i) => kindName(info.opKind(i))),
          memorySize: MemorySizeExt.size(info.memorySize),
          text: info.instructionString,
          modes: new Set([16, 32, 64].filter((bits) => info.isAvailableInMode(bits))),
        };
        const list = encodings.get(name);
        if (list) list.push(entry);
        else encodings.set(name, [entry]);
      }
      info.free();
    }
  }
  return encodings.get(mnemonic) ?? [];
}

const REGISTER_CLASS: readonly [RegExp, RegExp][] = [
  [/^r8_/, /^([abcd][lh]|[sb]pl|[sd]il|r\d+l|r\d+b)$/],
  [/^r16_/, /^([abcd]x|[sb]p|[sd]i|r\d+w)$/],
  [/^r32_/, /^(e[abcd]x|e[sb]p|e[sd]i|r\d+d)$/],
  [/^r64_/, /^(r[abcd]x|r[sb]p|r[sd]i|r\d+)$/],
  [/^mm_/, /^mm\d$/],
  [/^xmm_/, /^xmm\d+$/],
  [/^ymm_/, /^ymm\d+$/],
  [/^seg_reg$/, /^[ecsdfg]s$/],
  [/^cr_reg$/, /^cr\d+$/],
  [/^dr_reg$/, /^dr\d+$/],
  [/^(al|cl|ax|dx|eax|rax|es|cs|ss|ds|fs|gs)$/, /./],
  [/^st0$/, /^st0$/],
  [/^sti_opcode$/, /^st\d$/],
];

const takesRegister = (kind: string, name: string): boolean =>
  REGISTER_CLASS.some(
    ([kinds, names]) => kinds.test(kind) && (names.source === '.' ? kind === name : names.test(name)),
  );

const IMMEDIATES: Record<string, [OpKind, bits: number]> = {
  imm8: [OpKind.Immediate8, 8],
  imm8_const_1: [OpKind.Immediate8, 1],
  imm8sex16: [OpKind.Immediate8to16, 16],
  imm8sex32: [OpKind.Immediate8to32, 32],
  imm8sex64: [OpKind.Immediate8to64, 64],
  imm16: [OpKind.Immediate16, 16],
  imm32: [OpKind.Immediate32, 32],
  imm32sex64: [OpKind.Immediate32to64, 64],
  imm64: [OpKind.Immediate64, 64],
};

const IMPLIED = new Set(['seg_rSI', 'es_rDI', 'seg_rDI', 'al', 'ax', 'eax', 'rax', 'dx', 'seg_rBX_al']);

type Slot = 0 | 1 | 2 | 3 | 4;
const setKind = (instruction: Instruction, slot: Slot, kind: OpKind): void => {
  instruction[`op${slot}Kind`] = kind;
};

/** Fills one operand; false if this encoding cannot take it. */
function setOperand(
  instruction: Instruction,
  slot: Slot,
  kind: string,
  operand: Operand | undefined,
  encoding: Encoding,
  bits: number,
): boolean {
  if (operand === undefined) {
    if (!IMPLIED.has(kind)) return false;
    const wide = bits === 64 ? 'R' : bits === 32 ? 'E' : '';
    if (kind === 'seg_rSI') setKind(instruction, slot, OpKind[`MemorySeg${wide}SI` as 'MemorySegRSI']);
    else if (kind === 'es_rDI') setKind(instruction, slot, OpKind[`MemoryES${wide}DI` as 'MemoryESRDI']);
    else if (kind === 'seg_rDI') setKind(instruction, slot, OpKind[`MemorySeg${wide}DI` as 'MemorySegRDI']);
    else if (kind === 'seg_rBX_al') return false;
    else {
      setKind(instruction, slot, OpKind.Register);
      instruction[`op${slot}Register`] = REGISTERS.get(kind)!;
    }
    return true;
  }
  switch (operand.kind) {
    case 'register':
      if (!takesRegister(kind, operand.name)) return false;
      setKind(instruction, slot, OpKind.Register);
      instruction[`op${slot}Register`] = operand.register;
      return true;
    case 'memory': {
      if (!/(^|_)mem($|_offs|_)/.test(kind) && kind !== 'mem') return false;
      if (/vsib|mib|mpx/.test(kind)) return false;
      const { memory } = operand;
      const far = /m16:(16|32|64)/.test(encoding.text);
      if (memory.size === 'far' ? !far : far && /jmp|call/i.test(encoding.text)) return false;
      if (typeof memory.size === 'number' && encoding.memorySize !== 0 && encoding.memorySize !== memory.size)
        return false;
      const fixed = memory.base === Register.None && memory.index === Register.None;
      if (kind === 'mem_offs' && !fixed) return false;
      setKind(instruction, slot, OpKind.Memory);
      instruction.memoryBase = memory.base;
      instruction.memoryIndex = memory.index;
      instruction.memoryIndexScale = memory.scale;
      instruction.segmentPrefix = memory.segment;
      const { displacement } = memory;
      instruction.memoryDisplacementU64 = BigInt.asUintN(64, displacement);
      const small = displacement >= -128n && displacement < 128n;
      const wideRip = memory.base === Register.RIP;
      const sixteen = bits === 16 && !/^(r|e)/.test(regName(memory.base) ?? regName(memory.index) ?? '');
      if (!memory.hasDisplacement && !fixed) instruction.memoryDisplSize = 0;
      else if (small && !fixed && !wideRip) instruction.memoryDisplSize = 1;
      else instruction.memoryDisplSize = bits === 64 ? 8 : sixteen ? 2 : 4;
      return true;
    }
    case 'value': {
      const { value } = operand;
      const branch = /^br(16|32|64)_/.exec(kind);
      if (branch) {
        const width = Number(branch[1]);
        if (width !== bits) return false;
        setKind(
          instruction,
          slot,
          width === 16 ? OpKind.NearBranch16 : width === 32 ? OpKind.NearBranch32 : OpKind.NearBranch64,
        );
        if (width === 16) instruction.nearBranch16 = Number(value & 0xffffn);
        else if (width === 32) instruction.nearBranch32 = Number(value & 0xffff_ffffn);
        else instruction.nearBranch64 = value;
        return true;
      }
      const immediate = IMMEDIATES[kind];
      if (!immediate) return false;
      const [opKind, width] = immediate;
      // PUSH of a value has no operand that gives its size: the mode does.
      if (/^PUSH/.test(encoding.text) && (/16/.test(kind) ? bits !== 16 : bits === 16)) return false;
      if (kind === 'imm8_const_1' && value !== 1n) return false;
      const limit = 1n << BigInt(width);
      if (value >= limit || value < -limit / 2n) return false;
      const signed = BigInt.asIntN(width, value);
      if (/^imm8sex/.test(kind) && (signed < -128n || signed > 127n)) return false;
      if (kind === 'imm32sex64' && (signed < -0x8000_0000n || signed > 0x7fff_ffffn)) return false;
      setKind(instruction, slot, opKind);
      const low = Number(BigInt.asUintN(32, value));
      switch (opKind) {
        case OpKind.Immediate8:
          instruction.immediate8 = low & 0xff;
          break;
        case OpKind.Immediate16:
          instruction.immediate16 = low & 0xffff;
          break;
        case OpKind.Immediate32:
          instruction.immediate32 = low;
          break;
        case OpKind.Immediate64:
          instruction.immediate64 = BigInt.asUintN(64, value);
          break;
        default:
          instruction.setImmediateI64(slot, signed);
      }
      return true;
    }
    case 'far': {
      const match = /^farbr(2|4)_2$/.exec(kind);
      if (!match) return false;
      const wide = match[1] === '4';
      if (wide !== (operand.wide ?? bits === 32)) return false;
      setKind(instruction, slot, wide ? OpKind.FarBranch32 : OpKind.FarBranch16);
      instruction.farBranchSelector = operand.selector;
      if (wide) instruction.farBranch32 = Number(operand.offset & 0xffff_ffffn);
      else instruction.farBranch16 = Number(operand.offset & 0xffffn);
      return true;
    }
  }
}

const regName = (register: Register): string | undefined => {
  if (register === Register.None) return undefined;
  for (const [name, value] of REGISTERS) if (value === register) return name;
  return undefined;
};

const CONDITIONS: Record<string, string> = {
  c: 'b',
  nae: 'b',
  nc: 'ae',
  nb: 'ae',
  z: 'e',
  nz: 'ne',
  na: 'be',
  nbe: 'a',
  pe: 'p',
  po: 'np',
  nge: 'l',
  nl: 'ge',
  ng: 'le',
  nle: 'g',
};

/** One name for the conditions that have two. */
function canonicalName(mnemonic: string): string {
  const match = /^(j|set|cmov)(\w+)$/.exec(mnemonic);
  const condition = match ? CONDITIONS[match[2]!] : undefined;
  return condition ? match![1]! + condition : mnemonic;
}

function encode(
  mnemonic: string,
  prefixes: ReadonlySet<string>,
  operands: readonly Operand[],
  bits: number,
  address: bigint,
): Uint8Array | string {
  let best: Uint8Array | undefined;
  let why = `no encoding of "${mnemonic}" takes these operands in ${bits}-bit code`;
  const retfq = mnemonic === 'retfq';
  for (const encoding of encodingsOf(retfq ? 'retf' : canonicalName(mnemonic))) {
    if (retfq !== (encoding.code === Code.Retfq || encoding.code === Code.Retfq_imm16)) continue;
    if (!encoding.modes.has(bits)) continue;
    if (operands.length !== 0 && operands.length !== encoding.kinds.length) continue;
    const instruction = new Instruction();
    instruction.code = encoding.code;
    const suits = encoding.kinds.every((kind, i) =>
      setOperand(instruction, i as Slot, kind, operands[i], encoding, bits),
    );
    if (suits) {
      if (prefixes.has('lock')) instruction.hasLockPrefix = true;
      if (prefixes.has('rep') || prefixes.has('repe') || prefixes.has('repz'))
        instruction.hasRepePrefix = true;
      if (prefixes.has('repne') || prefixes.has('repnz')) instruction.hasRepnePrefix = true;
      const encoder = new Encoder(bits);
      try {
        encoder.encode(instruction, address);
        const bytes = encoder.takeBuffer();
        // Among equally short ones the operand size of the mode is the natural one.
        if (!best || bytes.length < best.length) best = bytes;
      } catch (error) {
        why = String(error);
      }
      encoder.free();
    }
    instruction.free();
  }
  return best ?? why;
}

class Assembler {
  bits: number;
  address: bigint;
  labels: ReadonlyMap<string, bigint>;
  found = new Map<string, bigint>();
  out: number[] = [];

  constructor(bits: number, origin: bigint, labels: ReadonlyMap<string, bigint>) {
    this.bits = bits;
    this.address = origin;
    this.labels = labels;
  }

  value(text: string): bigint {
    let sum = 0n;
    const parts = text.match(/[+-]?[^+-]+/g);
    if (!parts) throw new Error(`not a value: "${text}"`);
    for (const part of parts) {
      const negative = part.startsWith('-');
      const term = part.replace(/^[+-]/, '').trim().replaceAll('_', '_');
      const product = term.split('*').map((factor) => this.term(factor.trim()));
      const value = product.reduce((a, b) => a * b, 1n);
      sum += negative ? -value : value;
    }
    return sum;
  }
  term(text: string): bigint {
    if (/^(0x[0-9a-f_]+|\d[\d_]*)$/i.test(text)) return BigInt(text.replaceAll('_', ''));
    if (text === '$') return this.address;
    if (/^'.'$/.test(text)) return BigInt(text.charCodeAt(1));
    const known = this.found.get(text) ?? this.labels.get(text);
    if (known !== undefined) return known;
    if (!/^[.\w]+$/.test(text)) throw new Error(`not a value: "${text}"`);
    // Unknown on the first pass only: a later one has every label.
    if (this.labels.size > 0) throw new Error(`unknown label "${text}"`);
    return this.address;
  }

  operand(text: string): Operand {
    const register = REGISTERS.get(text.toLowerCase());
    if (register !== undefined && register !== Register.None)
      return { kind: 'register', register, name: text.toLowerCase() };
    const memory = /^(?:(\w+)\s+(?:ptr\s+)?)?(?:([c-gs]s):)?\[(.*)\]$/i.exec(text);
    if (memory) return { kind: 'memory', memory: this.memory(memory[1], memory[2], memory[3]!) };
    const far = /^(?:(word|dword)\s+)?([^:]+):(.+)$/.exec(text);
    if (far)
      return {
        kind: 'far',
        selector: Number(this.value(far[2]!.trim())),
        offset: this.value(far[3]!.trim()),
        wide: far[1] === undefined ? undefined : far[1] === 'dword',
      };
    return { kind: 'value', value: this.value(text.replace(/^(short|near)\s+/, '')) };
  }

  memory(size: string | undefined, segment: string | undefined, inside: string): Memory {
    let body = inside.trim();
    const prefix = /^([c-gs]s)\s*:/i.exec(body);
    if (prefix) body = body.slice(prefix[0].length);
    const result: Memory = {
      size: size === undefined ? undefined : SIZES[size.toLowerCase()],
      segment: REGISTERS.get((segment ?? prefix?.[1] ?? 'none').toLowerCase())!,
      base: Register.None,
      index: Register.None,
      scale: 1,
      displacement: 0n,
      hasDisplacement: false,
    };
    if (size !== undefined && result.size === undefined) throw new Error(`unknown size "${size}"`);
    for (const part of body.match(/[+-]?[^+-]+/g) ?? []) {
      const term = part.replace(/^\+/, '').trim();
      const scaled = /^(\w+)\s*\*\s*([1248])$/.exec(term);
      const register = REGISTERS.get((scaled?.[1] ?? term).toLowerCase());
      if (register === undefined || register === Register.None) {
        result.displacement += this.value(part);
        result.hasDisplacement = true;
      } else if (scaled) {
        result.index = register;
        result.scale = Number(scaled[2]);
      } else if (result.base === Register.None) result.base = register;
      else result.index = register;
    }
    return result;
  }

  emit(bytes: ArrayLike<number>): void {
    for (let i = 0; i < bytes.length; i++) this.out.push(bytes[i]!);
    this.address += BigInt(bytes.length);
  }

  data(size: number, values: string): void {
    for (const item of values.split(/,(?=(?:[^"]*"[^"]*")*[^"]*$)/)) {
      const text = /^\s*"(.*)"\s*$/.exec(item);
      if (text) this.emit([...text[1]!].map((c) => c.charCodeAt(0)));
      else {
        const value = BigInt.asUintN(64, this.value(item.trim()));
        this.emit(Array.from({ length: size }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn)));
      }
    }
  }

  line(source: string): void {
    let text = source.replace(/;.*$/, '').trim();
    const label = /^([.\w]+):(?!\S)/.exec(text);
    if (label) {
      this.found.set(label[1]!, this.address);
      text = text.slice(label[0].length).trim();
    }
    if (text === '') return;
    const times = /^times\s+(\S+)\s+(.*)$/i.exec(text);
    if (times) {
      for (let i = Number(this.value(times[1]!)); i > 0; i--) this.line(times[2]!);
      return;
    }
    const equ = /^(\w+)\s+equ\s+(.*)$/i.exec(text);
    if (equ) {
      this.found.set(equ[1]!, this.value(equ[2]!));
      return;
    }
    const words = /^(\w+)\s*(.*)$/.exec(text)!;
    let mnemonic = words[1]!.toLowerCase();
    let rest = words[2]!;
    const size = { db: 1, dw: 2, dd: 4, dq: 8 }[mnemonic];
    if (size !== undefined) {
      this.data(size, rest);
      return;
    }
    switch (mnemonic) {
      case 'bits':
        this.bits = Number(rest);
        return;
      case 'org':
      case 'align': {
        const wanted = this.value(rest);
        const gap = mnemonic === 'org' ? wanted - this.address : (wanted - (this.address % wanted)) % wanted;
        if (gap < 0n) throw new Error(`org goes back by ${-gap} bytes`);
        this.emit(new Uint8Array(Number(gap)));
        return;
      }
    }
    const prefixes = new Set<string>();
    while (PREFIXES.has(mnemonic)) {
      prefixes.add(mnemonic);
      const next = /^(\w+)\s*(.*)$/.exec(rest);
      if (!next) throw new Error('a prefix without an instruction');
      mnemonic = next[1]!.toLowerCase();
      rest = next[2]!;
    }
    const operands = rest === '' ? [] : rest.split(/,(?![^[]*\])/).map((each) => this.operand(each.trim()));
    const bytes = encode(mnemonic, prefixes, operands, this.bits, this.address);
    if (typeof bytes === 'string') throw new Error(bytes);
    this.emit(bytes);
  }
}

/**
 * Assembles a text.
 * @throws Error naming the line that cannot be assembled.
 */
export function assemble(source: string, origin: bigint | number = 0, bits = 64): Assembled {
  let labels: ReadonlyMap<string, bigint> = new Map();
  let previous = '';
  for (let pass = 0; pass < 20; pass++) {
    const assembler = new Assembler(bits, BigInt(origin), labels);
    source.split('\n').forEach((line, number) => {
      try {
        assembler.line(line);
      } catch (error) {
        throw new Error(`line ${number + 1}, "${line.trim()}": ${(error as Error).message}`, {
          cause: error,
        });
      }
    });
    const bytes = Uint8Array.from(assembler.out);
    const state = [...assembler.found].join() + bytes.join();
    if (state === previous) return { bytes, origin: BigInt(origin), labels };
    previous = state;
    // A map that is never empty marks the passes after the first.
    labels = new Map([...assembler.found, ['', 0n]]);
  }
  throw new Error('the assembly does not settle');
}
