/** VMSA fields in words: bits by their names, for hovers and inspectors. */
import { exitCodeName } from './exit-codes.ts';

/** SEV_FEATURES, VMSA offset 0x3B0 (APM vol. 2, table B-4); SEV_STATUS has them shifted left by two. */
export const SEV_FEATURE = {
  SNPActive: 0,
  vTOM: 1,
  ReflectVC: 2,
  RestrictedInjection: 3,
  AlternateInjection: 4,
  DebugSwap: 5,
  PreventHostIBS: 6,
  SNPBTBIsolation: 7,
  VmplSSS: 8,
  SecureTSC: 9,
  VmgexitParameter: 10,
  PmcVirtualization: 11,
  IbsVirtualization: 12,
  GuestInterceptCtl: 13,
  VmsaRegProt: 14,
  SmtProtection: 15,
  SecureAvic: 16,
  IbpbOnEntry: 21,
} as const;

export const sevFeature = (name: keyof typeof SEV_FEATURE): bigint => 1n << BigInt(SEV_FEATURE[name]);

type Bits = readonly (readonly [bit: number, name: string])[];
const bits = (text: string): Bits =>
  text.split(' ').map((part) => {
    const [bit, name] = part.split(':');
    return [Number(bit), name!] as const;
  });

const CR0 = bits('0:PE 1:MP 2:EM 3:TS 4:ET 5:NE 16:WP 18:AM 29:NW 30:CD 31:PG');
const CR4 = bits(
  '0:VME 1:PVI 2:TSD 3:DE 4:PSE 5:PAE 6:MCE 7:PGE 8:PCE 9:OSFXSR 10:OSXMMEXCPT 11:UMIP 12:LA57 16:FSGSBASE 17:PCIDE 18:OSXSAVE 20:SMEP 21:SMAP 22:PKE 23:CET',
);
const EFER = bits(
  '0:SCE 8:LME 10:LMA 11:NXE 12:SVME 13:LMSLE 14:FFXSR 15:TCE 17:MCOMMIT 18:INTWB 20:UAIE 21:AIBRSE',
);
const RFLAGS = bits(
  '0:CF 2:PF 4:AF 6:ZF 7:SF 8:TF 9:IF 10:DF 11:OF 14:NT 16:RF 17:VM 18:AC 19:VIF 20:VIP 21:ID',
);
const XFEATURES = bits('0:x87 1:SSE 2:AVX 5:opmask 6:ZMM_Hi256 7:Hi16_ZMM 9:PKRU 11:CET_U 12:CET_S');
const DR7 = bits('0:L0 1:G0 2:L1 3:G1 4:L2 5:G2 6:L3 7:G3 8:LE 9:GE 10:reserved1 13:GD');
const DR6 = bits('0:B0 1:B1 2:B2 3:B3 13:BD 14:BS 15:BT');
const MXCSR = bits('0:IE 1:DE 2:ZE 3:OE 4:UE 5:PE 6:DAZ 7:IM 8:DM 9:ZM 10:OM 11:UM 12:PM 15:FZ 17:MM');
const FEATURES: Bits = Object.entries(SEV_FEATURE).map(([name, bit]) => [bit, name] as const);

const NAMED: Readonly<Record<string, Bits>> = {
  cr0: CR0,
  cr4: CR4,
  efer: EFER,
  rflags: RFLAGS,
  xcr0: XFEATURES,
  xss: XFEATURES,
  dr6: DR6,
  dr7: DR7,
  mxcsr: MXCSR,
  sev_features: FEATURES,
};

/** Bits that are always 1, or that are a number (IOPL): not worth a name. */
const FIXED: Readonly<Record<string, bigint>> = { rflags: 0x3002n, dr6: 0xffff_0ff0n, dr7: 0x400n };

/** Names of the set bits; a set bit without a name appears as `bit 27`. */
export function bitNames(value: bigint, table: Bits): string {
  const names: string[] = [];
  for (let bit = 0; value >> BigInt(bit) !== 0n; bit++)
    if ((value >> BigInt(bit)) & 1n) names.push(table.find(([b]) => b === bit)?.[1] ?? `bit ${bit}`);
  return names.join(' ') || 'none';
}

