/** TCB_VERSION: the security patch levels of a platform, whose places differ between generations of processors. */
import { structure, readField } from '../base/index.ts';
import type { Structure } from '../base/index.ts';

/** Which chain of AMD certificates, and which layout of TCB_VERSION. Bergamo and Siena are Genoa here. */
export type Product = 'Milan' | 'Genoa' | 'Turin';

/** SEV-SNP Firmware ABI, "TCB_VERSION": families before Turin (CPUID family 19h). */
export const TCB_VERSION_MILAN = structure('TCB_VERSION', 8, [
  [0, 'BOOT_LOADER', 'u8'],
  [1, 'TEE', 'u8'],
  [2, 'RESERVED_2', 4],
  [6, 'SNP', 'u8'],
  [7, 'MICROCODE', 'u8'],
]);
/** The same, for Turin (CPUID family 1Ah). */
export const TCB_VERSION_TURIN = structure('TCB_VERSION', 8, [
  [0, 'FMC', 'u8'],
  [1, 'BOOT_LOADER', 'u8'],
  [2, 'TEE', 'u8'],
  [3, 'SNP', 'u8'],
  [4, 'RESERVED_4', 3],
  [7, 'MICROCODE', 'u8'],
]);

export const tcbTable = (product: Product): Structure =>
  product === 'Turin' ? TCB_VERSION_TURIN : TCB_VERSION_MILAN;

/** Security patch levels. */
export interface TcbLevels {
  /** Firmware of the chip's first stage; Turin only. */
  readonly fmc: number | undefined;
  readonly bootLoader: number;
  readonly tee: number;
  readonly snp: number;
  readonly microcode: number;
}

export interface TcbVersion extends TcbLevels {
  /** Whether a reserved byte is set: a hint that the layout is not the right one. */
  readonly reservedSet: boolean;
}

export function decodeTcb(raw: bigint, product: Product): TcbVersion {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, raw, true);
  const table = tcbTable(product);
  const get = (name: string): number => Number(readField(bytes, table.field(name)));
  const reserved = table.fields.filter(({ name }) => name.startsWith('RESERVED'));
  return {
    fmc: product === 'Turin' ? get('FMC') : undefined,
    bootLoader: get('BOOT_LOADER'),
    tee: get('TEE'),
    snp: get('SNP'),
    microcode: get('MICROCODE'),
    reservedSet: reserved.some(({ offset, size }) =>
      bytes.subarray(offset, offset + size).some((byte) => byte !== 0),
    ),
  };
}

/** `boot loader 3, TEE 0, SNP 20, microcode 209`. */
export function tcbWords(tcb: TcbLevels): string {
  const fmc = tcb.fmc === undefined ? '' : `FMC ${tcb.fmc}, `;
  return `${fmc}boot loader ${tcb.bootLoader}, TEE ${tcb.tee}, SNP ${tcb.snp}, microcode ${tcb.microcode}`;
}

/**
 * The product of a CPUID family and model, both with their extended parts; `undefined` if no SNP product is known by
 * them.
 */
export function productOfCpuid(family: number, model: number): Product | undefined {
  if (family === 0x19 && model <= 0x0f) return 'Milan';
  if (family === 0x19 && ((model >= 0x10 && model <= 0x1f) || (model >= 0xa0 && model <= 0xaf)))
    return 'Genoa';
  return family === 0x1a && model <= 0x1f ? 'Turin' : undefined;
}
