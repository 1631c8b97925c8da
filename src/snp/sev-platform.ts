/**
 * SEV-SNP as a platform of the processor: the meaning of a page (C-bit, RMP, VMPL), of an intercepted
 * instruction (#VC or exit), and of the instructions SNP adds. One instance is one vCPU at one VMPL.
 *
 * Which instructions are intercepted is what KVM sets for an SNP guest (`sev_es_init_vmcb`, `svm_init_vmcb`).
 */
import { hex } from '../base/index.ts';
import { FLAG, GuestException, MODE, RAX, RCX, RDX, VECTOR, VmExit, walk } from '../x86/index.ts';
import { generalProtection, undefinedOpcode } from '../x86/index.ts';
import type { Access, Cpu, PageGrant, PageRequest, Platform, PortInstruction } from '../x86/index.ts';
import { EXIT } from './exit-codes.ts';
import { MSR_GHCB, MSR_SEV_STATUS } from './ghcb.ts';
import { pvalidate, rmpAdjustOperand, rmpadjust, rmpquery, vmplAllows } from './rmp-instructions.ts';
import type { NotValidated, RmpFault } from './rmp-instructions.ts';
import { LARGE_PAGE, RMP_RESULT, VMPL_PERMISSION } from './rmp.ts';
import type { Rmp, RmpResult } from './rmp.ts';
import { sevFeature } from './vmsa-describe.ts';

/** `VmExit.detail` of reason `npf`: the host sees an access the nested tables or the RMP refuse. */
export interface NestedFault {
  readonly gpa: number;
  readonly access: Access;
  /** The guest's mapping was private (PFERR_GUEST_ENC). */
  readonly encrypted: boolean;
  readonly cause:
    /** A private access to a page the guest does not own. */
    | 'not-assigned'
    /** A shared access to a page the guest owns, or the host has not mapped. */
    | 'not-shared'
    /** A 4 KiB RMP instruction on a 2 MiB entry. */
    | 'size-mismatch'
    /** This VMPL's permissions do not allow it. */
    | 'vmpl';
  readonly message: string;
}

/** What the platform needs of the machine around it. */
export interface SnpSurroundings {
  readonly rmp: Rmp;
  readonly physicalAddressBits: number;
  readonly encryptionBit: number;
  /** The chip has RMPQUERY (CPUID Fn8000_001F EAX bit 6). */
  readonly hasRmpQuery: boolean;
  /** Memory the guest was given: private or shared, not a device, not a hole. */
  isMemory(gpa: number): boolean;
  /** Byte offset of the frame behind an assigned page; taken on first use. */
  privateFrame(gpa: number): number;
  /** Byte offset of the frame behind a page the nested tables show as shared; 0: they do not. */
  sharedFrame(gpa: number): number;
  /** An RMP change took something away: every cached translation must go. */
  flushTranslations(): void;
  timestamp(cpu: Cpu): bigint;
  random(cpu: Cpu): bigint;
}

/** MSRs KVM lets an SNP guest access without an exit (`direct_access_msrs` and what SEV-ES adds). */
const PASSED_THROUGH = new Set([
  0x174, 0x175, 0x176, 0x49, 0xda0, 0x1d9, 0x277, 0x48, 0xc000_0080, 0xc000_0081, 0xc000_0082, 0xc000_0083,
  0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0103, 0x6a0, 0x6a2, 0x6a4, 0x6a5, 0x6a6, 0x6a7,
  0x6a8,
]);

const vmmCommunication = (code: number): GuestException => new GuestException(VECTOR.VC, code);

export class SnpPlatform implements Platform {
  readonly name = 'SEV-SNP';
  readonly physicalAddressBits: number;
  readonly encryptionBit: number;
  /** GHCB MSR 0xC0010130, of this vCPU and VMPL. */
  ghcbMsr = 0n;
  /** SEV_FEATURES of the VMSA this context was loaded from. */
  sevFeatures = 1n;
  readonly #around: SnpSurroundings;
  readonly #vmpl: number;

