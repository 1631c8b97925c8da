/** `cvm measure --mode … --ovmf …`: sev-snp-measure's command line, options and output. */
import { createReadStream } from 'node:fs';
import { stat, writeFile } from 'node:fs/promises';
import { CvmError, bytesToHex, hex, hexToBytes } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { MAX_VCPUS, OVMF_MODES, VMM_TYPES, measureOvmf, measureTdvf } from '../measure/index.ts';
import type { OvmfLaunch, OvmfMeasurement, OvmfMode, VmmType } from '../measure/index.ts';
import { EXIT } from './exit-codes.ts';
import { digestText, integer, processorOf, tdxOrderOf, withUsage } from './measure-options.ts';
import { count, usageError } from './options.ts';
import type { Values } from './options.ts';
import { print, printAll } from './output.ts';

/** Firmware images have a few MiB. */
const MAX_FIRMWARE_BYTES = 256 * 1024 * 1024;

/** Options of mode tdx, which sev-snp-measure does not have. */
const TDX_OPTIONS = ['mode', 'ovmf', 'tdx-order', 'output-format', 'json', 'trace', 'verbose'];

/** As sev-snp-measure names its modes in its verbose output. */
const MODE_NAMES: Readonly<Record<OvmfMode, string>> = {
  sev: 'SEV',
  seves: 'SEV_ES',
  snp: 'SEV_SNP',
  'snp:ovmf-hash': 'SEV_SNP',
  'snp:svsm': 'SEV_SNP_SVSM',
};

export async function measureOvmfCommand(values: Values): Promise<number> {
  if (values.mode === 'tdx') return measureTdvfCommand(values);
  const launch = await launchOf(values);
  const measured = withUsage(() => measureOvmf(launch, nodeHost.crypto));
  if (values['dump-vmsa'])
    for (const [index, vmsa] of measured.vmsas.entries()) await writeFile(`vmsa${index}.bin`, vmsa);
  const { mode } = measured;
  // The hash of OVMF is for --snp-ovmf-hash, which takes hexadecimal only.
  const digest = mode === 'snp:ovmf-hash' ? bytesToHex(measured.digest) : digestText(measured.digest, values);
  if (values.json) await printAll(json(measured, digest, values.trace === true));
  else {
    if (values.trace) await printAll(traceLines(measured));
    const verbose = values.verbose === true && mode !== 'snp:ovmf-hash';
    print(verbose ? `Calculated ${MODE_NAMES[mode]} guest measurement: ${digest}` : digest);
  }
  return EXIT.success;
}

async function measureTdvfCommand(values: Values): Promise<number> {
  for (const name of Object.keys(values))
    if (!TDX_OPTIONS.includes(name)) throw usageError(`--${name} has no meaning in mode tdx`);
  const path = text(values.ovmf);
  if (path === undefined) throw usageError('--ovmf PATH is missing');
  const order = tdxOrderOf(values) ?? 'one-pass';
  const { digest, algorithm, parts } = measureTdvf(await firmware(path), nodeHost.crypto, order);
  const written = digestText(digest, values);
  const measured = { mode: 'tdx', algorithm, parts, steps: undefined };
  if (values.json) await printAll(json(measured, written, false));
  else {
    if (values.trace) await printAll(traceLines(measured));
    print(values.verbose ? `Calculated TDX guest measurement: ${written}` : written);
  }
  return EXIT.success;
}

const text = (value: Values[string]): string | undefined => (value === undefined ? undefined : String(value));

/** @throws CvmError `usage`, or for a file that cannot be read. */
export async function launchOf(values: Values): Promise<OvmfLaunch> {
  for (const name of ['platform', 'loader', 'tdx-order'])
    if (values[name] !== undefined) throw usageError(`--${name} is for IGVM files`);
  const mode = text(values.mode) as OvmfMode | undefined;
  if (!mode || !OVMF_MODES.includes(mode))
    throw usageError(`--mode must be one of ${OVMF_MODES.join(', ')}, tdx`);
  const ovmf = text(values.ovmf);
  if (ovmf === undefined) throw usageError('--ovmf PATH is missing');
  if (mode === 'snp:ovmf-hash') return { mode, ovmf: await firmware(ovmf) };
  if (values['dump-vmsa'] && mode === 'sev') throw usageError('--dump-vmsa: mode sev measures no VMSA');
  const kernel = text(values.kernel);
  const initrd = text(values.initrd);
  if (initrd && !kernel) throw usageError('--initrd needs --kernel');
  if (values.append && !kernel) throw usageError('--append needs --kernel');
  const vcpus = count('vcpus', values.vcpus, 0, MAX_VCPUS);
  if (vcpus === undefined && mode !== 'sev') throw usageError(`--vcpus N is missing for mode ${mode}`);
  const guestFeatures = integer('guest-features', values['guest-features'], (1n << 64n) - 1n);
  const vmsaGpa = integer('vmsa-gpa', values['vmsa-gpa'], (1n << 52n) - 1n);
  return {
    mode,
    ovmf: await firmware(ovmf),
    ...processorOf(values),
    vmmType: vmmType(values['vmm-type']),
    vmsaFields: vmsaFields(values['vmsa-field']),
    ...(vcpus !== undefined && { vcpus }),
    ...(guestFeatures !== undefined && { guestFeatures }),
    ...(vmsaGpa !== undefined && { vmsaGpa }),
    ...(kernel && { kernel: await hashed(kernel), append: text(values.append) ?? '' }),
    ...(initrd && { initrd: await hashed(initrd) }),
    ...(values['snp-ovmf-hash'] && { snpOvmfHash: ovmfHash(String(values['snp-ovmf-hash'])) }),
    ...(mode === 'snp:svsm' && (await svsmOptions(values))),
  };
}

