/**
 * The engine against the processor this test runs on. `CVM_CPU_CASES` sets the number of random
 * cases, `CVM_CPU_SEED` the first of the sequence.
 */
import { describe, expect, it } from 'vitest';
import { describeCase, differences } from './case.ts';
import type { Case } from './case.ts';
import { Emulated } from './emulated.ts';
import { randomCases } from './generate.ts';
import { nativeAvailable, runNative } from './native.ts';

const COUNT = Number(process.env.CVM_CPU_CASES ?? 12_000);
const SEED = Number(process.env.CVM_CPU_SEED ?? 1);
const BATCH = 10_000;

const available = nativeAvailable();
if (!available)
  console.warn(
    'NOT RUN: the comparison with the host processor needs Linux on x86-64; nothing was checked here.',
  );

describe.runIf(available)('the engine against the host processor', () => {
  it(`does what the processor does in ${COUNT} random cases`, () => {
    const cases = randomCases(SEED);
    const emulated = new Emulated();
    const complaints: string[] = [];
    let wrong = 0;
    for (let done = 0; done < COUNT;) {
      const batch: Case[] = [];
      while (batch.length < BATCH && done + batch.length < COUNT) batch.push(cases.next());
      const truths = runNative(batch);
      batch.forEach((c, i) => {
        const found = differences(c, truths[i]!, emulated.run(c));
        if (found.length === 0) return;
        wrong++;
        if (complaints.length < 10) complaints.push(`${describeCase(c)}: ${found.join(', ')}`);
      });
      done += batch.length;
    }
    expect(complaints).toEqual([]);
    expect(wrong).toBe(0);
  });
});
