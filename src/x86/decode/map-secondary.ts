/**
 * Two-byte opcodes 0F xx: APM vol. 3, tables A-3 (low nibble 0-7) and A-4 (8-F), and groups 6-16 of
 * table A-6. The cells that a mandatory prefix tells apart (SSE and neighbours) are in `map-sse.ts`
 * and laid over this map; here a prefix has no meaning of its own.
 *
 * `ud` although some processors have them: 3DNow! (0F, 0E), SVM host instructions (EFER.SVME is not
 * offered), VMX, SGX, TSX, GETSEC, RSM outside SMM, PSMASH/RMPUPDATE (host only).
 */
import { parseMap, parsePrefixed } from './entry.ts';
import type { Entry, Groups } from './entry.ts';
import { SSE_0F, SSE_GROUPS } from './map-sse.ts';

export const SECONDARY_GROUPS: Groups = {
  ...SSE_GROUPS,
  g6: ['*sldt Ev', '*str Ev', '*lldt _,Ew', '*ltr _,Ew', '*verr _,Ew', '*verw _,Ew', 'ud', 'ud'],
  g8: ['ud', 'ud', 'ud', 'ud', 'bt', 'bts', 'btr', 'btc'],
  // Prefetches and the hint space are NOPs that take any operand.
  hint: ['nop @b', 'nop @b', 'nop @b', 'nop @b', 'nop @b', 'nop @b', 'nop @b', 'nop @b'],
};

const NOP_E = '%hint Eb';

