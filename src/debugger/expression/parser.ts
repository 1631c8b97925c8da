/** Parses an expression: operators and their precedence are C's, types are u8 … u64 and i8 … i64. */
import { syntaxError, tokenize } from './lexer.ts';
import type { Token } from './lexer.ts';

export type TypeName = 'u8' | 'u16' | 'u32' | 'u64' | 'i8' | 'i16' | 'i32' | 'i64';

export type Expression =
  | { readonly kind: 'number'; readonly value: bigint }
  | { readonly kind: 'register'; readonly name: string; readonly sigil: boolean }
  | { readonly kind: 'name'; readonly name: string }
  | { readonly kind: 'unary'; readonly operator: string; readonly operand: Expression }
  | { readonly kind: 'cast'; readonly type: TypeName; readonly operand: Expression }
  | { readonly kind: 'load'; readonly type: TypeName; readonly address: Expression }
  | {
      readonly kind: 'binary';
      readonly operator: string;
      readonly left: Expression;
      readonly right: Expression;
    }
  | {
      readonly kind: 'choice';
      readonly condition: Expression;
      readonly then: Expression;
      readonly otherwise: Expression;
    };

const LEVELS: readonly (readonly string[])[] = [
  ['||'],
  ['&&'],
  ['|'],
  ['^'],
  ['&'],
  ['==', '!='],
  ['<', '<=', '>', '>='],
  ['<<', '>>'],
  ['+', '-'],
  ['*', '/', '%'],
];
const TYPES: Readonly<Record<string, TypeName>> = {
  ...Object.fromEntries(
    (['u8', 'u16', 'u32', 'u64', 'i8', 'i16', 'i32', 'i64'] as const).map((name) => [name, name]),
  ),
  usize: 'u64',
  isize: 'i64',
  uint8_t: 'u8',
  uint16_t: 'u16',
  uint32_t: 'u32',
  uint64_t: 'u64',
  int8_t: 'i8',
  int16_t: 'i16',
  int32_t: 'i32',
  int64_t: 'i64',
  char: 'u8',
};
const MAX_DEPTH = 200;

class Parser {
  private readonly text: string;
  private readonly tokens: readonly Token[];
  private at = 0;
  private depth = 0;

  constructor(text: string) {
    this.text = text;
    this.tokens = tokenize(text);
  }

  whole(): Expression {
    const expression = this.choice();
    if (this.peek().kind !== 'end') throw this.unexpected();
    return expression;
  }

  private peek(ahead = 0): Token {
    return this.tokens[Math.min(this.at + ahead, this.tokens.length - 1)]!;
  }
  private isOperator(text: string, ahead = 0): boolean {
    const token = this.peek(ahead);
    return token.kind === 'operator' && token.text === text;
  }
  private accept(text: string): boolean {
    if (!this.isOperator(text)) return false;
    this.at++;
    return true;
  }
  private expect(text: string): void {
    if (!this.accept(text)) throw syntaxError(this.text, this.peek().offset, `'${text}' expected`);
  }
  private unexpected(): Error {
    const token = this.peek();
    const what = token.kind === 'end' ? 'unexpected end' : `unexpected '${token.text}'`;
    return syntaxError(this.text, token.offset, what);
  }

  private choice(): Expression {
    const condition = this.binary(0);
    if (!this.accept('?')) return condition;
    const then = this.choice();
    this.expect(':');
    return { kind: 'choice', condition, then, otherwise: this.choice() };
  }

  private binary(level: number): Expression {
    const operators = LEVELS[level];
    if (!operators) return this.unary();
    let left = this.binary(level + 1);
    for (;;) {
      const token = this.peek();
      if (token.kind !== 'operator' || !operators.includes(token.text)) return left;
      this.at++;
      left = { kind: 'binary', operator: token.text, left, right: this.binary(level + 1) };
    }
  }

  private unary(): Expression {
    if (++this.depth > MAX_DEPTH)
      throw syntaxError(this.text, this.peek().offset, 'the expression nests too deeply');
    try {
      return this.prefixed();
    } finally {
      this.depth--;
    }
  }

  private prefixed(): Expression {
    const token = this.peek();
    if (token.kind === 'operator') {
      if (token.text === '-' || token.text === '~' || token.text === '!' || token.text === '&') {
        this.at++;
        return { kind: 'unary', operator: token.text, operand: this.unary() };
      }
      if (token.text === '+') {
        this.at++;
        return this.unary();
      }
      if (token.text === '*') {
        this.at++;
        const pointee = this.pointerCast();
        return { kind: 'load', type: pointee ?? 'u64', address: this.unary() };
      }
      const type = this.typeIn('(', ')');
      if (type) return { kind: 'cast', type, operand: this.unary() };
    }
    return this.primary();
  }

  /** `(type)`; nothing is consumed if it is something else. */
  private typeIn(open: string, close: string): TypeName | undefined {
    const name = this.peek(1);
    const type = name.kind === 'name' && Object.hasOwn(TYPES, name.text) ? TYPES[name.text] : undefined;
    if (!type || !this.isOperator(open) || !this.isOperator(close, 2)) return undefined;
    this.at += 3;
    return type;
  }

  /** `(type*)` after a dereference: the size that is read. */
  private pointerCast(): TypeName | undefined {
    const name = this.peek(1);
    const type = name.kind === 'name' && Object.hasOwn(TYPES, name.text) ? TYPES[name.text] : undefined;
    if (!type || !this.isOperator('(') || !this.isOperator('*', 2) || !this.isOperator(')', 3))
      return undefined;
    this.at += 4;
    return type;
  }

  private primary(): Expression {
    const token = this.peek();
    this.at++;
    switch (token.kind) {
      case 'number':
        if (BigInt.asUintN(64, token.value!) !== token.value)
          throw syntaxError(this.text, token.offset, 'the number has more than 64 bits');
        return { kind: 'number', value: token.value };
      case 'register':
        return { kind: 'register', name: token.text, sigil: true };
      case 'name':
        return { kind: 'name', name: token.text };
      case 'operator':
        if (token.text === '(') {
          const inner = this.choice();
          this.expect(')');
          return inner;
        }
    }
    this.at--;
    throw this.unexpected();
  }
}

/** @throws CvmError `expression-syntax`, with the column. */
export const parseExpression = (text: string): Expression => new Parser(text).whole();
