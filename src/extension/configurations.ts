import * as vscode from 'vscode';
import { activeImage, pickImage } from './active-image.ts';

export const DEBUG_TYPE = 'cvm';

/** Where `resolveDebugConfiguration` completes what a launch configuration leaves out. */
export class ConfigurationResolver implements vscode.DebugConfigurationProvider {
  async resolveDebugConfiguration(
    folder: vscode.WorkspaceFolder | undefined,
    configuration: vscode.DebugConfiguration,
  ): Promise<vscode.DebugConfiguration | undefined> {
    // F5 without a launch.json: an empty configuration. Debug the image in front, or the only one.
    if (configuration.program === undefined) {
      const file = activeImage() ?? (await onlyImage()) ?? (await pickImage('Debug which IGVM file?'));
      if (!file) return undefined;
      return { ...configurationFor(file, folder), ...configuration, ...bare(file) };
    }
    return configuration;
  }

  resolveDebugConfigurationWithSubstitutedVariables(
    folder: vscode.WorkspaceFolder | undefined,
    configuration: vscode.DebugConfiguration,
  ): vscode.DebugConfiguration | undefined {
    const { program } = configuration;
    if (typeof program !== 'string' || program === '') {
      void vscode.window.showErrorMessage(
        'The launch configuration names no image: set "program" to an IGVM file.',
      );
      return undefined;
    }
    const absolute = (path: unknown) =>
      typeof path === 'string' && folder ? absolutePath(path, folder) : path;
    const { symbols, sourceMap } = configuration;
    return {
      ...configuration,
      program: absolute(program),
      ...(Array.isArray(symbols) ? { symbols: symbols.map(absolute) } : {}),
      ...(sourceMap === undefined ? {} : { sourceMap: mapTargets(sourceMap, absolute) }),
    };
  }
}

/** A source map with its right-hand sides changed; anything else as it is, for the adapter to refuse. */
function mapTargets(sourceMap: unknown, change: (path: unknown) => unknown): unknown {
  if (Array.isArray(sourceMap))
    return sourceMap.map((entry: unknown) =>
      typeof entry === 'object' && entry !== null && 'to' in entry
        ? { ...entry, to: change(entry.to) }
        : entry,
    );
  if (typeof sourceMap !== 'object' || sourceMap === null) return sourceMap;
  return Object.fromEntries(Object.entries(sourceMap).map(([from, to]) => [from, change(to)]));
}

/** Configurations for the images of the workspace: offered in launch.json and in the debug menu. */
export class ConfigurationFinder implements vscode.DebugConfigurationProvider {
  async provideDebugConfigurations(
    folder: vscode.WorkspaceFolder | undefined,
  ): Promise<vscode.DebugConfiguration[]> {
    const pattern = folder ? new vscode.RelativePattern(folder, '**/*.igvm') : '**/*.igvm';
    const files = await vscode.workspace.findFiles(pattern, '**/node_modules/**', 20);
    files.sort((a, b) => a.path.localeCompare(b.path));
    return files.map((file) => ({ ...bare(file), program: portablePath(file, folder) }));
  }
}

/**
 * The configuration that debugs `file`: the workspace's own when its launch.json has one for it,
 * else one with nothing but the image.
 */
export function configurationFor(
  file: vscode.Uri,
  folder: vscode.WorkspaceFolder | undefined,
): vscode.DebugConfiguration {
  const own = vscode.workspace
    .getConfiguration('launch', folder)
    .get<vscode.DebugConfiguration[]>('configurations', [])
    .find(
      (candidate) =>
        candidate.type === DEBUG_TYPE &&
        typeof candidate.program === 'string' &&
        folder !== undefined &&
        absolutePath(candidate.program.replaceAll('${workspaceFolder}', folder.uri.fsPath), folder) ===
          pathOf(file),
    );
  return own ?? { ...bare(file), stopOnEntry: true };
}

function bare(file: vscode.Uri): vscode.DebugConfiguration {
  return {
    type: DEBUG_TYPE,
    request: 'launch',
    name: `Debug ${file.path.split('/').at(-1)}`,
    program: pathOf(file),
  };
}

async function onlyImage(): Promise<vscode.Uri | undefined> {
  const files = await vscode.workspace.findFiles('**/*.igvm', '**/node_modules/**', 2);
  return files.length === 1 ? files[0] : undefined;
}

/** Files on disk by path; files of other file systems by URI. */
const pathOf = (file: vscode.Uri) => (file.scheme === 'file' ? file.fsPath : file.toString());

function portablePath(file: vscode.Uri, folder: vscode.WorkspaceFolder | undefined): string {
  const relative = folder && vscode.workspace.asRelativePath(file, false);
  return relative && relative !== file.fsPath ? `\${workspaceFolder}/${relative}` : pathOf(file);
}

/**
 * An absolute path, or a URI where the folder is not on this machine's disk: there `${workspaceFolder}` has
 * become a bare path, which belongs to the folder's file system.
 */
function absolutePath(path: string, folder: vscode.WorkspaceFolder): string {
  if (/^[a-z][a-z0-9+.-]+:/i.test(path)) return path;
  const { uri } = folder;
  if (uri.scheme === 'file') {
    const rooted = /^([a-z]:)?[\\/]/i.test(path);
    return rooted ? vscode.Uri.file(path).fsPath : vscode.Uri.joinPath(uri, path).fsPath;
  }
  return (path.startsWith('/') ? uri.with({ path }) : vscode.Uri.joinPath(uri, path)).toString();
}
