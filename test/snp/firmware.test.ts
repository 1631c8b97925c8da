/** The emulated secure firmware: its states, what it measures, what it refuses. */
import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import {
  Rmp,
  SecureProcessor,
  contentsHash,
  decodeCpuidPage,
  encodeCpuidPage,
  extendLaunchDigest,
} from '../../src/snp/index.ts';
import type { CpuidFunction, SnpPageType } from '../../src/snp/index.ts';

const CPUID: CpuidFunction = {
  leaf: 0x8000_001f,
  subleaf: 0,
  xcr0: 0n,
  xss: 0n,
  eax: 26,
  ebx: 0x73,
  ecx: 0,
  edx: 0,
};

function processor(seed = 0n): { firmware: SecureProcessor; rmp: Rmp; pages: Map<number, Uint8Array> } {
  const rmp = new Rmp();
  const pages = new Map<number, Uint8Array>();
  const firmware = new SecureProcessor(
    {
      rmp,
      crypto: nodeCrypto,
      privatePage: (gpa) => {
        const page = pages.get(gpa) ?? new Uint8Array(4096).fill(0xee);
        pages.set(gpa, page);
        return page;
      },
      cpuid: (leaf, subleaf) => (leaf === CPUID.leaf && subleaf === CPUID.subleaf ? CPUID : undefined),
    },
    seed,
    0xa00f11,
  );
  return { firmware, rmp, pages };
}
const give = (rmp: Rmp, gpa: number): void => void rmp.update(gpa, { assigned: true, immutable: true });

describe('launch', () => {
  it('measures each page as PAGE_INFO says and hands it over validated', () => {
    const { firmware, rmp, pages } = processor();
    firmware.launchStart(0x3_0000n);
    const kinds: readonly (readonly [SnpPageType, Uint8Array | undefined])[] = [
      ['normal', Uint8Array.of(1, 2, 3)],
      ['zero', undefined],
      ['unmeasured', Uint8Array.of(9)],
      ['secrets', undefined],
      ['cpuid', encodeCpuidPage([CPUID])],
    ];
    let digest: Uint8Array = new Uint8Array(48);
    kinds.forEach(([pageType, data], i) => {
      const gpa = 0x1000 * (i + 1);
      give(rmp, gpa);
      firmware.launchUpdate({ gpa, pageType, data });
      const contents = contentsHash(pageType, data, nodeCrypto);
      digest = extendLaunchDigest(digest, { pageType, gpa: BigInt(gpa), contents }, nodeCrypto);
      expect(rmp.entry(gpa)).toMatchObject({ assigned: true, validated: true, immutable: false });
    });
    expect(bytesToHex(firmware.digest)).toBe(bytesToHex(digest));
    expect([...pages.get(0x1000)!.subarray(0, 4)]).toEqual([1, 2, 3, 0]);
    expect(pages.get(0x2000)!.every((byte) => byte === 0)).toBe(true);
    expect(pages.get(0x3000)![0]).toBe(9);
    expect(decodeCpuidPage(pages.get(0x5000)!)).toEqual([CPUID]);
    firmware.launchFinish();
    expect(() => firmware.launchUpdate({ gpa: 0, pageType: 'zero', data: undefined })).toThrow(/running/);
  });

  it('draws the VMPCKs from the seed', () => {
    const keys = (seed: bigint): string => {
      const { firmware, rmp, pages } = processor(seed);
      firmware.launchStart(0x3_0000n);
      give(rmp, 0x1000);
      firmware.launchUpdate({ gpa: 0x1000, pageType: 'secrets', data: undefined });
      return bytesToHex(pages.get(0x1000)!.subarray(0x20, 0xa0));
    };
    expect(keys(1n)).toBe(keys(1n));
    expect(keys(1n)).not.toBe(keys(2n));
    expect(new Set(keys(1n).match(/.{64}/g))).toHaveProperty('size', 4);
  });

  it('takes only pages in the pre-guest state', () => {
    const { firmware, rmp } = processor();
    firmware.launchStart(0x3_0000n);
    const update = (): void => firmware.launchUpdate({ gpa: 0x1000, pageType: 'normal', data: undefined });
    expect(update).toThrow(/pre-guest/);
    rmp.update(0x1000, { assigned: true });
    expect(update).toThrow(/pre-guest/);
  });

  it('wants its commands in order', () => {
    const { firmware } = processor();
    expect(() => firmware.launchFinish()).toThrow(/SNP_LAUNCH_FINISH/);
    firmware.launchStart(0x3_0000n);
    expect(() => firmware.launchStart(0x3_0000n)).toThrow(/SNP_LAUNCH_START/);
  });

  it.each([
    ['bit 17 clear', 0x1_0000n, /bit 17/],
    ['a reserved bit', 0x3_0000n | (1n << 26n), /reserved/],
    ['a migration agent', 0x7_0000n, /migration/],
    ['no SMT', 0x2_0000n, /SMT/],
  ] as const)('refuses a policy with %s', (_what, policy, message) => {
    expect(() => processor().firmware.launchStart(policy)).toThrow(message);
  });

  it('holds an ID block to its digest and policy', () => {
    const launched = (): SecureProcessor => {
      const { firmware } = processor();
      firmware.launchStart(0x3_0000n);
      firmware.launchUpdateVmsa(0xffff_ffff_f000, new Uint8Array(4096));
      return firmware;
    };
    const { digest } = launched();
    const rest = {
      familyId: new Uint8Array(16),
      imageId: new Uint8Array(16),
      guestSvn: 5,
      idKeyDigest: new Uint8Array(48).fill(3),
    };
    expect(() => launched().launchFinish({ ...rest, digest, policy: 0x3_0000n })).not.toThrow();
    expect(() => launched().launchFinish({ ...rest, digest: new Uint8Array(48), policy: 0x3_0000n })).toThrow(
      /ID block/,
    );
    expect(() => launched().launchFinish({ ...rest, digest, policy: 0xb_0000n })).toThrow(/policy/);
  });

  it.each([
    ['a leaf the chip lacks', { ...CPUID, leaf: 7, ebx: 1 }, /leaf 0x7 .*eax is 0x1a/],
    ['another value', { ...CPUID, ebx: 0x2f }, /ebx is 0x2f, the chip has 0x73/],
  ] as const)('refuses a CPUID page with %s', (_what, row, message) => {
    const { firmware, rmp } = processor();
    firmware.launchStart(0x3_0000n);
    give(rmp, 0x1000);
    expect(() =>
      firmware.launchUpdate({ gpa: 0x1000, pageType: 'cpuid', data: encodeCpuidPage([row]) }),
    ).toThrow(message);
  });
});
