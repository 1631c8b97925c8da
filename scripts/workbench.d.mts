export const root: string;
export function workbenchInstalled(): boolean;
export function ensureWorkbench(log?: NodeJS.WriteStream): Promise<{ node: string; entry: string }>;
export function freePort(wanted?: number, fallback?: boolean): Promise<number>;
export function startWorkbench(options: {
  readonly vsix: string;
  readonly profile: string;
  readonly port?: number;
  readonly settings?: Readonly<Record<string, unknown>>;
  readonly log?: NodeJS.WriteStream;
}): Promise<{
  url(folder: string): string;
  readonly exited: Promise<unknown>;
  output(): string;
  stop(): Promise<void>;
}>;
export function packageExtension(): Promise<string>;
export function buildBundles(args?: readonly string[]): Promise<void>;
