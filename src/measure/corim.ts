/**
 * CoRIM documents (draft-ietf-rats-corim-10), as far as reference values go: who vouches for which digest of which
 * platform. Reading takes any CoRIM; writing makes the igvm crate's launch-measurement profile, byte for byte.
 */
import { CvmError, bytesToHex } from '../base/index.ts';
import type { MeasuredPlatform } from './measure.ts';
import { Tagged, decodeCbor, encodeCbor } from './cbor.ts';
import type { Cbor } from './cbor.ts';
import { Checks, equalBytes } from './checks.ts';
import type { Verdict } from './checks.ts';

export const LAUNCH_MEASUREMENT_PROFILE = 'tag:microsoft.com,2026:launch-measurement/v1';

const TAG = { uuid: 37, oid: 111, corim: 501, comid: 506, svn: 552, minimumSvn: 553 } as const;

/** A platform of the profile. `tagId` is UUIDv5 of `{vendor}/{model}` in 85f3f1c2-22a8-441e-a1b9-bccfb63ed5f7. */
interface ProfilePlatform {
  readonly vendor: string;
  readonly model: string;
  readonly tagId: string;
  readonly mkey: string;
  /** Named Information Hash Algorithm (RFC 6920): 1 SHA-256, 7 SHA-384. */
  readonly algorithm: number;
  readonly digestSize: number;
}
/** The igvm crate's `known_platforms` (`igvm::corim::launch_measurement`). */
const PROFILE_PLATFORMS: Partial<Record<MeasuredPlatform, ProfilePlatform>> = {
  SEV_SNP: {
    vendor: 'AMD',
    model: 'SEV-SNP',
    tagId: '77e8061e-4634-5e53-a848-d1d09e996843',
    mkey: 'MEASUREMENT',
    algorithm: 7,
    digestSize: 48,
  },
  TDX: {
    vendor: 'Intel',
    model: 'TDX',
    tagId: 'e0510081-7b78-5b2a-97a6-d73d890e07b6',
    mkey: 'MRTD',
    algorithm: 7,
    digestSize: 48,
  },
  VSM_ISOLATION: {
    vendor: 'Microsoft',
    model: 'VBS',
    tagId: '2e29068e-e0fa-59e6-b0ff-3bfe09132e13',
    mkey: 'MEASUREMENT',
    algorithm: 1,
    digestSize: 32,
  },
};

/** A digest that a document vouches for. */
export interface CorimReference {
  /** Position of the CoMID among the tags. */
  readonly tag: number;
  readonly vendor: string | undefined;
  readonly model: string | undefined;
  /** `MEASUREMENT`, `MRTD`, …; numbers and others as text. */
  readonly mkey: string | undefined;
  readonly algorithm: number | string;
  readonly digest: Uint8Array;
}

/** A security version that goes with a digest. */
export interface CorimEndorsement {
  readonly tag: number;
  readonly digest: Uint8Array;
  readonly svn: bigint;
  readonly exact: boolean;
}

export interface Corim {
  readonly id: string;
  readonly profile: string | undefined;
  /** CoMIDs and others. */
  readonly tagCount: number;
  readonly comids: readonly { readonly tag: number; readonly tagId: string }[];
  readonly references: readonly CorimReference[];
  readonly endorsements: readonly CorimEndorsement[];
  /** The whole, for display. */
  readonly value: Cbor;
}

const MAX_TAGS = 256;

/** Fails with the place of the document: CBOR values do not know theirs. */
class Reader {
  private readonly fileOffset: number;

  constructor(fileOffset: number) {
    this.fileOffset = fileOffset;
  }

  error(message: string): CvmError {
    return new CvmError('corim-invalid', `the CoRIM document is not one: ${message}`, {
      fileOffset: this.fileOffset,
    });
  }
  map(value: Cbor, what: string): Map<unknown, Cbor> {
    if (value instanceof Map) return value;
    throw this.error(`${what} is no map`);
  }
  array(value: Cbor, what: string): readonly Cbor[] {
    if (Array.isArray(value)) return value;
    throw this.error(`${what} is no array`);
  }
  optionalArray(value: Cbor, what: string): readonly Cbor[] {
    return value === undefined ? [] : this.array(value, what);
  }
  bytes(value: Cbor, what: string): Uint8Array {
    if (value instanceof Uint8Array) return value;
    throw this.error(`${what} is no byte string`);
  }
}

/**
 * Reads a `tagged-unsigned-corim-map`. `fileOffset` is where it stands in its file, for errors.
 * @throws CvmError `cbor-invalid`, `corim-invalid`.
 */
