import { beforeEach, describe, expect, it } from 'vitest';
import type { Cpu } from '../../../src/x86/cpu.ts';
import { GuestException } from '../../../src/x86/exceptions.ts';
import { FLAG, STATE } from '../../../src/x86/layout.ts';
import { CR0, CR4, EFER } from '../../../src/x86/system/bits.ts';
import { permissions, walk } from '../../../src/x86/system/paging.ts';
import { PTE, PlainMachine, enterLongMode } from '../support/plain-machine.ts';
import { slowWalk } from './slow-walk.ts';
import type { Setup } from './slow-walk.ts';

const ACCESSES = ['read', 'write', 'execute'] as const;

/** xorshift32: the same cases every run. */
function generator(seed: number): (bound: number) => number {
  let state = seed >>> 0 || 1;
  return (bound) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state % bound;
  };
}

/** Tables live in the first 16 pages; a walk that leaves them reads zeros. */
const PAGES = 16;

function randomSetup(next: (bound: number) => number, encrypted: boolean): Setup {
  const chance = (percent: number): boolean => next(100) < percent;
  const mode = (['32-bit', 'pae', 'long', 'long'] as const)[next(4)]!;
  return {
    mode,
    cr3: BigInt(next(PAGES) * 4096 + (mode === 'pae' ? next(128) * 32 : 0)),
    pse: chance(70),
    pge: chance(50),
    nxe: chance(70),
    wp: chance(60),
    smep: chance(40),
    smap: chance(40),
    pke: chance(40),
    ac: chance(50),
    cpl: chance(50) ? 3 : next(3),
    pkru: (next(0x10000) | (next(0x10000) << 16)) >>> 0,
    physicalBits: [40, 43, 48, 52][next(4)]!,
    encryptionBit: encrypted ? 51 : undefined,
  };
}

function randomEntry(next: (bound: number) => number, setup: Setup): bigint {
  const chance = (percent: number): boolean => next(100) < percent;
  let entry = BigInt(next(PAGES) * 4096);
  if (chance(92)) entry |= PTE.P;
  if (chance(75)) entry |= PTE.W;
  if (chance(75)) entry |= PTE.U;
  if (chance(50)) entry |= PTE.A;
  if (chance(50)) entry |= PTE.D;
  if (chance(15)) entry |= PTE.PS;
  if (chance(4)) entry |= PTE.G;
  if (chance(10)) entry |= BigInt(next(8)) << 9n;
  if (chance(10)) entry |= BigInt(next(4)) << 3n;
  if (chance(10)) entry |= BigInt(next(0x400)) << 12n;
  // Large pages are rare unless their low address bits happen to be clear.
  if ((entry & PTE.PS) !== 0n && chance(80)) entry &= ~0x3fff_e000n | (chance(50) ? 0x3fe0_0000n : 0n);
  if (setup.mode === '32-bit') return entry & 0xffff_ffffn;
  if (setup.mode === 'pae' && chance(60)) entry &= ~0x1e6n;
  if (chance(10)) entry |= PTE.NX;
  if (chance(3)) entry |= 1n << BigInt(32 + next(20));
  if (setup.mode === 'long' ? chance(50) : chance(3)) entry |= BigInt(next(0x800)) << 52n;
  if (setup.encryptionBit !== undefined && chance(80)) entry |= 1n << BigInt(setup.encryptionBit);
  return entry;
}

function apply(cpu: Cpu, setup: Setup): void {
  const bits = (...pairs: readonly (readonly [boolean, number])[]): number =>
    pairs.reduce((sum, [on, value]) => (on ? (sum | value) >>> 0 : sum), 0);
  cpu.setU64(STATE.cr3, setup.cr3);
  cpu.setU64(STATE.cr0, BigInt(bits([true, CR0.PE], [true, CR0.PG], [setup.wp, CR0.WP])));
  cpu.setU64(
    STATE.cr4,
    BigInt(
      bits(
        [setup.mode !== '32-bit', CR4.PAE],
        [setup.pse, CR4.PSE],
        [setup.pge, CR4.PGE],
        [setup.smep, CR4.SMEP],
        [setup.smap, CR4.SMAP],
        [setup.pke, CR4.PKE],
      ),
    ),
  );
  cpu.setU64(STATE.efer, BigInt(bits([setup.nxe, EFER.NXE], [setup.mode === 'long', EFER.LMA | EFER.LME])));
  cpu.setU32(STATE.pkru, setup.pkru);
  cpu.rflags = setup.ac ? FLAG.AC : 0;
  cpu.cpl = setup.cpl;
}

