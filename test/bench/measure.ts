/**
 * `npm run bench:measure`: cvm measure and, where CVM_PEERS names a folder with it, igvmmeasure on generated files:
 * wall time (best of three) and peak memory. Needs `dist/cvm.cjs` and GNU time.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, rmSync, statSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { IgvmBuilder } from '../../src/igvm/index.ts';
import { Random, fixCrc } from '../igvm/random.ts';

const ROOT = process.cwd();
const BUNDLE = join(ROOT, 'dist/cvm.cjs');
const PEERS = process.env['CVM_PEERS'];
const MIB = 1 << 20;

/** An SNP image of `size` bytes of measured pages, written piece by piece. */
function generate(path: string, size: number): void {
  const pages = Math.floor(size / 4096) - 1;
  const builder = new IgvmBuilder({ version: 1 }).platform('SEV_SNP', 1).guestPolicy(0x30000n, 1);
  for (let page = 0; page < pages; page++) builder.page(BigInt(page) << 12n, 1);
  const vmsa = new Uint8Array(4096);
  vmsa[0x3b0] = 1;
  const headers = builder.vpContext(0xffff_ffff_f000n, 1, vmsa).build();
  const view = new DataView(headers.buffer);
  const start = view.getUint32(8, true);
  const dataStart = start + view.getUint32(12, true);
  view.setUint32(16, dataStart + (pages + 1) * 4096, true);
  let data = dataStart;
  for (let at = start; at < dataStart; at += 8 + Math.ceil(view.getUint32(at + 4, true) / 8) * 8)
    if (view.getUint32(at, true) === 0x302 || view.getUint32(at, true) === 0x304) {
      view.setUint32(at + 8 + 12, data, true);
      data += 4096;
    }
  const file = openSync(path, 'w');
  writeSync(file, fixCrc(headers).subarray(0, dataStart));
  const random = new Random(size);
  const noise = random.bytes(MIB);
  for (let left = pages * 4096; left > 0; left -= MIB) {
    // No two pages alike.
    new DataView(noise.buffer).setUint32(0, left, true);
    writeSync(file, noise.subarray(0, Math.min(left, MIB)));
  }
  writeSync(file, vmsa);
  closeSync(file);
}

interface Run {
  readonly seconds: number;
  /** Peak resident memory. */
  readonly mebibytes: number;
  readonly output: string;
}

function run(command: string, args: string[]): Run {
  let best: Run | undefined;
  for (let n = 0; n < 3; n++) {
    const { stdout, stderr, status } = spawnSync('/usr/bin/time', ['-f', '%e %M', command, ...args], {
      encoding: 'utf8',
    });
    if (status !== 0) throw new Error(`${command} ${args.join(' ')}: ${stderr}`);
    const [seconds, kilobytes] = stderr.trim().split('\n').at(-1)!.split(' ').map(Number);
    if (!best || seconds! < best.seconds)
      best = { seconds: seconds!, mebibytes: Math.round(kilobytes! / 1024), output: stdout };
  }
  return best!;
}

const folder = mkdtempSync(join(tmpdir(), 'cvm-bench-'));
try {
  for (const mebibytes of [64, 1024]) {
    const path = join(folder, `${mebibytes}.igvm`);
    generate(path, mebibytes * MIB);
    const headers = Math.round((statSync(path).size - mebibytes * MIB) / MIB);
    const mine = run(process.execPath, [BUNDLE, 'measure', path]);
    const digest = mine.output.trim();
    console.log(
      `${mebibytes} MiB (${headers} MiB of headers): cvm measure ${mine.seconds.toFixed(2)} s, peak ${mine.mebibytes} MiB`,
    );
    const peer = PEERS && join(PEERS, 'igvmmeasure');
    if (peer && existsSync(peer)) {
      const theirs = run(peer, [path, 'measure', '-b']);
      if (!theirs.output.toLowerCase().includes(digest)) throw new Error(`digests differ: ${theirs.output}`);
      console.log(
        `  igvmmeasure ${theirs.seconds.toFixed(2)} s, peak ${theirs.mebibytes} MiB; ratio ${(mine.seconds / theirs.seconds).toFixed(2)}; same digest`,
      );
    }
    rmSync(path);
  }
} finally {
  rmSync(folder, { recursive: true });
}
