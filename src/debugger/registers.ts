/**
 * The registers of a thread as the debugger shows, evaluates and changes them: one table, over the same
 * bytes the engine works on. Flags and control bits are named as in AMD APM volume 2.
 */
import { CvmError, hex } from '../base/index.ts';
import { describeVmsaField } from '../snp/index.ts';
import { MODE, SEGMENT_NAMES, STATE, gpr } from '../x86/index.ts';
import type { Cpu } from '../x86/index.ts';

export type RegisterGroup = 'General' | 'Segments' | 'Control' | 'MSRs' | 'SSE';
export const REGISTER_GROUPS: readonly RegisterGroup[] = ['General', 'Segments', 'Control', 'MSRs', 'SSE'];

export interface Register {
  /** Lower case, without sigil. */
  readonly name: string;
  readonly group: RegisterGroup;
  /** 8 to 64; 128 for XMM. */
  readonly bits: number;
  read(cpu: Cpu): bigint;
  /** Undefined for registers that are derived from others. */
  readonly write?: (cpu: Cpu, value: bigint) => void;
  /** What the value means. */
  readonly note?: (value: bigint, cpu: Cpu) => string;
  /** Part of another register: known to expressions, not listed. */
  readonly part?: boolean;
}

const GENERAL = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi'];
const WORDS = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di'];
const LOW = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil'];
const HIGH = ['ah', 'ch', 'dh', 'bh'];

/** RFLAGS bits that have a name of their own in expressions. */
const RFLAGS = [
  [21, 'ID'],
  [18, 'AC'],
  [14, 'NT'],
  [11, 'OF'],
  [10, 'DF'],
  [9, 'IF'],
  [8, 'TF'],
  [7, 'SF'],
  [6, 'ZF'],
  [4, 'AF'],
  [2, 'PF'],
  [0, 'CF'],
] as const;

/** What the save area's field of this name would say about the value. */
const asField =
  (name: string) =>
  (value: bigint): string =>
    describeVmsaField(name, value) ?? '';
type StateName = keyof typeof STATE;
const field = (
  group: RegisterGroup,
  name: string,
  state: StateName,
  bits: 16 | 32 | 64 = 64,
  note?: Register['note'],
): Register => ({
  name,
  group,
  bits,
  read: (cpu) =>
    bits === 64 ? cpu.u64(STATE[state]) : BigInt(bits === 32 ? cpu.u32(STATE[state]) : cpu.u16(STATE[state])),
  write: (cpu, value) => {
    if (bits === 64) cpu.setU64(STATE[state], value);
    else if (bits === 32) cpu.setU32(STATE[state], Number(value));
    else cpu.setU16(STATE[state], Number(value));
  },
  ...(note ? { note } : {}),
});

/** Of control registers that decide how memory is reached: what was derived from them is recomputed. */
const control = (register: Register): Register => ({
  ...register,
  write: (cpu, value) => {
    register.write!(cpu, value);
    refresh(cpu);
  },
});

function refresh(cpu: Cpu): void {
  cpu.updateMode();
  cpu.flushTlb();
  cpu.flushJumps();
}

