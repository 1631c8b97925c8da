/** Commands of the debug console beside expressions, in the manner of gdb. */
import { CvmError, bytesToHex, hex } from '../base/index.ts';
import type { MachineThread } from '../vmm/index.ts';
import type { Breakpoints } from './breakpoints.ts';
import { forwards } from './disassembly.ts';
import { evaluateText } from './expression/index.ts';
import type { Scope } from './expression/index.ts';
import { pageFacts, rmpFacts, vmsaFields } from './inspectors.ts';
import type { Guest } from './launch.ts';
import { REGISTERS, formatRegister, linearRip } from './registers.ts';
import { describeTarget, symbolic } from './sources.ts';

export interface CommandGround {
  readonly guest: Guest;
  readonly thread: MachineThread;
  readonly scope: Scope;
  readonly breakpoints: Breakpoints;
}

interface Command {
  readonly usage: string;
  readonly help: string;
  run(ground: CommandGround, rest: string): string;
}

const MAX_EXAMINED = 4096;
const MAX_LINES = 500;

const address = (ground: CommandGround, text: string): bigint =>
  text.trim() === ''
    ? linearRip(ground.thread.cpu)
    : BigInt.asUintN(64, evaluateText(text, ground.scope).value);

const table = (rows: readonly { readonly name: string; readonly value: string }[]): string => {
  const width = Math.max(...rows.map((row) => row.name.length));
  return rows.map((row) => `${row.name.padEnd(width)}  ${row.value}`).join('\n');
};

const INFO: Readonly<Record<string, (ground: CommandGround, rest: string) => string>> = {
  registers: ({ thread }, rest) => {
    const wanted = rest.trim().toLowerCase();
    const listed = REGISTERS.filter((register) =>
      wanted === 'all'
        ? !register.part
        : wanted
          ? register.name === wanted.replace(/^[$%]/, '') || register.group.toLowerCase() === wanted
          : register.group === 'General' && !register.part,
    );
    if (listed.length === 0) throw new CvmError('unknown-register', `there is no register named '${wanted}'`);
    return table(
      listed.map((register) => ({ name: register.name, value: formatRegister(register, thread.cpu) })),
    );
  },
  threads: ({ guest }) =>
    table(
      guest.machine.threads.map((thread) => ({
        name: `${thread.active ? '*' : ' '} ${thread.id} ${thread.name}`,
        value: `${thread.state}, rip ${hex(linearRip(thread.cpu))}, VMSA at ${hex(thread.vmsaGpa)}`,
      })),
    ),
  breakpoints: ({ breakpoints }) => {
    const rows = breakpoints.list().map(({ answer, kind, hits }) => ({
      name: `${answer.id} ${kind}`,
      value: `${answer.source?.path ? `${answer.source.path}:${answer.line} ` : ''}${
        answer.instructionReference ?? answer.message ?? ''
      }, ${hits} hits`,
    }));
    return rows.length > 0 ? table(rows) : 'no breakpoints';
  },
  vmsa: ({ guest, thread }) =>
    table(
      vmsaFields(guest.machine, thread).map((field) => ({
        name: `${hex(field.offset, 3)} ${field.name}`,
        value: field.note ? `${field.value} ${field.note}` : field.value,
      })),
    ),
  events: ({ guest }, rest) => {
    const count = Math.min(MAX_LINES, Number(/^\d+$/.exec(rest.trim())?.[0] ?? 20));
    return (
      guest.machine.events
        .slice(-count)
        .map(({ retired, kind, vcpu, vmpl, text }) => `${retired} vCPU ${vcpu} VMPL${vmpl} ${kind}: ${text}`)
        .join('\n') || 'no events yet'
    );
  },
  symbols: ({ guest }, rest) =>
    guest.symbols
      .lookup(rest.trim(), 50)
      .map(({ name, address: at }) => `${hex(at)} ${name}`)
      .join('\n') || 'no such symbols',
};