const PAT_TYPES = ['UC', 'WC', '?', '?', 'WT', 'WP', 'WB', 'UC-'];
const DATA_TYPES = ['read-only data', 'writable data', 'read-only expand-down', 'writable expand-down'];
const CODE_TYPES = ['execute-only code', 'readable code', 'execute-only conforming', 'readable conforming'];
const SYSTEM_TYPES: Readonly<Record<number, string>> = {
  1: '16-bit TSS',
  2: 'LDT',
  3: 'busy 16-bit TSS',
  9: 'TSS',
  11: 'busy TSS',
};

/** Segment attributes as the VMCB packs them: type 3:0, S 4, DPL 6:5, P 7, AVL 8, L 9, D/B 10, G 11. */
export function describeSegmentAttributes(attributes: number): string {
  if (attributes === 0) return 'unused';
  const parts: string[] = [];
  const type = attributes & 0xf;
  if (attributes & 0x10) {
    parts.push((type & 8 ? CODE_TYPES : DATA_TYPES)[(type >> 1) & 3]!);
    if (type & 1) parts.push('accessed');
  } else parts.push(SYSTEM_TYPES[type] ?? `system type ${type}`);
  parts.push(`DPL ${(attributes >> 5) & 3}`);
  parts.push(attributes & 0x80 ? 'present' : 'not present');
  if (attributes & 0x100) parts.push('AVL');
  if (attributes & 0x200) parts.push('64-bit');
  if (attributes & 0x400) parts.push('32-bit default');
  if (attributes & 0x800) parts.push('4 KiB granularity');
  return parts.join(', ');
}

const EVENT_TYPES = [
  'interrupt',
  'type 1',
  'NMI',
  'exception',
  'software interrupt',
  'type 5',
  'type 6',
  'type 7',
];

function describeEvent(value: bigint): string {
  if ((value & 0x8000_0000n) === 0n) return 'no event';
  const error = value & 0x800n ? `, error code 0x${(value >> 32n).toString(16)}` : '';
  return `${EVENT_TYPES[Number((value >> 8n) & 7n)]} vector ${value & 0xffn}${error}`;
}

function describeInterruptControl(value: bigint): string {
  const parts = [`TPR ${value & 0xffn}`];
  for (const [bit, name] of bits(
    '8:V_IRQ 9:VGIF 10:interrupt-shadow 11:V_NMI 12:V_NMI_MASK 20:V_IGN_TPR 63:BUSY',
  ))
    if ((value >> BigInt(bit)) & 1n) parts.push(name);
  const vector = (value >> 32n) & 0xffn;
  if (vector) parts.push(`vector ${vector}`);
  return parts.join(', ');
}

/** What the value of an integer VMSA field says, or undefined where the number says it all. */
export function describeVmsaField(name: string, value: bigint): string | undefined {
  const table = NAMED[name];
  if (table) {
    const text = bitNames(value & ~(FIXED[name] ?? 0n), table);
    return name === 'rflags' ? `${text}, IOPL ${(value >> 12n) & 3n}` : text;
  }
  if (name.endsWith('.attributes')) return describeSegmentAttributes(Number(value));
  switch (name) {
    case 'g_pat':
      return Array.from({ length: 8 }, (_, i) => PAT_TYPES[Number((value >> BigInt(8 * i)) & 7n)]).join(' ');
    case 'guest_exit_code':
      if (value === 0xffff_ffff_ffff_fffen) return 'busy';
      return value >> 32n ? 'invalid' : exitCodeName(Number(value));
    case 'event_inj':
    case 'guest_exit_int_info':
      return describeEvent(value);
    case 'vintr_ctrl':
      return describeInterruptControl(value);
    case 'virtual_tom':
      return value === 0n ? 'C-bit addressing' : `pages below 0x${value.toString(16)} are private`;
    case 'vmpl':
      return `VMPL${value}`;
    case 'cpl':
      return `ring ${value}`;
    default:
      return undefined;
  }
}
