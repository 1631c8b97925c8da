// A real VS Code workbench for people and for the in-editor tests: code-server, which is VS Code's
// own workbench and extension host served to a browser, pinned and installed into .cache/workbench
// on first use. No compiler, no root, no VS Code download.
/* global setInterval, clearInterval, clearTimeout */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));

const CODE_SERVER = '4.139.1';
/** code-server runs on exactly this major version; any newer Node of the user's is left alone. */
const NODE_MAJOR = 24;
const NODE = '24.9.0';

const cache = join(root, '.cache');
const home = join(cache, `workbench-${CODE_SERVER}-node${NODE}`);
const packages = join(home, 'node_modules');
const entry = join(packages, 'code-server/out/node/entry.js');
const stamp = join(home, 'installed.json');

/** npm packages that carry a Node binary are named by platform; macOS on ARM has a name of its own. */
function nodePackage() {
  const platform = process.platform === 'win32' ? 'win' : process.platform;
  const prefix = platform === 'darwin' && process.arch === 'arm64' ? 'node-bin' : 'node';
  return `${prefix}-${platform}-${process.arch}`;
}

function nodeBinary() {
  if (Number(process.versions.node.split('.')[0]) === NODE_MAJOR) return process.execPath;
  return join(packages, nodePackage(), 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
}

/** True when `ensureWorkbench` has nothing left to install. */
export const workbenchInstalled = () => existsSync(stamp);

/** Runs npm in `folder`; its output is shown only when it fails. */
function npm(args, folder) {
  return new Promise((resolve, reject) => {
    const shell = process.platform === 'win32';
    const child = spawn('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], {
      cwd: folder,
      shell,
      // npm start's own npm_* variables (prefix, workspace…) must not leak into these installs.
      env: Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('npm_'))),
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    child.on('error', reject);
    child.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`npm ${args.join(' ')} failed (${code}):\n${output}`)),
    );
  });
}

/** Says what is happening and for how long, on a terminal in place, elsewhere line by line. */
async function step(log, title, work) {
  const started = Date.now();
  const seconds = () => `${((Date.now() - started) / 1000).toFixed(0)} s`;
  const live = log.isTTY === true;
  if (!live) log.write(`  ${title} …\n`);
  const timer = live ? setInterval(() => log.write(`\r  ${title} … ${seconds()}`), 250) : undefined;
  try {
    const result = await work();
    log.write(live ? `\r  ${title} … done in ${seconds()}\n` : `    done in ${seconds()}\n`);
    return result;
  } catch (error) {
    log.write(live ? '\n' : '');
    throw error;
  } finally {
    clearInterval(timer);
  }
}

/**
 * Installs the workbench unless it is there. Works in a folder of its own that is renamed at the
 * end, so that an interrupted install never looks finished.
 */
export async function ensureWorkbench(log = process.stderr) {
  if (workbenchInstalled()) return { node: nodeBinary(), entry };
  log.write(`Installing the VS Code workbench (code-server ${CODE_SERVER}, once, into .cache/):\n`);
  const staging = `${home}.partial`;
  await rm(staging, { recursive: true, force: true });
  await rm(home, { recursive: true, force: true });
  await mkdir(staging, { recursive: true });
  await writeFile(join(staging, 'package.json'), '{ "private": true }\n');
  const server = join(staging, 'node_modules/code-server/lib/vscode');
  const own = Number(process.versions.node.split('.')[0]) === NODE_MAJOR;
  await step(log, `1/3 code-server${own ? '' : ` and Node ${NODE} for it`}`, () =>
    npm(
      [
        'install',
        // The packages' install scripts would compile native modules; none of them is needed here.
        '--ignore-scripts',
        `code-server@${CODE_SERVER}`,
        ...(own ? [] : [`${nodePackage()}@${NODE}`]),
      ],
      staging,
    ),
  );
  await step(log, '2/3 the editor', () => npm(['install', '--omit=dev', '--ignore-scripts'], server));
  await step(log, '3/3 its built-in extensions', () =>
    npm(['install', '--omit=dev', '--ignore-scripts'], join(server, 'extensions')),
  );
  await writeFile(join(staging, 'installed.json'), JSON.stringify({ codeServer: CODE_SERVER, node: NODE }));
  await rename(staging, home);
  return { node: nodeBinary(), entry };
}

/** A TCP port on 127.0.0.1: `wanted` if it is free, any other when `fallback` allows. */
export function freePort(wanted = 0, fallback = true) {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.on('error', (error) => {
      if (fallback && wanted !== 0) resolve(freePort(0));
      else reject(new Error(`port ${wanted} on 127.0.0.1 cannot be used: ${error.message}`));
    });
    probe.listen(wanted, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => resolve(port));
    });
  });
}

