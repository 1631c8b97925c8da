/**
 * A small Intel-syntax assembler for guests written in tests: a text front end over the encoder of
 * iced-x86. Every encoding of the mnemonic that suits the operands is tried; the shortest wins.
 *
 * Lines: `label:`, `[lock|rep|repe|repne] mnemonic operands`, `db|dw|dd|dq values`, `bits 16|32|64`,
 * `org address`, `align n`, `times n db values`, `name equ value`; comments after `;`. Values are
 * numbers, labels, `$`, and sums of them. Memory is `[fs: base + index*4 + label]` with an optional
 * `byte|word|dword|qword|xmmword|far` before it; a far pointer is `selector:offset`.
 */
import { Register } from 'iced-x86';
import { REGISTERS, encode } from './encode.ts';
import type { Memory, Operand } from './encode.ts';

export interface Assembled {
  readonly bytes: Uint8Array;
  /** Address of the first byte. */
  readonly origin: bigint;
  readonly labels: ReadonlyMap<string, bigint>;
}

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
