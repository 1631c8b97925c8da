/** CPUID signatures of guest processors: what KVM leaves in RDX of a VMSA. */
import { CvmError } from '../base/index.ts';

export interface CpuModel {
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
}

/** CPUID Fn0000_0001_EAX from family, model and stepping (APM vol. 3, appendix E.3.2). */
export function cpuSignature({ family, model, stepping }: CpuModel): number {
  const base = Math.min(family, 0xf);
  const extended = family > 0xf ? (family - 0xf) & 0xff : 0;
  return (
    ((extended << 20) |
      (((model >> 4) & 0xf) << 16) |
      (base << 8) |
      ((model & 0xf) << 4) |
      (stepping & 0xf)) >>>
    0
  );
}

const NAPLES: CpuModel = { family: 23, model: 1, stepping: 2 };
const ROME: CpuModel = { family: 23, model: 49, stepping: 0 };
const MILAN: CpuModel = { family: 25, model: 1, stepping: 1 };
const GENOA: CpuModel = { family: 25, model: 17, stepping: 0 };
const TURIN: CpuModel = { family: 26, model: 0, stepping: 0 };

/** QEMU's EPYC models by the names of `-cpu`. Versions of a model have one signature. */
export const CPU_MODELS: Readonly<Record<string, CpuModel>> = {
  EPYC: NAPLES,
  'EPYC-v1': NAPLES,
  'EPYC-v2': NAPLES,
  'EPYC-IBPB': NAPLES,
  'EPYC-v3': NAPLES,
  'EPYC-v4': NAPLES,
  'EPYC-v5': NAPLES,
  'EPYC-Rome': ROME,
  'EPYC-Rome-v1': ROME,
  'EPYC-Rome-v2': ROME,
  'EPYC-Rome-v3': ROME,
  'EPYC-Rome-v4': ROME,
  'EPYC-Rome-v5': ROME,
  'EPYC-Milan': MILAN,
  'EPYC-Milan-v1': MILAN,
  'EPYC-Milan-v2': MILAN,
  'EPYC-Milan-v3': MILAN,
  'EPYC-Genoa': GENOA,
  'EPYC-Genoa-v1': GENOA,
  'EPYC-Genoa-v2': GENOA,
  'EPYC-Turin': TURIN,
  'EPYC-Turin-v1': TURIN,
};

/** @throws CvmError `measure-cpu-type` for a name that is not in `CPU_MODELS`. */
export function signatureOfType(name: string): number {
  const model = Object.hasOwn(CPU_MODELS, name) ? CPU_MODELS[name] : undefined;
  if (!model)
    throw new CvmError(
      'measure-cpu-type',
      `there is no vCPU type '${name}'; known are ${Object.keys(CPU_MODELS).join(', ')}`,
      { name },
    );
  return cpuSignature(model);
}
