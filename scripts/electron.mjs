// `npm run test:electron`: the packaged extension in a VS Code that @vscode/test-electron downloads. For
// machines that can reach update.code.visualstudio.com; elsewhere the journeys of test/journey do this.
//   npm run test:electron -- [--version 1.91.0]
import { downloadAndUnzipVSCode, resolveCliArgsFromVSCodeExecutablePath } from '@vscode/test-electron';
import { spawnSync } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { packageExtension } from './workbench.mjs';

const { values } = parseArgs({ options: { version: { type: 'string', default: 'stable' } } });
const executable = await downloadAndUnzipVSCode(values.version);
const [cli, ...args] = resolveCliArgsFromVSCodeExecutablePath(executable);
const profile = mkdtempSync(join(tmpdir(), 'cvm-electron-'));
const vsix = await packageExtension();

/** Runs VS Code's command line and gives its output; ends the script when it fails. */
function code(...more) {
  const result = spawnSync(cli, [...args, '--user-data-dir', profile, ...more], {
    encoding: 'utf8',
    shell: process.platform === 'win32',
  });
  if (result.status !== 0) {
    console.error(result.stdout, result.stderr, result.error ?? '');
    process.exit(1);
  }
  return result.stdout;
}

code('--install-extension', vsix, '--force');
const installed = code('--list-extensions', '--show-versions');
if (!/confidential-guest-debugger@/.test(installed)) {
  console.error(`the extension is not among the installed ones:\n${installed}`);
  process.exit(1);
}
console.log(`${executable}: installs and lists the extension:\n${installed}`);
