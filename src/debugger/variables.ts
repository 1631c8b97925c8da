/** Scopes and variables of a frame: registers, the save area, the RMP entry of the current page. */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { CvmError, hex } from '../base/index.ts';
import type { MachineThread } from '../vmm/index.ts';
import { virtualReference } from './addresses.ts';
import { evaluateText } from './expression/index.ts';
import type { Scope } from './expression/index.ts';
import type { SourceFrame } from './inlining.ts';
import { pageFacts, vmsaFields } from './inspectors.ts';
import type { Guest } from './launch.ts';
import { REGISTERS, REGISTER_GROUPS, formatRegister, registerNamed, writeRegister } from './registers.ts';
import type { RegisterGroup } from './registers.ts';
import { symbolic } from './sources.ts';
import type { Frame } from './stack.ts';

/** A frame the client was told of; ids are valid until the guest goes on. */
export interface FrameHandle {
  readonly thread: MachineThread;
  readonly frame: Frame;
  /** 0 for the innermost. Functions inlined into a frame share its number: they have no stack of their own. */
  readonly level: number;
  readonly source: SourceFrame;
}

type Container =
  | { readonly kind: 'registers'; readonly at: FrameHandle; readonly group: RegisterGroup }
  | { readonly kind: 'flags'; readonly at: FrameHandle }
  | { readonly kind: 'vmsa'; readonly at: FrameHandle; readonly group?: string }
  | { readonly kind: 'page'; readonly at: FrameHandle };

const FLAG_NAMES = ['cf', 'pf', 'af', 'zf', 'sf', 'tf', 'if', 'df', 'of', 'nt', 'ac', 'id'];

/** Parts of the save area, by the names of APM volume 2, table B-4; the first that matches. */
const VMSA_GROUPS: readonly (readonly [title: string, fields: RegExp])[] = [
  ['SEV-SNP', /^(vmpl|cpl|sev_features|vintr_ctrl|virtual_tom|guest_|event_inj|tlb_id|pcpu_id|reg_prot)/],
  ['General registers', /^(r[a-d]x|r[sd]i|r[sb]p|r\d+|rip|rflags)$/],
  ['Segments', /^([c-gs]s|[gi]dtr|ldtr|tr)\./],
  ['Control and debug', /^(cr\d|dr\d|efer|xcr0|xss|dbgctl|br_|last_excp)/],
  ['MSRs', /^(star|lstar|cstar|sfmask|kernel_gs|sysenter|g_pat|pkru|tsc_aux|.*ssp|.*_cet|isst)/],
  ['x87, SSE and AVX', /^(x87|mxcsr|st\d|xmm|ymm)/],
  ['Last branches and IBS', /./],
];
const vmsaGroup = (name: string): string => VMSA_GROUPS.find(([, fields]) => fields.test(name))![0];

export class Variables {
  private readonly containers: Container[] = [];
  /** References stay unique over the session: a late request for an old one fails clearly. */
  private firstReference = 1;

  /** The guest goes on: what was handed out is stale. */
  reset(): void {
    this.firstReference += this.containers.length;
    this.containers.length = 0;
  }

  scopes(at: FrameHandle): P.Scope[] {
    return [
      {
        name: 'Registers',
        presentationHint: 'registers',
        variablesReference: this.add({ kind: 'registers', at, group: 'General' }),
        expensive: false,
      },
      { name: 'VMSA', variablesReference: this.add({ kind: 'vmsa', at }), expensive: true },
      {
        name: 'RMP entry of the current page',
        variablesReference: this.add({ kind: 'page', at }),
        expensive: true,
      },
    ];
  }

