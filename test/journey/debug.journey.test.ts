/** Debugging the sample guest from its first instruction to its end. In a real VS Code. */
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, onTestFailed } from 'vitest';
import { root } from '../../scripts/workbench.mjs';
import { lineOf, runJourneys, startJourney } from './workspace.ts';
import type { Journey } from './workspace.ts';

const samples = join(root, 'samples');

const journeys = () => {
  let journey: Journey;

  beforeAll(async () => {
    journey = await startJourney(samples);
  }, 300_000);
  afterAll(async () => {
    await journey?.close();
  });

  const failing = () =>
    onTestFailed(async ({ task }) =>
      journey.workbench.screenshot(`failed-${task.name.replace(/\W+/g, '-')}`),
    );

  it('shows the sample image', async () => {
    failing();
    const { workbench } = journey;
    await workbench.openFile('mini-svsm/mini-svsm.igvm');
    await workbench.webview().locator('.digest code').first().waitFor();
    await workbench.screenshot('sample-summary');
    await workbench.webview().locator('.actions [data-command=listing]').click();
    await workbench.tab('mini-svsm.igvm-listing').waitFor();
    const row = workbench.editor().locator('.view-line', { hasText: 'VP_CONTEXT' });
    await workbench.hoverOver(row.locator('span span').first(), /\brip\b/);
    await workbench.screenshot('sample-listing');
    await workbench.page.keyboard.press('Escape');
    await workbench.tab('mini-svsm.igvm').click();
  });

  it('F5 on the image launches it by its launch configuration and stops at its first instruction', async () => {
    failing();
    const { workbench } = journey;
    await workbench.startDebugging();
    expect(await workbench.stoppedIn(/startup_32/)).toContain(`${lineOf('entry.s', 'cli')}`);
    await workbench.tab('entry.s').waitFor();
    await workbench.widenSideBar(110);
    for (const pane of ['Watch', 'Loaded Scripts', 'Breakpoints']) await workbench.collapsePane(pane);
    await workbench.screenshot('debug-entry');
  });

  it('shows registers, and the save area of the processor as it was launched', async () => {
    failing();
    const { workbench } = journey;
    const variables = await workbench.expandPane('Variables');
    await workbench.until(
      'registers',
      () => workbench.rows(variables),
      (rows) => rows.some((row) => /^rax = /.test(row)),
    );
    const vmsa = await workbench.expandPane('VMSA');
    // The first instruction, in the state the image gives: rip of the VMSA is the entry point.
    await workbench.until(
      'the VMSA',
      () => workbench.rows(vmsa),
      (rows) => rows.includes('rip 0x100000'),
    );
  });

  it('stops at a breakpoint in the Rust source, with the stack and what the guest printed', async () => {
    failing();
    const { workbench } = journey;
    const line = lineOf('main.rs', 'launch::read_launch_parameters()');
    await workbench.openFile('src/main.rs');
    await workbench.toggleBreakpoint(line);
    await workbench.page.keyboard.press('F5');
    expect(await workbench.stoppedIn(/svsm_main/)).toMatch(new RegExp(`main\\.rs.*\\b${line}\\b`));
    await workbench.until(
      'the console',
      () => workbench.console(),
      (text) => text.includes('mini-svsm: a small SVSM'),
    );
    const vmsa = workbench.pane('VMSA');
    const rows = await workbench.until(
      'changed fields',
      () => workbench.rows(vmsa),
      (found) => found.some((row) => /^rip 0x[0-9a-f]+ \(was 0x100000\)/.test(row)),
    );
    expect(rows[0]).toBe('vCPU 0 · VMPL0');
    await workbench.screenshot('debug-breakpoint');
    await workbench.collapsePane('Variables');
    await workbench.screenshot('debug-vmsa');
  });

  it('steps over calls, by line', async () => {
    failing();
    const { workbench } = journey;
    const line = lineOf('main.rs', 'launch::read_launch_parameters()');
    for (const next of [line + 1, line + 2]) {
      await workbench.page.keyboard.press('F10');
      await workbench.stoppedIn(new RegExp(`svsm_main main\\.rs.*\\b${next}\\b`));
    }
  });

  it('steps into a function and out of it', async () => {
    failing();
    const { workbench } = journey;
    await workbench.page.keyboard.press('F11');
    await workbench.stoppedIn(/console::print/);
    await workbench.debugButton('step-out');
    await workbench.stoppedIn(/svsm_main/);
  });

  it('shows the pages the guest validated, gave to VMPL2, and made a save area of', async () => {
    failing();
    const { workbench } = journey;
    await workbench.openFile('src/main.rs');
    const line = lineOf('main.rs', 'guest::serve_request()');
    await workbench.toggleBreakpoint(line);
    await workbench.page.keyboard.press('F5');
    await workbench.stoppedIn(new RegExp(`main\\.rs.*\\b${line}\\b`));
    await workbench.until(
      'the VMPL2 guest among the threads',
      () => workbench.rows(workbench.pane('Call Stack')),
      (found) => found.some((row) => row.startsWith('vCPU 0 · VMPL2')),
    );
    // The whole side bar for the one view: rows out of sight are not on the screen.
    await workbench.collapsePane('VMSA');
    await workbench.collapsePane('Call Stack');
    const pages = await workbench.expandPane('Page State');
    const rows = await workbench.until(
      'page state',
      () => workbench.rows(pages),
      (found) => found.some((row) => /^vmsa /.test(row)) && found.some((row) => /^0x200000/.test(row)),
    );
    expect(rows.some((row) => /VMPL2 r/.test(row))).toBe(true);
    // The heap, validated as one page of 2 MiB.
    expect(
      rows.some((row) => /^0x200000.0x400000 2 MiB · 2M page/.test(row)),
      rows.join('\n'),
    ).toBe(true);
    await workbench.screenshot('debug-pages');
  });

  it('continues to the end of the guest', async () => {
    failing();
    const { workbench } = journey;
    await workbench.page.keyboard.press('F5');
    await workbench.until(
      'the end',
      () => workbench.console(),
      (text) => text.includes('[9] success') && /exit code 33/.test(text),
    );
    await workbench.screenshot('debug-end');
  });
};

await runJourneys('debugging the sample guest', journeys);
