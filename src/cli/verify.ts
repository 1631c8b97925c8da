/** `cvm verify`: an image against an ID block, a report or a digest. */
import { CvmError } from '../base/index.ts';
import type { IgvmFile } from '../igvm/index.ts';
import { nodeHost } from '../base/node.ts';
import {
  compareReport,
  corimOf,
  decodeIdBlock,
  guestPolicy,
  idBlocksOf,
  readP384PublicKey,
  readReportFile,
  snpMask,
  verifyCorim,
  verifyEmbeddedIdBlock,
  verifyIdBlock,
  verifyReport,
} from '../measure/index.ts';
import type { AttestationReport, Check } from '../measure/index.ts';
import {
  CERTIFICATE_OPTIONS,
  IMAGE_OPTIONS,
  bytesOf,
  certificatesOf,
  dateOf,
  flag,
  pathOf,
  printVerdict,
  readSmall,
  snpDigest,
  text,
} from './attest.ts';
import { openSound } from './measure.ts';
import { parse, usageError } from './options.ts';
import type { Values } from './options.ts';

const { crypto } = nodeHost;

export async function verify(args: readonly string[]): Promise<number> {
  const { values, files } = parse(
    args,
    {
      ...IMAGE_OPTIONS,
      ...CERTIFICATE_OPTIONS,
      digest: text,
      report: text,
      'id-block': text,
      'id-auth': text,
      'corim-key': text,
      json: flag,
    },
    1,
  );
  if (values['id-auth'] !== undefined && values['id-block'] === undefined)
    throw usageError('--id-auth belongs to --id-block');
  const wanted = bytesOf(values, 'digest', 48);
  const file = await openSound(files[0]!);
  const mask = snpMask(file);
  const digest = snpDigest(file, values);
  const policy = guestPolicy(file, mask);
  const checks: Check[] = [];
  if (wanted) checks.push(digestCheck(digest, wanted));
  checks.push(...(await idBlockChecks(values, file, mask, { digest, policy: policy ?? 0n })));
  checks.push(...(await corimChecks(values, file, mask, digest)));
  checks.push(...(await reportChecks(values, file, mask, { digest, policy })));
  if (checks.length === 0)
    throw new CvmError(
      'nothing-to-verify',
      `${files[0]} has no ID block and no CoRIM document; --digest, --report or --id-block says what to verify against`,
      { name: files[0]! },
    );
  return printVerdict({ ok: checks.every(({ result }) => result !== 'fail'), checks }, values, {
    digest,
    policy,
  });
}

function digestCheck(digest: Uint8Array, wanted: Uint8Array): Check {
  const same = digest.every((byte, index) => byte === wanted[index]);
  return {
    name: 'digest',
    result: same ? 'pass' : 'fail',
    message: same
      ? 'the launch digest is the expected one'
      : 'the launch digest is another than the expected one; cvm explain tells why',
  };
}

/** An ID block given as files, else the one of the image. */
async function idBlockChecks(
  values: Values,
  file: IgvmFile,
  mask: number,
  image: { digest: Uint8Array; policy: bigint },
): Promise<readonly Check[]> {
  const path = pathOf(values, 'id-block');
  if (path === undefined) return verifyEmbeddedIdBlock(idBlocksOf(file, mask), image, crypto)?.checks ?? [];
  const block = await readSmall(path);
  const authPath = pathOf(values, 'id-auth');
  if (authPath !== undefined) {
    const auth = await readSmall(authPath);
    return verifyIdBlock({ block, auth, authorKeyEnabled: (auth[0x880] ?? 0) !== 0 }, image, crypto).checks;
  }
  const { digest, policy } = decodeIdBlock(block);
  const check = digestCheck(image.digest, digest);
  return [
    { ...check, name: 'launch-digest' },
    {
      name: 'policy',
      result: policy === image.policy ? 'pass' : 'fail',
      message:
        policy === image.policy
          ? "the guest policy is the image's"
          : `the ID block has guest policy 0x${policy.toString(16)}, the image 0x${image.policy.toString(16)}`,
    },
    { name: 'id-block-signature', result: 'skipped', message: 'without --id-auth there is no signature' },
  ];
}

async function corimChecks(
  values: Values,
  file: IgvmFile,
  mask: number,
  digest: Uint8Array,
): Promise<readonly Check[]> {
  const found = corimOf(file, mask);
  const keyPath = pathOf(values, 'corim-key');
  if (!found) {
    if (keyPath !== undefined)
      throw new CvmError('corim-missing', '--corim-key is given, but the image has no CoRIM document');
    return [];
  }
  const key = keyPath === undefined ? undefined : readP384PublicKey(await readSmall(keyPath), crypto);
  return verifyCorim(found, { platform: 'SEV_SNP', digest }, key, crypto).checks;
}

/** With `--cert` the report's own signature too; without, it is said that it was not looked at. */
async function reportChecks(
  values: Values,
  file: IgvmFile,
  mask: number,
  image: { digest: Uint8Array; policy: bigint | undefined },
): Promise<readonly Check[]> {
  const path = pathOf(values, 'report');
  if (path === undefined) return [];
  const found = readReportFile(await readSmall(path));
  const options = { at: dateOf(values), anyRoot: values['any-root'] === true };
  const signature: readonly Check[] =
    values.cert === undefined && found.certificates.length === 0
      ? [
          {
            name: 'report-signature',
            result: 'skipped',
            message: 'no certificates are given (--cert): anybody may have made this report',
          },
        ]
      : verifyReport(found, await certificatesOf(values, found.certificates), options, crypto).checks;
  return [
    ...signature,
    ...compareReport(found.report, {
      measurement: image.digest,
      policy: image.policy,
      ...keysOf(file, mask, found.report),
    }).checks,
  ];
}

/** What the image's ID block puts into a report. */
function keysOf(file: IgvmFile, mask: number, report: AttestationReport): object {
  const [first] = idBlocksOf(file, mask);
  if (!first) return {};
  const { idKeyDigest, authorKeyDigest } = verifyIdBlock(first.signed, {}, crypto);
  const { familyId, imageId, guestSvn } = decodeIdBlock(first.signed.block);
  return {
    idKeyDigest,
    ...(first.signed.authorKeyEnabled || report.authorKeyEnabled ? { authorKeyDigest } : {}),
    familyId,
    imageId,
    guestSvn,
  };
}
