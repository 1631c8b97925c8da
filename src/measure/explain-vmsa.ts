/** The mistakes that concern the save areas: what a kernel or a VMM sets, clears or replaces in them. */
import { hex } from '../base/index.ts';
import { SEV_FEATURE, VMSA, VMSA_SIZE, readVmsa, writeVmsa } from '../snp/index.ts';
import { CPU_MODELS, cpuSignature } from './cpu-signature.ts';
import { RESET_EIP, initialVmsa } from './initial-vmsa.ts';
import type { CauseCategory, Hypothesis } from './explain-hypotheses.ts';
import type { Page } from './explain-pages.ts';

const isVmsa = (page: Page): boolean => page.pageType === 'vmsa';

/** CPUID signatures of QEMU's EPYC models, each with the names that have it. */
export function knownSignatures(): { readonly signature: number; readonly names: string }[] {
  const bySignature = new Map<number, string[]>();
  for (const [name, model] of Object.entries(CPU_MODELS)) {
    const signature = cpuSignature(model);
    const names = bySignature.get(signature);
    if (!names) bySignature.set(signature, [name]);
    // Versions of a model share its signature.
    else if (!names.some((known) => name.startsWith(known))) names.push(name);
  }
  return [...bySignature].map(([signature, names]) => ({ signature, names: names.join(', ') }));
}

type Edit = (vmsa: Uint8Array) => void;
const set =
  (field: string, value: bigint): Edit =>
  (vmsa) =>
    writeVmsa(vmsa, field, value);
const or =
  (field: string, bits: bigint): Edit =>
  (vmsa) =>
    writeVmsa(vmsa, field, readVmsa(vmsa, field) | bits);
const toggle =
  (field: string, bits: bigint): Edit =>
  (vmsa) =>
    writeVmsa(vmsa, field, readVmsa(vmsa, field) ^ bits);

/** Edited copies, one for each different array: vCPUs that share a VMSA go on sharing it. */
function editor(edit: Edit): (page: Page) => Page {
  const copies = new Map<Uint8Array | undefined, Uint8Array | undefined>();
  return (page) => {
    if (page.contents) return page;
    if (!copies.has(page.data)) {
      const before = new Uint8Array(VMSA_SIZE);
      before.set(page.data ?? []);
      const after = before.slice();
      edit(after);
      copies.set(page.data, after.some((byte, index) => byte !== before[index]) ? after : undefined);
    }
    const data = copies.get(page.data);
    return data ? { ...page, data } : page;
  };
}

const TARGETS = [
  { title: 'in every VMSA', takes: () => true },
  { title: 'in the VMSA of vCPU 0 only', takes: (page: Page) => page.vpIndex === 0 },
  { title: 'in the VMSAs of all vCPUs but 0', takes: (page: Page) => page.vpIndex !== 0 },
] as const;

/** An edit of the VMSAs: of all, of the boot processor's, of the others'. */
function vmsaEdit(
  category: CauseCategory,
  words: (before: Uint8Array | undefined) => string,
  edit: Edit,
): Hypothesis {
  return {
    category,
    scope: 'all',
    *variations(pages) {
      const vmsas = pages.filter(isVmsa);
      const mixed = vmsas.some(({ vpIndex }) => vpIndex === 0) && vmsas.some(({ vpIndex }) => vpIndex !== 0);
      for (const { title, takes } of mixed ? TARGETS : TARGETS.slice(0, 1)) {
        const change = editor(edit);
        const changed = pages.map((page) => (isVmsa(page) && takes(page) ? change(page) : page));
        const first = changed.findIndex((page, index) => page !== pages[index]);
        if (first < 0) continue;
        const { directive, gpa, data } = pages[first]!;
        yield { words: `${words(data)} ${title}`, directive, gpa, pages: () => changed };
      }
    },
  };
}

const WHY: Partial<Record<keyof typeof SEV_FEATURE, string>> = {
  DebugSwap: ', as KVM does with debug_swap on,',
  RestrictedInjection: ', as igvmbuilder does by default,',
};

const FEATURES: readonly Hypothesis[] = (Object.keys(SEV_FEATURE) as (keyof typeof SEV_FEATURE)[])
  // What happens most first.
  .sort((a, b) => Number(b in WHY) - Number(a in WHY))
  .map((name) => {
    const bit = SEV_FEATURE[name];
    return vmsaEdit(
      'sev-features',
      (vmsa) => {
        const was = vmsa ? (readVmsa(vmsa, 'sev_features') >> BigInt(bit)) & 1n : 0n;
        return was
          ? `${name} (SEV_FEATURES bit ${bit}) clear`
          : `${name} (SEV_FEATURES bit ${bit}) set${WHY[name] ?? ''}`;
      },
      toggle('sev_features', 1n << BigInt(bit)),
    );
  });