describe.each([
  ['plain', false],
  ['encrypted', true],
])('random tables, %s guest', (_name, encrypted) => {
  it('are walked as the figures of the manual say', () => {
    const next = generator(encrypted ? 7 : 3);
    const seen = { mapped: 0, faults: new Set<number>(), large: 0 };
    for (let round = 0; round < 150; round++) {
      const setup = randomSetup(next, encrypted);
      const machine = new PlainMachine({
        physicalAddressBits: setup.physicalBits,
        ...(encrypted ? { encryptionBit: 51 } : {}),
        bytes: 1 << 20,
      });
      const cpu = machine.cpu();
      apply(cpu, setup);
      const size = setup.mode === '32-bit' ? 4 : 8;
      const view = machine.memory.view;
      for (let page = 0; page < PAGES; page++) {
        const frame = machine.frame(page * 4096);
        for (let at = 0; at < 4096; at += size) {
          const entry = randomEntry(next, setup);
          if (size === 4) view.setUint32(frame + at, Number(entry), true);
          else view.setBigUint64(frame + at, entry, true);
        }
      }
      const read = (gpa: bigint, bytes: number): bigint =>
        gpa < PAGES * 4096 ? machine.peek(Number(gpa), bytes) : 0n;
      for (let i = 0; i < 40; i++) {
        let linear = (BigInt(next(0x1_0000_0000)) << 16n) | BigInt(next(0x10000));
        linear =
          setup.mode === 'long' ? BigInt.asUintN(64, BigInt.asIntN(48, linear)) : linear & 0xffff_ffffn;
        if (setup.mode === 'long' && next(50) === 0) linear ^= 1n << BigInt(48 + next(16));
        const access = ACCESSES[next(3)]!;
        const implicit = access !== 'execute' && next(4) === 0;
        const wanted = slowWalk(setup, read, linear, access, implicit);
        let got;
        try {
          got = walk(cpu, linear, access, implicit ? 'system' : 'current');
        } catch (error) {
          if (!(error instanceof GuestException)) throw error;
          got = error;
        }
        const place = JSON.stringify({
          ...setup,
          cr3: String(setup.cr3),
          linear: linear.toString(16),
          access,
          implicit,
        });
        if (wanted.fault !== undefined) {
          if (wanted.fault === 'gp') expect(got, place).toEqual(new GuestException(13, 0));
          else expect(got, place).toEqual(new GuestException(14, wanted.code, linear));
          seen.faults.add(wanted.fault === 'pf' ? wanted.code : -1);
          continue;
        }
        seen.mapped++;
        if (wanted.pageSize !== 4096) seen.large++;
        expect(got, place).toMatchObject({
          gpa: Number(wanted.gpa),
          encrypted: wanted.encrypted,
          pageSize: wanted.pageSize,
          writable: wanted.writable,
          user: wanted.user,
          executable: wanted.executable,
          dirty: wanted.dirty,
        });
        for (const [gpa, value] of wanted.updates) expect(read(gpa, size), place).toBe(value);
      }
    }
    // The cases reach what they are meant to reach.
    expect(seen.mapped).toBeGreaterThan(600);
    expect(seen.large).toBeGreaterThan(60);
    expect(seen.faults.size).toBeGreaterThan(15);
  });
});

