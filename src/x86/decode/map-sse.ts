/**
 * SSE, SSE2 and MMX in the 0F map: the rows of APM vol. 3, tables that a mandatory prefix
 * tells apart. Columns: none | 66 | F3 | F2.
 *
 * Instructions that do the same to the register file share one name: MOVUPD, MOVDQU and LDDQU are
 * `movups`; MOVAPD, MOVDQA and the non-temporal stores `movaps`; ANDPS, ANDPD are `pand`, and so on.
 */
import type { Groups } from './entry.ts';

export const SSE_GROUPS: Groups = {
  g12: ['ud', 'ud', '-mmx N,Iu', 'ud', '-mmx N,Iu', 'ud', '-mmx N,Iu', 'ud'],
  g12_66: ['ud', 'ud', 'psrlw U,Iu', 'ud', 'psraw U,Iu', 'ud', 'psllw U,Iu', 'ud'],
  g13: ['ud', 'ud', '-mmx N,Iu', 'ud', '-mmx N,Iu', 'ud', '-mmx N,Iu', 'ud'],
  g13_66: ['ud', 'ud', 'psrld U,Iu', 'ud', 'psrad U,Iu', 'ud', 'pslld U,Iu', 'ud'],
  g14: ['ud', 'ud', '-mmx N,Iu', 'ud', 'ud', 'ud', '-mmx N,Iu', 'ud'],
  g14_66: ['ud', 'ud', 'psrlq U,Iu', 'psrldq U,Iu', 'ud', 'ud', 'psllq U,Iu', 'pslldq U,Iu'],
  // F3 0F 1E: RDSSP in /1 with a register, ENDBR32/ENDBR64 in FA and FB, otherwise hints.
  hint_f3: ['nop @b', 'nop @b / *rdssp Ry', 'nop @b', 'nop @b', 'nop @b', 'nop @b', 'nop @b', 'nop @b'],
  extrq: ['-extrq U,Iw', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud', 'ud'],
};

export const SSE_0F = `
  10 movups V,W | movups V,W | movss V,W | movsd V,W
  11 movups W,V | movups W,V | movss W,V | movsd W,V
  12 movlps V,M / movhlps V,U | movlps V,M | movsldup V,W | movddup V,W
  13 movlps M,V | movlps M,V
  14 unpcklps V,W | unpcklpd V,W
  15 unpckhps V,W | unpckhpd V,W
  16 movhps V,M / movlhps V,U | movhps V,M | movshdup V,W
  17 movhps M,V | movhps M,V
  1E %hint Eb | ^ | %hint_f3 Eb | ^
  28 movaps V,W | movaps V,W
  29 movaps W,V | movaps W,V
  2A -cvtpi2ps V,Q | -cvtpi2pd V,Q | *cvtsi2ss V,Ey @y | *cvtsi2sd V,Ey @y
  2B movaps M,V | movaps M,V | -movntss M,V | -movntsd M,V
  2C -cvttps2pi P,W | -cvttpd2pi P,W | *cvttss2si Gy,W | *cvttsd2si Gy,W
  2D -cvtps2pi P,W | -cvtpd2pi P,W | *cvtss2si Gy,W | *cvtsd2si Gy,W
  2E *ucomiss V,W | *ucomisd V,W
  2F *comiss V,W | *comisd V,W
  50 movmskps Gy,U | movmskpd Gy,U
  51 *sqrtps V,W | *sqrtpd V,W | *sqrtss V,W | *sqrtsd V,W
  52 -rsqrtps V,W | ud | -rsqrtss V,W
  53 -rcpps V,W | ud | -rcpss V,W
  54 pand V,W | pand V,W
  55 pandn V,W | pandn V,W
  56 por V,W | por V,W
  57 pxor V,W | pxor V,W
  58 *addps V,W | *addpd V,W | *addss V,W | *addsd V,W
  59 *mulps V,W | *mulpd V,W | *mulss V,W | *mulsd V,W
  5A *cvtps2pd V,W | *cvtpd2ps V,W | *cvtss2sd V,W | *cvtsd2ss V,W
  5B *cvtdq2ps V,W | *cvtps2dq V,W | *cvttps2dq V,W
  5C *subps V,W | *subpd V,W | *subss V,W | *subsd V,W
  5D *minps V,W | *minpd V,W | *minss V,W | *minsd V,W
  5E *divps V,W | *divpd V,W | *divss V,W | *divsd V,W
  5F *maxps V,W | *maxpd V,W | *maxss V,W | *maxsd V,W
  60 -mmx P,Q | punpcklbw V,W
  61 -mmx P,Q | punpcklwd V,W
  62 -mmx P,Q | punpckldq V,W
  63 -mmx P,Q | packsswb V,W
  64 -mmx P,Q | pcmpgtb V,W
  65 -mmx P,Q | pcmpgtw V,W
  66 -mmx P,Q | pcmpgtd V,W
  67 -mmx P,Q | packuswb V,W
  68 -mmx P,Q | punpckhbw V,W
  69 -mmx P,Q | punpckhwd V,W
  6A -mmx P,Q | punpckhdq V,W
  6B -mmx P,Q | packssdw V,W
  6C ud | punpcklqdq V,W
  6D ud | punpckhqdq V,W
  6E -mmx P,Ey | movd_to_xmm V,Ey @y
  6F -mmx P,Q | movaps V,W | movups V,W
  70 -mmx P,Q,Iu | pshufd V,W,Iu | pshufhw V,W,Iu | pshuflw V,W,Iu
  71 %g12 | %g12_66
  72 %g13 | %g13_66
  73 %g14 | %g14_66
  74 -mmx P,Q | pcmpeqb V,W
  75 -mmx P,Q | pcmpeqw V,W
  76 -mmx P,Q | pcmpeqd V,W
  77 -emms
  78 ud | %extrq | ud | -insertq V,U,Iw
  79 ud | -extrq V,U | ud | -insertq V,U
  7C ud | -haddpd V,W | ud | -haddps V,W
  7D ud | -hsubpd V,W | ud | -hsubps V,W
  7E -mmx Ey,P | movd_from_xmm Ey,V | movq_load V,W
  7F -mmx Q,P | movaps W,V | movups W,V
  C2 *cmpps V,W,Iu | *cmppd V,W,Iu | *cmpss V,W,Iu | *cmpsd V,W,Iu
  C4 -mmx P,Ed,Iu | pinsrw V,Ed,Iu @d
  C5 -mmx Gy,N,Iu | pextrw Gy,U,Iu
  C6 shufps V,W,Iu | shufpd V,W,Iu
  D0 ud | -addsubpd V,W | ud | -addsubps V,W
  D1 -mmx P,Q | psrlw_v V,W
  D2 -mmx P,Q | psrld_v V,W
  D3 -mmx P,Q | psrlq_v V,W
  D4 -mmx P,Q | paddq V,W
  D5 -mmx P,Q | pmullw V,W
  D6 ud | movq_store W,V | -movq2dq V,N | -movdq2q P,U
  D7 -mmx Gy,N | pmovmskb Gy,U
  D8 -mmx P,Q | psubusb V,W
  D9 -mmx P,Q | psubusw V,W
  DA -mmx P,Q | pminub V,W
  DB -mmx P,Q | pand V,W
  DC -mmx P,Q | paddusb V,W
  DD -mmx P,Q | paddusw V,W
  DE -mmx P,Q | pmaxub V,W
  DF -mmx P,Q | pandn V,W
  E0 -mmx P,Q | pavgb V,W
  E1 -mmx P,Q | psraw_v V,W
  E2 -mmx P,Q | psrad_v V,W
  E3 -mmx P,Q | pavgw V,W
  E4 -mmx P,Q | pmulhuw V,W
  E5 -mmx P,Q | pmulhw V,W
  E6 ud | *cvttpd2dq V,W | *cvtdq2pd V,W | *cvtpd2dq V,W
  E7 -mmx M,P | movaps M,V
  E8 -mmx P,Q | psubsb V,W
  E9 -mmx P,Q | psubsw V,W
  EA -mmx P,Q | pminsw V,W
  EB -mmx P,Q | por V,W
  EC -mmx P,Q | paddsb V,W
  ED -mmx P,Q | paddsw V,W
  EE -mmx P,Q | pmaxsw V,W
  EF -mmx P,Q | pxor V,W
  F0 ud | ud | ud | movups V,M
  F1 -mmx P,Q | psllw_v V,W
  F2 -mmx P,Q | pslld_v V,W
  F3 -mmx P,Q | psllq_v V,W
  F4 -mmx P,Q | pmuludq V,W
  F5 -mmx P,Q | pmaddwd V,W
  F6 -mmx P,Q | psadbw V,W
  F7 -mmx P,N | -maskmovdqu V,U
  F8 -mmx P,Q | psubb V,W
  F9 -mmx P,Q | psubw V,W
  FA -mmx P,Q | psubd V,W
  FB -mmx P,Q | psubq V,W
  FC -mmx P,Q | paddb V,W
  FD -mmx P,Q | paddw V,W
  FE -mmx P,Q | paddd V,W
`;
