import * as vscode from 'vscode';
import { sourceOfListing } from '../listing/index.ts';
import { SUMMARY_EDITOR } from './view-types.ts';

/** The IGVM file a URI is about: a listing's source, or the URI itself. */
export function toImage(uri: vscode.Uri | undefined): vscode.Uri | undefined {
  if (!(uri instanceof vscode.Uri)) return undefined;
  const source = sourceOfListing(uri.toString());
  return source === undefined ? uri : vscode.Uri.parse(source, true);
}

/** The IGVM file whose summary or listing is in front. */
export function activeImage(): vscode.Uri | undefined {
  const input = vscode.window.tabGroups.activeTabGroup.activeTab?.input;
  if (input instanceof vscode.TabInputCustom && input.viewType === SUMMARY_EDITOR) return input.uri;
  if (input instanceof vscode.TabInputText && sourceOfListing(input.uri.toString()))
    return toImage(input.uri);
  return undefined;
}

/** IGVM files of the workspace, or one from a dialog. */
export async function pickImage(title: string): Promise<vscode.Uri | undefined> {
  const found = await vscode.workspace.findFiles('**/*.igvm', '**/node_modules/**', 200);
  const browse = { label: 'Browse…', file: undefined };
  const items = found.map((file) => ({ label: vscode.workspace.asRelativePath(file), file }));
  items.sort((a, b) => a.label.localeCompare(b.label));
  if (items.length > 0) {
    const chosen = await vscode.window.showQuickPick([...items, browse], { title });
    if (!chosen) return undefined;
    if (chosen.file) return chosen.file;
  }
  const picked = await vscode.window.showOpenDialog({ title, filters: { 'IGVM files': ['igvm'] } });
  return picked?.[0];
}
