/** `cvm build`: the file a description asks for, against the builder; mistakes with their place. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { IgvmBuilder, buildFromSpec, parseIgvm } from '../../src/igvm/index.ts';
import { cvm } from './cvm.ts';

const folder = mkdtempSync(join(tmpdir(), 'cvm-build-'));
afterAll(() => rmSync(folder, { recursive: true }));
const kernel = Uint8Array.from({ length: 5000 }, (_, i) => (i * 31) & 0xff);
const vmsa = new Uint8Array(4096).fill(1, 0x3b0, 0x3b1);

const SPEC = {
  platforms: [{ type: 'SEV_SNP' }, { type: 'NATIVE' }],
  initialization: [{ type: 'GUEST_POLICY', platforms: ['SEV_SNP'], policy: '0x3_0000' }],
  directives: [
    { type: 'REQUIRED_MEMORY', gpa: '0x800000', size: '0x10000', comment: 'all of it' },
    { type: 'PARAMETER_AREA', area: 0 },
    { type: 'VP_COUNT', area: 0 },
    { type: 'PAGES', gpa: '0x800000', file: 'kernel.bin' },
    { type: 'PAGES', gpa: '0x900000', count: 2 },
    { type: 'PAGES', gpa: '0xa00000', platforms: ['SEV_SNP'], dataType: 'SECRETS' },
    { type: 'PARAMETER_INSERT', gpa: '0xa01000', area: 0 },
    { type: 'ERROR_RANGE', gpa: '0xb00000', sizeBytes: 4096, platforms: ['SEV_SNP'] },
    { type: 'VP_CONTEXT', gpa: '0xfffffffff000', platforms: ['SEV_SNP'], file: 'vmsa.bin' },
  ],
};
const files = (name: string): Uint8Array => (name === 'kernel.bin' ? kernel : vmsa);

it('is what the builder makes of the same', () => {
  const expected = new IgvmBuilder({ version: 2 })
    .platform('SEV_SNP', 1)
    .platform('NATIVE', 2)
    .guestPolicy(0x30000n, 1)
    .requiredMemory(0x80_0000n, 3, 0x10000)
    .parameterArea(0, 0x1000n)
    .parameter('VP_COUNT', 0)
    .pages(0x80_0000n, 3, kernel)
    .page(0x90_0000n, 3)
    .page(0x90_1000n, 3)
    .page(0xa0_0000n, 1, undefined, { dataType: 'SECRETS' })
    .parameterInsert(0xa0_1000n, 3, 0)
    .add('ERROR_RANGE', { gpa: 0xb0_0000n, sizeBytes: 4096, compatibilityMask: 1 })
    .vpContext(0xffff_ffff_f000n, 1, vmsa)
    .build();
  expect(buildFromSpec(SPEC, files)).toEqual(expected);
});

it('says where a description is wrong', () => {
  const wrong = (directive: object, message: string): void =>
    expect(() => buildFromSpec({ ...SPEC, directives: [directive] }, files)).toThrow(message);
  wrong({ type: 'PAGES' }, 'directives[0].gpa must be a number');
  wrong({ type: 'PAGES', gpa: 0, contents: 'x' }, 'directives[0].contents is not known');
  wrong({ type: 'PAGE', gpa: 0 }, 'directives[0].type must be one of');
  wrong({ type: 'PAGES', gpa: 0, platforms: ['TDX'] }, 'names TDX, which is not declared');
  wrong({ type: 'PAGES', gpa: 0, hex: 'abc' }, 'directives[0].hex must be hexadecimal bytes');
  wrong({ type: 'PAGES', gpa: 0, file: 'kernel.bin', offset: 4999, length: 2 }, 'leaves the file');
  wrong({ type: 'PAGES', gpa: 0, count: 1e9 }, 'is more than');
  expect(() => buildFromSpec({}, files)).toThrow('at least one platform');
  expect(() => buildFromSpec([], files)).toThrow('spec must be an object');
});

it('as a program: writes, reads files beside the description, refuses what a loader would', async () => {
  writeFileSync(join(folder, 'kernel.bin'), kernel);
  writeFileSync(join(folder, 'vmsa.bin'), vmsa);
  writeFileSync(join(folder, 'spec.json'), JSON.stringify(SPEC));
  const out = join(folder, 'out.igvm');
  const { code, stdout } = await cvm('build', join(folder, 'spec.json'), '-o', out, '--json');
  expect(code).toBe(0);
  const file = parseIgvm(readFileSync(out));
  expect(file.diagnostics.filter(({ severity }) => severity === 'error')).toEqual([]);
  expect(JSON.parse(stdout).digest).toBe((await cvm('measure', out)).stdout.trim());
  const twice = { ...SPEC, directives: [...SPEC.directives, { type: 'PARAMETER_INSERT', gpa: 0, area: 7 }] };
  writeFileSync(join(folder, 'bad.json'), JSON.stringify(twice));
  const bad = await cvm('build', join(folder, 'bad.json'), '-o', join(folder, 'bad.igvm'));
  expect([bad.code, bad.stderr]).toEqual([3, expect.stringContaining('is not written')]);
  expect((await cvm('build', join(folder, 'spec.json'))).code).toBe(2);
});
