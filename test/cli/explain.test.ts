/** `cvm explain`, `diff` and `check` as programs: output, JSON, exit codes, pipelines. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { SAMPLE, cvm } from './cvm.ts';

const folder = mkdtempSync(join(tmpdir(), 'cvm-explain-'));
afterAll(() => rmSync(folder, { recursive: true }));
const save = (name: string, bytes: Uint8Array | string): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
const bytes = readFileSync(SAMPLE);
/** The first page of the sample with data, one bit of it changed. */
const changed = Buffer.from(bytes);
changed[changed.readUInt32LE(8) + changed.readUInt32LE(12) + 5]! ^= 0x10;
const CHANGED = save('changed.igvm', changed);
const digest = async (...args: string[]): Promise<string> => (await cvm('measure', ...args)).stdout.trim();

describe('cvm explain', () => {
  it('0: the digests match; the expected one in a file', async () => {
    const expected = save('digest.txt', `${await digest(SAMPLE)}\n`);
    const { code, stdout } = await cvm('explain', SAMPLE, '--expected', expected);
    expect([code, stdout]).toEqual([0, `The image gives the expected digest (${expected}).\n`]);
  });

  it('1: they differ, and why, from a report', async () => {
    const report = Buffer.alloc(0x4a0);
    report.writeUInt32LE(3, 0);
    report.writeUInt32LE(1, 0x34);
    report.writeBigUInt64LE(0x30000n, 8);
    report.write(await digest(SAMPLE, '--vcpus', '4', '--vcpu-type', 'EPYC-Milan'), 0x90, 'hex');
    const path = save('report.bin', report);
    const args = ['explain', SAMPLE, '--loader', 'qemu-kvm', '--expected', path];
    const { code, stdout } = await cvm(...args);
    expect(stdout).toMatch(
      /^The expected digest is that of the image with 4 vCPUs instead of 1, .*signature 0xa00f11\./,
    );
    expect(code).toBe(1);
    const json = JSON.parse((await cvm(...args, '--json')).stdout);
    expect(json).toMatchObject({ matches: false, causes: [{ categories: ['vcpu-count'] }] });
  });

  it('a reference names the page: the image, or its trace', async () => {
    const expected = await digest(SAMPLE);
    const trace = save('trace.json', (await cvm('measure', SAMPLE, '--trace', '--json')).stdout);
    for (const reference of [SAMPLE, trace]) {
      const { code, stdout } = await cvm(
        'explain',
        CHANGED,
        '--expected',
        expected,
        '--reference',
        reference,
      );
      expect(stdout).toMatch(/the reference's contents of the page at 0x[0-9a-f]+ \(#\d+ PAGE_DATA\)/);
      expect(code).toBe(1);
    }
  });

  it('9: nothing explains it; 2: usage; 3: files', async () => {
    const lost = await cvm('explain', SAMPLE, '--expected', 'ab'.repeat(48), '--effort', '5000');
    expect(lost.code).toBe(9);
    expect(lost.stdout).toContain('Nothing that was tried');
    expect((await cvm('explain', SAMPLE, '--expected', 'nonsense')).code).toBe(2);
    expect((await cvm('explain', SAMPLE)).code).toBe(2);
    expect((await cvm('explain', SAMPLE, '--expected', save('noise', 'noise'))).code).toBe(3);
  });
});

describe('cvm diff', () => {
  it('0 for the same guest, 1 with what differs', async () => {
    const same = await cvm('diff', SAMPLE, SAMPLE);
    expect([same.code, same.stdout.split('\n').every((line) => /^(= |$)/.test(line))]).toEqual([0, true]);
    const { code, stdout } = await cvm('diff', SAMPLE, CHANGED);
    expect(code).toBe(1);
    expect(stdout).toMatch(/^~ #\d+ -> #\d+ PAGE_DATA .*\n {4}contents: 1 byte differs, the first at 0x5:/);
    expect(stdout).toContain('they part at measured page');
    const json = JSON.parse((await cvm('diff', SAMPLE, CHANGED, '--json')).stdout);
    expect(json).toMatchObject({ equal: false, directives: [{ kind: 'changed', contents: { bytes: 1 } }] });
    expect((await cvm('diff', SAMPLE)).code).toBe(2);
  });
});

describe('cvm check', () => {
  it('a finding a line, exit code by severity', async () => {
    expect(await cvm('check', SAMPLE)).toMatchObject({ code: 0, stderr: '' });
    const truncated = save('truncated.igvm', bytes.subarray(0, bytes.length - 100));
    const { code, stdout } = await cvm('check', truncated);
    expect(code).toBe(1);
    for (const line of stdout.trim().split('\n'))
      expect(line).toMatch(
        /^.*:\d+: (error|warning|info|hint): .* \[[a-z0-9-]+\] \(file offset 0x[0-9a-f]+\)$/,
      );
    const json = JSON.parse((await cvm('check', truncated, '--json')).stdout);
    expect(json.diagnostics[0]).toMatchObject({ severity: 'error' });
  });

  it('firmware descriptors, written and checked', async () => {
    const written = await cvm('check', SAMPLE, '--write-firmware-descriptor');
    const path = save('60-sample.json', written.stdout);
    expect((await cvm('check', SAMPLE, '--firmware-descriptor', path)).code).toBe(0);
    const wrong = save('wrong.json', written.stdout.replace('amd-sev-snp', 'intel-tdx'));
    const { code, stdout } = await cvm('check', SAMPLE, '--firmware-descriptor', wrong);
    expect([code, stdout]).toEqual([1, expect.stringContaining('[firmware-feature]')]);
  });
});