  /** @throws CvmError `unknown-reference`. */
  children(guest: Guest, reference: number): P.Variable[] {
    const container = this.find(reference);
    switch (container.kind) {
      case 'registers':
        return this.registers(guest, container.at, container.group);
      case 'flags':
        return FLAG_NAMES.map((name) => registerNamed(name)!).map((flag) => ({
          name: flag.name.toUpperCase(),
          value: flag.read(container.at.thread.cpu).toString(),
          evaluateName: `$${flag.name}`,
          variablesReference: 0,
        }));
      case 'page':
        return pageFacts(guest.machine, container.at.thread, container.at.frame.rip).map((fact) => ({
          ...fact,
          variablesReference: 0,
          presentationHint: { attributes: ['readOnly'] },
        }));
      case 'vmsa':
        return this.vmsa(guest, container.at, container.group);
    }
  }

  /** Changes a register. @throws CvmError, also when the variable is none. */
  set(reference: number, name: string, text: string, scope: Scope): { at: FrameHandle; value: string } {
    const container = this.find(reference);
    const register = registerNamed(name);
    if ((container.kind !== 'registers' && container.kind !== 'flags') || !register)
      throw new CvmError('read-only', `${name} cannot be changed: change the register instead`);
    const { at } = container;
    if (at.level > 0 && (name === 'rip' || name === 'rsp' || name === 'rbp'))
      throw new CvmError('read-only', `${name} of a caller's frame cannot be changed`);
    writeRegister(register, at.thread.cpu, evaluateText(text, scope).value);
    return { at, value: formatRegister(register, at.thread.cpu) };
  }

  /** The frame a container belongs to. */
  frameOf(reference: number): FrameHandle {
    return this.find(reference).at;
  }

  private add(container: Container): number {
    return this.firstReference + this.containers.push(container) - 1;
  }

  private find(reference: number): Container {
    const container = this.containers[reference - this.firstReference];
    if (!container)
      throw new CvmError('unknown-reference', `variables reference ${reference} is not valid any more`);
    return container;
  }

  private registers(guest: Guest, at: FrameHandle, group: RegisterGroup): P.Variable[] {
    const { cpu } = at.thread;
    const rows = REGISTERS.filter((register) => register.group === group && !register.part).map(
      (register): P.Variable => {
        const known =
          at.level > 0 && (register.name === 'rip' || register.name === 'rsp' || register.name === 'rbp');
        const value = known ? at.frame[register.name as 'rip' | 'rsp' | 'rbp'] : register.read(cpu);
        const name = group === 'General' && value > 0xffffn ? symbolic(guest.symbols, value) : undefined;
        const text = known ? hex(value, 16) : formatRegister(register, cpu);
        return {
          name: register.name,
          value: name === undefined ? text : `${text} <${name}>`,
          type: register.bits === 128 ? 'u128' : `u${register.bits}`,
          evaluateName: `$${register.name}`,
          variablesReference: register.name === 'rflags' ? this.add({ kind: 'flags', at }) : 0,
          ...(group === 'General' && register.name !== 'rflags'
            ? { memoryReference: virtualReference(value) }
            : {}),
        };
      },
    );
    if (group !== 'General') return rows;
    return [
      ...rows,
      ...REGISTER_GROUPS.filter((other) => other !== 'General').map((other) => ({
        name: other,
        value: '',
        variablesReference: this.add({ kind: 'registers', at, group: other }),
      })),
    ];
  }

  private vmsa(guest: Guest, at: FrameHandle, group?: string): P.Variable[] {
    if (group === undefined)
      return [
        { name: 'gpa', value: hex(at.thread.vmsaGpa), variablesReference: 0 },
        ...VMSA_GROUPS.map(([title]) => ({
          name: title,
          value: '',
          variablesReference: this.add({ kind: 'vmsa', at, group: title }),
        })),
      ];
    return vmsaFields(guest.machine, at.thread)
      .filter((field) => vmsaGroup(field.name) === group)
      .map((field) => ({
        name: field.name,
        value: field.note ? `${field.value} [${field.note}]` : field.value,
        type: `offset ${hex(field.offset, 3)}, ${field.size} bytes`,
        variablesReference: 0,
        presentationHint: { attributes: ['readOnly'] },
      }));
  }
}
