/** What `checkImage` finds beyond the rules of the format, and firmware descriptors. */
import { describe, expect, it } from 'vitest';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import {
  checkFirmwareDescriptor,
  checkImage,
  firmwareDescriptor,
  readFirmwareDescriptor,
} from '../../src/measure/index.ts';
import { writeVmsa } from '../../src/snp/index.ts';

const GPA = 0xffff_ffff_f000n;
function vmsa(fields: Record<string, bigint> = {}): Uint8Array {
  const bytes = new Uint8Array(4096);
  const sound = { efer: 0x1000n, cr0: 0x31n, rflags: 2n, sev_features: 1n, rip: 0x1000n };
  for (const [name, value] of Object.entries({ ...sound, ...fields })) writeVmsa(bytes, name, value);
  return bytes;
}
const image = (policy: bigint | undefined, context = vmsa(), more?: (builder: IgvmBuilder) => void) => {
  const builder = new IgvmBuilder({ version: 2 }).platform('SEV_SNP', 1);
  if (policy !== undefined) builder.guestPolicy(policy, 1);
  builder.page(0x1000n, 1, new Uint8Array(4096).fill(1));
  more?.(builder);
  return parseIgvm(builder.vpContext(GPA, 1, context).build());
};
const codes = (...args: Parameters<typeof checkImage>): string[] =>
  checkImage(...args).map(({ severity, code }) => `${severity} ${code}`);

describe('checkImage', () => {
  it('finds nothing in a sound image', () => expect(codes(image(0x30000n))).toEqual([]));

  it('policy: bit 17, debugging, reserved bits, none (Firmware ABI, Guest Policy)', () => {
    expect(codes(image(0x10000n))).toEqual(['error snp-policy-bit17']);
    expect(codes(image(0xb0000n))).toEqual(['warning snp-policy-debug']);
    expect(codes(image(0xb0000n), { release: true })).toEqual(['error snp-policy-debug']);
    expect(codes(image(0x4000_0003_0000n))).toEqual(['warning snp-policy-reserved']);
    expect(codes(image(undefined))).toEqual(['warning snp-no-policy']);
    const [finding] = checkImage(image(0xb0000n));
    expect(finding!.length).toBe(8);
  });

  it("QEMU's VMSA fields (docs/system/igvm.rst)", () => {
    expect(codes(image(0x30000n, vmsa({ star: 1n, virtual_tom: 1n })))).toEqual(['error qemu-vmsa-field']);
    expect(checkImage(image(0x30000n, vmsa({ star: 1n })))[0]!.message).toContain('star');
    expect(codes(image(0x30000n, vmsa({ star: 1n })), { profile: 'file-order' })).toEqual([]);
    const all = 'rax rcx rdx rbx rbp rsi rdi r8 r15 rsp cr3 g_pat x87_fcw mxcsr cs.base gdtr.limit';
    const allowed = Object.fromEntries(all.split(' ').map((name) => [name, 0x10n]));
    expect(codes(image(0x30000n, vmsa(allowed)))).toEqual([]);
  });

  it('a platform nobody knows', () => {
    const unknown = parseIgvm(
      new IgvmBuilder()
        .add('SUPPORTED_PLATFORM', { compatibilityMask: 1, platformType: 200, platformVersion: 1 })
        .page(0n, 1, new Uint8Array(4096))
        .build(),
    );
    expect(codes(unknown, { profile: 'file-order' })).toEqual(['error igvm-platform-type']);
    expect(codes(unknown)).toContain('error loader-platform');
  });

  it('a VMSA the processor will not enter, DebugSwap, the base of TR', () => {
    expect(codes(image(0x30000n, vmsa({ efer: 0n })))).toEqual(['warning vmsa-invalid']);
    expect(codes(image(0x30000n, vmsa({ sev_features: 0x21n })))).toEqual(['hint vmsa-debug-swap']);
    expect(codes(image(0x30000n, vmsa({ 'tr.base': 0x10n })))).toEqual(['hint qemu-tr-base']);
  });

  it('parameters where QEMU puts them elsewhere; a platform it does not load; pages given twice', () => {
    const parameters = image(0x30000n, vmsa(), (builder) =>
      builder.parameterArea(0, 4096n, new Uint8Array(4096)).parameter('MEMORY_MAP', 0, 8),
    );
    expect(codes(parameters)).toEqual(['hint qemu-initial-data', 'warning qemu-byte-offset']);
    const tdx = parseIgvm(new IgvmBuilder().platform('TDX', 1).page(0n, 1, new Uint8Array(4096)).build());
    expect(codes(tdx)).toEqual(['error loader-platform']);
    const twice = image(0x30000n, vmsa(), (builder) => builder.page(0x1000n, 1, new Uint8Array(4096)));
    expect(codes(twice)).toEqual(['warning igvm-page-overlap']);
  });
});

describe('firmware descriptors', () => {
  const file = image(0x30000n);
  const text = (change: object): string =>
    JSON.stringify({ ...firmwareDescriptor(file, '/usr/share/svsm.igvm'), ...change });

  it('what is written fits, and reads back', () => {
    const written = firmwareDescriptor(file, '/usr/share/svsm.igvm');
    expect(written).toMatchObject({
      mapping: { device: 'igvm', filename: '/usr/share/svsm.igvm' },
      features: ['amd-sev-snp'],
      targets: [{ architecture: 'x86_64', machines: ['pc-q35-*'] }],
    });
    expect(readFirmwareDescriptor(JSON.stringify(written))).toEqual(written);
    expect(checkFirmwareDescriptor(written, file)).toEqual([]);
  });

  it('what does not fit is found', () => {
    const found = (change: object): string[] =>
      checkFirmwareDescriptor(readFirmwareDescriptor(text(change)), file).map(({ code }) => code);
    expect(found({ features: ['amd-sev-snp', 'intel-tdx'] })).toEqual(['firmware-feature']);
    expect(found({ features: [] })).toEqual(['firmware-feature']);
    expect(found({ targets: [{ architecture: 'aarch64', machines: ['virt-*'] }] })).toEqual([
      'firmware-target',
    ]);
    expect(found({ 'interface-types': ['efi'] })).toEqual(['firmware-interface']);
    expect(found({ mapping: { device: 'igvm', filename: 'a.igvm' } })).toEqual(['firmware-filename']);
  });

  it('what is none is refused', () => {
    for (const bad of [
      '',
      '[]',
      'null',
      text({ mapping: { device: 'memory', filename: '/x' } }),
      text({ features: 1 }),
    ])
      expect(() => readFirmwareDescriptor(bad)).toThrow(/no firmware descriptor/);
  });
});
