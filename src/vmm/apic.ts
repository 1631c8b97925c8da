/**
 * A local APIC in x2APIC mode, as far as a guest without timers and devices needs one, and the #HV doorbell
 * through which a guest with restricted injection gets its interrupts (GHCB spec. 2.04, §5 "#HV").
 * State is the host's, one for each vCPU and VMPL.
 */
import { NotImplemented, hex } from '../base/index.ts';

export const MSR_APIC_BASE = 0x1b;
export const MSR_X2APIC_FIRST = 0x800;
export const MSR_X2APIC_LAST = 0x83f;

/** x2APIC registers: MSR 0x800 + offset / 16 (APM vol. 2, table 16-6). */
const REGISTER = {
  id: 0x802,
  version: 0x803,
  tpr: 0x808,
  ppr: 0x80a,
  eoi: 0x80b,
  logicalId: 0x80d,
  spurious: 0x80f,
  esr: 0x828,
  icr: 0x830,
  timer: 0x832,
  initialCount: 0x838,
  currentCount: 0x839,
  selfIpi: 0x83f,
} as const;
const LVT_MASKED = 0x1_0000n;

/** An interprocessor interrupt as the ICR asks for it. */
export interface InterprocessorInterrupt {
  readonly vector: number;
  /** 0 fixed, 4 NMI, 5 INIT, 6 startup. */
  readonly mode: number;
  /** `undefined`: by destination. */
  readonly shorthand: 'self' | 'all' | 'others' | undefined;
  readonly logical: boolean;
  readonly destination: number;
}

export function decodeIcr(icr: bigint): InterprocessorInterrupt {
  const shorthand = ([undefined, 'self', 'all', 'others'] as const)[Number((icr >> 18n) & 3n)];
  return {
    vector: Number(icr & 0xffn),
    mode: Number((icr >> 8n) & 7n),
    logical: ((icr >> 11n) & 1n) !== 0n,
    shorthand,
    destination: Number((icr >> 32n) & 0xffff_ffffn),
  };
}

/** Logical x2APIC ID: cluster in the upper half, one bit in the lower. */
export const logicalId = (apicId: number): number => ((apicId >> 4) << 16) | (1 << (apicId & 15));

/** Byte offsets of the doorbell page. */
const DOORBELL = { vector: 0, flags: 1, noEoiRequired: 2 } as const;
const NO_FURTHER_SIGNAL = 0x80;

export class LocalApic {
  readonly apicId: number;
  readonly #send: (interrupt: InterprocessorInterrupt) => void;
  readonly #requested = new Set<number>();
  readonly #inService = new Set<number>();
  readonly #stored = new Map<number, bigint>();
  #base: bigint;
  /** A shared page was registered: interrupts go through it, signalled by #HV. */
  doorbellGpa: number | undefined;
  /** #HV is to be injected at the next entry. */
  signalPending = false;

  constructor(apicId: number, send: (interrupt: InterprocessorInterrupt) => void) {
    this.apicId = apicId;
    this.#send = send;
    this.#base = 0xfee0_0800n | (apicId === 0 ? 0x100n : 0n);
  }

  get hasRequest(): boolean {
    return this.#requested.size > 0;
  }

  request(vector: number): void {
    this.#requested.add(vector);
  }

  /** Undefined: the MSR does not exist (the guest gets #GP). */
  readMsr(index: number): bigint | undefined {
    switch (index) {
      case MSR_APIC_BASE:
        return this.#base;
      case REGISTER.id:
        return BigInt(this.apicId);
      case REGISTER.version:
        return 0x5_0014n;
      case REGISTER.logicalId:
        return BigInt(logicalId(this.apicId) >>> 0);
      case REGISTER.spurious:
        return this.#stored.get(index) ?? 0xffn;
      case REGISTER.currentCount:
        return 0n;
      case REGISTER.eoi:
      case REGISTER.selfIpi:
        return undefined;
      default:
        if (index >= 0x810 && index <= 0x827) return this.#bitmap(index);
        return this.#stored.get(index) ?? 0n;
    }
  }

  /** False: the guest gets #GP. */
  writeMsr(index: number, value: bigint): boolean {
    switch (index) {
      case MSR_APIC_BASE:
        this.#base = value;
        return true;
      case REGISTER.id:
      case REGISTER.version:
      case REGISTER.ppr:
      case REGISTER.logicalId:
      case REGISTER.currentCount:
        return false;
      case REGISTER.eoi:
        this.endOfInterrupt();
        return true;
      case REGISTER.icr:
        this.#stored.set(index, value);
        this.#send(decodeIcr(value));
        return true;
      case REGISTER.selfIpi:
        this.request(Number(value & 0xffn));
        return true;
      case REGISTER.initialCount: {
        const timer = this.#stored.get(REGISTER.timer) ?? LVT_MASKED;
        if (value !== 0n && (timer & LVT_MASKED) === 0n)
          throw new NotImplemented(`the APIC timer (LVT ${hex(timer)}, initial count ${hex(value)})`);
        this.#stored.set(index, value);
        return true;
      }
      default:
        this.#stored.set(index, value);
        return true;
    }
  }

  #bitmap(index: number): bigint {
    const set = index < 0x818 ? this.#inService : index < 0x820 ? new Set<number>() : this.#requested;
    const word = (index & 7) * 32;
    let value = 0n;
    for (const vector of set) if (vector >= word && vector < word + 32) value |= 1n << BigInt(vector - word);
    return value;
  }

  endOfInterrupt(): void {
    const highest = Math.max(-1, ...this.#inService);
    this.#inService.delete(highest);
  }

  /**
   * Takes the highest vector above the task priority for direct delivery.
   * @param taskPriority CR8.
   */
  acknowledge(taskPriority: number): number | undefined {
    const highest = Math.max(-1, ...this.#requested);
    const serving = Math.max(-1, ...this.#inService);
    if (highest < 16 || highest >> 4 <= taskPriority || highest >> 4 <= serving >> 4) return undefined;
    this.#requested.delete(highest);
    this.#inService.add(highest);
    return highest;
  }

  /**
   * Puts the highest request into the doorbell page. The guest takes it by exchanging the vector with 0; an EOI
   * is required only while more requests wait.
   */
  ring(page: Uint8Array): void {
    if (this.#requested.size === 0) return;
    const highest = Math.max(...this.#requested);
    const shown = page[DOORBELL.vector]!;
    if (shown >= highest) {
      page[DOORBELL.noEoiRequired] = 0;
      return;
    }
    this.#requested.delete(highest);
    if (shown !== 0) this.#requested.add(shown);
    page[DOORBELL.vector] = highest;
    page[DOORBELL.noEoiRequired] = this.#requested.size === 0 ? 1 : 0;
    if ((page[DOORBELL.flags]! & NO_FURTHER_SIGNAL) === 0) {
      page[DOORBELL.flags]! |= NO_FURTHER_SIGNAL;
      this.signalPending = true;
    }
  }
}
