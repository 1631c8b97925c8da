/**
 * Bytes to micro-op: prefixes, opcode maps, ModRM, immediates, for 16-, 32- and 64-bit code
 * (APM vol. 3, chapter 1). What an opcode means stands in the maps; here is only how one is read.
 */
import { CODE_PAGE, DS, FS, MODE, RSP, SS, ZERO, gpr } from '../layout.ts';
import type { Mode } from '../layout.ts';
import type { Form, MicroOp, OperandSize } from '../microop.ts';
import { KIND, LOCKABLE, UD, parseEntry, parsePrefixed } from './entry.ts';
import type { Entry, OperandSpec } from './entry.ts';
import { ESCAPE_38, ESCAPE_3A } from './map-escapes.ts';
import { MOVSXD, NOP, PAUSE, PRIMARY } from './map-primary.ts';
import { VEX_GENERAL_38, VEX_GENERAL_3A } from './map-vex.ts';
import { GROUP7_MEMORY, GROUP7_REGISTER, SECONDARY } from './map-secondary.ts';
import { x87Entry } from './x87.ts';

/** APM vol. 3, §1.2: an instruction has at most fifteen bytes. */
const MAX_LENGTH = 15;

const GROUP7_MEM = GROUP7_MEMORY.map((cell) => parseEntry(cell));
const GROUP7_REG = parsePrefixed(GROUP7_REGISTER, {}, new Array<Entry>(256).fill(UD));
const SMSW = parseEntry('*smsw Ev');
const LMSW = parseEntry('*lmsw _,Ew');
const RSTORSSP = parseEntry('*rstorssp Mq');
const UNIMPLEMENTED_VECTOR = parseEntry('-vex M / -vex U');
const UNIMPLEMENTED_VECTOR_IMM = parseEntry('-vex M,Iu / -vex U,Iu');
const VZEROUPPER = parseEntry('-vex');

/** Instructions that go on elsewhere: decoding stops behind them. */
const JUMPS: ReadonlySet<string> = new Set([
  'jcc',
  'jmp',
  'jmp_ind',
  'call',
  'call_ind',
  'ret',
  'ret_imm',
  ...['loop', 'loope', 'loopne', 'jcxz'].flatMap((name) => [16, 32, 64].map((bits) => name + bits)),
]);

/** Base and index of 16-bit addressing by ModRM.rm (APM vol. 3, table 1-15). */
const BASE16 = [3, 3, 5, 5, 6, 7, 5, 3] as const;
const INDEX16 = [6, 7, 6, 7, -1, -1, -1, -1] as const;

/** Numbers of the `bit_string` helper. */
const BIT_STRING = ['bt', 'bts', 'btr', 'btc'];

const FAR_POINTER_SEGMENT: Readonly<Record<number, number>> = { 0xc4: 0, 0xc5: 3, 0xb2: 2, 0xb4: 4, 0xb5: 5 };

class Decoder {
  #code: Uint8Array = new Uint8Array(0);
  #start = 0;
  #end = 0;
  #at = 0;
  #mode: Mode = MODE.code64;
  #op!: MicroOp;
  #failed: '' | 'truncated' | 'long' = '';

  #rex = 0;
  #operand16 = false;
  #override = -1;
  #addressSize: 2 | 4 | 8 = 8;
  #modrm = 0;
  #opcode = 0;
  #relative = false;
  #ripRelative = false;
  /** The instruction became a helper of another name, but LOCK may precede it. */
  #lockable = false;

