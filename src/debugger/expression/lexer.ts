/** Splits an expression of the debug console into tokens. */
import { CvmError } from '../../base/index.ts';

export interface Token {
  readonly kind: 'number' | 'register' | 'name' | 'operator' | 'end';
  readonly text: string;
  /** Of a number. */
  readonly value?: bigint;
  readonly offset: number;
}

/** Longer input is refused: an expression is typed by a person. */
export const MAX_EXPRESSION = 4096;

const NUMBER = /0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO][0-7_]+|[0-9][0-9_]*/y;
const REGISTER = /[$%][A-Za-z_][A-Za-z0-9_.]*/y;
/**
 * Names of C, assembly and Rust: `main`, `svsm::mm::alloc`, `<T as core::fmt::Debug>::fmt` in quotes,
 * a local label `.Lloop`.
 */
const NAME = /[A-Za-z_.][A-Za-z0-9_.@$]*(?:::[A-Za-z_{<][A-Za-z0-9_.@$#{}<>]*)*/y;
const QUOTED = /'[^']+'|"[^"]+"/y;
const OPERATOR = /<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^~!<>()[\],?:]/y;

export const syntaxError = (text: string, offset: number, what: string): CvmError =>
  new CvmError('expression-syntax', `${what} at column ${offset + 1} of '${text}'`);

/** @throws CvmError `expression-syntax`. */
export function tokenize(text: string): Token[] {
  if (text.length > MAX_EXPRESSION)
    throw new CvmError('expression-syntax', `the expression has more than ${MAX_EXPRESSION} characters`);
  const tokens: Token[] = [];
  let at = 0;
  const match = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    return pattern.exec(text)?.[0];
  };
  while (at < text.length) {
    if (/\s/.test(text[at]!)) {
      at++;
      continue;
    }
    const offset = at;
    let token: string | undefined;
    if ((token = match(NUMBER)) !== undefined) {
      const digits = token.replaceAll('_', '');
      if (/^0[xXbBoO]$/.test(digits) || /^[A-Za-z_]/.test(text.slice(at + token.length)))
        throw syntaxError(text, offset, 'bad number');
      tokens.push({ kind: 'number', text: token, value: BigInt(digits), offset });
    } else if ((token = match(REGISTER)) !== undefined)
      tokens.push({ kind: 'register', text: token.slice(1).toLowerCase(), offset });
    else if ((token = match(NAME)) !== undefined) tokens.push({ kind: 'name', text: token, offset });
    else if ((token = match(QUOTED)) !== undefined)
      tokens.push({ kind: 'name', text: token.slice(1, -1), offset });
    else if ((token = match(OPERATOR)) !== undefined) tokens.push({ kind: 'operator', text: token, offset });
    else throw syntaxError(text, offset, `unexpected '${text[at]}'`);
    at = offset + token.length;
  }
  tokens.push({ kind: 'end', text: '', offset: text.length });
  return tokens;
}
