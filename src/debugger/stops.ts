/**
 * Why the guest stopped, as a value, and the one place where such a value becomes words and events of
 * the protocol.
 */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { hex } from '../base/index.ts';
import type { MachineStop, MachineThread } from '../vmm/index.ts';

export type Stop =
  | { readonly kind: 'entry' | 'pause' | 'step'; readonly thread: MachineThread }
  | {
      readonly kind: 'breakpoint';
      readonly thread: MachineThread;
      readonly ids: readonly number[];
      readonly source: 'breakpoint' | 'function breakpoint' | 'instruction breakpoint';
    }
  /** The machine itself stopped: idle, ended, or cannot go on. */
  | { readonly kind: 'machine'; readonly thread: MachineThread; readonly stop: MachineStop };

/** What the client is told. `ended`: nothing will ever run again. */
export interface Presentation {
  readonly body: P.StoppedEvent['body'];
  /** For the console, a sentence; absent where the event says it all. */
  readonly sentence?: string;
  readonly ended: boolean;
  /** With `ended`: what the process would have returned. */
  readonly exitCode: number;
}

const TITLES: Readonly<Record<string, string>> = {
  idle: 'Every vCPU is halted',
  terminated: 'The guest asked to be terminated',
  shutdown: 'Shutdown (triple fault)',
  exit: 'The guest ended',
  'not-implemented': 'Not implemented',
  error: 'The host gave up',
};

/** The reason in words: the machine's message, and where. */
export function describeMachineStop(stop: MachineStop): string {
  const parts = [stop.message || TITLES[stop.reason] || stop.reason];
  if (stop.termination && !stop.message.includes(stop.termination.meaning))
    parts.push(
      `reason set ${hex(stop.termination.set)}, code ${hex(stop.termination.code)}: ${stop.termination.meaning}`,
    );
  if (!parts[0]!.includes(hex(stop.rip))) parts.push(`at rip ${hex(stop.rip)}`);
  return parts.join(', ');
}

/** How a program that ended this way would exit: 0 only for the guest's own success. */
export function exitCodeOf(stop: MachineStop): number {
  // isa-debug-exit: QEMU's status is (value << 1) | 1; 0x10, the SVSM's and our samples' success, gives 33.
  if (stop.reason === 'exit') return stop.exitCode === 0x21 ? 0 : (stop.exitCode ?? 1);
  if (stop.reason === 'idle') return 0;
  return 1;
}

export function present(stop: Stop): Presentation {
  const base = { threadId: stop.thread.id, allThreadsStopped: true, preserveFocusHint: false };
  switch (stop.kind) {
    case 'entry':
      return {
        body: { ...base, reason: 'entry', description: 'Paused before the first instruction' },
        ended: false,
        exitCode: 0,
      };
    case 'pause':
    case 'step':
      return { body: { ...base, reason: stop.kind }, ended: false, exitCode: 0 };
    case 'breakpoint':
      return {
        body: { ...base, reason: stop.source, hitBreakpointIds: [...stop.ids] },
        ended: false,
        exitCode: 0,
      };
    case 'machine': {
      const sentence = describeMachineStop(stop.stop);
      const fault = stop.stop.reason !== 'idle' && stop.stop.reason !== 'exit';
      return {
        body: {
          ...base,
          reason: fault ? 'exception' : 'pause',
          description: stop.stop.exception
            ? `Paused on ${stop.stop.exception.name}`
            : (TITLES[stop.stop.reason] ?? stop.stop.reason),
          text: sentence,
        },
        sentence,
        // A guest that ended by itself is over; one that failed stays, to be looked at.
        ended: stop.stop.reason === 'exit',
        exitCode: exitCodeOf(stop.stop),
      };
    }
  }
}
