import type { DebugAdapter } from 'vscode';
import type { BaseLanguageClient, LanguageClientOptions } from 'vscode-languageclient';

/** What differs between VS Code's Node extension host and its web worker. */
export interface Platform {
  /** The language server of `listing/`, not yet started. */
  languageClient(options: LanguageClientOptions): BaseLanguageClient;
  /** A debug adapter with its machine in a worker of its own. */
  debugAdapter(): DebugAdapter;
}
