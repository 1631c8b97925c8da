/** Guest policy of SEV-SNP (SEV-SNP Firmware ABI, "Guest Policy"): names and meanings of its bits. */
const BITS: readonly (readonly [bit: number, name: string, set: string, clear: string])[] = [
  [16, 'SMT', 'simultaneous multithreading is allowed', 'refuses hosts with simultaneous multithreading'],
  [17, 'reserved', 'reserved, must be 1', 'must be 1: the firmware refuses this policy'],
  [18, 'MIGRATE_MA', 'a migration agent may be associated', 'no migration agent'],
  [19, 'DEBUG', 'the host may decrypt guest memory', 'debugging by the host is refused'],
  [20, 'SINGLE_SOCKET', 'runs on one socket only', 'may run on several sockets'],
  [21, 'CXL_ALLOW', 'CXL devices and memory are allowed', 'refuses hosts with CXL'],
  [22, 'MEM_AES_256_XTS', 'memory encryption must be AES-256-XTS', 'AES-128 memory encryption is accepted'],
  [23, 'RAPL_DIS', 'running average power limit must be off', 'power readings by the host are accepted'],
  [24, 'CIPHERTEXT_HIDING', 'ciphertext must be hidden from the host', 'the host may read ciphertext'],
  [25, 'PAGE_SWAP_DISABLE', 'page swapping must be off', 'the host may swap pages'],
];

export interface PolicyBit {
  readonly bit: number;
  readonly name: string;
  readonly set: boolean;
  readonly meaning: string;
}

/** Minimum firmware API version, `major.minor`: bits 15:8 and 7:0. */
export const policyAbi = (policy: bigint): string => `${(policy >> 8n) & 0xffn}.${policy & 0xffn}`;

/** Every defined bit; bits beyond the defined ones appear only when set. */
export function policyBits(policy: bigint): PolicyBit[] {
  const known = BITS.map(([bit, name, yes, no]): PolicyBit => {
    const set = ((policy >> BigInt(bit)) & 1n) === 1n;
    return { bit, name, set, meaning: set ? yes : no };
  });
  for (let bit = 26; bit < 64; bit++)
    if ((policy >> BigInt(bit)) & 1n)
      known.push({ bit, name: `bit ${bit}`, set: true, meaning: 'reserved, must be 0' });
  return known;
}

/** `abi 0.0, SMT, DEBUG`: what is set, for one line. The reserved bit 17 is named when it is missing. */
export function policyWords(policy: bigint): string {
  const words = policyBits(policy).flatMap(({ bit, name, set }) => {
    if (bit === 17) return set ? [] : ['bit 17 clear'];
    return set ? [name] : [];
  });
  return [`abi ${policyAbi(policy)}`, ...words].join(', ');
}
