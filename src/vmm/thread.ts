/** vCPUs and their VMPLs: what is scheduled, and where each one's state rests. */
import { CvmError, NotImplemented } from '../base/index.ts';
import {
  SnpPlatform,
  describeVmsaField,
  loadVmsa,
  readVmsa,
  refuseVmsa,
  sevFeature,
  storeVmsa,
  writeVmsa,
} from '../snp/index.ts';
import type { SnpSurroundings } from '../snp/index.ts';
import { Cpu, STATE } from '../x86/index.ts';
import type { MachineMemory } from '../x86/index.ts';
import type { LocalApic } from './apic.ts';
import type { MachineThread, ThreadState } from './machine.ts';

/**
 * SEV features that are honoured, or that change nothing in a machine without caches, branch predictors and
 * performance counters.
 */
const SUPPORTED = [
  'SNPActive',
  'RestrictedInjection',
  'DebugSwap',
  'PreventHostIBS',
  'SNPBTBIsolation',
  'SmtProtection',
  'IbpbOnEntry',
] as const;
const SUPPORTED_MASK = SUPPORTED.reduce((mask, name) => mask | sevFeature(name), 0n);

/** One vCPU at one VMPL. */
export class Thread implements MachineThread {
  readonly id: number;
  readonly vcpu: number;
  readonly vmpl: number;
  readonly name: string;
  readonly cpu: Cpu;
  readonly platform: SnpPlatform;
  readonly apic: LocalApic;
  readonly owner: Vcpu;
  vmsaGpa: bigint;
  /** The VMSA page, live; written when the thread leaves the processor. */
  vmsaPage: () => Uint8Array;
  /** GPA the guest registered for its GHCB. */
  registeredGhcb: number | undefined;
  halted = false;
  ended = false;
  /** The breakpoint at the current instruction has been reported (or stepped onto): pass it once. */
  passBreakpoint = false;

  constructor(
    owner: Vcpu,
    vmpl: number,
    memory: MachineMemory,
    around: SnpSurroundings,
    apic: LocalApic,
    vmsa: { readonly gpa: bigint; readonly page: () => Uint8Array },
  ) {
    this.owner = owner;
    this.vcpu = owner.index;
    this.vmpl = vmpl;
    this.id = 1 + owner.index * 4 + vmpl;
    this.name = `vCPU ${owner.index} · VMPL${vmpl}`;
    this.platform = new SnpPlatform(around, vmpl);
    this.cpu = new Cpu(memory, this.platform, owner.index, vmpl);
    this.apic = apic;
    this.vmsaGpa = vmsa.gpa;
    this.vmsaPage = vmsa.page;
  }

  get active(): boolean {
    return this.owner.active === this;
  }
  get state(): ThreadState {
    if (this.ended) return 'terminated';
    if (!this.active) return this.owner.active ? 'runnable' : 'waiting-for-ap';
    if (this.halted) return 'halted';
    return this.owner.scheduled ? 'running' : 'runnable';
  }

  /** VMRUN: takes the state from the VMSA. @throws CvmError `vmrun-invalid` as VMEXIT_INVALID. */
  enter(): void {
    const vmsa = this.vmsaPage();
    const refused = refuseVmsa(vmsa, this.vmpl);
    if (refused)
      throw new CvmError('vmrun-invalid', `VMRUN of ${this.name} fails with VMEXIT_INVALID: ${refused}`, {
        gpa: this.vmsaGpa,
        name: 'VMSA',
      });
    const features = readVmsa(vmsa, 'sev_features');
    if (features & ~SUPPORTED_MASK)
      throw new NotImplemented(
        `SEV features ${describeVmsaField('sev_features', features & ~SUPPORTED_MASK)} of ${this.name}`,
        { gpa: this.vmsaGpa, name: 'sev_features' },
      );
    this.platform.sevFeatures = features;
    loadVmsa(this.cpu, vmsa);
    this.halted = false;
    this.owner.active = this;
  }
  /** #VMEXIT to another VMPL: the state and why go to the VMSA (APM vol. 2, table B-4, GUEST_EXIT*). */
  leave(exitCode: number): void {
    const vmsa = this.vmsaPage();
    storeVmsa(this.cpu, vmsa);
    writeVmsa(vmsa, 'guest_exit_code', BigInt(exitCode));
    for (const name of ['guest_exit_info_1', 'guest_exit_info_2', 'guest_exit_int_info'])
      writeVmsa(vmsa, name, 0n);
    writeVmsa(vmsa, 'guest_nrip', this.cpu.rip);
  }
  /** The VMSA as it would be if the thread left now. */
  snapshot(): Uint8Array {
    const vmsa = this.vmsaPage().slice();
    if (this.active) storeVmsa(this.cpu, vmsa);
    return vmsa;
  }
  /** An interrupt waits for IF or the task priority: every instruction may be the one that lets it in. */
  get awaitsWindow(): boolean {
    return this.takesInterrupts && this.apic.hasRequest;
  }
  /** Interrupts can be injected as such: with restricted injection only #HV can (APM vol. 2, §15.36.16). */
  get takesInterrupts(): boolean {
    return !this.restricted;
  }
  get restricted(): boolean {
    return (this.platform.sevFeatures & sevFeature('RestrictedInjection')) !== 0n;
  }
  /** Task priority the guest set (CR8). */
  get taskPriority(): number {
    return Number(this.cpu.u64(STATE.cr8) & 0xfn);
  }
}

export class Vcpu {
  readonly index: number;
  /** By VMPL. */
  readonly threads: (Thread | undefined)[] = [undefined, undefined, undefined, undefined];
  /** The VMPL it runs at; undefined while it waits to be started. */
  active: Thread | undefined;
  /** It holds the processor now. */
  scheduled = false;
  /** In AP_RESET_HOLD: how its GHCB request is to be answered when it is woken. */
  resetHold: 'msr' | 'nae' | undefined;

  constructor(index: number) {
    this.index = index;
  }
  get runnable(): boolean {
    return this.active !== undefined && !this.active.halted && !this.active.ended;
  }
}