function generalRegisters(): Register[] {
  const registers: Register[] = [];
  const part = (name: string, offset: number, bits: number): Register => ({
    name,
    group: 'General',
    bits,
    part: true,
    read: (cpu) => cpu.readRegister(offset, bits / 8),
    write: (cpu, value) => cpu.writeRegister(offset, bits / 8, value),
  });
  for (let i = 0; i < 16; i++) {
    const name = GENERAL[i] ?? `r${i}`;
    registers.push({
      name,
      group: 'General',
      bits: 64,
      read: (cpu) => cpu.reg(i),
      write: (cpu, value) => cpu.setReg(i, value),
    });
    registers.push(part(GENERAL[i] ? `e${WORDS[i]!}` : `r${i}d`, gpr(i), 32));
    registers.push(part(WORDS[i] ?? `r${i}w`, gpr(i), 16));
    registers.push(part(LOW[i] ?? `r${i}b`, gpr(i), 8));
    if (HIGH[i]) registers.push(part(HIGH[i]!, gpr(i) + 1, 8));
  }
  registers.push({
    name: 'rip',
    group: 'General',
    bits: 64,
    read: (cpu) => cpu.rip,
    write: (cpu, value) => {
      cpu.rip = value;
    },
  });
  registers.push({
    name: 'rflags',
    group: 'General',
    bits: 64,
    read: (cpu) => BigInt(cpu.rflags),
    write: (cpu, value) => {
      cpu.rflags = Number(value & 0xffff_ffffn);
      refresh(cpu);
    },
    note: asField('rflags'),
  });
  registers.push({ ...part('eip', 0, 32), read: (cpu) => cpu.rip & 0xffff_ffffn, write: undefined });
  registers.push({
    ...part('eflags', 0, 32),
    read: (cpu) => BigInt(cpu.rflags),
    write: undefined,
    note: asField('rflags'),
  });
  for (const [bit, name] of RFLAGS)
    registers.push({
      ...part(name.toLowerCase(), 0, 8),
      read: (cpu) => BigInt((cpu.rflags >>> bit) & 1),
      write: (cpu, value) => {
        cpu.rflags = value & 1n ? cpu.rflags | (1 << bit) : cpu.rflags & ~(1 << bit);
        refresh(cpu);
      },
    });
  return registers;
}

function segmentRegisters(): Register[] {
  return SEGMENT_NAMES.flatMap((name, index): Register[] => {
    const table = name === 'gdtr' || name === 'idtr';
    const change = (what: 'selector' | 'attributes' | 'limit') => (cpu: Cpu, value: bigint) => {
      cpu.setSegment(index, { ...cpu.getSegment(index), [what]: Number(value) });
      refresh(cpu);
    };
    const selector: Register = {
      name,
      group: 'Segments',
      bits: 16,
      read: (cpu) => BigInt(cpu.selector(index)),
      write: change('selector'),
    };
    const attributes: Register = {
      name: `${name}_attr`,
      group: 'Segments',
      bits: 16,
      read: (cpu) => BigInt(cpu.attributes(index)),
      write: change('attributes'),
      note: asField('cs.attributes'),
    };
    return [
      ...(table ? [] : [selector, attributes]),
      {
        name: `${name}_base`,
        group: 'Segments',
        bits: 64,
        read: (cpu) => cpu.segmentBase(index),
        write: (cpu, value) => {
          cpu.setSegment(index, { ...cpu.getSegment(index), base: value });
          refresh(cpu);
        },
      },
      {
        name: `${name}_limit`,
        group: 'Segments',
        bits: 32,
        read: (cpu) => BigInt(cpu.limit(index)),
        write: change('limit'),
      },
    ];
  });
}

const MODES: Readonly<Record<number, string>> = {
  [MODE.code16]: '16-bit code',
  [MODE.code32]: '32-bit code',
  [MODE.code64]: '64-bit mode',
};

const controlRegisters: readonly Register[] = [
  control(field('Control', 'cr0', 'cr0', 64, asField('cr0'))),
  field('Control', 'cr2', 'cr2'),
  control(field('Control', 'cr3', 'cr3')),
  control(field('Control', 'cr4', 'cr4', 64, asField('cr4'))),
  field('Control', 'cr8', 'cr8', 64, (value) => `TPR ${hex((value & 15n) << 4n, 2)}`),
  control(field('Control', 'efer', 'efer', 64, asField('efer'))),
  field('Control', 'xcr0', 'xcr0', 64, asField('xcr0')),
  field('Control', 'dr0', 'dr0'),
  field('Control', 'dr1', 'dr1'),
  field('Control', 'dr2', 'dr2'),
  field('Control', 'dr3', 'dr3'),
  field('Control', 'dr6', 'dr6'),
  field('Control', 'dr7', 'dr7'),
  {
    name: 'cpl',
    group: 'Control',
    bits: 8,
    read: (cpu) => BigInt(cpu.cpl),
    note: (_, cpu) => MODES[cpu.mode] ?? '',
  },
];

