/** What is wrong with an image beyond the rules of the format: whether a loader takes it, and what a release must not have. */
import { hex } from '../base/index.ts';
import type { Diagnostic, Severity } from '../base/index.ts';
import { PROFILES, dataOf, launchOperations, platforms, specOf } from '../igvm/index.ts';
import type { IgvmFile, IgvmHeader, Platform, ProfileName, StructuredHeader } from '../igvm/index.ts';
import { SEV_FEATURE, VMSA, VMSA_SIZE, readVmsa, refuseVmsa } from '../snp/index.ts';
import { QEMU_VMSA_FIELDS } from './explain-vmsa.ts';

export interface CheckOptions {
  /** The loader that is to take the file; default `qemu-kvm`. `file-order` checks no loader. */
  readonly profile?: ProfileName;
  /** What is only a warning while developing is an error: a debug policy, for one. */
  readonly release?: boolean;
}

/** Findings of `checkImage`; the same bound as the reader's. */
const LIMIT = 1000;

class Report {
  readonly list: Diagnostic[] = [];
  add(severity: Severity, code: string, header: IgvmHeader, message: string, field?: string): void {
    if (this.list.length >= LIMIT) return;
    if (field && header.type !== 'UNKNOWN' && header.type !== 'VERSION_STRING') {
      const { offset, size } = specOf(header.type).structure.field(field);
      this.list.push({ severity, code, message, offset: header.offset + 8 + offset, length: size });
    } else this.list.push({ severity, code, message, offset: header.offset, length: header.length });
  }
}

/** Guest policy of SEV-SNP (Firmware ABI, "Guest Policy"). */
const POLICY = { smt: 16n, mustBeOne: 17n, migrate: 18n, debug: 19n, lastKnown: 25n };

/**
 * All findings about a file, in file order: those of the format (`parseIgvm`), whether the loader takes it, and
 * lints. Hashes nothing.
 */
export function checkImage(file: IgvmFile, options: CheckOptions = {}): Diagnostic[] {
  const profile = options.profile ?? 'qemu-kvm';
  const report = new Report();
  const declared = platforms(file);
  for (const header of file.headers) {
    if (header.type === 'GUEST_POLICY') policy(header, declared, options, report);
    if (header.type === 'VP_CONTEXT') context(file, header, declared, profile, report);
    if (profile === 'qemu-kvm') qemuDirective(header, declared, report);
  }
  for (const platform of declared)
    if (platform.platformType === 'SEV_SNP' && !hasPolicy(file, platform))
      report.add(
        'warning',
        'snp-no-policy',
        file.headers[platform.directive]!,
        "no GUEST_POLICY for SEV-SNP: the loader's policy counts, and the igvm crate refuses to measure the file",
      );
  return merge([...file.diagnostics, ...report.list, ...loader(file, declared, profile)]);
}

const hasPolicy = (file: IgvmFile, { compatibilityMask }: Platform): boolean =>
  file.headers.some(
    (header) => header.type === 'GUEST_POLICY' && (header.compatibilityMask & compatibilityMask) !== 0,
  );

/** What a loader says of the platforms it would launch. */
function loader(file: IgvmFile, declared: readonly Platform[], profile: ProfileName): Diagnostic[] {
  const { platforms: loads, title } = PROFILES[profile];
  const mine = declared.filter(
    ({ platformType }) => platformType !== undefined && (!loads || loads.includes(platformType)),
  );
  if (loads && mine.length === 0 && declared.length > 0) {
    const { offset, length } = file.headers[declared[0]!.directive]!;
    const message = `${title} launches ${loads.join(', ')}; the file declares none of these`;
    return [{ severity: 'error', code: 'loader-platform', message, offset, length }];
  }
  return mine.flatMap((platform) => [...launchOperations(file, { ...platform, profile }).diagnostics]);
}

