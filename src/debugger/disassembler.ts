/** Instructions of memory, by iced-x86: text for the disassembly view, lengths and control flow for stepping. */
import { Decoder, DecoderOptions, FlowControl, Formatter, FormatterSyntax } from 'iced-x86';
import type { Instruction as IcedInstruction } from 'iced-x86';

export interface Instruction {
  readonly address: bigint;
  readonly length: number;
  readonly bytes: Uint8Array;
  /** Intel syntax. */
  readonly text: string;
  readonly valid: boolean;
  readonly flow: 'next' | 'branch' | 'conditional' | 'call' | 'return' | 'interrupt' | 'other';
  /** Of a direct near branch or call. */
  readonly target: bigint | undefined;
  /** What it adds to the stack pointer, in bytes (PUSH -8); only meaningful for stack instructions. */
  readonly stackIncrement: number;
}

/** Longest x86 instruction, in bytes (APM vol. 3, §1.1). */
export const MAX_INSTRUCTION = 15;

const FLOWS: Readonly<Record<number, Instruction['flow']>> = {
  [FlowControl.Next]: 'next',
  [FlowControl.UnconditionalBranch]: 'branch',
  [FlowControl.IndirectBranch]: 'branch',
  [FlowControl.ConditionalBranch]: 'conditional',
  [FlowControl.Return]: 'return',
  [FlowControl.Call]: 'call',
  [FlowControl.IndirectCall]: 'call',
  [FlowControl.Interrupt]: 'interrupt',
};

let formatter: Formatter | undefined;
function theFormatter(): Formatter {
  if (!formatter) {
    formatter = new Formatter(FormatterSyntax.Intel);
    formatter.hexPrefix = '0x';
    formatter.hexSuffix = '';
    formatter.uppercaseHex = false;
    formatter.spaceAfterOperandSeparator = true;
    formatter.branchLeadingZeros = false;
  }
  return formatter;
}

/**
 * Decodes up to `count` instructions of `code`, which is at `address`. An invalid one becomes a `(bad)`
 * of one byte; one that is cut off by the end of `code` ends the list.
 */
export function decode(code: Uint8Array, address: bigint, bits: 16 | 32 | 64, count: number): Instruction[] {
  const decoder = new Decoder(bits, code, DecoderOptions.AMD);
  const found: Instruction[] = [];
  try {
    let at = 0;
    while (found.length < count && at < code.length) {
      decoder.position = at;
      decoder.ip = BigInt.asUintN(64, address + BigInt(at));
      const instruction = decoder.decode();
      try {
        if (instruction.isInvalid && code.length - at < MAX_INSTRUCTION && endsEarly(decoder, code)) break;
        const one = describe(instruction, code, at);
        found.push(one);
        at += one.length;
      } finally {
        instruction.free();
      }
    }
  } finally {
    decoder.free();
  }
  return found;
}

/** The decoder wanted more bytes than there are. */
const endsEarly = (decoder: Decoder, code: Uint8Array): boolean => decoder.position >= code.length;

function describe(instruction: IcedInstruction, code: Uint8Array, at: number): Instruction {
  const valid = !instruction.isInvalid;
  const length = valid ? instruction.length : 1;
  const flow = valid ? (FLOWS[instruction.flowControl] ?? 'other') : 'other';
  return {
    address: instruction.ip,
    length,
    bytes: code.slice(at, at + length),
    text: valid ? theFormatter().format(instruction) : '(bad)',
    valid,
    flow,
    target: valid && instruction.nearBranchTarget !== 0n ? instruction.nearBranchTarget : undefined,
    stackIncrement: valid && instruction.isStackInstruction ? instruction.stackPointerIncrement : 0,
  };
}
