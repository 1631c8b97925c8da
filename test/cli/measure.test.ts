/** `cvm measure` as a program: loaders, vCPUs, traces; and sev-snp-measure's command line. */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { ovmfImage } from '../measure/ovmf-image.ts';
import { ROOT, SAMPLE, cvm } from './cvm.ts';

const folder = mkdtempSync(join(tmpdir(), 'cvm-measure-'));
afterAll(() => rmSync(folder, { recursive: true }));
const save = (name: string, bytes: Uint8Array | string): string => {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
};
const OVMF = save(
  'OVMF.fd',
  ovmfImage({
    size: 8192,
    fill: (index) => index & 0xff,
    hashTableGpa: 0x80_5c00,
    resetEip: 0x80_b004,
    sections: [
      [0x80_0000, 0x1000, 1],
      [0x80_5000, 0x1000, 0x10],
    ],
  }),
);
const KERNEL = save('vmlinuz', 'kernel');
const SNP = ['--mode', 'snp', '--ovmf', OVMF, '--vcpus', '2', '--vcpu-type', 'EPYC-v4'];
const out = async (...args: string[]): Promise<string> => {
  const { code, stdout, stderr } = await cvm('measure', ...args);
  expect([code, stderr]).toEqual([0, '']);
  return stdout.trim();
};

describe('for OVMF', () => {
  it('prints the digest, in the format asked for', async () => {
    const digest = await out(...SNP);
    expect(digest).toMatch(/^[0-9a-f]{96}$/);
    expect(await out(...SNP, '--output-format', 'base64')).toBe(
      Buffer.from(digest, 'hex').toString('base64'),
    );
    expect(await out(...SNP, '-v')).toBe(`Calculated SEV_SNP guest measurement: ${digest}`);
    expect(await out('--mode=snp', `--ovmf=${OVMF}`, '--vcpus=2', '--vcpu-sig=0x800f12')).toBe(digest);
    const family = ['--vcpu-family', '23', '--vcpu-model', '1', '--vcpu-stepping', '2'];
    expect(await out('--mode', 'snp', '--ovmf', OVMF, '--vcpus', '2', ...family)).toBe(digest);
    const hash = await out('--mode', 'snp:ovmf-hash', '--ovmf', OVMF);
    expect(await out(...SNP, '--snp-ovmf-hash', hash)).toBe(digest);
    expect(await out(...SNP, '--kernel', KERNEL)).not.toBe(digest);
    expect(await out(...SNP, '--guest-features', '0x21')).not.toBe(digest);
    expect(await out('--version')).toMatch(/\d+\.\d+/);
  });

  it('has every option of sev-snp-measure in its help', async () => {
    const { stdout } = await cvm('measure', '--help');
    // `sev-snp-measure --help` of 0.0.13.
    const options =
      '--verbose --mode --vcpus --vcpu-type --vcpu-sig --vcpu-family --vcpu-model --vcpu-stepping --vmm-type ' +
      '--ovmf --kernel --initrd --append --guest-features --output-format --snp-ovmf-hash --dump-vmsa --svsm ' +
      '--vars-size --vars-file';
    for (const option of options.split(' ')) expect(stdout).toContain(option);
  });

  it('shows the pieces and every page', async () => {
    const json = JSON.parse(await out(...SNP, '--json', '--trace')) as {
      digest: string;
      parts: { name: string }[];
      steps: { gpa: string; digest: string; part: number }[];
    };
    expect(json.parts.map(({ name }) => name)).toEqual([
      'OVMF image',
      'SEC_MEM',
      'kernel hashes (none)',
      'VMSA of vCPU 0',
      'VMSA of vCPU 1',
    ]);
    expect(json.steps.length).toBe(6);
    expect(json.steps.at(-1)!.digest).toBe(json.digest);
    const lines = (await out(...SNP, '--trace')).split('\n');
    expect(lines.length).toBe(8);
    expect(lines[1]).toMatch(/^0xffffe000 {2}normal {2}OVMF image {2}[0-9a-f]{96} {2}[0-9a-f]{96}$/);
  });

  it('measures for TDX', async () => {
    const tdvf = save(
      'tdvf.fd',
      ovmfImage({ size: 8192, fill: () => 7, tdxSections: [[0, 8192, 0xffff_e000n, 0x2000n, 0, 1]] }),
    );
    const tdx = ['--mode', 'tdx', '--ovmf', tdvf];
    const digest = await out(...tdx);
    expect(digest).toMatch(/^[0-9a-f]{96}$/);
    expect(await out(...tdx, '--tdx-order', 'two-pass')).not.toBe(digest);
    const json = JSON.parse(await out(...tdx, '--json')) as object;
    expect(json).toMatchObject({ digest, parts: [{ name: 'BFV', gpa: '0xffffe000', size: 8192 }] });
    expect((await cvm('measure', '--mode', 'tdx', '--ovmf', OVMF)).code).toBe(3);
  });

  it('writes VMSAs into the current folder', () => {
    const bundle = join(ROOT, 'dist/cvm.cjs');
    execFileSync(process.execPath, [bundle, 'measure', ...SNP, '--dump-vmsa'], { cwd: folder });
    expect(readdirSync(folder).filter((name) => name.startsWith('vmsa'))).toEqual(['vmsa0.bin', 'vmsa1.bin']);
    expect(readFileSync(join(folder, 'vmsa1.bin')).length).toBe(4096);
  });

  it.runIf(existsSync('/dev/stdin'))('reads files from pipes', async () => {
    const bundle = join(ROOT, 'dist/cvm.cjs');
    const script = 'cat "$1" | "$2" "$3" measure "${@:4}" --kernel /dev/stdin';
    const { stdout } = spawnSync('bash', ['-c', script, '-', KERNEL, process.execPath, bundle, ...SNP]);
    expect(stdout.toString().trim()).toBe(await out(...SNP, '--kernel', KERNEL));
  });

  it.each([
    [['--mode', 'snp']],
    [['--ovmf', OVMF]],
    [['--mode', 'cca', '--ovmf', OVMF]],
    [['--mode', 'tdx']],
    [['--mode', 'tdx', '--ovmf', OVMF, '--vcpus', '1']],
    [['--mode', 'snp', '--ovmf', OVMF, '--vcpu-type', 'EPYC']],
    [['--mode', 'snp', '--ovmf', OVMF, '--vcpus', '1']],
    [['--mode', 'snp', '--ovmf', OVMF, '--vcpus', '1', '--vcpu-type', '486']],
    [['--mode', 'snp', '--ovmf', OVMF, '--vcpus', '1', '--vcpu-sig', 'x']],
    [[...SNP, '--append', 'quiet']],
    [[...SNP, '--initrd', KERNEL]],
    [[...SNP, '--vmm-type', 'xen']],
    [[...SNP, '--output-format', 'octal']],
    [[...SNP, '--snp-ovmf-hash', '00']],
    [[...SNP, '--loader', 'qemu-kvm']],
    [[...SNP, '--vmsa-field', 'rdx']],
    [[...SNP, '--vmsa-field', 'cpl=0x100']],
    [[...SNP, 'file']],
    [['--mode', 'sev', '--ovmf', OVMF, '--dump-vmsa']],
    [['--mode', 'snp:svsm', '--ovmf', OVMF, '--vcpus', '1', '--vcpu-type', 'EPYC']],
    [[SAMPLE, '--kernel', KERNEL]],
    [[SAMPLE, '--loader', 'grub']],
    [[SAMPLE, '--vcpus', '2', '--loader', 'hyper-v']],
    [[SAMPLE, '--vcpus', '2']],
    [[SAMPLE, '--tdx-order', 'three-pass']],
  ])('%j is a usage error', async (args) => {
    const { code, stdout, stderr } = await cvm('measure', ...args);
    expect([code, stdout]).toEqual([2, '']);
    expect(stderr).toMatch(/cvm: .{15}/);
  });

  it('tells a file it cannot use from a wrong command line', async () => {
    expect((await cvm('measure', '--mode', 'sev', '--ovmf', join(folder, 'none'))).code).toBe(3);
    expect((await cvm('measure', '--mode', 'sev', '--ovmf', folder)).code).toBe(3);
    const plain = save('plain.fd', new Uint8Array(4096));
    const { code, stderr } = await cvm('measure', '--mode', 'sev', '--ovmf', plain, '--kernel', KERNEL);
    expect(code).toBe(3);
    expect(stderr).toMatch(/kernel hashes/);
  });
});

