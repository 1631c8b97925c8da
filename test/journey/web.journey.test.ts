/**
 * The browser bundles: the same extension in VS Code's web worker extension host, its language server and
 * its machine in workers of the browser. Nothing of ours runs in Node here.
 */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, onTestFailed } from 'vitest';
import { root } from '../../scripts/workbench.mjs';
import { lineOf, runJourneys, startJourney } from './workspace.ts';
import type { Journey } from './workspace.ts';

const EXTENSION = 'confidential-guest-debugger.confidential-guest-debugger';

const journeys = () => {
  let journey: Journey;

  beforeAll(async () => {
    journey = await startJourney(join(root, 'samples'), { 'remote.extensionKind': { [EXTENSION]: ['web'] } });
  }, 300_000);
  afterAll(async () => {
    await journey?.close();
  });

  const failing = () =>
    onTestFailed(async ({ task }) =>
      journey.workbench.screenshot(`failed-web-${task.name.replace(/\W+/g, '-')}`),
    );

  it('runs in the web worker', async () => {
    failing();
    const { workbench } = journey;
    await workbench.openFile('mini-svsm/mini-svsm.igvm');
    await workbench.webview().locator('.digest code').first().waitFor();
    await workbench.command('Developer: Show Running Extensions');
    const row = workbench.page.locator('.extension', { hasText: 'Confidential Guest Debugger' }).first();
    await workbench.until(
      'the host',
      () => row.innerText(),
      (text) => /web worker/.test(text),
    );
    await workbench.page.keyboard.press('Escape');
  });

  it('debugs the sample guest, by its source, to its end', async () => {
    failing();
    const { workbench } = journey;
    await workbench.openFile('src/main.rs');
    await workbench.startDebugging();
    await workbench.stoppedIn(/startup_32/);
    // Paths are URIs here, in the debug information's map as in the breakpoint.
    await workbench.openFile('src/main.rs');
    await workbench.toggleBreakpoint(lineOf('main.rs', 'launch::read_launch_parameters()'));
    await workbench.page.keyboard.press('F5');
    await workbench.stoppedIn(/svsm_main main\.rs/);
    await workbench.page.keyboard.press('F5');
    const text = await workbench.until(
      'the end',
      () => workbench.console(),
      (shown) => shown.includes('[9] success') && /exit code 33/.test(shown),
    );
    expect(text).toContain('mini-svsm: a small SVSM');
    await workbench.screenshot('web-end');
  });
};

await runJourneys('in the browser', journeys);
