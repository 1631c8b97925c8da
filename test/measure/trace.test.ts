import { createHash } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { CvmError, bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import { launchDigestSteps, launchDigestTrace, measureIgvm } from '../../src/measure/index.ts';

const SNP = 1;
const sha384 = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash('sha384');
  for (const part of parts) hash.update(part);
  return hash.digest();
};

/** SNP_LAUNCH_UPDATE's digest, byte by byte as the firmware ABI lays PAGE_INFO out. */
function slowStep(digest: Uint8Array, type: number, gpa: bigint, contents: Uint8Array): Buffer {
  const info = Buffer.alloc(0x70);
  info.set(digest, 0);
  info.set(contents, 0x30);
  info.writeUInt16LE(0x70, 0x60);
  info[0x62] = type;
  info.writeBigUInt64LE(gpa, 0x68);
  return sha384(info);
}

const page = (fill: number): Uint8Array => new Uint8Array(4096).fill(fill);
const ZERO = new Uint8Array(48);

const sample = (): IgvmBuilder =>
  new IgvmBuilder()
    .platform('SEV_SNP', SNP)
    .guestPolicy(0x30000n, SNP)
    .parameterArea(0, 0x2000n)
    .page(0x1000n, SNP, page(1))
    .page(0x2000n, SNP)
    .page(0x3000n, SNP, page(3), { unmeasured: true })
    .page(0x4000n, SNP, page(4), { dataType: 'SECRETS' })
    .page(0x5000n, SNP, page(5), { dataType: 'CPUID_DATA' })
    .page(0x6000n, SNP, page(6), { dataType: 'CPUID_XF', unmeasured: true })
    .page(0x7000n, SNP, page(7), { shared: true })
    .requiredMemory(0x10_0000n, SNP, 0x1000)
    .parameterInsert(0x8000n, SNP, 0)
    .vpContext(0xffff_ffff_f000n, SNP, page(9));

describe('the running digest', () => {
  it('is that of PAGE_INFO laid out by hand, after every page', () => {
    const expected: [number, bigint, Uint8Array][] = [
      [1, 0x1000n, sha384(page(1))],
      [1, 0x2000n, sha384(page(0))],
      [4, 0x3000n, ZERO],
      [5, 0x4000n, ZERO],
      [6, 0x5000n, ZERO],
      [6, 0x6000n, ZERO],
      [4, 0x8000n, ZERO],
      [4, 0x9000n, ZERO],
      [2, 0xffff_ffff_f000n, sha384(page(9))],
    ];
    const file = parseIgvm(sample().build());
    const trace = launchDigestTrace(file, {}, nodeCrypto);
    expect(trace.steps.length).toBe(expected.length);
    let digest: Uint8Array = ZERO;
    for (const [index, [type, gpa, contents]] of expected.entries()) {
      digest = slowStep(digest, type, gpa, contents);
      const step = trace.steps.at(index)!;
      expect([step.gpa, bytesToHex(step.contentsHash)]).toEqual([gpa, bytesToHex(contents)]);
      expect(bytesToHex(step.digest), `step ${index}`).toBe(bytesToHex(digest));
    }
    expect(bytesToHex(trace.digest)).toBe(bytesToHex(digest));
    expect([...trace.steps]).toEqual([...launchDigestSteps(trace.operations, nodeCrypto)]);
    // Both pages of the parameter area belong to its insert directive; the area itself adds none.
    const insert = file.headers.find(({ type }) => type === 'PARAMETER_INSERT')!;
    expect(trace.steps.ofDirective(insert.index)).toEqual(trace.steps.at(7));
    expect(trace.steps.ofDirective(2)).toBeUndefined();
    expect(trace.steps.at(9)).toBeUndefined();
  });

  it('of no pages is zeros', () => {
    const file = parseIgvm(new IgvmBuilder().platform('SEV_SNP', SNP).build());
    const { digest, steps, diagnostics } = launchDigestTrace(file, {}, nodeCrypto);
    expect(bytesToHex(digest)).toBe('00'.repeat(48));
    expect(steps.length).toBe(0);
    expect(diagnostics.map(({ code }) => code)).toEqual(['measure-no-policy']);
  });

  it('takes a file of 100,000 pages', () => {
    const builder = new IgvmBuilder().platform('SEV_SNP', SNP).guestPolicy(0x30000n, SNP);
    for (let n = 0; n < 100_000; n++)
      builder.add('PAGE_DATA', {
        gpa: BigInt(n) << 12n,
        compatibilityMask: SNP,
        fileOffset: n % 7 === 0 ? 1 << 16 : 0,
      });
    const file = parseIgvm(builder.build());
    const { steps, digest } = launchDigestTrace(file, {}, nodeCrypto);
    expect(steps.length).toBe(100_000);
    expect(steps.at(99_999)!.gpa).toBe(99_999n << 12n);
    expect(digest).toEqual(steps.at(99_999)!.digest);
  });
});

describe('what cannot be measured', () => {
  const code = (builder: IgvmBuilder, options: Parameters<typeof measureIgvm>[1] = {}): string => {
    try {
      measureIgvm(parseIgvm(builder.build()), options, nodeCrypto);
    } catch (error) {
      if (error instanceof CvmError) return error.code;
      throw error;
    }
    return 'measured';
  };

  it('says why', () => {
    const native = new IgvmBuilder().platform('NATIVE', 2);
    expect(code(native)).toBe('measure-no-platform');
    expect(code(native, { platformType: 'SEV_SNP' })).toBe('igvm-no-platform');
    expect(code(native, { compatibilityMask: 2 })).toBe('measure-no-platform');
    expect(code(native, { compatibilityMask: 1 })).toBe('measure-no-platform');
    expect(code(sample(), { compatibilityMask: 1 })).toBe('measured');
    expect(code(sample().page(0x123n, SNP))).toBe('igvm-not-launchable');
  });
});
