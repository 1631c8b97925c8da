/** A call stack as text, for reports outside of a session. */
import { hex } from '../base/index.ts';
import type { MachineThread } from '../vmm/index.ts';
import type { Guest } from './launch.ts';
import { symbolic } from './sources.ts';
import { unwind } from './stack.ts';

const MAX_LINES = 32;

/** One line a frame, innermost first: `#0 0x… name+0x10 at file:line`. */
export function backtrace(guest: Pick<Guest, 'machine' | 'symbols'>, thread: MachineThread): string[] {
  return unwind(guest.machine, guest.symbols, thread, MAX_LINES).map(({ rip, lookup }, level) => {
    const line = guest.symbols.lineAt(lookup);
    const name = symbolic(guest.symbols, rip) ?? '[no symbols]';
    return `#${level} ${hex(rip)} ${name}${line && line.line > 0 ? ` at ${line.file}:${line.line}` : ''}`;
  });
}
