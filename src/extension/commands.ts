import * as vscode from 'vscode';
import { activeImage, pickImage, toImage } from './active-image.ts';
import { configurationFor } from './configurations.ts';
import type { Images } from './listings.ts';
import { SUMMARY_EDITOR } from './view-types.ts';

/** Commands of the palette, the explorer's menu and the editors' title bars. */
export function registerCommands(context: vscode.ExtensionContext, images: Images): void {
  const command = (id: string, run: (...args: never[]) => unknown) =>
    context.subscriptions.push(vscode.commands.registerCommand(id, run));

  command('cvm.debugFile', async (given?: vscode.Uri) => {
    const file = await imageFor(given);
    if (!file) return;
    const folder = vscode.workspace.getWorkspaceFolder(file);
    await vscode.debug.startDebugging(folder, configurationFor(file, folder));
  });

  command('cvm.openListing', async (given?: vscode.Uri, line?: number) => {
    const file = await imageFor(given);
    if (!file) return;
    const document = await vscode.workspace.openTextDocument(images.listing(file));
    const at = typeof line === 'number' ? new vscode.Range(line, 0, line, 0) : undefined;
    await vscode.window.showTextDocument(document, { preview: false, selection: at });
  });

  command('cvm.goToAddress', async (given?: vscode.Uri) => {
    const file = await imageFor(given);
    if (!file) return;
    const address = await vscode.window.showInputBox({
      title: 'Go to guest-physical address',
      prompt: `An address in ${baseName(file)}, in hexadecimal`,
      placeHolder: '0xfffff000',
    });
    if (!address) return;
    const line = await images.lineOfAddress(file, address);
    if (line === undefined)
      void vscode.window.showWarningMessage(`${baseName(file)} has no directive for address ${address}`);
    else await vscode.commands.executeCommand('cvm.openListing', file, line);
  });

  command('cvm.openSummary', async (given?: vscode.Uri) => {
    const file = await imageFor(given);
    if (file) await vscode.commands.executeCommand('vscode.openWith', file, SUMMARY_EDITOR);
  });

  command('cvm.copyDigest', async (given?: vscode.Uri, mask?: number) => {
    const file = await imageFor(given);
    if (!file) return;
    const { platforms } = await images.summary(file);
    const measured = platforms.filter(
      (platform) => platform.digest && (typeof mask !== 'number' || platform.mask === mask),
    );
    if (measured.length === 0) {
      const why = platforms.find((platform) => platform.digestProblem)?.digestProblem;
      void vscode.window.showWarningMessage(
        `${baseName(file)} has no launch digest: ${why ?? 'it declares no platform that is measured'}`,
      );
      return;
    }
    const chosen =
      measured.length === 1
        ? measured[0]
        : (
            await vscode.window.showQuickPick(
              measured.map((platform) => ({
                label: platform.title,
                description: platform.digest,
                platform,
              })),
              { title: `Launch digest of ${baseName(file)}` },
            )
          )?.platform;
    if (!chosen?.digest) return;
    await vscode.env.clipboard.writeText(chosen.digest);
    void vscode.window.showInformationMessage(
      `Copied the ${chosen.title} launch digest of ${baseName(file)}: ${chosen.digest.slice(0, 16)}…`,
    );
  });

  command('cvm.compareListings', async (_clicked?: vscode.Uri, selected?: vscode.Uri[]) => {
    const files = selected?.filter((file) => file.path.endsWith('.igvm')) ?? [];
    const [left, right] = files.length === 2 ? files : [await pickImage('Compare'), await pickImage('with')];
    if (!left || !right) return;
    await vscode.commands.executeCommand(
      'vscode.diff',
      images.listing(left),
      images.listing(right),
      `${baseName(left)} ↔ ${baseName(right)}`,
    );
  });

  command('cvm.copyFieldValue', async (item?: { readonly value?: string }) => {
    if (item?.value) await vscode.env.clipboard.writeText(item.value);
  });
}

const baseName = (file: vscode.Uri) => file.path.split('/').at(-1) ?? file.path;

/** The file a command is about: its argument, the active editor's, or one picked by the user. */
async function imageFor(given: vscode.Uri | undefined): Promise<vscode.Uri | undefined> {
  return toImage(given) ?? activeImage() ?? (await pickImage(`Choose an IGVM file`));
}