  decode(
    code: Uint8Array,
    at: number,
    end: number,
    mode: Mode,
    pageOffset: number,
    op: MicroOp,
  ): 'ok' | 'truncated' {
    this.#code = code;
    this.#start = at;
    this.#at = at;
    this.#end = end;
    this.#mode = mode;
    this.#op = op;
    this.#failed = '';
    this.#rex = 0;
    this.#override = -1;
    this.#modrm = 0;
    this.#relative = false;
    this.#ripRelative = false;
    this.#lockable = false;
    op.name = 'ud';
    op.helper = true;
    op.form = 'none';
    op.size = 4;
    op.a = 0;
    op.b = 0;
    op.base = ZERO;
    op.index = ZERO;
    op.scale = 0;
    op.displacement = 0;
    op.segment = DS;
    op.immediate = 0n;
    op.condition = 0;
    op.lock = false;
    op.rep = 0;
    op.endsBlock = true;

    const entry = this.#readOpcode();
    if (!this.#failed) this.#fill(entry);
    const failed = this.#failed as '' | 'truncated' | 'long';
    if (failed === 'truncated') return 'truncated';
    if (failed === 'long') this.#fault('gp');
    op.length = this.#at - at;
    if (this.#ripRelative) op.displacement = (op.displacement + pageOffset + op.length) | 0;
    if (this.#relative) op.immediate += BigInt(pageOffset + op.length);
    return 'ok';
  }

  #fault(name: 'ud' | 'gp' | 'unimplemented'): void {
    const op = this.#op;
    op.name = name;
    op.helper = true;
    op.form = 'none';
    op.endsBlock = true;
    this.#relative = false;
    this.#ripRelative = false;
  }

  // -- bytes --------------------------------------------------------------------------------------

  #byte(): number {
    if (this.#at - this.#start >= MAX_LENGTH) {
      this.#failed ||= 'long';
      return 0;
    }
    if (this.#at >= this.#end) {
      this.#failed ||= 'truncated';
      return 0;
    }
    return this.#code[this.#at++]!;
  }
  #signed8(): number {
    return (this.#byte() << 24) >> 24;
  }
  #word(): number {
    const low = this.#byte();
    return low | (this.#byte() << 8);
  }
  #dword(): number {
    const low = this.#word();
    return low | (this.#word() << 16);
  }
  #qword(): bigint {
    const low = BigInt(this.#dword() >>> 0);
    return low | (BigInt(this.#dword()) << 32n);
  }

  // -- prefixes and opcode --------------------------------------------------------------------------

  #readOpcode(): Entry {
    const op = this.#op;
    const mode64 = this.#mode === MODE.code64;
    let operandPrefix = false;
    let addressPrefix = false;
    let byte = this.#byte();
    prefixes: for (; !this.#failed; byte = this.#byte()) {
      switch (byte) {
        case 0x66:
          operandPrefix = true;
          break;
        case 0x67:
          addressPrefix = true;
          break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
          // Ignored in 64-bit mode, where they do not cancel an FS or GS before them either.
          if (!mode64) this.#override = (byte >> 3) & 3;
          break;
        case 0x64:
        case 0x65:
          this.#override = FS + (byte & 1);
          break;
        case 0xf0:
          op.lock = true;
          break;
        case 0xf2:
          op.rep = 2;
          break;
        case 0xf3:
          op.rep = 3;
          break;
        default:
          if (!mode64 || (byte & 0xf0) !== 0x40) break prefixes;
          this.#rex = byte;
          continue;
      }
      // REX counts only directly before the opcode.
      this.#rex = 0;
    }
    this.#operand16 = (this.#mode === MODE.code16) !== operandPrefix;
    this.#addressSize = mode64
      ? addressPrefix
        ? 4
        : 8
      : (this.#mode === MODE.code16) !== addressPrefix
        ? 2
        : 4;
    op.addressSize = this.#addressSize;
    this.#opcode = byte;
    if (byte === 0x0f) return this.#escape(operandPrefix);
    if (byte >= 0xd8 && byte <= 0xdf) {
      this.#modrm = this.#byte();
      return x87Entry(byte, this.#modrm);
    }
    switch (byte) {
      case 0x62:
      case 0xc4:
      case 0xc5:
        this.#modrm = this.#byte();
        if (mode64 || this.#modrm >= 0xc0) return this.#vector(operandPrefix);
        return PRIMARY[byte]!;
      case 0x63:
        this.#modrm = this.#byte();
        return mode64 ? MOVSXD : PRIMARY[byte]!;
      case 0x90:
        // PAUSE also with REX.B, as processors have it.
        return op.rep === 3 ? PAUSE : this.#rex & 1 ? PRIMARY[byte]! : NOP;
    }
    const entry = PRIMARY[byte]!;
    return entry.modrm ? this.#withModrm(entry, 0) : entry;
  }

  #escape(operandPrefix: boolean): Entry {
    const rep = this.#op.rep;
    const column = rep === 3 ? 2 : rep === 2 ? 3 : operandPrefix ? 1 : 0;
    let opcode = this.#byte();
    let map = SECONDARY;
    if (opcode === 0x38 || opcode === 0x3a) {
      map = opcode === 0x38 ? ESCAPE_38 : ESCAPE_3A;
      opcode = this.#byte();
    } else if (opcode === 0x01) {
      this.#modrm = this.#byte();
      return this.#group7(column);
    } else if (opcode >= 0x20 && opcode <= 0x23) {
      // MOV to and from CR and DR: always the register form.
      this.#modrm = this.#byte() | 0xc0;
      this.#opcode = opcode;
      return SECONDARY[opcode]!;
    }
    this.#opcode = opcode;
    let entry = map[opcode]!;
    // CRC32 and MOVBE: F2 chooses the instruction, 66 the operand size (a pair of them is CRC32).
    if (entry.prefixed !== undefined && !entry.modrm) entry = entry.prefixed[column]!;
    return entry.modrm ? this.#withModrm(entry, column) : entry;
  }

  #withModrm(start: Entry, column: number): Entry {
    this.#modrm = this.#byte();
    let entry = start;
    if (entry.prefixed !== undefined) entry = entry.prefixed[column]!;
    if (entry.group !== undefined) {
      if (entry.invalid64 && this.#mode === MODE.code64) return UD;
      entry = entry.group[(this.#modrm >> 3) & 7]!;
    }
    if (entry.register !== undefined && this.#modrm >= 0xc0) entry = entry.register;
    return entry;
  }

  #group7(column: number): Entry {
    const extension = (this.#modrm >> 3) & 7;
    if (this.#modrm < 0xc0) return extension === 5 && column === 2 ? RSTORSSP : GROUP7_MEM[extension]!;
    if (extension === 4) return SMSW;
    if (extension === 6) return LMSW;
    const entry = GROUP7_REG[this.#modrm]!;
    return entry.prefixed === undefined ? entry : entry.prefixed[column]!;
  }

  /**
   * VEX (C4, C5) and EVEX (62), whose first payload byte is in `modrm`: instructions on general
   * registers in full, the others only in shape, for their length.
   */
  #vector(operandPrefix: boolean): Entry {
    if (this.#op.lock || this.#op.rep !== 0 || operandPrefix || this.#rex !== 0) return UD;
    const first = this.#modrm;
    const evex = this.#opcode === 0x62;
    let map = 1;
    let last = first;
    if (this.#opcode === 0xc4) {
      map = first & 0x1f;
      last = this.#byte();
    } else if (evex) {
      map = first & 7;
      last = this.#byte();
      this.#byte();
      if ((first & 8) !== 0 || (last & 4) === 0) return UD;
    }
    if (map === 0 || map === 4 || map === 7 || (!evex && map > 3)) return UD;
    const opcode = this.#byte();
    if (!evex && map > 1) {
      const general = (map === 2 ? VEX_GENERAL_38 : VEX_GENERAL_3A)[opcode];
      if (general !== undefined) return this.#vexGeneral(general, first, last, map);
    }
    if (map === 1 && opcode === 0x77) return evex ? UD : VZEROUPPER;
    const wholeMap = map === 3;
    const some = (opcode >= 0x70 && opcode <= 0x73) || opcode === 0xc2 || (opcode >= 0xc4 && opcode <= 0xc6);
    const immediate = wholeMap || (map === 1 && some);
    return this.#withModrm(immediate ? UNIMPLEMENTED_VECTOR_IMM : UNIMPLEMENTED_VECTOR, 0);
  }

  #vexGeneral(entry: Entry, first: number, last: number, map: number): Entry {
    const mode64 = this.#mode === MODE.code64;
    // R, X, B are inverted; outside 64-bit mode only eight registers and 32 bits exist.
    if (mode64) this.#rex = 0x40 | ((last >> 4) & 8) | ((~first >> 5) & 7);
    const register = (~last >> 3) & (mode64 ? 15 : 7);
    if ((last & 4) !== 0 || (map === 3 && ((last >> 3) & 15) !== 15)) return UD;
    this.#op.condition = register;
    return this.#withModrm(entry, last & 3);
  }

  // -- operands -------------------------------------------------------------------------------------

  #sizeOf(letter: string): OperandSize {
    const wide = (this.#rex & 8) !== 0;
    switch (letter) {
      case 'b':
        return 1;
      case 'w':
        return 2;
      case 'd':
        return 4;
      case 'q':
        return 8;
      case 'x':
        return 16;
      case 'y':
        return wide ? 8 : 4;
      case 'u':
        return this.#operand16 ? 2 : 4;
      case 's':
        if (this.#mode === MODE.code64) return this.#operand16 && !wide ? 2 : 8;
        return this.#operand16 ? 2 : 4;
      default:
        return wide ? 8 : this.#operand16 ? 2 : 4;
    }
  }

  /** Byte offset of general register `index`; AH…BH for byte registers 4-7 without REX. */
  #register(index: number, size: string): number {
    return size === 'b' && this.#rex === 0 && index >= 4 && index < 8 ? gpr(index - 4) + 1 : gpr(index);
  }

  #fill(entry: Entry): void {
    const op = this.#op;
    const mode64 = this.#mode === MODE.code64;
    if (entry.kind === KIND.ud || (mode64 ? entry.invalid64 : entry.only64)) return this.#fault('ud');
    const wide = (this.#rex & 8) !== 0;
    op.name = wide ? entry.wide : entry.name;
    op.helper = entry.kind !== KIND.ir;
    op.size = this.#sizeOf(entry.size);
    op.segment = this.#override < 0 ? DS : this.#override;
    if (entry.condition) op.condition = this.#opcode & 15;

    let destination = '';
    let source = '';
    let position = 0;
    for (const spec of entry.operands) {
      const kind = this.#operand(spec, position);
      if (kind === 'x') return this.#fault('ud');
      if (position === 0) destination = kind;
      else if (position === 1) source = kind;
      position++;
    }
    if (this.#failed) return;
    op.form = formOf(destination, source);
    if (entry.perAddressSize) op.name += String(this.#addressSize * 8);
    this.#special(wide);
    if (op.name === 'ud') return this.#fault('ud');
    if (op.lock) {
      const memory = op.form === 'm' || op.form === 'mr' || op.form === 'mi';
      if (op.name === 'mov_from_cr' || op.name === 'mov_to_cr') op.lock = false;
      else if (!memory || !(LOCKABLE.has(op.name) || this.#lockable)) return this.#fault('ud');
    }
    op.endsBlock = op.helper || JUMPS.has(op.name);
    if (entry.kind === KIND.unimplemented) this.#fault('unimplemented');
  }

  /**
   * Reads one operand. Answers what it is: 'r' register, 'm' memory, 'i' immediate, '' nothing that
   * shapes the form, 'x' invalid.
   */
  #operand(spec: OperandSpec, position: number): 'r' | 'm' | 'i' | '' | 'x' {
    const op = this.#op;
    const mod3 = this.#modrm >= 0xc0;
    const rm = (this.#modrm & 7) | ((this.#rex & 1) << 3);
    const reg = ((this.#modrm >> 3) & 7) | ((this.#rex & 4) << 1);
    switch (spec.letter) {
      case 'G':
        return this.#put(position, this.#register(reg, spec.size));
      case 'E':
        return mod3 ? this.#put(position, this.#register(rm, spec.size)) : this.#memory();
      case 'R':
        return mod3 ? this.#put(position, this.#register(rm, spec.size)) : 'x';
      case 'M':
        return mod3 ? 'x' : this.#memory();
      case 'Z':
        return this.#put(position, this.#register((this.#opcode & 7) | ((this.#rex & 1) << 3), spec.size));
      case 'r':
        return this.#put(position, gpr(spec.fixed));
      case 's':
        return this.#put(position, spec.fixed);
      case 'V':
        return this.#put(position, reg);
      case 'W':
        return mod3 ? this.#put(position, rm) : this.#memory();
      case 'U':
        return mod3 ? this.#put(position, rm) : 'x';
      case 'P':
        return this.#put(position, reg & 7);
      case 'Q':
        return mod3 ? this.#put(position, rm & 7) : this.#memory();
      case 'N':
        return mod3 ? this.#put(position, rm & 7) : 'x';
      case 'S': {
        const index = reg & 7;
        return index > 5 || (position === 0 && index === 1) ? 'x' : this.#put(position, index);
      }
      case 'C': {
        const index = op.lock && reg === 0 ? 8 : reg;
        const known = index === 0 || index === 2 || index === 3 || index === 4 || index === 8;
        return known && !(op.lock && reg !== 0) ? this.#put(position, index) : 'x';
      }
      case 'D':
        return reg < 8 ? this.#put(position, reg) : 'x';
      case 'I':
        return this.#immediate(spec.size);
      case '1':
        op.immediate = 1n;
        return 'i';
      case 'J':
        op.immediate = BigInt(
          spec.size === 'b' ? this.#signed8() : op.size === 2 ? (this.#word() << 16) >> 16 : this.#dword(),
        );
        this.#relative = true;
        return '';
      case 'O':
        return this.#absolute(position);
      case 'A': {
        const offset = BigInt(op.size === 2 ? this.#word() : this.#dword() >>> 0);
        op.immediate = (BigInt(this.#word()) << 32n) | offset;
        return '';
      }
      default:
        return '';
    }
  }

  #put(position: number, register: number): 'r' {
    if (position === 0) this.#op.a = register;
    else this.#op.b = register;
    return 'r';
  }

  #immediate(size: string): 'i' {
    const op = this.#op;
    switch (size) {
      case 'b':
        op.immediate = BigInt(this.#signed8());
        break;
      case 'u': {
        // ENTER and INSERTQ have a word or byte before this one.
        const value = this.#byte();
        if (op.name === 'enter') op.condition = value;
        else op.immediate = BigInt(value);
        break;
      }
      case 'w':
        op.immediate = BigInt(this.#word());
        break;
      case 'v':
        op.immediate =
          op.size === 8 ? this.#qword() : BigInt(op.size === 2 ? (this.#word() << 16) >> 16 : this.#dword());
        break;
      default:
        op.immediate = BigInt(op.size === 2 ? (this.#word() << 16) >> 16 : this.#dword());
    }
    return 'i';
  }

  /** MOV with an absolute offset as wide as the address size. */
  #absolute(position: number): 'm' {
    const op = this.#op;
    if (this.#addressSize === 2) op.displacement = this.#word();
    else if (this.#addressSize === 4) op.displacement = this.#dword();
    else {
      const offset = BigInt.asIntN(64, this.#qword());
      if (BigInt.asIntN(32, offset) === offset) op.displacement = Number(offset);
      else {
        op.name = 'mov_moffs';
        op.helper = true;
        op.immediate = offset;
        op.condition = position === 0 ? 1 : 0;
      }
    }
    return 'm';
  }

  /** ModRM and SIB memory forms (APM vol. 3, §1.4). */
  #memory(): 'm' {
    const op = this.#op;
    const mod = this.#modrm >> 6;
    const rm = this.#modrm & 7;
    let stack = false;
    if (this.#addressSize === 2) {
      if (mod === 0 && rm === 6) op.displacement = this.#word();
      else {
        op.base = gpr(BASE16[rm]!);
        if (INDEX16[rm]! >= 0) op.index = gpr(INDEX16[rm]!);
        stack = BASE16[rm] === 5;
        if (mod === 1) op.displacement = this.#signed8();
        else if (mod === 2) op.displacement = (this.#word() << 16) >> 16;
      }
    } else {
      let base = rm | ((this.#rex & 1) << 3);
      let direct = mod === 0 && rm === 5;
      if (rm === 4) {
        const sib = this.#byte();
        const index = ((sib >> 3) & 7) | ((this.#rex & 2) << 2);
        if (index !== 4) {
          op.index = gpr(index);
          op.scale = sib >> 6;
        }
        base = (sib & 7) | ((this.#rex & 1) << 3);
        direct = mod === 0 && (sib & 7) === 5;
      } else if (direct && this.#mode === MODE.code64) {
        op.base = CODE_PAGE;
        this.#ripRelative = true;
      }
      if (direct) op.displacement = this.#dword();
      else {
        op.base = gpr(base);
        stack = base === 4 || base === 5;
        if (mod === 1) op.displacement = this.#signed8();
        else if (mod === 2) op.displacement = this.#dword();
      }
    }
    if (this.#override < 0 && stack) op.segment = SS;
    return 'm';
  }

  /** An effective address that is more than a 64-bit sum: it wraps earlier, or has a segment limit. */
  #narrowAddress(): boolean {
    return this.#mode !== MODE.code64 || this.#addressSize !== 8;
  }

  #toHelper(name: string): void {
    this.#op.name = name;
    this.#op.helper = true;
  }

  /** What the maps cannot say. */
  #special(wide: boolean): void {
    const op = this.#op;
    switch (op.name) {
      case 'nop':
        op.form = 'none';
        break;
      case 'push':
      case 'call_ind':
        if (op.form === 'r') op.segment = SS;
        break;
      case 'push_imm':
      case 'call':
      case 'ret':
      case 'ret_imm':
      case 'leave':
      case 'enter':
        op.segment = SS;
        break;
      case 'pop':
        // An RSP base is the incremented one (APM vol. 3, POP).
        if (op.form === 'r') op.segment = SS;
        else if (op.base === gpr(RSP)) op.displacement = (op.displacement + op.size) | 0;
        break;
      case 'xlat':
        op.form = 'm';
        op.base = gpr(3);
        if (this.#narrowAddress()) this.#toHelper('xlat_narrow');
        break;
      case 'bt':
      case 'bts':
      case 'btr':
      case 'btc':
        if (op.form !== 'mr' || !this.#narrowAddress()) break;
        op.condition = BIT_STRING.indexOf(op.name);
        this.#lockable = op.name !== 'bt';
        this.#toHelper('bit_string');
        break;
      case 'load_far_pointer':
        op.condition = FAR_POINTER_SEGMENT[this.#opcode]!;
        break;
      case 'far_call_mem':
      case 'far_jmp_mem':
        // No 64-bit offsets in far pointers (APM vol. 3, JMP far).
        if (wide) op.size = 4;
        break;
      case 'mov_from_cr':
      case 'mov_to_cr':
      case 'mov_from_dr':
      case 'mov_to_dr':
      case 'sgdt':
      case 'sidt':
      case 'lgdt':
      case 'lidt':
        if (this.#mode === MODE.code64) op.size = 8;
        else if (op.name.startsWith('mov_')) op.size = 4;
        break;
      case 'invpcid':
        if (this.#mode !== MODE.code64) op.size = 4;
        break;
    }
  }
}

const formOf = (destination: string, source: string): Form => {
  switch (destination + source) {
    case 'r':
      return 'r';
    case 'm':
      return 'm';
    case 'rr':
      return 'rr';
    case 'ri':
      return 'ri';
    case 'rm':
      return 'rm';
    case 'mr':
      return 'mr';
    case 'mi':
      return 'mi';
    default:
      return 'none';
  }
};

const decoder = new Decoder();

/**
 * Decodes the instruction at `at` into `op`, which is overwritten.
 * @param end first byte that must not be read; `pageOffset` the instruction's offset in its linear page.
 * @returns 'truncated' if bytes before `end` do not suffice; `op` is then meaningless.
 */
export const decode = (
  code: Uint8Array,
  at: number,
  end: number,
  mode: Mode,
  pageOffset: number,
  op: MicroOp,
): 'ok' | 'truncated' => decoder.decode(code, at, end, mode, pageOffset, op);

/** A record to decode into. */
export const emptyMicroOp = (): MicroOp => ({
  name: 'ud',
  helper: true,
  form: 'none',
  size: 4,
  addressSize: 8,
  length: 0,
  a: 0,
  b: 0,
  base: ZERO,
  index: ZERO,
  scale: 0,
  displacement: 0,
  segment: DS,
  immediate: 0n,
  condition: 0,
  lock: false,
  rep: 0,
  endsBlock: true,
});