const SIGNATURES: readonly Hypothesis[] = [
  ...knownSignatures(),
  { signature: 0x600, names: 'KVM before its CPUID is set: EC2, GCE' },
  { signature: 0, names: 'none' },
].map(({ signature, names }) =>
  vmsaEdit(
    'cpu-signature',
    (vmsa) =>
      `RDX ${hex(signature)} (the CPU signature of ${names})${vmsa ? ` instead of ${hex(readVmsa(vmsa, 'rdx'))}` : ''}`,
    set('rdx', BigInt(signature)),
  ),
);

interface Override {
  readonly words: string;
  readonly edit: Edit;
}

/** What KVM or QEMU put into a save area whatever the file says. */
const OVERRIDES: readonly Override[] = [
  { words: 'EFER.SVME set, as KVM does,', edit: or('efer', 0x1000n) },
  { words: 'CR4.MCE set, as KVM does,', edit: or('cr4', 0x40n) },
  { words: 'CR0.ET set, as the processor does,', edit: or('cr0', 0x10n) },
  { words: 'DR6 at its reset value', edit: set('dr6', 0xffff_0ff0n) },
  { words: 'DR7 at its reset value', edit: set('dr7', 0x400n) },
  { words: 'RFLAGS bit 1 set', edit: or('rflags', 2n) },
  { words: 'PAT at its reset value', edit: set('g_pat', 0x0007_0406_0007_0406n) },
  { words: 'XCR0 1', edit: set('xcr0', 1n) },
  { words: 'MXCSR 0x1f80', edit: set('mxcsr', 0x1f80n) },
  { words: 'x87_fcw 0x37f', edit: set('x87_fcw', 0x37fn) },
];

/** QEMU keeps these and drops the rest (docs/system/igvm.rst), sev_features apart. */
export const QEMU_VMSA_FIELDS: ReadonlySet<string> = new Set([
  ...['es', 'cs', 'ss', 'ds', 'fs', 'gs', 'gdtr', 'ldtr', 'idtr', 'tr'].flatMap((segment) =>
    ['selector', 'attributes', 'limit', 'base'].map((part) => `${segment}.${part}`),
  ),
  ...['rax', 'rcx', 'rdx', 'rbx', 'rbp', 'rsi', 'rdi', 'rsp', 'rip', 'rflags'],
  ...Array.from({ length: 8 }, (_, i) => `r${i + 8}`),
  ...['cr0', 'cr3', 'cr4', 'xcr0', 'efer', 'g_pat', 'dr6', 'dr7', 'x87_fcw', 'mxcsr', 'sev_features'],
]);

const dropForeign: Edit = (vmsa) => {
  for (const field of VMSA.fields)
    if (!QEMU_VMSA_FIELDS.has(field.name)) vmsa.fill(0, field.offset, field.offset + field.size);
};

const OTHER_FIELDS: readonly Override[] = [
  { words: 'the TR base of LDTR, a bug of QEMU,', edit: (v) => set('tr.base', readVmsa(v, 'ldtr.base'))(v) },
  { words: 'MXCSR 0 (EC2, GCE)', edit: set('mxcsr', 0n) },
  { words: 'x87_fcw 0 (EC2, GCE, sev-snp-measure for an SVSM)', edit: set('x87_fcw', 0n) },
  { words: 'PAT 0x70106 (GCE)', edit: set('g_pat', 0x7_0106n) },
  { words: 'CS attributes 0x9a (EC2)', edit: set('cs.attributes', 0x9an) },
  { words: 'CS attributes 0x9b (QEMU)', edit: set('cs.attributes', 0x9bn) },
  { words: 'SS attributes 0x92 (EC2)', edit: set('ss.attributes', 0x92n) },
  { words: 'SS attributes 0x93 (QEMU)', edit: set('ss.attributes', 0x93n) },
  { words: 'TR attributes 0x83 (EC2)', edit: set('tr.attributes', 0x83n) },
  { words: 'TR attributes 0x8b (QEMU)', edit: set('tr.attributes', 0x8bn) },
  { words: 'no virtual TOM', edit: set('virtual_tom', 0n) },
  { words: 'no fields but those QEMU takes over', edit: dropForeign },
];

const FIELDS: readonly Hypothesis[] = [
  {
    words: "KVM's values of EFER, CR4, CR0, DR6, DR7, RFLAGS, PAT, XCR0, MXCSR and x87_fcw",
    edit: (vmsa: Uint8Array) => OVERRIDES.forEach(({ edit }) => edit(vmsa)),
  },
  ...OVERRIDES,
  ...OTHER_FIELDS,
].map(({ words, edit }) => vmsaEdit('vmsa-field', () => words, edit));

