/** `cvm list`: a file as text. */
import { hex } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { parseIgvm } from '../igvm/index.ts';
import type { IgvmFile } from '../igvm/index.ts';
import { MAX_IGVM_BYTES, listingText } from '../listing/index.ts';
import { EXIT } from './exit-codes.ts';
import { parse } from './options.ts';
import { complain, print } from './output.ts';

async function open(path: string): Promise<IgvmFile> {
  return parseIgvm(await nodeHost.files.readFile(path, MAX_IGVM_BYTES));
}

export async function list(args: readonly string[]): Promise<number> {
  const { files } = parse(args, {}, 1);
  const file = await open(files[0]!);
  print(listingText(file, nodeHost.crypto));
  // The listing shows what is wrong; the exit code tells a script.
  const errors = file.diagnostics.filter((finding) => finding.severity === 'error');
  for (const finding of errors.slice(0, 20))
    complain(`cvm: ${files[0]}: ${finding.message} (at file offset ${hex(finding.offset)})`);
  return errors.length > 0 ? EXIT.badFile : EXIT.success;
}
