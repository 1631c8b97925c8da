/** Random instruction bytes for the decoder tests: prefixes, then an opcode of any map, then noise. */

/** A linear congruential generator: the same bytes in every run. */
export const generator = (start: number): (() => number) => {
  let state = start >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state >>> 8;
  };
};

const PREFIXES = [0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x48, 0x41, 0x44, 0x4f];

export const randomInstruction = (random: () => number): Uint8Array => {
  const bytes: number[] = [];
  while (random() % 3 === 0) bytes.push(PREFIXES[random() % PREFIXES.length]!);
  const map = random() % 10;
  if (map >= 5) bytes.push(0x0f);
  if (map === 8) bytes.push(0x38);
  if (map === 9) bytes.push(0x3a);
  while (bytes.length < 32) bytes.push(random() & 255);
  return Uint8Array.from(bytes);
};
