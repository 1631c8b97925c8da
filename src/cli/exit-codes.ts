/** What the command line returns; docs/cli.md has the same table. */
import type { MachineStop } from '../vmm/index.ts';

export const EXIT = {
  /** The guest's own success, or `--stop-at` was reached; for other commands: done. */
  success: 0,
  /** The guest ended with a failure of its own: GHCB termination request, failure code on port 0xf4. */
  guestFailure: 1,
  /** `diff`: the files differ; `check`: there are findings; `explain`: the digests differ, and why is known. */
  differs: 1,
  usage: 2,
  /** A file is missing, unreadable, damaged beyond use, or cannot be launched. */
  badFile: 3,
  /** Triple fault. */
  shutdown: 4,
  notImplemented: 5,
  /** `--max-instructions` was reached first. */
  budget: 6,
  /** Every vCPU is halted and nothing will wake one. */
  idle: 7,
  /** The host gave up, as KVM would: invalid save area, RMP violation. */
  hostError: 8,
  /** `explain`: the digests differ and nothing that was tried explains it. */
  unexplained: 9,
  /** A fault of this program. */
  internal: 70,
} as const;

/** What QEMU's isa-debug-exit makes of 0x10, which SVSM tests and our samples write on success. */
const DEBUG_EXIT_SUCCESS = 0x21;
/** isa-debug-exit's codes are odd: this is ACPI's power-off. */
const POWER_OFF = 0;

export function exitCodeOfStop(stop: MachineStop): number {
  switch (stop.reason) {
    case 'exit':
      return stop.exitCode === DEBUG_EXIT_SUCCESS || stop.exitCode === POWER_OFF
        ? EXIT.success
        : EXIT.guestFailure;
    case 'terminated':
      return EXIT.guestFailure;
    case 'shutdown':
      return EXIT.shutdown;
    case 'not-implemented':
      return EXIT.notImplemented;
    case 'idle':
      return EXIT.idle;
    case 'error':
      return EXIT.hostError;
    default:
      return EXIT.budget;
  }
}
