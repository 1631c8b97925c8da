/**
 * sev-snp-measure of PyPI as a peer: random OVMF images and launches, measured by both. Runs when `CVM_PEERS`
 * names a folder with a virtual environment `venv` that has it (scripts/peers.sh makes one).
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { CPU_MODELS, measureOvmf, signatureOfType } from '../../src/measure/index.ts';
import type { OvmfLaunch, VmmType } from '../../src/measure/index.ts';
import { Random } from '../igvm/random.ts';
import { fixture, haveFixtures } from '../measure/fixtures.ts';
import { ovmfImage } from '../measure/ovmf-image.ts';

const folder = process.env['CVM_PEERS'];
const python = folder ? join(folder, 'venv/bin/python') : '';
const server = join(dirname(fileURLToPath(import.meta.url)), 'sev_snp_measure_server.py');
const LAUNCHES = 1000;

/** A launch as we take it, and as the peer does (files by name). */
interface Case {
  readonly ours: OvmfLaunch;
  readonly theirs: Record<string, unknown>;
}

/** Section types, now and then one that does not exist. */
const SECTION_TYPES = [1, 1, 1, 2, 3, 4, 0x10];

function sections(random: Random): [number, number, number][] {
  return Array.from({ length: random.below(7) }, () => {
    const type = random.chance(2) ? 7 : random.pick(SECTION_TYPES);
    const pages = type === 0x10 && random.chance(90) ? 1 : 1 + random.below(5);
    return [random.below(0x1000) * 4096, random.chance(2) ? 100 : pages * 4096, type];
  });
}

function image(random: Random, svsm: boolean): Uint8Array {
  const noise = random.bytes(4096);
  return ovmfImage({
    size: random.chance(2) ? 5000 : 4096 * (1 + random.below(6)),
    fill: (index) => noise[(index * 7 + (index >> 12)) & 4095]!,
    ...(random.chance(85) && {
      hashTableGpa: random.chance(5) ? 0 : random.below(0x100) * 4096 + random.below(0xe50),
    }),
    ...(random.chance(95) && { resetEip: random.chance(3) ? 0 : 0x8_0000 + random.below(0x8_0000) * 4099 }),
    ...(svsm && random.chance(95) && { svsmOffset: random.below(0x1_0000) }),
    ...(random.chance(95) && { sections: sections(random) }),
    ...(random.chance(30) && {
      extra: [['01234567-89ab-cdef-0123-456789abcdef', Buffer.from(random.bytes(random.below(40)))]] as const,
    }),
  });
}

const fileOf = (random: Random): Uint8Array => random.bytes(random.chance(20) ? 0 : random.below(3000));

