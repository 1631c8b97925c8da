import {
  DiagnosticSeverity,
  DocumentDiagnosticReportKind,
  FoldingRangeKind,
  MarkupKind,
  ResponseError,
  SemanticTokensBuilder,
  SymbolKind,
  TextDocumentSyncKind,
} from 'vscode-languageserver';
import type {
  CodeLens,
  Connection,
  DocumentSymbol,
  InlayHint,
  Location,
  Range,
  SemanticTokens,
  WorkspaceSymbol,
} from 'vscode-languageserver';
import { CvmError } from '../base/index.ts';
import type { Host, Severity } from '../base/index.ts';
import { definitionLine } from './definition.ts';
import {
  TOKEN_TYPES,
  findAddress,
  inlayDigests,
  parseAddress,
  platformLenses,
  semanticTokens,
} from './features.ts';
import { hoverText } from './hover.ts';
import { imageDiagnostics, openImage } from './image.ts';
import type { Image } from './image.ts';
import { folds, outline } from './outline.ts';
import type { OutlineEntry, OutlineKind } from './outline.ts';
import { lineOfOffset } from './places.ts';
import {
  AddressRequest,
  ChangedNotification,
  ListingRequest,
  MAX_IGVM_BYTES,
  ReadFileRequest,
  SummaryRequest,
  listingUri,
  sourceOfListing,
} from './protocol.ts';
import type {
  AddressParams,
  AddressResult,
  FileParams,
  IgvmSummary,
  ListingResult,
  ReadFileResult,
} from './protocol.ts';
import { summarize } from './summary.ts';
import { renderListing } from './text.ts';
import type { Listing } from './text.ts';

/** How many files are kept open at once: each holds its bytes. */
const KEPT = 8;
const SERVER_ERROR = -32000;

interface Opened {
  readonly image: Image;
  readonly listing: Listing;
  readonly lines: readonly string[];
}

/**
 * Serves listings on a connection that the caller made (IPC, stdio, a worker's port) and starts it.
 * `file:` URIs are read through `host.files`, all others by asking the client (`cvm/readFile`).
 */
