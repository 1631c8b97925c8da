import { describe, expect, it } from 'vitest';
import { mapSource, normalizePath, unmapSource } from '../../src/symbols/index.ts';
import { joinPath, matchPath } from '../../src/symbols/paths.ts';

describe('paths', () => {
  it.each([
    ['/a/./b//c/../d', '/a/b/d'],
    ['/../a', '/a'],
    ['../a/b', '../a/b'],
    ['./a.c', 'a.c'],
    ['a/../../b', '../b'],
    ['C:\\Users\\me\\x.rs', 'c:/Users/me/x.rs'],
    ['src\\main.rs', 'src/main.rs'],
    ['/odd\\name/x.c', '/odd\\name/x.c'],
    ['/', '/'],
    ['', ''],
    ['vscode-vfs://github/o/r/./src//../src/a.rs', 'vscode-vfs://github/o/r/src/a.rs'],
  ])('normalises %s to %s', (path, expected) => expect(normalizePath(path)).toBe(expected));

  it('joins relative names to the directory they were compiled in', () => {
    expect(joinPath('/work/svsm', 'kernel/src/main.rs')).toBe('/work/svsm/kernel/src/main.rs');
    expect(joinPath('/work/svsm/target/build', '../../libtcgtpm/a.c')).toBe('/work/svsm/libtcgtpm/a.c');
    expect(joinPath('/work', '/usr/include/x.h')).toBe('/usr/include/x.h');
    expect(joinPath('', 'x.c')).toBe('x.c');
  });

  it('rewrites prefixes in order, in whole segments, in both directions', () => {
    const map = [
      { from: '/rustc/abc/', to: '/usr/src/rust' },
      { from: '/src/svsm', to: '/home/me/svsm/' },
      { from: '/src', to: '/home/me/other' },
    ];
    expect(mapSource(map, '/rustc/abc/library/core/src/lib.rs')).toBe(
      '/usr/src/rust/library/core/src/lib.rs',
    );
    expect(mapSource(map, '/src/svsm/kernel/a.rs')).toBe('/home/me/svsm/kernel/a.rs');
    expect(mapSource(map, '/src/svsm2/a.rs')).toBe('/home/me/other/svsm2/a.rs');
    expect(mapSource(map, '/elsewhere/a.rs')).toBe('/elsewhere/a.rs');
    expect(unmapSource(map, '/home/me/svsm/kernel/a.rs')).toBe('/src/svsm/kernel/a.rs');
    expect(mapSource([{ from: '/build', to: '/' }], '/build/x.c')).toBe('/x.c');
    expect(mapSource([{ from: '/build', to: 'C:\\work' }], '/build/x.c')).toBe('c:/work/x.c');
    const web = [{ from: '/build', to: 'vscode-vfs://github/o/r' }];
    expect(mapSource(web, '/build/x.c')).toBe('vscode-vfs://github/o/r/x.c');
    expect(unmapSource(web, 'vscode-vfs://github/o/r/x.c')).toBe('/build/x.c');
  });

  const paths = [
    '/b/kernel/src/main.rs',
    '/b/user/init/src/main.rs',
    '/b/kernel/src/cpu/idt/svsm.rs',
    '/b/kernel/src/svsm.rs',
  ];
  it('matches exactly, then by suffix, then by the longest common tail', () => {
    expect(matchPath('/b/kernel/src/main.rs', paths).matches).toEqual(['/b/kernel/src/main.rs']);
    expect(matchPath('init/src/main.rs', paths).matches).toEqual(['/b/user/init/src/main.rs']);
    expect(matchPath('svsm.rs', paths).matches).toEqual([paths[2], paths[3]]);
    expect(matchPath('/home/me/svsm/kernel/src/svsm.rs', paths).matches).toEqual([paths[3]]);
    expect(matchPath('c:\\w\\svsm\\kernel\\src\\main.rs', paths).matches).toEqual([paths[0]]);
    expect(matchPath('/home/me/ain.rs', paths).matches).toEqual([]);
  });

  it('matches nothing when two files fit equally well, and says which', () => {
    expect(matchPath('/x/src/main.rs', paths)).toEqual({ matches: [], ambiguous: [paths[0], paths[1]] });
  });
});
