/** `cvm run` as a program: console, reason, count, exit code. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { RUNTIME, bytesOf, testGuest } from '../debugger/guest.ts';
import { SAMPLE, SAMPLE_ELF, broken, cvm } from './cvm.ts';

const folder = mkdtempSync(join(tmpdir(), 'cvm-run-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** Writes a guest and its symbols; returns the image's path. */
function guest(name: string, text: string): string {
  const { igvm, elf } = testGuest(`${text}\n${RUNTIME}`);
  writeFileSync(join(folder, `${name}.igvm`), igvm);
  writeFileSync(join(folder, `${name}.elf`), elf);
  return join(folder, `${name}.igvm`);
}

describe('run', () => {
  it('streams the sample to its success', async () => {
    const { code, stdout, stderr } = await cvm('run', SAMPLE, '--symbols', SAMPLE_ELF);
    expect(stderr).toMatch(/isa-debug-exit.*after \d+ instructions/);
    expect(stdout).toMatch(/^mini-svsm: /);
    expect(stdout).toMatch(/\[9\] success\n$/);
    expect(code).toBe(0);
  });

  it('is the same run every time', async () => {
    const [first, second] = await Promise.all([cvm('run', SAMPLE), cvm('run', SAMPLE)]);
    expect(second).toEqual(first);
  });

  it('stops at a text, whatever writes it was made of, and shows nothing behind it', async () => {
    const { code, stdout, stderr } = await cvm('run', SAMPLE, '--stop-at', 'a small SV');
    expect(code).toBe(0);
    expect(stdout).toBe('mini-svsm: a small SV');
    expect(stderr).toMatch(/stopped at 'a small SV' after \d+ instructions/);
  });

  it('stops after exactly as many instructions as allowed', async () => {
    const { code, stderr } = await cvm('run', SAMPLE, '--max-instructions', '12_345');
    expect(code).toBe(6);
    expect(stderr).toMatch(/--max-instructions, after 12345 instructions/);
  });

  it.each(['no-pvalidate', 'wrong-page-size', 'unregistered-ghcb', 'no-rmpadjust'])(
    'ends the broken sample %s with a reason and a call stack',
    async (name) => {
      const { code, stdout, stderr } = await cvm('run', broken(name), '--symbols', SAMPLE_ELF);
      expect([1, 4, 8]).toContain(code);
      expect(stdout).not.toContain('success');
      expect(stderr).toMatch(/^ {2}#0 0x[0-9a-f]+ \S+/m);
    },
  );

  it('gives each end its own code', async () => {
    const exit = guest('exit', 'start:\n call ghcb_setup\n mov edi, 0x11\n call debug_exit');
    const terminate = guest('terminate', 'start:\n mov edi, 7\n call request_termination');
    const shutdown = guest('shutdown', 'start:\n ud2');
    const idle = guest('idle', 'start:\n cli\n hlt');
    const codes = [];
    for (const path of [exit, terminate, shutdown, idle]) codes.push((await cvm('run', path)).code);
    expect(codes).toEqual([1, 1, 4, 7]);
  });

  it('says where a failure was, with the symbols beside the image', async () => {
    const path = guest('where', 'start:\n call work\nwork:\n push rbp\n mov rbp, rsp\n ud2');
    const { stderr } = await cvm('run', path);
    expect(stderr).toMatch(/triple fault/);
    expect(stderr).toMatch(/#0 0x[0-9a-f]+ work\+0x4 at \/guest\/guest\.asm:6\n {2}#1 0x[0-9a-f]+ work/);
  });

  it('prints what a guest prints, beyond ASCII too', async () => {
    const path = guest(
      'text',
      `start:\n call ghcb_setup\n lea rsi, [rip+hello]\n call print_text\n mov edi, 0x10\n call debug_exit\nhello:\n ${bytesOf('größer\n')}`,
    );
    expect(await cvm('run', path, '--memory', '64M')).toMatchObject({ code: 0, stdout: 'größer\n' });
  });

  it('refuses symbols that are none', async () => {
    const { code, stderr } = await cvm('run', SAMPLE, '--symbols', SAMPLE);
    expect(code).toBe(3);
    expect(stderr).toMatch(/cannot use the symbols/);
  });
});
