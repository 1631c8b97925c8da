/**
 * One-byte opcodes: APM vol. 3, tables A-1 (low nibble 0-7) and A-2 (8-F), row by row: the first line
 * of a pair is the row of A-1, the second the row of A-2. Groups: table A-6. The notation is in
 * `entry.ts`. Prefixes, REX, the 0F escape and VEX/EVEX are taken before this map is asked.
 */
import { parseEntry, parseMap } from './entry.ts';
import type { Entry, Groups } from './entry.ts';

/** APM vol. 3, table A-6, by ModRM.reg 0-7. */
export const PRIMARY_GROUPS: Groups = {
  g1: ['add', 'or', 'adc', 'sbb', 'and', 'sub', 'xor', 'cmp'],
  g1a: ['pop', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  // /6 is an alias of /4 (SHL), as table A-6 has it.
  g2: ['rol', 'ror', 'rcl', 'rcr', 'shl', 'shr', 'shl', 'sar'],
  g3b: ['test Eb,Ib', 'test Eb,Ib', 'not', 'neg', 'mul', 'imul1', 'div', 'idiv'],
  g3v: ['test Ev,Iz', 'test Ev,Iz', 'not', 'neg', 'mul', 'imul1', 'div', 'idiv'],
  g4: ['inc', 'dec', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  g5: ['inc', 'dec', 'call_ind Es', '*far_call_mem Mv', 'jmp_ind Es', '*far_jmp_mem Mv', 'push Es', 'ud'],
  g11: ['mov', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
};

// prettier-ignore
const ROWS: readonly (readonly string[])[] = [
  // 0_
  ['add Eb,Gb', 'add Ev,Gv', 'add Gb,Eb', 'add Gv,Ev', 'add AL,Ib', 'add rAX,Iz', '*push_seg ES @s !64', '*pop_seg ES @s !64'],
  ['or Eb,Gb', 'or Ev,Gv', 'or Gb,Eb', 'or Gv,Ev', 'or AL,Ib', 'or rAX,Iz', '*push_seg CS @s !64', 'ud'],
  // 1_
  ['adc Eb,Gb', 'adc Ev,Gv', 'adc Gb,Eb', 'adc Gv,Ev', 'adc AL,Ib', 'adc rAX,Iz', '*push_seg SS @s !64', '*pop_seg SS @s !64'],
  ['sbb Eb,Gb', 'sbb Ev,Gv', 'sbb Gb,Eb', 'sbb Gv,Ev', 'sbb AL,Ib', 'sbb rAX,Iz', '*push_seg DS @s !64', '*pop_seg DS @s !64'],
  // 2_
  ['and Eb,Gb', 'and Ev,Gv', 'and Gb,Eb', 'and Gv,Ev', 'and AL,Ib', 'and rAX,Iz', 'ud', '*daa @b !64'],
  ['sub Eb,Gb', 'sub Ev,Gv', 'sub Gb,Eb', 'sub Gv,Ev', 'sub AL,Ib', 'sub rAX,Iz', 'ud', '*das @b !64'],
  // 3_
  ['xor Eb,Gb', 'xor Ev,Gv', 'xor Gb,Eb', 'xor Gv,Ev', 'xor AL,Ib', 'xor rAX,Iz', 'ud', '*aaa @b !64'],
  ['cmp Eb,Gb', 'cmp Ev,Gv', 'cmp Gb,Eb', 'cmp Gv,Ev', 'cmp AL,Ib', 'cmp rAX,Iz', 'ud', '*aas @b !64'],
  // 4_ (REX in 64-bit mode)
  ['inc Zv', 'inc Zv', 'inc Zv', 'inc Zv', 'inc Zv', 'inc Zv', 'inc Zv', 'inc Zv'],
  ['dec Zv', 'dec Zv', 'dec Zv', 'dec Zv', 'dec Zv', 'dec Zv', 'dec Zv', 'dec Zv'],
  // 5_
  ['push Zs', 'push Zs', 'push Zs', 'push Zs', 'push Zs', 'push Zs', 'push Zs', 'push Zs'],
  ['pop Zs', 'pop Zs', 'pop Zs', 'pop Zs', 'pop Zs', 'pop Zs', 'pop Zs', 'pop Zs'],
  // 6_ (63 is MOVSXD in 64-bit mode)
  ['*pusha @v !64', '*popa @v !64', '*bound Gv,M !64', '*arpl Ew,Gw !64', 'ud', 'ud', 'ud', 'ud'],
  ['push_imm Iz @s', 'imul3 Gv,Ev,Iz', 'push_imm Ib @s', 'imul3 Gv,Ev,Ib', '*ins @b', '*ins @u', '*outs @b', '*outs @u'],
  // 7_
  ['jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s'],
  ['jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s', 'jcc Jb @s'],
  // 8_
  ['%g1 Eb,Ib', '%g1 Ev,Iz', '%g1 Eb,Ib !64', '%g1 Ev,Ib', 'test Eb,Gb', 'test Ev,Gv', 'xchg Eb,Gb', 'xchg Ev,Gv'],
  ['mov Eb,Gb', 'mov Ev,Gv', 'mov Gb,Eb', 'mov Gv,Ev', '*mov_from_seg Ev,S', 'lea Gv,M', '*mov_to_seg S,Ew @w', '%g1a Es'],
  // 9_ (90 without REX.B is NOP, with F3 PAUSE)
  ['xchg Zv,rAX', 'xchg Zv,rAX', 'xchg Zv,rAX', 'xchg Zv,rAX', 'xchg Zv,rAX', 'xchg Zv,rAX', 'xchg Zv,rAX', 'xchg Zv,rAX'],
  ['cbw @v', 'cwd @v', '*far_call_ptr A @v !64', '*fwait', '*pushf @s', '*popf @s', 'sahf @b', 'lahf @b'],
  // A_
  ['mov AL,Ob', 'mov rAX,Ov', 'mov Ob,AL', 'mov Ov,rAX', '*movs @b', '*movs @v', '*cmps @b', '*cmps @v'],
  ['test AL,Ib', 'test rAX,Iz', '*stos @b', '*stos @v', '*lods @b', '*lods @v', '*scas @b', '*scas @v'],
  // B_
  ['mov Zb,Ib', 'mov Zb,Ib', 'mov Zb,Ib', 'mov Zb,Ib', 'mov Zb,Ib', 'mov Zb,Ib', 'mov Zb,Ib', 'mov Zb,Ib'],
  ['mov Zv,Iv', 'mov Zv,Iv', 'mov Zv,Iv', 'mov Zv,Iv', 'mov Zv,Iv', 'mov Zv,Iv', 'mov Zv,Iv', 'mov Zv,Iv'],
  // C_ (C4, C5 are VEX prefixes in 64-bit mode and before a register ModRM)
  ['%g2 Eb,Iu', '%g2 Ev,Iu', 'ret_imm Iw @s', 'ret @s', '*load_far_pointer Gv,M !64', '*load_far_pointer Gv,M !64', '%g11 Eb,Ib', '%g11 Ev,Iz'],
  ['*enter Iw,Iu @s', 'leave @s', '*ret_far Iw @v', '*ret_far @v', '*int3', '*int Iu', '*into !64', '*iret @v'],
  // D_ (D8-DF: x87, see x87.ts)
  ['%g2 Eb,1', '%g2 Ev,1', '%g2 Eb', '%g2 Ev', '*aam Iu @b !64', '*aad Iu @b !64', '*salc @b !64', 'xlat @b'],
  ['-x87 M', '-x87 M', '-x87 M', '-x87 M', '-x87 M', '-x87 M', '-x87 M', '-x87 M'],
  // E_
  ['loopne? Jb @s', 'loope? Jb @s', 'loop? Jb @s', 'jcxz? Jb @s', '*in_imm Iu @b', '*in_imm Iu @u', '*out_imm Iu @b', '*out_imm Iu @u'],
  ['call Jz @s', 'jmp Jz @s', '*far_jmp_ptr A @v !64', 'jmp Jb @s', '*in_dx @b', '*in_dx @u', '*out_dx @b', '*out_dx @u'],
  // F_
  ['ud', '*int1', 'ud', 'ud', '*hlt', 'cmc @b', '%g3b Eb', '%g3v Ev'],
  ['clc @b', 'stc @b', '*cli', '*sti', 'cld @b', 'std @b', '%g4 Eb', '%g5 Ev'],
];

export const PRIMARY: readonly Entry[] = parseMap(ROWS, PRIMARY_GROUPS);
/** 63 in 64-bit mode. */
export const MOVSXD: Entry = parseEntry('movsxd Gv,Ed');
export const NOP: Entry = parseEntry('nop @b');
export const PAUSE: Entry = parseEntry('*pause');
