/** Encodings of instructions, found by mnemonic and operands: the encoder of iced-x86 does the work. */
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

export interface Memory {
  size: number | 'far' | undefined;
  segment: Register;
  base: Register;
  index: Register;
  scale: number;
  displacement: bigint;
  hasDisplacement: boolean;
}

export type Operand =
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
export const REGISTERS = enumNames(Register);
for (let i = 8; i < 16; i++) REGISTERS.set(`r${i}b`, REGISTERS.get(`r${i}l`)!);
const kindName = (kind: OpCodeOperandKind): string => (OpCodeOperandKind as unknown as string[])[kind]!;

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

/**
 * The shortest encoding of an instruction with these operands, or why there is none.
 */
export function encode(
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