const PLACES: readonly (readonly [gpa: bigint, who: string])[] = [
  [0xffff_ffff_f000n, 'KVM'],
  [0xf_ffff_ffff_f000n, 'GCE on Genoa'],
  [0n, 'nobody known'],
];

const GPAS: readonly Hypothesis[] = PLACES.map(([gpa, who]) => ({
  category: 'vmsa-gpa',
  scope: 'all',
  *variations(pages) {
    const first = pages.find((page) => isVmsa(page) && page.gpa !== gpa);
    if (!first) return;
    const changed = pages.map((page) => (isVmsa(page) ? { ...page, gpa } : page));
    yield {
      words: `the VMSAs at gpa ${hex(gpa)} (${who}) instead of ${hex(first.gpa)}`,
      directive: first.directive,
      gpa: first.gpa,
      pages: () => changed,
    };
  },
}));

/** Fewer VMSAs than the image has, and the context of vCPU 0 for more. */
const COUNTS: Hypothesis = {
  category: 'vcpu-count',
  scope: 'all',
  *variations(pages) {
    const vmsas = pages.filter(isVmsa);
    for (let count = vmsas.length - 1; count >= 0; count--) {
      const gone = new Set(vmsas.slice(count));
      const words = count === 0 ? 'no VMSA' : `the first ${count === 1 ? 'VMSA' : `${count} VMSAs`} only`;
      const { directive, gpa } = vmsas[count]!;
      yield {
        words: `${words} (the image has ${vmsas.length})`,
        directive,
        gpa,
        pages: () => pages.filter((page) => !gone.has(page)),
      };
    }
  },
};

/** A bit of a save area: 32768 tries a VMSA, which only the last ones can afford. */
const BITS: Hypothesis = {
  category: 'vmsa-field',
  scope: 'each',
  *variations(pages, name) {
    for (let index = pages.length - 1; index >= 0; index--) {
      const page = pages[index]!;
      if (!isVmsa(page) || page.contents || (pages[index + 1] && pages[index + 1]!.data === page.data))
        continue;
      for (let bit = 0; bit < VMSA_SIZE * 8; bit++) {
        const offset = bit >> 3;
        const field = VMSA.fields.find((row) => offset < row.offset + row.size)!;
        yield {
          words: `bit ${bit - 8 * field.offset} of ${field.name} flipped in ${name(page.directive)} (the VMSA of vCPU ${page.vpIndex ?? 0})`,
          directive: page.directive,
          gpa: page.gpa,
          pages: () => {
            const data = new Uint8Array(VMSA_SIZE);
            data.set(page.data ?? []);
            data[offset]! ^= 1 << (bit & 7);
            const out = [...pages];
            out[index] = { ...page, data };
            return out;
          },
        };
      }
    }
  },
};

/** The list without some of its VMSAs, and the page that one more vCPU after the other adds to it. */
export interface VcpuChain {
  readonly kept: readonly Page[];
  /** vCPUs that `kept` has VMSAs for. */
  readonly count: number;
  readonly page: Page;
  readonly words: string;
}

/**
 * How a guest with another number of vCPUs would be measured: those that the image has no context for in their
 * reset state, by each CPU signature, or with the context of the last vCPU that has one.
 */
export function vcpuChains(pages: readonly Page[], signatures: readonly number[]): VcpuChain[] {
  const last = pages.at(-1);
  if (!last || !isVmsa(last)) return [];
  const kept = pages.filter((page) => !page.reset);
  const own = kept.filter(isVmsa);
  const lastOwn = own.at(-1);
  const chains: VcpuChain[] = [];
  if (lastOwn) {
    // Of a row of equal VMSAs (an OVMF guest's), the first two stay.
    let count = own.length;
    while (count > 2 && own[count - 1]!.data === own[count - 2]!.data) count--;
    const gone = new Set(own.slice(count));
    chains.push({
      kept: kept.filter((page) => !gone.has(page)),
      count,
      page: lastOwn,
      words: own.length > 1 ? '' : ', each with the VMSA of vCPU 0',
    });
  }
  if (lastOwn && !lastOwn.data) return chains;
  const sevFeatures = own[0]?.data ? readVmsa(own[0].data, 'sev_features') : 1n;
  for (const signature of signatures)
    chains.push({
      kept,
      count: own.length,
      page: {
        gpa: last.gpa,
        pageType: 'vmsa',
        data: initialVmsa({ vmm: 'QEMU', eip: RESET_EIP, signature, sevFeatures }),
        directive: -1,
        vpIndex: own.length,
        reset: true,
      },
      words: `, those without a VP context in their reset state with CPU signature ${hex(signature)}`,
    });
  return chains;
}

export const VMSA_HYPOTHESES: readonly Hypothesis[] = [
  ...FEATURES,
  ...SIGNATURES,
  COUNTS,
  ...FIELDS,
  ...GPAS,
  BITS,
];
