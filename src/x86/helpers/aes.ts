/** The field and the S-box of AES (FIPS 197, §4 and §5.1.1), computed rather than copied. */

/** Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1. */
export const multiply = (x: number, y: number): number => {
  let product = 0;
  for (let a = x, b = y; b !== 0; b >>= 1) {
    if (b & 1) product ^= a;
    a = a & 0x80 ? ((a << 1) ^ 0x11b) & 0xff : a << 1;
  }
  return product;
};

const inverse = (x: number): number => {
  for (let y = 1; y < 256; y++) if (multiply(x, y) === 1) return y;
  return 0;
};

export const AES_SBOX: Uint8Array = Uint8Array.from({ length: 256 }, (_, x) => {
  const i = inverse(x);
  let result = 0x63;
  for (let shift = 0; shift < 5; shift++) result ^= ((i << shift) | (i >> (8 - shift))) & 0xff;
  return result;
});

export const AES_INVERSE: Uint8Array = (() => {
  const table = new Uint8Array(256);
  AES_SBOX.forEach((value, x) => (table[value] = x));
  return table;
})();
