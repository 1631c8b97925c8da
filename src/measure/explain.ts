/** Why a digest is not the expected one: the change of the launch, or of the file, that gives it. */
import { CvmError, hex } from '../base/index.ts';
import type { Crypto } from '../base/index.ts';
import { PROFILES, launchOperations } from '../igvm/index.ts';
import type { IgvmFile, IgvmHeader, ProfileName } from '../igvm/index.ts';
import { MEASURED_PLATFORMS, measureIgvm } from './measure.ts';
import type { MeasureOptions, Measurement } from './measure.ts';
import { PageStore, equalBytes } from './explain-pages.ts';
import type { Hypothesis, Variation } from './explain-hypotheses.ts';
import type { Page } from './explain-pages.ts';
import { explainReference } from './explain-reference.ts';
import type { Reference } from './explain-reference.ts';
import { Search } from './explain-search.ts';
import type { Cause, Launch } from './explain-search.ts';

export interface ExplainOptions extends MeasureOptions {
  /** The digest that was expected (an ID block's, a report's): 48 bytes, or 32 for SEV, SEV-ES and VBS. */
  readonly expected: Uint8Array;
  /** The policy that stands beside it there. */
  readonly expectedPolicy?: bigint;
  /** An image or a trace that is known to be good: names changed pages, which a digest alone cannot. */
  readonly reference?: Reference;
  /** SHA-384 computations after which the search ends; default two million, some ten seconds. */
  readonly effort?: number;
}

export interface Explanation {
  readonly expected: Uint8Array;
  /** What the image gives as it is asked for. */
  readonly measured: Uint8Array;
  readonly matches: boolean;
  /** The most likely first; empty if the digests match or nothing was found. */
  readonly causes: readonly Cause[];
  /** What is to be known besides: about the policy, about what a search cannot see. */
  readonly notes: readonly string[];
  /** Digests that were compared, and hashes computed for them. */
  readonly tried: number;
  readonly hashes: number;
  /** False: the effort was spent before everything was tried. */
  readonly complete: boolean;
}

export const DEFAULT_EFFORT = 2_000_000;

/** Names a header in a sentence: `#12 PAGE_DATA`. */
export const headerName =
  (file: Pick<IgvmFile, 'headers'>) =>
  (directive: number): string =>
    directive < 0 ? 'no directive' : `#${directive} ${file.headers[directive]?.type ?? 'header'}`;

/** What stays the same in every explanation. */
export function explanation(
  search: Search,
  store: PageStore,
  parts: Pick<Explanation, 'expected' | 'measured' | 'notes'>,
): Explanation {
  const matches = equalBytes(parts.expected, parts.measured);
  return {
    ...parts,
    matches,
    causes: matches ? [] : search.causes,
    tried: store.tried,
    hashes: store.hashes,
    complete: search.complete,
  };
}

/**
 * Finds what would make the image give the expected digest. Tried are, alone and in pairs: other loader profiles,
 * vCPU counts and CPU signatures, SEV_FEATURES bits, VMSA fields that a VMM sets, the treatment of empty pages,
 * page types, the order of pages, two pages swapped, a page or directive missing, doubled or elsewhere; and every
 * difference from the reference, if one is given. A changed byte cannot be found from a digest alone.
 *
 * @throws CvmError as `measureIgvm` does, and `explain-digest` for a digest of impossible length.
 */
export function explainDigest(file: IgvmFile, options: ExplainOptions, crypto: Crypto): Explanation {
  const { expected, reference } = options;
  if (expected.length !== 48 && expected.length !== 32)
    throw new CvmError('explain-digest', `a digest has 48 or 32 bytes, not ${expected.length}`);
  const base = measureIgvm(file, options, crypto);
  const store = new PageStore(crypto, options.effort ?? DEFAULT_EFFORT);
  const name = headerName(file);
  const { cpuSignature } = options;
  const search = new Search({
    store,
    expected,
    name,
    own: directiveHypotheses(file, base, store),
    ...(cpuSignature !== undefined && { signature: cpuSignature }),
  });
  const notes: string[] = [];
  const done = (): Explanation => explanation(search, store, { expected, measured: base.digest, notes });

  store.tried++;
  if (equalBytes(base.digest, expected)) {
    notes.push(...policyNotes(file, base, options));
    return done();
  }
  otherPlatforms(file, base, options, search, store);
  if (search.found) return done();
  if (base.platform.platformType !== 'SEV_SNP' || expected.length !== 48) {
    notes.push(
      base.platform.platformType === 'SEV_SNP'
        ? 'the expected digest has 32 bytes; a launch digest of SEV-SNP has 48'
        : 'only launch digests of SEV-SNP are searched beyond platforms and loader profiles',
    );
    return done();
  }
  const launches = launchesOf(file, base, options, store);
  const image = store.pages(base.operations);
  if (reference) explainReference({ image, file, reference, base, options, search, store, notes });
  if (!search.found) search.run(launches);
  if (!search.found && !reference)
    notes.push(
      'changed contents of a page cannot be found from a digest: give the image or the trace that the digest comes from as a reference',
    );
  return done();
}

