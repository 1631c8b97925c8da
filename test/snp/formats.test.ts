/** The pages and registers that guest, host and firmware share: GHCB, GHCB MSR, CPUID page, secrets page. */
import { describe, expect, it } from 'vitest';
import {
  CPUID_FUNCTION,
  GHCB,
  GHCB_MSR,
  GhcbView,
  SECRETS_PAGE,
  decodeCpuidPage,
  encodeCpuidPage,
  encodeSecretsPage,
  pageStateEntry,
  terminationMeaning,
} from '../../src/snp/index.ts';

describe('GHCB (GHCB spec. 2.04, table 3)', () => {
  it.each([
    ['cpl', 0xcb],
    ['rax', 0x1f8],
    ['rcx', 0x308],
    ['rdx', 0x310],
    ['rbx', 0x318],
    ['r8', 0x340],
    ['sw_exit_code', 0x390],
    ['sw_exit_info_1', 0x398],
    ['sw_exit_info_2', 0x3a0],
    ['sw_scratch', 0x3a8],
    ['xcr0', 0x3e8],
    ['valid_bitmap', 0x3f0],
    ['shared_buffer', 0x800],
    ['protocol_version', 0xffa],
    ['ghcb_usage', 0xffc],
  ] as const)('%s is at 0x%s', (name, offset) => expect(GHCB.field(name).offset).toBe(offset));

  it('marks a field by bit offset/8 of the bitmap', () => {
    const page = new Uint8Array(4096);
    const ghcb = new GhcbView(page);
    ghcb.set('rax', 0x1122n);
    expect(page[0x3f0 + (0x1f8 >> 6)]).toBe(1 << ((0x1f8 >> 3) & 7));
    expect(ghcb.isValid('rax')).toBe(true);
    expect(ghcb.isValid('rcx')).toBe(false);
    expect(ghcb.get('rax')).toBe(0x1122n);
    ghcb.put('rcx', 1n);
    expect(ghcb.isValid('rcx')).toBe(false);
    ghcb.clearValid();
    expect(ghcb.isValid('rax')).toBe(false);
  });

  it('reads a page state change entry (§4.1.6)', () => {
    expect(pageStateEntry((1n << 56n) | (2n << 52n) | 0x1234_5600_0000n | 5n)).toEqual({
      currentPage: 5,
      gpa: 0x1234_5600_0000,
      operation: 2,
      large: true,
    });
  });

  // §2.3.1: a response is the request's number plus or minus one, as the table has it.
  it('numbers the MSR protocol', () => {
    expect(GHCB_MSR).toMatchObject({
      SEV_INFO_RESPONSE: 1,
      SEV_INFO_REQUEST: 2,
      CPUID_REQUEST: 4,
      REGISTER_GPA_REQUEST: 0x12,
      PAGE_STATE_CHANGE_REQUEST: 0x14,
      RUN_VMPL_REQUEST: 0x16,
      HV_FEATURES_REQUEST: 0x80,
      TERMINATE_REQUEST: 0x100,
    });
  });
  it('knows what termination reasons mean', () => {
    expect(terminationMeaning(0, 1)).toMatch(/protocol/);
    expect(terminationMeaning(1, 3)).toMatch(/VMPL0/);
    expect(terminationMeaning(7, 9)).toBe('reason code 9 of set 7');
  });
});

describe('CPUID page (SEV-SNP Firmware ABI, CPUID_FUNCTION)', () => {
  const row = { leaf: 0xd, subleaf: 1, xcr0: 1n, xss: 2n, eax: 3, ebx: 0xffff_ffff, ecx: 5, edx: 6 };
  it('is a 16-byte header and 48-byte functions', () => {
    const page = encodeCpuidPage([{ ...row, leaf: 1 }, row]);
    expect(page.length).toBe(4096);
    expect(page[0]).toBe(2);
    expect(CPUID_FUNCTION.size).toBe(48);
    // Linux, struct snp_cpuid_fn: eax_in 0, ecx_in 4, xcr0_in 8, xss_in 16, eax 24, ebx 28, ecx 32, edx 36.
    expect(new DataView(page.buffer).getUint32(16 + 48 + 28, true)).toBe(0xffff_ffff);
    expect(decodeCpuidPage(page)).toEqual([{ ...row, leaf: 1 }, row]);
  });
  it('refuses more than 64 functions, and reserved fields', () => {
    expect(() => encodeCpuidPage(Array.from({ length: 65 }, () => row))).toThrow(/64/);
    const page = encodeCpuidPage([row]);
    page[0] = 65;
    expect(() => decodeCpuidPage(page)).toThrow(/65/);
    page[0] = 1;
    page[16 + 40] = 1;
    expect(() => decodeCpuidPage(page)).toThrow(/reserved/);
    page[16 + 40] = 0;
    page[4] = 1;
    expect(() => decodeCpuidPage(page)).toThrow(/header/);
  });
});

describe('secrets page (SEV-SNP Firmware ABI, SECRETS)', () => {
  it('has the keys where a guest looks for them', () => {
    const key = (value: number): Uint8Array => new Uint8Array(32).fill(value);
    const page = encodeSecretsPage({
      vmpcks: [key(1), key(2), key(3), key(4)],
      familyModelStepping: 0xa00f11,
    });
    expect([page[0x20], page[0x40], page[0x60], page[0x80]]).toEqual([1, 2, 3, 4]);
    expect(new DataView(page.buffer).getUint32(8, true)).toBe(0xa00f11);
    // SVSM specification, table 5: the SVSM's fields start behind the VMSA tweak bitmap.
    expect(SECRETS_PAGE.field('SVSM_BASE').offset).toBe(0x140);
    expect(SECRETS_PAGE.field('SVSM_CAA').offset).toBe(0x150);
    expect(page.subarray(0x140).every((byte) => byte === 0)).toBe(true);
  });
});
