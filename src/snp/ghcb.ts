/** The guest-hypervisor communication block and the GHCB MSR protocol (GHCB spec. 2.04, §2). */
import { readField, structure, writeField } from '../base/index.ts';

export const MSR_GHCB = 0xc001_0130;
export const MSR_SEV_STATUS = 0xc001_0131;

/** GHCB layout (GHCB spec. 2.04, table 3); what is missing is reserved. */
export const GHCB = structure('GHCB', 4096, [
  [0x0cb, 'cpl', 'u8'],
  [0x140, 'xss', 'u64'],
  [0x160, 'dr7', 'u64'],
  [0x1f8, 'rax', 'u64'],
  [0x308, 'rcx', 'u64'],
  [0x310, 'rdx', 'u64'],
  [0x318, 'rbx', 'u64'],
  [0x328, 'rbp', 'u64'],
  [0x330, 'rsi', 'u64'],
  [0x338, 'rdi', 'u64'],
  [0x340, 'r8', 'u64'],
  [0x348, 'r9', 'u64'],
  [0x350, 'r10', 'u64'],
  [0x358, 'r11', 'u64'],
  [0x360, 'r12', 'u64'],
  [0x368, 'r13', 'u64'],
  [0x370, 'r14', 'u64'],
  [0x378, 'r15', 'u64'],
  [0x390, 'sw_exit_code', 'u64'],
  [0x398, 'sw_exit_info_1', 'u64'],
  [0x3a0, 'sw_exit_info_2', 'u64'],
  [0x3a8, 'sw_scratch', 'u64'],
  [0x3e8, 'xcr0', 'u64'],
  [0x3f0, 'valid_bitmap', 16],
  [0x400, 'x87_state_gpa', 'u64'],
  [0x800, 'shared_buffer', 0x7f0],
  [0xffa, 'protocol_version', 'u16'],
  [0xffc, 'ghcb_usage', 'u32'],
]);
export const GHCB_SHARED_BUFFER = 0x800;
export const GHCB_SHARED_BUFFER_SIZE = 0x7f0;

/** A GHCB page as the host sees it. Fields are valid only if their bit in VALID_BITMAP says so. */
export class GhcbView {
  /** 4096 bytes, live. */
  readonly page: Uint8Array;
  constructor(page: Uint8Array) {
    this.page = page;
  }

  get(name: string): bigint {
    return readField(this.page, GHCB.field(name));
  }
  /** Writes without marking valid. */
  put(name: string, value: bigint): void {
    writeField(this.page, GHCB.field(name), value);
  }
  /** Bit `offset / 8` of VALID_BITMAP, which covers offsets 0 to 0x3FF. */
  isValid(name: string): boolean {
    const bit = GHCB.field(name).offset >> 3;
    return bit < 128 && ((this.page[0x3f0 + (bit >> 3)]! >> (bit & 7)) & 1) === 1;
  }
  /** Writes a field and marks it valid, as an answer must be. */
  set(name: string, value: bigint): void {
    this.put(name, value);
    const bit = GHCB.field(name).offset >> 3;
    if (bit < 128) this.page[0x3f0 + (bit >> 3)]! |= 1 << (bit & 7);
  }
  clearValid(): void {
    this.page.fill(0, 0x3f0, 0x400);
  }
}

/** GHCBInfo values, GHCB MSR bits 11:0 (GHCB spec. 2.04, §2.3.1, table 1). */
export const GHCB_MSR = {
  SEV_INFO_RESPONSE: 0x001,
  SEV_INFO_REQUEST: 0x002,
  CPUID_REQUEST: 0x004,
  CPUID_RESPONSE: 0x005,
  AP_RESET_HOLD_REQUEST: 0x006,
  AP_RESET_HOLD_RESPONSE: 0x007,
  PREFERRED_GPA_REQUEST: 0x010,
  PREFERRED_GPA_RESPONSE: 0x011,
  REGISTER_GPA_REQUEST: 0x012,
  REGISTER_GPA_RESPONSE: 0x013,
  PAGE_STATE_CHANGE_REQUEST: 0x014,
  PAGE_STATE_CHANGE_RESPONSE: 0x015,
  RUN_VMPL_REQUEST: 0x016,
  RUN_VMPL_RESPONSE: 0x017,
  HV_FEATURES_REQUEST: 0x080,
  HV_FEATURES_RESPONSE: 0x081,
  TERMINATE_REQUEST: 0x100,
} as const;

/** Hypervisor features (GHCB spec. 2.04, §2.3.1, table 2). */
export const HV_FEATURE = {
  SEV_SNP: 0,
  SNP_AP_CREATION: 1,
  RESTRICTED_INJECTION: 2,
  RESTRICTED_INJECTION_TIMER: 3,
  APIC_ID_LIST: 4,
  SNP_MULTI_VMPL: 5,
  PAGE_STATE_CHANGE: 6,
  ALTERNATE_INJECTION: 9,
} as const;

/** Page operations of a page state change entry, bits 55:52. */
export const PSC_OPERATION = { private: 1, shared: 2, psmash: 3, unsmash: 4 } as const;
/** Entries that fit the shared buffer behind the 8-byte header. */
export const PSC_MAX_ENTRIES = 253;

/** One entry of a page state change request (GHCB spec. 2.04, §4.1.6). */
export interface PageStateEntry {
  readonly gpa: number;
  readonly operation: number;
  readonly large: boolean;
  /** Bits 11:0: 4 KiB pages of a large entry that are already done. */
  readonly currentPage: number;
}
export const pageStateEntry = (value: bigint): PageStateEntry => ({
  currentPage: Number(value & 0xfffn),
  gpa: Number(value & 0xf_ffff_ffff_f000n),
  operation: Number((value >> 52n) & 0xfn),
  large: ((value >> 56n) & 1n) !== 0n,
});

/** SW_EXITINFO1[31:0] of an answer: 0 done, 1 the event in SW_EXITINFO2 is to be injected, 2 malformed input. */
export const GHCB_RESULT = { ok: 0n, issueException: 1n, malformedInput: 2n } as const;
/** SW_EXITINFO2 with `malformedInput` (GHCB spec. 2.04, §4.1, table 8). */
export const GHCB_INPUT_ERROR = {
  notRegistered: 1n,
  invalidUsage: 2n,
  invalidScratch: 3n,
  missingInput: 4n,
  invalidInput: 5n,
  invalidEvent: 6n,
} as const;

const GENERAL_REASONS: Readonly<Record<number, string>> = {
  0: 'general termination request',
  1: 'SEV-ES / GHCB protocol range is not supported',
  2: 'SEV-SNP features are not supported',
};
const LINUX_REASONS: Readonly<Record<number, string>> = {
  0: 'general request',
  1: 'page validation failed',
  2: 'GHCB registration failed',
  3: 'not running at VMPL0',
  4: 'CPUID table is bad',
  5: 'CPUID hypervisor mismatch',
};

/** Meaning of a termination request (GHCB spec. 2.04, §2.3.1, table 2; Linux's own set 1). */
export function terminationMeaning(set: number, code: number): string {
  const table = set === 0 ? GENERAL_REASONS : set === 1 ? LINUX_REASONS : {};
  return table[code] ?? `reason code ${code} of set ${set}`;
}
