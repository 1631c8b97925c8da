/** What can be said of the sample without running it: file, digest, symbols, launch configuration. */
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { bytesToHex } from '../../src/base/index.ts';
import { nodeCrypto } from '../../src/base/node.ts';
import { parseIgvm } from '../../src/igvm/index.ts';
import type { IgvmFile } from '../../src/igvm/index.ts';
import { measureIgvm } from '../../src/measure/index.ts';
import { readVmsa } from '../../src/snp/index.ts';
import { BROKEN, SAMPLES, addressOf, loadDemangler, sampleFile, sampleSymbols } from './sample.ts';
import type { Broken } from './sample.ts';

/** Printed by COCONUT-SVSM's igvmmeasure (commit f4bc4bcd) for the committed files. */
const IGVMMEASURE = {
  'mini-svsm.igvm':
    'cb6f88fc59f43123a4402e672a5ddbda0b9af2340c4f54f32494f7b9d9bc4802f4f3abbc99969e61b1249cf457cee594',
  'broken/no-pvalidate.igvm':
    '709d187ef69b864b99a729066903a775ad30760002f12a8ad1c136c179ce9a0d400884e6ed729931fe6e2a833784923e',
  'broken/no-rmpadjust.igvm':
    '4caed77ce1934d602f903fc4591789403d69b9f982fe83a2c01866f64b116c1414c2a548173ac3e9b9a740f704c98069',
  'broken/unregistered-ghcb.igvm':
    '678af1e25ad93224f95384460a4a9aa0b3be7283cfaf2256062e64399d47a943b6d7dddf3da47ce94d8f7d877178b6da',
  'broken/wrong-page-size.igvm':
    '3c990d84f9ece9861031086dc4fa83915501f7b92bffdc30bef6465909200bde393d6bf82e5d2497e81f9a9a1152e56d',
};

const PAGE = 4096;

/** GPA -> data of the normal pages; a page without file data is zeros. */
function normalPages(file: IgvmFile): Map<bigint, Uint8Array> {
  const pages = new Map<bigint, Uint8Array>();
  for (const header of file.headers) {
    if (header.type !== 'PAGE_DATA' || header.dataType !== 0) continue;
    const { data } = header;
    pages.set(
      header.gpa,
      data ? file.bytes.subarray(data.fileOffset, data.fileOffset + data.length) : new Uint8Array(PAGE),
    );
  }
  return pages;
}

describe('the image', () => {
  test.each(Object.entries(IGVMMEASURE))(
    '%s has the digest igvmmeasure gives, for every loader',
    (name, ld) => {
      const file = parseIgvm(sampleFile(name));
      expect(file.diagnostics).toEqual([]);
      for (const profile of ['file-order', 'igvmmeasure', 'qemu-kvm'] as const)
        expect(bytesToHex(measureIgvm(file, { profile }, nodeCrypto).digest)).toBe(ld);
    },
  );

  test('starts as COCONUT-SVSM does', () => {
    const file = parseIgvm(sampleFile('mini-svsm.igvm'));
    const context = file.headers.find((header) => header.type === 'VP_CONTEXT');
    expect(context?.gpa).toBe(0xffff_ffff_f000n);
    const { fileOffset } = context!.data!;
    const vmsa = file.bytes.subarray(fileOffset, fileOffset + PAGE);
    const expected = {
      'cs.selector': 8n,
      'cs.attributes': 0xc9bn,
      'cs.limit': 0xffff_ffffn,
      'ss.selector': 0x10n,
      'ss.attributes': 0xa93n,
      'ds.attributes': 0xa93n,
      cr0: 0x31n,
      cr4: 0x60n,
      efer: 0x1800n,
      rip: addressOf(sampleSymbols(), 'startup_32'),
      g_pat: 0x0007_0406_0007_0406n,
      xcr0: 1n,
      sev_features: 1n,
      vmpl: 0n,
    };
    for (const [name, value] of Object.entries(expected))
      expect([name, readVmsa(vmsa, name)]).toEqual([name, value]);
  });

  test('holds the ELF segments at their addresses', () => {
    const pages = normalPages(parseIgvm(sampleFile('mini-svsm.igvm')));
    const bytes = sampleFile('mini-svsm.elf');
    const { elf } = sampleSymbols();
    expect(elf.type).toBe(2); // ET_EXEC
    let compared = 0;
    for (const segment of elf.segments) {
      if (segment.type !== 1) continue;
      for (let at = 0n; at < segment.memorySize; at++) {
        const address = segment.virtualAddress + at;
        const page = pages.get(address & ~0xfffn);
        const want = at < segment.fileSize ? bytes[segment.offset + Number(at)] : 0;
        if (page?.[Number(address & 0xfffn)] !== want) expect.fail(`address 0x${address.toString(16)}`);
        compared++;
      }
    }
    expect(compared).toBeGreaterThan(16 * PAGE);
  });

  test.each(Object.entries(BROKEN))('%s differs from the sound one in one word', (name, number) => {
    const sound = normalPages(parseIgvm(sampleFile('mini-svsm.igvm')));
    const broken = normalPages(parseIgvm(sampleFile(`broken/${name as Broken}.igvm`)));
    expect([...broken.keys()]).toEqual([...sound.keys()]);
    const differing: [bigint, number][] = [];
    for (const [gpa, bytes] of broken)
      bytes.forEach((byte, at) => {
        if (byte !== sound.get(gpa)![at]) differing.push([gpa + BigInt(at), byte]);
      });
    expect(differing).toEqual([[addressOf(sampleSymbols(), 'BROKEN'), number]]);
  });
});

