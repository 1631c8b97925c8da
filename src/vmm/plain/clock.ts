/**
 * Guest time. It is retired instructions, scaled, plus the jumps over idle time: nothing else moves it.
 * Devices compute their counters from it and name the moment they next have something to do.
 */

/** How long one instruction takes: the guest sees a processor of 250 million instructions a second. */
export const NS_PER_INSTRUCTION = 4;
/** The time-stamp counter's and the local APIC timer's frequency (KVM's APIC bus has it too): one tick a nanosecond. */
export const TSC_HZ = 1_000_000_000;

export interface Clock {
  /** Nanoseconds since the machine's start, exact where a device is accessed. */
  now(): number;
  /** A deadline or an interrupt line changed: the run must be looked at again at the next instruction. */
  changed(): void;
}

/** Something that acts by itself at a moment. */
export interface Timed {
  /** When it next acts, in nanoseconds; Infinity: never. */
  deadline(): number;
  /** Does what is due. */
  advance(now: number): void;
}
