/** What the fuzzer feeds: for each parser of untrusted bytes, good inputs, how to damage them, and what must hold. */
import { CvmError } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import {
  assembleIdBlock,
  azureDataMatches,
  checkCorim,
  compareReport,
  corimOf,
  decodeIdBlock,
  embedCorim,
  embedIdBlock,
  encodeIdBlock,
  idBlocksOf,
  isEndorsementKey,
  makeIdBlock,
  readCertificates,
  readCorim,
  readCoseSign1,
  readEndorsementKey,
  readP384PrivateKey,
  readReportFile,
  signCorim,
  signIdBlock,
  tcbOf,
  verifyCoseSign1,
  verifyEmbeddedIdBlock,
  verifyIdBlock,
  writeLaunchMeasurement,
} from '../../src/measure/index.ts';
import type { Crypto } from '../../src/base/index.ts';
import { Random } from '../igvm/random.ts';
import { REPORTS, fixture, haveFixtures } from '../measure/reports.ts';

export interface FuzzTarget {
  readonly seeds: readonly Uint8Array[];
  /** Throws only CvmErrors, and those are caught by the runner. */
  run(bytes: Uint8Array): void;
}

/** Elliptic curves are not what is fuzzed, and would be all of the time. */
const crypto: Crypto = {
  ...nodeCrypto,
  signatures: { ...nodeCrypto.signatures, p384Verify: () => false, rsaPssVerify: () => false },
};
const scalar = new Uint8Array(48).fill(1);
const key = { scalar, publicKey: nodeCrypto.signatures.p384PublicKey(scalar) };
const digest = new Uint8Array(48).fill(2);
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function reportTarget(): FuzzTarget {
  const made = new Uint8Array(1184);
  made.set([3]);
  made.set([0x1a, 2, 1], 0x188);
  const azure = new Uint8Array(32 + 1184 + 20 + 40);
  azure.set(text('HCLA'));
  azure.set(made, 32);
  new DataView(azure.buffer).setUint32(32 + 1184 + 8, 2, true);
  new DataView(azure.buffer).setUint32(32 + 1184 + 12, 1, true);
  new DataView(azure.buffer).setUint32(32 + 1184 + 16, 40, true);
  const response = new Uint8Array(32 + 1184);
  new DataView(response.buffer).setUint32(4, 1184, true);
  response.set(made, 32);
  const extended = new Uint8Array(1184 + 48 + 100);
  extended.set(made);
  extended.fill(7, 1184, 1200);
  new DataView(extended.buffer).setUint32(1200, 48, true);
  new DataView(extended.buffer).setUint32(1204, 100, true);
  const hex = text(Buffer.from(made).toString('hex'));
  const real = haveFixtures ? REPORTS.map(([name]) => fixture(name)) : [];
  return {
    seeds: [made, azure, response, extended, hex, ...real],
    run(bytes) {
      const { report, certificates, azure } = readReportFile(bytes);
      for (const raw of [report.currentTcb, report.reportedTcb]) tcbOf(raw, report.product);
      compareReport(report, { measurement: digest, policy: 0n, guestSvn: 1 });
      if (azure) azureDataMatches(report, azure, crypto);
      for (const certificate of certificates) readCertificates(certificate);
      if (report.diagnostics.length > 20) throw new Error('too many findings');
    },
  };
}

function certificateTarget(): FuzzTarget {
  const names = haveFixtures
    ? [...new Set(REPORTS.flatMap(([, leaf, chain]) => [leaf, chain])), 'virtee-turin-vcek.der']
    : [];
  return {
    seeds: [Uint8Array.of(0x30, 3, 2, 1, 0), ...names.map(fixture)],
    run(bytes) {
      for (const certificate of readCertificates(bytes))
        if (isEndorsementKey(certificate)) readEndorsementKey(certificate);
      readP384PrivateKey(bytes, crypto);
    },
  };
}

