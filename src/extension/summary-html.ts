import type {
  IdBlockSummary,
  IgvmSummary,
  PlatformSummary,
  PolicySummary,
  ProcessorSummary,
  RegionKind,
  RegionSummary,
  SummaryDiagnostic,
} from '../listing/index.ts';

/** What the page needs from its webview. */
export interface PageResources {
  readonly cspSource: string;
  readonly style: string;
  readonly script: string;
  /** Name of the file, for the heading. */
  readonly name: string;
}

/** Text for HTML content and for attribute values in double quotes. */
const escape = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const html = (strings: TemplateStringsArray, ...values: (string | number | Raw | readonly Raw[])[]): Raw => {
  let text = strings[0] ?? '';
  values.forEach((value, i) => {
    const parts = Array.isArray(value) ? value : [value];
    for (const part of parts as (string | number | Raw)[])
      text += part instanceof Raw ? part.text : escape(String(part));
    text += strings[i + 1] ?? '';
  });
  return new Raw(text);
};

/** Markup that is already escaped. */
class Raw {
  readonly text: string;
  constructor(text: string) {
    this.text = text;
  }
}
const NOTHING = new Raw('');

function page(body: Raw, { cspSource, style, script, name }: PageResources): string {
  // Everything comes from the extension's media folder; nothing inline, nothing from elsewhere.
  const policy = `default-src 'none'; style-src ${cspSource}; script-src ${cspSource};`;
  return html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="${policy}" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <link rel="stylesheet" href="${style}" />
        <title>${name}</title>
      </head>
      <body>
        <main>${body}</main>
        <script src="${script}"></script>
      </body>
    </html>`.text;
}

/** The whole page; pure. */
export function renderSummary(summary: IgvmSummary, resources: PageResources): string {
  const isProblem = ({ severity }: SummaryDiagnostic) => severity === 'error' || severity === 'warning';
  const problems = summary.diagnostics.filter(isProblem);
  const remarks = summary.diagnostics.filter((entry) => !isProblem(entry));
  const body = html` <header class="top">
      <div>
        <h1>${resources.name}</h1>
        <p class="subtitle">${subtitle(summary)}</p>
      </div>
      <div class="actions">
        <button data-command="debug" class="primary" title="Run this guest in the debugger (F5)">
          Debug
        </button>
        <button data-command="listing" title="Every directive of the file, as text">Open listing</button>
      </div>
    </header>
    ${diagnostics('Problems', problems)} ${fileHeader(summary)}
    ${summary.platforms.length === 0 ? html`<p class="empty">The file declares no platform.</p>` : NOTHING}
    ${summary.platforms.map((platform) => platformSection(platform))} ${diagnostics('Remarks', remarks)}`;
  return page(body, resources);
}

/** The page of a file that could not be read at all. */
export function renderProblem(message: string, resources: PageResources): string {
  const body = html`<header class="top">
      <div><h1>${resources.name}</h1></div>
    </header>
    <p class="problem error">${message}</p>`;
  return page(body, resources);
}

function subtitle(summary: IgvmSummary): string {
  const platforms = summary.platforms.map((platform) => platform.title).join(', ');
  const label = summary.versionString ? ` · ${summary.versionString}` : '';
  return `IGVM image${platforms ? ` for ${platforms}` : ''} · ${bytes(summary.fileBytes)}${label}`;
}

function fileHeader({ header }: IgvmSummary): Raw {
  if (!header) return NOTHING;
  return html`<section class="facts">
    ${fact('Format', `version ${header.version}, ${header.architecture}, ${bytes(header.pageSize)} pages`)}
    ${fact('Directives', `${header.directives.toLocaleString('en')} in ${bytes(header.headerBytes)}`)}
    ${fact('Page contents', bytes(header.dataBytes))}
    ${fact('CRC-32', header.crc, header.crcValid ? badge('valid', 'good') : badge('does not match', 'bad'))}
  </section>`;
}

const fact = (name: string, value: string, extra: Raw = NOTHING) =>
  html`<div class="fact"><span class="name">${name}</span><span class="value">${value} ${extra}</span></div>`;

const badge = (text: string, tone: 'good' | 'bad' | 'plain') =>
  html`<span class="badge ${tone}">${text}</span>`;

function diagnostics(title: string, list: readonly SummaryDiagnostic[]): Raw {
  if (list.length === 0) return NOTHING;
  const shown = list.slice(0, 100);
  const rest = list.length - shown.length;
  return html`<section class="diagnostics">
    <h2>${title} <span class="count">${list.length}</span></h2>
    <ul>
      ${shown.map(
        (entry) =>
          html`<li class="problem ${entry.severity}">
            <span class="severity">${entry.severity}</span>
            <span class="message">${entry.message}</span>
            ${link(`file offset 0x${entry.offset.toString(16)}`, entry.line)}
          </li>`,
      )}
      ${rest > 0 ? html`<li class="problem info">${rest} more are in the listing</li>` : NOTHING}
    </ul>
  </section>`;
}

/** A way to a line of the listing; plain text where there is no line. */
const link = (text: string, line: number | undefined) =>
  line === undefined
    ? html`<span class="place">${text}</span>`
    : html`<button class="link" data-command="listing" data-argument="${line}" title="Show in the listing">
        ${text}
      </button>`;

function platformSection(platform: PlatformSummary): Raw {
  return html`<section class="platform">
    <h2>${platform.title} <span class="count">mask 0x${platform.mask.toString(16)}</span></h2>
    ${digest(platform)}
    <div class="columns">
      ${platform.policy ? policy(platform.policy) : NOTHING}
      <div>
        ${platform.type === 'SEV_SNP' || platform.idBlock ? idBlock(platform.idBlock) : NOTHING}
        ${processors(platform.processors)}
      </div>
    </div>
    ${memoryMap(platform)}
  </section>`;
}

function digest(platform: PlatformSummary): Raw {
  if (!platform.digest)
    return platform.digestProblem
      ? html`<p class="problem warning">No launch digest: ${platform.digestProblem}</p>`
      : html`<p class="empty">This platform has no launch measurement.</p>`;
  return html`<div class="digest">
    <span class="name">Launch digest${platform.digestAlgorithm ? ` (${platform.digestAlgorithm})` : ''}</span>
    <code id="digest-${platform.mask}"
      >${platform.digest.match(/.{1,8}/g)?.map((word) => html`<span>${word}</span>`) ?? []}</code
    >
    <button data-command="digest" data-argument="${platform.mask}" title="Copy launch digest">Copy</button>
  </div>`;
}

function policy(value: PolicySummary): Raw {
  return html`<div class="card">
    <h3>Guest policy <code>${value.value}</code></h3>
    <table class="bits">
      <tbody>
        <tr>
          <td class="mark">·</td>
          <th>ABI</th>
          <td>firmware API ${value.abi} or newer</td>
        </tr>
        ${value.bits.map(
          (bit) =>
            html`<tr class="${bit.set ? 'set' : 'clear'}">
              <td class="mark">${bit.set ? '✓' : '–'}</td>
              <th>${bit.name}</th>
              <td>${bit.meaning}</td>
            </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function idBlock(block: IdBlockSummary | undefined): Raw {
  if (!block)
    return html`<div class="card">
      <h3>ID block ${badge('none', 'plain')}</h3>
      <p class="empty">The owner's identity is not bound to this image: any launch digest is accepted.</p>
    </div>`;
  const match =
    block.matches === undefined
      ? NOTHING
      : block.matches
        ? badge('digest matches', 'good')
        : badge('digest differs', 'bad');
  return html`<div class="card">
    <h3>ID block ${match}</h3>
    <dl>
      <dt>Family</dt>
      <dd><code>${block.familyId}</code></dd>
      <dt>Image</dt>
      <dd><code>${block.imageId}</code></dd>
      <dt>Guest SVN</dt>
      <dd>${block.guestSvn}</dd>
      ${
        block.policy
          ? html`<dt>Policy</dt>
              <dd><code>${block.policy}</code></dd>`
          : NOTHING
      }
      <dt>Author key</dt>
      <dd>${block.authorKey ? 'present' : 'none'}</dd>
      ${
        block.matches === false
          ? html`<dt>Signed for</dt>
              <dd><code>${block.launchDigest}</code></dd>`
          : NOTHING
      }
    </dl>
  </div>`;
}

function processors(list: readonly ProcessorSummary[]): Raw {
  if (list.length === 0) return NOTHING;
  return html`<div class="card">
    <h3>Processors <span class="count">${list.length}</span></h3>
    <dl>
      ${list.slice(0, 16).map(
        (entry) =>
          html`<dt>vCPU ${entry.index}</dt>
            <dd>${entry.description}<br /><span class="place">state at ${entry.gpa}</span></dd>`,
      )}
      ${
        list.length > 16
          ? html`<dt>…</dt>
              <dd>${list.length - 16} more in the listing</dd>`
          : NOTHING
      }
    </dl>
  </div>`;
}

const KINDS: Readonly<Record<RegionKind, string>> = {
  data: 'measured contents',
  zero: 'measured zeros',
  unmeasured: 'unmeasured',
  shared: 'shared',
  secrets: 'secrets page',
  cpuid: 'CPUID page',
  vmsa: 'processor state',
  parameter: 'parameters',
  required: 'required memory',
  error: 'error range',
};
/** A table longer than this helps nobody; the listing has everything. */
const MAX_ROWS = 200;

function memoryMap(platform: PlatformSummary): Raw {
  const { regions } = platform;
  if (regions.length === 0) return NOTHING;
  const totals = new Map<RegionKind, number>();
  for (const region of regions) totals.set(region.kind, (totals.get(region.kind) ?? 0) + region.pages);
  const legend = [...totals].map(
    ([kind, pages]) =>
      html`<li>
        <span class="swatch ${kind}"></span>${KINDS[kind]} <span class="count">${bytes(pages * 4096)}</span>
      </li>`,
  );
  const rows = regions.slice(0, MAX_ROWS).map(
    (region) =>
      html`<tr>
        <td><span class="swatch ${region.kind}"></span></td>
        <td class="address">${link(`${region.start} – ${region.end}`, region.line)}</td>
        <td class="number">${bytes(region.pages * 4096)}</td>
        <td>${KINDS[region.kind]}</td>
        <td class="title">${region.title}</td>
      </tr>`,
  );
  return html`<h3>Memory map</h3>
    ${picture(regions)}
    <ul class="legend">
      ${legend}
    </ul>
    <table class="map">
      <thead>
        <tr>
          <th></th>
          <th>Guest-physical</th>
          <th class="number">Size</th>
          <th>Kind</th>
          <th>What</th>
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>
    ${regions.length > MAX_ROWS ? html`<p class="empty">${regions.length - MAX_ROWS} more ranges are in the listing.</p>` : NOTHING}`;
}

/**
 * The map as one strip, from low to high addresses. Widths grow with the logarithm of the size, or one
 * page of secrets would vanish beside a megabyte of code; unused address space is a narrow gap.
 */
function picture(all: readonly RegionSummary[]): Raw {
  const regions = withoutOverlap(all.slice(0, 400));
  const width = (pages: number) => 6 + 4 * Math.log2(1 + pages);
  const GAP = 5;
  const bars: Raw[] = [];
  let x = 0;
  let end = -1n;
  for (const region of regions) {
    const { start } = region;
    if (end >= 0n && start > end) {
      bars.push(
        html`<line
          class="gap"
          x1="${(x + GAP / 2).toFixed(1)}"
          x2="${(x + GAP / 2).toFixed(1)}"
          y1="8"
          y2="32"
        />`,
      );
      x += GAP;
    }
    const size = Number(region.end - region.start);
    const w = width(size / 4096);
    const range = `0x${start.toString(16)} – 0x${region.end.toString(16)}`;
    const tip = `${range}: ${KINDS[region.kind]}, ${bytes(size)}. ${region.title}`;
    bars.push(
      html`<rect
        class="${region.kind}"
        x="${x.toFixed(1)}"
        y="2"
        width="${(w - 0.8).toFixed(1)}"
        height="36"
        rx="1"
        ><title>${tip}</title></rect
      >`,
    );
    x += w;
    end = region.end;
  }
  return html`<svg
      class="strip"
      viewBox="0 0 ${x.toFixed(1)} 40"
      preserveAspectRatio="none"
      role="img"
      aria-label="Memory map from low to high addresses"
    >
      ${bars}
    </svg>
    <div class="ends">
      <span>${regions[0] ? `0x${regions[0].start.toString(16)}` : ''}</span
      ><span>${end >= 0n ? `0x${end.toString(16)}` : ''}</span>
    </div>`;
}

interface Segment {
  readonly kind: RegionKind;
  readonly title: string;
  readonly start: bigint;
  readonly end: bigint;
}

/**
 * Segments by address, each address once: required memory gives way to what is loaded into it, and of two
 * other ranges the earlier one stays.
 */
function withoutOverlap(regions: readonly RegionSummary[]): Segment[] {
  const all = regions.map(({ kind, title, start, end }): Segment => ({
    kind,
    title,
    start: BigInt(start),
    end: BigInt(end),
  }));
  const byStart = (a: Segment, b: Segment) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0);
  const taken: Segment[] = [];
  for (const region of all.filter(({ kind }) => kind !== 'required').sort(byStart)) {
    const last = taken.at(-1);
    const start = last && last.end > region.start ? last.end : region.start;
    if (start < region.end) taken.push({ ...region, start });
  }
  const free: Segment[] = [];
  for (const region of all.filter(({ kind }) => kind === 'required')) {
    let at = region.start;
    for (const { start, end } of [...taken, ...free].sort(byStart)) {
      if (end <= at || start >= region.end) continue;
      if (start > at) free.push({ ...region, start: at, end: start });
      at = end;
    }
    if (at < region.end) free.push({ ...region, start: at });
  }
  return [...taken, ...free].sort(byStart);
}

/** `1.5 MiB`; exact below a KiB. */
export function bytes(count: number): string {
  for (const [unit, name] of [
    [2 ** 30, 'GiB'],
    [2 ** 20, 'MiB'],
    [2 ** 10, 'KiB'],
  ] as const)
    if (count >= unit) return `${(count / unit).toLocaleString('en', { maximumFractionDigits: 1 })} ${name}`;
  return `${count} ${count === 1 ? 'byte' : 'bytes'}`;
}
