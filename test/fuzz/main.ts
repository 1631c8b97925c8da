/**
 * `npm run fuzz -- --count N --target igvm|listing|report|certificate|idblock|corim [--seed S]`: mutants of random files through the readers. The same
 * seeds give the same inputs. Reports rate, failures (with the seed that repeats one) and peak memory; exit code 1 on a
 * failure: a thrown error that is no CvmError, an input that takes over five seconds, or more memory than the bound.
 */
import { parseArgs } from 'node:util';
import { CvmError } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import {
  PROFILES,
  launchOperations,
  parseIgvm,
  platforms,
  requireComplete,
  writeIgvm,
} from '../../src/igvm/index.ts';
import type { ProfileName } from '../../src/igvm/index.ts';
import {
  folds,
  hoverText,
  imageDiagnostics,
  inlayDigests,
  openImage,
  outline,
  platformLenses,
  renderListing,
  semanticTokens,
  summarize,
} from '../../src/listing/index.ts';
import { checkImage, measureIgvm, readReportFile } from '../../src/measure/index.ts';
import { Random, randomFile } from '../igvm/random.ts';
import { mutateBlindly, mutateByStructure } from '../igvm/mutate.ts';
import { TARGETS as PARSERS, mutate } from './targets.ts';

const { values } = parseArgs({
  options: {
    count: { type: 'string', default: '10000' },
    target: { type: 'string', default: 'igvm' },
    seed: { type: 'string', default: '0' },
  },
});
const SLOW_SECONDS = 5;
const MEMORY_BOUND = 1 << 30;
const PROFILE_NAMES = Object.keys(PROFILES) as ProfileName[];
const PLATFORMS = ['SEV_SNP', 'TDX', 'VSM_ISOLATION', 'SEV_ES', 'SEV'] as const;

/** What a reader may say of its input. */
function refusing(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof CvmError)) throw error;
  }
}

const bases = new Map<number, Uint8Array>();
function mutant(random: Random): Uint8Array {
  const seed = random.below(500);
  let base = bases.get(seed);
  if (!base) bases.set(seed, (base = randomFile(seed)));
  return (random.chance(50) ? mutateBlindly : mutateByStructure)(base, random);
}

/** A report of the firmware ABI's size and version, some of its bytes and its length changed. */
function report(random: Random): Uint8Array {
  const bytes = random.chance(50) ? new Uint8Array(0x4a0) : random.bytes(0x4a0);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, random.below(7), true);
  view.setUint32(0x34, 1, true);
  for (let n = random.below(8); n > 0; n--) bytes[random.below(bytes.length)] = random.next();
  const header = random.chance(30) ? random.bytes(random.below(64)) : new Uint8Array();
  if (header.length >= 32 && random.chance(50)) header.set(new TextEncoder().encode('HCLA'));
  const tail = random.chance(40) ? random.bytes(random.below(2000)) : new Uint8Array();
  const whole = new Uint8Array([...header, ...bytes, ...tail]);
  const cut = random.chance(20) ? whole.subarray(0, random.below(whole.length)) : whole;
  if (random.chance(80)) return cut;
  const text = Buffer.from(cut).toString(random.chance(50) ? 'hex' : 'base64');
  return new TextEncoder().encode(text);
}

const parsers = new Map<string, ReturnType<(typeof PARSERS)[string]>>();
/** A damaged seed of one of the parsers of targets.ts. */
function damaged(name: string, random: Random): void {
  let parser = parsers.get(name);
  if (!parser) parsers.set(name, (parser = PARSERS[name]!()));
  const bytes = mutate(random.pick(parser.seeds), random);
  refusing(() => parser.run(bytes));
}

const TARGETS: Record<string, (random: Random) => void> = {
  igvm(random) {
    const file = parseIgvm(mutant(random));
    for (const platform of platforms(file).slice(0, 4))
      refusing(() =>
        requireComplete(launchOperations(file, { ...platform, profile: random.pick(PROFILE_NAMES) })),
      );
    refusing(() => measureIgvm(file, { platformType: random.pick(PLATFORMS) }, nodeCrypto));
    refusing(() => writeIgvm(file));
    checkImage(file);
  },
  listing(random) {
    const image = openImage(mutant(random), nodeCrypto);
    const listing = renderListing(image.file, nodeCrypto, { coalesceAbove: random.pick([0, 5, 20_000]) });
    imageDiagnostics(image);
    outline(image, listing);
    folds(listing);
    summarize(image, listing);
    platformLenses(image, listing);
    inlayDigests(image, listing, 0, 50);
    semanticTokens(listing.text.split('\n'), 0, 200);
    for (let n = 0; n < 3; n++) hoverText(image, listing, random.below(listing.lines.length));
  },
  report(random) {
    const bytes = report(random);
    refusing(() => readReportFile(bytes));
    damaged('report', random);
  },
  certificate: (random) => damaged('certificate', random),
  idblock: (random) => damaged('idblock', random),
  corim: (random) => damaged('corim', random),
};

const run = TARGETS[values.target];
if (!run) {
  console.error(`--target is one of ${Object.keys(TARGETS).join(', ')}`);
  process.exit(2);
}
const count = Number(values.count);
const first = Number(values.seed);
const begun = performance.now();
let failures = 0;
let slowest = 0;
let peak = 0;
for (let seed = first; seed < first + count; seed++) {
  const start = performance.now();
  try {
    run(new Random(seed));
  } catch (error) {
    failures++;
    if (failures <= 10) console.error(`seed ${seed}: ${(error as Error).stack ?? String(error)}`);
  }
  const seconds = (performance.now() - start) / 1000;
  slowest = Math.max(slowest, seconds);
  if (seconds > SLOW_SECONDS) {
    failures++;
    console.error(`seed ${seed}: took ${seconds.toFixed(1)} s`);
  }
  if (seed % 256 === 0) peak = Math.max(peak, process.memoryUsage().rss);
}
if (peak > MEMORY_BOUND) failures++;
const seconds = (performance.now() - begun) / 1000;
console.log(
  `${values.target}: ${count} inputs from seed ${first} in ${seconds.toFixed(0)} s (${Math.round(count / seconds)}/s), ` +
    `${failures} failures, slowest ${(1000 * slowest).toFixed(0)} ms, peak ${Math.round(peak / (1 << 20))} MiB`,
);
process.exitCode = failures > 0 ? 1 : 0;
