/**
 * Random user-mode cases: an encoding is drawn first (so that rare opcodes are as frequent as common
 * ones), then registers so that its memory operand lies in a data page, on an edge, in the read-only
 * page, or nowhere.
 */
import { decode, emptyMicroOp } from '../../../src/x86/decode/index.ts';
import { UNDEFINED_FLAGS, undefinedForCount } from '../../../src/x86/definitions/undefined-flags.ts';
import { BMI_HELPERS } from '../../../src/x86/helpers/bmi.ts';
import { SSE_FLOAT_HELPERS } from '../../../src/x86/helpers/sse-float.ts';
import { VECTOR_HELPERS } from '../../../src/x86/helpers/vector.ts';
import { CODE_PAGE, FLAG, MODE, ZERO } from '../../../src/x86/layout.ts';
import type { MicroOp } from '../../../src/x86/microop.ts';
import { generator } from '../decode/random.ts';
import { CODE, DATA, DATA_SIZE, ENTRY, ENTRY_OFFSET, FLAGS_MASK, READ_ONLY, RUNNER } from './case.ts';
import type { Bits, Case } from './case.ts';

/** Helpers a user-mode program reaches and whose effect this comparison can see. */
const USER_HELPERS = new Set(
  'movs stos lods scas cmps cmpxchg8b cmpxchg16b crc32 enter mov_moffs bit_string xlat_narrow ldmxcsr stmxcsr pushf popf cli sti hlt clts pusha popa daa das aaa aas aam aad salc into bound mov_from_seg'.split(
    ' ',
  ),
);

const isUserHelper = (name: string): boolean =>
  USER_HELPERS.has(name) ||
  SSE_FLOAT_HELPERS[name] !== undefined ||
  VECTOR_HELPERS[name] !== undefined ||
  BMI_HELPERS[name] !== undefined;

export interface Generator {
  next(): Case;
}

const MODES = { 16: MODE.code16, 32: MODE.code32, 64: MODE.code64 } as const;

