/**
 * The decoder against iced-x86: validity, length and operands of random byte strings in the three
 * modes. `CVM_DECODE_CASES` sets their number.
 */
import * as iced from 'iced-x86';
import { describe, expect, it } from 'vitest';
import { decode, emptyMicroOp } from '../../../src/x86/decode/index.ts';
import { HELPERS } from '../../../src/x86/helpers/index.ts';
import { CODE_PAGE, ZERO, gpr } from '../../../src/x86/layout.ts';
import type { Mode } from '../../../src/x86/layout.ts';
import type { MicroOp } from '../../../src/x86/microop.ts';
import { generator, randomInstruction } from './random.ts';

const CASES = Number(process.env.CVM_DECODE_CASES ?? 240_000);
const BITS = [16, 32, 64] as const;

/** What iced knows and a processor under SEV-SNP refuses: iced's code name, and why it is #UD for us. */
const REFUSED: readonly (readonly [RegExp, string])[] = [
  [/^Ud[012]/, 'defined to raise #UD'],
  [/^(D3NOW_|Femms)/, '3DNow! left the processors before SEV'],
  [/^Rsm$/, 'only in SMM, which no guest reaches'],
  [
    /^(Getsec|Vmcall|Vmlaunch|Vmresume|Vmxoff|Vmfunc|Vmread|Vmwrite|Vmptr|Vmclear|Vmxon|Invept|Invvpid)/,
    'Intel VMX and SMX',
  ],
  [/^(Encl|Pconfig|Seam|Tdcall)/, 'Intel SGX and TDX'],
  [/^(Xbegin|Xabort|Xend|Xtest|Xsusldtrk|Xresldtrk)/, 'Intel TSX'],
  [/^(Vmrun|Vmload|Vmsave|Stgi|Clgi|Skinit)/, 'SVM host instructions; EFER.SVME is not offered'],
  [/^(Psmash|Rmpupdate|Rmpread)/, 'SNP host instructions'],
  [/^Reservednop_.*_0F0D/, 'PREFETCH takes memory only'],
  [/^(Movdir|Enqcmd|Aadd|Aand|Aor|Axor)/, 'Intel MOVDIR, ENQCMD, RAO-INT'],
  [/^(Aes.*kl|Loadiwkey|Encodekey)/i, 'Intel Key Locker'],
  [
    /^(Umwait|Umonitor|Tpause|Ptwrite|Wrmsrns|Lkgs|Uiret|Testui|Senduipi|Serialize|Rdmsrlist|Wrmsrlist|Hreset|Pbndkb)/,
    'Intel only',
  ],
  [/^(Xstore|Xcrypt|Xsha|Ccs|Montmul|Sm2|Rng|Alt)/i, 'VIA PadLock'],
  [/^(Erets|Eretu|Cl1invmb|Mcommit|Xstore|Undoc|Jmpe|Loadall|Invlpgb[wd]|Ptwrite)/, 'other processors'],
];

/** What we take for an instruction and iced does not. */
const ACCEPTED: readonly (readonly [RegExp, string])[] = [
  [/^unimplemented$/, 'VEX and EVEX: only the shape is decoded, operand constraints are not checked'],
  [/^nop$/, 'hint space that iced gives to MPX, with its constraints'],
];

const tally = (into: Map<string, { count: number; example: string }>, key: string, example: string): void => {
  const known = into.get(key);
  if (known) known.count++;
  else into.set(key, { count: 1, example });
};

const ICED_GPR = new Map<iced.Register, number>();
const place = (first: iced.Register, count: number, offset: (i: number) => number): void => {
  for (let i = 0; i < count; i++) ICED_GPR.set((first + i) as iced.Register, offset(i));
};
place(iced.Register.RAX, 16, gpr);
place(iced.Register.EAX, 16, gpr);
place(iced.Register.AX, 16, gpr);
place(iced.Register.AL, 4, gpr);
place(iced.Register.AH, 4, (i) => gpr(i) + 1);
place(iced.Register.SPL, 12, (i) => gpr(i + 4));
place(iced.Register.XMM0, 16, (i) => i);

