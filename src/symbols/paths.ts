/** One prefix rewrite: a source recorded under `from` is found under `to`. Whole path segments only. */
export interface SourceMapEntry {
  readonly from: string;
  readonly to: string;
}

/** Ordered: the first entry whose prefix matches wins. */
export type SourceMap = readonly SourceMapEntry[];

/** Scheme and authority of a URI: where a workspace is not on a disk, the user's paths are URIs. */
const URI_ROOT = /^[A-Za-z][A-Za-z0-9+.-]+:\/\/[^/]*/;

const isAbsolute = (path: string): boolean =>
  path.startsWith('/') || /^[A-Za-z]:[\\/]/.test(path) || URI_ROOT.test(path);

/**
 * Removes `.`, `..` and doubled separators; backslashes become `/` in paths of Windows shape (drive letter,
 * or no `/` at all), and the drive letter is lower-cased. Scheme and authority of a URI stay as they are.
 */
export function normalizePath(path: string): string {
  const uri = URI_ROOT.exec(path)?.[0];
  if (uri !== undefined) return uri + normalizePath(path.slice(uri.length));
  const windows = /^[A-Za-z]:[\\/]/.test(path) || path.startsWith('\\\\');
  let text = windows || !path.includes('/') ? path.replaceAll('\\', '/') : path;
  if (windows && text[1] === ':') text = text[0]!.toLowerCase() + text.slice(1);
  // The common case needs no work.
  if (!/\/\.{0,2}(\/|$)|^\.{1,2}(\/|$)/.test(text)) return text;
  const root = text.startsWith('//') && windows ? '//' : text.startsWith('/') ? '/' : '';
  const parts: string[] = [];
  for (const part of text.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..' && parts.length > 0 && parts[parts.length - 1] !== '..') parts.pop();
    else if (part === '..' && root) continue;
    else parts.push(part);
  }
  return root + parts.join('/');
}

/** `name` resolved against `directory`, normalised; an empty directory leaves it relative. */
export function joinPath(directory: string, name: string): string {
  if (name === '') return normalizePath(directory);
  if (directory === '' || isAbsolute(name)) return normalizePath(name);
  return normalizePath(`${directory}/${name}`);
}

function rewrite(path: string, from: string, to: string): string | undefined {
  const prefix = normalizePath(from).replace(/\/+$/, '');
  if (path !== prefix && !path.startsWith(`${prefix}/`)) return undefined;
  return joinPath(normalizePath(to).replace(/(.)\/+$/, '$1'), path.slice(prefix.length).replace(/^\//, ''));
}

/** A path as recorded by the compiler -> where the user has it. */
export function mapSource(map: SourceMap, path: string): string {
  const normal = normalizePath(path);
  for (const { from, to } of map) {
    const mapped = rewrite(normal, from, to);
    if (mapped !== undefined) return mapped;
  }
  return normal;
}

/** A path of the user -> as the compiler recorded it (the inverse of `mapSource` where that is unambiguous). */
export function unmapSource(map: SourceMap, path: string): string {
  const normal = normalizePath(path);
  for (const { from, to } of map) {
    const mapped = rewrite(normal, to, from);
    if (mapped !== undefined) return mapped;
  }
  return normal;
}

/** How many trailing path segments two normalised paths share. */
export function commonTail(a: string, b: string): number {
  const left = a.split('/');
  const right = b.split('/');
  let count = 0;
  while (
    count < left.length &&
    count < right.length &&
    left[left.length - 1 - count] === right[right.length - 1 - count] &&
    left[left.length - 1 - count] !== ''
  )
    count++;
  return count;
}

/**
 * Which of `paths` a query names: the exact path; else every path the query is a suffix of, in whole
 * segments (a relative query, `src/main.rs`); else, the roots differing, the paths that share the longest
 * tail with it. If those are several different paths nobody can say which is meant: `ambiguous`, no match.
 */
export function matchPath(
  query: string,
  paths: Iterable<string>,
): { matches: string[]; ambiguous: string[] } {
  const wanted = normalizePath(query);
  const base = wanted.slice(wanted.lastIndexOf('/') + 1);
  const suffix = `/${wanted}`;
  const suffixes: string[] = [];
  let best: string[] = [];
  let bestTail = 0;
  for (const path of paths) {
    if (path === wanted) return { matches: [path], ambiguous: [] };
    if (base === '' || !path.endsWith(base)) continue;
    if (!isAbsolute(wanted) && path.endsWith(suffix)) suffixes.push(path);
    const tail = commonTail(path, wanted);
    if (tail > bestTail) {
      bestTail = tail;
      best = [path];
    } else if (tail === bestTail && tail > 0) best.push(path);
  }
  if (suffixes.length > 0) return { matches: suffixes, ambiguous: [] };
  return best.length === 1 ? { matches: best, ambiguous: [] } : { matches: [], ambiguous: best };
}

/** A source file under both its names. */
export interface SourcePaths {
  readonly path: string;
  readonly recorded: string;
}

/**
 * `matchPath` over files with two names: an exact match of either name first, then the mapped names, then
 * the recorded ones. `files` are mapped names.
 */
export function matchSources(
  query: string,
  records: readonly SourcePaths[],
): { files: string[]; ambiguous: string[] } {
  const wanted = normalizePath(query);
  const exact = records.filter((record) => record.path === wanted);
  if (exact.length === 0) exact.push(...records.filter((record) => record.recorded === wanted));
  if (exact.length > 0) return { files: [...new Set(exact.map((record) => record.path))], ambiguous: [] };
  const mapped = matchPath(wanted, new Set(records.map((record) => record.path)));
  if (mapped.matches.length > 0) return { files: mapped.matches, ambiguous: [] };
  const recorded = new Set(matchPath(wanted, new Set(records.map((record) => record.recorded))).matches);
  const files = records.filter((record) => recorded.has(record.recorded)).map((record) => record.path);
  return { files: [...new Set(files)], ambiguous: files.length > 0 ? [] : mapped.ambiguous };
}
