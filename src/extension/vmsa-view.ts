import * as vscode from 'vscode';
import type { Sessions } from './debugging.ts';

/** Answer of the custom DAP request `cvm/vmsa` `{ threadId }`. */
interface VmsaField {
  readonly name: string;
  /** Byte offset in the save area, and size in bytes. */
  readonly offset: number;
  readonly size: number;
  /** Hexadecimal. */
  readonly value: string;
  readonly note?: string;
}

interface ThreadNode {
  readonly kind: 'thread';
  readonly id: number;
  readonly name: string;
  readonly selected: boolean;
}
interface GroupNode {
  readonly kind: 'group';
  readonly id: string;
  readonly title: string;
  readonly fields: readonly FieldNode[];
}
interface FieldNode {
  readonly kind: 'field';
  readonly id: string;
  readonly field: VmsaField;
  readonly value: string;
  /** Value at the previous stop, where it differs. */
  readonly before: string | undefined;
}
type Node = ThreadNode | GroupNode | FieldNode;

/**
 * Which part of the save area a field belongs to, by its name in the table of the APM (volume 2,
 * appendix B); the order is that of the view.
 */
const GROUPS: readonly (readonly [title: string, pattern: RegExp])[] = [
  ['SEV-SNP', /^(vmpl|cpl|sev_|vintr|virtual_tom|guest_|event_inj|tlb_id|pcpu_id|reg_prot)/],
  ['General registers', /^(r[a-d]x|r[sd]i|r[sb]p|r(8|9|1[0-5])|rip|rflags)$/],
  ['Control registers', /^(cr\d|dr\d|xcr0|efer|xss|g_pat|pkru)/],
  ['Segments', /^([c-gs]s|[gil]dtr|tr)$/],
  ['System calls and MSRs', /^(star|lstar|cstar|sfmask|kernel_gs|sysenter|tsc_aux)/],
  ['Shadow stacks', /^(s_cet|u_cet|ssp|isst|pl\d_ssp)/],
  ['x87 and vectors', /^(x87|mxcsr|st\d|ymm|xmm)/],
];
const OTHER = 'Other';
const FIRST_EXPANDED = 'General registers';
const groupOf = (name: string) =>
  GROUPS.find(([, pattern]) => pattern.test(name.toLowerCase()))?.[0] ?? OTHER;

/** The save area of each vCPU and VMPL, fields changed since the previous stop marked. */
export function registerVmsaView(context: vscode.ExtensionContext, sessions: Sessions): void {
  const provider = new VmsaTree(sessions);
  const view = vscode.window.createTreeView('cvm.vmsa', { treeDataProvider: provider });
  context.subscriptions.push(
    view,
    sessions.onDidChange((change) => {
      if (change.state === 'stopped') provider.stopped();
      provider.refresh();
    }),
    vscode.debug.onDidChangeActiveStackItem(() => provider.refresh()),
    vscode.debug.onDidChangeActiveDebugSession(() => provider.refresh()),
  );
}

class VmsaTree implements vscode.TreeDataProvider<Node> {
  private readonly changed = new vscode.EventEmitter<void>();
  readonly onDidChangeTreeData = this.changed.event;
  private readonly sessions: Sessions;
  /** Field values at this stop and the one before, by `session/thread`. */
  private current = new Map<string, ReadonlyMap<string, string>>();
  private previous = new Map<string, ReadonlyMap<string, string>>();

  constructor(sessions: Sessions) {
    this.sessions = sessions;
  }

  refresh(): void {
    this.changed.fire();
  }

  /** A new stop: what was read at the last one becomes what to compare with. */
  stopped(): void {
    for (const [key, values] of this.current) this.previous.set(key, values);
    this.current = new Map();
  }

