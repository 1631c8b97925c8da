/**
 * The reverse map table (APM vol. 2, §15.36.3-15.36.5). Hardware indexes it by system-physical page; this
 * machine backs each guest page by one private page, so it is indexed by guest-physical page here and the
 * ASID and GPA of an entry always match.
 */
import { CvmError, hex } from '../base/index.ts';

const PAGE = 4096;
const PAGES_PER_CHUNK = 512;
export const LARGE_PAGE = 0x20_0000;

/** VMPL permissions, as RMPADJUST takes them in RDX[15:8] (APM vol. 2, table 15-39). */
export const VMPL_PERMISSION = {
  read: 1,
  write: 2,
  executeUser: 4,
  executeSupervisor: 8,
  supervisorShadowStack: 16,
} as const;
/** Everything VMPL0 gets with an assigned page. */
export const FULL_PERMISSIONS = 0x1f;
const PERMISSION_BITS = 5;

/** Entry as one number: four times five permission bits, then these. */
const BIT = {
  assigned: 1 << 20,
  validated: 1 << 21,
  vmsa: 1 << 22,
  immutable: 1 << 23,
  large: 1 << 24,
} as const;

export interface RmpEntry {
  /** Belongs to the guest (its ASID), not to the hypervisor. */
  readonly assigned: boolean;
  readonly validated: boolean;
  readonly vmsa: boolean;
  /** Owned by the secure firmware; nobody may change it. */
  readonly immutable: boolean;
  readonly pageSize: 4096 | typeof LARGE_PAGE;
  /** `VMPL_PERMISSION` bits of VMPL0 to VMPL3. */
  readonly permissions: readonly [number, number, number, number];
}

/** Return codes of PVALIDATE, RMPADJUST and RMPQUERY in EAX (APM vol. 3), and of RMPUPDATE, PSMASH. */
export const RMP_RESULT = {
  success: 0,
  failInput: 1,
  failPermission: 2,
  failInUse: 3,
  failOverlap: 4,
  failSizeMismatch: 6,
} as const;
export type RmpResult = (typeof RMP_RESULT)[keyof typeof RMP_RESULT];

export interface RmpUpdate {
  readonly assigned: boolean;
  readonly large?: boolean;
  readonly immutable?: boolean;
}

const DECODE_EMPTY: RmpEntry = {
  assigned: false,
  validated: false,
  vmsa: false,
  immutable: false,
  pageSize: PAGE,
  permissions: [0, 0, 0, 0],
};

export class Rmp {
  readonly #chunks = new Map<number, Uint32Array>();

  /** The entry of the page at `gpa` as a number; 0: hypervisor-owned. */
  raw(gpa: number): number {
    const chunk = this.#chunks.get(Math.floor(gpa / LARGE_PAGE));
    return chunk === undefined ? 0 : chunk[Math.floor(gpa / PAGE) % PAGES_PER_CHUNK]!;
  }
  entry(gpa: number): RmpEntry {
    const raw = this.raw(gpa);
    if (raw === 0) return DECODE_EMPTY;
    return {
      assigned: (raw & BIT.assigned) !== 0,
      validated: (raw & BIT.validated) !== 0,
      vmsa: (raw & BIT.vmsa) !== 0,
      immutable: (raw & BIT.immutable) !== 0,
      pageSize: (raw & BIT.large) !== 0 ? LARGE_PAGE : PAGE,
      permissions: [
        permissionsOf(raw, 0),
        permissionsOf(raw, 1),
        permissionsOf(raw, 2),
        permissionsOf(raw, 3),
      ],
    };
  }

  isAssigned(gpa: number): boolean {
    return (this.raw(gpa) & BIT.assigned) !== 0;
  }
  isValidated(gpa: number): boolean {
    return (this.raw(gpa) & BIT.validated) !== 0;
  }
  isVmsa(gpa: number): boolean {
    return (this.raw(gpa) & BIT.vmsa) !== 0;
  }
  isLarge(gpa: number): boolean {
    return (this.raw(gpa) & BIT.large) !== 0;
  }
  permissions(gpa: number, vmpl: number): number {
    return permissionsOf(this.raw(gpa), vmpl);
  }

