/**
 * Drives VS Code's workbench through its screen, as a person does: keys, clicks, and what can be read.
 * Selectors are the workbench's own class names and ARIA roles; they are all in this file.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Browser, FrameLocator, Locator, Page } from 'playwright-core';
import { chromium } from 'playwright-core';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** A row or tab of that name: not of a longer one, nor of a comparison the file is part of. */
const labelled = (name: string): RegExp =>
  new RegExp(`^\\s*${name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')}(?!-|\\s*↔)`);

/** Screens large enough that nothing under test is hidden behind a fold. */
const VIEWPORT = { width: 1600, height: 1000 };

export class Workbench {
  readonly page: Page;
  private readonly browser: Browser;
  private readonly artifacts: string;
  /** What the browser's console said, for failures. */
  readonly log: string[] = [];

  private constructor(browser: Browser, page: Page, artifacts: string) {
    this.browser = browser;
    this.page = page;
    this.artifacts = artifacts;
    page.on('console', (message) => this.log.push(`${message.type()}: ${message.text()}`));
    page.on('pageerror', (error) => this.log.push(`page error: ${error.message}`));
  }

  /** Opens the workbench at `url` and waits until it can be used. */
  static async open(url: string, executablePath: string, artifacts: string): Promise<Workbench> {
    mkdirSync(artifacts, { recursive: true });
    const browser = await chromium.launch({ executablePath, args: FLAGS });
    const context = await browser.newContext({ viewport: VIEWPORT });
    await context.grantPermissions(['clipboard-read', 'clipboard-write']);
    const page = await context.newPage();
    const workbench = new Workbench(browser, page, artifacts);
    page.setDefaultTimeout(30_000);
    await page.goto(url);
    await page.locator('.monaco-workbench').waitFor({ timeout: 60_000 });
    await page.locator('.explorer-folders-view .monaco-list-row').first().waitFor({ timeout: 60_000 });
    return workbench;
  }

  async close(): Promise<void> {
    await this.browser.close();
  }

  /** Saves the screen as `<name>.png` among the test's artefacts. */
  async screenshot(name: string): Promise<void> {
    // Hovers and toasts fade in; nothing on the screen says when they have.
    await this.page.waitForTimeout(400);
    await this.page.screenshot({ path: join(this.artifacts, `${name}.png`) });
  }

  /** Runs a command by the title the command palette shows. */
  async command(title: string): Promise<void> {
    const input = this.page.locator('.quick-input-widget input[type="text"]').first();
    await this.page.keyboard.press('F1');
    await input.waitFor();
    await input.fill(`>${title}`);
    const row = this.page.locator('.quick-input-list .monaco-list-row', { hasText: title }).first();
    await row.waitFor();
    // The command may open a quick input of its own: nothing to wait for here.
    await row.click();
  }

  /** Chooses an entry of the quick pick with this title. */
  async pick(title: string, text: string): Promise<void> {
    const widget = this.page.locator('.quick-input-widget', {
      has: this.page.locator(`.quick-input-title:text-is("${title}")`),
    });
    const row = widget.locator('.monaco-list-row', { hasText: text }).first();
    await row.waitFor();
    await row.click();
  }

  /** Opens a file of the workspace by (part of) its path. */
  async openFile(path: string): Promise<void> {
    const name = path.split('/').at(-1)!;
    await this.quickInput('Control+P', path, labelled(name));
    await this.tab(name).waitFor();
  }

  tab(name: string): Locator {
    return this.page.locator('.tabs-container .tab', { hasText: labelled(name) }).first();
  }

  /** Contents of the webview in front. */
  webview(): FrameLocator {
    return this.page.frameLocator('iframe.webview.ready:visible').frameLocator('iframe#active-frame');
  }

  /** The text editor in front. */
  editor(): Locator {
    return this.page.locator('.editor-group-container.active .monaco-editor').first();
  }

  /** Puts the cursor on a line (1-based) of the text editor in front. */
  async goToLine(line: number): Promise<void> {
    await this.quickInput('Control+G', `:${line}:1`, new RegExp(`line ${line}\\b`));
  }

  /** Opens the quick input by `keys`, types, and takes the first entry that matches. */
  private async quickInput(keys: string, text: string, entry: RegExp | string): Promise<void> {
    const widget = this.page.locator('.quick-input-widget');
    const row = widget.locator('.monaco-list-row', { hasText: entry }).first();
    for (let attempt = 1; ; attempt++) {
      await this.page.keyboard.press(keys);
      try {
        const input = widget.locator('input[type="text"]').first();
        await input.waitFor({ timeout: 5_000 });
        await input.fill(text);
        await row.waitFor({ timeout: 10_000 });
        await row.click();
        await widget.waitFor({ state: 'hidden', timeout: 5_000 });
        // Where it clicked there may be something with a hover of its own now.
        await this.page.mouse.move(5, 5);
        return;
      } catch (error) {
        if (attempt === 3) throw error;
        // A slow machine: the list was of the input before. Start over.
        await this.page.keyboard.press('Escape');
      }
    }
  }

