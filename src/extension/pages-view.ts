import * as vscode from 'vscode';
import type { Sessions } from './debugging.ts';

/** Answer of the custom DAP request `cvm/rmp` `{ start?, count? }`: ranges of the reverse map table. */
interface RmpAnswer {
  readonly ranges: readonly RmpRange[];
  /** Number of ranges there are. */
  readonly total: number;
}
interface RmpRange {
  /** Guest-physical, hexadecimal; `end` is exclusive. */
  readonly start: string;
  readonly end: string;
  readonly state: string;
  /** Page size of the RMP entries: bytes, or a name. */
  readonly pageSize: number | string;
  readonly asid: number;
  /** One string for each VMPL, from VMPL0. */
  readonly permissions: readonly string[];
}

interface StateNode {
  readonly kind: 'state';
  readonly state: string;
  readonly ranges: readonly RmpRange[];
}
interface RangeNode {
  readonly kind: 'range';
  readonly range: RmpRange;
  readonly value: string;
}
interface NoteNode {
  readonly kind: 'note';
  readonly text: string;
}
type Node = StateNode | RangeNode | NoteNode;

/** More ranges than this are counted, not shown: a tree of them would help nobody. */
const MAX_RANGES = 5_000;
const PAGE = 4096n;

/** Meaning of the page states, for tooltips (AMD APM volume 2, section 15.36). */
const MEANING: Readonly<Record<string, string>> = {
  vmsa: 'Holds the save area of a virtual processor: no VMPL can write it while the bit is set.',
  validated: 'Given to the guest and accepted by PVALIDATE: private memory in use.',
  assigned: 'Given to the guest, not validated by it: touching it as private memory raises #VC.',
  unassigned: 'Belongs to the host: shared memory, or memory the guest has not been given.',
};

/** The reverse map table by page state: counts, then coalesced ranges with size, ASID and permissions. */
export function registerPagesView(context: vscode.ExtensionContext, sessions: Sessions): void {
  const provider = new PagesTree(sessions);
  const view = vscode.window.createTreeView('cvm.pages', { treeDataProvider: provider });
  context.subscriptions.push(
    view,
    sessions.onDidChange(() => provider.refresh()),
    vscode.debug.onDidChangeActiveDebugSession(() => provider.refresh()),
  );
}

class PagesTree implements vscode.TreeDataProvider<Node> {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.changed.event;
  private readonly sessions: Sessions;

  constructor(sessions: Sessions) {
    this.sessions = sessions;
  }

  refresh(): void {
    this.changed.fire();
  }

  getTreeItem(node: Node): vscode.TreeItem {
    const { Collapsed, Expanded, None } = vscode.TreeItemCollapsibleState;
    if (node.kind === 'note') return new vscode.TreeItem(node.text, None);
    if (node.kind === 'state') {
      const few = node.ranges.length <= 64;
      const item = new vscode.TreeItem(node.state, few ? Expanded : Collapsed);
      item.id = node.state;
      item.description = size(node.ranges.reduce((sum, range) => sum + pages(range), 0n));
      item.tooltip = MEANING[node.state];
      item.iconPath = new vscode.ThemeIcon(icon(node.state), color(node.state));
      return item;
    }
    const { range } = node;
    const item = new vscode.TreeItem(node.value, None);
    const large = pageSize(range.pageSize) === '4K' ? [] : [`${pageSize(range.pageSize)} page`];
    item.description = [bytesText(pages(range)), ...large, ...permissions(range)].join(' · ');
    item.contextValue = 'cvm.field';
    item.tooltip = new vscode.MarkdownString(
      [
        `**${node.value}** — ${range.state}, ${size(pages(range))}`,
        `RMP page size ${pageSize(range.pageSize)}, ASID ${range.asid}`,
        range.permissions.map((value, vmpl) => `VMPL${vmpl}: \`${value || 'none'}\``).join('  \n'),
      ].join('\n\n'),
    );
    return item;
  }

  async getChildren(node?: Node): Promise<Node[]> {
    const stop = this.sessions.stopped();
    if (!stop) return [];
    if (node?.kind === 'state')
      return node.ranges.map((range) => ({ kind: 'range', range, value: `${range.start}–${range.end}` }));
    if (node) return [];
    try {
      return await this.states(stop.session);
    } catch {
      return [];
    }
  }

  private async states(session: vscode.DebugSession): Promise<Node[]> {
    const ranges: RmpRange[] = [];
    let total = 0;
    do {
      const ask = { start: ranges.length, count: 1_000 };
      const answer = (await session.customRequest('cvm/rmp', ask)) as RmpAnswer;
      total = answer.total;
      if (answer.ranges.length === 0) break;
      ranges.push(...answer.ranges);
    } while (ranges.length < total && ranges.length < MAX_RANGES);
    const byState = new Map<string, RmpRange[]>();
    for (const range of ranges) {
      const known = byState.get(range.state);
      if (known) known.push(range);
      else byState.set(range.state, [range]);
    }
    const order = Object.keys(MEANING);
    const sorted = [...byState].sort(([a], [b]) => order.indexOf(a) - order.indexOf(b));
    const nodes: Node[] = sorted.map(([state, members]) => ({ kind: 'state', state, ranges: members }));
    if (ranges.length < total)
      nodes.push({ kind: 'note', text: `… and ${(total - ranges.length).toLocaleString('en')} more ranges` });
    return nodes;
  }
}

const pages = (range: RmpRange) => (BigInt(range.end) - BigInt(range.start)) / PAGE;

/** `1,024 pages (4 MiB)`. */
const size = (count: bigint) =>
  `${count.toLocaleString('en')} ${count === 1n ? 'page' : 'pages'} (${bytesText(count)})`;

/** Size of so many pages: `4 MiB`. */
function bytesText(count: bigint): string {
  const bytes = Number(count) * Number(PAGE);
  const [unit, name] =
    bytes >= 2 ** 30 ? [2 ** 30, 'GiB'] : bytes >= 2 ** 20 ? [2 ** 20, 'MiB'] : [2 ** 10, 'KiB'];
  return `${(bytes / unit).toLocaleString('en', { maximumFractionDigits: 1 })} ${name}`;
}

function pageSize(value: number | string): string {
  if (typeof value === 'string') return value;
  return value >= 2 ** 21 ? '2M' : '4K';
}

/** VMPL0 may do everything with every private page, and the others nothing: what differs is worth a word. */
function permissions(range: RmpRange): string[] {
  return range.permissions.flatMap((value, vmpl) => {
    const usual = vmpl === 0 && range.state !== 'unassigned' ? 'rwx' : 'none';
    return value === usual || value === 'none' || value === '' ? [] : [`VMPL${vmpl} ${value}`];
  });
}

function icon(state: string): string {
  if (state === 'validated') return 'pass-filled';
  if (state === 'vmsa') return 'server-process';
  return state === 'assigned' ? 'circle-large-filled' : 'circle-large-outline';
}

function color(state: string): vscode.ThemeColor | undefined {
  if (state === 'validated') return new vscode.ThemeColor('charts.green');
  if (state === 'vmsa') return new vscode.ThemeColor('charts.purple');
  return state === 'assigned' ? new vscode.ThemeColor('charts.orange') : undefined;
}
