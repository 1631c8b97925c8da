/** Non-automatic events through the GHCB page (GHCB spec. 2.04, §4.1), answered as KVM does. */
import { CvmError, NotImplemented, hex } from '../base/index.ts';
import {
  EXIT,
  GHCB_INPUT_ERROR,
  GHCB_RESULT,
  GHCB_SHARED_BUFFER,
  GHCB_SHARED_BUFFER_SIZE,
  GhcbView,
  HV_FEATURE,
  SW_EXIT,
  exitCodeName,
} from '../snp/index.ts';
import { MSR_APIC_BASE, MSR_X2APIC_FIRST, MSR_X2APIC_LAST, decodeIcr } from './apic.ts';
import { apCreation } from './ap-creation.ts';
import { hostCpuid } from './cpuid-model.ts';
import type { Host } from './host.ts';
import { terminate } from './ghcb-msr.ts';
import { guestRequest } from './guest-request.ts';
import { pageStateChange } from './page-state.ts';
import { SERIAL_PORTS } from './devices.ts';
import type { Thread } from './thread.ts';

/** A request that the host refuses with "malformed input" (SW_EXITINFO1 = 2). */
class BadInput {
  readonly reason: bigint;
  constructor(reason: keyof typeof GHCB_INPUT_ERROR) {
    this.reason = GHCB_INPUT_ERROR[reason];
  }
}
/** SW_EXITINFO1 = 1: the guest must raise this exception itself. #GP(0) as an EVENTINJ value. */
const INJECT_GP = 0x8000_0b0dn;
class InjectGeneralProtection {}

/** Everything an event's handler needs. Registers read here were marked valid by the guest. */
export class GhcbRequest {
  readonly host: Host;
  readonly thread: Thread;
  readonly gpa: number;
  readonly exitCode: number;
  readonly info1: bigint;
  readonly info2: bigint;
  readonly #ghcb: GhcbView;
  readonly #valid: ReadonlySet<string>;

