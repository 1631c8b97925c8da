/** Descriptor tables, segment register moves and selector queries (APM vol. 3). */
import { isCanonical } from '../cpu.ts';
import type { Cpu } from '../cpu.ts';
import { generalProtection, undefinedOpcode } from '../exceptions.ts';
import type { Helper } from '../helper.ts';
import { CS, FLAG, GDTR, IDTR, LDTR, SS, STATE, TR } from '../layout.ts';
import type { OpView } from '../opview.ts';
import { in64, requireCpl0, requireProtected } from './checks.ts';
import { requireUmip, storeWord } from './control.ts';
import {
  decodeDescriptor,
  descriptorAddress,
  dplOf,
  fetchDataSegment,
  isConforming,
  isNull,
  isReadable,
  isSystem,
  isWritableData,
  loadDataSegment,
  loadLdt,
  loadTaskRegister,
  typeOf,
} from './segments.ts';
import type { Descriptor } from './segments.ts';
import { currentStack, flatStack, popAll, push, setStackPointer } from './stack.ts';

const sourceWord = (cpu: Cpu, op: OpView): number =>
  Number(op.isRegister ? cpu.readRegister(op.b, 2) : cpu.load(cpu.address(op, 2, false), 2));

// -- GDTR, IDTR, LDTR, TR -----------------------------------------------------------------------------

const storeTable =
  (index: number): Helper =>
  (cpu, op) => {
    requireUmip(cpu);
    const width = in64(cpu) ? 8 : 4;
    const linear = cpu.address(op, 2 + width, true);
    cpu.probe(linear, 2 + width, 'write');
    cpu.store(linear, 2, BigInt(cpu.limit(index) & 0xffff));
    cpu.store(linear + 2n, width, BigInt.asUintN(width * 8, cpu.segmentBase(index)));
  };

const loadTable =
  (index: number): Helper =>
  (cpu, op) => {
    requireCpl0(cpu);
    const width = in64(cpu) ? 8 : 4;
    const linear = cpu.address(op, 2 + width, false);
    const limit = Number(cpu.load(linear, 2));
    let base = cpu.load(linear + 2n, width);
    // A 16-bit operand size loads a 24-bit base.
    if (width === 4 && op.size === 2) base &= 0xff_ffffn;
    if (width === 8 && !isCanonical(base)) throw generalProtection(0);
    cpu.setSegment(index, { selector: 0, attributes: 0, limit, base });
  };

const lldt: Helper = (cpu, op) => {
  requireProtected(cpu);
  requireCpl0(cpu);
  loadLdt(cpu, sourceWord(cpu, op));
};

const ltr: Helper = (cpu, op) => {
  requireProtected(cpu);
  requireCpl0(cpu);
  loadTaskRegister(cpu, sourceWord(cpu, op));
};

const storeSelector =
  (index: number): Helper =>
  (cpu, op) => {
    requireProtected(cpu);
    requireUmip(cpu);
    storeWord(cpu, op, BigInt(cpu.selector(index)));
  };

// -- segment registers ----------------------------------------------------------------------------------

const movFromSegment: Helper = (cpu, op) => storeWord(cpu, op, BigInt(cpu.selector(op.b)));

const movToSegment: Helper = (cpu, op) => {
  if (op.a === CS || op.a > 5) throw undefinedOpcode();
  loadDataSegment(cpu, op.a, sourceWord(cpu, op));
  if (op.a === SS) cpu.setU32(STATE.interruptShadow, 1);
};

const pushSegment: Helper = (cpu, op) => push(cpu, op.size, BigInt(cpu.selector(op.a)));

const popSegment: Helper = (cpu, op) => {
  const stack = currentStack(cpu, flatStack(cpu));
  const [value] = popAll(cpu, stack, op.size, 1) as [bigint];
  const state = fetchDataSegment(cpu, op.a, Number(value & 0xffffn));
  setStackPointer(cpu, stack.pointer, stack.segment);
  cpu.setSegment(op.a, state);
  if (op.a === SS) {
    cpu.setU32(STATE.interruptShadow, 1);
    cpu.updateMode();
  }
};

/** LDS, LES, LFS, LGS, LSS. */
const loadFarPointer: Helper = (cpu, op) => {
  const linear = cpu.address(op, op.size + 2, false);
  const offset = cpu.load(linear, op.size);
  const selector = Number(cpu.load(linear + BigInt(op.size), 2));
  loadDataSegment(cpu, op.condition, selector);
  cpu.writeRegister(op.a, op.size, offset);
};

