/**
 * The room of the debug adapter: it drives one machine for one client over the Debug Adapter Protocol:
 * launch, breakpoints, stepping, stacks, registers, memory, disassembly, and the data of the inspectors. It
 * runs guests and reads them, and never decides what they do: no processor, firmware or host behaviour is
 * here. It knows no transport, no worker and no editor.
 */
import type { DebugProtocol } from '@vscode/debugprotocol';
import type { Host } from '../base/index.ts';
import { DebugSession } from './session.ts';

export { backtrace } from './backtrace.ts';
export { loadGuest, parseLaunch, parseMemorySize } from './launch.ts';
export type { Guest, LaunchOptions } from './launch.ts';
export { describeMachineStop } from './stops.ts';
export type { RmpRangeInfo, VmsaFieldInfo } from './dap/protocol.ts';

/** One conversation. `receive` takes the client's messages in order; `dispose` ends it silently. */
export interface Session {
  receive(message: DebugProtocol.ProtocolMessage): void;
  dispose(): void;
}

/** Starts a session that answers by `send`. Nothing is read or run before the client launches a guest. */
export function createDebugSession(
  host: Host,
  send: (message: DebugProtocol.ProtocolMessage) => void,
): Session {
  return new DebugSession(host, send);
}
