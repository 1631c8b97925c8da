/** `cvm id-block`: ID blocks created, signed, put into images, shown and verified. */
import { bytesToHex, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import type { IgvmFile } from '../igvm/index.ts';
import {
  assembleIdBlock,
  decodeIdBlock,
  embedIdBlock,
  encodeIdBlock,
  guestPolicy,
  idBlocksOf,
  makeIdBlock,
  readP384PrivateKey,
  readP384PublicKey,
  readP384Signature,
  signIdBlock,
  snpMask,
  toBase64,
  verifyEmbeddedIdBlock,
  verifyIdBlock,
} from '../measure/index.ts';
import type { IdBlock, IdBlockVerdict, SignedIdBlock } from '../measure/index.ts';
import {
  IMAGE_OPTIONS,
  bytesOf,
  flag,
  outputOf,
  pathOf,
  policyOf,
  printRows,
  printVerdict,
  readSmall,
  save,
  snpDigest,
  svnOf,
  text,
  toJson,
} from './attest.ts';
import { CvmError } from '../base/index.ts';
import { EXIT } from './exit-codes.ts';
import { openSound } from './measure.ts';
import { parse, usageError } from './options.ts';
import type { Options, Values } from './options.ts';
import { print } from './output.ts';

const crypto: Crypto = nodeHost.crypto;
const CONTENT: Options = {
  policy: text,
  'family-id': text,
  'image-id': text,
  svn: text,
};
const KEYS: Options = { 'id-key': text, 'author-key': text };
/** Signatures made elsewhere, with their public keys. */
const OUTSIDE: Options = {
  'id-signature': text,
  'id-public-key': text,
  'author-signature': text,
  'author-public-key': text,
};
const RAW: Options = { block: text, auth: text, 'no-author': flag };

export function idBlock(args: readonly string[]): Promise<number> {
  const [verb, ...rest] = args;
  switch (verb) {
    case 'create':
      return create(rest);
    case 'sign':
      return signFile(rest);
    case 'embed':
      return embed(rest);
    case 'show':
      return show(rest);
    case 'verify':
      return verifyCommand(rest);
    default:
      throw usageError(`id-block needs one of create, sign, embed, show, verify, not '${verb ?? ''}'`);
  }
}

/** What goes into a block, from options and perhaps an image. @throws CvmError `usage`. */
function contentOf(values: Values, file: IgvmFile | undefined): IdBlock {
  const digest = bytesOf(values, 'digest', 48) ?? (file && snpDigest(file, values));
  if (!digest) throw usageError('an image or --digest is needed');
  const policy = policyOf(values) ?? (file && guestPolicy(file, snpMask(file)));
  if (policy === undefined)
    throw usageError(file ? 'the image has no guest policy: --policy is needed' : '--policy is needed');
  const familyId = bytesOf(values, 'family-id', 16);
  const imageId = bytesOf(values, 'image-id', 16);
  return makeIdBlock({
    digest,
    policy,
    guestSvn: svnOf(values, 'svn') ?? 0,
    ...(familyId && { familyId }),
    ...(imageId && { imageId }),
  });
}

async function create(args: readonly string[]): Promise<number> {
  const hasDigest = args.some((arg) => /^--digest(=|$)/.test(arg));
  const options = { ...CONTENT, ...IMAGE_OPTIONS, digest: text, output: text };
  const { values, files } = parse(args, options, hasDigest ? 0 : 1);
  const file = files[0] === undefined ? undefined : await openSound(files[0]);
  save(outputOf(values), encodeIdBlock(contentOf(values, file)));
  return EXIT.success;
}

/** @throws CvmError `usage` if neither keys nor signatures are there, or both. */
async function sign(block: IdBlock, values: Values): Promise<SignedIdBlock> {
  const load = async (name: string): Promise<Uint8Array | undefined> => {
    const path = pathOf(values, name);
    return path === undefined ? undefined : readSmall(path);
  };
  const idKey = await load('id-key');
  if (idKey) {
    if (Object.keys(OUTSIDE).some((name) => values[name] !== undefined))
      throw usageError('--id-key signs here; signatures made elsewhere are another way');
    const authorKey = await load('author-key');
    return signIdBlock(
      block,
      {
        idKey: readP384PrivateKey(idKey, crypto),
        authorKey: authorKey && readP384PrivateKey(authorKey, crypto),
      },
      crypto,
    );
  }
  const [signature, publicKey] = [await load('id-signature'), await load('id-public-key')];
  if (!signature || !publicKey)
    throw usageError('--id-key is needed, or --id-signature with --id-public-key');
  const [authorSignature, authorKey] = [await load('author-signature'), await load('author-public-key')];
  const signed = assembleIdBlock(encodeIdBlock(block), {
    idKey: readP384PublicKey(publicKey, crypto),
    idSignature: readP384Signature(signature),
    authorKey: authorKey && readP384PublicKey(authorKey, crypto),
    authorSignature: authorSignature && readP384Signature(authorSignature),
  });
  refuseFailed(verifyIdBlock(signed, {}, crypto));
  return signed;
}

function refuseFailed(verdict: IdBlockVerdict): void {
  const failed = verdict.checks.find(({ result }) => result === 'fail');
  if (failed) throw new CvmError('id-block-unverified', failed.message);
}

async function signFile(args: readonly string[]): Promise<number> {
  const { values, files } = parse(args, { ...KEYS, ...OUTSIDE, output: text, json: flag }, 1);
  const block = decodeIdBlock(await readSmall(files[0]!));
  const signed = await sign(block, values);
  save(outputOf(values), signed.auth);
  const { idKeyDigest, authorKeyDigest } = verifyIdBlock(signed, {}, crypto);
  const forQemu = { 'id-block': toBase64(signed.block), 'id-auth': toBase64(signed.auth) };
  if (values.json)
    print(toJson({ idKeyDigest, authorKeyDigest, authorKeyEnabled: signed.authorKeyEnabled, ...forQemu }));
  else
    printRows([
      ['ID key digest', bytesToHex(idKeyDigest)],
      ['author key digest', signed.authorKeyEnabled ? bytesToHex(authorKeyDigest) : undefined],
    ]);
  return EXIT.success;
}

/** @throws CvmError `usage` if only one of the two files is given. */
async function rawBlock(values: Values): Promise<SignedIdBlock | undefined> {
  const [block, auth] = [pathOf(values, 'block'), pathOf(values, 'auth')];
  if (block === undefined && auth === undefined) return undefined;
  if (block === undefined || auth === undefined) throw usageError('--block and --auth belong together');
  const authBytes = await readSmall(auth);
  const blockBytes = await readSmall(block);
  // The two structures do not say it; a key that is there counts, as in QEMU.
  const authorKeyEnabled = values['no-author'] !== true && (authBytes[0x880] ?? 0) !== 0;
  return { block: blockBytes, auth: authBytes, authorKeyEnabled };
}

async function embed(args: readonly string[]): Promise<number> {
  const options = {
    ...RAW,
    ...KEYS,
    ...OUTSIDE,
    ...CONTENT,
    ...IMAGE_OPTIONS,
    replace: flag,
    output: text,
  };
  const { values, files } = parse(args, options, 1);
  const output = outputOf(values);
  const file = await openSound(files[0]!);
  const signed = (await rawBlock(values)) ?? (await sign(contentOf(values, file), values));
  refuseFailed(verifyIdBlock(signed, { digest: snpDigest(file, values) }, crypto));
  save(output, embedIdBlock(file, signed, { replace: values.replace === true }));
  return EXIT.success;
}

/** The ID block of `--block` and `--auth`, or of an image. */
async function found(
  args: readonly string[],
  more: Options,
): Promise<{ values: Values; file: IgvmFile | undefined; signed: SignedIdBlock; embedded: boolean }> {
  const isRaw = args.some((arg) => /^--(block|auth)(=|$)/.test(arg));
  const { values, files } = parse(args, { ...RAW, ...more, json: flag }, isRaw ? 0 : 1);
  const raw = await rawBlock(values);
  if (raw) return { values, file: undefined, signed: raw, embedded: false };
  const file = await openSound(files[0]!);
  const [first] = idBlocksOf(file, snpMask(file));
  if (!first)
    throw new CvmError('id-block-missing', `${files[0]} has no ID block for SNP`, { name: files[0]! });
  return { values, file, signed: first.signed, embedded: true };
}

async function show(args: readonly string[]): Promise<number> {
  const { values, signed } = await found(args, {});
  const block = decodeIdBlock(signed.block);
  const { idKeyDigest, authorKeyDigest } = verifyIdBlock(signed, {}, crypto);
  if (values.json) {
    print(toJson({ ...block, authorKeyEnabled: signed.authorKeyEnabled, idKeyDigest, authorKeyDigest }));
    return EXIT.success;
  }
  printRows([
    ['launch digest', bytesToHex(block.digest)],
    ['family ID', bytesToHex(block.familyId)],
    ['image ID', bytesToHex(block.imageId)],
    ['version', block.version],
    ['guest SVN', block.guestSvn],
    ['policy', hex(block.policy)],
    ['ID key digest', bytesToHex(idKeyDigest)],
    ['author key digest', signed.authorKeyEnabled ? bytesToHex(authorKeyDigest) : 'no author key'],
  ]);
  return EXIT.success;
}

async function verifyCommand(args: readonly string[]): Promise<number> {
  const { values, file, signed } = await found(args, {
    ...IMAGE_OPTIONS,
    image: text,
    digest: text,
    policy: text,
    'id-key-digest': text,
    'author-key-digest': text,
  });
  const imagePath = pathOf(values, 'image');
  const image = imagePath === undefined ? file : await openSound(imagePath);
  const expected = {
    digest: bytesOf(values, 'digest', 48) ?? (image && snpDigest(image, values)),
    policy: policyOf(values) ?? (image && (guestPolicy(image, snpMask(image)) ?? 0n)),
    idKeyDigest: bytesOf(values, 'id-key-digest', 48),
    authorKeyDigest: bytesOf(values, 'author-key-digest', 48),
  };
  const verdict = file
    ? verifyEmbeddedIdBlock(idBlocksOf(file, snpMask(file)), expected, crypto)!
    : verifyIdBlock(signed, expected, crypto);
  const { idKeyDigest, authorKeyDigest } = verdict;
  return printVerdict(verdict, values, { idKeyDigest, authorKeyDigest });
}
