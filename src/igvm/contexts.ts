/** Structures that stand in file data or that a loader writes for the guest (igvm_defs 0.5). */
import { structure } from '../base/index.ts';

/** Data of a MEMORY_MAP parameter: an array of these, the last one with `numberOfPages` 0. */
export const IGVM_VHS_MEMORY_MAP_ENTRY = structure('IGVM_VHS_MEMORY_MAP_ENTRY', 24, [
  [0, 'startingGpaPageNumber', 'u64'],
  [8, 'numberOfPages', 'u64'],
  [16, 'entryType', 'u16'],
  [18, 'flags', 'u16'],
  [20, 'reserved', 'u32'],
]);

/** Data of an MMIO_RANGES parameter: two of these. */
export const IGVM_VHS_MEMORY_RANGE = structure('IGVM_VHS_MEMORY_RANGE', 16, [
  [0, 'startingGpaPageNumber', 'u64'],
  [8, 'numberOfPages', 'u64'],
]);

/** VP_CONTEXT data of NATIVE and SEV: this structure, zero-padded to 4 KiB. */
export const IGVM_NATIVE_VP_CONTEXT_X64 = structure('IgvmNativeVpContextX64', 232, [
  [0, 'rax', 'u64'],
  [8, 'rcx', 'u64'],
  [16, 'rdx', 'u64'],
  [24, 'rbx', 'u64'],
  [32, 'rsp', 'u64'],
  [40, 'rbp', 'u64'],
  [48, 'rsi', 'u64'],
  [56, 'rdi', 'u64'],
  [64, 'r8', 'u64'],
  [72, 'r9', 'u64'],
  [80, 'r10', 'u64'],
  [88, 'r11', 'u64'],
  [96, 'r12', 'u64'],
  [104, 'r13', 'u64'],
  [112, 'r14', 'u64'],
  [120, 'r15', 'u64'],
  [128, 'rip', 'u64'],
  [136, 'rflags', 'u64'],
  [144, 'idtrBase', 'u64'],
  [152, 'idtrLimit', 'u16'],
  [154, 'reserved', 4],
  [158, 'gdtrLimit', 'u16'],
  [160, 'gdtrBase', 'u64'],
  [168, 'codeSelector', 'u16'],
  [170, 'codeAttributes', 'u16'],
  [172, 'codeBase', 'u32'],
  [176, 'codeLimit', 'u32'],
  [180, 'dataSelector', 'u16'],
  [182, 'dataAttributes', 'u16'],
  [184, 'dataBase', 'u32'],
  [188, 'dataLimit', 'u32'],
  [192, 'gsBase', 'u64'],
  [200, 'cr0', 'u64'],
  [208, 'cr3', 'u64'],
  [216, 'cr4', 'u64'],
  [224, 'efer', 'u64'],
]);

/** VP_CONTEXT data of CCA: this structure, zero-padded to 4 KiB. */
export const IGVM_VP_CONTEXT_AARCH64_CCA = structure('IgvmVpContextAArch64Cca', 80, [
  [0, 'x0', 'u64'],
  [8, 'x1', 'u64'],
  [16, 'x2', 'u64'],
  [24, 'x3', 'u64'],
  [32, 'x4', 'u64'],
  [40, 'x5', 'u64'],
  [48, 'x6', 'u64'],
  [56, 'x7', 'u64'],
  [64, 'pc', 'u64'],
  [72, 'flags', 'u64'],
]);

/** VP_CONTEXT data of VSM isolation: this, then `registerCount` registers, without padding. */
export const VBS_VP_CONTEXT_HEADER = structure('VbsVpContextHeader', 4, [[0, 'registerCount', 'u32']]);

export const VBS_VP_CONTEXT_REGISTER = structure('VbsVpContextRegister', 32, [
  [0, 'vtl', 'u8'],
  [1, 'registerName', 'u32'],
  [5, 'mbz', 11],
  [16, 'registerValue', 16],
]);