function policy(
  header: StructuredHeader<'GUEST_POLICY'>,
  declared: readonly Platform[],
  { release }: CheckOptions,
  report: Report,
): void {
  const snp = declared.some(
    ({ platformType, compatibilityMask }) =>
      platformType === 'SEV_SNP' && (compatibilityMask & header.compatibilityMask) !== 0,
  );
  if (!snp) return;
  const bit = (n: bigint): boolean => ((header.policy >> n) & 1n) === 1n;
  const say = (severity: Severity, code: string, message: string): void =>
    report.add(severity, code, header, message, 'policy');
  if (header.policy === 0n)
    return say('warning', 'snp-policy-zero', "policy 0: QEMU takes its command line's policy instead");
  if (!bit(POLICY.mustBeOne))
    say(
      'error',
      'snp-policy-bit17',
      `policy ${hex(header.policy)} has bit 17 clear; the firmware refuses it`,
    );
  if (bit(POLICY.debug))
    say(
      release ? 'error' : 'warning',
      'snp-policy-debug',
      'the policy allows debugging: the host can read and write the guest',
    );
  if (bit(POLICY.migrate))
    say('hint', 'snp-policy-migrate', 'the policy allows association with a migration agent');
  if (header.policy >> (POLICY.lastKnown + 1n))
    say('warning', 'snp-policy-reserved', `policy ${hex(header.policy)} has reserved bits set`);
}

function context(
  file: IgvmFile,
  header: StructuredHeader<'VP_CONTEXT'>,
  declared: readonly Platform[],
  profile: ProfileName,
  report: Report,
): void {
  const platform = declared.find(({ compatibilityMask }) => compatibilityMask === header.compatibilityMask);
  const type = platform?.platformType;
  if ((type !== 'SEV_SNP' && type !== 'SEV_ES') || header.data?.length !== VMSA_SIZE) return;
  const vmsa = dataOf(file, header.data);
  const who = `the VMSA of vCPU ${header.vpIndex}`;
  if (type === 'SEV_SNP') {
    const refused = refuseVmsa(vmsa, 0);
    if (refused)
      report.add('warning', 'vmsa-invalid', header, `${who}: the processor will not enter it: ${refused}`);
    const features = readVmsa(vmsa, 'sev_features');
    if (features & (1n << BigInt(SEV_FEATURE.DebugSwap)))
      report.add(
        'hint',
        'vmsa-debug-swap',
        header,
        `${who} has DebugSwap set: a kernel without it refuses the file or measures another digest`,
      );
  }
  if (profile !== 'qemu-kvm') return;
  const foreign = VMSA.fields.filter(
    ({ name, offset, size }) =>
      !QEMU_VMSA_FIELDS.has(name) && vmsa.subarray(offset, offset + size).some((byte) => byte !== 0),
  );
  if (foreign.length > 0)
    report.add(
      'error',
      'qemu-vmsa-field',
      header,
      `${who}: QEMU refuses a VMSA with these fields set: ${foreign
        .slice(0, 6)
        .map(({ name }) => name)
        .join(', ')}${foreign.length > 6 ? ' …' : ''}`,
    );
  if (readVmsa(vmsa, 'tr.base') !== readVmsa(vmsa, 'ldtr.base'))
    report.add(
      'hint',
      'qemu-tr-base',
      header,
      `${who}: QEMU loads the base of TR from that of LDTR, so the digest will differ`,
    );
}

function qemuDirective(header: IgvmHeader, declared: readonly Platform[], report: Report): void {
  if ((header.type === 'MEMORY_MAP' || header.type === 'MADT') && header.byteOffset !== 0)
    report.add(
      'warning',
      'qemu-byte-offset',
      header,
      `QEMU ignores the offset ${header.byteOffset} and writes ${header.type} at the start of the area`,
      'byteOffset',
    );
  if (header.type === 'PARAMETER_AREA' && header.fileOffset !== 0)
    report.add(
      'hint',
      'qemu-initial-data',
      header,
      'QEMU ignores the initial data of a parameter area',
      'fileOffset',
    );
  if (header.type === 'VP_CONTEXT' && header.vpIndex > 0) {
    const native = declared.some(
      ({ platformType, compatibilityMask }) =>
        platformType === 'NATIVE' && compatibilityMask === header.compatibilityMask,
    );
    if (native)
      report.add(
        'warning',
        'qemu-native-vp',
        header,
        'QEMU takes the native context of the boot processor only',
        'vpIndex',
      );
  }
}

/** Each finding once, in file order. Loaders repeat what the format's rules said of the same place. */
function merge(findings: readonly Diagnostic[]): Diagnostic[] {
  const seen = new Set<string>();
  return findings
    .filter(({ code, offset, message }) => {
      const keys = [`${code}/${offset}`, `${message}/${offset}`];
      if (keys.some((key) => seen.has(key))) return false;
      for (const key of keys) seen.add(key);
      return true;
    })
    .sort((a, b) => a.offset - b.offset);
}
