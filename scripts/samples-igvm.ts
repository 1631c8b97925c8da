/**
 * Wraps mini-svsm's ELF file into an IGVM file: `samples-igvm ELF OUT.igvm`. Everything a launch needs is
 * here; the numbers are those of samples/mini-svsm/src/layout.rs, and its README.md draws them.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { IgvmBuilder, parseIgvm } from '../src/igvm/index.ts';
import { VMSA_SIZE, writeVmsa } from '../src/snp/index.ts';

const SNP = 1;
const PAGE = 4096;
/** No SMT restriction, bit 17 as the firmware ABI demands. */
const POLICY = 0x3_0000n;
/** KVM places every VMSA here, and measures it last. */
const VMSA_GPA = 0xffff_ffff_f000n;

const HEAP = 0x20_0000n;
const HEAP_AND_POOL_BYTES = 0x21_0000;
const PARAMETERS = 0x41_0000n;
const MEMORY_MAP = 0x41_1000n;
const CPUID_PAGE = 0x41_2000n;
const SECRETS_PAGE = 0x41_3000n;

const PARAMETER_AREA = 0;
const MEMORY_MAP_AREA = 1;

/** The leaves asked of the host; it fills in the outputs, the secure processor checks them. */
const CPUID_LEAVES: readonly (readonly [leaf: number, subleaf: number])[] = [
  [0, 0],
  [1, 0],
  [7, 0],
  [0xd, 0],
  [0xd, 1],
  [0x8000_0000, 0],
  [0x8000_0001, 0],
  [0x8000_0008, 0],
  [0x8000_001f, 0],
];

/** CPUID page (SNP firmware ABI): count, 12 reserved bytes, entries of 48 bytes. */
function cpuidPage(): Uint8Array {
  const page = new DataView(new ArrayBuffer(PAGE));
  page.setUint32(0, CPUID_LEAVES.length, true);
  for (const [index, [leaf, subleaf]] of CPUID_LEAVES.entries()) {
    page.setUint32(16 + index * 48, leaf, true);
    page.setUint32(20 + index * 48, subleaf, true);
  }
  return new Uint8Array(page.buffer);
}

/** The registers COCONUT-SVSM starts with: 32-bit protected mode, paging off; DR6 and DR7 as after a reset. */
function vmsa(entry: bigint): Uint8Array {
  const page = new Uint8Array(VMSA_SIZE);
  const segment = (name: string, selector: bigint, attributes: bigint): void => {
    writeVmsa(page, `${name}.selector`, selector);
    writeVmsa(page, `${name}.attributes`, attributes);
    writeVmsa(page, `${name}.limit`, 0xffff_ffffn);
  };
  for (const name of ['es', 'ss', 'ds', 'fs', 'gs']) segment(name, 0x10n, 0xa93n);
  segment('cs', 0x08n, 0xc9bn);
  const fields = {
    efer: 0x1800n, // SVME, NXE
    cr4: 0x60n, // MCE, PAE
    cr0: 0x31n, // PE, ET, NE
    dr7: 0x400n,
    dr6: 0xffff_0ff0n,
    rflags: 2n,
    rip: entry,
    g_pat: 0x0007_0406_0007_0406n,
    sev_features: 1n, // SNPActive
    xcr0: 1n,
  };
  for (const [name, value] of Object.entries(fields)) writeVmsa(page, name, value);
  return page;
}

interface Segment {
  readonly gpa: bigint;
  readonly data: Uint8Array;
  readonly memorySize: bigint;
}

/** PT_LOAD segments of an ELF64 file. */
function loadSegments(elf: Uint8Array): { entry: bigint; segments: Segment[] } {
  const view = new DataView(elf.buffer, elf.byteOffset, elf.byteLength);
  if (view.getUint32(0, false) !== 0x7f454c46 || view.getUint16(16, true) !== 2)
    throw new Error('not an ELF executable at a fixed address (ET_EXEC)');
  const headers = Number(view.getBigUint64(32, true));
  const segments: Segment[] = [];
  for (let index = 0; index < view.getUint16(56, true); index++) {
    const at = headers + index * view.getUint16(54, true);
    if (view.getUint32(at, true) !== 1) continue;
    const offset = Number(view.getBigUint64(at + 8, true));
    const size = Number(view.getBigUint64(at + 32, true));
    segments.push({
      gpa: view.getBigUint64(at + 24, true),
      data: elf.subarray(offset, offset + size),
      memorySize: view.getBigUint64(at + 40, true),
    });
  }
  return { entry: view.getBigUint64(24, true), segments };
}

/** The image as whole pages, ascending; `undefined` for a page of zeros, which needs no file data. */
function imagePages(segments: readonly Segment[]): Map<bigint, Uint8Array | undefined> {
  const pages = new Map<bigint, Uint8Array | undefined>();
  for (const { gpa, data, memorySize } of segments) {
    const first = gpa - (gpa % BigInt(PAGE));
    for (let page = first; page < gpa + memorySize; page += BigInt(PAGE)) {
      const from = Number(page - gpa);
      const bytes = data.subarray(Math.max(from, 0), Math.max(from + PAGE, 0));
      const content = pages.get(page) ?? new Uint8Array(PAGE);
      content.set(bytes, Math.max(-from, 0));
      pages.set(page, content.some((byte) => byte !== 0) ? content : undefined);
    }
  }
  return new Map([...pages].sort(([a], [b]) => (a < b ? -1 : 1)));
}

export function buildImage(elf: Uint8Array): Uint8Array {
  const { entry, segments } = loadSegments(elf);
  const builder = new IgvmBuilder({ version: 1 })
    .platform('SEV_SNP', SNP, { highestVtl: 2 })
    .guestPolicy(POLICY, SNP)
    .requiredMemory(HEAP, SNP, HEAP_AND_POOL_BYTES)
    .parameterArea(PARAMETER_AREA, BigInt(PAGE))
    .parameterArea(MEMORY_MAP_AREA, BigInt(PAGE))
    .parameter('VP_COUNT', PARAMETER_AREA, 0)
    .parameter('ENVIRONMENT_INFO', PARAMETER_AREA, 4)
    .parameter('MEMORY_MAP', MEMORY_MAP_AREA, 0)
    .parameterInsert(PARAMETERS, SNP, PARAMETER_AREA)
    .parameterInsert(MEMORY_MAP, SNP, MEMORY_MAP_AREA);
  for (const [gpa, data] of imagePages(segments)) builder.page(gpa, SNP, data);
  return builder
    .page(CPUID_PAGE, SNP, cpuidPage(), { dataType: 'CPUID_DATA' })
    .page(SECRETS_PAGE, SNP, undefined, { dataType: 'SECRETS' })
    .vpContext(VMSA_GPA, SNP, vmsa(entry))
    .build();
}

const [elfPath, igvmPath] = process.argv.slice(2);
if (elfPath === undefined || igvmPath === undefined) throw new Error('usage: samples-igvm ELF OUT.igvm');
const image = buildImage(readFileSync(elfPath));
for (const { severity, message, offset } of parseIgvm(image).diagnostics)
  throw new Error(`${severity} at ${offset}: ${message}`);
writeFileSync(igvmPath, image);