/** The policy is no part of the digest; whoever changed it looks for a reason in vain. */
function policyNotes(file: IgvmFile, base: Measurement, options: ExplainOptions): string[] {
  const notes: string[] = [];
  const policy = policyOf(file, base.platform.compatibilityMask);
  const say = (other: bigint, whose: string): void => {
    if (policy === undefined || other === policy) return;
    notes.push(
      `the guest policy is ${hex(policy)}, ${whose} is ${hex(other)}: a policy does not change the digest, but a report and an ID block carry it`,
    );
  };
  if (options.expectedPolicy !== undefined) say(options.expectedPolicy, 'the one beside the expected digest');
  const { reference } = options;
  if (reference?.kind === 'image') {
    const other = policyOf(reference.file, base.platform.compatibilityMask);
    if (other !== undefined) say(other, "the reference's");
  }
  return notes;
}

export function policyOf(file: Pick<IgvmFile, 'headers'>, mask: number): bigint | undefined {
  for (const header of file.headers)
    if (header.type === 'GUEST_POLICY' && (header.compatibilityMask & mask) !== 0) return header.policy;
  return undefined;
}

/** Whether the digest is one of another platform of the file, or of the same by another loader or TDX order. */
function otherPlatforms(
  file: IgvmFile,
  base: Measurement,
  options: ExplainOptions,
  search: Search,
  store: PageStore,
): void {
  for (const platformType of MEASURED_PLATFORMS) {
    const own = platformType === base.platform.platformType;
    // Other launches of SNP are the search's, which names what exactly differs.
    if (own && platformType === 'SEV_SNP') continue;
    for (const profile of Object.keys(PROFILES) as ProfileName[])
      for (const tdxOrder of platformType === 'TDX' ? (['one-pass', 'two-pass'] as const) : [undefined]) {
        let other: Measurement;
        try {
          const { vcpus: _, ...rest } = options;
          other = measureIgvm(
            file,
            {
              ...rest,
              platformType,
              profile,
              ...(tdxOrder && { tdxOrder }),
              ...(own ? {} : { compatibilityMask: undefined }),
            } as MeasureOptions,
            store.crypto,
          );
        } catch (error) {
          if (error instanceof CvmError) continue;
          throw error;
        }
        store.tried++;
        if (!search.matches(other.digest)) continue;
        const words = `${own ? '' : `platform ${platformType} (not ${base.platform.platformType}) and `}loader profile ${profile}${
          tdxOrder === 'two-pass' ? ', in two passes' : ''
        }`;
        search.report([
          { category: own ? 'loader-profile' : 'other-platform', words, directive: other.platform.directive },
        ]);
        return;
      }
  }
}

/** The image as each loader on SNP would measure it, the asked-for one first. */
export function launchesOf(
  file: IgvmFile,
  base: Measurement,
  options: MeasureOptions,
  store: PageStore,
): Launch[] {
  const launch = (profile: ProfileName): Launch => ({
    category: 'loader-profile',
    words: `the directives read as ${PROFILES[profile].title} reads them (profile ${profile}; here: ${base.profile})`,
    pages: () => {
      const plan = launchOperations(file, { ...base.platform, profile });
      return plan.diagnostics.some(({ severity }) => severity === 'error')
        ? undefined
        : store.pages(plan.operations);
    },
  });
  const others = (Object.keys(PROFILES) as ProfileName[]).filter((profile) => profile !== base.profile);
  // With vCPUs asked for, the file's own VP contexts alone are another launch.
  const own =
    options.vcpus === undefined
      ? []
      : [{ ...launch(base.profile), category: 'vcpu-count' as const, words: "the file's VP contexts only" }];
  return [
    { category: 'loader-profile', words: '', pages: (): Page[] => store.pages(base.operations) },
    ...own,
    ...others.map(launch),
  ];
}

/**
 * Two directives swapped, one left out: where a loader does not take directives as they come (QEMU's runs of pages,
 * sorting by address), that is not the same as two pages swapped or left out.
 */
function directiveHypotheses(file: IgvmFile, base: Measurement, store: PageStore): Hypothesis[] {
  if (PROFILES[base.profile].order === 'file') return [];
  const mask = base.platform.compatibilityMask;
  const relevant = file.headers.filter(
    (header) => 'gpa' in header && 'compatibilityMask' in header && (header.compatibilityMask & mask) !== 0,
  );
  const name = headerName(file);
  const replan = (headers: readonly IgvmHeader[]): Page[] => {
    const renumbered = headers.map((header, index) => ({ ...header, index }));
    const plan = launchOperations(
      { ...file, headers: renumbered },
      { ...base.platform, profile: base.profile },
    );
    return store.pages(plan.operations);
  };
  const place = (header: IgvmHeader): Pick<Variation, 'directive' | 'gpa'> => ({
    directive: header.index,
    ...('gpa' in header && { gpa: header.gpa }),
  });
  const text = (header: IgvmHeader): string =>
    `${name(header.index)}${'gpa' in header ? ` at gpa ${hex(header.gpa)}` : ''}`;
  return [
    {
      category: 'page-missing',
      scope: 'each',
      *variations() {
        for (const gone of [...relevant].reverse())
          yield {
            ...place(gone),
            words: `${text(gone)} left out`,
            pages: () => replan(file.headers.filter((header) => header !== gone)),
          };
      },
    },
    {
      category: 'pages-swapped',
      scope: 'each',
      *variations() {
        for (let distance = 1; distance < relevant.length; distance++)
          for (let j = relevant.length - 1; j >= distance; j--) {
            const [a, b] = [relevant[j - distance]!, relevant[j]!];
            yield {
              ...place(a),
              words: `the order of ${text(a)} and ${text(b)} swapped`,
              pages: () => {
                const headers = [...file.headers];
                headers[a.index] = b;
                headers[b.index] = a;
                return replan(headers);
              },
            };
          }
      },
    },
  ];
}