export const randomCases = (
  seed: number,
  bits: Bits = 64,
  wanted: (op: MicroOp) => boolean = () => true,
): Generator => {
  const random = generator(seed);
  const chance = (n: number): boolean => random() % n === 0;
  const pick = <T>(list: readonly T[]): T => list[random() % list.length]!;
  const wide = (): bigint => {
    const raw = (BigInt(random()) << 42n) ^ (BigInt(random()) << 21n) ^ BigInt(random());
    switch (random() % 6) {
      case 0:
        return BigInt.asUintN(64, BigInt.asIntN(8, raw));
      case 1:
        return BigInt.asUintN(64, BigInt.asIntN(32, raw));
      case 2:
        return pick([
          0n,
          1n,
          0x7fn,
          0x80n,
          0x7fffn,
          0x8000n,
          0x7fff_ffffn,
          0x8000_0000n,
          0xffff_ffffn,
          1n << 63n,
          (1n << 63n) - 1n,
          (1n << 64n) - 1n,
        ]);
      default:
        return BigInt.asUintN(64, raw);
    }
  };

  const encoding = (): { bytes: number[]; displacementAt: number } => {
    const bytes: number[] = [];
    if (chance(5)) bytes.push(0x66);
    if (chance(6)) bytes.push(pick([0xf2, 0xf3]));
    if (chance(12)) bytes.push(0x67);
    if (chance(12)) bytes.push(0xf0);
    if (chance(20)) bytes.push(pick([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]));
    if (bits === 64 && chance(2)) bytes.push(0x40 | (random() & 15));
    const vex = chance(24);
    if (vex) {
      // VEX on general registers: maps 38 and 3A, mostly without L.
      bytes.length = 0;
      const highMap = chance(6) ? 3 : 2;
      bytes.push(0xc4, (bits === 64 ? random() & 0xe0 : 0xe0) | highMap);
      bytes.push((random() & 0xfb) | (highMap === 3 ? 0x78 : 0) | (chance(20) ? 4 : 0));
      bytes.push(highMap === 3 ? 0xf0 : pick([0xf2, 0xf3, 0xf5, 0xf6, 0xf7]));
    }
    const map = vex ? -1 : random() % 8;
    if (map >= 4) bytes.push(0x0f);
    if (map === 7) bytes.push(pick([0x38, 0x3a]));
    if (!vex) bytes.push(random() & 255);
    // ModRM with every mode, memory more often than not.
    const modrm = random() & 255;
    bytes.push(modrm);
    let displacementAt = -1;
    if (modrm < 0xc0) {
      const rm = modrm & 7;
      let base = rm;
      if (rm === 4) {
        const sib = random() & 255;
        bytes.push(sib);
        base = sib & 7;
      }
      if (modrm < 0x40 && base === 5) displacementAt = bytes.length;
    }
    while (bytes.length < 24)
      bytes.push(chance(4) ? pick([0, 1, 7, 8, 31, 32, 63, 64, 255]) : random() & 255);
    return { bytes, displacementAt };
  };

  const target = (size: number): bigint => {
    const within = BigInt(DATA + 0x100 + (random() % (DATA_SIZE - 0x400)));
    switch (random() % 12) {
      case 0: // across the pages
        return BigInt(DATA + 0x1000 - 1 - (random() % Math.max(1, size - 1)));
      case 1: // across the end
        return BigInt(DATA + DATA_SIZE - 1 - (random() % Math.max(1, size - 1)));
      case 2:
        return BigInt(READ_ONLY + (random() % 0xf00));
      case 3:
        return chance(2) ? BigInt(DATA - 1 - (random() % 8)) : BigInt(random()) << 4n;
      case 4:
        return bits === 64 && chance(2) ? 0x8000_0000_0000n + BigInt(random()) : within;
      case 5:
      case 6:
        return within & ~15n;
      default:
        return within;
    }
  };

  const op = emptyMicroOp();

  const build = (): Case | undefined => {
    const { bytes, displacementAt } = encoding();
    const data = Uint8Array.from(bytes);
    if (decode(data, 0, data.length, MODES[bits], ENTRY_OFFSET, op) !== 'ok') return undefined;
    if (op.helper && !isUserHelper(op.name)) return undefined;
    // AMD keeps 66 before near branches; the processor under the test may be Intel's.
    const branch = /^(jcc|jmp|call|ret|loop|jcxz)/.test(op.name);
    if (bits === 64 && branch && data.subarray(0, op.length).includes(0x66)) return undefined;
    if (!wanted(op)) return undefined;

    const gpr = Array.from({ length: 16 }, (_, i) =>
      bits === 64 || i > 7 ? wide() : BigInt.asUintN(32, wide()),
    );
    /** Offsets in 16-bit cases count from the data pages. */
    const origin = bits === 16 ? BigInt(DATA) : 0n;
    const offset = (size: number): bigint => {
      const at = target(size) - origin;
      return bits === 64 ? at : BigInt.asUintN(bits, at);
    };
    const entry = bits === 16 ? ENTRY_OFFSET : ENTRY;
    const memory: Case['memory'] = [];
    gpr[4] = offset(8);
    // Registers popped before a fault in the middle: processors differ, the manual says nothing.
    if (op.name === 'popa') gpr[4] = BigInt(DATA + (random() % (DATA_SIZE - 32))) - origin;
    const isString = /^(movs|stos|lods|scas|cmps)$/.test(op.name);
    if (isString) {
      gpr[6] = offset(op.size);
      gpr[7] = chance(4) ? gpr[6]! + BigInt(random() % 40) - 20n : offset(op.size);
      gpr[1] = BigInt(random() % (chance(3) ? 400 : 6));
      // Whether a fault has already cleared the upper halves differs between processors.
      if (op.addressSize < 8) for (const i of [6, 7]) gpr[i] = BigInt.asUintN(32, gpr[i]!);
    }
    const usesMemory = op.form.includes('m') || (op.helper && op.base !== ZERO);
    let operandAddress: bigint | undefined;
    if (usesMemory) {
      let address = target(op.size);
      operandAddress = address;
      address -= origin;
      if (/^xlat/.test(op.name)) address -= gpr[0]! & 0xffn;
      if (/^(bt|bit_string)/.test(op.name) && op.form === 'mr') {
        // Keep most bit strings near their operand.
        const register = op.b / 8;
        if (!chance(6))
          gpr[register] = BigInt.asUintN(bits === 64 ? 64 : 32, BigInt((random() % 8192) - 4096));
      }
      if (op.base === CODE_PAGE || (op.base === ZERO && displacementAt >= 0)) {
        const next = BigInt(ENTRY + op.length);
        const index = op.index === ZERO ? 0n : gpr[op.index / 8]! << BigInt(op.scale);
        const displacement = op.base === CODE_PAGE ? address - next : address - index;
        // An opcode that was itself a prefix moved everything: not what was meant.
        if (displacementAt < 0 || displacementAt + 4 > op.length) return undefined;
        new DataView(data.buffer).setInt32(displacementAt, Number(BigInt.asIntN(32, displacement)), true);
        operandAddress = undefined;
      } else if (op.base !== ZERO) {
        const index = op.index === ZERO || op.index === op.base ? 0n : gpr[op.index / 8]! << BigInt(op.scale);
        if (op.index === op.base && op.scale > 0) operandAddress = undefined;
        const half = op.index === op.base && op.scale === 0;
        const value = address - index - BigInt(op.displacement);
        const width = op.addressSize * 8;
        gpr[op.base / 8] = BigInt.asUintN(width, half ? value >> 1n : value);
        // What is above the address size does not count.
        if (width < bits)
          gpr[op.base / 8]! |= BigInt.asUintN(bits - width, BigInt(random())) << BigInt(width);
      }
    }
    // A comparison that matches, half of the time.
    const inData = (address: bigint, length: number): boolean =>
      address >= BigInt(DATA) && address + BigInt(length) <= BigInt(DATA + DATA_SIZE);
    const overlay = (address: bigint, value: bigint, length: number): void => {
      if (!inData(address, length)) return;
      const content = Uint8Array.from({ length }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn));
      memory.push({ address: Number(address), bytes: content });
    };
    if (operandAddress !== undefined && inData(operandAddress, 16)) {
      if (/^cmpxchg/.test(op.name) && chance(2))
        overlay(
          operandAddress,
          op.name === 'cmpxchg8b'
            ? (BigInt.asUintN(32, gpr[2]!) << 32n) | BigInt.asUintN(32, gpr[0]!)
            : (gpr[2]! << 64n) | gpr[0]!,
          16,
        );
      else if (op.name === 'ldmxcsr') overlay(operandAddress, BigInt(random() & 0xffff), 4);
      else if (branch) overlay(operandAddress, BigInt(entry + 64 + (random() % 64)), 8);
      else if (chance(2)) overlay(operandAddress, wide(), 8);
    }
    if (/^ret/.test(op.name) && !chance(4))
      overlay(gpr[4]! + origin, BigInt(entry + 64 + (random() % 64)), 8);
    if (op.name === 'popf' && !inData(gpr[4]! + origin, 8)) return undefined;
    if (op.name === 'popf') overlay(gpr[4]! + origin, BigInt((random() & FLAGS_MASK) | 0x202), 8);
    if ((op.name === 'jmp_ind' || op.name === 'call_ind') && op.form === 'r' && op.a !== 32)
      gpr[op.a / 8] = chance(3)
        ? BigInt.asUintN(bits === 64 ? 64 : 32, wide())
        : BigInt(entry + 64 + (random() % 64));
    if (/^i?div$/.test(op.name)) {
      // Quotients that fit are rare by chance.
      const small = BigInt(random() % 256);
      if (!chance(3))
        gpr[2] =
          op.name === 'idiv' && chance(2) ? BigInt.asUintN(bits === 64 ? 64 : 32, -1n - (small & 1n)) : small;
    }
    const name = `${op.lock ? 'lock ' : ''}${op.name} ${op.form} ${op.size}`;
    // A relative jump into its own bytes runs what nobody chose.
    if (/^(jcc|jmp|call|loop.*|jcxz.*)$/.test(op.name)) {
      const goal = Number(BigInt.asIntN(64, op.immediate));
      if (goal >= 0x7f0 && goal < 0x800 + op.length) return undefined;
      // Nor may it reach the runner's own memory.
      if (Math.abs(CODE + goal - RUNNER) < 0x10_0000) return undefined;
    }
    const flags = (random() & FLAGS_MASK & ~(chance(4) ? 0 : FLAG.DF)) | 0x202;
    // Mostly the default; else any rounding, DAZ, FTZ, sticky flags, sometimes an unmasked exception.
    let mxcsr = 0x1f80;
    if (chance(2)) mxcsr |= 0x20;
    if (chance(3)) mxcsr |= random() & 0xe07f;
    if (chance(12)) mxcsr &= ~(random() & 0x1f80);
    const xmm = Uint8Array.from({ length: 256 }, () => random() & 255);
    fillFloats(xmm);
    return {
      name,
      bits,
      code: data.slice(0, op.length),
      undefinedFlags: (UNDEFINED_FLAGS[op.name] ?? 0) | undefinedForCount(op, gpr[1]!),
      input: { gpr, rip: BigInt(entry), flags, mxcsr, xmm },
      memory,
    };
  };

  /** Half of the vector lanes become ordinary numbers. */
  const fillFloats = (xmm: Uint8Array): void => {
    const view = new DataView(xmm.buffer);
    for (let i = 0; i < 16; i++)
      switch (random() % 6) {
        case 0:
        case 1:
          for (let lane = 0; lane < 2; lane++)
            view.setFloat64(
              i * 16 + lane * 8,
              pick([
                0,
                -0,
                1,
                -1.5,
                2.25,
                1e10,
                -3e9,
                0.1,
                123456.789,
                Infinity,
                -Infinity,
                NaN,
                5e-324,
                1e308,
                -2147483648.5,
              ]),
              true,
            );
          break;
        case 2:
        case 3:
          for (let lane = 0; lane < 4; lane++)
            view.setFloat32(
              i * 16 + lane * 4,
              pick([
                0,
                -0,
                1,
                -1.5,
                2.25,
                1e10,
                -3e9,
                0.1,
                123456.789,
                Infinity,
                -Infinity,
                NaN,
                1e-45,
                3e38,
                2147483648,
              ]),
              true,
            );
          break;
      }
  };

  return {
    next: () => {
      for (;;) {
        const made = build();
        if (made !== undefined) return made;
      }
    },
  };
};