// prettier-ignore
const ROWS: readonly (readonly string[])[] = [
  // 0_ (01: group 7, see GROUP7)
  ['%g6', 'ud', '*lar Gv,Ew', '*lsl Gv,Ew', 'ud', '*syscall', '*clts', '*sysret~sysret @y'],
  ['*invd', '*wbinvd', 'ud', '*ud', 'ud', '%hint M', 'ud', 'ud'],
  // 1_ (10-17: SSE)
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  [NOP_E, NOP_E, NOP_E, NOP_E, NOP_E, NOP_E, NOP_E, NOP_E],
  // 2_ (ModRM.mod is ignored by 20-23; 28-2F: SSE)
  ['*mov_from_cr R,C @q', '*mov_from_dr R,D @q', '*mov_to_cr C,R @q', '*mov_to_dr D,R @q', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  // 3_ (38, 3A: escapes)
  ['*wrmsr', '*rdtsc', '*rdmsr', '*rdpmc', '*sysenter', '*sysexit @y', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  // 4_
  ['cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev'],
  ['cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev', 'cmovcc Gv,Ev'],
  // 5_, 6_, 7_: SSE, MMX
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  // 8_
  ['jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s'],
  ['jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s', 'jcc Jz @s'],
  // 9_
  ['setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb'],
  ['setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb', 'setcc Eb'],
  // A_ (AE: group 15, see GROUP15)
  ['*push_seg FS @s', '*pop_seg FS @s', '*cpuid', 'bt Ev,Gv', 'shld Ev,Gv,Iu', 'shld_cl Ev,Gv', 'ud', 'ud'],
  ['*push_seg GS @s', '*pop_seg GS @s', 'ud', 'bts Ev,Gv', 'shrd Ev,Gv,Iu', 'shrd_cl Ev,Gv', 'ud', 'imul Gv,Ev'],
  // B_
  ['cmpxchg Eb,Gb', 'cmpxchg Ev,Gv', '*load_far_pointer Gv,M', 'btr Ev,Gv', '*load_far_pointer Gv,M', '*load_far_pointer Gv,M', 'movzx8 Gv,Eb', 'movzx16 Gv,Ew'],
  ['ud', '*ud Gv,Ev', '%g8 Ev,Iu', 'btc Ev,Gv', 'ud', 'ud', 'movsx8 Gv,Eb', 'movsx16 Gv,Ew'],
  // C_ (C2, C4-C6: SSE; C7: group 9, see GROUP9)
  ['xadd Eb,Gb', 'xadd Ev,Gv', 'ud', 'movnti My,Gy', 'ud', 'ud', 'ud', 'ud'],
  ['bswap Zv', 'bswap Zv', 'bswap Zv', 'bswap Zv', 'bswap Zv', 'bswap Zv', 'bswap Zv', 'bswap Zv'],
  // D_, E_, F_: SSE, MMX
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', '*ud Gv,Ev'],
];

/** Opcodes whose meaning a prefix changes outside SSE. Columns: none | 66 | F3 | F2; `^` as without. */
const PREFIXED = `
  09 *wbinvd | ^ | *wbnoinvd | ^
  AE %g15 | %g15_66 | %g15_f3 | %g15_f2
  B8 ud | ud | popcnt Gv,Ev | ud
  BC bsf Gv,Ev | ^ | tzcnt Gv,Ev | ^
  BD bsr Gv,Ev | ^ | lzcnt Gv,Ev | ^
  C3 movnti My,Gy | ud | ud | ud
  C7 %g9 | %g9_66 | %g9_f3 | %g9_f2
`;

/** Groups 9 and 15 (table A-6), by prefix; ` / ` parts the memory form from the register form. */
const PREFIX_GROUPS: Groups = {
  ...SECONDARY_GROUPS,
  g9: [
    'ud',
    '*cmpxchg8b~cmpxchg16b My',
    'ud',
    '*xrstors My',
    '*xsavec My',
    '*xsaves My',
    'ud / *rdrand Ev',
    'ud / *rdseed Ev',
  ],
  g9_66: ['ud', '*cmpxchg8b~cmpxchg16b My', 'ud', 'ud', 'ud', 'ud', 'ud / *rdrand Ev', 'ud / *rdseed Ev'],
  g9_f3: ['ud', '*cmpxchg8b~cmpxchg16b My', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud / *rdpid Rq'],
  g9_f2: ['ud', '*cmpxchg8b~cmpxchg16b My', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
  g15: [
    '*fxsave My',
    '*fxrstor My',
    '*ldmxcsr Md',
    '*stmxcsr Md',
    '*xsave My',
    '*xrstor My / nop E @b',
    '*xsaveopt My / nop E @b',
    'clflush Mb / nop E @b',
  ],
  g15_66: ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'clflush Mb', 'clflush Mb'],
  g15_f3: [
    'ud / *rdfsbase Ry 64',
    'ud / *rdgsbase Ry 64',
    'ud / *wrfsbase Ry 64',
    'ud / *wrgsbase Ry 64',
    'ud',
    'ud / *incssp Ry',
    '*clrssbsy Mq',
    'ud',
  ],
  g15_f2: ['ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
};

export const SECONDARY: readonly Entry[] = parsePrefixed(
  PREFIXED,
  PREFIX_GROUPS,
  parsePrefixed(SSE_0F, SECONDARY_GROUPS, parseMap(ROWS, SECONDARY_GROUPS)),
);

/** Group 7 (0F 01), memory forms by ModRM.reg. */
export const GROUP7_MEMORY = [
  '*sgdt M',
  '*sidt M',
  '*lgdt M',
  '*lidt M',
  '*smsw Mw',
  'ud',
  '*lmsw _,Mw',
  '*invlpg M',
];

/**
 * Group 7, register forms: ModRM byte, then none | 66 | F3 | F2. SMSW and LMSW take any register and
 * are handled before. APM vol. 3, table A-7 "ModRM.reg and .rm extensions for 0F 01".
 */
export const GROUP7_REGISTER = `
  C8 *monitor
  C9 *mwait
  CA *clac
  CB *stac
  D0 *xgetbv
  D1 *xsetbv
  D9 *vmmcall | ^ | *vmgexit | *vmgexit
  DF *invlpga | ^ | ^ | ^
  E8 ud | ud | *setssbsy | ud
  EA ud | ud | *saveprevssp | ud
  EE -rdpkru | ud | *clui 64 | ud
  EF -wrpkru | ud | *stui 64 | ud
  F8 *swapgs 64 | ^ | ^ | ^
  F9 *rdtscp | ^ | ^ | ^
  FA -monitorx | ^ | ud | ^
  FB -mwaitx | ^ | ud | ^
  FC -clzero | ^ | ^ | ^
  FD *rdpru | ^ | *rmpquery 64 | ud
  FE *invlpgb | ^ | *rmpadjust 64 | ud
  FF *tlbsync | ^ | ud | *pvalidate
`;
