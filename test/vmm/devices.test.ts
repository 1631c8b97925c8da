/** The devices and the local APIC by their registers. */
import { describe, expect, it } from 'vitest';
import { LocalApic, decodeIcr, logicalId } from '../../src/vmm/apic.ts';
import type { InterprocessorInterrupt } from '../../src/vmm/apic.ts';
import { PortBus, Serial16550 } from '../../src/vmm/devices.ts';

describe('16550 (PC16550D data sheet)', () => {
  const uart = () => {
    const sent: number[] = [];
    return { device: new Serial16550((byte) => sent.push(byte)), sent };
  };
  it('transmits at once and is always empty', () => {
    const { device, sent } = uart();
    device.write(0, 1, 0x141);
    expect(sent).toEqual([0x41]);
    expect(device.read(5, 1)).toBe(0x60);
  });
  it('has a divisor latch behind DLAB, which sends nothing', () => {
    const { device, sent } = uart();
    device.write(3, 1, 0x83);
    device.write(0, 1, 0x0c);
    device.write(1, 1, 0x01);
    expect([device.read(0, 1), device.read(1, 1), device.read(3, 1)]).toEqual([0x0c, 1, 0x83]);
    device.write(3, 1, 0x03);
    device.write(1, 1, 0xff);
    expect([device.read(0, 1), device.read(1, 1)]).toEqual([0, 0x0f]);
    expect(sent).toEqual([]);
  });
  it('receives in order and says when there is something', () => {
    const { device } = uart();
    device.receive(Uint8Array.of(1, 2));
    expect([device.read(5, 1), device.read(0, 1), device.read(0, 1), device.read(5, 1)]).toEqual([
      0x61, 1, 2, 0x60,
    ]);
    device.receive(Uint8Array.of(3));
    device.write(2, 1, 7); // FCR: clears the receive FIFO
    expect(device.read(5, 1)).toBe(0x60);
    expect(device.read(2, 1)).toBe(0xc1);
  });
  it('loops back in loopback mode, modem lines included', () => {
    const { device, sent } = uart();
    device.write(4, 1, 0x1e);
    device.write(0, 1, 0xae);
    expect([device.read(0, 1), sent.length]).toEqual([0xae, 0]);
    // OUT2, OUT1, RTS appear as DCD, RI, CTS.
    expect(device.read(6, 1)).toBe(0x80 | 0x40 | 0x10);
    device.write(4, 1, 0);
    expect(device.read(6, 1)).toBe(0xb0);
  });
  it('keeps a scratch byte', () => {
    const { device } = uart();
    device.write(7, 1, 0x5a);
    expect([device.read(7, 1), device.read(4, 1)]).toEqual([0x5a, 0]);
  });
});

describe('port space', () => {
  it('reports a port without a device once', () => {
    const reports: string[] = [];
    const bus = new PortBus({
      onConsole: () => {},
      onExit: () => {},
      onUnclaimed: (text) => reports.push(text),
    });
    expect([bus.read(0x60, 1), bus.read(0x60, 2), bus.read(0x60, 4)]).toEqual([0xff, 0xffff, 0xffff_ffff]);
    bus.write(0x60, 1, 1);
    expect(reports).toHaveLength(2);
    expect(() => bus.receive(0x60, Uint8Array.of(1))).toThrow(/0x60/);
  });
});

describe('local APIC (APM vol. 2, chapter 16)', () => {
  const apic = () => {
    const sent: InterprocessorInterrupt[] = [];
    return { apic: new LocalApic(3, (interrupt) => sent.push(interrupt)), sent };
  };
  it('reads an ICR', () => {
    expect(decodeIcr((5n << 32n) | (1n << 11n) | 0x4ffn)).toEqual({
      vector: 0xff,
      mode: 4,
      logical: true,
      shorthand: undefined,
      destination: 5,
    });
    expect([1n, 2n, 3n].map((value) => decodeIcr(value << 18n).shorthand)).toEqual(['self', 'all', 'others']);
  });
  it('x2APIC logical ids are cluster and bit', () => {
    expect([logicalId(3), logicalId(0x25)]).toEqual([8, 0x2_0020]);
  });
  it('has its id and version, and refuses to write them', () => {
    const { apic: one } = apic();
    expect([one.readMsr(0x802), one.readMsr(0x80d), one.readMsr(0x1b)]).toEqual([3n, 8n, 0xfee0_0800n]);
    expect([0x802, 0x803, 0x80d, 0x839].map((index) => one.writeMsr(index, 0n))).toEqual([
      false,
      false,
      false,
      false,
    ]);
    expect([one.readMsr(0x80b), one.readMsr(0x83f)]).toEqual([undefined, undefined]);
  });
  it('sends by the ICR, requests by SELF_IPI', () => {
    const { apic: one, sent } = apic();
    expect(one.writeMsr(0x830, (1n << 32n) | 0x50n)).toBe(true);
    expect(sent).toMatchObject([{ vector: 0x50, destination: 1, mode: 0 }]);
    one.writeMsr(0x83f, 0x61n);
    expect([one.readMsr(0x820 + 3), one.readMsr(0x810 + 3)]).toEqual([2n, 0n]);
  });
  it('serves by priority, above the task priority and what is in service', () => {
    const { apic: one } = apic();
    for (const vector of [0x31, 0x52, 0x51]) one.request(vector);
    expect(one.acknowledge(5)).toBeUndefined();
    expect(one.acknowledge(0)).toBe(0x52);
    expect(one.acknowledge(0)).toBeUndefined();
    one.endOfInterrupt();
    expect([one.acknowledge(0), one.hasRequest]).toEqual([0x51, true]);
    one.endOfInterrupt();
    expect([one.acknowledge(0), one.hasRequest]).toEqual([0x31, false]);
  });
  it('has no timer, and says so only when one is really started', () => {
    const { apic: one } = apic();
    expect(one.writeMsr(0x838, 100n)).toBe(true);
    one.writeMsr(0x832, 0x2_0020n);
    expect(one.writeMsr(0x838, 0n)).toBe(true);
    expect(() => one.writeMsr(0x838, 100n)).toThrow(/APIC timer/);
  });
});
