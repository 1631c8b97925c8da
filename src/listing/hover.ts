import { bytesToHex, hex } from '../base/index.ts';
import { PAGE_SIZE, dataOf, headerFields } from '../igvm/index.ts';
import type { FieldValue, IgvmHeader } from '../igvm/index.ts';
import { gpaText, idText, pageKind } from './columns.ts';
import { hexDump } from './hexdump.ts';
import type { Image, ImagePlatform } from './image.ts';
import { MEANINGS, PAGE_MEANINGS } from './meanings.ts';
import { policyAbi, policyBits } from './policy.ts';
import type { Listing, ListingLine } from './text.ts';
import { describeContext, vpContext } from './vp-context.ts';
import type { VpContext } from './vp-context.ts';

const DUMP_ROWS = 16;

/** What a line of the listing has to say, as Markdown; `undefined` for titles and blank lines. */
export function hoverText(image: Image, listing: Listing, line: number): string | undefined {
  const at = listing.lines[line];
  if (at?.kind === 'file') return fileHover(image);
  if (at?.kind !== 'directive') return undefined;
  const header = image.file.headers[at.last];
  if (!header) return undefined;
  const parts = [
    title(image, header, at),
    MEANINGS[header.type],
    ...details(image, header),
    ...(header.type === 'VP_CONTEXT'
      ? [...contents(image, at), ...measurements(image, at)]
      : [...measurements(image, at), ...contents(image, at)]),
  ];
  return parts.join('\n\n');
}