  constructor(host: Host, thread: Thread, gpa: number, ghcb: GhcbView, valid: ReadonlySet<string>) {
    this.host = host;
    this.thread = thread;
    this.gpa = gpa;
    this.#ghcb = ghcb;
    this.#valid = valid;
    this.exitCode = Number(ghcb.get('sw_exit_code') & 0xffff_ffffn);
    this.info1 = ghcb.get('sw_exit_info_1');
    this.info2 = ghcb.get('sw_exit_info_2');
  }
  /** @throws BadInput `missingInput` if the guest did not provide it. */
  input(name: string): bigint {
    if (!this.#valid.has(name)) throw new BadInput('missingInput');
    return this.#ghcb.get(name);
  }
  output(name: string, value: bigint): void {
    this.#ghcb.set(name, BigInt.asUintN(64, value));
  }
  /** `length` bytes of the shared buffer SW_SCRATCH points at, live. */
  scratch(length: number): Uint8Array {
    const at = this.input('sw_scratch') - BigInt(this.gpa);
    const from = BigInt(GHCB_SHARED_BUFFER);
    if (at < from || at + BigInt(length) > from + BigInt(GHCB_SHARED_BUFFER_SIZE))
      throw new BadInput('invalidScratch');
    return this.#ghcb.page.subarray(Number(at), Number(at) + length);
  }
  invalid(): BadInput {
    return new BadInput('invalidInput');
  }
  log(kind: string, text: string): void {
    this.host.parts.log(this.thread, kind, text);
  }
}

const INPUTS = ['rax', 'rcx', 'rdx', 'rbx', 'r8', 'xcr0', 'sw_scratch', 'cpl', 'xss', 'dr7'];

/** Answers the request in the GHCB page the thread's GHCB MSR points to. */
export function answerGhcbEvent(host: Host, thread: Thread): void {
  const gpa = Number(thread.platform.ghcbMsr);
  if (gpa !== thread.registeredGhcb)
    throw new CvmError(
      'ghcb-unregistered',
      `VMGEXIT with a GHCB at ${hex(gpa)}, which is not the registered one`,
      {
        gpa: BigInt(gpa),
      },
    );
  const page = host.sharedPage(gpa);
  if (!page)
    throw new CvmError('ghcb-private', `VMGEXIT with a GHCB at ${hex(gpa)}, which is not a shared page`, {
      gpa: BigInt(gpa),
    });
  const ghcb = new GhcbView(page);
  const valid = new Set(INPUTS.filter((name) => ghcb.isValid(name)));
  const complete = ['sw_exit_code', 'sw_exit_info_1', 'sw_exit_info_2'].every((name) => ghcb.isValid(name));
  const request = new GhcbRequest(host, thread, gpa, ghcb, valid);
  ghcb.clearValid();
  let result: bigint = GHCB_RESULT.ok;
  let detail = 0n;
  try {
    if (ghcb.get('ghcb_usage') !== 0n) throw new BadInput('invalidUsage');
    if (!complete) throw new BadInput('missingInput');
    detail = handle(request) ?? 0n;
  } catch (thrown) {
    if (thrown instanceof BadInput) {
      result = GHCB_RESULT.malformedInput;
      detail = thrown.reason;
      request.log(
        'vmgexit',
        `${exitCodeName(request.exitCode)} is refused: malformed input, reason ${detail}`,
      );
    } else if (thrown instanceof InjectGeneralProtection) {
      result = GHCB_RESULT.issueException;
      detail = INJECT_GP;
    } else throw thrown;
  }
  ghcb.set('sw_exit_info_1', result);
  ghcb.set('sw_exit_info_2', detail);
}

/** @throws BadInput `invalidEvent` for an event of a feature that is not advertised. */
function offered(request: GhcbRequest, feature: keyof typeof HV_FEATURE): void {
  if (((request.host.parts.features >> BigInt(HV_FEATURE[feature])) & 1n) === 0n)
    throw new BadInput('invalidEvent');
}

/** Does it; the value is SW_EXITINFO2 of the answer (0 if undefined). */
function handle(request: GhcbRequest): bigint | void {
  const { thread, host } = request;
  switch (request.exitCode) {
    case EXIT.IOIO:
      return portAccess(request);
    case EXIT.MSR:
      return request.info1 === 0n ? readMsr(request) : writeMsr(request);
    case EXIT.CPUID:
      return cpuid(request);
    case EXIT.RDTSC:
    case EXIT.RDTSCP: {
      const now = host.parts.timestamp(thread);
      request.output('rax', now & 0xffff_ffffn);
      request.output('rdx', now >> 32n);
      if (request.exitCode === EXIT.RDTSCP) request.output('rcx', 0n);
      return;
    }
    case EXIT.WBINVD:
    case EXIT.INVD:
    case EXIT.MONITOR:
    case EXIT.MWAIT:
    case SW_EXIT.NMI_COMPLETE:
      return;
    case EXIT.READ_DR7:
      request.output('rax', 0x400n);
      return;
    case EXIT.WRITE_DR7:
      request.input('rax');
      return;
    case EXIT.RDPMC:
      request.output('rax', 0n);
      request.output('rdx', 0n);
      return;
    case EXIT.VMMCALL:
      // KVM knows none of the hypercalls an SNP guest may use here: -KVM_ENOSYS.
      request.log('vmmcall', 'an unknown hypercall');
      request.output('rax', -1000n);
      return;
    case SW_EXIT.MMIO_READ:
    case SW_EXIT.MMIO_WRITE:
      return mmio(request);
    case SW_EXIT.AP_RESET_HOLD:
      thread.owner.resetHold = 'nae';
      thread.halted = true;
      return;
    case SW_EXIT.AP_JUMP_TABLE:
      return 0n;
    case SW_EXIT.SNP_PAGE_STATE_CHANGE:
      return pageStateChange(request);
    case SW_EXIT.SNP_GUEST_REQUEST:
    case SW_EXIT.SNP_EXTENDED_GUEST_REQUEST:
      return guestRequest(request);
    case SW_EXIT.SNP_AP_CREATION:
      offered(request, 'SNP_AP_CREATION');
      return apCreation(request);
    case SW_EXIT.HV_DOORBELL_PAGE:
      offered(request, 'RESTRICTED_INJECTION');
      return doorbellPage(request);
    case SW_EXIT.HV_IPI: {
      offered(request, 'RESTRICTED_INJECTION');
      const { apic } = thread;
      host.send(apic, thread.vcpu, thread.vmpl, decodeIcr(request.info1));
      return;
    }
    case SW_EXIT.HV_FEATURES:
      return host.parts.features;
    case SW_EXIT.TERMINATE:
      terminate(host, thread, Number(request.info1 & 0xfn), Number(request.info1 >> 4n) & 0xff);
      return;
    case SW_EXIT.SNP_RUN_VMPL: {
      offered(request, 'SNP_MULTI_VMPL');
      const vmpl = Number(request.info1);
      if (vmpl > 3 || !host.switchVmpl(thread, vmpl, EXIT.VMGEXIT)) throw request.invalid();
      return;
    }
    case SW_EXIT.HV_TIMER:
    case SW_EXIT.APIC_ID_LIST:
    case SW_EXIT.CONFIGURE_INTERRUPT_INJECTION:
    case SW_EXIT.DISABLE_ALTERNATE_INJECTION:
    case SW_EXIT.SPECIFIC_EOI:
    case SW_EXIT.UNSUPPORTED_EVENT:
      throw new NotImplemented(`the GHCB event ${exitCodeName(request.exitCode)}`);
    default:
      throw new BadInput('invalidEvent');
  }
}

// -- port I/O -------------------------------------------------------------------------------------------------

const isSerial = (port: number): boolean => SERIAL_PORTS.some((base) => port >= base && port < base + 8);

/** SW_EXITINFO1 as EXITINFO1 of VMEXIT_IOIO (APM vol. 2, §15.10.2). */
function portAccess(request: GhcbRequest): void {
  const info = Number(request.info1 & 0xffff_ffffn);
  const port = info >>> 16;
  const input = (info & 1) !== 0;
  const size = info & 0x10 ? 1 : info & 0x20 ? 2 : info & 0x40 ? 4 : 0;
  if (size === 0) throw request.invalid();
  const { ports } = request.host.parts;
  if (info & 4) {
    const count = info & 8 ? Number(request.info2 & 0xffff_ffffn) : 1;
    if (count * size > GHCB_SHARED_BUFFER_SIZE) throw request.invalid();
    const buffer = request.scratch(count * size);
    const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
    for (let at = 0; at < count * size; at += size)
      if (input) putLittle(view, at, size, ports.read(port, size));
      else ports.write(port, size, getLittle(view, at, size));
  } else if (input) request.output('rax', BigInt(ports.read(port, size)));
  else ports.write(port, size, Number(request.input('rax') & 0xffff_ffffn));
  if (!isSerial(port)) request.log('port', `${input ? 'IN from' : 'OUT to'} port ${hex(port)}`);
}

const getLittle = (view: DataView, at: number, size: number): number =>
  size === 1 ? view.getUint8(at) : size === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
function putLittle(view: DataView, at: number, size: number, value: number): void {
  if (size === 1) view.setUint8(at, value);
  else if (size === 2) view.setUint16(at, value, true);
  else view.setUint32(at, value, true);
}

// -- MSRs and CPUID -------------------------------------------------------------------------------------------

/** MSRs KVM reads as a constant and whose writes it swallows. */
const CONSTANT_MSRS = new Map<number, bigint>([
  [0x8b, 0x0100_0065n], // microcode revision
  [0xfe, 0x508n], // MTRRcap: 8 variable ranges, fixed, WC
  [0x2ff, 0x806n], // MTRRdefType
  [0x179, 0x20n], // MCG_CAP
  [0x17a, 0n],
  [0x17b, 0n],
  [0xc001_0015, 0x100_0000n], // HWCR
  [0xc001_0010, 0n],
  [0xc001_1029, 2n], // DE_CFG: LFENCE serialises
  [0xc000_0104, 0x1_0000_0000n], // TSC_RATIO 1.0
  [0x3a, 0n],
  [0x1d9, 0n],
  [0x1a0, 0n],
]);
const isApic = (index: number): boolean =>
  index === MSR_APIC_BASE || (index >= MSR_X2APIC_FIRST && index <= MSR_X2APIC_LAST);
const isMtrr = (index: number): boolean =>
  (index >= 0x200 && index <= 0x20f) ||
  [0x250, 0x258, 0x259].includes(index) ||
  (index >= 0x268 && index <= 0x26f);

function readMsr(request: GhcbRequest): void {
  const index = Number(request.input('rcx') & 0xffff_ffffn);
  let value: bigint | undefined;
  if (isApic(index)) value = request.thread.apic.readMsr(index);
  else if (index === 0x10) value = request.host.parts.timestamp(request.thread);
  else value = CONSTANT_MSRS.get(index) ?? (isMtrr(index) ? 0n : undefined);
  request.log('msr', `RDMSR ${hex(index)}${value === undefined ? ': #GP' : ` gives ${hex(value)}`}`);
  if (value === undefined) throw new InjectGeneralProtection();
  request.output('rax', value & 0xffff_ffffn);
  request.output('rdx', value >> 32n);
}

function writeMsr(request: GhcbRequest): void {
  const index = Number(request.input('rcx') & 0xffff_ffffn);
  const value = (request.input('rax') & 0xffff_ffffn) | ((request.input('rdx') & 0xffff_ffffn) << 32n);
  const known = isApic(index)
    ? request.thread.apic.writeMsr(index, value)
    : CONSTANT_MSRS.has(index) || isMtrr(index) || index === 0x10;
  if (isApic(index)) request.host.post(request.thread);
  request.log('msr', `WRMSR ${hex(index)} = ${hex(value)}${known ? '' : ': #GP'}`);
  if (!known) throw new InjectGeneralProtection();
}

function cpuid(request: GhcbRequest): void {
  const leaf = Number(request.input('rax') & 0xffff_ffffn);
  const subleaf = Number(request.input('rcx') & 0xffff_ffffn);
  // The guest must hand over XCR0 with leaf 0xD (GHCB spec. §4.1.3).
  if (leaf === 0xd) request.input('xcr0');
  const { model, vcpus } = request.host.parts;
  const [eax, ebx, ecx, edx] = hostCpuid(model, vcpus.length, request.thread.vcpu, leaf, subleaf);
  request.log('cpuid', `CPUID ${hex(leaf)}, ${hex(subleaf)}`);
  for (const [name, value] of [
    ['rax', eax],
    ['rbx', ebx],
    ['rcx', ecx],
    ['rdx', edx],
  ] as const)
    request.output(name, BigInt(value >>> 0));
}

// -- MMIO and the doorbell ------------------------------------------------------------------------------------

/** No device has registers in memory space: as on an empty bus, reads give zeros and writes are lost. */
function mmio(request: GhcbRequest): void {
  const read = request.exitCode === SW_EXIT.MMIO_READ;
  const length = Number(request.info2 & 0xffff_ffffn);
  if (length === 0 || length > GHCB_SHARED_BUFFER_SIZE) throw request.invalid();
  const buffer = request.scratch(length);
  request.log('mmio', `${read ? 'read of' : 'write to'} ${length} bytes at ${hex(request.info1)}: no device`);
  if (read) buffer.fill(0);
}

/** #HV doorbell page: 0 asks for the preferred GPA, 1 sets, 2 queries, 3 clears (GHCB spec. 2.04, §4.1.12). */
function doorbellPage(request: GhcbRequest): bigint {
  const { apic, restricted } = request.thread;
  if (!restricted) throw request.invalid();
  switch (Number(request.info1)) {
    case 0:
      return 0xffff_ffff_ffff_ffffn;
    case 1: {
      const gpa = Number(request.info2);
      if (gpa % 4096 !== 0 || !request.host.sharedPage(gpa)) throw request.invalid();
      apic.doorbellGpa = gpa;
      request.host.post(request.thread);
      request.log('doorbell', `#HV doorbell page at ${hex(gpa)}`);
      return request.info2;
    }
    case 2:
      return BigInt(apic.doorbellGpa ?? 0);
    case 3:
      apic.doorbellGpa = undefined;
      return 0n;
    default:
      throw request.invalid();
  }
}
