/** What a micro-op's handler number stands for: shared by the decoded-code cache and the tiers. */
import type { Definition } from './ir.ts';
import type { Form, OperandSize } from './microop.ts';

/** Handlers that are not instructions. */
export const HANDLER = {
  /** The record of zeros: decode at the rip just jumped to. */
  resolve: 0,
  /** A TypeScript helper. */
  helper: 1,
  breakpoint: 2,
  /** Behind the last decoded instruction: goes on at its own rip, retiring nothing. */
  end: 3,
  first: 4,
} as const;

/** A definition for one choice of operands: what a handler number stands for. */
export interface Case {
  readonly definition: Definition;
  readonly form: Form;
  readonly size: OperandSize;
  readonly legacy: boolean;
  readonly condition: number;
}

/** The name under which the decoder's choice of operands finds its case. */
export const caseKey = (name: string, form: Form, size: number, legacy: boolean, condition: number): string =>
  `${name}|${form}|${size}|${legacy ? 1 : 0}|${condition}`;
