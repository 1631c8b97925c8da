import { describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { IgvmBuilder, parseIgvm } from '../../src/igvm/index.ts';
import type { PlatformType } from '../../src/igvm/index.ts';
import { measureIgvm } from '../../src/measure/index.ts';

const MASK = 1;
const page = (pfn: number): bigint => BigInt(pfn) << 12n;

/**
 * The input of openvmm's measurement tests (`igvmfilegen/src/file_loader.rs`): pages 0-4 measured, page 0
 * begins `00 05`, 5-9 unmeasured, 10 measured `00 05`, 20 shared.
 */
function openvmmImage(platform: PlatformType): IgvmBuilder {
  const data = Uint8Array.of(0, 5);
  const builder = new IgvmBuilder().platform(platform, MASK).guestPolicy(0x30000n, MASK);
  builder.page(page(0), MASK, data);
  for (let pfn = 1; pfn < 5; pfn++) builder.page(page(pfn), MASK);
  for (let pfn = 5; pfn < 10; pfn++) builder.page(page(pfn), MASK, undefined, { unmeasured: true });
  builder.page(page(10), MASK, data);
  builder.page(page(20), MASK, data, { shared: true });
  return builder;
}

const measure = (builder: IgvmBuilder): string =>
  bytesToHex(measureIgvm(parseIgvm(builder.build()), {}, nodeCrypto).digest);

describe('known answers of openvmm', () => {
  it('SNP launch digest', () => {
    expect(measure(openvmmImage('SEV_SNP'))).toBe(
      '889a19386c82e2219bded3e92a764e8c00c29b966d04a662bca6cfdfec647b9051995653390783846557913263d71c4f',
    );
  });

  it('VBS boot digest', () => {
    expect(measure(openvmmImage('VSM_ISOLATION'))).toBe(
      '30134c9bb89cd72d8a418d1e7afb75927f45e8571dda7ac7be87d4b6c72ca64c',
    );
  });

  it('MRTD of the same pages, by the igvm crate 0.5', () => {
    // openvmm's own answer covers a reset page that its loader assembles, which is not ours to have.
    expect(measure(openvmmImage('TDX'))).toBe(
      'f27e034eb6ac59aa46c29ca630d3dc6344a88de5bfdd84d5564749f403602396f3b2471a4e9272a75c50ae31f6319479',
    );
  });
});
