/**
 * What the user wants to stop at. Breakpoints live longer than a guest: set before the launch they wait,
 * after a restart they are placed anew. Their addresses go to the machine; their conditions are asked here.
 */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { hex } from '../base/index.ts';
import type { MachineThread } from '../vmm/index.ts';
import { parseReference } from './addresses.ts';
import { isExceptionFilter, vectorsOf } from './exception-filters.ts';
import type { Execution } from './execution.ts';
import { evaluate, interpolate, isTrue, parseExpression } from './expression/index.ts';
import type { Expression, Scope } from './expression/index.ts';
import { parseHitCondition } from './expression/hits.ts';
import type { HitCondition } from './expression/hits.ts';
import type { Stop } from './stops.ts';

export type BreakpointKind = 'source' | 'function' | 'instruction';

/** Where a breakpoint's place is looked up: the symbols of the guest, or nothing yet. */
export interface Places {
  line(source: P.Source, line: number): { addresses: readonly bigint[]; line: number } | string;
  function(name: string): readonly bigint[] | string;
  /** Source position of an address, for the answer. */
  describe(address: bigint): Pick<P.Breakpoint, 'source' | 'line' | 'column'>;
}

interface Entry {
  readonly id: number;
  readonly kind: BreakpointKind;
  /** Same place and conditions: kept, with its count, when the client sends its list again. */
  readonly key: string;
  readonly condition: Expression | undefined;
  readonly hitCondition: HitCondition | undefined;
  readonly logMessage: string | undefined;
  readonly place: (places: Places) => { addresses: readonly bigint[]; line?: number } | string;
  readonly source: P.Source | undefined;
  readonly requestedLine: number | undefined;
  /** Why it can never stop: a condition that is no expression. */
  readonly refused: string | undefined;
  addresses: readonly bigint[];
  answer: P.Breakpoint;
  hits: number;
}

/** What the breakpoints at one address say when it is reached. */
export interface Verdict {
  /** Undefined: nothing to stop for. */
  readonly stop: Stop | undefined;
  /** Texts of log points and of conditions that failed, in order. */
  readonly output: readonly string[];
}

type Request = P.SourceBreakpoint | P.FunctionBreakpoint | P.InstructionBreakpoint;

const NOT_LOADED = 'Set when the guest is loaded';

export class Breakpoints {
  private readonly lists = new Map<string, Entry[]>();
  private readonly byAddress = new Map<bigint, Entry[]>();
  private exceptionFilters: readonly string[] = [];
  private lastId = 0;
  private execution: Execution | undefined;
  private places: Places | undefined;

  /** A guest is there: every breakpoint is placed. Returns those whose answer changed. */
  attach(execution: Execution, places: Places): P.Breakpoint[] {
    this.execution = execution;
    this.places = places;
    execution.stopOnExceptions(vectorsOf(this.exceptionFilters));
    const changed: P.Breakpoint[] = [];
    for (const list of this.lists.values())
      for (const entry of list) {
        entry.hits = 0;
        const before = JSON.stringify(entry.answer);
        this.place(entry);
        if (JSON.stringify(entry.answer) !== before) changed.push(entry.answer);
      }
    return changed;
  }

  /** The guest is gone; the wishes stay. */
  detach(): void {
    this.execution = undefined;
    this.places = undefined;
    this.byAddress.clear();
    for (const list of this.lists.values()) for (const entry of list) entry.addresses = [];
  }

  setSource(source: P.Source, wanted: readonly P.SourceBreakpoint[]): P.Breakpoint[] {
    const name = source.path ?? (source.sourceReference ? `ref:${source.sourceReference}` : source.name);
    return this.replace(`source:${name ?? ''}`, 'source', wanted, (one) => ({
      key: `${one.line}:${one.column ?? ''}`,
      source,
      line: one.line,
      logMessage: one.logMessage,
      place: (places) => places.line(source, one.line),
    }));
  }

  setFunctions(wanted: readonly P.FunctionBreakpoint[]): P.Breakpoint[] {
    return this.replace('functions', 'function', wanted, (one) => ({
      key: one.name,
      place: (places) => {
        const addresses = places.function(one.name);
        return typeof addresses === 'string' ? addresses : { addresses };
      },
    }));
  }

  setInstructions(wanted: readonly P.InstructionBreakpoint[]): P.Breakpoint[] {
    return this.replace('instructions', 'instruction', wanted, (one) => ({
      key: `${one.instructionReference}+${one.offset ?? 0}`,
      place: () => {
        const at = parseReference(one.instructionReference, one.offset ?? 0);
        return at.space === 'virtual' ? { addresses: [at.address] } : 'A breakpoint needs a virtual address';
      },
    }));
  }

  /** Exceptions to stop for, by the names of `EXCEPTION_FILTERS`; an answer for each. */
  setExceptions(filters: readonly string[]): P.Breakpoint[] {
    this.exceptionFilters = filters;
    const able = this.execution?.stopOnExceptions(vectorsOf(filters)) ?? true;
    return filters.map((filter) =>
      !isExceptionFilter(filter)
        ? { verified: false, message: `there is no exception filter '${filter.slice(0, 200)}'` }
        : able
          ? { verified: true }
          : { verified: false, message: 'this machine does not stop on exceptions' },
    );
  }

