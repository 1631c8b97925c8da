/** The thread a debug session lives in: DAP messages over the port, files read directly. Node. */
import { parentPort } from 'node:worker_threads';
import { nodeHost } from '../base/node.ts';
import { createDebugSession } from '../debugger/index.ts';

const port = parentPort;
if (!port) throw new Error('debug-worker.cjs runs as a worker thread of the extension');
const session = createDebugSession(nodeHost, (message) => port.postMessage(message));
port.on('message', (message) => session.receive(message));