// -- questions about selectors ----------------------------------------------------------------------------

const setZero = (cpu: Cpu, value: boolean): void => cpu.changeFlags(FLAG.ZF, value ? FLAG.ZF : 0);

/** The descriptor, or undefined where a query answers ZF = 0 instead of faulting. */
function query(cpu: Cpu, selector: number): Descriptor | undefined {
  if (isNull(selector)) return undefined;
  const address = descriptorAddress(cpu, selector);
  if (address === undefined) return undefined;
  const low = Number(cpu.load(address, 4, 'system'));
  const high = Number(cpu.load(address + 4n, 4, 'system'));
  return decodeDescriptor(selector, address, low, high);
}

/** Visible from CPL and RPL: conforming code always. */
const visible = (cpu: Cpu, descriptor: Descriptor): boolean =>
  isConforming(descriptor) ||
  (dplOf(descriptor) >= cpu.cpl && dplOf(descriptor) >= (descriptor.selector & 3));

const verify =
  (suits: (descriptor: Descriptor) => boolean): Helper =>
  (cpu, op) => {
    requireProtected(cpu);
    const descriptor = query(cpu, sourceWord(cpu, op));
    setZero(cpu, descriptor !== undefined && suits(descriptor) && visible(cpu, descriptor));
  };

const LAR_LEGACY: ReadonlySet<number> = new Set([1, 2, 3, 4, 5, 9, 11, 12]);
const LAR_LONG: ReadonlySet<number> = new Set([2, 9, 11, 12]);
const LSL_LEGACY: ReadonlySet<number> = new Set([1, 2, 3, 9, 11]);
const LSL_LONG: ReadonlySet<number> = new Set([2, 9, 11]);

/** System types LAR and LSL accept; in long mode only those that exist there (APM vol. 3, tables of LAR, LSL). */
const lar: Helper = (cpu, op) => {
  requireProtected(cpu);
  const descriptor = query(cpu, sourceWord(cpu, op));
  const types = cpu.longMode ? LAR_LONG : LAR_LEGACY;
  const found =
    descriptor !== undefined &&
    (!isSystem(descriptor) || types.has(typeOf(descriptor))) &&
    visible(cpu, descriptor);
  setZero(cpu, found);
  if (found) cpu.writeRegister(op.a, op.size, BigInt((descriptor.high & 0x00ff_ff00) >>> 0));
};

const lsl: Helper = (cpu, op) => {
  requireProtected(cpu);
  const descriptor = query(cpu, sourceWord(cpu, op));
  const types = cpu.longMode ? LSL_LONG : LSL_LEGACY;
  const found =
    descriptor !== undefined &&
    (!isSystem(descriptor) || types.has(typeOf(descriptor))) &&
    visible(cpu, descriptor);
  setZero(cpu, found);
  if (found) cpu.writeRegister(op.a, op.size, BigInt(descriptor.limit));
};

/** ARPL: raises the destination's RPL to the source's. */
const arpl: Helper = (cpu, op) => {
  requireProtected(cpu);
  const linear = op.isRegister ? 0n : cpu.address(op, 2, true);
  const value = Number(op.isRegister ? cpu.readRegister(op.a, 2) : cpu.loadForWrite(linear, 2));
  const rpl = Number(cpu.readRegister(op.b, 2) & 3n);
  const raise = (value & 3) < rpl;
  if (raise) {
    const next = BigInt((value & 0xfffc) | rpl);
    if (op.isRegister) cpu.writeRegister(op.a, 2, next);
    else cpu.store(linear, 2, next);
  }
  setZero(cpu, raise);
};

export const TABLE_HELPERS = {
  sgdt: storeTable(GDTR),
  sidt: storeTable(IDTR),
  lgdt: loadTable(GDTR),
  lidt: loadTable(IDTR),
  lldt,
  ltr,
  sldt: storeSelector(LDTR),
  str: storeSelector(TR),
  mov_from_seg: movFromSegment,
  mov_to_seg: movToSegment,
  push_seg: pushSegment,
  pop_seg: popSegment,
  load_far_pointer: loadFarPointer,
  verr: verify(isReadable),
  verw: verify(isWritableData),
  lar,
  lsl,
  arpl,
};