export function readCorim(bytes: Uint8Array, fileOffset = 0): Corim {
  const value = decodeCbor(bytes, 'the CoRIM document', fileOffset);
  const reader = new Reader(fileOffset);
  if (!(value instanceof Tagged) || value.tag !== TAG.corim)
    throw reader.error(`it does not begin with tag ${TAG.corim}`);
  const map = reader.map(value.value, 'the document');
  const tags = reader.array(map.get(1), 'the list of tags');
  if (tags.length === 0 || tags.length > MAX_TAGS) throw reader.error(`it has ${tags.length} tags`);
  const comids: { tag: number; tagId: string }[] = [];
  const references: CorimReference[] = [];
  const endorsements: CorimEndorsement[] = [];
  tags.forEach((tag, index) => {
    if (!(tag instanceof Tagged) || tag.tag !== TAG.comid) return;
    const comid = reader.map(
      decodeCbor(reader.bytes(tag.value, 'a CoMID'), 'a CoMID of the CoRIM document', fileOffset),
      'a CoMID',
    );
    const identity = reader.map(comid.get(1), 'the identity of a CoMID');
    comids.push({ tag: index, tagId: shown(identity.get(0)) });
    const triples = reader.map(comid.get(4), 'the triples of a CoMID');
    references.push(...readReferences(reader, triples.get(0), index));
    endorsements.push(...readEndorsements(reader, triples.get(8), index));
  });
  const profile = map.get(3);
  return {
    id: shown(map.get(0)),
    profile: profile === undefined ? undefined : shown(profile),
    tagCount: tags.length,
    comids,
    references,
    endorsements,
    value,
  };
}

/** reference-triple-record: [environment, [measurement, …]]. */
function readReferences(reader: Reader, triples: Cbor, tag: number): CorimReference[] {
  return reader.optionalArray(triples, 'the reference triples').flatMap((triple) => {
    const [environment, measurements] = reader.array(triple, 'a reference triple');
    const classMap = reader.map(environment, 'an environment').get(0);
    const about = classMap === undefined ? new Map<unknown, Cbor>() : reader.map(classMap, 'a class');
    return reader.array(measurements, 'the measurements of a triple').flatMap((measurement) => {
      const mkey = reader.map(measurement, 'a measurement').get(0);
      return readDigests(reader, measurement).map(({ algorithm, digest }) => ({
        tag,
        vendor: optionalText(about.get(1)),
        model: optionalText(about.get(2)),
        mkey: mkey === undefined ? undefined : shown(mkey),
        algorithm,
        digest,
      }));
    });
  });
}

function readDigests(
  reader: Reader,
  measurement: Cbor,
): { algorithm: number | string; digest: Uint8Array }[] {
  const values = reader.map(reader.map(measurement, 'a measurement').get(1), 'the values of a measurement');
  return reader.optionalArray(values.get(2), 'the digests').map((pair) => {
    const [algorithm, digest] = reader.array(pair, 'a digest');
    if (typeof algorithm !== 'number' && typeof algorithm !== 'string')
      throw reader.error('the algorithm of a digest is neither number nor text');
    return { algorithm, digest: reader.bytes(digest, 'a digest') };
  });
}

/** conditional-endorsement-series-triple-record: [[environment, claims], [[[selection], [addition]], …]]. */
function readEndorsements(reader: Reader, triples: Cbor, tag: number): CorimEndorsement[] {
  return reader.optionalArray(triples, 'the endorsement series').flatMap((triple) => {
    const [, series] = reader.array(triple, 'an endorsement series');
    return reader.array(series, 'the series').flatMap((record) => {
      const [selection, addition] = reader.array(record, 'a record of a series');
      const digests = reader
        .array(selection, 'a selection')
        .flatMap((measurement) => readDigests(reader, measurement));
      return reader.array(addition, 'an addition').flatMap((measurement) => {
        const values = reader.map(reader.map(measurement, 'a measurement').get(1), 'an addition');
        const svn = readSvn(values.get(1));
        return svn ? digests.map(({ digest }) => ({ tag, digest, ...svn })) : [];
      });
    });
  });
}

function readSvn(value: Cbor): { svn: bigint; exact: boolean } | undefined {
  const exact = !(value instanceof Tagged && value.tag === TAG.minimumSvn);
  const number =
    value instanceof Tagged && (value.tag === TAG.svn || value.tag === TAG.minimumSvn) ? value.value : value;
  if (typeof number !== 'bigint' && !(typeof number === 'number' && Number.isInteger(number)))
    return undefined;
  return { svn: BigInt(number), exact };
}

const optionalText = (value: Cbor): string | undefined => (value === undefined ? undefined : shown(value));

