/** `cvm explain`: what would make an image, or an OVMF guest, give the digest that was expected. */
import { CvmError, bytesToHex, hex, hexToBytes } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { parseIgvm } from '../igvm/index.ts';
import type { IgvmFile } from '../igvm/index.ts';
import { MAX_IGVM_BYTES } from '../listing/index.ts';
import { explainDigest, explainOvmf, readReportFile, traceFromJson } from '../measure/index.ts';
import type { Explanation, Reference } from '../measure/index.ts';
import { EXIT } from './exit-codes.ts';
import { MEASURE_OPTIONS, withUsage } from './measure-options.ts';
import { igvmOptions, openSound } from './measure.ts';
import { firmware, launchOf } from './measure-ovmf.ts';
import { count, parse, usageError } from './options.ts';
import type { Options, Values } from './options.ts';
import { complain, print } from './output.ts';

const OPTIONS: Options = {
  ...MEASURE_OPTIONS,
  expected: { type: 'string' },
  reference: { type: 'string' },
  candidate: { type: 'string', multiple: true },
  effort: { type: 'string' },
};

interface Expected {
  readonly digest: Uint8Array;
  readonly policy?: bigint;
  /** Where it stood. */
  readonly source: string;
}

export async function explain(args: readonly string[]): Promise<number> {
  const isOvmf = args.some((arg) => /^--(mode|ovmf)(=|$)/.test(arg));
  const { values, files } = parse(args, OPTIONS, isOvmf ? 0 : 1);
  const effort = count('effort', values.effort, 1, 1e12);
  const more = { ...(effort !== undefined && { effort }) };
  if (isOvmf) {
    const expected = await expectedOf(values, undefined);
    const reference = await referenceOf(values.reference);
    if (reference?.kind === 'image')
      throw usageError(
        '--reference of an OVMF guest is a trace; other OVMF images are given with --candidate',
      );
    const launch = await launchOf(values);
    const candidates = [];
    for (const path of Array.isArray(values.candidate) ? values.candidate : [])
      candidates.push({ name: String(path), bytes: await firmware(String(path)) });
    const options = { ...more, expected: expected.digest, candidates };
    const explained = withUsage(() =>
      explainOvmf(
        launch,
        { ...options, ...(reference && { reference: reference.entries }) },
        nodeHost.crypto,
      ),
    );
    return answer(explained, expected, undefined, values);
  }
  if (values.candidate) throw usageError('--candidate is for OVMF; another IGVM file is a --reference');
  const options = igvmOptions(values);
  const file = await openSound(files[0]!);
  const expected = await expectedOf(values, file);
  const reference = await referenceOf(values.reference);
  const explained = withUsage(() =>
    explainDigest(
      file,
      {
        ...options,
        ...more,
        expected: expected.digest,
        ...(expected.policy !== undefined && { expectedPolicy: expected.policy }),
        ...(reference && { reference }),
      },
      nodeHost.crypto,
    ),
  );
  return answer(explained, expected, file, values);
}

