/**
 * COCONUT-SVSM's own in-guest tests, built outside the repository (`CVM_SVSM=dir`, its `test/` folder): 181
 * kernel tests (#VC, IPIs, page tables, tasks, attestation …) and the user-mode ones judge the machine. The
 * virtio tests need devices this machine does not have: their functions return at once.
 */
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
