/** The requests that set breakpoints; lines are counted as the client counts them. */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import type { Breakpoints } from './breakpoints.ts';
import type { Connection } from './dap/connection.ts';
import type { Guest } from './launch.ts';

export interface BreakpointGround {
  readonly connection: Connection;
  readonly breakpoints: Breakpoints;
  /** Added to the debugger's lines, which count from 1. */
  readonly lineOffset: number;
  guest(): Guest;
}

/** Lines a client may ask about at once. */
const MAX_LINES = 10_000;

/** A breakpoint with its line as the client counts. */
export function toClient({ lineOffset }: BreakpointGround, breakpoint: P.Breakpoint): P.Breakpoint {
  if (breakpoint.line === undefined || lineOffset === 0) return breakpoint;
  return { ...breakpoint, line: breakpoint.line + lineOffset };
}

export function registerBreakpointRequests(session: BreakpointGround): void {
  const { connection, breakpoints } = session;
  const answer = (list: P.Breakpoint[]): { breakpoints: P.Breakpoint[] } => ({
    breakpoints: list.map((one) => toClient(session, one)),
  });
  connection.handle('setBreakpoints', ({ source, breakpoints: wanted = [] }) =>
    answer(
      breakpoints.setSource(
        source,
        wanted.map((one) => ({ ...one, line: one.line - session.lineOffset })),
      ),
    ),
  );
  connection.handle('setFunctionBreakpoints', (args) => answer(breakpoints.setFunctions(args.breakpoints)));
  connection.handle('setInstructionBreakpoints', (args) =>
    answer(breakpoints.setInstructions(args.breakpoints)),
  );
  connection.handle('setExceptionBreakpoints', ({ filters = [] }) => ({
    breakpoints: breakpoints.setExceptions(filters),
  }));
  connection.handle('breakpointLocations', ({ source, line, endLine }) => {
    const { symbols } = session.guest();
    if (source.path === undefined) return { breakpoints: [] };
    const from = line - session.lineOffset;
    const to = Math.min((endLine ?? line) - session.lineOffset, from + MAX_LINES);
    return {
      breakpoints: symbols.breakpointLocations(source.path, from, to).map((place) => ({
        line: place.line + session.lineOffset,
        ...(place.column > 0 ? { column: place.column } : {}),
      })),
    };
  });
}
