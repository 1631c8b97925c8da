/** A few thousand mutants of each parser in every run; `npm run fuzz` runs as many as wanted. */
import { describe, expect, it } from 'vitest';
import { TARGETS, fuzz } from './targets.ts';

describe('damaged inputs are read or refused with a CvmError', () => {
  it.each(Object.keys(TARGETS))('%s: 3,000 mutants', (name) => {
    expect(fuzz(name, 3000)).toBeGreaterThan(300);
  });
});
