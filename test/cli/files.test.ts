/** The commands that look at files, as programs. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { SAMPLE, cvm, finish, start } from './cvm.ts';

const folder = mkdtempSync(join(tmpdir(), 'cvm-cli-'));
afterAll(() => rmSync(folder, { recursive: true }));

describe('usage', () => {
  it('is told on request, for every command', async () => {
    const help = await cvm('--help');
    expect(help.code).toBe(0);
    expect(help.stdout).toContain('Usage: cvm COMMAND');
    for (const command of ['list', 'measure', 'run', 'dap', 'lsp']) {
      const { code, stdout } = await cvm(command, '--help');
      expect([command, code]).toEqual([command, 0]);
      expect(stdout).toContain(`Usage: cvm ${command}`);
    }
  });

  it.each([
    [[]],
    [['frobnicate']],
    [['run']],
    [['run', 'a', 'b']],
    [['run', 'a', '--vcpus', '0']],
    [['run', 'a', '--vcpus', 'two']],
    [['run', 'a', '--memory', 'big']],
    [['run', 'a', '--stop-at', '']],
    [['run', 'a', '--max-instructions', '0']],
    [['run', 'a', '--frobnicate']],
    [['measure', 'a', '--platform', 'z80']],
    [['dap', 'file']],
  ])('%j exits with 2 and says why', async (args) => {
    const { code, stdout, stderr } = await cvm(...args);
    expect(code).toBe(2);
    expect(stdout).toBe('');
    expect(stderr.length).toBeGreaterThan(10);
  });
});

describe('files', () => {
  it('lists every directive', async () => {
    const { code, stdout, stderr } = await cvm('list', SAMPLE);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toContain('SUPPORTED_PLATFORM');
    expect(stdout.match(/^PAGE_DATA/gm)!.length).toBeGreaterThan(5);
  });

  it('measures, as text and as JSON', async () => {
    const plain = await cvm('measure', SAMPLE);
    expect(plain.code).toBe(0);
    expect(plain.stdout).toMatch(/^[0-9a-f]{96}\n$/);
    const json = await cvm('measure', SAMPLE, '--platform', 'snp', '--json');
    expect(JSON.parse(json.stdout)).toMatchObject({
      platform: 'SEV_SNP',
      algorithm: 'SHA-384',
      digest: plain.stdout.trim(),
    });
  });

  it('refuses to measure for a platform the file does not declare', async () => {
    const { code, stderr } = await cvm('measure', SAMPLE, '--platform', 'tdx');
    expect(code).toBe(3);
    expect(stderr).toMatch(/platform/);
  });

  it.each(['list', 'measure', 'run'])('%s says what is wrong with a file', async (command) => {
    const missing = await cvm(command, '/nowhere/guest.igvm');
    expect([missing.code, missing.stdout]).toEqual([3, '']);
    expect(missing.stderr).toMatch(/cannot open \/nowhere\/guest\.igvm/);
    const damaged = join(folder, `${command}.igvm`);
    const bytes = readFileSync(SAMPLE).subarray(0, 3000);
    writeFileSync(damaged, bytes);
    const result = await cvm(command, damaged);
    expect(result.code).toBe(3);
    expect(result.stderr).toMatch(/cvm: .{10}/);
    expect((await cvm(command, folder)).code).toBe(3);
  });

  it('ends quietly when nobody reads on', async () => {
    const child = start('list', SAMPLE);
    child.stdout.destroy();
    const { code, stderr } = await finish(child);
    expect([0, 141]).toContain(code);
    expect(stderr).toBe('');
  });
});