  constructor(around: SnpSurroundings, vmpl: number) {
    this.#around = around;
    this.#vmpl = vmpl;
    this.physicalAddressBits = around.physicalAddressBits;
    this.encryptionBit = around.encryptionBit;
  }

  /** MSR 0xC0010131: SEV, SEV-ES enabled, and SEV_FEATURES from bit 2 on (APM vol. 2, §15.34.10). */
  get sevStatus(): bigint {
    return 3n | (this.sevFeatures << 2n);
  }

  // -- pages --------------------------------------------------------------------------------------------

  page(_cpu: Cpu, request: PageRequest & { readonly peek?: boolean }): PageGrant {
    return request.encrypted ? this.#privatePage(request) : this.#sharedPage(request);
  }

  #privatePage(request: PageRequest & { readonly peek?: boolean }): PageGrant {
    const { gpa, access } = request;
    const { rmp } = this.#around;
    if (!rmp.isAssigned(gpa))
      throw this.#fault(request, 'not-assigned', 'the page is not assigned to the guest');
    if (!rmp.isValidated(gpa)) throw vmmCommunication(EXIT.PAGE_NOT_VALIDATED);
    const permissions = rmp.permissions(gpa, this.#vmpl);
    if (request.peek !== true && !vmplAllows(permissions, access, request.user))
      throw this.#fault(request, 'vmpl', `VMPL${this.#vmpl} may not ${access} it`);
    return {
      frame: this.#around.privateFrame(gpa),
      read: (permissions & VMPL_PERMISSION.read) !== 0,
      write: (permissions & VMPL_PERMISSION.write) !== 0,
      execute: (permissions & VMPL_PERMISSION.executeSupervisor) !== 0,
      executeUser: (permissions & VMPL_PERMISSION.executeUser) !== 0,
    };
  }

