/** A guest that asks for nonsense: every request is answered or ends the machine with a reason, never with a crash. */
import { describe, expect, it } from 'vitest';
import { exitCodeName } from '../../src/snp/index.ts';
import { assemble } from '../x86/support/assemble.ts';
import { AT, GHCB_GPA, guestImage, machineOf, msrProtocol, setUpGhcb } from './guest.ts';

const ROW = 128;
const TABLE = 0x30_0000;
const ROWS = 400;
/** Copies one row after the other into the GHCB and exits. R12 counts. */
const CODE = `${setUpGhcb}
  mov r14, ${TABLE}
  xor r12, r12
  next:
  ${[0x390, 0x398, 0x3a0, 0x3a8, 0x1f8, 0x308, 0x310, 0x318, 0x3f0, 0x3f8, 0x800, 0x808, 0x810]
    .map((offset, i) => `mov rax, qword [r14 + ${i * 8}]\n mov qword [r15 + ${offset}], rax`)
    .join('\n')}
  mov ecx, 0xc0010130
  mov eax, ${GHCB_GPA}
  xor edx, edx
  wrmsr
  vmgexit
  inc r12
  add r14, ${ROW}
  cmp r12, ${ROWS}
  jb next
  hlt`;
const NEXT = assemble(CODE, AT.code).labels.get('next')!;

const CODES = [
  0x6e, 0x72, 0x7b, 0x7c, 0x81, 0x87, 0x89, 0x8a, 0x27, 0x37, 0x6f, 0x8000_0001, 0x8000_0002, 0x8000_0003,
  0x8000_0005, 0x8000_0010, 0x8000_0011, 0x8000_0012, 0x8000_0013, 0x8000_0014, 0x8000_0015, 0x8000_fffd, 0,
];

describe('GHCB requests at random', () => {
  it.each([1, 2, 3])('seed %i', (seed) => {
    let state = seed;
    const random = (limit: number): number => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 8) % limit;
    };
    const interesting = (): bigint => {
      switch (random(8)) {
        case 0:
          return 0n;
        case 1:
          return BigInt(GHCB_GPA) + 0x800n + BigInt(random(0x900));
        case 2:
          return 0xffff_ffff_ffff_ffffn >> BigInt(random(64));
        case 3:
          return BigInt(random(0x4000)) << 12n;
        case 4:
          return (BigInt(random(16)) << 52n) | (BigInt(random(2)) << 56n) | (BigInt(random(0x4000)) << 12n);
        case 5:
          return BigInt([0x1b, 0x802, 0x80b, 0x830, 0x838, 0x3f8_0010, 0x3fd_0011, 0xe0_007f][random(8)]!);
        default:
          return BigInt(random(64));
      }
    };
    const table = new Uint8Array(ROWS * ROW);
    const view = new DataView(table.buffer);
    const codes: number[] = [];
    for (let row = 0; row < ROWS; row++) {
      const code = CODES[random(CODES.length)]!;
      codes.push(code);
      const at = row * ROW;
      view.setBigUint64(at, BigInt(code), true);
      for (let i = 1; i < 13; i++) view.setBigUint64(at + i * 8, interesting(), true);
      // Mostly everything is valid, so that the request is looked at.
      const valid = random(5) > 0;
      view.setBigUint64(at + 64, valid ? 0xffff_ffff_ffff_ffffn : interesting(), true);
      view.setBigUint64(at + 72, valid ? 0xffff_ffff_ffff_ffffn : interesting(), true);
    }
    const image = guestImage(CODE, { build: (builder) => void builder.pages(BigInt(TABLE), 1, table) });
    let from = 0;
    const ends: string[] = [];
    while (from < ROWS) {
      const { machine } = machineOf(image, { vcpus: 2 });
      // On to where the last machine ended: as a debugger would.
      const start = from;
      machine.addBreakpoint({ address: NEXT });
      expect(machine.run(1000).reason).toBe('breakpoint');
      machine.clearBreakpoints();
      machine.current.cpu.setReg(12, BigInt(start));
      machine.current.cpu.setReg(14, BigInt(TABLE + start * ROW));
      const stop = machine.run(1_000_000);
      const reached = Number(machine.current.cpu.reg(12));
      expect(reached, stop.message).toBeGreaterThanOrEqual(start);
      expect(stop.message.length).toBeGreaterThan(0);
      if (stop.reason !== 'idle') {
        expect(['not-implemented', 'error', 'exit', 'shutdown', 'terminated'], stop.message).toContain(
          stop.reason,
        );
        expect(stop.error?.code).not.toBe('internal');
        ends.push(`${exitCodeName(codes[reached]!)}: ${stop.message}`);
      }
      from = reached + 1;
    }
    // Only what is not there ends a machine; the rest is answered.
    for (const end of ends) expect(end).toMatch(/^HV_IPI.*NMI|^MSR.*(NMI|timer)/);
    expect(ends.length).toBeLessThan(ROWS / 10);
  });
});

describe('GHCB MSR values at random', () => {
  it('each is answered or ends the machine by name', () => {
    let state = 7;
    const random = (): number => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0);
    for (let i = 0; i < 30; i++) {
      const info = [2, 4, 6, 0x10, 0x12, 0x14, 0x16, 0x80, 0x100, random() & 0xfff][i % 10]!;
      const request = (BigInt(random()) << 32n) | BigInt((random() & 0xffff_f000) >>> 0) | BigInt(info);
      const { machine } = machineOf(guestImage(`${msrProtocol(request)}\n hlt`));
      const stop = machine.run(100);
      expect(['idle', 'terminated', 'error'], `${request.toString(16)}: ${stop.message}`).toContain(
        stop.reason,
      );
    }
  });
});

describe('images at random places', () => {
  it('a VMSA of noise is refused or runs into something with a name', () => {
    let state = 11;
    for (let i = 0; i < 20; i++) {
      const noise = Object.fromEntries(
        ['cr0', 'cr3', 'cr4', 'efer', 'rip', 'rsp', 'rflags', 'cs.attributes', 'cpl', 'xcr0'].map((name) => {
          state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
          const value = BigInt(state) << BigInt(state % 33);
          return [name, name === 'efer' ? (value & 0xd01n) | 0x1000n : value];
        }),
      );
      let outcome: string;
      try {
        outcome = machineOf(guestImage('hlt', { vmsa: noise })).machine.run(1000).reason;
      } catch (error) {
        expect((error as Error).name).toBe('CvmError');
        outcome = (error as { code: string }).code;
      }
      expect(['vmrun-invalid', 'shutdown', 'error', 'not-implemented', 'idle', 'budget']).toContain(outcome);
    }
  });
});
