/** Why a guest leaves to its host, or gets a #VC: SVM exit codes (APM vol. 2, appendix C). */

export const EXIT = {
  READ_DR7: 0x27,
  WRITE_DR7: 0x37,
  EXCP_DB: 0x41,
  EXCP_AC: 0x51,
  INTR: 0x60,
  NMI: 0x61,
  VINTR: 0x64,
  RDTSC: 0x6e,
  RDPMC: 0x6f,
  CPUID: 0x72,
  INVD: 0x76,
  PAUSE: 0x77,
  HLT: 0x78,
  IOIO: 0x7b,
  MSR: 0x7c,
  SHUTDOWN: 0x7f,
  VMMCALL: 0x81,
  RDTSCP: 0x87,
  WBINVD: 0x89,
  MONITOR: 0x8a,
  MWAIT: 0x8b,
  MWAIT_CONDITIONAL: 0x8c,
  XSETBV: 0x8d,
  RDPRU: 0x8e,
  EFER_WRITE_TRAP: 0x8f,
  NPF: 0x400,
  VMGEXIT: 0x403,
  /** #VC only: a private access to a page that is not validated (APM vol. 2, §15.36.7). */
  PAGE_NOT_VALIDATED: 0x404,
} as const;

const NAMES: Readonly<Record<number, string>> = {
  ...Object.fromEntries(Object.entries(EXIT).map(([name, code]) => [code, name])),
  0x52: 'EXCP_MC',
  0x62: 'SMI',
  0x63: 'INIT',
  0x80: 'VMRUN',
};

/** Non-automatic events that exist only in software (GHCB spec. 2.04, table 7). */
export const SW_EXIT = {
  MMIO_READ: 0x8000_0001,
  MMIO_WRITE: 0x8000_0002,
  NMI_COMPLETE: 0x8000_0003,
  AP_RESET_HOLD: 0x8000_0004,
  AP_JUMP_TABLE: 0x8000_0005,
  SNP_PAGE_STATE_CHANGE: 0x8000_0010,
  SNP_GUEST_REQUEST: 0x8000_0011,
  SNP_EXTENDED_GUEST_REQUEST: 0x8000_0012,
  SNP_AP_CREATION: 0x8000_0013,
  HV_DOORBELL_PAGE: 0x8000_0014,
  HV_IPI: 0x8000_0015,
  HV_TIMER: 0x8000_0016,
  APIC_ID_LIST: 0x8000_0017,
  SNP_RUN_VMPL: 0x8000_0018,
  CONFIGURE_INTERRUPT_INJECTION: 0x8000_001b,
  DISABLE_ALTERNATE_INJECTION: 0x8000_001c,
  SPECIFIC_EOI: 0x8000_001d,
  HV_FEATURES: 0x8000_fffd,
  TERMINATE: 0x8000_fffe,
  UNSUPPORTED_EVENT: 0x8000_ffff,
} as const;

const SW_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(SW_EXIT).map(([name, code]) => [code, name]),
);

/** `CPUID (0x72)`, `SNP_AP_CREATION (0x80000013)`; the number alone where it has no name. */
export function exitCodeName(code: number): string {
  const text = `0x${code.toString(16)}`;
  let name = NAMES[code] ?? SW_NAMES[code];
  if (name === undefined && code >= 0 && code < 0x40) {
    const kind = code < 0x20 ? 'CR' : 'DR';
    name = `${code & 0x10 ? 'WRITE' : 'READ'}_${kind}${code & 0xf}`;
  }
  if (name === undefined && code >= 0x40 && code < 0x60) name = `EXCP_${code - 0x40}`;
  if (name === undefined && code >= 0x90 && code < 0xa0) name = `CR${code - 0x90}_WRITE_TRAP`;
  return name === undefined ? text : `${name} (${text})`;
}
