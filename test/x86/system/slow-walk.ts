/**
 * A second page walker, slow and obvious: one table of entry formats copied from the figures of APM
 * vol. 2, chapter 5, read field by field. The property tests compare the real one with it.
 */
export interface Setup {
  readonly mode: '32-bit' | 'pae' | 'long';
  readonly cr3: bigint;
  readonly pse: boolean;
  readonly pge: boolean;
  readonly nxe: boolean;
  readonly wp: boolean;
  readonly smep: boolean;
  readonly smap: boolean;
  readonly pke: boolean;
  readonly ac: boolean;
  readonly cpl: number;
  readonly pkru: number;
  readonly physicalBits: number;
  readonly encryptionBit: number | undefined;
}

export type Outcome =
  | { fault: 'gp' }
  | { fault: 'pf'; code: number }
  | {
      fault?: undefined;
      gpa: bigint;
      encrypted: boolean;
      pageSize: number;
      /** Entries whose A or D bit is set by this access: address to new value. */
      updates: Map<bigint, bigint>;
      writable: boolean;
      user: boolean;
      executable: boolean;
      dirty: boolean;
    };

const bit = (value: bigint, n: number): boolean => ((value >> BigInt(n)) & 1n) === 1n;
const field = (value: bigint, high: number, low: number): bigint =>
  (value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);

interface Level {
  readonly name: string;
  /** Bits of the linear address that index the table. */
  readonly index: readonly [high: number, low: number];
  /** Bits that must be zero in an entry that names a table, and in one that maps a page. */
  readonly tableMbz: readonly (readonly [number, number])[];
  readonly pageMbz: readonly (readonly [number, number])[];
  /** Bit 7 makes it a page. */
  readonly large: boolean;
}

const FORMATS: Record<Setup['mode'], readonly Level[]> = {
  // Figures 5-21 to 5-24.
  long: [
    { name: 'PML4E', index: [47, 39], tableMbz: [[8, 7]], pageMbz: [], large: false },
    { name: 'PDPE', index: [38, 30], tableMbz: [[8, 8]], pageMbz: [[29, 13]], large: true },
    { name: 'PDE', index: [29, 21], tableMbz: [], pageMbz: [[20, 13]], large: true },
    { name: 'PTE', index: [20, 12], tableMbz: [], pageMbz: [], large: false },
  ],
  // Figures 5-11 to 5-15.
  pae: [
    {
      name: 'PDPE',
      index: [31, 30],
      tableMbz: [
        [63, 52],
        [8, 5],
        [2, 1],
      ],
      pageMbz: [],
      large: false,
    },
    {
      name: 'PDE',
      index: [29, 21],
      tableMbz: [[62, 52]],
      pageMbz: [
        [62, 52],
        [20, 13],
      ],
      large: true,
    },
    { name: 'PTE', index: [20, 12], tableMbz: [], pageMbz: [[62, 52]], large: false },
  ],
  // Figures 5-5 to 5-8.
  '32-bit': [
    { name: 'PDE', index: [31, 22], tableMbz: [], pageMbz: [[21, 21]], large: true },
    { name: 'PTE', index: [21, 12], tableMbz: [], pageMbz: [], large: false },
  ],
};

