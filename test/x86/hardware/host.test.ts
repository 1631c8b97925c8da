/**
 * The engine against the processor this test runs on, in 64-, 32- and 16-bit code.
 * `CVM_CPU_CASES` sets the number of random cases, `CVM_CPU_SEED` the sequence; `CVM_CPU_FILE` names a
 * case file to run beside them (that needs no particular host).
 */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { describeCase, differences } from './case.ts';
import type { Bits, Case, Outcome } from './case.ts';
import { readCase, writeCase } from './case-file.ts';
import { Emulated } from './emulated.ts';
import { randomCases } from './generate.ts';
import { nativeModes, runNative } from './native.ts';

const COUNT = Number(process.env.CVM_CPU_CASES ?? 12_000);
const SEED = Number(process.env.CVM_CPU_SEED ?? 1);
const FILE = process.env.CVM_CPU_FILE;
const BATCH = 10_000;
/** Half of the cases are 64-bit code. */
const SHARE = { 64: 0.5, 32: 0.25, 16: 0.25 } as const;

const modes = nativeModes();
for (const bits of [64, 32, 16] as const)
  if (!modes.includes(bits))
    console.warn(
      `NOT RUN: ${bits}-bit code cannot be compared with the host processor here (it needs Linux on x86-64${bits === 16 ? ' with modify_ldt' : ''}); nothing was checked.`,
    );

const compare = (pairs: readonly { case: Case; outcome: Outcome }[], emulated: Emulated): string[] => {
  const complaints: string[] = [];
  for (const { case: c, outcome } of pairs) {
    const found = differences(c, outcome, emulated.run(c));
    if (found.length > 0) complaints.push(`${describeCase(c)}: ${found.join(', ')}`);
  }
  return complaints;
};

describe.runIf(modes.length > 0)('the engine against the host processor', () => {
  it.each(modes)('does what the processor does in random %i-bit code', (bits: Bits) => {
    const count = Math.round(COUNT * SHARE[bits]);
    const cases = randomCases(SEED + bits, bits);
    const emulated = new Emulated();
    const complaints: string[] = [];
    for (let done = 0; done < count; done += BATCH) {
      const batch = Array.from({ length: Math.min(BATCH, count - done) }, () => cases.next());
      const truths = runNative(batch);
      complaints.push(
        ...compare(
          batch.map((c, i) => ({ case: c, outcome: truths[i]! })),
          emulated,
        ),
      );
    }
    expect(complaints.slice(0, 10)).toEqual([]);
    expect(complaints.length).toBe(0);
  });
});

if (FILE !== undefined)
  describe('the engine against a case file', () => {
    it(`does what ${FILE} says`, () => {
      expect(existsSync(FILE), `${FILE} does not exist`).toBe(true);
      const emulated = new Emulated();
      const pairs = readFileSync(FILE, 'utf8')
        .split('\n')
        .filter((line) => line.trim() !== '')
        .map(readCase)
        .filter((pair) => pair !== undefined);
      const complaints = compare(pairs, emulated);
      expect(complaints.slice(0, 20)).toEqual([]);
      expect(complaints.length).toBe(0);
    });
  });

it('writes case files it can read', () => {
  const c = randomCases(5).next();
  const outcome = new Emulated().run(c);
  const back = readCase(writeCase(c, outcome))!;
  expect(differences(back.case, back.outcome, outcome)).toEqual([]);
  expect(back.case.input).toEqual(c.input);
});