describe('one page', () => {
  const TABLES = 0x1000;
  let machine: PlainMachine;
  let cpu: Cpu;
  const leaf = 0x4000;
  const LINEAR = 0x1000n;

  /** 4 KiB mapping of linear 0x1000 to gpa 0x9000. */
  function map(entry: bigint, c = 0n): void {
    const all = PTE.P | PTE.W | PTE.U | c;
    machine.poke(TABLES, 8, 0x2000n | all);
    machine.poke(0x2000, 8, 0x3000n | all);
    machine.poke(0x3000, 8, 0x4000n | all);
    machine.poke(leaf + 8, 8, 0x9000n | entry | c);
  }

  beforeEach(() => {
    machine = new PlainMachine();
    cpu = machine.cpu();
    enterLongMode(machine, cpu);
    cpu.setU64(STATE.cr3, BigInt(TABLES));
  });

  it('gets D only from a write, and the walk says whether it is there', () => {
    map(PTE.P | PTE.W);
    expect(walk(cpu, LINEAR, 'read', 'current').dirty).toBe(false);
    expect(machine.peek(leaf + 8, 8)).toBe(0x9000n | PTE.P | PTE.W | PTE.A);
    expect(permissions(cpu, walk(cpu, LINEAR, 'read', 'current'))).toEqual({
      read: true,
      write: false,
      execute: true,
    });
    expect(walk(cpu, LINEAR, 'write', 'current').dirty).toBe(true);
    expect(machine.peek(leaf + 8, 8)).toBe(0x9000n | PTE.P | PTE.W | PTE.A | PTE.D);
    expect(permissions(cpu, walk(cpu, LINEAR, 'read', 'current')).write).toBe(true);
  });

  it('is left alone by a refused access and by a peek', () => {
    map(PTE.P);
    expect(() => walk(cpu, LINEAR, 'write', 'current')).toThrow();
    expect(walk(cpu, LINEAR, 'write', 'current', { peek: true })).toMatchObject({
      gpa: 0x9000,
      writable: false,
    });
    expect(machine.peek(leaf + 8, 8)).toBe(0x9000n | PTE.P);
    expect(machine.peek(TABLES, 8)).toBe(0x2000n | PTE.P | PTE.W | PTE.U);
  });

  it('that is not mapped is undefined to a peek', () => {
    expect(walk(cpu, 0x7000_0000n, 'read', 'current', { peek: true })).toBeUndefined();
    expect(walk(cpu, 1n << 47n, 'read', 'current', { peek: true })).toBeUndefined();
  });

  it.each(ACCESSES)('is granted for other accesses exactly as a walk of its own would (%s)', (first) => {
    const next = generator(99);
    for (let i = 0; i < 300; i++) {
      machine.poke(TABLES, 8, 0n);
      map(
        PTE.P |
          PTE.A |
          (next(2) ? PTE.W : 0n) |
          (next(2) ? PTE.U : 0n) |
          (next(2) ? PTE.D : 0n) |
          (next(2) ? PTE.NX : 0n),
      );
      cpu.setU64(STATE.cr4, 0xa0n | (next(2) ? BigInt(CR4.SMEP) : 0n) | (next(2) ? BigInt(CR4.SMAP) : 0n));
      cpu.setU64(STATE.cr0, BigInt(CR0.PE + CR0.PG + (next(2) ? CR0.WP : 0)));
      cpu.rflags = next(2) ? FLAG.AC : 0;
      cpu.cpl = next(2) * 3;
      const before = machine.peek(leaf + 8, 8);
      let page;
      try {
        page = walk(cpu, LINEAR, first, 'current');
      } catch {
        continue;
      }
      const granted = permissions(cpu, page);
      const entry = machine.peek(leaf + 8, 8);
      for (const access of ['read', 'execute'] as const) {
        let allowed = true;
        try {
          walk(cpu, LINEAR, access, 'current');
        } catch {
          allowed = false;
        }
        expect(granted[access]).toBe(allowed);
      }
      if (granted.write) expect(entry & PTE.D).toBe(PTE.D);
      expect(machine.peek(leaf + 8, 8)).toBe(entry);
      expect(before | PTE.A | PTE.D).toBe(entry | PTE.D);
    }
  });
});

describe('an encrypted guest', () => {
  const C = 1n << 51n;
  const make = (): { machine: PlainMachine; cpu: Cpu } => {
    const machine = new PlainMachine({ encryptionBit: 51 });
    return { machine, cpu: machine.cpu() };
  };

  it('has private memory while it is unpaged', () => {
    const { cpu } = make();
    expect(walk(cpu, 0x1234_5678n, 'read', 'current')).toMatchObject({ gpa: 0x1234_5000, encrypted: true });
  });

  it('walks private tables whatever the C-bits say, and takes data privacy from the leaf', () => {
    const { machine, cpu } = make();
    enterLongMode(machine, cpu);
    const root = 0x1000;
    cpu.setU64(STATE.cr3, BigInt(root) | C);
    machine.poke(root, 8, 0x2000n | 3n);
    machine.poke(0x2000, 8, 0x3000n | 3n | C);
    machine.poke(0x3000, 8, 0x4000n | 3n);
    machine.poke(0x4000, 8, 0x9000n | 3n | C);
    machine.poke(0x4008, 8, 0xa000n | 3n);
    machine.requests = [];
    expect(walk(cpu, 0n, 'read', 'current')).toMatchObject({ gpa: 0x9000, encrypted: true, serves: 'both' });
    expect(machine.requests.every((each) => each.pageTable && each.encrypted)).toBe(true);
    expect(walk(cpu, 0x1000n, 'read', 'current')).toMatchObject({
      gpa: 0xa000,
      encrypted: false,
      serves: 'data',
    });
    const fetch = walk(cpu, 0x1000n, 'execute', 'current');
    expect(fetch).toMatchObject({ gpa: 0xa000, encrypted: true, serves: 'fetch' });
    expect(permissions(cpu, fetch)).toEqual({ read: false, write: false, execute: true });
  });
});
