/**
 * The secure processor of the machine: SNP_LAUNCH_START, UPDATE and FINISH (SEV-SNP Firmware ABI, chapter
 * 8). It accumulates the launch digest, writes the secrets page, checks the CPUID page and moves pages from the
 * hypervisor's hands into the guest's.
 */
import { CvmError, bytesToHex, hex, writeField } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { ATTESTATION_REPORT, GuestMessages } from './guest-messages.ts';
import { decodeCpuidPage, encodeCpuidPage } from './cpuid-page.ts';
import type { CpuidFunction } from './cpuid-page.ts';
import { contentsHash, extendLaunchDigest, LAUNCH_DIGEST_SIZE } from './launch-digest.ts';
import type { SnpPageType } from './launch-digest.ts';
import type { Rmp } from './rmp.ts';
import { encodeSecretsPage } from './secrets-page.ts';

/** What the secure processor reaches of the machine. */
export interface FirmwareSurroundings {
  readonly rmp: Rmp;
  readonly crypto: Crypto;
  /** The 4096 bytes of an assigned page, live. */
  privatePage(gpa: number): Uint8Array;
  /** CPUID as this chip lets an SNP guest see it; undefined for a function it does not report. */
  cpuid(leaf: number, subleaf: number): CpuidFunction | undefined;
}

export interface LaunchUpdate {
  readonly gpa: number;
  readonly pageType: SnpPageType;
  /** At most 4096 bytes, zeros to follow; undefined: zeros. Ignored for ZERO and SECRETS pages. */
  readonly data: Uint8Array | undefined;
}

/** What an ID block and its authentication say (Firmware ABI, "ID_BLOCK", "ID_AUTH"). Signatures are not verified. */
export interface LaunchIdentity {
  /** Expected launch digest, 48 bytes. */
  readonly digest: Uint8Array;
  readonly policy: bigint;
  readonly familyId: Uint8Array;
  readonly imageId: Uint8Array;
  readonly guestSvn: number;
  /** SHA-384 of the public keys as ID_AUTH holds them. */
  readonly idKeyDigest: Uint8Array;
  readonly authorKeyDigest?: Uint8Array;
}

/** Boot loader 4, TEE 0, SNP firmware 24, microcode 216 (TCB_VERSION, Milan). */
const TCB = 0xd818_0000_0000_0004n;
const FIRMWARE_VERSION = { major: 1n, minor: 55n, build: 24n } as const;
/** MASK_CHIP_KEY, SIGNING_KEY 7 (none): nothing signs, as on a chip whose key is masked. */
const UNSIGNED = 0x1en;
const AUTHOR_KEY_EN = 1n;

/** Policy bits (SEV-SNP Firmware ABI, §4.3). */
const POLICY = { smt: 1n << 16n, mustBeOne: 1n << 17n, migrationAgent: 1n << 18n, debug: 1n << 19n } as const;

export class SecureProcessor {
  readonly #around: FirmwareSurroundings;
  readonly #seed: bigint;
  readonly #familyModelStepping: number;
  #state: 'init' | 'launching' | 'running' = 'init';
  #digest: Uint8Array = new Uint8Array(LAUNCH_DIGEST_SIZE);
  #policy = 0n;
  #identity: LaunchIdentity | undefined;
  #messages: GuestMessages | undefined;

  constructor(around: FirmwareSurroundings, seed: bigint, familyModelStepping: number) {
    this.#around = around;
    this.#seed = seed;
    this.#familyModelStepping = familyModelStepping;
  }

  /** The launch digest so far: 48 bytes. */
  get digest(): Uint8Array {
    return this.#digest.slice();
  }
  get policy(): bigint {
    return this.#policy;
  }
  get state(): string {
    return this.#state;
  }

  /** @throws CvmError `snp-policy` if the chip cannot honour the policy. */
  launchStart(policy: bigint): void {
    this.#need('init', 'SNP_LAUNCH_START');
    if ((policy & POLICY.mustBeOne) === 0n)
      throw new CvmError('snp-policy', `guest policy ${hex(policy)}: bit 17 is reserved and must be one`);
    if (policy >> 26n) throw new CvmError('snp-policy', `guest policy ${hex(policy)} has reserved bits set`);
    if (policy & POLICY.migrationAgent)
      throw new CvmError(
        'snp-policy',
        `guest policy ${hex(policy)} asks for a migration agent; there is none`,
      );
    if ((policy & POLICY.smt) === 0n)
      throw new CvmError(
        'snp-policy',
        `guest policy ${hex(policy)} forbids SMT, but this host has it enabled`,
      );
    this.#policy = policy;
    this.#state = 'launching';
  }