function answer(
  explained: Explanation,
  { source, digest }: Expected,
  file: IgvmFile | undefined,
  values: Values,
): number {
  const { matches, causes, notes, measured, tried, hashes, complete } = explained;
  const place = (directive: number): { directive?: number; fileOffset?: number } =>
    directive < 0
      ? {}
      : { directive, ...(file?.headers[directive] && { fileOffset: file.headers[directive].offset }) };
  if (values.json)
    print(
      JSON.stringify(
        {
          expected: bytesToHex(digest),
          measured: bytesToHex(measured),
          matches,
          causes: causes.map(({ directive, gpa, ...cause }) => ({
            ...cause,
            ...place(directive),
            ...(gpa !== undefined && { gpa: hex(gpa) }),
          })),
          notes,
          tried,
          hashes,
          complete,
        },
        null,
        2,
      ),
    );
  else if (matches) print(`The image gives the expected digest (${source}).`);
  else if (causes.length > 0)
    for (const [index, { sentence, evidence, directive }] of causes.entries()) {
      print(index === 0 ? sentence : `Or: ${sentence}`);
      const { fileOffset } = place(directive);
      if (fileOffset !== undefined) print(`  directive #${directive} at file offset ${hex(fileOffset)}`);
      for (const line of evidence) print(`  ${line}`);
    }
  else print('Nothing that was tried explains the expected digest.');
  if (!values.json) {
    if (!matches) print(`measured ${bytesToHex(measured)}\nexpected ${bytesToHex(digest)} (${source})`);
    for (const note of notes) print(`note: ${note}`);
    if (!matches)
      complain(
        `cvm: ${tried} digests compared, ${hashes} hashes${complete || causes.length > 0 ? '' : '; the effort was spent before everything was tried (--effort N)'}`,
      );
  }
  if (matches) return EXIT.success;
  return causes.length > 0 ? EXIT.differs : EXIT.unexplained;
}

/** ID_BLOCK of the SEV-SNP Firmware ABI: what is read of it. */
const ID_BLOCK = { size: 96, policy: 88, digest: 0 };
const MAX_EXPECTED_BYTES = 1 << 20;

/** A digest: in hexadecimal, of a file with an ID block or a report, or of the image's own ID block. */
async function expectedOf(values: Values, file: IgvmFile | undefined): Promise<Expected> {
  const text = values.expected;
  if (text === undefined) {
    const block = file?.headers.find((header) => header.type === 'SNP_ID_BLOCK');
    if (block?.type === 'SNP_ID_BLOCK') return { digest: block.ld, source: "the image's ID block" };
    throw usageError('--expected is missing: a digest, or a file with an ID block or an attestation report');
  }
  const given = String(text).trim();
  if (/^([0-9a-fA-F]{64}|[0-9a-fA-F]{96})$/.test(given))
    return { digest: hexToBytes(given), source: 'given' };
  const bytes = await nodeHost.files.readFile(given, MAX_EXPECTED_BYTES).catch((error: unknown) => {
    if (error instanceof CvmError && error.code === 'file-not-found')
      throw usageError(`--expected '${given}' is neither a digest of 64 or 96 hexadecimal digits nor a file`);
    throw error;
  });
  return fromFile(bytes, given);
}

function fromFile(bytes: Uint8Array, path: string): Expected {
  const plain = new TextDecoder('latin1').decode(bytes).trim();
  if (/^([0-9a-fA-F]{64}|[0-9a-fA-F]{96})$/.test(plain)) return { digest: hexToBytes(plain), source: path };
  if (/^[0-9a-fA-F]+$/.test(plain) && plain.length === 2 * ID_BLOCK.size)
    return fromFile(hexToBytes(plain), path);
  if (bytes.length === ID_BLOCK.size)
    return {
      digest: bytes.slice(ID_BLOCK.digest, ID_BLOCK.digest + 48),
      policy: new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(ID_BLOCK.policy, true),
      source: `the ID block in ${path}`,
    };
  const { report } = readReportFile(bytes);
  const { measurement, policy } = report;
  return { digest: measurement, policy, source: `the attestation report in ${path}` };
}

async function referenceOf(path: Values[string]): Promise<Reference | undefined> {
  if (path === undefined) return undefined;
  const name = String(path);
  const bytes = await nodeHost.files.readFile(name, MAX_IGVM_BYTES);
  // A trace is JSON; an IGVM file starts with its magic.
  if (!/^\s*[[{]/.test(new TextDecoder('latin1').decode(bytes.subarray(0, 64))))
    return { kind: 'image', file: parseIgvm(bytes) };
  try {
    return { kind: 'trace', entries: traceFromJson(JSON.parse(new TextDecoder().decode(bytes))) };
  } catch (error) {
    if (error instanceof SyntaxError)
      throw new CvmError('measure-trace', `${name} is no JSON: ${error.message}`, { name });
    throw error;
  }
}
