import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { pathToFileURL } from 'node:url';
import { StreamMessageReader, StreamMessageWriter, createMessageConnection } from 'vscode-jsonrpc/node';
import type { MessageConnection } from 'vscode-jsonrpc/node';
import { ProposedFeatures, createConnection } from 'vscode-languageserver/node';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nodeHost } from '../../src/base/node.ts';
import { listingUri, sourceOfListing, startLanguageServer } from '../../src/listing/index.ts';
import type { IgvmSummary } from '../../src/listing/index.ts';
import { sampleDigests, sampleImage } from './sample.ts';

let client: MessageConnection;
let folder: string;
let source: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'cvm-listing-'));
  const path = join(folder, 'a guest.igvm');
  writeFileSync(path, sampleImage());
  source = pathToFileURL(path).toString();
  const toServer = new PassThrough();
  const toClient = new PassThrough();
  startLanguageServer(createConnection(ProposedFeatures.all, toServer, toClient), nodeHost);
  client = createMessageConnection(new StreamMessageReader(toClient), new StreamMessageWriter(toServer));
  client.onRequest('cvm/readFile', ({ uri }: { uri: string }) => ({
    base64: uri === 'memfs:/image.igvm' ? Buffer.from(sampleImage()).toString('base64') : '',
  }));
  client.onRequest('workspace/diagnostic/refresh', () => null);
  client.listen();
  await client.sendRequest('initialize', { processId: null, rootUri: null, capabilities: {} });
  await client.sendNotification('initialized', {});
});

afterAll(() => {
  client.dispose();
  rmSync(folder, { recursive: true });
});

const listing = async (uri = source) =>
  (await client.sendRequest<{ text: string }>('cvm/listing', { uri })).text.split('\n');
const document = () => ({ textDocument: { uri: listingUri(source) } });
const lineOf = async (text: string) => (await listing()).findIndex((row) => row.includes(text));

describe('listing URIs', () => {
  it('name the file they show, whatever characters its path has', () => {
    for (const uri of [
      'file:///a/b%20c/x.igvm',
      'vscode-vfs://github/o/r/x.igvm',
      'file:///a/100%25%23.igvm',
    ]) {
      expect(sourceOfListing(listingUri(uri))).toBe(uri);
      expect(listingUri(uri)).toMatch(/\.igvm-listing\?/);
    }
    expect(sourceOfListing('file:///a/x.igvm')).toBeUndefined();
  });
});

describe('language server', () => {
  it('gives the listing of a file', async () => {
    expect((await listing())[0]).toBe('# IGVM file');
  });

  it('asks its client for files that are not on disk', async () => {
    expect(await listing('memfs:/image.igvm')).toEqual(await listing());
  });

  it('answers a missing file with a sentence', async () => {
    await expect(client.sendRequest('cvm/listing', { uri: 'file:///no/such.igvm' })).rejects.toThrow(
      /cannot open file:\/\/\/no\/such\.igvm/,
    );
  });

  it('hovers with the running digest', async () => {
    const line = await lineOf('0x000000802000');
    const hover = await client.sendRequest<{ contents: { value: string } }>('textDocument/hover', {
      ...document(),
      position: { line, character: 3 },
    });
    expect(hover.contents.value.replace(/`\s+`/g, '')).toContain(sampleDigests().get('0x802000'));
  });

  it('finds the declaration of a parameter area', async () => {
    const found = await client.sendRequest<{ range: { start: { line: number } } }>(
      'textDocument/definition',
      {
        ...document(),
        position: { line: await lineOf('PARAMETER_INSERT'), character: 0 },
      },
    );
    expect(found.range.start.line).toBe(await lineOf('PARAMETER_AREA'));
  });

  it('gives outline and folds', async () => {
    const symbols = await client.sendRequest<{ name: string }[]>('textDocument/documentSymbol', document());
    expect(symbols.map(({ name }) => name)).toEqual(['File', 'Platforms', 'Initialization', 'Directives']);
    const ranges = await client.sendRequest<unknown[]>('textDocument/foldingRange', document());
    expect(ranges.length).toBeGreaterThan(0);
  });

  it('summarizes: digest, policy, processors, memory map with a way to the listing', async () => {
    const summary = await client.sendRequest<IgvmSummary>('cvm/summary', { uri: source });
    const [snp, native] = summary.platforms;
    expect(snp!.digest).toBe(sampleDigests().get('0xfffffffff000'));
    expect(native!.digest).toBeUndefined();
    expect(snp!.policy!.value).toBe('0x30000');
    expect(snp!.processors[0]!.description).toContain('0xfff00000');
    const rows = await listing();
    for (const region of snp!.regions) expect(rows[region.line!]).toContain(region.start.slice(2));
    expect(snp!.regions.map(({ kind }) => kind)).toEqual([
      'required',
      'data',
      'zero',
      'secrets',
      'cpuid',
      'unmeasured',
      'parameter',
      'vmsa',
    ]);
  });

  it('forgets a file that changed, and reports findings on their lines', async () => {
    const path = new URL(source);
    const damaged = sampleImage();
    // The first page's address is no longer aligned.
    const directive = Buffer.from(damaged).indexOf(Buffer.from([0x02, 0x03, 0, 0, 24, 0, 0, 0]));
    damaged[directive + 8] = 1;
    writeFileSync(path, damaged);
    await client.sendNotification('cvm/changed', { uri: source });
    const report = await client.sendRequest<{
      items: { message: string; range: { start: { line: number } } }[];
    }>('textDocument/diagnostic', document());
    const line = await lineOf('0x000000800001');
    expect(line).toBeGreaterThan(0);
    expect(report.items.some((item) => item.range.start.line === line)).toBe(true);
    // The checksum no longer matches: that belongs to the fixed header.
    expect(report.items.some((item) => item.range.start.line === 1)).toBe(true);
    writeFileSync(path, sampleImage());
    await client.sendNotification('cvm/changed', { uri: source });
  });
});