function idBlockTarget(): FuzzTarget {
  const block = makeIdBlock({ digest, policy: 0x30000n });
  const signed = signIdBlock(block, { idKey: key, authorKey: key }, nodeCrypto);
  const raw = Uint8Array.from([...signed.block, ...signed.auth]);
  const file = new IgvmBuilder().platform('SEV_SNP', 1).guestPolicy(0x30000n, 1).page(0n, 1).build();
  const embedded = embedIdBlock(parseIgvm(file), signed);
  return {
    seeds: [raw, embedded],
    run(bytes) {
      const file = parseIgvm(bytes);
      if (file.headers.length > 0) {
        const found = idBlocksOf(file, 0xffff_ffff);
        verifyEmbeddedIdBlock(found, { digest, policy: 1n }, crypto);
        embedIdBlock(file, found[0]?.signed ?? signed, { replace: true });
        return;
      }
      const split = { block: bytes.slice(0, 96), auth: bytes.slice(96), authorKeyEnabled: true };
      decodeIdBlock(split.block);
      verifyIdBlock(split, { digest }, crypto);
      assembleIdBlock(encodeIdBlock(block), { idKey: key.publicKey, idSignature: scalar });
    },
  };
}

function corimTarget(): FuzzTarget {
  const document = writeLaunchMeasurement('SEV_SNP', digest, 300n);
  const signature = signCorim(document, key, 'somebody', nodeCrypto);
  const file = new IgvmBuilder().platform('SEV_SNP', 1).guestPolicy(0x30000n, 1).page(0n, 1).build();
  const embedded = embedCorim(parseIgvm(file), 1, document, signature);
  const attempt = (action: () => void): void => {
    try {
      action();
    } catch (error) {
      if (!(error instanceof CvmError)) throw error;
    }
  };
  return {
    seeds: [document, signature, embedded],
    run(bytes) {
      attempt(() => checkCorim(readCorim(bytes, 5), 'SEV_SNP', digest));
      attempt(() => verifyCoseSign1(readCoseSign1(bytes, 5), document, key.publicKey, crypto));
      const file = parseIgvm(bytes);
      const found = corimOf(file, 0xffff_ffff);
      if (found) readCorim(found.bytes, found.document.data?.fileOffset ?? 0);
      if (file.headers.length > 0) embedCorim(file, 1, document, signature, true);
    },
  };
}

export const TARGETS: Readonly<Record<string, () => FuzzTarget>> = {
  report: reportTarget,
  certificate: certificateTarget,
  idblock: idBlockTarget,
  corim: corimTarget,
};

const EDGES = [0, 1, 2, 0x7f, 0x80, 0x81, 0x9f, 0xbf, 0xff, 0x30, 0x82, 0x5f, 0xd8, 0x1b];

/** A damaged input: cut, grown, bytes changed, a piece copied elsewhere, numbers put where numbers may be. */
export function mutate(seed: Uint8Array, random: Random): Uint8Array {
  let bytes: Uint8Array = seed.slice();
  if (random.chance(12)) bytes = bytes.slice(0, random.below(bytes.length + 1));
  if (random.chance(6)) bytes = Uint8Array.from([...bytes, ...random.bytes(random.below(64))]);
  if (bytes.length === 0) return bytes;
  for (let n = random.below(6); n > 0; n--) {
    const at = random.below(bytes.length);
    switch (random.below(4)) {
      case 0:
        bytes[at]! ^= 1 << random.below(8);
        break;
      case 1:
        bytes[at] = random.pick(EDGES);
        break;
      case 2:
        bytes.copyWithin(at, random.below(bytes.length), random.below(bytes.length));
        break;
      default:
        if (at + 4 <= bytes.length)
          new DataView(bytes.buffer).setUint32(
            at,
            random.pick([0, 1, 0xffff_ffff, 0x8000_0000, bytes.length, random.next()]),
            random.chance(50),
          );
    }
  }
  return bytes;
}

/** Runs `count` mutants; throws with the seed of the first that does not behave. Returns how many were refused. */
export function fuzz(name: string, count: number): number {
  const target = TARGETS[name]!();
  let refused = 0;
  for (let n = 0; n < count; n++) {
    const random = new Random(n * 2 + 1);
    const bytes = mutate(target.seeds[n % target.seeds.length]!, random);
    const begun = process.hrtime.bigint();
    try {
      target.run(bytes);
    } catch (error) {
      if (!(error instanceof CvmError))
        throw new Error(`${name}, mutant ${n}: ${String(error)}\n${Buffer.from(bytes).toString('base64')}`, {
          cause: error,
        });
      refused++;
    }
    const seconds = Number(process.hrtime.bigint() - begun) / 1e9;
    if (seconds > 5) throw new Error(`${name}, mutant ${n}: took ${seconds} s`);
  }
  return refused;
}
