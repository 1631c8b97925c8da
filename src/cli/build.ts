/** `cvm build`: an IGVM file from a declarative description (docs/build.md). */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { CvmError, bytesToHex, hex } from '../base/index.ts';
import { nodeHost } from '../base/node.ts';
import { buildFromSpec, parseIgvm } from '../igvm/index.ts';
import { checkImage, firmwareDescriptor, measureIgvm } from '../measure/index.ts';
import { EXIT } from './exit-codes.ts';
import { parse, usageError } from './options.ts';
import { complain, print } from './output.ts';

const MAX_SPEC_BYTES = 64 << 20;

export async function build(args: readonly string[]): Promise<number> {
  const { values, files } = parse(
    args,
    {
      output: { type: 'string', short: 'o' },
      json: { type: 'boolean' },
      'firmware-descriptor': { type: 'string' },
    },
    1,
  );
  if (values.output === undefined) throw usageError('-o FILE is missing');
  const output = String(values.output);
  const path = files[0]!;
  const text = new TextDecoder().decode(await nodeHost.files.readFile(path, MAX_SPEC_BYTES));
  let spec: unknown;
  try {
    spec = JSON.parse(text);
  } catch (error) {
    throw new CvmError('igvm-spec', `${path} is no JSON: ${(error as Error).message}`, { name: path });
  }
  const read = new Map<string, Uint8Array>();
  const bytes = buildFromSpec(spec, (name) => {
    // Paths are relative to the description.
    const file = resolve(dirname(path), name);
    let contents = read.get(file);
    if (!contents) {
      try {
        contents = new Uint8Array(readFileSync(file));
      } catch (error) {
        throw new CvmError('file-not-found', `cannot read ${file}: ${(error as Error).message}`, {
          name: file,
        });
      }
      read.set(file, contents);
    }
    return contents;
  });
  const file = parseIgvm(bytes);
  const found = checkImage(file, { profile: 'file-order' });
  for (const { severity, message, offset } of found)
    if (severity === 'error' || severity === 'warning')
      complain(`cvm: ${severity}: ${message} (at file offset ${hex(offset)})`);
  if (found.some(({ severity }) => severity === 'error')) {
    complain(`cvm: ${output} is not written`);
    return EXIT.badFile;
  }
  writeFileSync(output, bytes);
  if (values['firmware-descriptor'] !== undefined)
    writeFileSync(
      String(values['firmware-descriptor']),
      `${JSON.stringify(firmwareDescriptor(file, resolve(output)), null, 4)}\n`,
    );
  if (values.json) print(JSON.stringify({ output, bytes: bytes.length, ...digestOf(file) }, null, 2));
  return EXIT.success;
}

function digestOf(file: ReturnType<typeof parseIgvm>): { platform?: string; digest?: string } {
  try {
    const { platform, digest } = measureIgvm(file, {}, nodeHost.crypto);
    return { ...(platform.platformType && { platform: platform.platformType }), digest: bytesToHex(digest) };
  } catch (error) {
    // A file for platforms without a launch measurement is a file all the same.
    if (error instanceof CvmError) return {};
    throw error;
  }
}
