/**
 * The VS Code side: activation, commands, the `.igvm` editor, the listing documents, the debug
 * configuration and the views. Thin: everything it shows comes from `listing/` through the language
 * server and from `debugger/` through the debug adapter protocol. It never parses an image itself.
 */
import type { ExtensionContext } from 'vscode';
import { registerCommands } from './commands.ts';
import { registerDebugging } from './debugging.ts';
import { registerListings } from './listings.ts';
import { registerPagesView } from './pages-view.ts';
import type { Platform } from './platform.ts';
import { registerSummaryEditor } from './summary-editor.ts';
import { registerVmsaView } from './vmsa-view.ts';

/** Called by both entry points, `main.ts` (Node) and `web.ts` (browser). */
export function activateExtension(context: ExtensionContext, platform: Platform): void {
  const images = registerListings(context, platform);
  registerSummaryEditor(context, images);
  const sessions = registerDebugging(context, platform);
  registerVmsaView(context, sessions);
  registerPagesView(context, sessions);
  registerCommands(context, images);
}
