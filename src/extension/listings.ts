import * as vscode from 'vscode';
import { State } from 'vscode-languageclient';
import type { BaseLanguageClient } from 'vscode-languageclient';
import {
  AddressRequest,
  ChangedNotification,
  LISTING_LANGUAGE,
  LISTING_SCHEME,
  ListingRequest,
  ReadFileRequest,
  SummaryRequest,
  listingUri,
  sourceOfListing,
} from '../listing/index.ts';
import type {
  AddressResult,
  IgvmSummary,
  ListingResult,
  ReadFileParams,
  ReadFileResult,
} from '../listing/index.ts';
import type { Platform } from './platform.ts';

/** What the rest of the extension asks about IGVM files; answered by the language server. */
export interface Images {
  summary(file: vscode.Uri): Promise<IgvmSummary>;
  /** The listing's URI; open it as a text document. */
  listing(file: vscode.Uri): vscode.Uri;
  /** Line of the listing that has a guest-physical address. */
  lineOfAddress(file: vscode.Uri, address: string): Promise<number | undefined>;
  /** Fires with the URI of an IGVM file whose bytes changed. */
  readonly onDidChange: vscode.Event<vscode.Uri>;
}

/** The language client (started on first use), the listing documents, and watching for changes. */
export function registerListings(context: vscode.ExtensionContext, platform: Platform): Images {
  let started: Promise<BaseLanguageClient> | undefined;
  const client = () => (started ??= start());

  async function start(): Promise<BaseLanguageClient> {
    const created = platform.languageClient({
      documentSelector: [{ scheme: LISTING_SCHEME, language: LISTING_LANGUAGE }],
      outputChannelName: 'IGVM listings',
    });
    created.onRequest(ReadFileRequest, readForServer);
    context.subscriptions.push({
      dispose: () => {
        if (created.state === State.Running) void created.stop();
      },
    });
    try {
      await created.start();
      return created;
    } catch (error) {
      started = undefined;
      throw error;
    }
  }

  const changed = new vscode.EventEmitter<vscode.Uri>();
  const listingChanged = new vscode.EventEmitter<vscode.Uri>();
  const listing = (file: vscode.Uri) => vscode.Uri.parse(listingUri(file.toString()), true);
  const watcher = vscode.workspace.createFileSystemWatcher('**/*.igvm');
  const invalidate = async (file: vscode.Uri) => {
    if (started) await (await started).sendNotification(ChangedNotification, { uri: file.toString() });
    changed.fire(file);
    listingChanged.fire(listing(file));
  };
  context.subscriptions.push(
    changed,
    listingChanged,
    watcher,
    watcher.onDidChange(invalidate),
    watcher.onDidCreate(invalidate),
    vscode.workspace.registerTextDocumentContentProvider(LISTING_SCHEME, {
      onDidChange: listingChanged.event,
      provideTextDocumentContent: async (uri) => {
        const source = sourceOfListing(uri.toString());
        if (source === undefined) throw new Error(`${uri.toString()} names no IGVM file`);
        const result = await (await client()).sendRequest<ListingResult>(ListingRequest, { uri: source });
        return result.text;
      },
    }),
  );

  return {
    summary: async (file) =>
      (await client()).sendRequest<IgvmSummary>(SummaryRequest, { uri: file.toString() }),
    lineOfAddress: async (file, address) =>
      (await (await client()).sendRequest<AddressResult>(AddressRequest, { uri: file.toString(), address }))
        .line,
    listing,
    onDidChange: changed.event,
  };
}

/** The server reads `file:` paths itself; everything else comes through VS Code's file systems. */
async function readForServer({ uri, maxBytes }: ReadFileParams): Promise<ReadFileResult> {
  const file = vscode.Uri.parse(uri, true);
  const { size } = await vscode.workspace.fs.stat(file);
  if (size > maxBytes) throw new Error(`${uri} has ${size} bytes; the limit here is ${maxBytes}`);
  const bytes = await vscode.workspace.fs.readFile(file);
  let binary = '';
  for (let i = 0; i < bytes.length; i += 0x8000)
    binary += String.fromCharCode(...bytes.subarray(i, i + 0x8000));
  return { base64: btoa(binary) };
}
