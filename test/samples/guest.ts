/** Runs the sample and looks at it from outside: through the machine's inspectors, never its console. */
import { nodeCrypto } from '../../src/base/node.ts';
import { parseIgvm } from '../../src/igvm/index.ts';
import { readVmsa } from '../../src/snp/index.ts';
import { createMachine } from '../../src/vmm/index.ts';
import type {
  Machine,
  MachineEvent,
  MachineOptions,
  MachineStop,
  MachineThread,
  RmpState,
} from '../../src/vmm/index.ts';
import { addressOf, sampleFile, sampleSymbols } from './sample.ts';

/** Far more than the sample needs. */
const LIMIT = 20_000_000;

export class Guest {
  readonly machine: Machine;
  readonly events: MachineEvent[] = [];
  readonly symbols = sampleSymbols();
  console = '';

  constructor(image = 'mini-svsm.igvm', options: Partial<MachineOptions> = {}) {
    this.machine = createMachine({
      image: parseIgvm(sampleFile(image)),
      crypto: nodeCrypto,
      vcpus: 1,
      memory: 64 << 20,
      onConsole: (port, bytes) => {
        if (port === 0x3f8) this.console += new TextDecoder().decode(bytes);
      },
      onEvent: (event) => this.events.push(event),
      ...options,
    });
  }

  address(name: string): bigint {
    return addressOf(this.symbols, name);
  }
  /** Runs until the first instruction of a function. */
  runTo(name: string): MachineThread {
    const breakpoint = { address: this.address(name) };
    this.machine.addBreakpoint(breakpoint);
    const stop = this.machine.run(LIMIT);
    this.machine.removeBreakpoint(breakpoint);
    if (stop.reason !== 'breakpoint') throw new Error(`before ${name}: ${stop.reason}, ${stop.message}`);
    return stop.thread;
  }
  runToEnd(): MachineStop {
    return this.machine.run(LIMIT);
  }

  rmp(gpa: bigint): RmpState {
    const entry = this.machine.rmp.entry(gpa);
    if (!entry) throw new Error(`0x${gpa.toString(16)} is not memory`);
    return entry;
  }
  /** A register by its VMSA name, as the VMSA would have it if the thread exited now. */
  register(name: string, thread: MachineThread = this.machine.current): bigint {
    return readVmsa(this.machine.vmsa(thread), name);
  }
  thread(vmpl: number): MachineThread | undefined {
    return this.machine.threads.find((thread) => thread.vcpu === 0 && thread.vmpl === vmpl);
  }
  private8(gpa: bigint): number {
    return this.machine.readPhysical(gpa, 1, 'private').bytes[0]!;
  }
  private64(gpa: bigint): bigint {
    const { bytes } = this.machine.readPhysical(gpa, 8, 'private');
    return new DataView(bytes.buffer).getBigUint64(0, true);
  }
  /** A field of a VMSA page in guest memory. */
  vmsaField(gpa: bigint, name: string): bigint {
    return readVmsa(this.machine.readPhysical(gpa, 4096, 'private').bytes, name);
  }
  kinds(): string[] {
    return this.events.map((event) => event.kind);
  }
}
