/**
 * The table of hashes of kernel, initrd and command line that QEMU puts into the guest for direct boot
 * (`target/i386/sev.c`, `sev_add_kernel_loader_hashes`).
 */
import { CvmError } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { guidBytes } from './guid.ts';

const HEADER_GUID = '9438d606-4f22-4cc9-b479-a793d411fd21';
/** In the order of the table. */
const ENTRY_GUIDS = {
  cmdline: '97d02dd8-bd20-4c94-aa78-e7714d36ab2a',
  initrd: '44baf731-3a2f-4bd7-9af1-41e29169781d',
  kernel: '4de79437-abd2-427f-b835-d5b172d2045b',
} as const;
const HEADER_SIZE = 18;
const ENTRY_SIZE = 50;
/** Header and three entries. */
const TABLE_SIZE = HEADER_SIZE + 3 * ENTRY_SIZE;
/** Padded to 16. */
export const HASH_TABLE_SIZE = (TABLE_SIZE + 15) & ~15;
const PAGE_SIZE = 4096;

/** The bytes of a file, or their SHA-256 (32 bytes) where the file is too large to hold. */
export type FileContents = Uint8Array | { readonly sha256: Uint8Array };

export interface BootFiles {
  readonly kernel: FileContents;
  readonly initrd?: FileContents;
  /** Without the NUL that ends it. */
  readonly append?: string;
}

/** SHA-256 of each, as they stand in the table. An absent initrd is an empty one, so is a command line. */
export function kernelHashes(files: BootFiles, crypto: Crypto): Record<keyof typeof ENTRY_GUIDS, Uint8Array> {
  const hash = (contents: FileContents | undefined): Uint8Array =>
    contents === undefined || contents instanceof Uint8Array
      ? crypto.sha256(contents ?? new Uint8Array())
      : contents.sha256;
  return {
    cmdline: crypto.sha256(new TextEncoder().encode(`${files.append ?? ''}\0`)),
    initrd: hash(files.initrd),
    kernel: hash(files.kernel),
  };
}

/** The table with its padding: 176 bytes. */
export function hashTable(files: BootFiles, crypto: Crypto): Uint8Array {
  const hashes = kernelHashes(files, crypto);
  const table = new Uint8Array(HASH_TABLE_SIZE);
  const view = new DataView(table.buffer);
  table.set(guidBytes(HEADER_GUID));
  view.setUint16(16, TABLE_SIZE, true);
  let at = HEADER_SIZE;
  for (const [name, guid] of Object.entries(ENTRY_GUIDS)) {
    table.set(guidBytes(guid), at);
    view.setUint16(at + 16, ENTRY_SIZE, true);
    table.set(hashes[name as keyof typeof ENTRY_GUIDS], at + HEADER_SIZE);
    at += ENTRY_SIZE;
  }
  return table;
}

/**
 * The page with the table at `offset`, as SNP measures it.
 *
 * @throws CvmError `ovmf-format` if the table does not fit the page there.
 */
export function hashTablePage(files: BootFiles, offset: number, crypto: Crypto): Uint8Array {
  if (offset + HASH_TABLE_SIZE > PAGE_SIZE)
    throw new CvmError('ovmf-format', `the kernel hash table at offset ${offset} leaves its page`);
  const page = new Uint8Array(PAGE_SIZE);
  page.set(hashTable(files, crypto), offset);
  return page;
}
