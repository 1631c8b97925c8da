/** Expressions of conditions, log points, watches and the debug console. Knows no machine and no DAP. */
import { parseExpression } from './parser.ts';
import { evaluate, formatValue } from './evaluate.ts';
import type { Scope, Value } from './evaluate.ts';

export { evaluate, formatValue, isTrue, typeBits } from './evaluate.ts';
export type { Scope, Value } from './evaluate.ts';
export { parseExpression } from './parser.ts';
export type { Expression, TypeName } from './parser.ts';

/** Splits a trailing format, `rax,d`, off an expression. */
export function splitFormat(text: string): { expression: string; format: string } {
  const match = /^(.*\S)\s*,\s*([xdboc])\s*$/s.exec(text);
  return match ? { expression: match[1]!, format: match[2]! } : { expression: text, format: '' };
}

/** Evaluates text. @throws CvmError as parsing and evaluating do. */
export const evaluateText = (text: string, scope: Scope): Value => evaluate(parseExpression(text), scope);

/** The text of a log point: every `{expression}` or `{expression,format}` replaced by its value. */
export function interpolate(template: string, scope: Scope): string {
  return template.replace(/\{([^{}]+)\}/g, (_, inner: string) => {
    const { expression, format } = splitFormat(inner);
    try {
      return formatValue(evaluateText(expression, scope), format);
    } catch (error) {
      return `<${(error as Error).message}>`;
    }
  });
}
