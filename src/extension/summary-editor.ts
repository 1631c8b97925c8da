import * as vscode from 'vscode';
import type { Images } from './listings.ts';
import { renderProblem, renderSummary } from './summary-html.ts';
import { SUMMARY_EDITOR } from './view-types.ts';

/** Messages of the editor's page: `data-command` of the control that was clicked, and its argument. */
interface PageMessage {
  readonly command: 'listing' | 'digest' | 'debug';
  readonly argument?: number;
}

const COMMANDS: Readonly<Record<PageMessage['command'], string>> = {
  listing: 'cvm.openListing',
  digest: 'cvm.copyDigest',
  debug: 'cvm.debugFile',
};

/** The read-only custom editor of `.igvm` files. */
export function registerSummaryEditor(context: vscode.ExtensionContext, images: Images): void {
  context.subscriptions.push(
    vscode.window.registerCustomEditorProvider(
      SUMMARY_EDITOR,
      {
        openCustomDocument: (uri): vscode.CustomDocument => ({ uri, dispose: () => undefined }),
        resolveCustomEditor: (document, panel) => show(context, images, document.uri, panel),
      },
      { supportsMultipleEditorsPerDocument: true },
    ),
  );
}

async function show(
  context: vscode.ExtensionContext,
  images: Images,
  file: vscode.Uri,
  panel: vscode.WebviewPanel,
): Promise<void> {
  const media = vscode.Uri.joinPath(context.extensionUri, 'media');
  const { webview } = panel;
  webview.options = { enableScripts: true, localResourceRoots: [media] };
  const page = {
    cspSource: webview.cspSource,
    style: webview.asWebviewUri(vscode.Uri.joinPath(media, 'summary.css')).toString(),
    script: webview.asWebviewUri(vscode.Uri.joinPath(media, 'summary.js')).toString(),
    name: file.path.split('/').at(-1) ?? file.path,
  };
  const render = async () => {
    try {
      webview.html = renderSummary(await images.summary(file), page);
    } catch (error) {
      webview.html = renderProblem(error instanceof Error ? error.message : String(error), page);
    }
  };
  const listeners = [
    images.onDidChange((changed) => {
      if (changed.toString() === file.toString()) void render();
    }),
    webview.onDidReceiveMessage((message: PageMessage) => {
      const command = COMMANDS[message.command];
      if (command) void vscode.commands.executeCommand(command, file, message.argument);
    }),
  ];
  panel.onDidDispose(() => listeners.forEach((listener) => listener.dispose()));
  await render();
}
