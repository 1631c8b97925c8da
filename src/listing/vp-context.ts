import { hex, readField } from '../base/index.ts';
import type { Structure } from '../base/index.ts';
import { IGVM_NATIVE_VP_CONTEXT_X64, IGVM_VP_CONTEXT_AARCH64_CCA, dataOf } from '../igvm/index.ts';
import type { PlatformType, StructuredHeader } from '../igvm/index.ts';
import { VMSA, describeVmsaField } from '../snp/index.ts';
import type { Image } from './image.ts';

/** A field of a processor's first state, for display. */
export interface ContextField {
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  readonly value: bigint;
  /** The value in words: names of bits, kinds of segments. */
  readonly note?: string;
}

export interface VpContext {
  readonly table: Structure;
  /** Integer fields, in the order of the table. */
  readonly fields: readonly ContextField[];
}

const TABLES: Partial<Record<PlatformType, Structure>> = {
  NATIVE: IGVM_NATIVE_VP_CONTEXT_X64,
  SEV: IGVM_NATIVE_VP_CONTEXT_X64,
  SEV_ES: VMSA,
  SEV_SNP: VMSA,
  CCA: IGVM_VP_CONTEXT_AARCH64_CCA,
};

/** The decoded state of a VP_CONTEXT; `undefined` if its format is unknown or the data is not all there. */
export function vpContext(image: Image, header: StructuredHeader<'VP_CONTEXT'>): VpContext | undefined {
  const owner = image.platforms.find(({ mask }) => (mask & header.compatibilityMask) !== 0);
  const table = owner?.platform.platformType && TABLES[owner.platform.platformType];
  if (!table || !header.data || header.data.length < table.size) return undefined;
  const bytes = dataOf(image.file, header.data);
  const fields = table.fields.flatMap((field): ContextField[] => {
    if (field.type === 'bytes') return [];
    const { name, offset, size } = field;
    const value = readField(bytes, field);
    const note = table === VMSA ? describeVmsaField(name, value) : undefined;
    return [{ name, offset, size, value, ...(note === undefined ? {} : { note }) }];
  });
  return { table, fields };
}

/** The state in one line: mode and where the first instruction is. */
export function describeContext({ fields }: VpContext): string {
  const get = (name: string) => fields.find((field) => field.name.toLowerCase() === name)?.value;
  const pc = get('pc');
  if (pc !== undefined) return `AArch64, starts at ${hex(pc)}`;
  const cr0 = get('cr0') ?? 0n;
  const efer = get('efer') ?? 0n;
  const rip = get('rip') ?? 0n;
  const LONG_MODE_ACTIVE = 1n << 10n;
  const mode = !(cr0 & 1n)
    ? 'real mode'
    : efer & LONG_MODE_ACTIVE
      ? '64-bit long mode'
      : `32-bit protected mode${cr0 & (1n << 31n) ? ' with paging' : ''}`;
  return `${mode}, starts at ${hex(rip)}`;
}
