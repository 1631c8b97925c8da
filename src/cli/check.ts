/** `cvm check`: everything that is wrong with a file, or will be when a loader takes it. */
import { resolve } from 'node:path';
import { hex } from '../base/index.ts';
import type { Diagnostic, Severity } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { PROFILES, parseIgvm } from '../igvm/index.ts';
import type { IgvmFile, ProfileName } from '../igvm/index.ts';
import { MAX_IGVM_BYTES } from '../listing/index.ts';
import {
  checkFirmwareDescriptor,
  checkImage,
  firmwareDescriptor,
  readFirmwareDescriptor,
} from '../measure/index.ts';
import { EXIT } from './exit-codes.ts';
import { parse, usageError } from './options.ts';
import type { Values } from './options.ts';
import { print } from './output.ts';

const SEVERITIES: readonly Severity[] = ['error', 'warning', 'info', 'hint'];
const MAX_DESCRIPTOR_BYTES = 1 << 20;

export async function check(args: readonly string[]): Promise<number> {
  const { values, files } = parse(
    args,
    {
      json: { type: 'boolean' },
      loader: { type: 'string' },
      release: { type: 'boolean' },
      level: { type: 'string' },
      'fail-on': { type: 'string' },
      'firmware-descriptor': { type: 'string' },
      'write-firmware-descriptor': { type: 'boolean' },
    },
    1,
  );
  const path = files[0]!;
  const profile = loaderOf(values.loader);
  const level = severityOf('level', values.level, 'hint');
  const failOn = severityOf('fail-on', values['fail-on'], 'error');
  const file = parseIgvm(await nodeHost.files.readFile(path, MAX_IGVM_BYTES));
  if (values['write-firmware-descriptor']) {
    print(JSON.stringify(firmwareDescriptor(file, resolve(path)), null, 4));
    return EXIT.success;
  }
  const found = [
    ...checkImage(file, { ...(profile && { profile }), release: values.release === true }),
    ...(await descriptorFindings(values, file)),
  ];
  const rank = (severity: Severity): number => SEVERITIES.indexOf(severity);
  const shown = found.filter(({ severity }) => rank(severity) <= rank(level));
  if (values.json)
    print(
      JSON.stringify(
        { file: path, loader: profile ?? 'qemu-kvm', diagnostics: shown.map((one) => withHeader(file, one)) },
        null,
        2,
      ),
    );
  // As compilers print them, for the problem matcher `$cvm`.
  else for (const one of shown) print(line(path, file, one));
  return found.some(({ severity }) => rank(severity) <= rank(failOn)) ? EXIT.differs : EXIT.success;
}

/** `FILE:DIRECTIVE: severity: message [code] (at file offset …)`. */
function line(path: string, file: IgvmFile, finding: Diagnostic): string {
  const { directive } = withHeader(file, finding);
  const where = directive === undefined ? '0' : `${directive}`;
  return `${path}:${where}: ${finding.severity}: ${finding.message} [${finding.code}] (file offset ${hex(finding.offset)})`;
}

/** The header that a finding is in. */
function withHeader(
  file: IgvmFile,
  finding: Diagnostic,
): Diagnostic & { directive?: number; header?: string } {
  const { headers } = file;
  let low = 0;
  let high = headers.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (headers[middle]!.offset <= finding.offset) low = middle;
    else high = middle - 1;
  }
  const header = headers[low];
  if (!header || finding.offset < header.offset || finding.offset >= header.offset + header.length)
    return finding;
  return { ...finding, directive: header.index, header: header.type };
}

async function descriptorFindings(values: Values, file: IgvmFile): Promise<Diagnostic[]> {
  const path = values['firmware-descriptor'];
  if (path === undefined) return [];
  const bytes = await nodeHost.files.readFile(String(path), MAX_DESCRIPTOR_BYTES);
  return checkFirmwareDescriptor(readFirmwareDescriptor(new TextDecoder().decode(bytes)), file);
}

function loaderOf(text: Values[string]): ProfileName | undefined {
  if (text === undefined) return undefined;
  if (Object.hasOwn(PROFILES, String(text))) return text as ProfileName;
  throw usageError(`--loader must be one of ${Object.keys(PROFILES).join(', ')}, not '${String(text)}'`);
}

function severityOf(name: string, text: Values[string], otherwise: Severity): Severity {
  const found = SEVERITIES.find((severity) => severity === (text ?? otherwise));
  if (!found) throw usageError(`--${name} must be one of ${SEVERITIES.join(', ')}, not '${String(text)}'`);
  return found;
}
