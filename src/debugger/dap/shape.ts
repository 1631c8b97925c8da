/**
 * What a client may send: one shape a request. A client is another program, so its arguments are
 * checked before a handler sees them; what is not named here is ignored, as the protocol wants.
 */
import { CvmError } from '../../base/index.ts';
import type { Command } from './protocol.ts';

type Scalar = 'string' | 'integer' | 'boolean' | 'object' | 'any';
/** A trailing `?` makes a field optional; an array shape has exactly one element. */
export type Shape = Scalar | `${Scalar}?` | ObjectShape | readonly [Shape] | { readonly optional: Shape };
interface ObjectShape {
  readonly [field: string]: Shape;
}

const optional = (shape: Shape): Shape => ({ optional: shape }) as Shape;

const SOURCE: Shape = { path: 'string?', name: 'string?', sourceReference: 'integer?' };
const CONDITIONS = { condition: 'string?', hitCondition: 'string?' } as const;
const STEP: Shape = { threadId: 'integer', granularity: 'string?', singleThread: 'boolean?' };

export const SHAPES: Readonly<Record<Command, Shape>> = {
  initialize: { adapterID: 'string?', linesStartAt1: 'boolean?', columnsStartAt1: 'boolean?' },
  launch: 'object',
  attach: 'any?',
  configurationDone: 'any?',
  disconnect: optional({ restart: 'boolean?', terminateDebuggee: 'boolean?' }),
  terminate: 'any?',
  restart: optional({ arguments: 'object?' }),
  cancel: optional({ requestId: 'integer?' }),
  setBreakpoints: {
    source: SOURCE,
    breakpoints: optional([{ line: 'integer', column: 'integer?', logMessage: 'string?', ...CONDITIONS }]),
  },
  setFunctionBreakpoints: { breakpoints: [{ name: 'string', ...CONDITIONS }] },
  setInstructionBreakpoints: {
    breakpoints: [{ instructionReference: 'string', offset: 'integer?', ...CONDITIONS }],
  },
  setExceptionBreakpoints: {
    filters: optional(['string']),
    filterOptions: optional([{ filterId: 'string', condition: 'string?' }]),
  },
  breakpointLocations: { source: SOURCE, line: 'integer', endLine: 'integer?' },
  threads: 'any?',
  stackTrace: { threadId: 'integer', startFrame: 'integer?', levels: 'integer?' },
  scopes: { frameId: 'integer' },
  variables: { variablesReference: 'integer', start: 'integer?', count: 'integer?', format: 'object?' },
  setVariable: { variablesReference: 'integer', name: 'string', value: 'string' },
  setExpression: { expression: 'string', value: 'string', frameId: 'integer?' },
  evaluate: { expression: 'string', frameId: 'integer?', context: 'string?', format: 'object?' },
  completions: { text: 'string', column: 'integer', line: 'integer?', frameId: 'integer?' },
  continue: { threadId: 'integer' },
  next: STEP,
  stepIn: STEP,
  stepOut: STEP,
  pause: { threadId: 'integer?' },
  exceptionInfo: { threadId: 'integer' },
  readMemory: { memoryReference: 'string', offset: 'integer?', count: 'integer' },
  writeMemory: {
    memoryReference: 'string',
    offset: 'integer?',
    allowPartial: 'boolean?',
    data: 'string',
  },
  disassemble: {
    memoryReference: 'string',
    offset: 'integer?',
    instructionOffset: 'integer?',
    instructionCount: 'integer',
    resolveSymbols: 'boolean?',
  },
  modules: optional({ startModule: 'integer?', moduleCount: 'integer?' }),
  loadedSources: 'any?',
  source: { source: optional(SOURCE), sourceReference: 'integer' },
  'cvm/vmsa': { threadId: 'integer' },
  'cvm/rmp': optional({ start: 'integer?', count: 'integer?' }),
};

/** More elements than this in one array is not a person setting breakpoints. */
const MAX_ELEMENTS = 100_000;

const fail = (at: string, wanted: string): never => {
  throw new CvmError('invalid-arguments', `${at} must be ${wanted}`);
};

/** @throws CvmError `invalid-arguments`, naming the field. */
export function checkShape(shape: Shape, value: unknown, at = 'arguments'): void {
  if (typeof shape === 'string') return checkScalar(shape, value, at);
  if ('optional' in shape) {
    if (value !== undefined && value !== null) checkShape(shape.optional as Shape, value, at);
    return;
  }
  if (Array.isArray(shape)) {
    if (!Array.isArray(value)) return fail(at, 'an array');
    if (value.length > MAX_ELEMENTS) fail(at, `an array of at most ${MAX_ELEMENTS} elements`);
    value.forEach((element, index) => checkShape(shape[0] as Shape, element, `${at}[${index}]`));
    return;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return fail(at, 'an object');
  for (const [field, fieldShape] of Object.entries(shape as ObjectShape))
    checkShape(
      fieldShape,
      (value as Record<string, unknown>)[field],
      at === 'arguments' ? field : `${at}.${field}`,
    );
}

function checkScalar(shape: string, value: unknown, at: string): void {
  if (shape.endsWith('?')) {
    if (value === undefined || value === null) return;
    shape = shape.slice(0, -1);
  }
  switch (shape) {
    case 'string':
      if (typeof value !== 'string') fail(at, 'a string');
      return;
    case 'integer':
      if (!Number.isSafeInteger(value)) fail(at, 'an integer');
      return;
    case 'boolean':
      if (typeof value !== 'boolean') fail(at, 'true or false');
      return;
    case 'object':
      if (typeof value !== 'object' || value === null || Array.isArray(value)) fail(at, 'an object');
  }
}