  /** True if any breakpoint of the user is at this linear address. */
  has(address: bigint): boolean {
    return this.byAddress.has(address);
  }

  /** Asks the breakpoints at the address the thread has reached; counts the hit. */
  reached(address: bigint, thread: MachineThread, scope: Scope): Verdict {
    const output: string[] = [];
    const stopping: Entry[] = [];
    for (const entry of this.byAddress.get(address) ?? []) {
      if (entry.condition) {
        try {
          if (!isTrue(evaluate(entry.condition, scope))) continue;
        } catch (error) {
          // Better one stop too many than a condition that silently never holds.
          output.push(
            `The condition of the breakpoint at ${hex(address)} failed: ${(error as Error).message}\n`,
          );
          stopping.push(entry);
          continue;
        }
      }
      entry.hits++;
      if (entry.hitCondition && !entry.hitCondition(entry.hits)) continue;
      if (entry.logMessage !== undefined) output.push(`${interpolate(entry.logMessage, scope)}\n`);
      else stopping.push(entry);
    }
    if (stopping.length === 0) return { stop: undefined, output };
    const kind = stopping[0]!.kind;
    const source = kind === 'source' ? 'breakpoint' : (`${kind} breakpoint` as const);
    return { stop: { kind: 'breakpoint', thread, ids: stopping.map(({ id }) => id), source }, output };
  }

  /** Every breakpoint, for the console's list. */
  list(): { answer: P.Breakpoint; kind: BreakpointKind; key: string; hits: number }[] {
    return [...this.lists.values()].flat();
  }

  private replace<T extends Request>(
    listName: string,
    kind: BreakpointKind,
    wanted: readonly T[],
    describe: (one: T) => {
      key: string;
      place: Entry['place'];
      source?: P.Source;
      line?: number;
      logMessage?: string | undefined;
    },
  ): P.Breakpoint[] {
    const before = this.lists.get(listName) ?? [];
    const entries = wanted.map((one): Entry => {
      const what = describe(one);
      const key = JSON.stringify([what.key, one.condition, one.hitCondition, what.logMessage]);
      const kept = before.find((entry) => entry.key === key);
      if (kept) {
        before.splice(before.indexOf(kept), 1);
        return kept;
      }
      const { condition, hitCondition, refused } = parseConditions(one);
      const id = ++this.lastId;
      const entry: Entry = {
        id,
        kind,
        key,
        condition,
        hitCondition,
        refused,
        logMessage: what.logMessage,
        place: what.place,
        source: what.source,
        requestedLine: what.line,
        addresses: [],
        answer: { id, verified: false },
        hits: 0,
      };
      this.place(entry);
      return entry;
    });
    for (const entry of before) this.remove(entry);
    this.lists.set(listName, entries);
    return entries.map((entry) => entry.answer);
  }

  private place(entry: Entry): void {
    const { id, source, requestedLine } = entry;
    const unplaced = (message: string, reason: 'pending' | 'failed'): void => {
      entry.answer = {
        id,
        verified: false,
        message,
        reason,
        ...(source ? { source } : {}),
        ...(requestedLine === undefined ? {} : { line: requestedLine }),
      };
    };
    if (entry.refused !== undefined) return unplaced(entry.refused, 'failed');
    if (!this.places) return unplaced(NOT_LOADED, 'pending');
    let found: ReturnType<Entry['place']>;
    try {
      found = entry.place(this.places);
    } catch (error) {
      return unplaced((error as Error).message, 'failed');
    }
    if (typeof found === 'string') return unplaced(found, 'failed');
    entry.addresses = found.addresses;
    for (const address of found.addresses) {
      const list = this.byAddress.get(address);
      if (list) list.push(entry);
      else {
        this.byAddress.set(address, [entry]);
        this.execution?.hold(address);
      }
    }
    const position = source
      ? { source, line: found.line ?? requestedLine }
      : this.places.describe(found.addresses[0]!);
    entry.answer = {
      id,
      verified: true,
      ...position,
      instructionReference: hex(found.addresses[0]!),
    };
  }

  private remove(entry: Entry): void {
    for (const address of entry.addresses) {
      const left = (this.byAddress.get(address) ?? []).filter((other) => other !== entry);
      if (left.length > 0) this.byAddress.set(address, left);
      else if (this.byAddress.delete(address)) this.execution?.release(address);
    }
    entry.addresses = [];
  }
}

function parseConditions(one: Request): Pick<Entry, 'condition' | 'hitCondition' | 'refused'> {
  try {
    return {
      condition: one.condition?.trim() ? parseExpression(one.condition) : undefined,
      hitCondition: one.hitCondition?.trim() ? parseHitCondition(one.hitCondition) : undefined,
      refused: undefined,
    };
  } catch (error) {
    return { condition: undefined, hitCondition: undefined, refused: (error as Error).message };
  }
}
