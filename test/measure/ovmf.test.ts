import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { CvmError, bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { CPU_MODELS, cpuSignature, measureOvmf, signatureOfType } from '../../src/measure/index.ts';
import type { OvmfLaunch } from '../../src/measure/index.ts';
import { Random } from '../igvm/random.ts';
import { fixture, haveFixtures } from './fixtures.ts';
import { ovmfImage } from './ovmf-image.ts';
import { TYPE, sha256, sha384, slowLaunchDigest } from './slow.ts';
import type { SlowPage } from './slow.ts';

const digest = (launch: OvmfLaunch): string => bytesToHex(measureOvmf(launch, nodeCrypto).digest);
const EMPTY = new Uint8Array();
const HASH =
  '086e2e9149ebf45abdc3445fba5b2da8270bdbb04094d7a2c37faaa4b24af3aa16aff8c374c2a55c467a50da6d466b74';

/** Options of a row beside the AmdSev image, EPYC-v4 and one vCPU; `kernel`: an empty one and initrd. */
interface Row {
  readonly mode?: OvmfLaunch['mode'];
  readonly vcpus?: number;
  readonly vmm?: OvmfLaunch['vmmType'];
  readonly features?: bigint;
  /** Command line; `null`: no kernel at all. */
  readonly append: string | null;
  readonly initrd?: boolean;
  readonly x64?: boolean;
  readonly hash?: boolean;
}
const KERNEL = 'console=ttyS0 loglevel=7';

/** sev-snp-measure 0.0.13, `tests/test_guest.py`, by the names of its tests. */
const KNOWN: readonly (readonly [name: string, row: Row, digest: string])[] = [
  [
    'snp_ovmf_hash_gen_default',
    { features: 0x21n, append: '', hash: true },
    '329c8ce0972ae52343b64d34a434a86f245dfd74f5ed7aae15d22efc78fb9683632b9b50e4e1d7fa41179ef98a7ef198',
  ],
  [
    'snp_ovmf_hash_gen_feature_snp_only',
    { append: '', hash: true },
    'ddc5224521617a536ee7ce9dd6224d1b58a8d4fda1c741f3ac99fc4bfa04ba6e9fc98646d4a07a9079397fa3852819b5',
  ],
  [
    'snp_ovmf_hash_full_default',
    { features: 0x21n, append: KERNEL, hash: true },
    '803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977',
  ],
  [
    'snp_ovmf_hash_full_feature_snp_only',
    { append: KERNEL, hash: true },
    '6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa',
  ],
  [
    'snp_ec2_default',
    { features: 0x21n, append: '', vmm: 'ec2' },
    '0ce9ccc06bab55eebe8abc234f3df6514883977a68a591b71052498ab52b2f1aa415db338033946ef93aa8278c0d67fb',
  ],
  [
    'snp_ec2_feature_snp_only',
    { append: '', vmm: 'ec2' },
    '0883bd0eeb716e65b7b977a321c278d1e51b33b5c655fab985443bbcc65c086b9c15e8a0bd8811050dec7e24964e5056',
  ],
  [
    'snp_gce_default',
    { append: '', vmm: 'gce' },
    '5da7106cf14cf46b1725ebab123eb9e53bd46a1e9f400cd0c08e7827b04b688ea8b4e403c8404efed4397ea5d5d0722e',
  ],
  [
    'snp_gce_with_multiple_vcpus_default',
    { append: '', vmm: 'gce', vcpus: 4 },
    '5c5debf100fc339f90276e761ee1f1658d08922c3b20e2a2e6c7a6c3370b2452a15a00eae11886a93d6fd1e7ab81e29d',
  ],
  [
    'snp_default',
    { features: 0x21n, append: KERNEL },
    '803f691094946e42068aaa3a8f9e26a5c89f36f7b73ecfb28c653360fe4b3aba7e534442e7e1e17895dfe778d0228977',
  ],
  [
    'snp_guest_feature_snp_only',
    { append: KERNEL },
    '6d287813eb5222d770f75005c664e34c204f385ce832cc2ce7d0d6f354454362f390ef83a92046c042e706363b4b08fa',
  ],
  [
    'snp_without_kernel_default',
    { features: 0x21n, append: null },
    'e1e1ca029dd7973ab9513295be68198472dcd4fc834bd9af9b63f6e8a1674dbf281a9278a4a2ebe0eed9f22adbcd0e2b',
  ],
  [
    'snp_without_kernel_feature_snp_only',
    { append: null },
    '19358ba9a7615534a9a1e2f0dfc29384dcd4dcb7062ff9c6013b26869a5fc6ecabe033c48dd6f6db5d6d76e7c5df632d',
  ],
  [
    'snp_with_multiple_vcpus_default',
    { features: 0x21n, append: '', vcpus: 4 },
    '4953b1fb416fa874980e8442b3706d345926d5f38879134e00813c5d7abcbe78eafe7b422907be0b4698e2414a631942',
  ],
  [
    'snp_with_multiple_vcpus_feature_snp_only',
    { append: '', vcpus: 4 },
    '5061fffb019493a903613d56d54b94912a1a2f9e4502385f5c194616753720a92441310ba6c4933de877c36e23046ad5',
  ],
  [
    'snp_with_ovmfx64_without_default',
    { features: 0x21n, append: null, x64: true },
    '28797ae0afaba4005a81e629acebfb59e6687949d6be44007cd5506823b0dd66f146aaae26ff291eed7b493d8a64c385',
  ],
  [
    'snp_with_ovmfx64_without_kernel_feature_snp_only',
    { append: null, x64: true },
    'da0296de8193586a5512078dcd719eccecbd87e2b825ad4148c44f665dc87df21e5b49e21523a9ad993afdb6a30b4005',
  ],
  [
    'seves',
    { mode: 'seves', append: '' },
    '13810ae661ea11e2bb205621f582fee268f0367c8f97bc297b7fadef3e12002c',
  ],
  [
    'seves_with_multiple_vcpus',
    { mode: 'seves', features: 0x21n, append: '', vcpus: 4 },
    '0dccbcaba8e90b261bd0d2e1863a2f9da714768b7b2a19363cd6ae35aa90de91',
  ],
  [
    'sev',
    { mode: 'sev', features: 0x21n, append: KERNEL },
    '82a3ee5d537c3620628270c292ae30cb40c3c878666a7890ee7ef2a08fb535ff',
  ],
  [
    'sev_with_kernel_without_initrd_and_append',
    { mode: 'sev', append: '', initrd: false },
    '77f613d7bbcdf12a73782ea9e88b0172aeda50d1a54201cb903594ff52846898',
  ],
  [
    'sev_with_ovmfx64_without_kernel',
    { mode: 'sev', append: null, x64: true },
    'b4c021e085fb83ceffe6571a3d357b4a98773c83c474e47f76c876708fe316da',
  ],
];

const AMD_SEV = 'ovmf/ovmf_AmdSev_suffix.bin';
const OVMF_X64 = 'ovmf/ovmf_OvmfX64_suffix.bin';

const launchOf = (row: Row): OvmfLaunch => ({
  mode: row.mode ?? 'snp',
  ovmf: fixture(row.x64 ? OVMF_X64 : AMD_SEV),
  vcpus: row.vcpus ?? 1,
  vcpuType: 'EPYC-v4',
  vmmType: row.vmm ?? 'QEMU',
  guestFeatures: row.features ?? 1n,
  ...(row.append !== null && { kernel: EMPTY, append: row.append }),
  ...(row.append !== null && row.initrd !== false && { initrd: EMPTY }),
  ...(row.hash && { snpOvmfHash: Buffer.from(HASH, 'hex') }),
});
const code = (launch: OvmfLaunch): string => {
  try {
    measureOvmf(launch, nodeCrypto);
  } catch (error) {
    if (error instanceof CvmError) return error.code;
    throw error;
  }
  return 'measured';
};

describe.runIf(haveFixtures(AMD_SEV, OVMF_X64))("sev-snp-measure's known answers", () => {
  it.each(KNOWN)('test_%s', (_name, row, expected) => {
    expect(digest(launchOf(row))).toBe(expected);
  });

  it('test_snp_ovmf_hash_full: the hash of the image alone', () => {
    expect(digest({ mode: 'snp:ovmf-hash', ovmf: fixture(AMD_SEV) })).toBe(HASH);
  });

  it('test_…_with_ovmfx64_and_kernel_should_fail', () => {
    for (const mode of ['snp', 'seves', 'sev'] as const)
      expect(code(launchOf({ mode, append: '', x64: true }))).toBe('ovmf-kernel-hashes');
  });

  it('test_…_dump_vmsa: as many VMSAs as vCPUs', () => {
    const { vmsas } = measureOvmf(launchOf({ mode: 'seves', append: '', vcpus: 4 }), nodeCrypto);
    expect(vmsas.map(({ length }) => length)).toEqual([4096, 4096, 4096, 4096]);
    expect(measureOvmf(launchOf({ mode: 'sev', append: '' }), nodeCrypto).vmsas).toEqual([]);
  });

  it('the hash of a kernel stands for the kernel', () => {
    const kernel = new TextEncoder().encode('bzImage');
    const launch = { ...launchOf({ append: null }), append: 'quiet' };
    expect(digest({ ...launch, kernel: { sha256: nodeCrypto.sha256(kernel) } })).toBe(
      digest({ ...launch, kernel }),
    );
  });
});

describe.runIf(haveFixtures(AMD_SEV))(
  'virtee/sev 7.1.0 on the AmdSev image, EPYC-Milan, features 0x21',
  () => {
    it.each([
      [
        'QEMU',
        1,
        'b496397009dbe8008cb6b1eb04f6f3389e5e1abc72f6d03365a9439cd6aa29e4fc8e126596112b5041ccf1e4c7de0abc',
      ],
      [
        'QEMU',
        3,
        'c4fa454d247e3dac66cd53a52390158947b002cfaf6dc7625e78ba1fb5dd97c2d2f81eec2d1ab592b5589b1715a82855',
      ],
      [
        'ec2',
        1,
        '5249e307cdd6dd24215d8ac28cfe042f874cd6819fde9c766b5db38a49f5e34c09ca9b34a20db1e1d5d69a71b4e6a0b8',
      ],
      [
        'ec2',
        3,
        'cc0c23c7a7380c7f37cf0aeadb81748c2ca362738b816cb85163897fa438b946205c04ec85a14434cb3b54e25116f11e',
      ],
      [
        'KRUN',
        1,
        '7e27af2f81b07e17617abfc9c752dc62752819eca8453d3962c09408a3cb01d3859d7ef7f0c8d40328c3a32ec1e5cefa',
      ],
      [
        'KRUN',
        3,
        'ada82b95dda8100e1c71c9bfdab7035b78e415fe33267c6ea3db983477d215e08f3101e1be939c66deda2ff8cb8c9ee6',
      ],
    ] as const)('%s, %i vCPUs', (vmmType, vcpus, expected) => {
      // It leaves RDX at 0 where sev-snp-measure has 0x600.
      const vmsaFields: Record<string, bigint> = vmmType === 'ec2' ? { rdx: 0n } : {};
      const launch = { mode: 'snp', vcpuType: 'EPYC-Milan', guestFeatures: 0x21n } as const;
      expect(digest({ ...launch, ovmf: fixture(AMD_SEV), vmmType, vcpus, vmsaFields })).toBe(expected);
    });
  },
);

describe.runIf(haveFixtures('ovmf/svsm.bin', 'ovmf/svsm_ovmf.fd'))("sev-snp-measure's SVSM answers", () => {
  it.each([
    [4, '27d154c27b7b359c935e250ec6fee72aa0ae8c1225e3b0e1cf46a9567e938066d7d6f94bbdc4a857818bdb79277a44b2'],
    [2, '9b94745036aafddf4f7f8b00c7513abb5b7703178cb95aaa57928bd963d68d3bfcb715d6019b9167ee2517b11b0d9be7'],
  ])('test_snp_svsm_%i_vcpus', (vcpus, expected) => {
    const ovmf = fixture('ovmf/svsm_ovmf.fd');
    const svsm = fixture('ovmf/svsm.bin');
    expect(digest({ mode: 'snp:svsm', ovmf, svsm, varsSize: 540672, vcpus, vcpuType: 'EPYC-v4' })).toBe(
      expected,
    );
  });
});

/** Debian's package `ovmf` 2022.11-6+deb12u2, whose image has this SHA-256. */
const DEBIAN = '/usr/share/ovmf/OVMF.fd';
const DEBIAN_SHA256 = '7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773';
const debian = existsSync(DEBIAN) ? new Uint8Array(readFileSync(DEBIAN)) : undefined;
const debianSha = debian && createHash('sha256').update(debian).digest('hex');
if (debianSha !== DEBIAN_SHA256)
  console.warn(
    `LEFT OUT: the digest of Debian's OVMF.fd; ${DEBIAN} ${debian ? `is of another build (${debianSha})` : 'is not there: apt-get install ovmf'}`,
  );

describe.runIf(debianSha === DEBIAN_SHA256)("Debian's OVMF.fd", () => {
  it('has the digest that sev-snp-measure gives it', () => {
    expect(digest({ mode: 'snp', ovmf: debian!, vcpus: 1, vcpuType: 'EPYC-v4' })).toBe(
      '11570979c77a0adb515761a702527c8b9e11554e730552621d950988613a3a75c6ff1703f540bd22a9beede8fe7a97e3',
    );
  });
});

describe('CPU signatures', () => {
  it('are those of the CPUID specification', () => {
    expect(cpuSignature({ family: 14, model: 1, stepping: 2 })).toBe(0x0e12);
    expect(cpuSignature({ family: 23, model: 1, stepping: 2 })).toBe(0x80_0f12);
    // EDX of QEMU's register dump for -cpu EPYC-v4 (AMDESE/AMDSEV#245).
    expect(signatureOfType('EPYC-v4')).toBe(0x0080_0f12);
    expect(signatureOfType('EPYC-Turin')).toBe(0x00b0_0f00);
    expect(() => signatureOfType('486')).toThrow(/no vCPU type '486'; known are EPYC/);
    for (const name of Object.keys(CPU_MODELS)) expect(signatureOfType(name)).toBeGreaterThan(0x80_0000);
  });
});

const NOISE = (index: number): number => (index * 131) & 0xff;
const GPA = 0xffff_ffff_f000n;
/** Two pages of firmware with a section of each type, the CPUID page in the middle. */
const firmware = ovmfImage({
  size: 8192,
  fill: NOISE,
  hashTableGpa: 0x80_5c00,
  resetEip: 0x80_b004,
  sections: [
    [0x80_0000, 0x2000, 1],
    [0x80_7000, 0x1000, 3],
    [0x80_6000, 0x1000, 2],
    [0x80_8000, 0x1000, 4],
    [0x80_5000, 0x1000, 0x10],
  ],
});
const START = 0x1_0000_0000 - 8192;
const pagesOf = (bytes: Uint8Array, gpa: number): SlowPage[] =>
  Array.from({ length: bytes.length / 4096 }, (_, n) => [
    TYPE.NORMAL,
    BigInt(gpa + n * 4096),
    bytes.subarray(n * 4096, (n + 1) * 4096),
  ]);
const MEMORY: SlowPage[] = [
  [TYPE.ZERO, 0x80_0000n],
  [TYPE.ZERO, 0x80_1000n],
];
const CPUID: SlowPage = [TYPE.CPUID, 0x80_7000n];
const SECRETS: SlowPage = [TYPE.SECRETS, 0x80_6000n];
const CAA: SlowPage = [TYPE.ZERO, 0x80_8000n];
const NO_HASHES: SlowPage = [TYPE.ZERO, 0x80_5000n];
const image = pagesOf(firmware, START);

/** A VMSA field by field: `[offset, bytes, value]` of APM vol. 2, table B-4. */
function slowVmsa(fields: readonly (readonly [number, number, bigint])[]): Uint8Array {
  const vmsa = Buffer.alloc(4096);
  for (const [offset, bytes, value] of fields)
    for (let i = 0; i < bytes; i++) vmsa[offset + i] = Number((value >> BigInt(8 * i)) & 0xffn);
  return vmsa;
}
type Fields = (readonly [number, number, bigint])[];
const LIMITS: Fields = Array.from({ length: 10 }, (_, n) => [n * 16 + 4, 4, 0xffffn]);
const RESET: Fields = [
  ...LIMITS,
  [0x02, 2, 0x93n],
  [0x10, 2, 0xf000n],
  [0x32, 2, 0x93n],
  [0x42, 2, 0x93n],
  [0x52, 2, 0x93n],
  [0x72, 2, 0x82n],
  [0x0d0, 8, 0x1000n],
  [0x148, 8, 0x40n],
  [0x158, 8, 0x10n],
  [0x160, 8, 0x400n],
  [0x168, 8, 0xffff_0ff0n],
  [0x170, 8, 2n],
  [0x3e8, 8, 1n],
];
const at = (eip: bigint): Fields => [
  [0x18, 8, eip & 0xffff_0000n],
  [0x178, 8, eip & 0xffffn],
];
const attributes = (cs: bigint, ss: bigint, tr: bigint): Fields => [
  [0x12, 2, cs],
  [0x22, 2, ss],
  [0x92, 2, tr],
];
const PAT: Fields = [[0x268, 8, 0x0007_0406_0007_0406n]];
const FEATURES: Fields = [[0x3b0, 8, 0x21n]];
const BSP = 0xffff_fff0n;
const AP = 0x80_b004n;

describe('what each VMM measures', () => {
  const launch: OvmfLaunch = {
    mode: 'snp',
    ovmf: firmware,
    vcpus: 2,
    vcpuSig: 0xa0_0f11,
    guestFeatures: 0x21n,
  };
  const expectPages = (options: Partial<OvmfLaunch>, pages: SlowPage[], vmsas: Fields[]): void =>
    expect(digest({ ...launch, ...options })).toBe(
      slowLaunchDigest([
        ...image,
        ...pages,
        ...vmsas.map((fields): SlowPage => [TYPE.VMSA, GPA, slowVmsa(fields)]),
      ]),
    );
  const common = [...RESET, ...FEATURES];

  it('QEMU: sections in order, the CPU signature in RDX, the FPU as after FINIT', () => {
    const qemu: Fields = [
      ...common,
      ...PAT,
      ...attributes(0x9bn, 0x93n, 0x8bn),
      [0x310, 8, 0xa0_0f11n],
      [0x408, 4, 0x1f80n],
      [0x410, 2, 0x37fn],
    ];
    expectPages(
      {},
      [...MEMORY, CPUID, SECRETS, CAA, NO_HASHES],
      [
        [...qemu, ...at(BSP)],
        [...qemu, ...at(AP)],
      ],
    );
  });

  it('EC2: the CPUID page last, RDX 0x600, other attributes for the first vCPU', () => {
    const ec2: Fields = [...common, ...PAT, [0x310, 8, 0x600n]];
    expectPages(
      { vmmType: 'ec2' },
      [...MEMORY, SECRETS, CAA, NO_HASHES, CPUID],
      [
        [...ec2, ...attributes(0x9an, 0x92n, 0x83n), ...at(BSP)],
        [...ec2, ...attributes(0x9bn, 0x92n, 0x83n), ...at(AP)],
      ],
    );
  });

  it('GCE: memory of the firmware is unmeasured, PAT is its own, VMSAs where the address bits end', () => {
    const gce: Fields = [
      ...common,
      ...attributes(0x9bn, 0x93n, 0x8bn),
      [0x268, 8, 0x7_0106n],
      [0x310, 8, 0x600n],
    ];
    const unmeasured = MEMORY.map(([, gpa]): SlowPage => [TYPE.UNMEASURED, gpa]);
    const pages = [...unmeasured, CPUID, SECRETS, CAA, NO_HASHES];
    expectPages({ vmmType: 'gce' }, pages, [
      [...gce, ...at(BSP)],
      [...gce, ...at(AP)],
    ]);
    const genoa = ((1n << 52n) - 1n) & ~0xfffn;
    expect(digest({ ...launch, vmmType: 'gce', vmsaGpa: genoa, vcpus: 1 })).toBe(
      slowLaunchDigest([...image, ...pages, [TYPE.VMSA, genoa, slowVmsa([...gce, ...at(BSP)])]]),
    );
  });

  it('a kernel: its hashes in the page, at the offset of the table', () => {
    const kernel = new TextEncoder().encode('kernel');
    const append = 'console=ttyS0';
    const hashes = Buffer.alloc(4096);
    const guid = (offset: number, text: string, length: number, hash?: Buffer): void => {
      const bytes = Buffer.from(text.replaceAll('-', ''), 'hex');
      for (const [from, to] of [
        [0, 4],
        [4, 6],
        [6, 8],
      ] as const)
        bytes.subarray(from, to).reverse();
      bytes.copy(hashes, offset);
      hashes.writeUInt16LE(length, offset + 16);
      hash?.copy(hashes, offset + 18);
    };
    guid(0xc00, '9438d606-4f22-4cc9-b479-a793d411fd21', 168);
    guid(0xc12, '97d02dd8-bd20-4c94-aa78-e7714d36ab2a', 50, sha256(Buffer.from(`${append}\0`)));
    guid(0xc44, '44baf731-3a2f-4bd7-9af1-41e29169781d', 50, sha256(Buffer.alloc(0)));
    guid(0xc76, '4de79437-abd2-427f-b835-d5b172d2045b', 50, sha256(kernel));
    const { steps, parts } = measureOvmf({ ...launch, kernel, append }, nodeCrypto);
    const step = [...steps!].find(({ gpa }) => gpa === 0x80_5000n)!;
    expect(parts[step.directive]!.name).toBe('kernel hashes');
    expect(bytesToHex(step.contentsHash)).toBe(sha384(hashes).toString('hex'));
  });

  it('fields set by hand reach every VMSA', () => {
    const { vmsas } = measureOvmf({ ...launch, vmsaFields: { rdx: 0n, x87_fcw: 0n } }, nodeCrypto);
    for (const vmsa of vmsas) expect([vmsa[0x310], vmsa[0x410], vmsa[0x411]]).toEqual([0, 0, 0]);
    expect(code({ ...launch, vmsaFields: { nothing: 1n } })).toBe('measure-vmsa-field');
    expect(code({ ...launch, vmsaFields: { cpl: 256n } })).toBe('measure-vmsa-field');
    expect(code({ ...launch, vmsaFields: { lbr_stack: 1n } })).toBe('measure-vmsa-field');
  });

  it("SVSM: the FPU control word is 0, as in the peer's known answers", () => {
    const svsm = ovmfImage({ size: 4096, fill: NOISE, svsmOffset: 0x40, sections: [] });
    const options = { ...launch, mode: 'snp:svsm', svsm, varsSize: 0x1000 } as const;
    const { vmsas, parts } = measureOvmf(options, nodeCrypto);
    expect(vmsas[0]!.subarray(0x408, 0x412)).toEqual(Uint8Array.of(0x80, 0x1f, 0, 0, 0, 0, 0, 0, 0, 0));
    expect(parts.map(({ name, gpa }) => [name, gpa])).toEqual([
      ['OVMF image', BigInt(START)],
      ['SVSM binary', BigInt(START - 0x2000)],
      ['VMSA of vCPU 0', GPA],
      ['VMSA of vCPU 1', GPA],
    ]);
    // Later hosts measure the FPU as it is after reset.
    const set = measureOvmf({ ...options, vmsaFields: { x87_fcw: 0x37fn } }, nodeCrypto);
    expect(set.vmsas[1]!.subarray(0x410, 0x412)).toEqual(Uint8Array.of(0x7f, 0x03));
  });
});

describe('OVMF images and options that do not fit', () => {
  const launch: OvmfLaunch = { mode: 'snp', ovmf: firmware, vcpus: 1, vcpuType: 'EPYC' };
  it('are refused with the reason', () => {
    expect(code(launch)).toBe('measured');
    expect(code({ ...launch, ovmf: EMPTY })).toBe('ovmf-format');
    expect(code({ ...launch, ovmf: firmware.subarray(100) })).toBe('ovmf-format');
    expect(code({ ...launch, vcpus: undefined } as unknown as OvmfLaunch)).toBe('measure-usage');
    expect(code({ ...launch, vcpus: 1e9 })).toBe('measure-usage');
    expect(code({ ...launch, append: 'x' })).toBe('measure-usage');
    expect(code({ ...launch, mode: 'sev', snpOvmfHash: new Uint8Array(48) })).toBe('measure-usage');
    expect(code({ ...launch, snpOvmfHash: new Uint8Array(47) })).toBe('measure-usage');
    expect(code({ ...launch, vcpuType: '486' })).toBe('measure-cpu-type');
    expect(code({ mode: 'snp', ovmf: firmware, vcpus: 1 })).toBe('measure-cpu-type');
    expect(code({ mode: 'snp', ovmf: firmware, vcpus: 1, vcpuFamily: 25 })).toBe('measure-cpu-type');
    expect(code({ ...launch, mode: 'snp:svsm' })).toBe('measure-usage');
    const wide = ovmfImage({ size: 4096, fill: NOISE, resetEip: 1, sections: [[0, 0x7fff_f000, 1]] });
    expect(code({ ...launch, ovmf: wide })).toBe('ovmf-format');
  });

  it('damaged anywhere: measured or refused, never thrown otherwise', () => {
    const random = new Random(5);
    const codes = new Set<string>();
    for (let n = 0; n < 3000; n++) {
      const bytes = firmware.slice();
      // The tables: the last KiB of the image.
      for (let k = 1 + random.below(3); k > 0; k--) bytes[7168 + random.below(1024)] = random.next();
      const damaged = random.chance(10) ? bytes.subarray(random.below(8192)) : bytes;
      codes.add(code({ ...launch, ovmf: damaged, mode: random.pick(['snp', 'seves', 'sev']) }));
    }
    expect([...codes].sort()).toEqual(expect.arrayContaining(['measured', 'ovmf-format']));
  });
});