async function svsmOptions(values: Values): Promise<Pick<OvmfLaunch, 'svsm' | 'varsSize'>> {
  const svsm = text(values.svsm);
  if (svsm === undefined) throw usageError('mode snp:svsm needs --svsm PATH');
  const file = text(values['vars-file']);
  const size = count('vars-size', values['vars-size'], 0, MAX_FIRMWARE_BYTES);
  if (file !== undefined && size !== undefined)
    throw usageError('--vars-size and --vars-file exclude each other');
  if (file === undefined && size === undefined)
    throw usageError('mode snp:svsm needs --vars-size or --vars-file');
  return { svsm: await firmware(svsm), varsSize: size ?? (await sizeOf(file!)) };
}

function vmmType(value: Values[string]): VmmType {
  const name = text(value) ?? 'QEMU';
  const found = VMM_TYPES.find((type) => type.toLowerCase() === name.toLowerCase());
  if (!found) throw usageError(`--vmm-type must be one of ${VMM_TYPES.join(', ')}, not '${name}'`);
  return found;
}

function vmsaFields(value: Values[string]): Record<string, bigint> {
  const fields: Record<string, bigint> = {};
  for (const setting of Array.isArray(value) ? value : []) {
    const [, name, number] = /^([^=]+)=(.*)$/.exec(String(setting)) ?? [];
    if (name === undefined) throw usageError(`--vmsa-field must be NAME=VALUE, not '${String(setting)}'`);
    fields[name] = integer(`vmsa-field ${name}`, number, (1n << 64n) - 1n)!;
  }
  return fields;
}

function ovmfHash(value: string): Uint8Array {
  if (!/^([0-9a-fA-F]{2}){48}$/.test(value))
    throw usageError('--snp-ovmf-hash must be 96 hexadecimal digits');
  return hexToBytes(value);
}

const unreadable = (path: string, error: unknown): CvmError => {
  const { code, message } = error as NodeJS.ErrnoException;
  const kind = code === 'ENOENT' ? 'file-not-found' : 'file-unreadable';
  return new CvmError(kind, `cannot open ${path}: ${message}`, { name: path });
};

const sizeOf = (path: string): Promise<number> =>
  stat(path).then(
    ({ size }) => size,
    (error: unknown) => {
      throw unreadable(path, error);
    },
  );

/** A file of any kind, a pipe too, chunk by chunk. */
async function* chunks(path: string): AsyncGenerator<Buffer> {
  try {
    yield* createReadStream(path, { highWaterMark: 1 << 20 }) as AsyncIterable<Buffer>;
  } catch (error) {
    throw error instanceof CvmError ? error : unreadable(path, error);
  }
}

export async function firmware(path: string): Promise<Uint8Array> {
  const parts: Buffer[] = [];
  let size = 0;
  for await (const chunk of chunks(path)) {
    size += chunk.length;
    if (size > MAX_FIRMWARE_BYTES)
      throw new CvmError('file-too-large', `${path} has over ${MAX_FIRMWARE_BYTES} bytes`, { name: path });
    parts.push(chunk);
  }
  return new Uint8Array(Buffer.concat(parts));
}

/** SHA-256 of a file: an initrd may be larger than memory. */
async function hashed(path: string): Promise<{ readonly sha256: Uint8Array }> {
  const hash = nodeHost.crypto.createHash('sha256');
  for await (const chunk of chunks(path)) hash.update(chunk);
  return { sha256: hash.digest() };
}

/** What `cvm measure` shows of a measurement. */
type Shown = Pick<OvmfMeasurement, 'algorithm' | 'parts' | 'steps'> & { readonly mode: string };

function* traceLines({ steps, parts }: Shown): Generator<string> {
  if (!steps) {
    yield '# gpa  size  part\n';
    for (const { name, gpa, size } of parts) yield `${hex(gpa)}  ${size}  ${name}\n`;
    return;
  }
  yield '# gpa  page type  part  contents  digest after it\n';
  for (const { directive, gpa, pageType, contentsHash, digest } of steps)
    yield `${hex(gpa)}  ${pageType}  ${parts[directive]!.name}  ${bytesToHex(contentsHash)}  ${bytesToHex(digest)}\n`;
}

function* json(measured: Shown, digest: string, trace: boolean): Generator<string> {
  const { mode, algorithm, parts, steps } = measured;
  const head = JSON.stringify(
    { mode, algorithm, digest, parts: parts.map((part) => ({ ...part, gpa: hex(part.gpa) })) },
    null,
    2,
  );
  if (!trace || !steps) return yield `${head}\n`;
  yield `${head.slice(0, -2)},\n  "steps": [`;
  let separator = '\n';
  for (const step of steps) {
    yield `${separator}    ${JSON.stringify({
      part: step.directive,
      gpa: hex(step.gpa),
      pageType: step.pageType,
      contents: bytesToHex(step.contentsHash),
      digest: bytesToHex(step.digest),
    })}`;
    separator = ',\n';
  }
  yield '\n  ]\n}\n';
}
