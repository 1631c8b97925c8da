// `npm start`: builds and packages the extension, opens samples/ in a real VS Code workbench.
//   npm start                 code-server in the browser, on 127.0.0.1 (the default on Linux)
//   npm start -- --desktop    the installed `code` (the default on macOS and Windows)
//   npm start -- --browser    code-server on macOS and Windows
//   npm start -- --port N     a port of your choice (browser only; default 8137)
import { spawn } from 'node:child_process';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { buildBundles, freePort, packageExtension, root, startWorkbench, step } from './workbench.mjs';

const DEFAULT_PORT = 8137;
const log = process.stderr;

const { values } = parseArgs({
  options: {
    desktop: { type: 'boolean' },
    browser: { type: 'boolean' },
    port: { type: 'string' },
    help: { type: 'boolean', short: 'h' },
  },
});
if (values.help) {
  console.log('npm start [-- [--desktop | --browser] [--port N]]');
  process.exit(0);
}
const port = values.port === undefined ? undefined : Number(values.port);
if (port !== undefined && !(Number.isInteger(port) && port > 0 && port < 65536)) {
  console.error(`--port ${values.port} is not a port number`);
  process.exit(2);
}
const desktop = values.desktop ?? (values.browser ? false : process.platform !== 'linux');
const workspace = join(root, 'samples');

/** Runs the installed editor; `code` is a shell script or a .cmd. */
function code(args) {
  return new Promise((resolve, reject) => {
    const child = spawn('code', args, { stdio: 'inherit', shell: process.platform === 'win32' });
    child.on('error', (error) =>
      reject(
        new Error(
          `cannot run "code" (${error.message}): install VS Code and its "code" command, or use npm start -- --browser`,
        ),
      ),
    );
    child.on('exit', (status) =>
      status === 0 ? resolve() : reject(new Error(`code ${args[0]} ended with ${status}`)),
    );
  });
}

try {
  await step(log, 'Building', () => buildBundles());
  const vsix = await step(log, 'Packaging', packageExtension);
  if (desktop) {
    await code(['--install-extension', vsix, '--force']);
    await code([workspace]);
    console.log('VS Code is open on samples/. Press F5 there to debug the sample guest.');
  } else {
    const profile = join(root, '.cache/profile');
    await rm(join(profile, 'extensions'), { recursive: true, force: true });
    const workbench = await startWorkbench({
      vsix,
      profile,
      port: port ?? (await freePort(DEFAULT_PORT)),
      log,
    });
    console.log(`\n  Open ${workbench.url(workspace)}\n`);
    console.log('  Press F5 there to debug the sample guest. Ctrl-C here stops the workbench.');
    let stopping = false;
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
      process.on(signal, () => {
        if (stopping) return;
        stopping = true;
        void workbench.stop();
      });
    await workbench.exited;
    if (!stopping) {
      console.error(`The workbench ended by itself:\n${workbench.output()}`);
      process.exitCode = 1;
    }
    // Pending I/O of a stopped child must not keep us alive.
    process.exit();
  }
} catch (error) {
  console.error(`npm start: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 1;
}
