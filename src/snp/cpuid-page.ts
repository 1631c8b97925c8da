/** The CPUID page of an SNP guest (SEV-SNP Firmware ABI, §8.17 "CPUID reporting", CPUID_FUNCTION). */
import { CvmError, readField, structure, writeField } from '../base/index.ts';

export const CPUID_PAGE_HEADER = structure('CPUID_PAGE', 16, [
  [0x0, 'COUNT', 'u32'],
  [0x4, 'RESERVED1', 'u32'],
  [0x8, 'RESERVED2', 'u64'],
]);
export const CPUID_FUNCTION = structure('CPUID_FUNCTION', 48, [
  [0x00, 'EAX_IN', 'u32'],
  [0x04, 'ECX_IN', 'u32'],
  [0x08, 'XCR0_IN', 'u64'],
  [0x10, 'XSS_IN', 'u64'],
  [0x18, 'EAX', 'u32'],
  [0x1c, 'EBX', 'u32'],
  [0x20, 'ECX', 'u32'],
  [0x24, 'EDX', 'u32'],
  [0x28, 'RESERVED', 'u64'],
]);
export const CPUID_PAGE_MAX_FUNCTIONS = 64;

export interface CpuidFunction {
  readonly leaf: number;
  readonly subleaf: number;
  readonly xcr0: bigint;
  readonly xss: bigint;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** 4096 bytes. @throws CvmError for more than 64 functions. */
export function encodeCpuidPage(functions: readonly CpuidFunction[]): Uint8Array {
  if (functions.length > CPUID_PAGE_MAX_FUNCTIONS)
    throw new CvmError('cpuid-page', `a CPUID page has at most ${CPUID_PAGE_MAX_FUNCTIONS} functions`);
  const page = new Uint8Array(4096);
  writeField(page, CPUID_PAGE_HEADER.field('COUNT'), BigInt(functions.length));
  functions.forEach((row, index) => {
    const base = CPUID_PAGE_HEADER.size + index * CPUID_FUNCTION.size;
    const put = (name: string, value: number | bigint): void =>
      writeField(page, CPUID_FUNCTION.field(name), BigInt(value), base);
    put('EAX_IN', row.leaf);
    put('ECX_IN', row.subleaf);
    put('XCR0_IN', row.xcr0);
    put('XSS_IN', row.xss);
    put('EAX', row.eax);
    put('EBX', row.ebx);
    put('ECX', row.ecx);
    put('EDX', row.edx);
  });
  return page;
}

/** The functions of a page. @throws CvmError if the count is over 64 or a reserved field is not zero. */
export function decodeCpuidPage(page: Uint8Array): CpuidFunction[] {
  const header = (name: string): bigint => readField(page, CPUID_PAGE_HEADER.field(name));
  const count = Number(header('COUNT'));
  if (count > CPUID_PAGE_MAX_FUNCTIONS)
    throw new CvmError('cpuid-page', `the CPUID page counts ${count} functions; the limit is 64`);
  if (header('RESERVED1') || header('RESERVED2'))
    throw new CvmError('cpuid-page', 'a reserved field of the CPUID page header is not zero');
  return Array.from({ length: count }, (_, index) => {
    const base = CPUID_PAGE_HEADER.size + index * CPUID_FUNCTION.size;
    const get = (name: string): bigint => readField(page, CPUID_FUNCTION.field(name), base);
    if (get('RESERVED'))
      throw new CvmError('cpuid-page', `function ${index} of the CPUID page has a reserved field set`);
    return {
      leaf: Number(get('EAX_IN')),
      subleaf: Number(get('ECX_IN')),
      xcr0: get('XCR0_IN'),
      xss: get('XSS_IN'),
      eax: Number(get('EAX')),
      ebx: Number(get('EBX')),
      ecx: Number(get('ECX')),
      edx: Number(get('EDX')),
    };
  });
}
