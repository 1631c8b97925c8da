/**
 * The two ways an instruction can end other than by retiring. Both are thrown through generated
 * code, always before the instruction's first side effect, and caught in one place (`engine.ts`).
 */

/** Exception vectors (APM vol. 2, §8.2). */
export const VECTOR = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XF: 19,
  CP: 21,
  HV: 28,
  VC: 29,
  SX: 30,
} as const;

export const VECTOR_NAMES: Readonly<Record<number, string>> = Object.fromEntries(
  Object.entries(VECTOR).map(([name, vector]) => [vector, name === 'NMI' ? 'NMI' : `#${name}`]),
);

/** #PF error code bits (APM vol. 2, §8.4.2). */
export const PF = {
  P: 1,
  W: 2,
  U: 4,
  RSVD: 8,
  I: 0x10,
  PK: 0x20,
  SS: 0x40,
  /** The RMP refused the access. */
  RMP: 1 << 31,
} as const;

/** An exception or interrupt to be delivered through the guest's IDT (or IVT). */
export class GuestException {
  readonly vector: number;
  /** Pushed error code; undefined for vectors that push none. */
  readonly errorCode: number | undefined;
  /** Faulting linear address, for #PF. */
  readonly address: bigint | undefined;

  constructor(vector: number, errorCode?: number, address?: bigint) {
    this.vector = vector;
    this.errorCode = errorCode;
    this.address = address;
  }
}

export const generalProtection = (errorCode = 0): GuestException => new GuestException(VECTOR.GP, errorCode);
export const undefinedOpcode = (): GuestException => new GuestException(VECTOR.UD);

/**
 * The guest leaves to its host. A platform throws it; `vmm/` gives `detail` its meaning. `retire`
 * says whether rip has already been moved past the instruction (VMGEXIT, HLT) or stands on it
 * (nested page fault): the engine counts the instruction accordingly.
 */
export class VmExit {
  readonly reason: string;
  readonly retire: boolean;
  readonly detail: unknown;

  constructor(reason: string, retire: boolean, detail?: unknown) {
    this.reason = reason;
    this.retire = retire;
    this.detail = detail;
  }
}
