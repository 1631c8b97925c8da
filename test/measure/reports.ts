/** The public reports of the fixtures folder, with their certificates. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readCertificates } from '../../src/measure/x509.ts';
import type { Certificate } from '../../src/measure/x509.ts';

const folder = process.env['CVM_FIXTURES'] ? join(process.env['CVM_FIXTURES'], 'reports') : '';
export const haveFixtures = folder !== '' && existsSync(folder);

export const fixture = (name: string): Uint8Array => new Uint8Array(readFileSync(join(folder, name)));
export const fixturePath = (name: string): string => join(folder, name);
export const certificates = (...names: string[]): Certificate[] =>
  names.flatMap((name) => readCertificates(fixture(name)));

/** Report, endorsement key, issuers. */
export const REPORTS = [
  ['virtee-milan-report.hex', 'virtee-milan-vcek.der', 'chain-milan.pem'],
  ['go-sev-guest-report.bin', 'go-sev-guest-vcek.der', 'go-sev-guest-chain-milan.pem'],
  ['trustee-vcek-report.bin', 'trustee-vcek.der', 'chain-milan.pem'],
  ['trustee-vlek-report.bin', 'trustee-vlek.der', 'go-sev-guest-chain-milan-vlek.pem'],
  ['azure-hcl-report.bin', 'azure-vcek.pem', 'azure-vcek.pem'],
] as const;
