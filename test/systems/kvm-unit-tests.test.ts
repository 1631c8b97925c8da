/**
 * kvm-unit-tests, built outside the repository (`CVM_CORPUS=dir` holds a checkout `kvm-unit-tests` with
 * x86/*.flat): each image of the pass list ends with success, with at least as many passes, and no failure.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { createPlainMachine } from '../../src/vmm/index.ts';
import list from './kvm-unit-tests.json' with { type: 'json' };

interface Listed {
  readonly image: string;
  readonly pass: number;
  readonly vcpus?: number;
  readonly arguments?: string;
  /** Why the count differs from QEMU TCG's. */
  readonly note?: string;
}

const corpus = process.env.CVM_CORPUS;
const folder = corpus === undefined ? undefined : join(corpus, 'kvm-unit-tests', 'x86');
const present = folder !== undefined && existsSync(folder);
if (!present) console.warn('CVM_CORPUS has no kvm-unit-tests: they are not run');
/** isa-debug-exit of 0. */
const SUCCESS = 1;
const MOST = 3_000_000_000;

describe.runIf(present)('kvm-unit-tests', () => {
  it.each(list as readonly Listed[])(
    '$image',
    { timeout: 900_000 },
    ({ image, pass, vcpus = 1, ...rest }) => {
      let text = '';
      const machine = createPlainMachine({
        kernel: new Uint8Array(readFileSync(join(folder!, `${image}.flat`))),
        commandLine: rest.arguments ?? '',
        vcpus,
        memory: 512 << 20,
        onConsole: (port, bytes) => {
          if (port === 0x3f8) text += new TextDecoder().decode(bytes);
        },
      });
      let stop;
      do stop = machine.run(10_000_000);
      while (stop.reason === 'budget' && machine.retired < MOST);
      expect(text.match(/^FAIL.*/gm) ?? []).toEqual([]);
      expect({ reason: stop.reason, exitCode: stop.exitCode, message: stop.message }).toMatchObject({
        reason: 'exit',
        exitCode: SUCCESS,
      });
      expect(text.match(/^PASS/gm)?.length ?? 0).toBeGreaterThanOrEqual(pass);
    },
  );
});
