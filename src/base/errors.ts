/** Where something went wrong: each field is optional, the ones that apply are given. */
export interface Place {
  /** Absolute byte offset in the file. */
  readonly fileOffset?: number;
  /** Guest-physical address. */
  readonly gpa?: bigint;
  /** Guest-virtual address of the instruction. */
  readonly rip?: bigint;
  /** A name: a launch attribute, a field, a path. */
  readonly name?: string;
}

/** An error with a stable code and a place; its message is a sentence a person can act on. */
export class CvmError extends Error {
  readonly code: string;
  readonly place: Place;

  constructor(code: string, message: string, place: Place = {}) {
    super(message);
    this.name = 'CvmError';
    this.code = code;
    this.place = place;
  }

  override toString(): string {
    const where = describePlace(this.place);
    return where ? `${this.message} (${where})` : this.message;
  }
}

/** What the guest asked for that this machine does not have yet: always stops, never guesses. */
export class NotImplemented extends CvmError {
  constructor(what: string, place: Place = {}) {
    super('not-implemented', `not implemented: ${what}`, place);
    this.name = 'NotImplemented';
  }
}

export function describePlace(place: Place): string {
  const parts: string[] = [];
  if (place.name !== undefined) parts.push(place.name);
  if (place.fileOffset !== undefined) parts.push(`at file offset 0x${place.fileOffset.toString(16)}`);
  if (place.gpa !== undefined) parts.push(`at gpa 0x${place.gpa.toString(16)}`);
  if (place.rip !== undefined) parts.push(`at rip 0x${place.rip.toString(16)}`);
  return parts.join(', ');
}

export type Severity = 'error' | 'warning' | 'info' | 'hint';

/** A finding about an input: never thrown, collected beside whatever could still be read. */
export interface Diagnostic {
  readonly severity: Severity;
  /** Stable identifier, e.g. `igvm-truncated-header`. */
  readonly code: string;
  readonly message: string;
  /** Absolute byte offset in the file, and how many bytes it concerns. */
  readonly offset: number;
  readonly length: number;
}
