/** `cvm diff A B`: what differs between two IGVM files, and where their digests part. */
import { nodeHost } from '../base/node.ts';
import { MAX_IGVM_BYTES, diffImages, openImage } from '../listing/index.ts';
import type { DigestDifference, DirectiveDifference } from '../listing/index.ts';
import { EXIT } from './exit-codes.ts';
import { parse } from './options.ts';
import { print, printAll } from './output.ts';

export async function diff(args: readonly string[]): Promise<number> {
  const { values, files } = parse(args, { json: { type: 'boolean' } }, 2);
  const [left, right] = await Promise.all(
    files.map(async (path) =>
      openImage(await nodeHost.files.readFile(path, MAX_IGVM_BYTES), nodeHost.crypto),
    ),
  );
  const difference = diffImages(left!, right!);
  if (values.json) print(JSON.stringify({ left: files[0], right: files[1], ...difference }, null, 2));
  else {
    const pieces = [
      ...difference.header.map(({ field, left: a, right: b }) => `~ header ${field}: ${a} -> ${b}\n`),
    ];
    for (const one of difference.directives) pieces.push(...directiveLines(one));
    for (const one of difference.digests) pieces.push(...digestLines(one));
    await printAll(pieces);
  }
  return difference.equal ? EXIT.success : EXIT.differs;
}

function* directiveLines(one: DirectiveDifference): Generator<string> {
  switch (one.kind) {
    case 'added':
      return yield `+ #${one.right} ${one.rightText}\n`;
    case 'removed':
      return yield `- #${one.left} ${one.leftText}\n`;
    case 'moved':
      return yield `> #${one.left} -> #${one.right} ${one.rightText}\n`;
    default:
      yield `~ #${one.left} -> #${one.right} ${one.rightText}\n`;
      for (const { field, left, right } of one.fields) yield `    ${field}: ${left} -> ${right}\n`;
      if (one.contents) {
        const { offset, bytes, left, right } = one.contents;
        const count = bytes === 1 ? '1 byte differs' : `${bytes} bytes differ`;
        yield `    contents: ${count}, the first at 0x${offset.toString(16)}: ${left} -> ${right}\n`;
      }
  }
}

function* digestLines({ platform, left, right, equal, first, pages }: DigestDifference): Generator<string> {
  if (equal) return yield `= ${platform} digest ${left}\n`;
  yield `~ ${platform} digest\n    ${left ?? 'none'}\n    ${right ?? 'none'}\n`;
  if (!first) return;
  const side = (at: { directive: number; gpa: string } | undefined): string =>
    at ? `#${at.directive} at ${at.gpa}` : 'the end';
  yield `    they part at measured page ${first.page + 1}: ${side(first.left)} -> ${side(first.right)}\n`;
  yield `    until there both are ${first.agreed}\n`;
  const kinds = new Map<string, number>();
  for (const { kind } of pages) kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
  const counts = [...kinds].map(([kind, count]) => `${count} ${kind}`);
  yield `    measured pages: ${counts.join(', ')}\n`;
}
