/** `cvm list`: a file as text. */
import { hex } from '../base/index.ts';
import { listingText } from '../listing/index.ts';
import { EXIT } from './exit-codes.ts';
import { parse } from './options.ts';
import { complain, print } from './output.ts';
import { withSource } from './source.ts';

export function list(args: readonly string[]): Promise<number> {
  const { files } = parse(args, {}, 1);
  return withSource(files[0]!, ({ file, crypto }) => {
    print(listingText(file, crypto));
    // The listing shows what is wrong; the exit code tells a script.
    const errors = file.diagnostics.filter((finding) => finding.severity === 'error');
    for (const finding of errors.slice(0, 20))
      complain(`cvm: ${files[0]}: ${finding.message} (at file offset ${hex(finding.offset)})`);
    return errors.length > 0 ? EXIT.badFile : EXIT.success;
  });
}
