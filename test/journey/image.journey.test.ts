/** Opening an image: summary, listing, hover, digest to the clipboard. In a real VS Code. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it, onTestFailed } from 'vitest';
import { sampleDigests, sampleImage } from '../listing/sample.ts';
import { runJourneys, startJourney } from './workspace.ts';
import type { Journey } from './workspace.ts';

const journeys = () => {
  let journey: Journey;
  let source: string;

  beforeAll(async () => {
    source = mkdtempSync(join(tmpdir(), 'cvm-images-'));
    mkdirSync(join(source, 'guests'));
    writeFileSync(join(source, 'guests/first.igvm'), sampleImage());
    writeFileSync(
      join(source, 'guests/second.igvm'),
      sampleImage({ patch: (bytes) => (bytes[4096] = 0x90) }),
    );
    journey = await startJourney(source);
  }, 300_000);

  afterAll(async () => {
    await journey?.close();
    rmSync(source, { recursive: true });
  });

  const failing = () =>
    onTestFailed(async ({ task }) =>
      journey.workbench.screenshot(`failed-${task.name.replace(/\W+/g, '-')}`),
    );
  const digest = sampleDigests().get('0xfffffffff000')!;

  it('shows the summary with the launch digest', async () => {
    failing();
    const { workbench } = journey;
    await workbench.openFile('guests/first.igvm');
    const page = workbench.webview();
    await page.locator('h1', { hasText: 'first.igvm' }).waitFor();
    expect((await page.locator('.digest code').first().innerText()).replace(/\s/g, '')).toBe(digest);
    expect(await page.locator('.problem.error').count()).toBe(0);
    await workbench.screenshot('summary');
  });

  it('copies the launch digest', async () => {
    failing();
    const { workbench } = journey;
    await workbench.webview().locator('.digest button').first().click();
    await workbench.notification(/Copied the SEV-SNP launch digest/).waitFor();
    expect(await workbench.clipboard()).toBe(digest);
    await workbench.dismissNotifications();
  });

  it('opens the listing and shows the running digest over a directive', async () => {
    failing();
    const { workbench } = journey;
    await workbench.webview().locator('.actions [data-command=listing]').click();
    await workbench.tab('first.igvm-listing').waitFor();
    const editor = workbench.editor();
    await editor.locator('.view-line', { hasText: 'VP_CONTEXT' }).waitFor();
    const row = editor.locator('.view-line', { hasText: '0x000000802000' });
    const hover = await workbench.hoverOver(row.locator('span span').first(), /launch digest/);
    expect(hover.replace(/\s/g, '')).toContain(sampleDigests().get('0x802000'));
    await workbench.screenshot('listing-hover');
    await workbench.page.keyboard.press('Escape');
  });

  it('decodes the save area in the hover of a processor', async () => {
    failing();
    const { workbench } = journey;
    const row = workbench.editor().locator('.view-line', { hasText: 'VP_CONTEXT' });
    const hover = await workbench.hoverOver(row.locator('span span').first(), /VP_CONTEXT[^]*\brip\b/);
    expect(hover).toContain('SNPActive');
    await workbench.screenshot('listing-vmsa');
    await workbench.page.keyboard.press('Escape');
  });

  it('compares two images in the diff editor, where one line differs', async () => {
    failing();
    const { workbench } = journey;
    await workbench.command('Confidential Guest: Compare IGVM listings');
    await workbench.pick('Compare', 'guests/first.igvm');
    await workbench.pick('with', 'guests/second.igvm');
    await workbench.tab('first.igvm ↔ second.igvm').waitFor();
    const marked = workbench.page.locator('.monaco-diff-editor .editor.modified .view-overlays .line-insert');
    await marked.first().waitFor();
    expect(await marked.count()).toBe(1);
    await workbench.screenshot('listing-diff');
  });

  it('follows a file that changes on disk', async () => {
    failing();
    const { workbench } = journey;
    await workbench.openFile('guests/second.igvm');
    const shown = workbench.webview().locator('.digest code').first();
    await shown.waitFor();
    expect((await shown.innerText()).replace(/\s/g, '')).not.toBe(digest);
    writeFileSync(join(journey.folder, 'guests/second.igvm'), sampleImage());
    await workbench.until(
      'the new digest',
      async () => (await workbench.webview().locator('.digest code').first().innerText()).replace(/\s/g, ''),
      (text) => text === digest,
    );
  });

  it('reports what is wrong with a damaged file', async () => {
    failing();
    const { workbench } = journey;
    writeFileSync(join(journey.folder, 'guests/damaged.igvm'), sampleImage().subarray(0, 300));
    await workbench.openFile('guests/damaged.igvm');
    await workbench.webview().locator('h1', { hasText: 'damaged.igvm' }).waitFor();
    await workbench.webview().locator('.problem.error').first().waitFor();
    await workbench.screenshot('summary-damaged');
  });
};

await runJourneys('opening an IGVM file', journeys);
