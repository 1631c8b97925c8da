/**
 * COCONUT-SVSM's own in-guest tests, built outside the repository (`CVM_SVSM=dir`, its `test/` folder): 181
 * kernel tests (#VC, IPIs, page tables, tasks, attestation …) and the user-mode ones judge the machine. The
 * virtio tests need devices this machine does not have: their functions return at once.
 */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { nodeCrypto } from '../../src/base/node.ts';
import { parseIgvm } from '../../src/igvm/index.ts';
import { SymbolSpace, initSymbols } from '../../src/symbols/index.ts';
import { createMachine } from '../../src/vmm/index.ts';

await initSymbols(
  readFileSync(createRequire(import.meta.url).resolve('gecko-profiler-demangle/index_bg.wasm')),
);

const folder = join(process.env['CVM_SVSM'] ?? '', 'test');
const image = join(folder, 'coconut-test-qemu.igvm');
const WITHOUT_DEVICE = [
  'svsm::block::virtio_blk::tests::virtio_read',
  'svsm::block::virtio_blk::tests::virtio_write',
  'svsm::vsock::stream::tests::test_virtio_vsock_read',
  'svsm::vsock::stream::tests::test_virtio_vsock_write',
  'svsm::vsock::stream::tests::test_virtio_vsock_double_connect',
];
/** COM4 carries requests to the test's host; 1 asks for the expected launch digest. */
const TEST_PORT = 0x2e8;
const GET_LAUNCH_MEASUREMENT = 1;

describe.runIf(process.env['CVM_SVSM'] && existsSync(image))('COCONUT-SVSM in-guest tests', () => {
  it.each([1, 2])('all pass on %i vCPUs', (vcpus) => {
    const symbols = new SymbolSpace();
    symbols.add({ name: 'svsm.elf', bytes: new Uint8Array(readFileSync(join(folder, 'svsm.elf'))) });
    let text = '';
    const machine = createMachine({
      image: parseIgvm(new Uint8Array(readFileSync(image))),
      crypto: nodeCrypto,
      vcpus,
      memory: 512 << 20,
      onConsole: (port, bytes) => {
        if (port !== TEST_PORT) text += new TextDecoder().decode(bytes);
        else if (bytes[0] === GET_LAUNCH_MEASUREMENT) machine.input(port, machine.launchDigest);
      },
    });
    const skipped = WITHOUT_DEVICE.flatMap((name) => symbols.symbolByName(name));
    expect(skipped).toHaveLength(WITHOUT_DEVICE.length);
    for (const { address } of skipped) machine.addBreakpoint({ address });
    let stop = machine.run(1_000_000);
    while (stop.reason === 'budget' || stop.reason === 'breakpoint') {
      if (stop.reason === 'breakpoint') {
        const { cpu } = stop.thread;
        const stack = cpu.reg(4);
        cpu.rip = cpu.load(stack, 8);
        cpu.setReg(4, stack + 8n);
      }
      expect(machine.retired).toBeLessThan(100_000_000);
      stop = machine.run(1_000_000);
    }
    expect(text).toContain('Kernel tests in svsm passed!');
    expect(text).toContain('All tests passed!');
    // The report's measurement is the digest that the test's host expects.
    expect(text).not.toMatch(/assertion|panicked/i);
    expect(stop).toMatchObject({ reason: 'exit', exitCode: (0x10 << 1) | 1 });
  });
});

const plain = join(folder, '..', 'novtpm', 'coconut-qemu.igvm');
describe.runIf(process.env['CVM_SVSM'] && existsSync(plain))('a run of COCONUT-SVSM on four vCPUs', () => {
  /** Everything the guest and the host have seen and left behind, as two hashes. */
  function outcome(slice: number, breakpoint?: bigint): readonly unknown[] {
    const events = createHash('sha256');
    const machine = createMachine({
      image: parseIgvm(new Uint8Array(readFileSync(plain))),
      crypto: nodeCrypto,
      vcpus: 4,
      memory: 256 << 20,
      onEvent: ({ retired, vcpu, vmpl, rip, kind, text }) =>
        events.update(`${retired} ${vcpu} ${vmpl} ${rip} ${kind} ${text}\n`),
    });
    if (breakpoint !== undefined) machine.addBreakpoint({ address: breakpoint });
    let stop = machine.run(slice);
    while (stop.reason === 'budget' || stop.reason === 'breakpoint') stop = machine.run(slice);
    const state = createHash('sha256');
    for (const { gpa, pages, assigned, validated, permissions, vmsa } of machine.rmp.ranges())
      state
        .update(`${gpa} ${pages} ${validated} ${permissions.join()} ${vmsa}`)
        .update(machine.readPhysical(gpa, pages * 4096, assigned ? 'private' : 'shared').bytes);
    for (const thread of machine.threads) state.update(machine.vmsa(thread));
    return [stop.reason, stop.rip, machine.retired, state.digest('hex'), events.digest('hex')];
  }
  it('is the same to the last byte, however it is cut and watched', () => {
    const whole = outcome(10_000_000);
    expect(whole[0]).toBe('idle');
    expect(outcome(54_321)).toEqual(whole);
    // Stopping each time a vCPU goes idle changes nothing.
    expect(outcome(1_000_000, whole[1] as bigint)).toEqual(whole);
  });
});
