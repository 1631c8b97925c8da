/** An IGVM file from a declarative description: see docs/build.md. */
import { CvmError, hexToBytes } from '../base/index.ts';
import { IgvmBuilder } from './builder.ts';
import { specOf } from './codec.ts';
import {
  HEADERS,
  PAGE_DATA_FLAGS,
  PAGE_DATA_TYPES,
  PARAMETER_TYPES,
  PLATFORM_TYPES,
  REQUIRED_MEMORY_FLAGS,
} from './tables.ts';
import type { PageDataType, ParameterType, PlatformType } from './tables.ts';
import type { StructuredType } from './types.ts';

/** Contents of files that a description names, by the names it uses. */
export type SpecFiles = (name: string) => Uint8Array;

/** One object of the description, with its place for messages. */
class Entry {
  readonly where: string;
  private readonly value: Readonly<Record<string, unknown>>;
  private readonly used = new Set<string>(['comment']);

  constructor(value: unknown, where: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      throw new CvmError('igvm-spec', `${where} must be an object`, { name: where });
    this.value = value as Record<string, unknown>;
    this.where = where;
  }

  fail(name: string, what: string): CvmError {
    return new CvmError('igvm-spec', `${this.where}.${name} ${what}`, { name: this.where });
  }

  get(name: string): unknown {
    this.used.add(name);
    return this.value[name];
  }

  has(name: string): boolean {
    return this.value[name] !== undefined;
  }

  /** A number, or text in decimal, hexadecimal, with `_` allowed. */
  integer(name: string, otherwise?: bigint): bigint {
    const value = this.get(name);
    if (value === undefined && otherwise !== undefined) return otherwise;
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
    const text = typeof value === 'string' ? value.replaceAll('_', '') : '';
    if (!/^(\d+|0x[0-9a-f]+)$/i.test(text)) throw this.fail(name, 'must be a number, or text like "0x8000"');
    return BigInt(text);
  }

  number(name: string, otherwise?: number): number {
    const value = this.integer(name, otherwise === undefined ? undefined : BigInt(otherwise));
    if (value > 0xffff_ffffn) throw this.fail(name, 'must fit 32 bits');
    return Number(value);
  }

  text(name: string): string | undefined {
    const value = this.get(name);
    if (value !== undefined && typeof value !== 'string') throw this.fail(name, 'must be text');
    return value as string | undefined;
  }

  flag(name: string): boolean {
    const value = this.get(name) ?? false;
    if (typeof value !== 'boolean') throw this.fail(name, 'must be true or false');
    return value;
  }

  one<T extends string>(name: string, of: readonly T[], otherwise?: T): T {
    const value = this.get(name) ?? otherwise;
    const found = of.find((candidate) => candidate === value);
    if (found === undefined) throw this.fail(name, `must be one of ${of.join(', ')}`);
    return found;
  }

  list(name: string): unknown[] {
    const value = this.get(name) ?? [];
    if (!Array.isArray(value)) throw this.fail(name, 'must be a list');
    return value;
  }

  names(): string[] {
    return Object.keys(this.value);
  }

  /** Misspelt fields are mistakes, not comments. */
  done(): void {
    for (const name of Object.keys(this.value))
      if (!this.used.has(name)) throw this.fail(name, 'is not known');
  }
}

const LIMIT = 1 << 20;

/**
 * Builds the file that a description (JSON, parsed) asks for.
 *
 * @throws CvmError `igvm-spec` with the place in the description, and what `files` throws.
 */
export function buildFromSpec(spec: unknown, files: SpecFiles): Uint8Array {
  const top = new Entry(spec, 'spec');
  const version = top.number('version', 2);
  if (version !== 1 && version !== 2) throw top.fail('version', 'must be 1 or 2');
  const architecture = top.one('architecture', ['X64', 'AARCH64'], 'X64');
  const builder = new IgvmBuilder({ version, architecture });
  const masks = new Map<string, number>();
  for (const [index, value] of top.list('platforms').entries()) {
    const entry = new Entry(value, `platforms[${index}]`);
    const type = entry.one<PlatformType>('type', PLATFORM_TYPES);
    const mask = entry.number('mask', 2 ** index);
    builder.platform(type, mask, {
      highestVtl: entry.number('highestVtl', 0),
      sharedGpaBoundary: entry.integer('sharedGpaBoundary', 0n),
      platformVersion: entry.number('platformVersion', 1),
    });
    if (masks.has(type)) throw entry.fail('type', 'is declared twice');
    masks.set(type, mask);
    entry.done();
  }
  if (masks.size === 0) throw top.fail('platforms', 'must name at least one platform');
  for (const section of ['initialization', 'directives'] as const) {
    const list = top.list(section);
    if (list.length > LIMIT) throw top.fail(section, `has more than ${LIMIT} entries`);
    for (const [index, value] of list.entries()) {
      const entry = new Entry(value, `${section}[${index}]`);
      directive(builder, entry, masks, files);
      entry.done();
    }
  }
  top.done();
  return builder.build();
}

/** `platforms`: names, or all that are declared. */
function maskOf(entry: Entry, masks: ReadonlyMap<string, number>): number {
  if (!entry.has('platforms')) return [...masks.values()].reduce((all, mask) => all | mask, 0) >>> 0;
  let mask = 0;
  for (const name of entry.list('platforms')) {
    const one = masks.get(String(name));
    if (one === undefined) throw entry.fail('platforms', `names ${String(name)}, which is not declared`);
    mask |= one;
  }
  return mask >>> 0;
}