  /**
   * A shared access outside memory is MMIO: KVM marks such nested entries with a reserved bit, which makes
   * the fault a #VC with exit code NPF (APM vol. 2, §15.35.5). Code is never fetched from shared pages.
   */
  #sharedPage(request: PageRequest & { readonly peek?: boolean }): PageGrant {
    const { gpa } = request;
    const around = this.#around;
    if (!around.isMemory(gpa)) throw vmmCommunication(EXIT.NPF);
    const frame = around.rmp.isAssigned(gpa) ? 0 : around.sharedFrame(gpa);
    if (frame === 0) throw this.#fault(request, 'not-shared', 'the page is private');
    return { frame, read: true, write: true, execute: false, executeUser: false };
  }

  #fault(request: PageRequest, cause: NestedFault['cause'], why: string): VmExit {
    const kind = request.encrypted ? 'private' : 'shared';
    const walking = request.pageTable ? ' by the page walk' : '';
    const detail: NestedFault = {
      gpa: request.gpa,
      access: request.access,
      encrypted: request.encrypted,
      cause,
      message: `${kind} ${request.access}${walking} at gpa ${hex(request.gpa)} (linear ${hex(request.linear)}): ${why}`,
    };
    return new VmExit('npf', false, detail);
  }

  // -- intercepted instructions -------------------------------------------------------------------------

  cpuid(): never {
    throw vmmCommunication(EXIT.CPUID);
  }
  readMsr(_cpu: Cpu, index: number): bigint {
    if (index === MSR_GHCB) return this.ghcbMsr;
    if (index === MSR_SEV_STATUS) return this.sevStatus;
    throw vmmCommunication(EXIT.MSR);
  }
  writeMsr(_cpu: Cpu, index: number, value: bigint): void {
    if (index === MSR_SEV_STATUS) throw generalProtection();
    if (index !== MSR_GHCB) throw vmmCommunication(EXIT.MSR);
    this.ghcbMsr = value;
  }
  interceptsMsr(_cpu: Cpu, index: number, _write: boolean): boolean {
    return !PASSED_THROUGH.has(index);
  }
  portIn(_cpu: Cpu, _port: number, _size: number, _instruction: PortInstruction): never {
    throw vmmCommunication(EXIT.IOIO);
  }
  portOut(_cpu: Cpu, _port: number, _size: number, _value: number, _instruction: PortInstruction): never {
    throw vmmCommunication(EXIT.IOIO);
  }
  timestamp(cpu: Cpu): bigint {
    return this.#around.timestamp(cpu);
  }
  random(cpu: Cpu): bigint {
    return this.#around.random(cpu);
  }

  /** HLT and PAUSE leave to the host by themselves; the others raise #VC (APM vol. 2, table 15-35). */
  intercept(_cpu: Cpu, instruction: string): void {
    switch (instruction) {
      case 'hlt':
        throw new VmExit('hlt', true);
      case 'pause':
        throw new VmExit('pause', true);
      case 'rdtsc':
      case 'rdtscp':
        return;
      case 'mov_dr7_read':
      case 'mov_dr7_write':
        if (this.sevFeatures & sevFeature('DebugSwap')) return;
        throw vmmCommunication(instruction === 'mov_dr7_read' ? EXIT.READ_DR7 : EXIT.WRITE_DR7);
      case 'vmmcall':
        throw vmmCommunication(EXIT.VMMCALL);
      case 'wbinvd':
        throw vmmCommunication(EXIT.WBINVD);
      case 'invd':
        throw vmmCommunication(EXIT.INVD);
      case 'monitor':
        throw vmmCommunication(EXIT.MONITOR);
      case 'mwait':
        throw vmmCommunication(EXIT.MWAIT);
      case 'rdpmc':
        throw vmmCommunication(EXIT.RDPMC);
      case 'rdpru':
        throw vmmCommunication(EXIT.RDPRU);
      default:
        return;
    }
  }

  // -- the instructions SNP adds ------------------------------------------------------------------------

  /**
   * Operands: rAX page address, ECX size, EDX[0] the new state. #GP(0) outside CPL 0 or VMPL0 (APM vol. 3,
   * PVALIDATE). The address is translated as a read of the page.
   */
  pvalidate(cpu: Cpu): void {
    if (cpu.cpl !== 0 || this.#vmpl !== 0) throw generalProtection();
    const page = this.#operand(cpu);
    const size = Number(cpu.reg(RCX) & 0xffff_ffffn);
    const validate = (cpu.reg(RDX) & 1n) !== 0n;
    const done = this.#undersized(page, size)
      ? { result: RMP_RESULT.failSizeMismatch, unchanged: false }
      : pvalidate(this.#around.rmp, page.gpa, size, validate);
    if ('fault' in done) throw this.#instructionFault(done, 'PVALIDATE');
    if (done.result === RMP_RESULT.success && !validate && !done.unchanged) this.#around.flushTranslations();
    this.#finish(cpu, done.result, done.unchanged);
  }

  /** Operands: rAX page address, ECX size, RDX target VMPL, permissions, VMSA (APM vol. 3, RMPADJUST). */
  rmpadjust(cpu: Cpu): void {
    if (cpu.cpl !== 0) throw generalProtection();
    const page = this.#operand(cpu);
    const size = Number(cpu.reg(RCX) & 0xffff_ffffn);
    const to = rmpAdjustOperand(cpu.reg(RDX));
    const { rmp } = this.#around;
    const before = rmp.permissions(page.gpa, to.vmpl & 3);
    const done = this.#undersized(page, size)
      ? RMP_RESULT.failSizeMismatch
      : rmpadjust(rmp, page.gpa, size, to, this.#vmpl);
    if (typeof done !== 'number') throw this.#instructionFault(done, 'RMPADJUST');
    if (done === RMP_RESULT.success && before & ~to.permissions) this.#around.flushTranslations();
    this.#finish(cpu, done, undefined);
  }

  /** Operands: rAX page address, RDX[7:0] VMPL; returns permissions in RDX, page size in ECX (APM vol. 3). */
  rmpquery(cpu: Cpu): void {
    if (!this.#around.hasRmpQuery) throw undefinedOpcode();
    if (cpu.cpl !== 0) throw generalProtection();
    const page = this.#operand(cpu);
    const vmpl = Number(cpu.reg(RDX) & 0xffn);
    const done = rmpquery(this.#around.rmp, page.gpa, vmpl, this.#vmpl);
    if ('fault' in done) throw this.#instructionFault(done, 'RMPQUERY');
    if (done.result === RMP_RESULT.success) {
      cpu.setReg(RDX, BigInt(vmpl | (done.permissions << 8) | (done.vmsa ? 1 << 16 : 0)));
      cpu.setReg(RCX, done.large ? 1n : 0n);
    }
    this.#finish(cpu, done.result, undefined);
  }

  /** INVLPGB: every translation of every vCPU goes, which is more than it asks for and never less. */
  broadcastFlush(_cpu: Cpu): void {
    this.#around.flushTranslations();
  }

  vmgexit(_cpu: Cpu): void {
    throw new VmExit('vmgexit', true);
  }

  /** The page an RMP instruction names. A shared mapping names no page of the guest's: a nested page fault. */
  #operand(cpu: Cpu): { gpa: number; mapped: number } {
    const wide = cpu.mode === MODE.code64;
    const linear = (wide ? cpu.reg(RAX) : cpu.reg(RAX) & 0xffff_ffffn) & ~0xfffn;
    const page = walk(cpu, linear, 'read', 'current');
    if (!page.encrypted) {
      const request = {
        gpa: page.gpa,
        encrypted: false,
        access: 'read',
        user: false,
        pageTable: false,
        linear,
      } as const;
      throw this.#fault(request, 'vmpl', 'an RMP instruction needs a private mapping');
    }
    const paging = (cpu.cr0 & 0x8000_0000) !== 0;
    return { gpa: page.gpa, mapped: paging ? page.pageSize : LARGE_PAGE };
  }
  /** A 2 MiB operand needs a guest mapping of at least 2 MiB. */
  #undersized(page: { mapped: number }, size: number): boolean {
    return size === 1 && page.mapped < LARGE_PAGE;
  }
  #instructionFault(fault: RmpFault | NotValidated, name: string): VmExit | GuestException {
    if (fault.fault === 'not-validated') return vmmCommunication(EXIT.PAGE_NOT_VALIDATED);
    const detail: NestedFault = {
      gpa: fault.gpa,
      access: 'read',
      encrypted: true,
      cause: fault.fault,
      message: `${name} at gpa ${hex(fault.gpa)}: ${fault.fault === 'size-mismatch' ? 'the RMP entry is a 2 MiB one' : 'the page is not assigned to the guest'}`,
    };
    return new VmExit('npf', false, detail);
  }
  /** EAX is the result and sets ZF, SF, PF, OF, AF by it; CF as given. */
  #finish(cpu: Cpu, result: RmpResult, carry: boolean | undefined): void {
    cpu.setReg(RAX, BigInt(result));
    let flags = result === 0 ? FLAG.ZF | FLAG.PF : 0;
    if (result !== 0 && parityEven(result)) flags |= FLAG.PF;
    if (carry === true) flags |= FLAG.CF;
    const mask = FLAG.ZF | FLAG.PF | FLAG.SF | FLAG.OF | FLAG.AF | (carry === undefined ? 0 : FLAG.CF);
    cpu.changeFlags(mask, flags);
  }
}

const parityEven = (value: number): boolean => {
  let bits = 0;
  for (let rest = value & 0xff; rest !== 0; rest >>= 1) bits += rest & 1;
  return bits % 2 === 0;
};