  /** Rests the mouse on something until a hover says what `accept` takes; gives its text. */
  async hoverOver(target: Locator, accept: RegExp): Promise<string> {
    const hover = this.page.locator('.monaco-hover:not(.hidden) .hover-contents').first();
    for (let attempt = 0; ; attempt++) {
      // A hover appears when the mouse comes to rest, not when it is there already.
      await this.page.mouse.move(5, 5);
      await target.hover();
      const deadline = Date.now() + 4_000;
      while (Date.now() < deadline) {
        const text = await hover.innerText({ timeout: 500 }).catch(() => '');
        if (accept.test(text)) return text;
        await this.page.waitForTimeout(100);
      }
      if (attempt === 4) throw new Error(`no hover that matches ${accept}`);
    }
  }

  /** A view of the side bar by its title, e.g. `VMSA`. */
  pane(title: string): Locator {
    return this.page.locator('.split-view-view .pane', {
      has: this.page.locator(`.pane-header h3.title:text-is("${title}")`),
    });
  }

  /** Drags the side bar wider, so that long rows can be read. */
  async widenSideBar(pixels: number): Promise<void> {
    const box = await this.page.locator('.part.sidebar').boundingBox();
    if (!box) throw new Error('no side bar');
    const [x, y] = [box.x + box.width + 1, box.y + box.height / 2];
    await this.page.mouse.move(x, y);
    await this.page.mouse.down();
    await this.page.mouse.move(x + pixels, y, { steps: 4 });
    await this.page.mouse.up();
  }

  /** Expands a view of the side bar. */
  async expandPane(title: string): Promise<Locator> {
    const pane = this.pane(title);
    await pane.waitFor();
    const header = pane.locator('.pane-header').first();
    if ((await header.getAttribute('aria-expanded')) !== 'true') await header.click();
    return pane;
  }

  async collapsePane(title: string): Promise<void> {
    const header = this.pane(title).locator('.pane-header').first();
    await header.waitFor();
    if ((await header.getAttribute('aria-expanded')) === 'true') await header.click();
  }

  /** Rows of a tree in a view, as text in one line each. */
  async rows(pane: Locator): Promise<string[]> {
    const rows = await pane.locator('.monaco-list-row').evaluateAll((elements) =>
      elements.map((element) => {
        const texts: string[] = [];
        const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
        for (let node = walker.nextNode(); node; node = walker.nextNode())
          // Buttons of a row are not what it says.
          if (!node.parentElement?.closest('.actions, .action-item')) texts.push(node.textContent ?? '');
        return texts.join(' ');
      }),
    );
    return rows.map((row) => row.replace(/\s+/g, ' ').trim());
  }

  /** Expands a row of a tree. */
  async expandRow(pane: Locator, text: string): Promise<void> {
    const row = pane.locator('.monaco-list-row', { hasText: text }).first();
    await row.waitFor();
    if ((await row.getAttribute('aria-expanded')) === 'false')
      await row.locator('.monaco-tl-twistie').click();
  }

  async clipboard(): Promise<string> {
    return this.page.evaluate(() => navigator.clipboard.readText());
  }

  /** Messages in the corner of the screen. */
  notification(text: string | RegExp): Locator {
    return this.page.locator('.notification-toast', { hasText: text }).first();
  }

  async dismissNotifications(): Promise<void> {
    await this.command('Notifications: Clear All Notifications');
  }

  /** F5. Right after the workbench has opened the key only shows the debug view: then once more. */
  async startDebugging(): Promise<void> {
    const running = this.page.locator('.sidebar .codicon-debug-stop');
    await this.page.waitForTimeout(4_000);
    for (let attempt = 0; attempt < 5; attempt++) {
      await this.page.keyboard.press('F5');
      const started = await running
        .first()
        .waitFor({ timeout: 10_000 })
        .then(
          () => true,
          () => false,
        );
      if (started) return;
    }
    throw new Error('F5 starts no debug session');
  }

  /** A button of the debug toolbar, e.g. `step-out`. */
  async debugButton(name: string): Promise<void> {
    await this.page.locator(`.sidebar .codicon-debug-${name}`).first().click();
  }

  /** Sets or removes a breakpoint on a line (1-based) of the text editor in front. */
  async toggleBreakpoint(line: number): Promise<void> {
    await this.goToLine(line);
    await this.page.keyboard.press('F9');
  }

  /** `function file line` of the frame the debugger shows, once it is one that `accept` takes. */
  async stoppedIn(accept: RegExp): Promise<string> {
    const frame = this.pane('Call Stack')
      .locator('.monaco-list-row.selected, .monaco-list-row .stack-frame')
      .first();
    const read = async () =>
      (await frame.innerText({ timeout: 1_000 }).catch(() => '')).replace(/\s+/g, ' ').trim();
    return this.until(`a stop in ${accept}`, read, (text) => accept.test(text), 60_000);
  }

  /** Everything the debug console shows. */
  async console(): Promise<string> {
    const lines = await this.page.locator('.repl .monaco-list-row').allInnerTexts();
    return lines.join('\n');
  }

  /** Waits until `read` gives what `accept` takes; what it gave last is in the error. */
  async until<T>(
    what: string,
    read: () => Promise<T>,
    accept: (value: T) => boolean,
    timeout = 30_000,
  ): Promise<T> {
    const deadline = Date.now() + timeout;
    for (;;) {
      const value = await read();
      if (accept(value)) return value;
      if (Date.now() > deadline)
        throw new Error(`${what} did not happen; last seen: ${JSON.stringify(value)}`);
      await this.page.waitForTimeout(100);
    }
  }
}
