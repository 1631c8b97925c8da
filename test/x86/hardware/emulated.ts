/** Runs cases on our engine: the same pages in a plain machine, an IDT whose handlers stop it. */
import { Engine } from '../../../src/x86/engine.ts';
import type { Cpu } from '../../../src/x86/cpu.ts';
import { VmExit } from '../../../src/x86/exceptions.ts';
import { CS, ES, GS, IDTR, STATE, TR } from '../../../src/x86/layout.ts';
import { PTE, PlainMachine, enterLongMode, descriptor, setGdt } from '../support/plain-machine.ts';
import { CODE, DATA, DATA_SIZE, ENTRY, LIMIT_16, READ_ONLY, SELECTORS, fill } from './case.ts';
import type { Case, Outcome } from './case.ts';

/** The machine's own pages, physical; mapped at SYSTEM + physical, supervisor only. */
const SYSTEM = 0xffff_8000_0000_0000n;
const TABLES = 0x10_0000;
const GDT = 0x20_0000;
const TSS = 0x20_1000;
const IDT = 0x20_2000;
const HANDLERS = 0x20_3000;
const STACK_TOP = 0x20_6000;
const WITH_ERROR_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21, 29, 30]);
const MAX_INSTRUCTIONS = 20_000;

export class Emulated {
  readonly #machine = new PlainMachine();
  readonly #cpu: Cpu;
  readonly #engine: Engine;
  readonly #fill = fill(DATA_SIZE);
  #tables = TABLES + 0x1_0000;

  constructor() {
    const machine = this.#machine;
    const cpu = machine.cpu();
    this.#cpu = cpu;
    this.#engine = new Engine(machine.memory);
    enterLongMode(machine, cpu, TABLES);
    // Tables of our own, with nothing but the pages of the case files and the system's pages.
    const root = this.#newTable();
    this.#map(root, BigInt(CODE), CODE, PTE.U);
    for (let at = 0; at < DATA_SIZE; at += 4096)
      this.#map(root, BigInt(DATA + at), DATA + at, PTE.U | PTE.W | PTE.NX);
    this.#map(root, BigInt(READ_ONLY), READ_ONLY, PTE.U | PTE.NX);
    for (let at = GDT; at < STACK_TOP; at += 4096) this.#map(root, SYSTEM + BigInt(at), at, PTE.W);
    cpu.setU64(STATE.cr3, BigInt(root));
    // Selectors 0x30 and 0x28 with RPL 3, as Linux has them.
    setGdt(machine, cpu, GDT, [
      0n,
      descriptor(0, 0xfffff, 0xa9b),
      descriptor(0, 0xfffff, 0xc93),
      0n,
      descriptor(0, 0xfffff, 0xcf3),
      descriptor(0, 0xfffff, 0xafb),
    ]);
    const gdtr = cpu.getSegment(6);
    cpu.setSegment(6, { ...gdtr, base: SYSTEM + BigInt(GDT) });
    machine.poke(TSS + 4, 8, SYSTEM + BigInt(STACK_TOP));
    cpu.setSegment(TR, { selector: 0x38, attributes: 0x8b, limit: 0x67, base: SYSTEM + BigInt(TSS) });
    for (let vector = 0; vector < 32; vector++) {
      const target = SYSTEM + BigInt(HANDLERS + vector * 16);
      const low =
        (target & 0xffffn) | (0x10n << 16n) | (0xee00n << 32n) | (((target >> 16n) & 0xffffn) << 48n);
      machine.poke(IDT + vector * 16, 8, low);
      machine.poke(IDT + vector * 16 + 8, 8, target >> 32n);
      machine.poke(HANDLERS + vector * 16, 1, 0xf4n);
    }
    cpu.setSegment(IDTR, { selector: 0, attributes: 0, limit: 0x1ff, base: SYSTEM + BigInt(IDT) });
    machine.intercepted.set('hlt', () => {
      throw new VmExit('hlt', true);
    });
    machine.write(READ_ONLY, fill(4096));
    cpu.flushTlb();
  }