  /**
   * Takes one page that the hypervisor has assigned and made immutable: writes it, measures it and hands it to
   * the guest, validated. A VMSA page gets the VMSA attribute and is hashed as given.
   */
  launchUpdate(page: LaunchUpdate): void {
    this.#need('launching', 'SNP_LAUNCH_UPDATE');
    const { gpa, pageType } = page;
    const { rmp } = this.#around;
    const entry = rmp.entry(gpa);
    if (!entry.assigned || !entry.immutable)
      throw new CvmError(
        'snp-page-state',
        `SNP_LAUNCH_UPDATE: page ${hex(gpa)} is not in the pre-guest state`,
        {
          gpa: BigInt(gpa),
        },
      );
    const bytes = this.#around.privatePage(gpa);
    bytes.fill(0);
    if (pageType === 'secrets') bytes.set(this.#secrets());
    else if (pageType === 'cpuid') bytes.set(this.#checkedCpuid(page));
    else if (pageType !== 'zero' && page.data) bytes.set(page.data);
    this.#measure(pageType, gpa, page.data);
    rmp.release(gpa, true);
    if (pageType === 'vmsa') rmp.setVmsa(gpa, true);
  }

  /** The VMSA of a vCPU: KVM keeps it outside the guest's memory, so that only its digest is taken here. */
  launchUpdateVmsa(gpa: number, vmsa: Uint8Array): void {
    this.#need('launching', 'SNP_LAUNCH_UPDATE');
    this.#measure('vmsa', gpa, vmsa);
  }

  /**
   * Ends the launch. An ID block must name this digest and this policy (Firmware ABI, SNP_LAUNCH_FINISH:
   * BAD_MEASUREMENT, POLICY_FAILURE).
   */
  launchFinish(idBlock?: LaunchIdentity): void {
    this.#need('launching', 'SNP_LAUNCH_FINISH');
    if (idBlock && bytesToHex(idBlock.digest) !== bytesToHex(this.#digest))
      throw new CvmError(
        'snp-bad-measurement',
        `the ID block expects launch digest ${bytesToHex(idBlock.digest)}, but the launch gave ${bytesToHex(this.#digest)}`,
        { name: 'SNP_ID_BLOCK.ld' },
      );
    if (idBlock && idBlock.policy !== this.#policy)
      throw new CvmError(
        'snp-policy',
        `the ID block has guest policy ${hex(idBlock.policy)}, the guest was launched with ${hex(this.#policy)}`,
        { name: 'SNP_ID_BLOCK.policy' },
      );
    this.#identity = idBlock;
    this.#messages = new GuestMessages({
      vmpcks: this.#vmpcks(),
      report: (vmpl, reportData) => this.attestationReport(vmpl, reportData),
    });
    this.#state = 'running';
  }

  /** SNP_GUEST_REQUEST: `status` 0 with the response page, or why not. */
  guestRequest(page: Uint8Array): { readonly status: number; readonly response?: Uint8Array } {
    if (!this.#messages)
      throw new CvmError('snp-guest-state', `SNP_GUEST_REQUEST is not allowed in state ${this.#state}`);
    return this.#messages.request(page);
  }

  /** The attestation report: unsigned, and says so (KEY_INFO). */
  attestationReport(vmpl: number, reportData: Uint8Array): Uint8Array {
    const report = new Uint8Array(ATTESTATION_REPORT.size);
    const put = (name: string, value: bigint): void =>
      writeField(report, ATTESTATION_REPORT.field(name), value);
    const copy = (name: string, bytes: Uint8Array): void => {
      const { offset, size } = ATTESTATION_REPORT.field(name);
      report.set(bytes.subarray(0, size), offset);
    };
    const { crypto } = this.#around;
    const seeded = (name: string): Uint8Array =>
      crypto.sha256(new TextEncoder().encode(`${name} of seed ${this.#seed}`));
    const identity = this.#identity;
    put('VERSION', 3n);
    put('GUEST_SVN', BigInt(identity?.guestSvn ?? 0));
    put('POLICY', this.#policy);
    if (identity) {
      copy('FAMILY_ID', identity.familyId);
      copy('IMAGE_ID', identity.imageId);
      copy('ID_KEY_DIGEST', identity.idKeyDigest);
      if (identity.authorKeyDigest) copy('AUTHOR_KEY_DIGEST', identity.authorKeyDigest);
    }
    put('VMPL', BigInt(vmpl));
    for (const name of ['CURRENT_TCB', 'REPORTED_TCB', 'COMMITTED_TCB', 'LAUNCH_TCB']) put(name, TCB);
    put('PLATFORM_INFO', 1n); // SMT is enabled
    put('KEY_INFO', UNSIGNED | (identity?.authorKeyDigest ? AUTHOR_KEY_EN : 0n));
    copy('REPORT_DATA', reportData);
    copy('MEASUREMENT', this.#digest);
    copy('REPORT_ID', seeded('REPORT_ID'));
    copy('REPORT_ID_MA', new Uint8Array(32).fill(0xff));
    const signature = this.#familyModelStepping;
    put('CPUID_FAM_ID', BigInt(((signature >> 8) & 0xf) + ((signature >> 20) & 0xff)));
    put('CPUID_MOD_ID', BigInt(((signature >> 4) & 0xf) | ((signature >> 12) & 0xf0)));
    put('CPUID_STEP', BigInt(signature & 0xf));
    copy('CHIP_ID', Uint8Array.from([...seeded('CHIP_ID'), ...seeded('CHIP_ID, second half')]));
    for (const kind of ['CURRENT', 'COMMITTED']) {
      put(`${kind}_MAJOR`, FIRMWARE_VERSION.major);
      put(`${kind}_MINOR`, FIRMWARE_VERSION.minor);
      put(`${kind}_BUILD`, FIRMWARE_VERSION.build);
    }
    return report;
  }

  #need(state: 'init' | 'launching', command: string): void {
    if (this.#state !== state)
      throw new CvmError('snp-guest-state', `${command} is not allowed in state ${this.#state}`);
  }

  #measure(pageType: SnpPageType, gpa: number, data: Uint8Array | undefined): void {
    const { crypto } = this.#around;
    const contents = contentsHash(pageType, data, crypto);
    this.#digest = extendLaunchDigest(this.#digest, { pageType, gpa: BigInt(gpa), contents }, crypto);
  }

  #vmpcks(): readonly [Uint8Array, Uint8Array, Uint8Array, Uint8Array] {
    const key = (index: number): Uint8Array =>
      this.#around.crypto.sha256(new TextEncoder().encode(`VMPCK${index} of seed ${this.#seed}`));
    return [key(0), key(1), key(2), key(3)];
  }
  #secrets(): Uint8Array {
    return encodeSecretsPage({ vmpcks: this.#vmpcks(), familyModelStepping: this.#familyModelStepping });
  }

  /**
   * The firmware accepts a CPUID function only if it promises nothing the chip does not have; else it
   * refuses the page (Firmware ABI, §8.17 "CPUID reporting", status INVALID_PARAM).
   */
  #checkedCpuid(page: LaunchUpdate): Uint8Array {
    const functions = decodeCpuidPage(page.data ?? new Uint8Array(4096));
    for (const row of functions) {
      const chip = this.#around.cpuid(row.leaf, row.subleaf);
      const wrong = chip === undefined ? nonZeroRegister(row) : differingRegister(row, chip);
      if (wrong)
        throw new CvmError(
          'snp-cpuid',
          `the secure firmware refuses CPUID leaf ${hex(row.leaf)} subleaf ${hex(row.subleaf)}: ${wrong}`,
          { gpa: BigInt(page.gpa), name: wrong.split(' ')[0] },
        );
    }
    return encodeCpuidPage(functions);
  }
}

const REGISTERS = ['eax', 'ebx', 'ecx', 'edx'] as const;
const nonZeroRegister = (row: CpuidFunction): string | undefined => {
  const register = REGISTERS.find((name) => row[name] !== 0);
  return register && `${register} is ${hex(row[register])}, but the chip does not report this function`;
};
const differingRegister = (row: CpuidFunction, chip: CpuidFunction): string | undefined => {
  const register = REGISTERS.find((name) => row[name] >>> 0 !== chip[name] >>> 0);
  return register && `${register} is ${hex(row[register])}, the chip has ${hex(chip[register])}`;
};
