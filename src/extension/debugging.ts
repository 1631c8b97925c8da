import * as vscode from 'vscode';
import { ConfigurationFinder, ConfigurationResolver, DEBUG_TYPE } from './configurations.ts';
import type { ProtocolMessage } from './debug-adapter.ts';
import type { Platform } from './platform.ts';

/** What happened in a debug session, for the views. */
export interface SessionChange {
  readonly session: vscode.DebugSession;
  /** `running` also when the session ended. */
  readonly state: 'stopped' | 'running' | 'edited';
  readonly threadId?: number;
}

export interface Sessions {
  readonly onDidChange: vscode.Event<SessionChange>;
  /** The session of this debug type that the user is looking at, while its guest is stopped. */
  stopped(): { readonly session: vscode.DebugSession; readonly threadId: number | undefined } | undefined;
}

/** Requests after whose success the guest runs; most adapters send no `continued` event for them. */
const RESUMING = new Set([
  'continue',
  'next',
  'stepIn',
  'stepOut',
  'stepBack',
  'reverseContinue',
  'goto',
  'restart',
  'restartFrame',
]);
/** Steps are shorter than this: the views keep what they show and do not flicker, in milliseconds. */
const SETTLE = 400;

/** Debug configurations, the adapter, and the state of running sessions. */
export function registerDebugging(context: vscode.ExtensionContext, platform: Platform): Sessions {
  const changed = new vscode.EventEmitter<SessionChange>();
  const stops = new Map<string, number | undefined>();

  // Adapter trackers do not run in web extensions; the adapter is ours, so its events are heard here.
  const listen = (session: vscode.DebugSession, message: ProtocolMessage) => {
    if (message.type === 'response' && message.success && RESUMING.has(message.command ?? '')) {
      stops.delete(session.id);
      setTimeout(() => {
        if (!stops.has(session.id)) changed.fire({ session, state: 'running' });
      }, SETTLE);
    }
    if (message.type !== 'event') return;
    const threadId = typeof message.body?.threadId === 'number' ? message.body.threadId : undefined;
    switch (message.event) {
      case 'stopped':
        stops.set(session.id, threadId);
        changed.fire({ session, state: 'stopped', threadId });
        break;
      case 'continued':
      case 'terminated':
      case 'exited':
        if (stops.delete(session.id)) changed.fire({ session, state: 'running' });
        break;
      case 'invalidated':
      case 'memory':
        if (stops.has(session.id)) changed.fire({ session, state: 'edited', threadId });
        break;
    }
  };

  const resolver = new ConfigurationResolver();
  const finder = new ConfigurationFinder();
  const { Initial, Dynamic } = vscode.DebugConfigurationProviderTriggerKind;
  context.subscriptions.push(
    changed,
    vscode.debug.registerDebugConfigurationProvider(DEBUG_TYPE, resolver),
    vscode.debug.registerDebugConfigurationProvider(DEBUG_TYPE, finder, Initial),
    vscode.debug.registerDebugConfigurationProvider(DEBUG_TYPE, finder, Dynamic),
    vscode.debug.registerDebugAdapterDescriptorFactory(DEBUG_TYPE, {
      createDebugAdapterDescriptor: (session) => {
        const adapter = platform.debugAdapter();
        adapter.onDidSendMessage((message) => listen(session, message as ProtocolMessage));
        return new vscode.DebugAdapterInlineImplementation(adapter);
      },
    }),
    vscode.debug.onDidTerminateDebugSession((session) => {
      if (stops.delete(session.id)) changed.fire({ session, state: 'running' });
    }),
  );

  return {
    onDidChange: changed.event,
    stopped: () => {
      const session = vscode.debug.activeDebugSession;
      if (session?.type !== DEBUG_TYPE || !stops.has(session.id)) return undefined;
      return { session, threadId: selectedThread(session) ?? stops.get(session.id) };
    },
  };
}

/** The thread selected in the call stack view. */
function selectedThread(session: vscode.DebugSession): number | undefined {
  const item = vscode.debug.activeStackItem;
  return item?.session.id === session.id ? item.threadId : undefined;
}
