/** `cvm run --kernel`: console, command line, exit codes, usage. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { POWER_OFF, kernel } from '../vmm/plain/guest.ts';
import { cvm } from './cvm.ts';

const folder = mkdtempSync(join(tmpdir(), 'cvm-kernel-'));
afterAll(() => rmSync(folder, { recursive: true }));
const file = join(folder, 'kernel');
/** Prints its command line. */
writeFileSync(
  file,
  kernel(`
    mov esi, [ebx + 16]
    mov dx, 0x3f8
next:
    lodsb
    test al, al
    jz done
    out dx, al
    jmp next
done:
    ${POWER_OFF}
  `),
);

describe('run --kernel', () => {
  it('gives the command line to the kernel, and success when it powers off', async () => {
    const { code, stdout, stderr } = await cvm(
      'run',
      '--platform',
      'plain',
      '--kernel',
      file,
      '--append',
      'a b=c',
    );
    expect(stdout).toBe('kernel a b=c');
    expect(stderr).toMatch(/powered off, at rip 0x[0-9a-f]+, after \d+ instructions/);
    expect(code).toBe(0);
  });

  it('says what it cannot start, and what it cannot combine', async () => {
    const text = join(folder, 'text');
    writeFileSync(text, 'no kernel');
    const wrong = await cvm('run', '--platform', 'plain', '--kernel', text);
    expect(wrong.code).toBe(3);
    expect(wrong.stderr).toMatch(/no kernel that can be started/);
    expect((await cvm('run', '--kernel', file)).code).toBe(2);
    expect((await cvm('run', '--append', 'x', 'a.igvm')).code).toBe(2);
    expect((await cvm('run', '--platform', 'plain', '--kernel', file, 'a.igvm')).code).toBe(2);
  });
});
