/** `cvm corim`: the CoRIM documents of images, made, shown and verified. */
import { CvmError, bytesToHex } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import type { IgvmFile } from '../igvm/index.ts';
import {
  corimOf,
  embedCorim,
  measureIgvm,
  readCorim,
  readP384PrivateKey,
  readP384PublicKey,
  signCorim,
  verifyCorim,
  writeLaunchMeasurement,
} from '../measure/index.ts';
import type { Measurement } from '../measure/index.ts';
import {
  IMAGE_OPTIONS,
  flag,
  outputOf,
  pathOf,
  printRows,
  printVerdict,
  readSmall,
  save,
  svnOf,
  text,
  toJson,
} from './attest.ts';
import { EXIT } from './exit-codes.ts';
import { withUsage } from './measure-options.ts';
import { igvmOptions, openSound } from './measure.ts';
import { parse, usageError } from './options.ts';
import type { Values } from './options.ts';
import { print } from './output.ts';

const { crypto } = nodeHost;
const OPTIONS = { ...IMAGE_OPTIONS, platform: text, json: flag };

export function corim(args: readonly string[]): Promise<number> {
  const [verb, ...rest] = args;
  if (verb === 'embed') return embed(rest);
  if (verb === 'show') return show(rest);
  if (verb === 'verify') return verify(rest);
  throw usageError(`corim needs one of embed, show, verify, not '${verb ?? ''}'`);
}

async function open(path: string, values: Values): Promise<{ file: IgvmFile; measured: Measurement }> {
  const file = await openSound(path);
  const options = igvmOptions(values);
  return { file, measured: withUsage(() => measureIgvm(file, options, crypto)) };
}

/** @throws CvmError `corim-missing`. */
function found(path: string, { file, measured }: { file: IgvmFile; measured: Measurement }) {
  const { compatibilityMask, platformType } = measured.platform;
  const document = corimOf(file, compatibilityMask);
  if (!document)
    throw new CvmError('corim-missing', `${path} has no CoRIM document for ${platformType}`, { name: path });
  return document;
}

async function embed(args: readonly string[]): Promise<number> {
  const { values, files } = parse(
    args,
    { ...OPTIONS, svn: text, key: text, signer: text, replace: flag, output: text },
    1,
  );
  const output = outputOf(values);
  const { file, measured } = await open(files[0]!, values);
  const platformType = measured.platform.platformType!;
  const svn = BigInt(svnOf(values, 'svn') ?? 0);
  const document = writeLaunchMeasurement(
    platformType as Parameters<typeof writeLaunchMeasurement>[0],
    measured.digest,
    svn,
  );
  const keyPath = pathOf(values, 'key');
  const signature =
    keyPath === undefined
      ? undefined
      : signCorim(
          document,
          readP384PrivateKey(await readSmall(keyPath), crypto),
          pathOf(values, 'signer') ?? 'unnamed',
          crypto,
        );
  const { compatibilityMask } = measured.platform;
  save(output, embedCorim(file, compatibilityMask, document, signature, values.replace === true));
  return EXIT.success;
}

async function show(args: readonly string[]): Promise<number> {
  const { values, files } = parse(args, OPTIONS, 1);
  const document = found(files[0]!, await open(files[0]!, values));
  const { value: _value, ...corim } = readCorim(document.bytes, document.document.data?.fileOffset ?? 0);
  const signed = document.signature !== undefined;
  if (values.json) {
    print(toJson({ ...corim, signed }));
    return EXIT.success;
  }
  printRows([
    ['id', corim.id],
    ['profile', corim.profile ?? 'none'],
    ...corim.references.map(
      ({ vendor, model, mkey, digest }) =>
        [`${vendor ?? '?'}/${model ?? '?'} ${mkey ?? ''}`.trim(), bytesToHex(digest)] as const,
    ),
    ...corim.endorsements.map(({ svn, exact }) => ['SVN', `${exact ? '' : 'at least '}${svn}`] as const),
    ['signature', signed ? 'yes' : 'none'],
  ]);
  return EXIT.success;
}

async function verify(args: readonly string[]): Promise<number> {
  const { values, files } = parse(args, { ...OPTIONS, key: text }, 1);
  const opened = await open(files[0]!, values);
  const keyPath = pathOf(values, 'key');
  const key = keyPath === undefined ? undefined : readP384PublicKey(await readSmall(keyPath), crypto);
  const platform = opened.measured.platform.platformType as Parameters<typeof writeLaunchMeasurement>[0];
  const verdict = verifyCorim(
    found(files[0]!, opened),
    { platform, digest: opened.measured.digest },
    key,
    crypto,
  );
  return printVerdict(verdict, values, { digest: opened.measured.digest });
}