/** `file` (with `offset` and `length`), `hex` or `text`. */
function contents(entry: Entry, files: SpecFiles): Uint8Array | undefined {
  const file = entry.text('file');
  const hex = entry.text('hex');
  const text = entry.text('text');
  if ([file, hex, text].filter((one) => one !== undefined).length > 1)
    throw entry.fail('file', 'excludes hex and text');
  if (text !== undefined) return new TextEncoder().encode(text);
  if (hex !== undefined) {
    try {
      return hexToBytes(hex.replace(/\s/g, ''));
    } catch {
      throw entry.fail('hex', 'must be hexadecimal bytes');
    }
  }
  if (file === undefined) return undefined;
  const bytes = files(file);
  const offset = entry.number('offset', 0);
  const length = entry.has('length') ? entry.number('length') : bytes.length - offset;
  if (offset > bytes.length || offset + length > bytes.length)
    throw entry.fail('length', `leaves the file, which has ${bytes.length} bytes`);
  return bytes.subarray(offset, offset + length);
}

function directive(
  builder: IgvmBuilder,
  entry: Entry,
  masks: ReadonlyMap<string, number>,
  files: SpecFiles,
): void {
  const type = entry.one('type', [
    'PAGES',
    'VERSION_STRING',
    ...(Object.keys(HEADERS) as StructuredType[]).filter((name) => name !== 'SUPPORTED_PLATFORM'),
  ] as const);
  switch (type) {
    case 'PAGES':
      return pages(builder, entry, masks, files);
    case 'VERSION_STRING':
      return void builder.versionString(entry.text('text') ?? '');
    case 'GUEST_POLICY':
      return void builder.guestPolicy(entry.integer('policy'), maskOf(entry, masks));
    case 'VP_CONTEXT': {
      const data = contents(entry, files);
      if (!data) throw entry.fail('file', 'is missing: a VP context has data');
      const unpadded = entry.flag('unpadded');
      return void builder.vpContext(entry.integer('gpa', 0n), maskOf(entry, masks), data, {
        vpIndex: entry.number('vpIndex', 0),
        unpadded,
      });
    }
    case 'PARAMETER_AREA':
      return void builder.parameterArea(
        entry.number('area'),
        entry.integer('size', 0x1000n),
        contents(entry, files),
      );
    case 'PARAMETER_INSERT':
      return void builder.parameterInsert(entry.integer('gpa'), maskOf(entry, masks), entry.number('area'));
    case 'REQUIRED_MEMORY': {
      const flags = entry.flag('vtl2Protectable') ? REQUIRED_MEMORY_FLAGS.vtl2Protectable : 0;
      return void builder.requiredMemory(
        entry.integer('gpa'),
        maskOf(entry, masks),
        entry.number('size'),
        flags,
      );
    }
    default:
      if ((PARAMETER_TYPES as readonly string[]).includes(type))
        return void builder.parameter(
          type as ParameterType,
          entry.number('area'),
          entry.number('byteOffset', 0),
        );
      return raw(builder, entry, type, masks, files);
  }
}

/** Consecutive 4 KiB pages from contents, or `count` pages without. */
function pages(
  builder: IgvmBuilder,
  entry: Entry,
  masks: ReadonlyMap<string, number>,
  files: SpecFiles,
): void {
  const gpa = entry.integer('gpa');
  const mask = maskOf(entry, masks);
  const kind = {
    dataType: entry.one<PageDataType>('dataType', PAGE_DATA_TYPES, 'NORMAL'),
    unmeasured: entry.flag('unmeasured'),
    shared: entry.flag('shared'),
  };
  const data = contents(entry, files);
  if (data && entry.has('count')) throw entry.fail('count', 'is for pages without contents');
  if (data) return void builder.pages(gpa, mask, data, kind);
  const count = entry.number('count', 1);
  if (count > LIMIT) throw entry.fail('count', `is more than ${LIMIT}`);
  for (let page = 0; page < count; page++) builder.page(gpa + BigInt(page * 4096), mask, undefined, kind);
}

/** Any other header, its fields by their names in igvm_defs (camel case). */
function raw(
  builder: IgvmBuilder,
  entry: Entry,
  type: StructuredType,
  masks: ReadonlyMap<string, number>,
  files: SpecFiles,
): void {
  const fields: Record<string, unknown> = {};
  const data = contents(entry, files);
  for (const { name, type: kind, size } of specOf(type).structure.fields) {
    if (name === 'compatibilityMask')
      fields[name] = entry.has(name) ? entry.number(name) : maskOf(entry, masks);
    else if (!entry.has(name)) continue;
    else if (kind === 'u64') fields[name] = entry.integer(name);
    else if (kind !== 'bytes') fields[name] = entry.number(name);
    else {
      const text = entry.text(name) ?? '';
      if (!/^([0-9a-f]{2})*$/i.test(text) || text.length > 2 * size)
        throw entry.fail(name, `must be at most ${size} hexadecimal bytes`);
      const bytes = new Uint8Array(size);
      bytes.set(hexToBytes(text));
      fields[name] = bytes;
    }
  }
  if (type === 'PAGE_DATA' && entry.flag('is2mbPage'))
    fields['flags'] = Number(fields['flags'] ?? 0) | PAGE_DATA_FLAGS.is2mbPage;
  builder.add(type, fields as never, { ...(data && { data }), ignorable: entry.flag('ignorable') });
}