describe('for an IGVM file', () => {
  it('takes a loader and vCPUs', async () => {
    const plain = await out(SAMPLE);
    expect(await out(SAMPLE, '--loader', 'qemu-kvm')).toMatch(/^[0-9a-f]{96}$/);
    const four = await out(SAMPLE, '--vcpus', '4', '--vcpu-type', 'EPYC-Milan');
    expect(four).not.toBe(plain);
    expect(await out(SAMPLE, '--vcpus', '4', '--vcpu-sig', '0xa00f11')).toBe(four);
    const json = JSON.parse(
      await out(SAMPLE, '--vcpus', '4', '--vcpu-type', 'EPYC-Milan', '--json', '--trace'),
    ) as {
      profile: string;
      digest: string;
      steps: { digest: string; kind: string }[];
    };
    expect([json.profile, json.digest]).toEqual(['qemu-kvm', four]);
    expect(json.steps.at(-1)).toMatchObject({ digest: four, kind: 'VP_CONTEXT vcpu 3 (reset state)' });
    expect(json.steps.filter(({ kind }) => kind.startsWith('VP_CONTEXT')).length).toBe(4);
  });

  it('traces as text, the digest last', async () => {
    const lines = (await out(SAMPLE, '--trace')).split('\n');
    expect(lines.at(-1)).toBe(await out(SAMPLE));
    expect(lines.at(-2)!.endsWith(lines.at(-1)!)).toBe(true);
  });
});
