/**
 * The command line: arguments in, text and an exit code out. Thin: what a command does is in the other
 * rooms; this one never parses a file, hashes a page or drives a processor by itself.
 */
import { CvmError } from '../base/index.ts';
import { build } from './build.ts';
import { check } from './check.ts';
import { corim } from './corim.ts';
import { diff } from './diff.ts';
import { EXIT } from './exit-codes.ts';
import { explain } from './explain.ts';
import { HELP } from './help.ts';
import { idBlock } from './id-block.ts';
import { list } from './list.ts';
import { measure } from './measure.ts';
import { complain, print, watchPipes } from './output.ts';
import { report } from './report.ts';
import { run } from './run.ts';
import { dap, lsp } from './serve.ts';
import { verify } from './verify.ts';

const COMMANDS: Readonly<Record<string, (args: readonly string[]) => Promise<number>>> = {
  list,
  measure,
  explain,
  diff,
  check,
  build,
  verify,
  'id-block': idBlock,
  report,
  corim,
  run,
  dap,
  lsp,
};

async function main(args: readonly string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    const about = name === 'help' ? (rest[0] ?? '') : '';
    if (name === undefined) {
      complain(HELP['']!);
      return EXIT.usage;
    }
    print(HELP[about] ?? HELP['']!);
    return EXIT.success;
  }
  const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  if (!command) {
    complain(`cvm: there is no command '${name}'. Commands: ${Object.keys(COMMANDS).join(', ')}`);
    return EXIT.usage;
  }
  // Everything behind `--` is a file name.
  const end = rest.indexOf('--');
  if ((end < 0 ? rest : rest.slice(0, end)).some((arg) => arg === '--help' || arg === '-h')) {
    print(HELP[name]!);
    return EXIT.success;
  }
  try {
    return await command(rest);
  } catch (error) {
    if (!(error instanceof CvmError)) throw error;
    complain(`cvm: ${describe(error)}`);
    if (error.code !== 'usage') return error.code === 'not-implemented' ? EXIT.notImplemented : EXIT.badFile;
    complain(`cvm ${name} --help tells how it is used`);
    return EXIT.usage;
  }
}

/** The message, and the place where the message does not name it already. */
const describe = (error: CvmError): string =>
  error.place.name !== undefined && error.message.includes(error.place.name)
    ? error.message
    : error.toString();

watchPipes();
main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    complain(`cvm: internal error: ${(error as Error).stack ?? String(error)}`);
    process.exitCode = EXIT.internal;
  },
);
