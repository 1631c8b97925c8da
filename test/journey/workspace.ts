/** A workbench of its own for a journey: packaged extension, fresh profile, a copy of a workspace. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ensureWorkbench, packageExtension, root, startWorkbench } from '../../scripts/workbench.mjs';
import { Workbench } from './driver.ts';

export interface Journey {
  readonly workbench: Workbench;
  /** The folder that is open. */
  readonly folder: string;
  close(): Promise<void>;
}

const BROWSERS = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  'C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe',
];

/** A Chromium to drive: `CVM_CHROMIUM`, or one where systems put it. */
const browser = (): string | undefined =>
  [process.env.CVM_CHROMIUM, ...BROWSERS].find(
    (path) => path !== undefined && path !== '' && existsSync(path),
  );

/**
 * Declares journeys where they can run. Elsewhere never silently: the reason is printed and is the name
 * of the one test there is, and with `CVM_REQUIRE_JOURNEYS=1` (continuous integration) that test fails.
 */
export async function runJourneys(name: string, journeys: () => void): Promise<void> {
  const reason = await obstacle();
  if (reason === undefined) {
    // A loaded machine of two cores is slow, not wrong.
    describe(name, { timeout: 180_000 }, journeys);
    return;
  }
  const bar = '!'.repeat(100);
  process.stderr.write(`\n${bar}\n!! IN-EDITOR TESTS DO NOT RUN: ${reason}\n${bar}\n\n`);
  it(`IN-EDITOR TESTS DO NOT RUN (${name}): ${reason}`, () => {
    expect(process.env.CVM_REQUIRE_JOURNEYS, reason).not.toBe('1');
  });
}

async function obstacle(): Promise<string | undefined> {
  if (!browser()) return 'no Chromium found (Debian: apt install chromium; or set CVM_CHROMIUM to its path)';
  try {
    await ensureWorkbench();
    return undefined;
  } catch (error) {
    return `the workbench could not be installed: ${error instanceof Error ? error.message : String(error)}`;
  }
}

/** Line (1-based) of a source file of the sample that has this text. */
export function lineOf(file: string, text: string): number {
  const lines = readFileSync(join(root, 'samples/mini-svsm/src', file), 'utf8').split('\n');
  const at = lines.findIndex((line) => line.includes(text));
  if (at < 0) throw new Error(`${file} has no line with ${text}`);
  return at + 1;
}

/** Screens are kept here, as artefacts of continuous integration. */
export const artifacts = join(root, 'test-artifacts');

/** Copies `workspace` to a temporary folder and opens it. The bundles must have been built. */
export async function startJourney(
  workspace: string,
  settings: Readonly<Record<string, unknown>> = {},
): Promise<Journey> {
  const temporary = mkdtempSync(join(tmpdir(), 'cvm-journey-'));
  const folder = join(temporary, 'samples');
  await cp(workspace, folder, { recursive: true, filter: (path) => !/[\\/]target([\\/]|$)/.test(path) });
  const server = await startWorkbench({
    vsix: await packageExtension(),
    profile: join(temporary, 'profile'),
    settings: { 'workbench.colorTheme': 'Default Dark Modern', 'workbench.reduceMotion': 'on', ...settings },
  });
  try {
    const workbench = await Workbench.open(server.url(folder), browser()!, artifacts);
    return {
      workbench,
      folder,
      close: async () => {
        await workbench.close();
        await server.stop();
        rmSync(temporary, { recursive: true, force: true });
      },
    };
  } catch (error) {
    await server.stop();
    throw error;
  }
}