/** An identifier as text, at most 200 characters. */
function shown(value: Cbor): string {
  if (typeof value === 'string') return value.slice(0, 200);
  if (value instanceof Uint8Array) return bytesToHex(value.subarray(0, 64));
  if (value instanceof Tagged && value.tag === TAG.uuid && value.value instanceof Uint8Array)
    return bytesToHex(value.value.subarray(0, 16)).replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
  if (value instanceof Tagged) return `${value.tag}(${shown(value.value)})`;
  return typeof value === 'number' || typeof value === 'bigint' ? String(value) : 'unnamed';
}

/**
 * A launch-measurement CoRIM as the igvm crate 0.5 writes it: one CoMID, one reference value, one exact SVN.
 * @throws CvmError `corim-platform` if the profile has no such platform, or the digest is not one of its.
 */
export function writeLaunchMeasurement(
  platform: MeasuredPlatform,
  digest: Uint8Array,
  svn: bigint,
): Uint8Array {
  const about = PROFILE_PLATFORMS[platform];
  if (!about)
    throw new CvmError('corim-platform', `the launch-measurement profile has no platform ${platform}`);
  if (digest.length !== about.digestSize)
    throw new CvmError(
      'corim-platform',
      `a digest of ${platform} has ${about.digestSize} bytes, not ${digest.length}`,
    );
  const { vendor, model, tagId, mkey, algorithm } = about;
  const map = (...entries: [number, Cbor][]): Map<number, Cbor> => new Map(entries);
  const environment = map([0, map([1, vendor], [2, model])]);
  const measurement = map([0, mkey], [1, map([2, [[algorithm, digest]]])]);
  const addition = map([1, map([1, new Tagged(TAG.svn, svn)])]);
  const comid = map(
    [1, map([0, tagId])],
    [4, map([0, [[environment, [measurement]]]], [8, [[[environment, []], [[[measurement], [addition]]]]]])],
  );
  return encodeCbor(
    new Tagged(
      TAG.corim,
      map(
        [0, `${vendor}/${model}/launch-measurement`],
        [1, [new Tagged(TAG.comid, encodeCbor(comid))]],
        [3, LAUNCH_MEASUREMENT_PROFILE],
      ),
    ),
  );
}

/** Whether a document vouches for a digest of a platform, and keeps to the profile if it names it. */
export function checkCorim(corim: Corim, platform: MeasuredPlatform, digest: Uint8Array): Verdict {
  const checks = new Checks();
  const about = PROFILE_PLATFORMS[platform];
  if (!about) {
    checks.add(
      'corim-digest',
      'skipped',
      `CoRIM documents of ${platform} have no profile that is known here`,
    );
    return checks.verdict();
  }
  const name = `${about.vendor}/${about.model}`;
  if (corim.profile === LAUNCH_MEASUREMENT_PROFILE) checkProfile(corim, about, checks);
  else
    checks.add(
      'corim-profile',
      'warning',
      `the profile is ${corim.profile ?? 'not named'}; only its digests of ${name} are looked at`,
    );
  const own = corim.references.filter(
    ({ vendor, model, mkey }) =>
      vendor === about.vendor && model === about.model && (mkey === undefined || mkey === about.mkey),
  );
  const found = own.find((reference) => equalBytes(reference.digest, digest));
  checks.expect(
    'corim-digest',
    found !== undefined && found.algorithm === about.algorithm,
    `the document vouches for the digest of ${name}`,
    own.length === 0
      ? `the document has no ${about.mkey} of ${name}`
      : found
        ? `the digest is there under hash algorithm ${found.algorithm}, not ${about.algorithm}`
        : `the document vouches for ${own.map((one) => bytesToHex(one.digest)).join(', ')}; the image has ${bytesToHex(digest)}`,
  );
  return checks.verdict();
}

/** The constraints of `launch_measurement/profile.rs`. */
function checkProfile(corim: Corim, about: ProfilePlatform, checks: Checks): void {
  const wrong: string[] = [];
  if (corim.tagCount !== 1 || corim.comids.length !== 1)
    wrong.push('it must have one CoMID and no other tag');
  const tagId = corim.comids[0]?.tagId.toLowerCase();
  if (tagId !== about.tagId) wrong.push(`the tag-id must be ${about.tagId}, not ${tagId ?? 'none'}`);
  if (corim.references.length !== 1)
    wrong.push(`it must have one reference value, not ${corim.references.length}`);
  if (corim.endorsements.length !== 1 || !corim.endorsements[0]!.exact)
    wrong.push('it must have one exact security version');
  else if (corim.references[0] && !equalBytes(corim.endorsements[0]!.digest, corim.references[0].digest))
    wrong.push('the security version must go with the digest of the reference value');
  checks.expect(
    'corim-profile',
    wrong.length === 0,
    'the document keeps to the launch-measurement profile',
    `the document breaks the launch-measurement profile: ${wrong.join('; ')}`,
  );
}
