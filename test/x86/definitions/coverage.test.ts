/** What the decoder names, the interpreter has: every form, size and mode of every instruction. */
import { describe, expect, it } from 'vitest';
import { decode, emptyMicroOp } from '../../../src/x86/decode/index.ts';
import { DEFINITIONS } from '../../../src/x86/definitions/index.ts';
import { UNDEFINED_FLAGS } from '../../../src/x86/definitions/undefined-flags.ts';
import { caseKey } from '../../../src/x86/handlers.ts';
import { HELPERS } from '../../../src/x86/helpers/index.ts';
import { generateInterpreter } from '../../../src/x86/interpreter.ts';
import { MODE } from '../../../src/x86/layout.ts';
import type { Mode } from '../../../src/x86/layout.ts';
import { generator, randomInstruction } from '../decode/random.ts';

const { bytes, handlers } = generateInterpreter(DEFINITIONS, 1024);

describe('definitions', () => {
  it('lower to a valid module', () => {
    expect(WebAssembly.validate(bytes as Uint8Array<ArrayBuffer>)).toBe(true);
  });

  it('have one name each', () => {
    const names = DEFINITIONS.map(({ name }) => name);
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([]);
    expect(names.filter((name) => HELPERS[name] !== undefined)).toEqual([]);
  });

  it('have a case for whatever the decoder names', () => {
    const random = generator(2024);
    const op = emptyMicroOp();
    const missing = new Set<string>();
    for (let i = 0; i < 300_000; i++) {
      const code = randomInstruction(random);
      const mode = (i % 3) as Mode;
      decode(code, 0, code.length, mode, 0, op);
      if (op.helper) continue;
      const found = [mode !== MODE.code64, false].some((legacy) =>
        [op.condition, 0].some((condition) =>
          handlers.has(caseKey(op.name, op.form, op.size, legacy, condition)),
        ),
      );
      if (!found) missing.add(`${op.name} ${op.form} ${op.size}`);
    }
    expect([...missing]).toEqual([]);
  });

  it('list undefined flags only of instructions there are', () => {
    const known = new Set([...DEFINITIONS.map(({ name }) => name), ...Object.keys(HELPERS)]);
    expect(Object.keys(UNDEFINED_FLAGS).filter((name) => !known.has(name))).toEqual([]);
  });
});
