/** The filters of the client's exception breakpoints, and the vectors they stand for. */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import type { ExceptionVectors } from '../vmm/index.ts';

interface Filter {
  readonly label: string;
  readonly description: string;
  readonly vectors: readonly number[] | 'all';
}

/** Vectors: APM volume 2, §8.2. */
const FILTERS: Readonly<Record<string, Filter>> = {
  vc: {
    label: '#VC',
    description:
      'Instructions that need the host (CPUID, port I/O, MSRs …), and pages that are not validated',
    vectors: [29],
  },
  pf: { label: '#PF', description: 'Page faults', vectors: [14] },
  gp: { label: '#GP', description: 'General protection', vectors: [13] },
  ud: { label: '#UD', description: 'Invalid opcodes', vectors: [6] },
  df: { label: '#DF', description: 'Double faults', vectors: [8] },
  any: { label: 'Any exception', description: 'Every exception but #DB and #BP', vectors: 'all' },
};

export const EXCEPTION_FILTERS: P.ExceptionBreakpointsFilter[] = Object.entries(FILTERS).map(
  ([filter, { label, description }]) => ({ filter, label, description, default: false }),
);

export const isExceptionFilter = (name: string): boolean => Object.hasOwn(FILTERS, name);

/** What the machine is to stop for; names that are no filters count for nothing. */
export function vectorsOf(filters: readonly string[]): ExceptionVectors | undefined {
  const wanted = filters.filter(isExceptionFilter).map((name) => FILTERS[name]!.vectors);
  if (wanted.includes('all')) return 'all';
  return wanted.length > 0 ? new Set((wanted as number[][]).flat()) : undefined;
}
