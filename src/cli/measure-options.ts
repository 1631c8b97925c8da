/** The options of `cvm measure`: our own, and every one of sev-snp-measure under its own name. */
import { CvmError, bytesToHex } from '../base/index.ts';
import type { OvmfLaunch, TdxOrder } from '../measure/index.ts';
import { usageError } from './options.ts';
import type { Options, Values } from './options.ts';

const TEXT = { type: 'string' } as const;
const FLAG = { type: 'boolean' } as const;

export const MEASURE_OPTIONS: Options = {
  platform: TEXT,
  loader: TEXT,
  'tdx-order': TEXT,
  trace: FLAG,
  json: FLAG,
  'vmsa-field': { type: 'string', multiple: true },
  'vmsa-gpa': TEXT,
  // sev-snp-measure's:
  verbose: { type: 'boolean', short: 'v' },
  mode: TEXT,
  vcpus: TEXT,
  'vcpu-type': TEXT,
  'vcpu-sig': TEXT,
  'vcpu-family': TEXT,
  'vcpu-model': TEXT,
  'vcpu-stepping': TEXT,
  'vmm-type': TEXT,
  ovmf: TEXT,
  kernel: TEXT,
  initrd: TEXT,
  append: TEXT,
  'guest-features': TEXT,
  'output-format': TEXT,
  'snp-ovmf-hash': TEXT,
  'dump-vmsa': FLAG,
  svsm: TEXT,
  'vars-size': TEXT,
  'vars-file': TEXT,
};

/** A number in decimal, 0x, 0o or 0b, as Python's `int(text, 0)` reads it. @throws CvmError `usage`. */
export function integer(name: string, text: unknown, limit: bigint): bigint | undefined {
  if (text === undefined) return undefined;
  const digits = String(text).trim().replaceAll('_', '');
  if (/^(\d+|0[xX][\da-fA-F]+|0[oO][0-7]+|0[bB][01]+)$/.test(digits)) {
    const value = BigInt(digits);
    if (value <= limit) return value;
  }
  throw usageError(`--${name} must be a number from 0 to 0x${limit.toString(16)}, not '${String(text)}'`);
}

const number = (name: string, text: unknown, limit: number): number | undefined => {
  const value = integer(name, text, BigInt(limit));
  return value === undefined ? undefined : Number(value);
};

type Processor = Pick<OvmfLaunch, 'vcpuType' | 'vcpuSig' | 'vcpuFamily' | 'vcpuModel' | 'vcpuStepping'>;

/** The guest's CPU as the options name it. @throws CvmError `usage`. */
export function processorOf(values: Values): Processor {
  const vcpuSig = number('vcpu-sig', values['vcpu-sig'], 0xffff_ffff);
  const vcpuFamily = number('vcpu-family', values['vcpu-family'], 0x10e);
  const vcpuModel = number('vcpu-model', values['vcpu-model'], 0xff);
  const vcpuStepping = number('vcpu-stepping', values['vcpu-stepping'], 0xf);
  return {
    ...(values['vcpu-type'] !== undefined && { vcpuType: String(values['vcpu-type']) }),
    ...(vcpuSig !== undefined && { vcpuSig }),
    ...(vcpuFamily !== undefined && { vcpuFamily }),
    ...(vcpuModel !== undefined && { vcpuModel }),
    ...(vcpuStepping !== undefined && { vcpuStepping }),
  };
}

/** The digest as `--output-format` wants it. @throws CvmError `usage`. */
export function digestText(digest: Uint8Array, values: Values): string {
  const format = values['output-format'] ?? 'hex';
  if (format === 'hex') return bytesToHex(digest);
  if (format === 'base64') return Buffer.from(digest).toString('base64');
  throw usageError(`--output-format must be hex or base64, not '${String(format)}'`);
}

/** @throws CvmError `usage`. */
export function tdxOrderOf(values: Values): TdxOrder | undefined {
  const order = values['tdx-order'];
  if (order === undefined || order === 'one-pass' || order === 'two-pass') return order;
  throw usageError(`--tdx-order must be one-pass or two-pass, not '${String(order)}'`);
}

const USAGE = ['measure-usage', 'measure-cpu-type', 'measure-vmsa-field'];

/** What contradicts itself in the options is a usage error, wherever it is found. */
export function withUsage<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof CvmError && USAGE.includes(error.code)) throw usageError(error.message);
    throw error;
  }
}
