/** Data of public projects, kept outside the repository: `CVM_FIXTURES` names the folder. */
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const FIXTURES = process.env['CVM_FIXTURES'] ?? join(ROOT, '../shared/fixtures');

export const fixturePath = (name: string): string => join(FIXTURES, name);

/** Whether all are there; says so on standard error if not, since the tests that need them are then left out. */
export function haveFixtures(...names: string[]): boolean {
  const missing = names.filter((name) => !existsSync(fixturePath(name)));
  if (missing.length > 0)
    console.warn(`LEFT OUT: tests that need ${missing.join(', ')} in ${FIXTURES} (set CVM_FIXTURES)`);
  return missing.length === 0;
}

export const fixture = (name: string): Uint8Array => new Uint8Array(readFileSync(fixturePath(name)));