const COMMANDS: Readonly<Record<string, Command>> = {
  help: {
    usage: 'help',
    help: 'this list',
    run: () =>
      [
        'An expression: registers ($rax, eax, zf), symbols, numbers, C operators, *(u32*)address, (i8)x;',
        'append ,x ,d ,b ,o or ,c for a format. register = expression changes a register.',
        '',
        table(Object.values(COMMANDS).map(({ usage, help }) => ({ name: usage, value: help }))),
      ].join('\n'),
  },
  x: { usage: 'x/8gx ADDRESS', help: 'examine memory: count, size b h w g, format x d i s', run: examine },
  info: {
    usage: 'info WHAT',
    help: Object.keys(INFO).join(', '),
    run: (ground, rest) => {
      const [what = '', ...more] = rest.trim().split(/\s+/);
      const found = Object.keys(INFO).find((name) => what !== '' && name.startsWith(what));
      if (!found) throw new CvmError('unknown-command', `info knows ${Object.keys(INFO).join(', ')}`);
      return INFO[found]!(ground, more.join(' '));
    },
  },
  rmp: {
    usage: 'rmp GPA',
    help: 'the RMP entry of a guest-physical page',
    run: (ground, rest) => {
      if (rest.trim() === '') throw new CvmError('usage', 'rmp needs a guest-physical address');
      const gpa = address(ground, rest);
      return table([{ name: 'gpa', value: hex(gpa & ~0xfffn) }, ...rmpFacts(ground.guest.machine, gpa)]);
    },
  },
  translate: {
    usage: 'translate ADDRESS',
    help: 'the mapping of a virtual address (default: rip) and its RMP entry',
    run: (ground, rest) => table(pageFacts(ground.guest.machine, ground.thread, address(ground, rest))),
  },
  symbol: {
    usage: 'symbol ADDRESS',
    help: 'the symbol and source line of an address',
    run: (ground, rest) => {
      const at = address(ground, rest);
      const line = ground.guest.symbols.lineAt(at);
      const name = symbolic(ground.guest.symbols, at) ?? '[no symbols]';
      return `${hex(at)} ${name}${line && line.line > 0 ? ` at ${line.file}:${line.line}` : ''}`;
    },
  },
  digest: {
    usage: 'digest',
    help: 'the launch digest of this guest',
    run: ({ guest }) => bytesToHex(guest.machine.launchDigest),
  },
  input: {
    usage: 'input TEXT',
    help: 'sends a line to the guest on its first serial port',
    run: ({ guest }, rest) => {
      guest.machine.input(0x3f8, new TextEncoder().encode(`${rest.trimStart()}\n`));
      return '';
    },
  },
};

export const COMMAND_NAMES: readonly string[] = [
  ...Object.keys(COMMANDS),
  ...Object.keys(INFO).map((what) => `info ${what}`),
];

/** Runs a command; undefined if the text is none. @throws CvmError of the command. */
export function runCommand(ground: CommandGround, text: string): string | undefined {
  const match = /^\s*([a-z]+)(\/[0-9a-z]+)?(?:\s+(.*))?$/s.exec(text);
  if (!match || !Object.hasOwn(COMMANDS, match[1]!)) return undefined;
  const [, name, suffix, rest = ''] = match;
  if (suffix && name !== 'x') return undefined;
  return COMMANDS[name!]!.run(ground, suffix ? `${suffix} ${rest}` : rest);
}

/** `x/COUNT SIZE FORMAT ADDRESS`. */
function examine(ground: CommandGround, text: string): string {
  const match = /^(?:\/(\d*)([a-z]*)\s+)?(.*)$/s.exec(text.trim())!;
  const [, countText, letters = '', rest = ''] = match;
  const count = Math.min(MAX_EXAMINED, Number(countText || 1));
  const size = { b: 1, h: 2, w: 4, g: 8 }[/[bhwg]/.exec(letters)?.[0] ?? 'g']!;
  const format = /[xdis]/.exec(letters)?.[0] ?? 'x';
  if (!/^[bhwgxdis]*$/.test(letters)) throw new CvmError('usage', `'x/${letters}' is not understood`);
  const at = address(ground, rest);
  const { guest, thread } = ground;
  if (format === 'i')
    return forwards(
      { machine: guest.machine, symbols: guest.symbols, thread },
      { space: 'virtual', address: at },
      count,
    )
      .map((row) =>
        row.instruction
          ? `${hex(row.address)}  ${describeTarget(row.instruction, guest.symbols)}`
          : `${hex(row.address)}  ??`,
      )
      .join('\n');
  if (format === 's') {
    const { bytes, readable } = guest.machine.readVirtual(thread, at, MAX_EXAMINED);
    const end = bytes.subarray(0, readable).indexOf(0);
    return JSON.stringify(new TextDecoder().decode(bytes.subarray(0, end < 0 ? readable : end)));
  }
  const { bytes, readable } = guest.machine.readVirtual(thread, at, count * size);
  const lines: string[] = [];
  const perLine = 16 / size;
  for (let i = 0; i < count; i += perLine) {
    const cells: string[] = [];
    for (let k = i; k < Math.min(count, i + perLine); k++) {
      if ((k + 1) * size > readable) {
        cells.push('??');
        continue;
      }
      let value = 0n;
      for (let b = size - 1; b >= 0; b--) value = (value << 8n) | BigInt(bytes[k * size + b]!);
      cells.push(format === 'd' ? BigInt.asIntN(size * 8, value).toString() : hex(value, size * 2));
    }
    lines.push(`${hex(BigInt.asUintN(64, at + BigInt(i * size)))}: ${cells.join(' ')}`);
  }
  return lines.join('\n');
}
