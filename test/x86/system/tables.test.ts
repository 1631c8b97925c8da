/**
 * Cached translations never show: a changed page table counts at once, on every processor, with or
 * without INVLPG, so that a run does not depend on what happens to be in the TLB.
 */
import { beforeEach, describe, expect, it } from 'vitest';
import { Engine } from '../../../src/x86/engine.ts';
import { AT, Guest } from '../support/guest.ts';
import { PTE, enterLongMode } from '../support/plain-machine.ts';

const LEAF = 0x20_0000; // 4 KiB tables for linear 16 to 18 MiB
const PD = AT.tables + 0x2000;
const FLAGS = PTE.P | PTE.W | PTE.U;
const PAGE = 0x100_0000;

let guest: Guest;
const entry = (i: number): bigint => guest.machine.peek(LEAF + i * 8, 8);

beforeEach(() => {
  guest = Guest.long();
  const { machine } = guest;
  machine.poke(PD + 8 * 8, 8, BigInt(LEAF) | FLAGS);
  for (let i = 0; i < 512; i++) machine.poke(LEAF + i * 8, 8, BigInt(0x40_0000 + i * 4096) | FLAGS);
  machine.poke(0x40_0000, 4, 0x1111);
  machine.poke(0x40_1000, 4, 0x2222);
});

describe('a store to a page table', () => {
  it('changes the next access: last level', () => {
    guest.go(`
      mov eax, [${PAGE}]
      mov qword [${LEAF}], ${0x40_1007}
      mov ebx, [${PAGE}]
      mov qword [${LEAF}], ${0x40_0007}
      mov ecx, [${PAGE}]
      hlt`);
    expect([guest.reg('rax'), guest.reg('rbx'), guest.reg('rcx')]).toEqual([0x1111n, 0x2222n, 0x1111n]);
  });

  it('changes the next access: an upper level', () => {
    guest.machine.poke(0x80_0000, 4, 0x3333);
    guest.go(`mov eax, [${PAGE}]\n mov qword [${PD + 64}], ${0x80_0087}\n mov ebx, [${PAGE}]\n hlt`);
    expect([guest.reg('rax'), guest.reg('rbx')]).toEqual([0x1111n, 0x3333n]);
  });

  it('takes a permission away at once', () => {
    expect(
      guest.fault(
        `mov [${PAGE}], eax\n mov [${PAGE}], eax\n and qword [${LEAF}], -3\n mov ebx, 1\n mov [${PAGE}], eax`,
      ),
    ).toBe('14(3)');
    expect(guest.reg('rbx')).toBe(1n);
  });

  it('that clears A or D sees the next access set it again', () => {
    guest.go(
      `mov [${PAGE}], eax\n and qword [${LEAF}], ${~0x60}\n mov eax, [${PAGE}]\n mov rcx, [${LEAF}]\n mov [${PAGE}], eax\n hlt`,
    );
    expect(guest.reg('rcx') & 0x60n).toBe(PTE.A);
    expect(entry(0) & 0x60n).toBe(PTE.A | PTE.D);
  });

  it('works through a mapping of the table onto itself', () => {
    // Entry 5 maps the table, entry 6 is changed through it, then entry 5 itself.
    guest.machine.poke(LEAF + 5 * 8, 8, BigInt(LEAF) | FLAGS);
    const table = PAGE + 5 * 4096;
    guest.go(`
      mov eax, [${PAGE + 6 * 4096}]
      mov qword [${table + 6 * 8}], ${0x40_1007}
      mov ebx, [${PAGE + 6 * 4096}]
      mov qword [${table + 6 * 8}], ${0x40_0007}
      mov ecx, [${PAGE + 6 * 4096}]
      mov qword [${table + 5 * 8}], ${0x40_1007}
      mov edx, [${table}]
      hlt`);
    expect(['rax', 'rbx', 'rcx', 'rdx'].map((name) => guest.reg(name))).toEqual([
      0n,
      0x2222n,
      0x1111n,
      0x2222n,
    ]);
  });

  it('reaches the other processors', () => {
    const other = guest.machine.cpu();
    enterLongMode(guest.machine, other, AT.tables);
    guest.machine.poke(PD + 8 * 8, 8, BigInt(LEAF) | FLAGS);
    expect(other.load(BigInt(PAGE), 4)).toBe(0x1111n);
    guest.go(`mov qword [${LEAF}], ${0x40_1007}\n hlt`);
    expect(other.load(BigInt(PAGE), 4)).toBe(0x2222n);
  });
});

describe('a string instruction', () => {
  it('that fills a table in use drops what hung on it', () => {
    guest.go(
      `mov eax, [${PAGE}]\n mov edi, ${LEAF}\n mov rax, ${0x40_1007}\n mov ecx, 512\n rep stosq\n mov ebx, [${PAGE}]\n hlt`,
    );
    expect(guest.reg('rbx')).toBe(0x2222n);
  });
});

describe('translations', () => {
  it('are cached all the same', () => {
    const { machine } = guest;
    guest.load(
      `mov ecx, 1000\n again: mov eax, [${PAGE}]\n mov [${PAGE + 4096}], eax\n dec ecx\n jnz again\n hlt`,
    );
    guest.cpu.rip = BigInt(AT.code);
    machine.requests = [];
    guest.run();
    expect(machine.requests.filter((each) => !each.pageTable).length).toBeLessThan(10);
  });

  it('do not depend on how often they are dropped', () => {
    // One guest that plays with its own tables, run twice: with the TLB kept, and emptied at every instruction.
    const source = `
      xor r8d, r8d
      mov r9d, 200
    again:
      imul r8d, r8d, 1103515245
      add r8d, 12345
      mov esi, r8d
      shr esi, 16
      and esi, 15
      mov rdi, rsi
      shl rdi, 12
      add rdi, ${PAGE}
      test r8d, 0x100000
      jz read
      add [rdi], r8d
      jmp next
    read:
      add r10d, [rdi]
    next:
      mov eax, r8d
      shr eax, 8
      and eax, 15
      test r8d, 0x400000
      jz keep
      and byte [${LEAF} + rax*8], 0x9f
      test r8d, 0x800000
      jz keep
      xor dword [${LEAF} + rax*8], 0x3000
    keep:
      dec r9d
      jnz again
      hlt`;
    const state = (flush: boolean): string => {
      const fresh = Guest.long();
      fresh.machine.poke(PD + 8 * 8, 8, BigInt(LEAF) | FLAGS);
      for (let i = 0; i < 512; i++) fresh.machine.poke(LEAF + i * 8, 8, BigInt(0x40_0000 + i * 4096) | FLAGS);
      fresh.load(source);
      fresh.cpu.rip = BigInt(AT.code);
      const engine: Engine = fresh.engine;
      for (;;) {
        if (flush) fresh.cpu.flushTlb();
        if (engine.run(fresh.cpu, flush ? 1 : 1 << 20).reason === 'exit') break;
      }
      const registers = Array.from({ length: 16 }, (_, i) => fresh.cpu.reg(i)).join();
      return (
        registers +
        Buffer.from(fresh.machine.read(LEAF, 128)).toString('hex') +
        Buffer.from(fresh.machine.read(0x40_0000, 0x1_0000)).toString('hex')
      );
    };
    expect(state(true)).toBe(state(false));
  });
});
