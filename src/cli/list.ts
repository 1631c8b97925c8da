/** `cvm list` and `cvm measure`: a file as text, and its digest. */
import { CvmError, bytesToHex, hex } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { parseIgvm } from '../igvm/index.ts';
import type { IgvmFile } from '../igvm/index.ts';
import { MAX_IGVM_BYTES, listingText } from '../listing/index.ts';
import { measureIgvm } from '../measure/index.ts';
import type { MeasuredPlatform } from '../measure/index.ts';
import { EXIT } from './exit-codes.ts';
import { parse, usageError } from './options.ts';
import { complain, print } from './output.ts';

async function open(path: string): Promise<IgvmFile> {
  return parseIgvm(await nodeHost.files.readFile(path, MAX_IGVM_BYTES));
}

export async function list(args: readonly string[]): Promise<number> {
  const { files } = parse(args, {}, 1);
  const file = await open(files[0]!);
  print(listingText(file, nodeHost.crypto));
  // The listing shows what is wrong; the exit code tells a script.
  const errors = file.diagnostics.filter((finding) => finding.severity === 'error');
  for (const finding of errors.slice(0, 20))
    complain(`cvm: ${files[0]}: ${finding.message} (at file offset ${hex(finding.offset)})`);
  return errors.length > 0 ? EXIT.badFile : EXIT.success;
}

const PLATFORMS: Readonly<Record<string, MeasuredPlatform>> = {
  snp: 'SEV_SNP',
  'sev-snp': 'SEV_SNP',
  tdx: 'TDX',
  vsm: 'VSM_ISOLATION',
  vbs: 'VSM_ISOLATION',
};

export async function measure(args: readonly string[]): Promise<number> {
  const { values, files } = parse(args, { platform: { type: 'string' }, json: { type: 'boolean' } }, 1);
  let platformType: MeasuredPlatform | undefined;
  if (values.platform !== undefined) {
    platformType = PLATFORMS[String(values.platform).toLowerCase().replace('_', '-')];
    if (!platformType)
      throw usageError(`--platform must be snp, tdx or vsm, not '${String(values.platform)}'`);
  }
  const file = await open(files[0]!);
  const error = file.diagnostics.find((finding) => finding.severity === 'error');
  if (error) throw new CvmError(error.code, error.message, { name: files[0]!, fileOffset: error.offset });
  const measured = measureIgvm(file, platformType ? { platformType } : {}, nodeHost.crypto);
  const digest = bytesToHex(measured.digest);
  if (!values.json) {
    for (const finding of measured.diagnostics) complain(`cvm: ${finding.severity}: ${finding.message}`);
    print(digest);
    return EXIT.success;
  }
  print(
    JSON.stringify(
      {
        platform: measured.platform.platformType,
        compatibilityMask: measured.platform.compatibilityMask,
        profile: measured.profile,
        name: measured.name,
        algorithm: measured.algorithm,
        digest,
        diagnostics: measured.diagnostics,
      },
      null,
      2,
    ),
  );
  return EXIT.success;
}