const msrs: readonly Register[] = [
  field('MSRs', 'star', 'star'),
  field('MSRs', 'lstar', 'lstar'),
  field('MSRs', 'cstar', 'cstar'),
  field('MSRs', 'sfmask', 'sfmask'),
  field('MSRs', 'kernel_gs_base', 'kernelGsBase'),
  field('MSRs', 'sysenter_cs', 'sysenterCs'),
  field('MSRs', 'sysenter_esp', 'sysenterEsp'),
  field('MSRs', 'sysenter_eip', 'sysenterEip'),
  field('MSRs', 'pat', 'pat'),
  field('MSRs', 'tsc_aux', 'tscAux', 32),
  field('MSRs', 'xss', 'xss'),
  field('MSRs', 's_cet', 'sCet'),
  field('MSRs', 'u_cet', 'uCet'),
  field('MSRs', 'ssp', 'ssp'),
  field('MSRs', 'debugctl', 'debugCtl'),
];

const sse: readonly Register[] = [
  field('SSE', 'mxcsr', 'mxcsr', 32),
  ...Array.from({ length: 16 }, (_, i): Register => ({
    name: `xmm${i}`,
    group: 'SSE',
    bits: 128,
    read: (cpu) => cpu.u64(STATE.ymm + i * 32) | (cpu.u64(STATE.ymm + i * 32 + 8) << 64n),
    write: (cpu, value) => {
      cpu.setU64(STATE.ymm + i * 32, value & 0xffff_ffff_ffff_ffffn);
      cpu.setU64(STATE.ymm + i * 32 + 8, value >> 64n);
    },
  })),
];

export const REGISTERS: readonly Register[] = [
  ...generalRegisters(),
  ...segmentRegisters(),
  ...controlRegisters,
  ...msrs,
  ...sse,
];
const BY_NAME = new Map(REGISTERS.map((register) => [register.name, register]));

/** By name in any case, with or without `$` or `%`. */
export const registerNamed = (name: string): Register | undefined =>
  BY_NAME.get(name.replace(/^[$%]/, '').toLowerCase());

export const formatRegister = (register: Register, cpu: Cpu): string => {
  const value = register.read(cpu);
  const note = register.note?.(value, cpu);
  return `${hex(value, register.bits / 4)}${note ? ` [${note}]` : ''}`;
};

/** @throws CvmError `read-only-register`, `value-too-wide`. */
export function writeRegister(register: Register, cpu: Cpu, value: bigint): void {
  if (!register.write)
    throw new CvmError('read-only-register', `${register.name} cannot be changed`, { name: register.name });
  const cut = BigInt.asUintN(register.bits, value);
  if (cut !== value && BigInt.asIntN(register.bits, value) !== value)
    throw new CvmError(
      'value-too-wide',
      `${hex(value)} does not fit ${register.name} (${register.bits} bits)`,
    );
  register.write(cpu, cut);
}

/** Linear address of the next instruction: CS base matters outside 64-bit mode. */
export const linearRip = (cpu: Cpu): bigint =>
  cpu.mode === MODE.code64
    ? cpu.rip
    : (cpu.segmentBase(SEGMENT_NAMES.indexOf('cs')) + cpu.rip) & 0xffff_ffffn;

/** Linear address of the top of the stack. */
export const linearRsp = (cpu: Cpu): bigint =>
  (cpu.u64(STATE.stackBase) + (cpu.reg(4) & cpu.u64(STATE.stackMask))) & 0xffff_ffff_ffff_ffffn;

export const codeBits = (cpu: Cpu): 16 | 32 | 64 =>
  cpu.mode === MODE.code64 ? 64 : cpu.mode === MODE.code32 ? 32 : 16;
