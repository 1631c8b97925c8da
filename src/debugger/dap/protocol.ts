/**
 * The Debug Adapter Protocol as this adapter speaks it: one row a request (its arguments, its answer) and
 * one an event. Adapter and tests share it, so that a conversation is typed on both ends.
 */
import type { DebugProtocol as P } from '@vscode/debugprotocol';

/** Attributes of a launch configuration, as they arrive: nothing is known of them yet. */
export type LaunchArguments = P.LaunchRequestArguments & Readonly<Record<string, unknown>>;

/** One field of a save area, for the VMSA view. */
export interface VmsaFieldInfo {
  readonly name: string;
  /** Byte offset in the save area, and size in bytes. */
  readonly offset: number;
  readonly size: number;
  /** Hexadecimal, `0x…`; byte strings longer than 8 bytes in memory order without prefix. */
  readonly value: string;
  /** What the value means, where that can be said. */
  readonly note?: string;
}

/** Pages of one RMP state, for the page state view. */
export interface RmpRangeInfo {
  /** Guest-physical, hexadecimal; `end` is exclusive. */
  readonly start: string;
  readonly end: string;
  /** `unassigned`, `assigned`, `validated` or `vmsa`. */
  readonly state: string;
  /** In bytes. */
  readonly pageSize: number;
  readonly asid: number;
  /** VMPL0 to VMPL3: `rwx` for read, write and execute; `u`/`s` where only one privilege may execute; `none`. */
  readonly permissions: readonly string[];
}

/** Request -> [arguments, body of the answer]. */
export interface Requests {
  initialize: [P.InitializeRequestArguments, P.Capabilities];
  launch: [LaunchArguments, void];
  attach: [P.AttachRequestArguments, void];
  configurationDone: [P.ConfigurationDoneArguments, void];
  disconnect: [P.DisconnectArguments, void];
  terminate: [P.TerminateArguments, void];
  restart: [P.RestartArguments & { arguments?: LaunchArguments }, void];
  cancel: [P.CancelArguments, void];
  setBreakpoints: [P.SetBreakpointsArguments, P.SetBreakpointsResponse['body']];
  setFunctionBreakpoints: [P.SetFunctionBreakpointsArguments, P.SetFunctionBreakpointsResponse['body']];
  setInstructionBreakpoints: [
    P.SetInstructionBreakpointsArguments,
    P.SetInstructionBreakpointsResponse['body'],
  ];
  setExceptionBreakpoints: [P.SetExceptionBreakpointsArguments, P.SetExceptionBreakpointsResponse['body']];
  breakpointLocations: [P.BreakpointLocationsArguments, P.BreakpointLocationsResponse['body']];
  threads: [Record<string, never>, P.ThreadsResponse['body']];
  stackTrace: [P.StackTraceArguments, P.StackTraceResponse['body']];
  scopes: [P.ScopesArguments, P.ScopesResponse['body']];
  variables: [P.VariablesArguments, P.VariablesResponse['body']];
  setVariable: [P.SetVariableArguments, P.SetVariableResponse['body']];
  setExpression: [P.SetExpressionArguments, P.SetExpressionResponse['body']];
  evaluate: [P.EvaluateArguments, P.EvaluateResponse['body']];
  completions: [P.CompletionsArguments, P.CompletionsResponse['body']];
  continue: [P.ContinueArguments, P.ContinueResponse['body']];
  next: [P.NextArguments, void];
  stepIn: [P.StepInArguments, void];
  stepOut: [P.StepOutArguments, void];
  pause: [P.PauseArguments, void];
  exceptionInfo: [P.ExceptionInfoArguments, P.ExceptionInfoResponse['body']];
  readMemory: [P.ReadMemoryArguments, P.ReadMemoryResponse['body']];
  writeMemory: [P.WriteMemoryArguments, P.WriteMemoryResponse['body']];
  disassemble: [P.DisassembleArguments, P.DisassembleResponse['body']];
  modules: [P.ModulesArguments, P.ModulesResponse['body']];
  loadedSources: [P.LoadedSourcesArguments, P.LoadedSourcesResponse['body']];
  source: [P.SourceArguments, P.SourceResponse['body']];
  'cvm/vmsa': [{ threadId: number }, { fields: VmsaFieldInfo[] }];
  'cvm/rmp': [{ start?: number; count?: number }, { ranges: RmpRangeInfo[]; total: number }];
}
export type Command = keyof Requests;

export interface Events {
  initialized: undefined;
  capabilities: P.CapabilitiesEvent['body'];
  stopped: P.StoppedEvent['body'];
  continued: P.ContinuedEvent['body'];
  thread: P.ThreadEvent['body'];
  output: P.OutputEvent['body'];
  breakpoint: P.BreakpointEvent['body'];
  module: P.ModuleEvent['body'];
  memory: P.MemoryEvent['body'];
  invalidated: P.InvalidatedEvent['body'];
  exited: P.ExitedEvent['body'];
  terminated: P.TerminatedEvent['body'];
}
export type EventName = keyof Events;