export function slowWalk(
  setup: Setup,
  read: (gpa: bigint, size: number) => bigint,
  linearIn: bigint,
  access: 'read' | 'write' | 'execute',
  implicit: boolean,
): Outcome {
  const { mode } = setup;
  const linear = mode === 'long' ? linearIn : field(linearIn, 31, 0);
  if (mode === 'long') {
    const top = field(linear, 63, 47);
    if (top !== 0n && top !== 0x1ffffn) return { fault: 'gp' };
  }
  const userAccess = !implicit && setup.cpl === 3;
  const nx = setup.nxe && mode !== '32-bit';
  function code(present: number): number {
    let bits = present;
    if (access === 'write') bits |= 1 << 1;
    if (userAccess) bits |= 1 << 2;
    if (access === 'execute' && (nx || setup.smep)) bits |= 1 << 4;
    return bits;
  }
  const addressMask = (): bigint => {
    let mask = ((1n << BigInt(setup.physicalBits)) - 1n) & ~0xfffn;
    if (setup.encryptionBit !== undefined) mask &= ~(1n << BigInt(setup.encryptionBit));
    return mask;
  };
  const entrySize = mode === '32-bit' ? 4 : 8;
  let table =
    mode === 'long'
      ? setup.cr3 & addressMask()
      : mode === 'pae'
        ? setup.cr3 & 0xffff_ffe0n
        : setup.cr3 & 0xffff_f000n;
  const visited: { gpa: bigint; entry: bigint; name: string }[] = [];
  let rw = true;
  let us = true;
  let xd = false;
  for (const level of FORMATS[mode]) {
    const index = field(linear, level.index[0], level.index[1]);
    const gpa = table + index * BigInt(entrySize);
    const entry = read(gpa, entrySize);
    if (!bit(entry, 0)) return { fault: 'pf', code: code(0) };
    const isPage = level.name === 'PTE' || (level.large && bit(entry, 7) && (mode !== '32-bit' || setup.pse));
    let reserved = false;
    for (const [high, low] of isPage ? level.pageMbz : level.tableMbz)
      if (field(entry, high, low) !== 0n) reserved = true;
    if (mode !== '32-bit') {
      if (!nx && bit(entry, 63)) reserved = true;
      for (let i = setup.physicalBits; i < 52; i++)
        if (bit(entry, i) && i !== setup.encryptionBit) reserved = true;
      if (mode === 'pae' && level.name === 'PTE' && field(entry, 62, 52) !== 0n) reserved = true;
    }
    const base = code(1);
    if (reserved) return { fault: 'pf', code: base | (1 << 3) };
    visited.push({ gpa, entry, name: level.name });
    if (!(mode === 'pae' && level.name === 'PDPE')) {
      rw = rw && bit(entry, 1);
      us = us && bit(entry, 2);
      xd = xd || (nx && bit(entry, 63));
    }
    if (!isPage) {
      table = mode === '32-bit' ? entry & 0xffff_f000n : entry & addressMask();
      continue;
    }
    // Permissions (§5.6).
    const supervisor = !userAccess;
    if (userAccess && !us) return { fault: 'pf', code: base };
    if (access === 'execute') {
      if (xd) return { fault: 'pf', code: base };
      if (supervisor && us && setup.smep) return { fault: 'pf', code: base };
    } else {
      if (supervisor && us && setup.smap && (implicit || !setup.ac)) return { fault: 'pf', code: base };
      if (access === 'write' && !rw && (userAccess || setup.wp)) return { fault: 'pf', code: base };
      if (setup.pke && mode === 'long' && us) {
        const key = Number(field(entry, 62, 59));
        const ad = bit(BigInt(setup.pkru), key * 2);
        const wd = bit(BigInt(setup.pkru), key * 2 + 1);
        if (ad || (access === 'write' && wd && (userAccess || setup.wp)))
          return { fault: 'pf', code: base | (1 << 5) };
      }
    }
    const shift = level.index[1];
    const pageSize = 2 ** shift;
    const offset = field(linear, shift - 1, 0) & ~0xfffn;
    let frame: bigint;
    if (mode === '32-bit')
      frame =
        level.name === 'PTE' ? entry & 0xffff_f000n : (field(entry, 20, 13) << 32n) | (entry & 0xffc0_0000n);
    else frame = entry & addressMask() & ~(BigInt(pageSize) - 1n);
    const updates = new Map<bigint, bigint>();
    visited.forEach((each, i) => {
      if (mode === 'pae' && each.name === 'PDPE') return;
      const leaf = i === visited.length - 1;
      const next = each.entry | (1n << 5n) | (leaf && access === 'write' ? 1n << 6n : 0n);
      if (next !== each.entry) updates.set(each.gpa, next);
    });
    const c =
      setup.encryptionBit !== undefined &&
      (mode === '32-bit' || access === 'execute' || bit(entry, setup.encryptionBit));
    return {
      gpa: frame + offset,
      encrypted: c,
      pageSize,
      updates,
      writable: rw,
      user: us,
      executable: !xd,
      dirty: bit(entry, 6) || access === 'write',
    };
  }
  throw new Error('the last level maps a page');
}