/** Settings of the workbench's own profile; a file that is already there belongs to the user. */
const SETTINGS = {
  'workbench.startupEditor': 'none',
  'workbench.welcomePage.walkthroughs.openOnInstall': false,
  'workbench.tips.enabled': false,
  'workbench.secondarySideBar.defaultVisibility': 'hidden',
  'telemetry.telemetryLevel': 'off',
  'update.mode': 'none',
  'extensions.autoCheckUpdates': false,
  'extensions.autoUpdate': false,
  'extensions.ignoreRecommendations': true,
  'chat.disableAIFeatures': true,
  'git.openRepositoryInParentFolders': 'never',
  'security.workspace.trust.enabled': false,
  'debug.toolBarLocation': 'docked',
  'debug.openDebug': 'openOnSessionStart',
};

/**
 * Starts a workbench with the extension installed.
 * @param options.vsix packaged extension; @param options.profile folder for settings and state;
 *   @param options.port 0 for any; @param options.settings further user settings (tests).
 * @returns `{ url(folder), process, stop() }` once it answers HTTP.
 */
export async function startWorkbench({ vsix, profile, port = 0, settings = {}, log = process.stderr }) {
  const { node, entry: main } = await ensureWorkbench(log);
  const extensions = join(profile, 'extensions');
  const userSettings = join(profile, 'User/settings.json');
  await mkdir(dirname(userSettings), { recursive: true });
  if (!existsSync(userSettings))
    await writeFile(userSettings, `${JSON.stringify({ ...SETTINGS, ...settings }, null, 2)}\n`);

  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(npm_|VSCODE_|ELECTRON_|NODE_OPTIONS$)/.test(name)),
  );
  // No config file of the user's, no login, no update check, no telemetry.
  const common = ['--config', join(profile, 'config.yaml'), '--user-data-dir', profile];
  common.push('--extensions-dir', extensions);
  await writeFile(join(profile, 'config.yaml'), 'auth: none\ncert: false\n');

  await step(log, 'Installing the extension into the workbench', async () => {
    await rm(extensions, { recursive: true, force: true });
    const child = spawn(node, [main, ...common, '--install-extension', vsix, '--force'], {
      env,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const output = await collect(child);
    if (child.exitCode !== 0 || !/successfully installed/i.test(output))
      throw new Error(`code-server could not install ${vsix}:\n${output}`);
  });

  const at = await freePort(port, false);
  const child = spawn(
    node,
    [
      main,
      ...common,
      '--auth=none',
      `--bind-addr=127.0.0.1:${at}`,
      '--disable-telemetry',
      '--disable-update-check',
      '--disable-workspace-trust',
      '--disable-getting-started-override',
    ],
    // A process group of its own: Ctrl-C reaches us alone, and we stop it in order.
    { env, stdio: ['ignore', 'pipe', 'pipe'], detached: process.platform !== 'win32' },
  );
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk) => (output = (output + chunk).slice(-20_000)));
  const exited = new Promise((resolve) => child.once('exit', resolve));

  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const signal = (name) => {
      try {
        if (process.platform === 'win32') child.kill(name);
        else process.kill(-child.pid, name);
      } catch {
        // Already gone.
      }
    };
    signal('SIGTERM');
    const timer = setTimeout(() => signal('SIGKILL'), 5_000);
    await exited;
    clearTimeout(timer);
  };

  const base = `http://127.0.0.1:${at}/`;
  await step(log, 'Starting the workbench', async () => {
    for (const deadline = Date.now() + 60_000; ;) {
      if (child.exitCode !== null) throw new Error(`code-server ended (${child.exitCode}):\n${output}`);
      const answer = await fetch(`${base}healthz`).catch(() => undefined);
      if (answer?.ok) return;
      if (Date.now() > deadline) {
        await stop();
        throw new Error(`code-server did not answer on ${base} within a minute:\n${output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  });
  return {
    url: (folder) => `${base}?folder=${encodeURI(folder.replaceAll('\\', '/'))}`,
    exited,
    output: () => output,
    stop,
  };
}

function collect(child) {
  return new Promise((resolve, reject) => {
    let output = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk));
    child.on('error', reject);
    child.on('close', () => resolve(output));
  });
}

/** Packages the extension into dist/*.vsix (bundles must be built) and returns its path. */
export async function packageExtension() {
  const manifest = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
  const vsix = join(root, 'dist', `${manifest.name}-${manifest.version}.vsix`);
  const vsce = join(root, 'node_modules/@vscode/vsce/vsce');
  const options = [
    // Everything is bundled.
    '--no-dependencies',
    // A clone without a remote packages too, so links in the README stay as they are.
    '--no-rewrite-relative-links',
    '--allow-missing-repository',
    '--skip-license',
  ];
  const child = spawn(process.execPath, [vsce, 'package', ...options, '--out', vsix], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = await collect(child);
  if (child.exitCode !== 0) throw new Error(`the extension could not be packaged:\n${output}`);
  return vsix;
}

/** Runs esbuild.mjs; its output goes to standard error. */
export function buildBundles(args = []) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(root, 'esbuild.mjs'), ...args], {
      stdio: ['ignore', 2, 2],
    });
    child.on('error', reject);
    child.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`esbuild.mjs ended with ${code}`)),
    );
  });
}

export { step };
