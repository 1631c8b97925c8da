/**
 * Debian's cloud kernel on a machine without encryption, with a busybox initramfs built here (`CVM_LINUX=dir`,
 * made by scripts/linux-guest.sh): from the first instruction to user space, a checksum, and power-off.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createPlainMachine } from '../../src/vmm/index.ts';
import { cpio } from './cpio.ts';

const folder = process.env.CVM_LINUX;
if (!folder) console.warn('CVM_LINUX is not set: the Linux boot is not tested in this run');

const file = (name: string): Uint8Array => new Uint8Array(readFileSync(join(folder!, name)));
const DIRECTORY = 0o40755;
const PROGRAM = 0o100755;
const DEVICE = 0o20666;
const MEGABYTES = 64;

const INIT = `#!/bin/busybox sh
/bin/busybox echo "user space: $(/bin/busybox uname -m)"
/bin/busybox dd if=/dev/zero bs=1M count=${MEGABYTES} 2>/dev/null | /bin/busybox md5sum
/bin/busybox poweroff -f
`;

const initramfs = (): Uint8Array =>
  cpio([
    { name: 'bin', mode: DIRECTORY },
    { name: 'dev', mode: DIRECTORY },
    { name: 'dev/console', mode: DEVICE, device: [5, 1] },
    { name: 'dev/null', mode: DEVICE, device: [1, 3] },
    { name: 'dev/zero', mode: DEVICE, device: [1, 5] },
    { name: 'bin/busybox', mode: PROGRAM, data: file('busybox') },
    { name: 'init', mode: PROGRAM, data: new TextEncoder().encode(INIT) },
  ]);

function boot(vcpus: number, heat?: number) {
  let text = '';
  const started = performance.now();
  const machine = createPlainMachine({
    kernel: file('vmlinuz'),
    initrd: initramfs(),
    commandLine: 'console=ttyS0 panic=-1',
    vcpus,
    memory: 256 << 20,
    onConsole: (_port, bytes) => (text += new TextDecoder().decode(bytes)),
    ...(heat === undefined ? {} : { heat }),
  });
  let userSpace = 0;
  let stop;
  do {
    stop = machine.run(20_000_000);
    if (userSpace === 0 && text.includes('Run /init')) userSpace = machine.retired;
  } while (stop.reason === 'budget' && machine.retired < 10_000_000_000);
  const seconds = (performance.now() - started) / 1000;
  console.log(
    `Linux, ${vcpus} vCPU${heat === 0 ? ', interpreter' : ''}: ${machine.retired} instructions, ` +
      `${seconds.toFixed(1)} s; user space within ${userSpace}`,
  );
  return { text, stop, retired: machine.retired };
}

describe.runIf(folder)('Linux', () => {
  it('boots to user space, computes, and powers off', { timeout: 600_000 }, () => {
    const { text, stop } = boot(1);
    const digest = createHash('md5')
      .update(new Uint8Array(MEGABYTES << 20))
      .digest('hex');
    expect(text).toContain('user space: x86_64');
    expect(text).toContain(`${digest}  -`);
    expect(text).not.toMatch(/BUG|WARNING|Oops|unexpected|spurious/);
    expect(stop).toMatchObject({ reason: 'exit', exitCode: 0 });
  });

  // Long: the interpreter alone, and two processors, where asked for.
  it.runIf(process.env.CVM_LINUX_LONG)(
    'retires the same instructions without the compiling tier, and boots two processors',
    { timeout: 1_800_000 },
    () => {
      expect(boot(1, 0).retired).toBe(boot(1).retired);
      const two = boot(2);
      expect(two.text).toContain('Brought up 1 node, 2 CPUs');
      expect(two.stop).toMatchObject({ reason: 'exit', exitCode: 0 });
    },
  );
});
