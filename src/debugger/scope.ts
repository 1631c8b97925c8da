/** What names and addresses mean for one frame: the scope its expressions are evaluated in. */
import { CvmError, hex } from '../base/index.ts';
import type { SymbolSpace } from '../symbols/index.ts';
import type { Machine, MachineThread } from '../vmm/index.ts';
import { readInteger } from './addresses.ts';
import type { Scope } from './expression/index.ts';
import { registerNamed } from './registers.ts';
import type { Frame } from './stack.ts';

/** `frame` is undefined for the innermost: then every register is the thread's own. */
export function scopeOf(machine: Machine, symbols: SymbolSpace, thread: MachineThread, frame?: Frame): Scope {
  return {
    register(name) {
      if (frame && (name === 'rip' || name === 'rsp' || name === 'rbp'))
        return { value: frame[name], bits: 64 };
      const register = registerNamed(name);
      return register && { value: register.read(thread.cpu), bits: register.bits };
    },
    symbol: (name) => symbols.symbolByName(name)[0]?.address,
    load(address, size) {
      const value = readInteger(machine, thread, address, size);
      if (value === undefined)
        throw new CvmError('unreadable-memory', `cannot read ${size} bytes of memory at ${hex(address)}`);
      return value;
    },
  };
}
