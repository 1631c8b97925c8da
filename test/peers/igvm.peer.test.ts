/**
 * The `igvm` crate 0.5 as a peer: it invents files, reads ours, measures both, and judges mutants. Runs when
 * `CVM_PEERS` names a folder with the built `igvm-peer` (test/peers/igvm, `cargo build --release`).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { PAGE_DATA_FLAGS, parseIgvm, platforms, writeIgvm } from '../../src/igvm/index.ts';
import type { IgvmFile } from '../../src/igvm/index.ts';
import { measureIgvm } from '../../src/measure/index.ts';
import type { MeasuredPlatform } from '../../src/measure/index.ts';
import { mutateBlindly, mutateByStructure } from '../igvm/mutate.ts';
import { Random, randomFile } from '../igvm/random.ts';

/** The platforms the crate measures. */
const CRATE_PLATFORMS = ['SEV_SNP', 'TDX', 'VSM_ISOLATION'] as const;

const folder = process.env['CVM_PEERS'];
const peer = folder ? join(folder, 'igvm-peer') : '';
const call = (...args: string[]): Buffer =>
  execFileSync(peer, args, { maxBuffer: 1 << 28, stdio: 'pipe', timeout: 60_000 });

describe.runIf(existsSync(peer))('the igvm crate', () => {
  let scratch = '';
  beforeAll(() => {
    scratch = mkdtempSync(join(tmpdir(), 'igvm-peer-'));
  });
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));

  const save = (bytes: Uint8Array): string => {
    const path = join(scratch, 'file.igvm');
    writeFileSync(path, bytes);
    return path;
  };
  const theirDigests = (path: string): Record<string, string> =>
    Object.fromEntries(
      call('digest', path)
        .toString()
        .trim()
        .split('\n')
        .map((line) => line.split(' ') as [string, string]),
    );
  const ourDigests = (file: IgvmFile): Record<string, string> =>
    Object.fromEntries(
      CRATE_PLATFORMS.map((platformType) => [
        platformType,
        bytesToHex(measureIgvm(file, { platformType }, nodeCrypto).digest),
      ]),
    );
  const errors = (file: IgvmFile) => file.diagnostics.filter(({ severity }) => severity === 'error');

  /** Compares the digests of a `batch` line; returns how many there were. */
  const compareDigests = (name: string, file: IgvmFile, line: string): number => {
    // The crate takes 4 KiB of a 2 MiB page, we take all of it. Two platforms with one mask are ambiguous.
    const masks = platforms(file).map(({ compatibilityMask }) => compatibilityMask);
    const differs =
      new Set(masks).size < masks.length ||
      file.headers.some(
        (header) => header.type === 'PAGE_DATA' && (header.flags & PAGE_DATA_FLAGS.is2mbPage) !== 0,
      );
    if (differs || line === 'panic' || line === '') return 0;
    let compared = 0;
    for (const entry of line.split(';')) {
      const [platformType, theirs] = entry.split(' ') as [MeasuredPlatform, string];
      if (theirs === 'error') continue;
      const { digest } = measureIgvm(file, { platformType }, nodeCrypto);
      expect(bytesToHex(digest), `${name} ${platformType}`).toBe(theirs);
      compared++;
    }
    return compared;
  };

  it('invents files that read without errors, write identically and measure alike', () => {
    for (let seed = 1; seed <= 300; seed++) {
      const bytes = new Uint8Array(call('random', String(seed)));
      const file = parseIgvm(bytes);
      expect(errors(file), `seed ${seed}`).toEqual([]);
      expect(Buffer.compare(writeIgvm(file), bytes), `seed ${seed}`).toBe(0);
      expect(ourDigests(file), `seed ${seed}`).toEqual(theirDigests(save(bytes)));
    }
  });

  it('reads the files we build, and measures them alike', () => {
    for (let seed = 0; seed < 300; seed++) {
      const bytes = randomFile(seed, { exotic: false, architecture: 'X64' });
      expect(theirDigests(save(bytes)), `seed ${seed}`).toEqual(ourDigests(parseIgvm(bytes)));
    }
    for (let seed = 0; seed < 50; seed++)
      call('check', save(randomFile(seed, { exotic: false, architecture: 'AARCH64' })));
  });

  it('refuses exactly the mutants in which we find errors, and measures the others as we do', () => {
    const random = new Random(20);
    const files = new Map<string, IgvmFile>();
    for (let n = 0; n < 1500; n++) {
      const original = randomFile(n % 100, { exotic: false });
      const bytes = n % 10 === 0 ? mutateBlindly(original, random) : mutateByStructure(original, random);
      const name = `${String(n).padStart(5, '0')}.igvm`;
      writeFileSync(join(scratch, name), bytes);
      files.set(name, parseIgvm(bytes));
    }
    rmSync(join(scratch, 'file.igvm'), { force: true });
    const verdicts = call('batch', scratch).toString().trim().split('\n');
    expect(verdicts.length).toBe(files.size);
    const disagreements: string[] = [];
    let compared = 0;
    for (const line of verdicts) {
      const [name, verdict, ...reason] = line.split(' ');
      const file = files.get(name!)!;
      const ours = [...new Set(errors(file).map(({ code }) => code))];
      const theirs = verdict === 'ok' ? '' : reason.join(' ');
      if (verdict === 'ok') compared += compareDigests(name!, file, reason.join(' '));
      if ((verdict === 'ok') !== (ours.length === 0) && !knownDifference(file, theirs))
        disagreements.push(`${name}: the crate says ${theirs || 'ok'}, we say ${ours.join(', ') || 'ok'}`);
    }
    expect(disagreements).toEqual([]);
    expect(compared).toBeGreaterThan(200);
  });
});