describe('symbols', () => {
  beforeAll(() => loadDemangler());

  test('every step is a function with lines of a source that is here', () => {
    const image = sampleSymbols();
    const names = {
      'entry.s': ['startup_32', 'find_c_bit', 'check_sev_status', 'build_page_tables', 'enter_long_mode'],
      'tables.rs': ['install_gdt', 'install_idt'],
      'ghcb.rs': ['negotiate_version', 'query_hypervisor_features', 'share_ghcb_page', 'register_ghcb'],
      'memory.rs': ['validate_memory', 'pvalidate_page'],
      'vc.rs': ['take_vc_exceptions', 'handle_trap', 'emulate_cpuid', 'emulate_rdmsr'],
      'console.rs': ['initialize_console', 'print'],
      'guest.rs': ['grant_guest_pages', 'register_guest_vmsa', 'run_guest', 'serve_request'],
      'guest.s': ['guest_entry', 'guest_query_protocol', 'guest_call_svsm', 'guest_finished'],
      'main.rs': ['svsm_main', 'end_with_success'],
    };
    for (const [source, functions] of Object.entries(names))
      for (const name of functions) {
        const line = image.lineAt(addressOf(image, name));
        expect([name, line?.file]).toEqual([
          name,
          fileURLToPath(new URL(`mini-svsm/src/${source}`, SAMPLES)),
        ]);
        const text = readFileSync(line!.file, 'utf8').split('\n');
        // In Rust the first line of a function is its signature; in assembly the first instruction.
        if (source.endsWith('.rs')) expect(text[line!.line - 1]).toContain(`fn ${name}(`);
        else expect(text[line!.line - 1]).toMatch(/^ {4}[a-z]/);
      }
  });

  test('no path of the machine it was built on', () => {
    for (const { recorded } of sampleSymbols().sources())
      expect(recorded).toMatch(/^\/(cvm-samples\/mini-svsm\/src|rustc\/[\d.]+\/library)\//);
  });
});

test('the launch configurations name files that are here', () => {
  const text = readFileSync(new URL('.vscode/launch.json', SAMPLES), 'utf8');
  const { configurations } = JSON.parse(text) as {
    configurations: { type: string; program: string; symbols: string[]; sourceMap: Record<string, string> }[];
  };
  expect(configurations.length).toBe(1 + Object.keys(BROKEN).length);
  for (const { type, program, symbols, sourceMap } of configurations) {
    expect(type).toBe('cvm');
    expect(sourceMap).toEqual({ '/cvm-samples': '${workspaceFolder}' });
    for (const path of [program, ...symbols])
      expect(existsSync(new URL(path.replace('${workspaceFolder}/', ''), SAMPLES))).toBe(true);
  }
});
