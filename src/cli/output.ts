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
