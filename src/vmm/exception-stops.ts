/** Stops at exceptions before they are delivered, each once; one instance serves the engine of a machine. */
import { hex } from '../base/index.ts';
import { exitCodeName } from '../snp/index.ts';
import { PF, VECTOR, VECTOR_NAMES } from '../x86/index.ts';
import type { Cpu, Engine, ExceptionEvent, GuestException } from '../x86/index.ts';
import type { StopRequest } from './host.ts';
import type { ExceptionVectors } from './machine.ts';

export class ExceptionStops {
  #wanted: ExceptionVectors | undefined;
  #raised: ExceptionEvent | undefined;
  /** What a context was stopped for where it stands: delivered when it comes again. */
  readonly #seen = new WeakMap<Cpu, { rip: bigint; retired: bigint; vectors: Set<number> }>();

  constructor(engine: Engine) {
    engine.onException = engine.onNestedException = (event) => this.#stops(event);
  }

  set(vectors: ExceptionVectors | undefined): void {
    this.#wanted = typeof vectors === 'object' ? new Set(vectors) : vectors;
  }

  /** To be asked when a run of the engine has ended with 'stop': the stop to report, if that was why. */
  take(): StopRequest | undefined {
    const event = this.#raised;
    this.#raised = undefined;
    if (!event) return undefined;
    const { vector, errorCode, address } = event.exception;
    return {
      reason: 'exception',
      message: `${describe(event.exception)} at ${hex(event.rip)}`,
      final: false,
      exception: {
        vector,
        name: nameOf(vector),
        ...(errorCode === undefined ? {} : { errorCode: errorCode >>> 0 }),
        ...(address === undefined ? {} : { address }),
      },
    };
  }

  #stops(event: ExceptionEvent): boolean {
    const { cpu, rip, retired } = event;
    const { vector } = event.exception;
    const wanted =
      this.#wanted === 'all' ? vector !== VECTOR.DB && vector !== VECTOR.BP : this.#wanted?.has(vector);
    if (!wanted) return false;
    const seen = this.#seen.get(cpu);
    if (seen?.rip !== rip || seen.retired !== retired)
      this.#seen.set(cpu, { rip, retired, vectors: new Set([vector]) });
    else if (seen.vectors.has(vector)) return false;
    else seen.vectors.add(vector);
    this.#raised = event;
    return true;
  }
}

const nameOf = (vector: number): string => VECTOR_NAMES[vector] ?? `exception ${vector}`;

/** `#VC CPUID (0x72)`, `#PF writing 0x1000, error code 0x2`, `#GP, error code 0x0`. */
function describe({ vector, errorCode, address }: GuestException): string {
  const name = nameOf(vector);
  if (errorCode === undefined) return name;
  // #VC: the error code is the exit code (APM vol. 2, §15.35.5).
  if (vector === VECTOR.VC) return `${name} ${exitCodeName(errorCode >>> 0)}`;
  const access = errorCode & PF.I ? 'executing' : errorCode & PF.W ? 'writing' : 'reading';
  const what = vector === VECTOR.PF && address !== undefined ? ` ${access} ${hex(address)}` : '';
  return `${name}${what}, error code ${hex(errorCode >>> 0)}`;
}