  /** Start of the page the entry describes: of its 2 MiB if it is a large one. */
  #span(gpa: number, large: boolean): { chunk: Uint32Array; from: number; to: number } {
    const index = Math.floor(gpa / LARGE_PAGE);
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      chunk = new Uint32Array(PAGES_PER_CHUNK);
      this.#chunks.set(index, chunk);
    }
    const page = Math.floor(gpa / PAGE) % PAGES_PER_CHUNK;
    return large ? { chunk, from: 0, to: PAGES_PER_CHUNK } : { chunk, from: page, to: page + 1 };
  }

  /**
   * RMPUPDATE, the hypervisor's instruction: assigns a page to the guest, or takes it back. Either way the
   * page ends up not validated, VMPL0 with all permissions and the others with none (APM vol. 3, RMPUPDATE).
   */
  update(gpa: number, to: RmpUpdate): RmpResult {
    const large = to.large === true;
    if (gpa % (large ? LARGE_PAGE : PAGE) !== 0) return RMP_RESULT.failInput;
    const old = this.raw(gpa);
    // A 4 KiB change inside an assigned 2 MiB page, or the reverse, overlaps: the host must PSMASH first.
    if (!large && old & BIT.large) return RMP_RESULT.failOverlap;
    const { chunk, from, to: end } = this.#span(gpa, large);
    if (large)
      for (let i = from; i < end; i++)
        if (chunk[i]! & BIT.assigned && !(chunk[i]! & BIT.large)) return RMP_RESULT.failOverlap;
    const entry = to.assigned
      ? BIT.assigned | FULL_PERMISSIONS | (large ? BIT.large : 0) | (to.immutable ? BIT.immutable : 0)
      : 0;
    chunk.fill(entry, from, end);
    return RMP_RESULT.success;
  }

  /** PSMASH: one 2 MiB entry becomes 512 entries of 4 KiB with its attributes (APM vol. 3, PSMASH). */
  psmash(gpa: number): RmpResult {
    const base = gpa - (gpa % LARGE_PAGE);
    if (!this.isLarge(base)) return RMP_RESULT.failInput;
    const { chunk } = this.#span(base, true);
    for (let i = 0; i < PAGES_PER_CHUNK; i++) chunk[i] = chunk[i]! & ~BIT.large;
    return RMP_RESULT.success;
  }

  /** Sets the Validated bit of a page, or of the 2 MiB page it belongs to. The caller has checked. */
  setValidated(gpa: number, validated: boolean): void {
    const { chunk, from, to } = this.#span(gpa, this.isLarge(gpa));
    for (let i = from; i < to; i++)
      chunk[i] = validated ? chunk[i]! | BIT.validated : chunk[i]! & ~BIT.validated;
  }
  setPermissions(gpa: number, vmpl: number, permissions: number): void {
    const { chunk, from, to } = this.#span(gpa, this.isLarge(gpa));
    const mask = FULL_PERMISSIONS << (vmpl * PERMISSION_BITS);
    const value = (permissions & FULL_PERMISSIONS) << (vmpl * PERMISSION_BITS);
    for (let i = from; i < to; i++) chunk[i] = (chunk[i]! & ~mask) | value;
  }
  setVmsa(gpa: number, vmsa: boolean): void {
    const { chunk, from } = this.#span(gpa, false);
    chunk[from] = vmsa ? chunk[from]! | BIT.vmsa : chunk[from]! & ~BIT.vmsa;
  }
  /** What the secure firmware does to a page it takes in or hands over: Immutable off, Validated as given. */
  release(gpa: number, validated: boolean): void {
    const { chunk, from } = this.#span(gpa, false);
    if ((chunk[from]! & BIT.assigned) === 0)
      throw new CvmError('rmp-state', `page ${hex(gpa)} is not assigned to the guest`, { gpa: BigInt(gpa) });
    const entry = chunk[from]! & ~(BIT.immutable | BIT.validated);
    chunk[from] = validated ? entry | BIT.validated : entry;
  }

  /** Start addresses of the 2 MiB areas that have an entry, ascending. */
  areas(): number[] {
    return [...this.#chunks.keys()].sort((a, b) => a - b).map((index) => index * LARGE_PAGE);
  }
}

const permissionsOf = (raw: number, vmpl: number): number =>
  (raw >>> (vmpl * PERMISSION_BITS)) & FULL_PERMISSIONS;

/** `RWXu Xs`: permissions for a person. */
export function permissionText(permissions: number): string {
  const letters = [
    permissions & VMPL_PERMISSION.read ? 'r' : '-',
    permissions & VMPL_PERMISSION.write ? 'w' : '-',
    permissions & VMPL_PERMISSION.executeUser ? 'u' : '-',
    permissions & VMPL_PERMISSION.executeSupervisor ? 'x' : '-',
  ];
  return letters.join('');
}
