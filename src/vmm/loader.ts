/** Launches an image: walks the loader's operations, puts pages through the RMP and the secure firmware. */
import { CvmError, NotImplemented, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { choosePlatform, launchOperations, requireComplete } from '../igvm/index.ts';
import type {
  IgvmFile,
  LaunchOperation,
  PageOperation,
  ProfileName,
  VpContextOperation,
} from '../igvm/index.ts';
import { encodeCpuidPage } from '../snp/index.ts';
import type { CpuidFunction, LaunchIdentity, SecureProcessor, SnpPageType } from '../snp/index.ts';
import type { GuestMemory } from './guest-memory.ts';
import { depositParameter } from './parameters.ts';
import type { ParameterValues } from './parameters.ts';

/** QEMU's sev-snp-guest default: SMT allowed, reserved bit 17. */
const DEFAULT_POLICY = 0x3_0000n;
const AREA_LIMIT = 1 << 24;

export interface LaunchInputs {
  readonly image: IgvmFile;
  readonly profile: ProfileName;
  readonly memory: GuestMemory;
  readonly firmware: SecureProcessor;
  readonly crypto: Crypto;
  readonly cpuid: readonly CpuidFunction[];
  readonly values: ParameterValues;
}
export interface Launched {
  /** By vCPU index. */
  readonly contexts: ReadonlyMap<number, { readonly gpa: bigint; readonly vmsa: Uint8Array }>;
  readonly pages: number;
}

/** @throws CvmError naming the directive when QEMU, KVM or the secure firmware would refuse it. */
export function launch(inputs: LaunchInputs): Launched {
  const { image, firmware } = inputs;
  const platform = choosePlatform(image, 'SEV_SNP');
  const plan = launchOperations(image, {
    compatibilityMask: platform.compatibilityMask,
    platformType: platform.platformType,
    profile: inputs.profile,
  });
  const operations = requireComplete(plan);
  const policy = operations.find((operation) => operation.kind === 'policy')?.policy ?? 0n;
  firmware.launchStart(policy === 0n ? DEFAULT_POLICY : policy);
  const run = new Launch(inputs);
  for (const operation of operations) run.carryOut(operation);
  firmware.launchFinish(run.idBlock);
  return { contexts: run.contexts, pages: run.pages };
}

class Launch {
  readonly contexts = new Map<number, { readonly gpa: bigint; readonly vmsa: Uint8Array }>();
  pages = 0;
  idBlock: LaunchIdentity | undefined;
  readonly #inputs: LaunchInputs;
  readonly #areas = new Map<number, Uint8Array>();

  constructor(inputs: LaunchInputs) {
    this.#inputs = inputs;
  }

  carryOut(operation: LaunchOperation): void {
    try {
      this.#carryOut(operation);
    } catch (error) {
      if (!(error instanceof CvmError)) throw error;
      const header = this.#inputs.image.headers[operation.directive];
      const where = `directive ${operation.directive}${header ? ` (${header.type})` : ''}`;
      const place = { fileOffset: header?.offset, ...error.place };
      if (error instanceof NotImplemented)
        throw new NotImplemented(`${error.message.replace(/^not implemented: /, '')}, ${where}`, place);
      throw new CvmError(error.code, `${where}: ${error.message}`, place);
    }
  }

  #carryOut(operation: LaunchOperation): void {
    const { memory } = this.#inputs;
    switch (operation.kind) {
      case 'policy':
        return;
      case 'page':
        return this.#page(operation);
      case 'vp-context':
        return this.#context(operation);
      case 'parameter-area':
        if (operation.size > BigInt(AREA_LIMIT))
          throw new CvmError('igvm-parameter', `a parameter area of ${operation.size} bytes is too large`);
        return this.#area(operation.area, Number(operation.size), operation.initialData);
      case 'parameter':
        return depositParameter(
          this.#areaOf(operation.area),
          operation.parameter,
          operation.byteOffset,
          this.#inputs.values,
        );
      case 'parameter-page': {
        const bytes = this.#areaOf(operation.area).subarray(operation.offset, operation.offset + 4096);
        return this.#update(address(operation.gpa), 'unmeasured', bytes);
      }
      case 'required-memory':
        memory.addRegion(address(operation.gpa), roundUp(operation.size));
        return;
      case 'error-range':
        memory.addRegion(address(operation.gpa), roundUp(operation.size));
        return;
      case 'id-block':
        return this.#idBlock(operation.directive);
    }
  }

  #page(operation: PageOperation): void {
    const gpa = address(operation.gpa);
    const { memory } = this.#inputs;
    if (operation.shared) {
      memory.addRegion(gpa, 4096);
      memory.setShared(gpa, false);
      if (operation.data) this.#write(memory.sharedFrame(gpa), operation.data);
      return;
    }
    switch (operation.pageType) {
      case 'cpuid':
        // QEMU replaces what the file has by what KVM supports.
        return this.#update(gpa, 'cpuid', encodeCpuidPage(this.#inputs.cpuid));
      case 'cpuid-xf':
        throw new NotImplemented('a CPUID_XF page', { gpa: operation.gpa });
      default:
        return this.#update(gpa, operation.pageType, operation.data);
    }
  }

  #update(gpa: number, pageType: SnpPageType, data: Uint8Array | undefined): void {
    const { memory, firmware } = this.#inputs;
    memory.addRegion(gpa, 4096);
    if (memory.isAssigned(gpa))
      throw new CvmError('igvm-page-twice', `the page at gpa ${hex(gpa)} is already in the guest`, {
        gpa: BigInt(gpa),
      });
    memory.assignForLaunch(gpa);
    firmware.launchUpdate({ gpa, pageType, data });
    this.pages++;
  }

  #write(frame: number, data: Uint8Array): void {
    this.#inputs.memory.frameBytes(frame).set(data.subarray(0, 4096));
  }

  #context(operation: VpContextOperation): void {
    const { values, firmware } = this.#inputs;
    if (operation.format !== 'snp-vmsa')
      throw new CvmError('igvm-context-platform', `a VP context of format ${operation.format} is no VMSA`);
    if (operation.vpIndex >= values.vcpus)
      throw new CvmError(
        'igvm-vp-index',
        `there is a VP context for vCPU ${operation.vpIndex}, but the machine has ${values.vcpus} vCPU${values.vcpus === 1 ? '' : 's'}`,
        { name: 'vpIndex' },
      );
    firmware.launchUpdateVmsa(address(operation.gpa), operation.data);
    this.contexts.set(operation.vpIndex, { gpa: operation.gpa, vmsa: operation.data.slice(0, 4096) });
  }

  #area(area: number, size: number, initialData: Uint8Array | undefined): void {
    const bytes = new Uint8Array(size);
    if (initialData) bytes.set(initialData.subarray(0, size));
    this.#areas.set(area, bytes);
  }
  #areaOf(area: number): Uint8Array {
    const bytes = this.#areas.get(area);
    if (!bytes) throw new CvmError('igvm-parameter', `parameter area ${area} does not exist`);
    return bytes;
  }

  #idBlock(directive: number): void {
    const header = this.#inputs.image.headers[directive];
    if (header?.type !== 'SNP_ID_BLOCK') return;
    if (this.idBlock) throw new CvmError('igvm-id-block', 'a second SNP_ID_BLOCK for this platform');
    const { crypto, firmware } = this.#inputs;
    const keyDigest = (curve: number, x: Uint8Array, y: Uint8Array): Uint8Array => {
      // ID_AUTH's public key: curve, Qx, Qy, 1028 bytes in all.
      const key = new Uint8Array(1028);
      new DataView(key.buffer).setUint32(0, curve, true);
      key.set(x, 4);
      key.set(y, 76);
      return crypto.sha384(key);
    };
    // QEMU enables the author key by its first byte and applies the policy the guest was launched with.
    const hasAuthor = header.authorPublicKeyCurve !== 0;
    this.idBlock = {
      digest: header.ld.slice(),
      policy: firmware.policy,
      familyId: header.familyId.slice(),
      imageId: header.imageId.slice(),
      guestSvn: header.guestSvn,
      idKeyDigest: keyDigest(header.idPublicKeyCurve, header.idPublicKeyQx, header.idPublicKeyQy),
      ...(hasAuthor
        ? {
            authorKeyDigest: keyDigest(
              header.authorPublicKeyCurve,
              header.authorPublicKeyQx,
              header.authorPublicKeyQy,
            ),
          }
        : {}),
    };
  }
}

const roundUp = (size: number): number => Math.ceil(size / 4096) * 4096;
function address(gpa: bigint): number {
  if (gpa >> 52n) throw new CvmError('gpa-range', `gpa ${hex(gpa)} lies beyond 52 address bits`, { gpa });
  return Number(gpa);
}
