/**
 * Three-byte opcodes 0F 38 xx and 0F 3A xx: APM vol. 3, tables of the legacy maps.
 * Columns: none | 66 | F3 | F2. What is not listed is undefined.
 */
import { UD, parsePrefixed } from './entry.ts';
import type { Entry } from './entry.ts';

const MAP_38 = `
  00 -mmx P,Q | pshufb V,W
  01 -mmx P,Q | phaddw V,W
  02 -mmx P,Q | phaddd V,W
  03 -mmx P,Q | phaddsw V,W
  04 -mmx P,Q | pmaddubsw V,W
  05 -mmx P,Q | phsubw V,W
  06 -mmx P,Q | phsubd V,W
  07 -mmx P,Q | phsubsw V,W
  08 -mmx P,Q | psignb V,W
  09 -mmx P,Q | psignw V,W
  0A -mmx P,Q | psignd V,W
  0B -mmx P,Q | pmulhrsw V,W
  10 ud | pblendvb V,W
  14 ud | blendvps V,W
  15 ud | blendvpd V,W
  17 ud | ptest V,W
  1C -mmx P,Q | pabsb V,W
  1D -mmx P,Q | pabsw V,W
  1E -mmx P,Q | pabsd V,W
  20 ud | pmovsxbw V,W
  21 ud | pmovsxbd V,W
  22 ud | pmovsxbq V,W
  23 ud | pmovsxwd V,W
  24 ud | pmovsxwq V,W
  25 ud | pmovsxdq V,W
  28 ud | pmuldq V,W
  29 ud | pcmpeqq V,W
  2A ud | movaps V,M
  2B ud | packusdw V,W
  30 ud | pmovzxbw V,W
  31 ud | pmovzxbd V,W
  32 ud | pmovzxbq V,W
  33 ud | pmovzxwd V,W
  34 ud | pmovzxwq V,W
  35 ud | pmovzxdq V,W
  37 ud | pcmpgtq V,W
  38 ud | pminsb V,W
  39 ud | pminsd V,W
  3A ud | pminuw V,W
  3B ud | pminud V,W
  3C ud | pmaxsb V,W
  3D ud | pmaxsd V,W
  3E ud | pmaxuw V,W
  3F ud | pmaxud V,W
  40 ud | pmulld V,W
  41 ud | *phminposuw V,W
  82 ud | *invpcid Gq,M
  C8 *sha1nexte V,W
  C9 *sha1msg1 V,W
  CA *sha1msg2 V,W
  CB *sha256rnds2 V,W
  CC *sha256msg1 V,W
  CD *sha256msg2 V,W
  CF ud | -gf2p8mulb V,W
  DB ud | *aesimc V,W
  DC ud | *aesenc V,W
  DD ud | *aesenclast V,W
  DE ud | *aesdec V,W
  DF ud | *aesdeclast V,W
  F0 movbe Gv,Mv | movbe Gv,Mv | ud | *crc32 Gy,Eb @b
  F1 movbe Mv,Gv | movbe Mv,Gv | ud | *crc32 Gy,Ev @v
  F5 ud | *wruss My,Gy
  F6 *wrss My,Gy | adcx Gy,Ey | adox Gy,Ey
`;

const MAP_3A = `
  08 ud | *roundps V,W,Iu
  09 ud | *roundpd V,W,Iu
  0A ud | *roundss V,W,Iu
  0B ud | *roundsd V,W,Iu
  0C ud | *blendps V,W,Iu
  0D ud | *blendpd V,W,Iu
  0E ud | *pblendw V,W,Iu
  0F -mmx P,Q,Iu | palignr V,W,Iu
  14 ud | *pextrb Ed,V,Iu
  15 ud | *pextrw_store Ed,V,Iu
  16 ud | *pextrd Ey,V,Iu
  17 ud | *extractps Ed,V,Iu
  20 ud | *pinsrb V,Ed,Iu @d
  21 ud | *insertps V,W,Iu
  22 ud | *pinsrd V,Ey,Iu @y
  40 ud | -dpps V,W,Iu
  41 ud | -dppd V,W,Iu
  42 ud | *mpsadbw V,W,Iu
  44 ud | *pclmulqdq V,W,Iu
  60 ud | *pcmpestrm V,W,Iu @y
  61 ud | *pcmpestri V,W,Iu @y
  62 ud | *pcmpistrm V,W,Iu @y
  63 ud | *pcmpistri V,W,Iu @y
  CC *sha1rnds4 V,W,Iu
  CE ud | -gf2p8affineqb V,W,Iu
  CF ud | -gf2p8affineinvqb V,W,Iu
  DF ud | *aeskeygenassist V,W,Iu
`;

const empty = (): Entry[] => new Array<Entry>(256).fill(UD);
export const ESCAPE_38: readonly Entry[] = parsePrefixed(MAP_38, {}, empty());
export const ESCAPE_3A: readonly Entry[] = parsePrefixed(MAP_3A, {}, empty());