/** Operands of an IR micro-op against iced's, as a complaint or undefined. */
const compareOperands = (op: MicroOp, ins: iced.Instruction, bits: number): string | undefined => {
  const memory = op.form.includes('m') || op.name === 'xlat64';
  let sawMemory = false;
  const registers: number[] = [];
  let immediate: bigint | undefined;
  for (let i = 0; i < ins.opCount; i++) {
    const kind = ins.opKind(i);
    if (kind === iced.OpKind.Memory) sawMemory = true;
    else if (kind === iced.OpKind.Register) {
      const register = ICED_GPR.get(ins.opRegister(i));
      if (register !== undefined) registers.push(register);
    } else if (kind >= iced.OpKind.Immediate8 && kind <= iced.OpKind.Immediate32to64)
      immediate = ins.immediate(i);
    else if (kind <= iced.OpKind.NearBranch64) {
      const width = op.size * 8;
      if (BigInt.asUintN(width, ins.nearBranchTarget) !== BigInt.asUintN(width, op.immediate))
        return `branch ${op.immediate} for ${ins.nearBranchTarget}`;
    }
  }
  if (op.name === 'nop') return undefined;
  if (memory !== sawMemory) return `form ${op.form}`;
  if (memory && op.name !== 'mov_moffs') {
    const base = ins.memoryBase;
    const wantBase =
      base === iced.Register.None
        ? ZERO
        : base === iced.Register.RIP || base === iced.Register.EIP
          ? CODE_PAGE
          : ICED_GPR.get(base)!;
    if (op.base !== wantBase) return `base ${op.base} for ${iced.Register[base]}`;
    const index = ins.memoryIndex;
    // XLAT's index is AL, which the definition adds.
    const wantIndex = index === iced.Register.None || op.name === 'xlat' ? ZERO : ICED_GPR.get(index)!;
    if (op.index !== wantIndex) return `index ${op.index} for ${iced.Register[index]}`;
    if (op.index !== ZERO && 1 << op.scale !== ins.memoryIndexScale) return `scale ${op.scale}`;
    const width = op.addressSize * 8;
    let displacement = BigInt(op.displacement);
    if (op.name === 'pop' && op.base === gpr(4)) displacement -= BigInt(op.size);
    if (BigInt.asUintN(width, displacement) !== BigInt.asUintN(width, ins.memoryDisplacement))
      return `displacement ${op.displacement} for ${ins.memoryDisplacement}`;
    const ours = [
      iced.Register.ES,
      iced.Register.CS,
      iced.Register.SS,
      iced.Register.DS,
      iced.Register.FS,
      iced.Register.GS,
    ][op.segment];
    // ES, CS, SS and DS are one flat segment in 64-bit mode.
    if (ours !== ins.memorySegment && (bits !== 64 || ins.memorySegment >= iced.Register.FS))
      return `segment ${op.segment} for ${iced.Register[ins.memorySegment]}`;
  }
  const explicit = {
    r: [op.a],
    rr: [op.a, op.b],
    ri: [op.a],
    rm: [op.a],
    mr: [op.b],
    m: [],
    mi: [],
    none: [],
  }[op.form];
  const wanted = registers.slice(0, explicit.length);
  if (op.name !== 'xlat' && explicit.join() !== wanted.join())
    return `registers ${explicit} for ${registers}`;
  if (immediate !== undefined && op.name !== 'enter') {
    const width = op.size === 16 ? 8 : op.size * 8;
    if (BigInt.asUintN(width, immediate) !== BigInt.asUintN(width, op.immediate))
      return `immediate ${op.immediate} for ${immediate}`;
  }
  return undefined;
};

describe('decoder against iced-x86', () => {
  it(`agrees on ${CASES} random byte strings in 16-, 32- and 64-bit code`, () => {
    const random = generator(0x5eed);
    const op = emptyMicroOp();
    const ins = new iced.Instruction();
    const refused = new Map<string, { count: number; example: string }>();
    const accepted = new Map<string, { count: number; example: string }>();
    const wrong: string[] = [];
    let compared = 0;
    for (let i = 0; i < CASES; i++) {
      const mode = (i % 3) as Mode;
      const bits = BITS[mode];
      const bytes = randomInstruction(random);
      const peer = new iced.Decoder(bits, bytes, iced.DecoderOptions.AMD);
      peer.decodeOut(ins);
      peer.free();
      expect(decode(bytes, 0, bytes.length, mode, 0, op)).toBe('ok');
      const example = `${bits}-bit ${Buffer.from(bytes.subarray(0, 15)).toString('hex')}`;
      const fault = op.helper && (op.name === 'ud' || op.name === 'gp');
      if (ins.isInvalid) {
        if (!fault) tally(accepted, op.name, example);
        continue;
      }
      const code = iced.Code[ins.code]!;
      if (fault) {
        tally(refused, code, example);
        continue;
      }
      compared++;
      if (op.length !== ins.length) wrong.push(`${example} ${code}: length ${op.length} for ${ins.length}`);
      if (op.helper) continue;
      const complaint = compareOperands(op, ins, bits);
      if (complaint !== undefined) wrong.push(`${example} ${code} (${op.name}): ${complaint}`);
    }
    ins.free();
    expect(wrong.slice(0, 20)).toEqual([]);
    const unexplained = (
      found: ReadonlyMap<string, { example: string }>,
      reasons: readonly (readonly [RegExp, string])[],
    ): string[] =>
      [...found]
        .filter(([name]) => !reasons.some(([pattern]) => pattern.test(name)))
        .map(([name, { example }]) => `${name} ${example}`);
    expect(unexplained(refused, REFUSED)).toEqual([]);
    expect(unexplained(accepted, ACCEPTED)).toEqual([]);
    expect(compared).toBeGreaterThan(CASES / 3);
  });

  it('says truncated for every proper prefix of an instruction', () => {
    const random = generator(7);
    const op = emptyMicroOp();
    for (let i = 0; i < 20_000; i++) {
      const mode = (i % 3) as Mode;
      const bytes = randomInstruction(random);
      decode(bytes, 0, bytes.length, mode, 0, op);
      if (op.name === 'ud' || op.name === 'gp') continue;
      const { length, name } = op;
      expect(decode(bytes, 0, length, mode, 0, op)).toBe('ok');
      expect(op.name).toBe(name);
      for (let end = 0; end < length; end++) expect(decode(bytes, 0, end, mode, 0, op)).toBe('truncated');
    }
  });

  it('names only helpers that exist', () => {
    const random = generator(99);
    const op = emptyMicroOp();
    const missing = new Set<string>();
    for (let i = 0; i < 120_000; i++) {
      const bytes = randomInstruction(random);
      decode(bytes, 0, bytes.length, (i % 3) as Mode, 0, op);
      if (op.helper && HELPERS[op.name] === undefined) missing.add(op.name);
    }
    expect([...missing]).toEqual([]);
  });
});
