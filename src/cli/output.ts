/** Standard output and error. Writing to a pipe whose reader is gone ends the program quietly. */
const SIGPIPE = 128 + 13;

export function watchPipes(): void {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(SIGPIPE);
      throw error;
    });
}

export const print = (text: string): void => {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`);
};
export const complain = (text: string): void => {
  process.stderr.write(`${text}\n`);
};

/** Pieces of any number, no faster than the reader takes them. */
export async function printAll(pieces: Iterable<string>): Promise<void> {
  let buffer = '';
  const flush = async (): Promise<void> => {
    if (!process.stdout.write(buffer)) await new Promise((resolve) => process.stdout.once('drain', resolve));
    buffer = '';
  };
  for (const piece of pieces) {
    buffer += piece;
    if (buffer.length > 1 << 16) await flush();
  }
  if (buffer !== '') await flush();
}
