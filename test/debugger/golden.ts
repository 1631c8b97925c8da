/** Golden conversations: the log of a client as text, compared with a committed file. */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { expect } from 'vitest';

/** Numbers that only have to be unique: shown in the order of their first appearance. */
const IDS = ['id', 'frameId', 'variablesReference', 'sourceReference'] as const;

function normalise(value: unknown, ids: Map<string, string>, key = ''): unknown {
  if (Array.isArray(value))
    return value.map((one) => normalise(one, ids, key === 'hitBreakpointIds' ? 'id' : ''));
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, normalise(one, ids, name)]));
  if (typeof value === 'number' && value !== 0 && (IDS as readonly string[]).includes(key)) {
    const kind = key === 'frameId' ? 'id' : key;
    const known =
      ids.get(`${kind}${value}`) ?? `#${[...ids.keys()].filter((one) => one.startsWith(kind)).length + 1}`;
    ids.set(`${kind}${value}`, known);
    return known;
  }
  return value;
}

/** Objects that fit a line on one line, longer ones a member a line. */
function pretty(value: unknown, indent: string): string {
  const flat = JSON.stringify(value);
  if (flat === undefined) return '';
  if (flat.length + indent.length <= 110 || typeof value !== 'object' || value === null) return flat;
  const inner = `${indent}  `;
  const rows = Array.isArray(value)
    ? value.map((one) => `${inner}${pretty(one, inner)}`)
    : Object.entries(value).map(([name, one]) => `${inner}${JSON.stringify(name)}: ${pretty(one, inner)}`);
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  return `${open}\n${rows.join(',\n')}\n${indent}${close}`;
}

export function conversation(log: readonly P.ProtocolMessage[]): string {
  const ids = new Map<string, string>();
  return log
    .map((message) => {
      const text = (value: unknown): string => {
        const body = normalise(value, ids);
        return body === undefined ? '' : ` ${pretty(body, '')}`;
      };
      if (message.type === 'request') {
        const { command, arguments: args } = message as P.Request;
        return `\n> ${command}${text(args)}`;
      }
      if (message.type === 'event') {
        const { event, body } = message as P.Event;
        return `* ${event}${text(body)}`;
      }
      const { command, success, body } = message as P.Response;
      return `< ${success ? '' : 'refuses '}${command}${text(body)}`;
    })
    .join('\n')
    .trimStart()
    .concat('\n');
}

/**
 * Compares with `golden/NAME.txt`. On a mismatch the text is left in `NAME.txt.actual`; CVM_UPDATE_GOLDENS=1
 * takes it over.
 */
export function expectGolden(name: string, text: string): void {
  const file = join(import.meta.dirname, 'golden', `${name}.txt`);
  const actual = `${file}.actual`;
  if (process.env.CVM_UPDATE_GOLDENS) writeFileSync(file, text);
  const wanted = existsSync(file) ? readFileSync(file, 'utf8') : '';
  if (wanted === text) rmSync(actual, { force: true });
  else writeFileSync(actual, text);
  expect(text, `differs from ${file}; see ${actual}`).toBe(wanted);
}
