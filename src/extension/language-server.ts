/** The process of the language server: LSP over the IPC channel VS Code opens. Node. */
import { ProposedFeatures, createConnection } from 'vscode-languageserver/node';
import { nodeHost } from '../base/node.ts';
import { startLanguageServer } from '../listing/index.ts';

startLanguageServer(createConnection(ProposedFeatures.all), nodeHost);