  getTreeItem(node: Node): vscode.TreeItem {
    const { Collapsed, Expanded, None } = vscode.TreeItemCollapsibleState;
    if (node.kind === 'thread') {
      const item = new vscode.TreeItem(node.name, node.selected ? Expanded : Collapsed);
      // The state is part of the id: VS Code remembers an item's expansion by id.
      item.id = `${node.id}/${node.selected}`;
      item.iconPath = new vscode.ThemeIcon('server-process');
      return item;
    }
    if (node.kind === 'group') {
      const changes = node.fields.filter((field) => field.before !== undefined).length;
      const item = new vscode.TreeItem(node.title, node.title === FIRST_EXPANDED ? Expanded : Collapsed);
      item.id = node.id;
      if (changes > 0) item.description = `${changes} changed`;
      return item;
    }
    const { field, before } = node;
    const item = new vscode.TreeItem(field.name, None);
    item.id = node.id;
    const note = field.note ? `  ${field.note}` : '';
    item.description =
      before === undefined ? `${node.value}${note}` : `${node.value}  (was ${before})${note}`;
    item.contextValue = 'cvm.field';
    item.tooltip = new vscode.MarkdownString(
      [
        `**${field.name}** — offset \`0x${field.offset.toString(16)}\`, ${field.size} bytes`,
        `\`${field.value}\``,
        ...(before === undefined ? [] : [`before: \`${before}\``]),
        ...(field.note ? [field.note] : []),
      ].join('\n\n'),
    );
    item.iconPath =
      before === undefined
        ? new vscode.ThemeIcon('symbol-field')
        : new vscode.ThemeIcon('circle-filled', new vscode.ThemeColor('list.warningForeground'));
    return item;
  }

  async getChildren(node?: Node): Promise<Node[]> {
    const stop = this.sessions.stopped();
    if (!stop) return [];
    if (node?.kind === 'group') return [...node.fields];
    if (node?.kind === 'field') return [];
    try {
      if (!node) return await this.threads(stop.session, stop.threadId);
      return await this.groups(stop.session, node.id);
    } catch {
      // The guest went on meanwhile, or this vCPU has no save area yet.
      return [];
    }
  }

  private async threads(session: vscode.DebugSession, selected: number | undefined): Promise<ThreadNode[]> {
    const { threads } = (await session.customRequest('threads')) as {
      threads: { id: number; name: string }[];
    };
    return threads.map(({ id, name }) => ({ kind: 'thread', id, name, selected: id === selected }));
  }

  private async groups(session: vscode.DebugSession, threadId: number): Promise<GroupNode[]> {
    const answer = (await session.customRequest('cvm/vmsa', { threadId })) as { fields: VmsaField[] };
    const fields = joinSegments(answer.fields);
    const key = `${session.id}/${threadId}`;
    const before = this.previous.get(key);
    this.current.set(key, new Map(fields.map((field) => [field.name, field.value])));
    const titles = [...GROUPS.map(([title]) => title), OTHER];
    return titles.flatMap((title): GroupNode[] => {
      const members = fields.filter((field) => groupOf(field.name) === title);
      if (members.length === 0) return [];
      return [
        {
          kind: 'group',
          id: `${key}/${title}`,
          title,
          fields: members.map((field) => {
            const last = before?.get(field.name);
            return {
              kind: 'field',
              id: `${key}/${field.name}`,
              field,
              value: field.value,
              before: last !== undefined && last !== field.value ? last : undefined,
            };
          }),
        },
      ];
    });
  }
}

/** Four fields of a segment register make one row: `cs` with selector, base, limit and attributes in words. */
function joinSegments(fields: readonly VmsaField[]): VmsaField[] {
  const joined: VmsaField[] = [];
  for (const field of fields) {
    const [segment, part] = field.name.split('.');
    if (!segment || !part) {
      joined.push({ ...field, value: field.value.replace(/^0x0+(?=[0-9a-f])/, '0x') });
      continue;
    }
    const value = field.value.replace(/^0x0+(?=[0-9a-f])/, '0x');
    const text = part === 'selector' ? value : `${part === 'attributes' ? 'attr' : part} ${value}`;
    const note = part === 'attributes' ? field.note : undefined;
    const last = joined.at(-1);
    if (last?.name !== segment)
      joined.push({ ...field, name: segment, value: text, ...(note ? { note } : {}) });
    else
      joined[joined.length - 1] = {
        ...last,
        size: last.size + field.size,
        value: `${last.value} ${text}`,
        ...(note ? { note } : {}),
      };
  }
  return joined;
}
