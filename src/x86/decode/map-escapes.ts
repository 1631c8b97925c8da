/**
 * Three-byte opcodes 0F 38 xx and 0F 3A xx: APM vol. 3, tables of the legacy maps.
 * Columns: none | 66 | F3 | F2. What is not listed is undefined.
 */
import { UD, parsePrefixed } from './entry.ts';
import type { Entry } from './entry.ts';

const range = (from: number, to: number, cells: string): string => {
  const lines: string[] = [];
  for (let opcode = from; opcode <= to; opcode++)
    lines.push(`  ${opcode.toString(16).padStart(2, '0').toUpperCase()} ${cells}`);
  return lines.join('\n');
};

const MAP_38 = `
${range(0x00, 0x0b, '-ssse3 P,Q | -ssse3 V,W')}
  10 ud | -pblendvb V,W
  14 ud | -blendvps V,W
  15 ud | -blendvpd V,W
  17 ud | -ptest V,W
${range(0x1c, 0x1e, '-ssse3 P,Q | -ssse3 V,W')}
${range(0x20, 0x25, 'ud | -sse41 V,W')}
  28 ud | -pmuldq V,W
  29 ud | -pcmpeqq V,W
  2A ud | movaps V,M
  2B ud | -packusdw V,W
${range(0x30, 0x35, 'ud | -sse41 V,W')}
${range(0x37, 0x41, 'ud | -sse41 V,W')}
  82 ud | *invpcid Gq,M
${range(0xc8, 0xcd, '-sha V,W')}
  CF ud | -gf2p8mulb V,W
${range(0xdb, 0xdf, 'ud | -aes V,W')}
  F0 movbe Gv,Mv | movbe Gv,Mv | ud | *crc32 Gy,Eb @b
  F1 movbe Mv,Gv | movbe Mv,Gv | ud | *crc32 Gy,Ev @v
  F5 ud | *wruss My,Gy
  F6 *wrss My,Gy | adcx Gy,Ey | adox Gy,Ey
`;

const MAP_3A = `
${range(0x08, 0x0e, 'ud | -sse41 V,W,Iu')}
  0F -palignr P,Q,Iu | -palignr V,W,Iu
  14 ud | -pextrb Ed,V,Iu
  15 ud | -pextrw Ed,V,Iu
  16 ud | -pextrd Ey,V,Iu
  17 ud | -extractps Ed,V,Iu
  20 ud | -pinsrb V,Ed,Iu
  21 ud | -insertps V,W,Iu
  22 ud | -pinsrd V,Ey,Iu
  40 ud | -dpps V,W,Iu
  41 ud | -dppd V,W,Iu
  42 ud | -mpsadbw V,W,Iu
  44 ud | -pclmulqdq V,W,Iu
${range(0x60, 0x63, 'ud | -pcmpstr V,W,Iu')}
  CC -sha1rnds4 V,W,Iu
  CE ud | -gf2p8affineqb V,W,Iu
  CF ud | -gf2p8affineinvqb V,W,Iu
  DF ud | -aeskeygenassist V,W,Iu
`;

const empty = (): Entry[] => new Array<Entry>(256).fill(UD);
export const ESCAPE_38: readonly Entry[] = parsePrefixed(MAP_38, {}, empty());
export const ESCAPE_3A: readonly Entry[] = parsePrefixed(MAP_3A, {}, empty());
