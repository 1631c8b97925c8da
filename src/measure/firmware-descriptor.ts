/** QEMU's firmware descriptors (docs/interop/firmware.json) of IGVM files: read, checked against the file, written. */
import { CvmError } from '../base/index.ts';
import type { Diagnostic } from '../base/index.ts';
import { platforms } from '../igvm/index.ts';
import type { IgvmFile, PlatformType } from '../igvm/index.ts';

/** `Firmware` of the schema, with the mapping of device `igvm` (since QEMU 10.1). */
export interface FirmwareDescriptor {
  readonly description: string;
  readonly 'interface-types': readonly string[];
  readonly mapping: { readonly device: 'igvm'; readonly filename: string };
  readonly targets: readonly { readonly architecture: string; readonly machines: readonly string[] }[];
  readonly features: readonly string[];
  readonly tags: readonly string[];
}

const INTERFACES = ['bios', 'openfirmware', 'uboot', 'uefi'];
const FEATURES: Partial<Record<PlatformType, string>> = {
  SEV: 'amd-sev',
  SEV_ES: 'amd-sev-es',
  SEV_SNP: 'amd-sev-snp',
  TDX: 'intel-tdx',
};

const fail = (what: string): CvmError =>
  new CvmError('firmware-descriptor', `this is no firmware descriptor for an IGVM file: ${what}`);

const strings = (value: unknown, name: string): string[] => {
  if (!Array.isArray(value) || value.some((one) => typeof one !== 'string'))
    throw fail(`${name} is not a list of strings`);
  return value as string[];
};

/** @throws CvmError `firmware-descriptor` for JSON that does not follow the schema, or has another device. */
export function readFirmwareDescriptor(text: string): FirmwareDescriptor {
  let value: Record<string, unknown>;
  try {
    value = JSON.parse(text) as Record<string, unknown>;
  } catch (error) {
    throw fail(`it is no JSON (${(error as Error).message})`);
  }
  if (typeof value !== 'object' || value === null) throw fail('it is no object');
  if (typeof value['description'] !== 'string') throw fail('it has no description');
  const mapping = value['mapping'] as Record<string, unknown> | undefined;
  if (mapping?.['device'] !== 'igvm')
    throw fail(`its device is ${JSON.stringify(mapping?.['device'] ?? null)}`);
  const { filename } = mapping;
  if (typeof filename !== 'string') throw fail('its mapping has no filename');
  const targets = value['targets'];
  if (!Array.isArray(targets)) throw fail('it has no list of targets');
  return {
    description: value['description'],
    'interface-types': strings(value['interface-types'], 'interface-types'),
    mapping: { device: 'igvm', filename },
    targets: targets.map((target: Record<string, unknown> | null) => {
      if (typeof target?.['architecture'] !== 'string') throw fail('a target has no architecture');
      return { architecture: target['architecture'], machines: strings(target['machines'], 'machines') };
    }),
    features: strings(value['features'], 'features'),
    tags: value['tags'] === undefined ? [] : strings(value['tags'], 'tags'),
  };
}

const featuresOf = (file: IgvmFile): string[] => [
  ...new Set(
    platforms(file).flatMap(({ platformType }) => {
      const feature = platformType && FEATURES[platformType];
      return feature ? [feature] : [];
    }),
  ),
];
const architectureOf = (file: IgvmFile): string =>
  file.header.architecture === 'AARCH64' ? 'aarch64' : 'x86_64';

/** A descriptor that fits the file; `filename` is where the file will be installed. */
export function firmwareDescriptor(
  file: IgvmFile,
  filename: string,
  description = 'IGVM guest image',
): FirmwareDescriptor {
  const architecture = architectureOf(file);
  return {
    description,
    'interface-types': ['uefi'],
    mapping: { device: 'igvm', filename },
    targets: [{ architecture, machines: [architecture === 'x86_64' ? 'pc-q35-*' : 'virt-*'] }],
    features: featuresOf(file),
    tags: [],
  };
}

/** What a descriptor says that the file does not have, and the reverse. Offsets are 0: it is about no directive. */
export function checkFirmwareDescriptor(descriptor: FirmwareDescriptor, file: IgvmFile): Diagnostic[] {
  const found: Diagnostic[] = [];
  const add = (severity: 'error' | 'warning', code: string, message: string): void =>
    void found.push({ severity, code, message, offset: 0, length: 0 });
  const has = featuresOf(file);
  const confidential = Object.values(FEATURES);
  for (const feature of descriptor.features)
    if (confidential.includes(feature) && !has.includes(feature))
      add(
        'error',
        'firmware-feature',
        `the descriptor claims ${feature}; the file declares no such platform`,
      );
  for (const feature of has)
    if (!descriptor.features.includes(feature))
      add('warning', 'firmware-feature', `the file supports ${feature}; the descriptor does not say so`);
  const architecture = architectureOf(file);
  if (!descriptor.targets.some((target) => target.architecture === architecture))
    add('error', 'firmware-target', `no target of the descriptor is ${architecture}, as the file is`);
  for (const type of descriptor['interface-types'])
    if (!INTERFACES.includes(type))
      add('error', 'firmware-interface', `there is no interface type '${type}'`);
  if (descriptor['interface-types'].length === 0)
    add('error', 'firmware-interface', 'the descriptor names no interface type');
  if (!descriptor.mapping.filename.startsWith('/'))
    add('warning', 'firmware-filename', `'${descriptor.mapping.filename}' is no absolute path`);
  return found;
}