const measureTool = folder ? join(folder, 'igvmmeasure') : '';

describe.runIf(existsSync(measureTool))('igvmmeasure of COCONUT-SVSM', () => {
  it.each([
    ['SEV_SNP', 'igvmmeasure', ['--platform', 'sev-snp']],
    ['SEV_SNP', 'igvmmeasure-native-zero', ['--platform', 'sev-snp', '--native-zero']],
    ['SEV_ES', 'igvmmeasure', ['--platform', 'sev-es']],
    ['SEV', 'igvmmeasure', ['--platform', 'sev']],
  ] as const)(
    'measures the files we build as the profile of its name does: %s, %s',
    (platformType, profile, args) => {
      const scratch = mkdtempSync(join(tmpdir(), 'igvmmeasure-'));
      for (let seed = 0; seed < 100; seed++) {
        const file = parseIgvm(randomFile(seed, { exotic: false, architecture: 'X64' }));
        // It is built without the crate's CoRIM support.
        const headers = file.headers.filter(({ type }) => !type.startsWith('CORIM'));
        const bytes = writeIgvm({ ...file, headers });
        const path = join(scratch, 'file.igvm');
        writeFileSync(path, bytes);
        const text = execFileSync(measureTool, [...args, path, 'measure', '--bare', '--ignore-idblock'], {
          stdio: 'pipe',
          timeout: 60_000,
        });
        const { digest } = measureIgvm(parseIgvm(bytes), { platformType, profile }, nodeCrypto);
        expect(bytesToHex(digest), `seed ${seed}`).toBe(text.toString().trim().toLowerCase());
      }
      rmSync(scratch, { recursive: true });
    },
  );
});

/** Where the crate is stricter than the format: it knows no VERSION_STRING and no optional bit (igvm#120). */
function knownDifference(file: IgvmFile, theirs: string): boolean {
  return (
    /Invalid(Binary)?VariableHeader/.test(theirs) &&
    file.headers.some(({ type, ignorable }) => type === 'VERSION_STRING' || ignorable)
  );
}
