/** The outcome of verifying something, one line for each thing that was looked at. */

/**
 * `fail` makes the whole fail. `warning` is right as far as it goes, but somebody should look. `skipped` says what
 * was not verified, and why.
 */
export type CheckResult = 'pass' | 'fail' | 'warning' | 'skipped';

export interface Check {
  /** Stable identifier, e.g. `id-block-signature`. */
  readonly name: string;
  readonly result: CheckResult;
  /** A sentence. */
  readonly message: string;
}

export interface Verdict {
  /** No check failed. */
  readonly ok: boolean;
  readonly checks: readonly Check[];
}

/** Collects checks in the order they are made. */
export class Checks {
  readonly list: Check[] = [];

  add(name: string, result: CheckResult, message: string): CheckResult {
    this.list.push({ name, result, message });
    return result;
  }

  /** `pass` with one sentence or `fail` with the other; returns `ok`. */
  expect(name: string, ok: boolean, yes: string, no: string): boolean {
    this.add(name, ok ? 'pass' : 'fail', ok ? yes : no);
    return ok;
  }

  verdict(): Verdict {
    return { ok: this.list.every(({ result }) => result !== 'fail'), checks: this.list };
  }
}

export const equalBytes = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);
export const allZero = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0);
