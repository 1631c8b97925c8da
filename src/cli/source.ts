/** Opening IGVM files without holding them in memory, with a progress bar for large ones. */
import { CvmError, rangedCrypto } from '../base/index.ts';
import type { Crypto, RandomAccess } from '../base/index.ts';
import { nodeHost, openRandomAccess } from '../base/node.ts';
import { parseSparseIgvm } from '../igvm/index.ts';
import type { IgvmFile } from '../igvm/index.ts';

/** Files over this show how far the work is. */
const PROGRESS_ABOVE = 64 << 20;
const BAR = 30;

export interface Source {
  /** Its data is not in memory: hash it with `crypto`, look at it with nothing else. */
  readonly file: IgvmFile;
  readonly crypto: Crypto;
}

/** Runs `action` on a file read in ranges. @throws CvmError for a file that cannot be read. */
export async function withSource<T>(path: string, action: (source: Source) => Promise<T> | T): Promise<T> {
  const access = openRandomAccess(path);
  const bar = new ProgressBar(access);
  try {
    const file = parseSparseIgvm(access);
    return await action({
      file,
      crypto: rangedCrypto(nodeHost.crypto, file.bytes, access, (n) => bar.show(n)),
    });
  } finally {
    bar.end();
    access.close();
  }
}

/** @throws CvmError with the first error of the file: what the igvm crate would refuse. */
export function requireSound(path: string, file: IgvmFile): void {
  const error = file.diagnostics.find(({ severity }) => severity === 'error');
  if (error) throw new CvmError(error.code, error.message, { name: path, fileOffset: error.offset });
}

class ProgressBar {
  private readonly size: number;
  private readonly on: boolean;
  private shown = -1;

  constructor({ size }: RandomAccess) {
    this.size = size;
    this.on = process.stderr.isTTY === true && size > PROGRESS_ABOVE;
  }

  show(bytes: number): void {
    if (!this.on) return;
    const percent = Math.min(100, Math.floor((100 * bytes) / this.size));
    if (percent === this.shown) return;
    this.shown = percent;
    const full = Math.round((percent * BAR) / 100);
    process.stderr.write(`\r[${'#'.repeat(full)}${'.'.repeat(BAR - full)}] ${percent} %`);
  }

  end(): void {
    if (this.shown >= 0) process.stderr.write('\r\x1b[K');
  }
}