describe.runIf(existsSync(python))('sev-snp-measure', () => {
  let scratch = '';
  let files = 0;
  beforeAll(() => {
    scratch = mkdtempSync(join(tmpdir(), 'sev-snp-measure-'));
  });
  afterAll(() => rmSync(scratch, { recursive: true, force: true }));
  const save = (bytes: Uint8Array): string => {
    const path = join(scratch, `${files++}.bin`);
    writeFileSync(path, bytes);
    return path;
  };
  const ask = (requests: readonly object[]): { digest?: string; error?: string }[] =>
    execFileSync(python, [server], {
      input: requests.map((request) => JSON.stringify(request)).join('\n'),
      maxBuffer: 1 << 26,
      timeout: 300_000,
    })
      .toString()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { digest?: string; error?: string });

  function randomCase(seed: number): Case {
    const random = new Random(seed);
    const mode = random.pick([
      'snp',
      'snp',
      'snp',
      'snp',
      'seves',
      'sev',
      'snp:svsm',
      'snp:ovmf-hash',
    ] as const);
    const real = random.chance(15) && haveFixtures(...SUFFIXES);
    const ovmf = real ? fixture(random.pick(SUFFIXES)) : image(random, false);
    const path = save(ovmf);
    if (mode === 'snp:ovmf-hash') return { ours: { mode, ovmf }, theirs: { hash_of: path } };
    const vmmType: VmmType =
      mode === 'snp:svsm' ? 'QEMU' : random.pick(['QEMU', 'QEMU', 'ec2', 'gce'] as const);
    const vcpus = 1 + random.below(random.chance(10) ? 300 : 5);
    const features = random.pick([1, 1, 0x21, random.next()]);
    const common = { mode, vcpus, vmmType };
    const theirs: Record<string, unknown> = {
      mode,
      vcpus,
      vmm_type: vmmType,
      ovmf: path,
      guest_features: features,
    };
    let ours: OvmfLaunch = { ...common, ovmf, guestFeatures: BigInt(features) };
    switch (random.below(3)) {
      case 0:
        ours = { ...ours, vcpuType: random.pick(theirTypes) };
        theirs['vcpu_type'] = ours.vcpuType;
        break;
      case 1:
        ours = { ...ours, vcpuSig: random.next() };
        theirs['vcpu_sig'] = ours.vcpuSig;
        break;
      default:
        ours = {
          ...ours,
          vcpuFamily: random.below(64),
          vcpuModel: random.below(256),
          vcpuStepping: random.below(16),
        };
        theirs['cpu'] = [ours.vcpuFamily, ours.vcpuModel, ours.vcpuStepping];
    }
    if (mode === 'snp:svsm') {
      const svsm = image(random, true);
      const varsSize = random.below(200) * 4096;
      return {
        ours: { ...ours, svsm, varsSize },
        theirs: { ...theirs, svsm: save(svsm), vars_size: varsSize },
      };
    }
    if (random.chance(50)) {
      const kernel = fileOf(random);
      const append = random.pick(['', 'console=ttyS0 loglevel=7', 'root=/dev/vda größer']);
      ours = { ...ours, kernel: random.chance(50) ? kernel : { sha256: nodeCrypto.sha256(kernel) }, append };
      Object.assign(theirs, { kernel: save(kernel), append });
      if (random.chance(60)) {
        const initrd = fileOf(random);
        ours = { ...ours, initrd };
        theirs['initrd'] = save(initrd);
      }
    }
    if (mode === 'snp' && random.chance(10)) {
      const snpOvmfHash = random.bytes(48);
      ours = { ...ours, snpOvmfHash };
      theirs['snp_ovmf_hash'] = bytesToHex(snpOvmfHash);
    }
    return { ours, theirs };
  }

  let theirTypes: string[] = [];
  it('knows no vCPU type that we do not, with another signature', () => {
    const types = JSON.parse(execFileSync(python, [server, 'types']).toString()) as Record<string, number>;
    theirTypes = Object.keys(types);
    expect(theirTypes.length).toBeGreaterThan(10);
    for (const [name, signature] of Object.entries(types))
      expect(signatureOfType(name), name).toBe(signature);
    expect(Object.keys(CPU_MODELS)).toEqual(expect.arrayContaining(theirTypes));
  });

  it(
    `measures ${LAUNCHES} random launches as we do, and refuses what we refuse`,
    { timeout: 300_000 },
    () => {
      const cases = Array.from({ length: LAUNCHES }, (_, seed) => randomCase(seed));
      const answers = ask(cases.map(({ theirs }) => theirs));
      expect(answers.length).toBe(cases.length);
      const measured = { snp: 0, seves: 0, sev: 0, 'snp:svsm': 0, 'snp:ovmf-hash': 0 };
      for (const [seed, { ours }] of cases.entries()) {
        const { digest, error } = answers[seed]!;
        let mine: string;
        try {
          mine = bytesToHex(measureOvmf(ours, nodeCrypto).digest);
        } catch (problem) {
          mine = String(problem);
        }
        if (digest !== undefined) {
          expect(mine, `seed ${seed}`).toBe(digest);
          measured[ours.mode]++;
        } else
          expect(
            mine.length === 96 || mine.length === 64,
            `seed ${seed}: they say ${error}, we say ${mine}`,
          ).toBe(mayMeasure(ours, error!));
      }
      expect(Object.values(measured).reduce((sum, count) => sum + count)).toBeGreaterThan(500);
      for (const count of Object.values(measured)) expect(count).toBeGreaterThan(50);
    },
  );
});

const SUFFIXES = ['ovmf/ovmf_AmdSev_suffix.bin', 'ovmf/ovmf_OvmfX64_suffix.bin'];

/** Where the peer asks for more than the digest needs: the reset address of APs that are not there. */
const mayMeasure = (launch: OvmfLaunch, error: string): boolean =>
  launch.vcpus === 1 && /SEV_ES_RESET_BLOCK_GUID/.test(error);
