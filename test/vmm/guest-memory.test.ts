/** The host's memory: regions, the two backings of a page, and when which one exists. */
import { describe, expect, it } from 'vitest';
import { LARGE_PAGE, Rmp } from '../../src/snp/index.ts';
import { GuestMemory } from '../../src/vmm/guest-memory.ts';
import { MachineMemory } from '../../src/x86/index.ts';

function memory(largePages = true) {
  const machine = new MachineMemory(16 << 20);
  const rmp = new Rmp();
  const dropped: number[] = [];
  let flushes = 0;
  const guest = new GuestMemory(
    machine,
    rmp,
    { frameDropped: (frame) => dropped.push(frame), flushTranslations: () => flushes++ },
    largePages,
  );
  return { machine, rmp, guest, dropped, flushes: () => flushes };
}

describe('regions', () => {
  it('merge where they touch or overlap, in any order, as a set of pages would', () => {
    let state = 1;
    const random = (limit: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 8) % limit;
    };
    for (let round = 0; round < 50; round++) {
      const { guest } = memory();
      const pages = new Set<number>();
      for (let i = 0; i < 12; i++) {
        const start = random(60);
        const count = random(6);
        guest.addRegion(start * 4096, count * 4096);
        for (let page = start; page < start + count; page++) pages.add(page);
      }
      for (let page = 0; page < 70; page++)
        expect(guest.isMemory(page * 4096 + random(4096)), `page ${page}`).toBe(pages.has(page));
      for (let i = 1; i < guest.regions.length; i++)
        expect(guest.regions[i]!.start).toBeGreaterThan(guest.regions[i - 1]!.end);
    }
  });
  it('takes a hundred thousand scattered pages in no time', () => {
    const { guest } = memory();
    for (let i = 100_000; i > 0; i--) guest.addRegion(i * 0x4000, 4096);
    expect(guest.regions).toHaveLength(100_000);
    expect([guest.isMemory(0x4000), guest.isMemory(0x5000)]).toEqual([true, false]);
  });
  it('refuses what is no page, and addresses beyond 52 bits', () => {
    const { guest } = memory();
    expect(() => guest.addRegion(1, 4096)).toThrow(/page-aligned/);
    expect(() => guest.addRegion(0, 100)).toThrow(/page-aligned/);
    expect(() => guest.addRegion(2 ** 52 - 4096, 8192)).toThrow(/52/);
  });
});

describe('backings', () => {
  it('takes frames on first touch, zeroed, and one of each kind', () => {
    const { machine, guest } = memory();
    guest.addRegion(0, 8 << 20);
    expect(guest.existingFrame(0x3000, 'private')).toBe(0);
    const frame = guest.privateFrame(0x3000);
    expect(guest.privateFrame(0x3abc)).toBe(frame);
    expect(machine.frame(frame).every((byte) => byte === 0)).toBe(true);
    expect(guest.sharedFrame(0x3000)).toBe(0);
  });
  it('making a page shared discards its private contents, and the reverse', () => {
    const { machine, rmp, guest, dropped, flushes } = memory();
    guest.addRegion(0, 8 << 20);
    guest.assign(0x3000);
    const before = guest.privateFrame(0x3000);
    machine.frame(before).fill(0xaa);
    expect(guest.setShared(0x3000, false)).toBe(1);
    expect([rmp.isAssigned(0x3000), guest.existingFrame(0x3000, 'private')]).toEqual([false, 0]);
    expect(dropped).toEqual([before]);
    const shared = guest.sharedFrame(0x3000);
    expect(machine.frame(shared).every((byte) => byte === 0)).toBe(true);
    machine.frame(shared).fill(0xbb);
    expect(guest.setShared(0x3000, false)).toBe(0);
    expect(guest.setPrivate(0x3000, false)).toBe(1);
    expect(machine.frame(guest.privateFrame(0x3000)).every((byte) => byte === 0)).toBe(true);
    expect(flushes()).toBe(2);
  });
  it('assigns 2 MiB at once where all of it is private memory that was never touched', () => {
    const { rmp, guest } = memory();
    guest.addRegion(0, 3 << 20);
    guest.assign(0x5000);
    expect(rmp.entry(0)).toMatchObject({ assigned: true, pageSize: LARGE_PAGE });
    guest.assign(0x20_0000);
    expect(rmp.entry(0x20_0000)).toMatchObject({ assigned: true, pageSize: 4096 });
    expect(rmp.isAssigned(0x20_1000)).toBe(false);
  });
  it('splits a 2 MiB entry when part of it becomes shared, and assigns in 4 KiB from then on', () => {
    const { rmp, guest } = memory();
    guest.addRegion(0, 4 << 20);
    guest.assign(0x20_0000);
    guest.setShared(0x20_3000, false);
    expect([rmp.isAssigned(0x20_3000), rmp.isAssigned(0x20_4000), rmp.isLarge(0x20_4000)]).toEqual([
      false,
      true,
      false,
    ]);
    guest.assign(0x20_3000);
    expect(rmp.entry(0x20_3000)).toMatchObject({ assigned: true, validated: false, pageSize: 4096 });
    expect(guest.isShared(0x20_3000)).toBe(false);
  });
  it('on a host without large pages assigns 4 KiB', () => {
    const { rmp, guest } = memory(false);
    guest.addRegion(0, 4 << 20);
    guest.assign(0x20_0000);
    expect(rmp.entry(0x20_0000)).toMatchObject({ pageSize: 4096 });
  });
});
