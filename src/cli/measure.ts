/** `cvm measure`: what the platform's firmware will report, for an IGVM file or for OVMF. */
import { bytesToHex, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { PROFILES, parseIgvm } from '../igvm/index.ts';
import type { IgvmFile, ProfileName } from '../igvm/index.ts';
import { MAX_IGVM_BYTES } from '../listing/index.ts';
import { MAX_VCPUS, measureIgvm, measurementSteps, signatureOf } from '../measure/index.ts';
import type { MeasureOptions, MeasuredPlatform, Measurement, TdxOrder } from '../measure/index.ts';
import { version } from '../../package.json';
import { EXIT } from './exit-codes.ts';
import { MEASURE_OPTIONS, digestText, processorOf, tdxOrderOf, withUsage } from './measure-options.ts';
import { measureOvmfCommand } from './measure-ovmf.ts';
import { count, parse, usageError } from './options.ts';
import type { Values } from './options.ts';
import { complain, print, printAll } from './output.ts';
import { requireSound, withSource } from './source.ts';

const PLATFORMS: Readonly<Record<string, MeasuredPlatform>> = {
  snp: 'SEV_SNP',
  'sev-snp': 'SEV_SNP',
  'sev-es': 'SEV_ES',
  seves: 'SEV_ES',
  sev: 'SEV',
  tdx: 'TDX',
  vsm: 'VSM_ISOLATION',
  vbs: 'VSM_ISOLATION',
};

/** Options that have no meaning for an IGVM file. */
const OVMF_ONLY = [
  'kernel',
  'initrd',
  'append',
  'guest-features',
  'snp-ovmf-hash',
  'dump-vmsa',
  'svsm',
  'vars-size',
  'vars-file',
  'vmm-type',
  'vmsa-field',
  'vmsa-gpa',
];

export async function measure(args: readonly string[]): Promise<number> {
  // sev-snp-measure prints its version before it looks at anything else.
  if (args.includes('--version')) {
    print(`cvm measure ${version}`);
    return EXIT.success;
  }
  const isOvmf = args.some((arg) => /^--(mode|ovmf)(=|$)/.test(arg));
  const { values, files } = parse(args, MEASURE_OPTIONS, isOvmf ? 0 : 1);
  return isOvmf ? measureOvmfCommand(values) : measureFile(files[0]!, values);
}

function measureFile(path: string, values: Values): Promise<number> {
  const options = igvmOptions(values);
  return withSource(path, async ({ file, crypto }) => {
    requireSound(path, file);
    const measured = withUsage(() => measureIgvm(file, options, crypto));
    const digest = digestText(measured.digest, values);
    if (!values.json) {
      for (const finding of measured.diagnostics) complain(`cvm: ${finding.severity}: ${finding.message}`);
      if (values.trace) await printAll(traceLines(file, measured, crypto, options.tdxOrder));
      print(
        values.verbose ? `Calculated ${measured.platform.platformType} guest measurement: ${digest}` : digest,
      );
      return EXIT.success;
    }
    await printAll(json(file, measured, digest, crypto, values.trace === true, options.tdxOrder));
    return EXIT.success;
  });
}

/** A whole file in memory. @throws CvmError for one that the igvm crate would refuse. */
export async function openSound(path: string): Promise<IgvmFile> {
  const file = parseIgvm(await nodeHost.files.readFile(path, MAX_IGVM_BYTES));
  requireSound(path, file);
  return file;
}

/** @throws CvmError `usage`. */
export function igvmOptions(values: Values): MeasureOptions & { readonly tdxOrder?: TdxOrder } {
  for (const name of OVMF_ONLY)
    if (values[name] !== undefined) throw usageError(`--${name} needs --mode and --ovmf`);
  const vcpus = count('vcpus', values.vcpus, 1, MAX_VCPUS);
  const profile = loaderOf(values.loader) ?? (vcpus === undefined ? undefined : 'qemu-kvm');
  if (vcpus !== undefined && PROFILES[profile!].vpContexts !== 'last')
    throw usageError(
      `--vcpus has no effect on the loader ${profile}: it takes the VP contexts of the file as they are`,
    );
  const cpuSignature = withUsage(() => signatureOf(processorOf(values)));
  const tdxOrder = tdxOrderOf(values);
  const platformType = platformOf(values.platform);
  return {
    ...(platformType && { platformType }),
    ...(profile && { profile }),
    ...(vcpus !== undefined && { vcpus }),
    ...(cpuSignature !== undefined && { cpuSignature }),
    ...(tdxOrder && { tdxOrder }),
  };
}

function platformOf(text: unknown): MeasuredPlatform | undefined {
  if (text === undefined) return undefined;
  const name = String(text).toLowerCase().replace('_', '-');
  if (Object.hasOwn(PLATFORMS, name)) return PLATFORMS[name];
  throw usageError(`--platform must be snp, sev-es, sev, tdx or vsm, not '${String(text)}'`);
}

function loaderOf(text: unknown): ProfileName | undefined {
  if (text === undefined) return undefined;
  if (Object.hasOwn(PROFILES, String(text))) return text as ProfileName;
  throw usageError(`--loader must be one of ${Object.keys(PROFILES).join(', ')}, not '${String(text)}'`);
}

/** What a step adds: the header's type, and for SNP the page type. */
const stepKind = (file: IgvmFile, { operations }: Measurement, index: number): string => {
  const operation = operations[index]!;
  const header = file.headers[operation.directive]?.type ?? 'none';
  if (operation.kind === 'vp-context')
    return `${header} vcpu ${operation.vpIndex}${operation.reset ? ' (reset state)' : ''}`;
  return operation.kind === 'page' ? `${header} ${operation.pageType}` : header;
};

function* traceLines(
  file: IgvmFile,
  measured: Measurement,
  crypto: Crypto,
  order?: TdxOrder,
): Generator<string> {
  yield '# directive  gpa  kind  contents  digest after it\n';
  for (const step of measurementSteps(measured, crypto, order)) {
    const contents = step.contentsHash ? bytesToHex(step.contentsHash) : '-';
    const kind = stepKind(file, measured, step.operationIndex);
    yield `${step.directive}  ${hex(step.gpa)}  ${kind}  ${contents}  ${bytesToHex(step.digest)}\n`;
  }
}

function* json(
  file: IgvmFile,
  measured: Measurement,
  digest: string,
  crypto: Crypto,
  trace: boolean,
  order?: TdxOrder,
): Generator<string> {
  const { platform, profile, name, algorithm, diagnostics } = measured;
  const { platformType, compatibilityMask } = platform;
  const head = JSON.stringify(
    { platform: platformType, compatibilityMask, profile, name, algorithm, digest, diagnostics },
    null,
    2,
  );
  if (!trace) return yield `${head}\n`;
  yield `${head.slice(0, -2)},\n  "steps": [`;
  let separator = '\n';
  for (const step of measurementSteps(measured, crypto, order)) {
    yield `${separator}    ${JSON.stringify({
      directive: step.directive,
      gpa: hex(step.gpa),
      kind: stepKind(file, measured, step.operationIndex),
      contents: step.contentsHash ? bytesToHex(step.contentsHash) : null,
      digest: bytesToHex(step.digest),
    })}`;
    separator = ',\n';
  }
  yield '\n  ]\n}\n';
}