  #newTable(): number {
    this.#tables += 4096;
    return this.#tables;
  }
  #map(root: number, linear: bigint, physical: number, flags: bigint): void {
    const machine = this.#machine;
    let table = root;
    for (let level = 4; level > 1; level--) {
      const at = table + Number((linear >> BigInt(3 + 9 * level)) & 511n) * 8;
      const entry = machine.peek(at, 8);
      if (entry === 0n) {
        const fresh = this.#newTable();
        machine.poke(at, 8, BigInt(fresh) | PTE.P | PTE.W | PTE.U);
        table = fresh;
      } else table = Number(entry & 0xf_ffff_f000n);
    }
    machine.poke(table + Number((linear >> 12n) & 511n) * 8, 8, BigInt(physical) | PTE.P | flags);
  }

  #put(at: number, bytes: Uint8Array): void {
    const { memory } = this.#machine;
    for (let offset = 0; offset < bytes.length; offset += 4096) {
      const frame = this.#machine.frame(at + offset);
      memory.aboutToWrite(frame);
      memory.u8.set(bytes.subarray(offset, offset + 4096), frame);
    }
  }
  #get(at: number, length: number): Uint8Array {
    const { memory } = this.#machine;
    const bytes = new Uint8Array(length);
    for (let offset = 0; offset < length; offset += 4096) {
      const frame = this.#machine.frame(at + offset);
      bytes.set(memory.u8.subarray(frame, frame + 4096), offset);
    }
    return bytes;
  }

  run(c: Case): Outcome {
    const machine = this.#machine;
    const cpu = this.#cpu;
    const before = Uint8Array.from(this.#fill);
    for (const { address, bytes } of c.memory) before.set(bytes, address - DATA);
    this.#put(DATA, before);
    const page = new Uint8Array(4096).fill(0xcc);
    page.set(c.code, ENTRY - CODE);
    this.#put(CODE, page);
    const { code, data } = SELECTORS[c.bits];
    const small = c.bits === 16;
    cpu.setSegment(CS, {
      selector: code,
      attributes: { 64: 0xafb, 32: 0xcfb, 16: 0x0fb }[c.bits],
      limit: small ? LIMIT_16 : 0xffff_ffff,
      base: small ? BigInt(CODE) : 0n,
    });
    for (let index = ES; index <= GS; index++)
      if (index !== CS)
        cpu.setSegment(index, {
          selector: data,
          attributes: small ? 0x0f3 : 0xcf3,
          limit: small ? LIMIT_16 : 0xffff_ffff,
          base: small ? BigInt(DATA) : 0n,
        });
    cpu.cpl = 3;
    c.input.gpr.forEach((value, i) => cpu.setReg(i, BigInt.asUintN(64, value)));
    cpu.rip = c.input.rip;
    cpu.rflags = c.input.flags | 0x202;
    cpu.setU32(STATE.mxcsr, c.input.mxcsr);
    cpu.setU64(STATE.cr2, 0n);
    for (let i = 0; i < 16; i++)
      machine.memory.u8.set(c.input.xmm.subarray(i * 16, i * 16 + 16), cpu.base + STATE.ymm + i * 32);
    cpu.updateMode();
    const result = this.#engine.run(cpu, MAX_INSTRUCTIONS);
    if (result.error) throw result.error;
    if (result.exit?.reason !== 'hlt') throw new Error(`${c.name}: the engine stopped with ${result.reason}`);
    const vector = Math.floor((Number(cpu.rip & 0xfffn) - (HANDLERS & 0xfff)) / 16);
    let frame = Number(cpu.reg(4) - SYSTEM);
    let errorCode = 0n;
    if (WITH_ERROR_CODE.has(vector)) {
      errorCode = machine.peek(frame, 8);
      frame += 8;
    }
    const gpr = Array.from({ length: 16 }, (_, i) => cpu.reg(i));
    gpr[4] = machine.peek(frame + 24, 8);
    const xmm = new Uint8Array(256);
    for (let i = 0; i < 16; i++) {
      const at = cpu.base + STATE.ymm + i * 32;
      xmm.set(machine.memory.u8.subarray(at, at + 16), i * 16);
    }
    const after = this.#get(DATA, DATA_SIZE);
    const memory = new Map<number, bigint>();
    const was = new DataView(before.buffer);
    const is = new DataView(after.buffer);
    for (let at = 0; at < DATA_SIZE; at += 8) {
      const value = is.getBigUint64(at, true);
      if (value !== was.getBigUint64(at, true)) memory.set(DATA + at, value);
    }
    return {
      vector,
      errorCode,
      cr2: cpu.u64(STATE.cr2),
      state: {
        gpr,
        rip: machine.peek(frame, 8),
        flags: Number(machine.peek(frame + 16, 8)),
        mxcsr: cpu.u32(STATE.mxcsr),
        xmm,
      },
      memory,
    };
  }
}
