/** The images of a guest as modules, and the sources their debug information names. */
import type { DebugProtocol as P } from '@vscode/debugprotocol';
import { hex } from '../base/index.ts';
import type { Connection } from './dap/connection.ts';
import type { Guest } from './launch.ts';
import { fileSource } from './sources.ts';
import type { Sources } from './sources.ts';

export interface ModuleGround {
  readonly connection: Connection;
  readonly sources: Sources;
  guest(): Guest;
}

const MAX_SOURCES = 20_000;

export function registerModuleRequests(session: ModuleGround): void {
  const { connection } = session;
  connection.handle('modules', ({ startModule = 0, moduleCount }) => {
    const all = session.guest().images.map(({ image, path }): P.Module => {
      const { extent } = image;
      return {
        id: image.name,
        name: image.name,
        path,
        symbolFilePath: path,
        symbolStatus: 'Symbols loaded',
        ...(extent ? { addressRange: `${hex(extent[0])}-${hex(extent[1])}` } : {}),
      };
    });
    const from = Math.max(0, startModule);
    return {
      modules: all.slice(from, moduleCount ? from + moduleCount : undefined),
      totalModules: all.length,
    };
  });
  connection.handle('loadedSources', () => {
    const recorded = session.guest().symbols.sources();
    const paths = new Set(recorded.map(({ path }) => path).filter((path) => path !== ''));
    return { sources: [...paths].slice(0, MAX_SOURCES).map(fileSource) };
  });
  connection.handle('source', ({ source, sourceReference }) =>
    session.sources.content(source?.sourceReference || sourceReference),
  );
}