/** Text that Markdown must not interpret: the file's own strings. */
const literal = (text: string) => text.replace(/[\\`*_{}[\]()#+\-.!|<>&~]/g, '\\$&');

function fileHover({ file }: Image): string {
  const { header } = file;
  const valid = header.crc32 === header.computedCrc32;
  const crc = valid ? 'valid' : `does not match, computed \`${hex(header.computedCrc32, 8)}\``;
  return [
    '**Fixed header** of the IGVM file',
    table([
      ['Format version', `${header.version}`],
      ['Total file size', `${header.totalFileSize} bytes`],
      [
        'Variable headers',
        `${header.variableHeaderSize} bytes at file offset \`${hex(header.variableHeaderOffset)}\``,
      ],
      ['CRC-32', `\`${hex(header.crc32, 8)}\`, ${crc}`],
    ]),
  ].join('\n\n');
}

function title(image: Image, header: IgvmHeader, at: ListingLine): string {
  const total = image.file.headers.length;
  const place =
    at.first === at.last
      ? `header ${at.first + 1} of ${total}, file offset \`${hex(header.offset)}\``
      : `headers ${at.first + 1} to ${at.last + 1} of ${total}`;
  return `**${literal(header.type)}** — ${place}`;
}

function details(image: Image, header: IgvmHeader): string[] {
  switch (header.type) {
    case 'PAGE_DATA': {
      const words = pageKind(header).split(' ');
      const meanings = words.flatMap((word) =>
        PAGE_MEANINGS[word] ? [`${word}: ${PAGE_MEANINGS[word]}`] : [],
      );
      return [`Applies to ${appliesTo(image, header.compatibilityMask)}. ${sentence(meanings.join('; '))}`];
    }
    case 'GUEST_POLICY': {
      const rows = policyBits(header.policy).map(
        ({ bit, name, set, meaning }) => [`${set ? '☑' : '☐'} ${name} (bit ${bit})`, meaning] as const,
      );
      return [
        `Applies to ${appliesTo(image, header.compatibilityMask)}. Firmware API ${policyAbi(header.policy)} or newer.`,
        table(rows),
      ];
    }
    case 'VP_CONTEXT':
    case 'UNKNOWN':
    case 'VERSION_STRING':
      return 'compatibilityMask' in header
        ? [`Applies to ${appliesTo(image, header.compatibilityMask)}.`]
        : [];
    default: {
      const rows = headerFields(header)
        .filter(({ field }) => !field.name.startsWith('reserved'))
        .map(({ field, value }) => [field.name, fieldText(field.name, value)] as const);
      const applies =
        'compatibilityMask' in header ? [`Applies to ${appliesTo(image, header.compatibilityMask)}.`] : [];
      return [...applies, table(rows)];
    }
  }
}

const sentence = (text: string) => (text ? `${text[0]!.toUpperCase()}${text.slice(1)}.` : '');

function fieldText(name: string, value: FieldValue): string {
  if (value instanceof Uint8Array) {
    if (/Id$/.test(name)) return `\`${idText(value)}\``;
    const shown = bytesToHex(value.subarray(0, 48));
    return `\`${shown}${value.length > 48 ? '…' : ''}\``;
  }
  return typeof value === 'bigint' || value > 9 ? `\`${hex(value)}\`` : `${value}`;
}

function appliesTo(image: Image, mask: number): string {
  const names = image.platforms.filter((platform) => platform.mask & mask).map(({ title: name }) => name);
  return names.length > 0 ? names.join(', ') : `no declared platform (mask \`${hex(mask)}\`)`;
}

/** The digest after the directive, for each platform that counts it; what was hashed of its page. */
function measurements(image: Image, at: ListingLine): string[] {
  return image.platforms.flatMap((platform) => {
    const measured = platform.measurement;
    if (!measured || 'problem' in measured || !measured.steps) return [];
    const step = measured.steps.ofDirective(at.last);
    if (!step)
      return applies(image, at, platform) ? [`${platform.title}: adds nothing to the launch digest.`] : [];
    const after = at.first === at.last ? 'after this directive' : 'after the last of these pages';
    return [
      `${platform.title} launch digest ${after} (page type \`${step.pageType}\`):`,
      digits(bytesToHex(step.digest)),
      ...(step.contentsHash.some((byte) => byte !== 0)
        ? [
            `Contents hash (SHA-384)${at.first === at.last ? '' : ' of the last page'}:`,
            digits(bytesToHex(step.contentsHash)),
          ]
        : []),
    ];
  });
}

function applies(image: Image, at: ListingLine, platform: ImagePlatform): boolean {
  const header = image.file.headers[at.last];
  if (!header || header.section !== 'directive') return false;
  return !('compatibilityMask' in header) || (header.compatibilityMask & platform.mask) !== 0;
}

function contents(image: Image, at: ListingLine): string[] {
  const header = image.file.headers[at.first]!;
  if (header.type === 'VP_CONTEXT') {
    const context = vpContext(image, header);
    if (context) {
      return [
        `Virtual processor ${header.vpIndex}: ${describeContext(context)}. Fields of ${context.table.name} that are not zero:`,
        code(contextRows(context).join('\n'), 'vmsa'),
      ];
    }
  }
  if (!header.data) return [];
  const bytes = dataOf(image.file, header.data);
  const start = 'gpa' in header ? header.gpa : 0n;
  const shown = Math.min(bytes.length, PAGE_SIZE);
  const where = 'gpa' in header ? `at ${gpaText(start)}` : `of ${shown} bytes`;
  const source = `file offset \`${hex(header.data.fileOffset)}\``;
  return [
    `First contents ${where} (${source}):`,
    code(hexDump(bytes.subarray(0, shown), start, DUMP_ROWS), 'hexdump'),
  ];
}

/** A digest in lines of 48 digits: 96 are wider than a hover. */
const digits = (text: string) => (text.match(/.{1,48}/g) ?? []).map((part) => `\`${part}\``).join('  \n');

/** `0x178  rip  0xfff0`: one row a field, segment registers in one row each and last. */
function contextRows({ fields }: VpContext): string[] {
  const rows: string[] = [];
  const segments = new Map<string, string[]>();
  for (const { name, offset, value, note } of fields) {
    if (value === 0n) continue;
    const [segment, part] = name.split('.') as [string, string?];
    if (part === undefined) {
      rows.push(`${hex(offset, 3)}  ${name.padEnd(14)}  ${hex(value).padEnd(18)}  ${note ?? ''}`.trimEnd());
      continue;
    }
    const words = segments.get(segment) ?? [`${hex(offset, 3)}  ${segment.padEnd(14)}`];
    words.push(`${part === 'attributes' ? `(${note ?? hex(value)})` : `${part} ${hex(value)}`}`);
    segments.set(segment, words);
  }
  return [...rows, ...[...segments.values()].map(([head, ...words]) => `${head}  ${words.join(' ')}`)];
}

const code = (text: string, language: string) => `\`\`\`${language}\n${text}\n\`\`\``;

function table(rows: readonly (readonly [string, string])[]): string {
  if (rows.length === 0) return '';
  const cell = (text: string) => text.replaceAll('|', '\\|').replaceAll('\n', ' ');
  return ['| | |', '|:--|:--|', ...rows.map(([name, value]) => `| ${cell(name)} | ${cell(value)} |`)].join(
    '\n',
  );
}