export function startLanguageServer(connection: Connection, host: Host): void {
  const opened = new Map<string, Promise<Opened>>();

  const open = (uri: string): Promise<Opened> => {
    const known = opened.get(uri);
    opened.delete(uri);
    const result =
      known ??
      read(uri).then((bytes) => {
        const image = openImage(bytes, host.crypto);
        const listing = renderListing(image.file, host.crypto);
        return { image, listing, lines: listing.text.split('\n') };
      });
    // Most recently used last; a failure is not remembered.
    opened.set(uri, result);
    result.catch(() => opened.get(uri) === result && opened.delete(uri));
    for (const oldest of opened.keys()) {
      if (opened.size <= KEPT) break;
      opened.delete(oldest);
    }
    return result;
  };

  const read = async (uri: string): Promise<Uint8Array> => {
    if (uri.startsWith('file:')) return host.files.readFile(uri, MAX_IGVM_BYTES);
    const params = { uri, maxBytes: MAX_IGVM_BYTES };
    const { base64 } = await connection.sendRequest<ReadFileResult>(ReadFileRequest, params);
    return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  };

  /** The image a listing document shows; `undefined` for any other document. */
  const behind = (uri: string): Promise<Opened> | undefined => {
    const source = sourceOfListing(uri);
    return source === undefined ? undefined : answer(open(source));
  };

  connection.onInitialize(() => ({
    serverInfo: { name: 'Confidential Guest Debugger' },
    capabilities: {
      textDocumentSync: { openClose: true, change: TextDocumentSyncKind.None },
      hoverProvider: true,
      documentSymbolProvider: true,
      foldingRangeProvider: true,
      definitionProvider: true,
      inlayHintProvider: true,
      codeLensProvider: {},
      workspaceSymbolProvider: true,
      semanticTokensProvider: {
        legend: { tokenTypes: [...TOKEN_TYPES], tokenModifiers: [] },
        full: true,
        range: true,
      },
      diagnosticProvider: { interFileDependencies: false, workspaceDiagnostics: false },
    },
  }));

  connection.onRequest(ListingRequest, async ({ uri }: FileParams): Promise<ListingResult> => {
    const { listing } = await answer(open(uri));
    return { text: listing.text };
  });

  connection.onRequest(SummaryRequest, async ({ uri }: FileParams): Promise<IgvmSummary> => {
    const { image, listing } = await answer(open(uri));
    return summarize(image, listing);
  });

  connection.onNotification(ChangedNotification, ({ uri }: FileParams) => {
    opened.delete(uri);
    connection.languages.diagnostics.refresh();
  });

  connection.onHover(async ({ textDocument, position }) => {
    const found = await behind(textDocument.uri);
    const value = found && hoverText(found.image, found.listing, position.line);
    return value === undefined
      ? null
      : { contents: { kind: MarkupKind.Markdown, value }, range: line(position.line) };
  });

  connection.onDocumentSymbol(async ({ textDocument }) => {
    const found = await behind(textDocument.uri);
    return found ? outline(found.image, found.listing).map(symbol) : [];
  });

  connection.onFoldingRanges(async ({ textDocument }) => {
    const found = await behind(textDocument.uri);
    if (!found) return [];
    return folds(found.listing).map(({ first, last }) => ({
      startLine: first,
      endLine: last,
      kind: FoldingRangeKind.Region,
    }));
  });

  connection.onDefinition(async ({ textDocument, position }): Promise<Location | null> => {
    const found = await behind(textDocument.uri);
    const target = found && definitionLine(found.image.file, found.listing, position.line);
    return target === undefined ? null : { uri: textDocument.uri, range: line(target) };
  });

  const tokens = (lines: readonly string[], first?: number, last?: number): SemanticTokens => {
    const builder = new SemanticTokensBuilder();
    for (const { line: at, start, length, type } of semanticTokens(lines, first, last))
      builder.push(at, start, length, type, 0);
    return builder.build();
  };
  connection.languages.semanticTokens.on(async ({ textDocument }) => {
    const found = await behind(textDocument.uri);
    return found ? tokens(found.lines) : { data: [] };
  });
  connection.languages.semanticTokens.onRange(async ({ textDocument, range }) => {
    const found = await behind(textDocument.uri);
    return found ? tokens(found.lines, range.start.line, range.end.line) : { data: [] };
  });

  connection.languages.inlayHint.on(async ({ textDocument, range }): Promise<InlayHint[]> => {
    const found = await behind(textDocument.uri);
    if (!found) return [];
    return inlayDigests(found.image, found.listing, range.start.line, range.end.line).map(
      ({ line: at, label, tooltip }) => ({
        position: { line: at, character: found.lines[at]!.length },
        label,
        tooltip,
        paddingLeft: true,
      }),
    );
  });

  connection.onCodeLens(async ({ textDocument }): Promise<CodeLens[]> => {
    const found = await behind(textDocument.uri);
    if (!found) return [];
    return platformLenses(found.image, found.listing).flatMap(
      ({ line: at, title, mask, digest, launchable }) => [
        // The commands take the file from the active listing.
        digest === undefined
          ? { range: line(at), command: { title, command: '' } }
          : { range: line(at), command: { title, command: 'cvm.copyDigest', arguments: [null, mask] } },
        ...(launchable && digest !== undefined
          ? [{ range: line(at), command: { title: 'Debug', command: 'cvm.debugFile' } }]
          : []),
      ],
    );
  });

  connection.onWorkspaceSymbol(async ({ query }): Promise<WorkspaceSymbol[]> => {
    const gpa = parseAddress(query);
    // Short queries are words, or would match everywhere.
    if (gpa === undefined || query.trim().length < 3) return [];
    const symbols: WorkspaceSymbol[] = [];
    for (const [uri, pending] of opened) {
      const found = await pending.catch(() => undefined);
      if (!found) continue;
      for (const { line: at, name } of findAddress(found.image, found.listing, gpa))
        symbols.push({
          // VS Code filters by the query: the name has to have it.
          name: `${query} in ${name}`,
          kind: SymbolKind.Array,
          location: { uri: listingUri(uri), range: line(at) },
        });
    }
    return symbols;
  });

  connection.onRequest(AddressRequest, async ({ uri, address }: AddressParams): Promise<AddressResult> => {
    const gpa = parseAddress(address);
    if (gpa === undefined) return {};
    const { image, listing } = await answer(open(uri));
    const [hit] = findAddress(image, listing, gpa, 1000);
    return hit ? { line: hit.line } : {};
  });

  connection.languages.diagnostics.on(async ({ textDocument }) => {
    const found = await behind(textDocument.uri);
    const items = found
      ? imageDiagnostics(found.image).map(({ severity, code, message, offset }) => ({
          range: line(lineOfOffset(found.image.file, found.listing, offset)),
          severity: SEVERITIES[severity],
          code,
          source: 'igvm',
          message: `${message} (file offset 0x${offset.toString(16)})`,
        }))
      : [];
    return { kind: DocumentDiagnosticReportKind.Full, items };
  });

  connection.listen();
}

/** A problem with the file is the request's answer, not the server's failure. */
const answer = <T>(work: Promise<T>): Promise<T> =>
  work.catch((error: unknown) => {
    throw error instanceof CvmError ? new ResponseError(SERVER_ERROR, error.toString()) : error;
  });

/** A whole line, whatever its length. */
const line = (at: number): Range => ({
  start: { line: at, character: 0 },
  end: { line: at, character: 10_000 },
});

const SEVERITIES: Readonly<Record<Severity, DiagnosticSeverity>> = {
  error: DiagnosticSeverity.Error,
  warning: DiagnosticSeverity.Warning,
  info: DiagnosticSeverity.Information,
  hint: DiagnosticSeverity.Hint,
};

const SYMBOLS: Readonly<Record<OutlineKind, SymbolKind>> = {
  section: SymbolKind.Namespace,
  pages: SymbolKind.Array,
  processor: SymbolKind.Struct,
  parameter: SymbolKind.Field,
  platform: SymbolKind.Module,
  other: SymbolKind.Property,
};

function symbol(entry: OutlineEntry): DocumentSymbol {
  return {
    name: entry.name,
    detail: entry.detail,
    kind: SYMBOLS[entry.kind],
    range: { start: line(entry.first).start, end: line(entry.last).end },
    selectionRange: line(entry.first),
    children: entry.children.map(symbol),
  };
}
