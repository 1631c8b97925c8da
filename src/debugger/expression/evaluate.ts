/** Computes an expression over the registers, symbols and memory of one stopped thread. */
import { CvmError, hex } from '../../base/index.ts';
import type { Expression, TypeName } from './parser.ts';

/** A 64-bit result and the type that says how to print and compare it. */
export interface Value {
  /** In the range of its type. */
  readonly value: bigint;
  /** `int` is a number as written: it takes the signedness of what it meets. */
  readonly type: TypeName | 'int';
  /** The value is the address of this symbol. */
  readonly symbol?: string;
}

/** Where names get their meaning. */
export interface Scope {
  /** Value and width of a register, by lower-case name. */
  register(name: string): { readonly value: bigint; readonly bits: number } | undefined;
  /** Address of a function or data symbol. */
  symbol(name: string): bigint | undefined;
  /** `size` bytes of the thread's virtual memory, little-endian; throws if they cannot be read. */
  load(address: bigint, size: number): bigint;
}

export const typeBits = (type: TypeName | 'int'): number => (type === 'int' ? 64 : Number(type.slice(1)));
const isSigned = (type: TypeName | 'int'): boolean => type.startsWith('i');

const typed = (value: bigint, type: TypeName): Value => ({
  value: isSigned(type) ? BigInt.asIntN(typeBits(type), value) : BigInt.asUintN(typeBits(type), value),
  type,
});
const truth = (condition: boolean): Value => ({ value: condition ? 1n : 0n, type: 'int' });
export const isTrue = (value: Value): boolean => value.value !== 0n;

/** @throws CvmError `unknown-name`, `unknown-register`, `unreadable-memory`, `division-by-zero`. */
export function evaluate(expression: Expression, scope: Scope): Value {
  switch (expression.kind) {
    case 'number':
      return { value: expression.value, type: 'int' };
    case 'register': {
      const register = scope.register(expression.name);
      if (!register)
        throw new CvmError('unknown-register', `there is no register named '${expression.name}'`);
      return unsigned(register);
    }
    case 'name': {
      const register = scope.register(expression.name.toLowerCase());
      if (register) return unsigned(register);
      const address = scope.symbol(expression.name);
      if (address === undefined)
        throw new CvmError('unknown-name', `there is no register or symbol named '${expression.name}'`);
      return { value: address, type: 'u64', symbol: expression.name };
    }
    case 'cast':
      return typed(evaluate(expression.operand, scope).value, expression.type);
    case 'load': {
      const address = BigInt.asUintN(64, evaluate(expression.address, scope).value);
      return typed(scope.load(address, typeBits(expression.type) / 8), expression.type);
    }
    case 'unary':
      return unary(expression.operator, evaluate(expression.operand, scope));
    case 'choice':
      return isTrue(evaluate(expression.condition, scope))
        ? evaluate(expression.then, scope)
        : evaluate(expression.otherwise, scope);
    case 'binary': {
      const left = evaluate(expression.left, scope);
      if (expression.operator === '&&')
        return truth(isTrue(left) && isTrue(evaluate(expression.right, scope)));
      if (expression.operator === '||')
        return truth(isTrue(left) || isTrue(evaluate(expression.right, scope)));
      return binary(expression.operator, left, evaluate(expression.right, scope));
    }
  }
}

function unsigned({ value, bits }: { readonly value: bigint; readonly bits: number }): Value {
  return { value, type: bits <= 8 ? 'u8' : bits <= 16 ? 'u16' : bits <= 32 ? 'u32' : 'u64' };
}

function unary(operator: string, operand: Value): Value {
  switch (operator) {
    case '-':
      return typed(-operand.value, 'i64');
    case '~':
      return operand.type === 'int' ? typed(~operand.value, 'u64') : typed(~operand.value, operand.type);
    case '!':
      return truth(!isTrue(operand));
    default:
      // `&symbol`: a symbol already means its address.
      if (operand.symbol === undefined)
        throw new CvmError('not-a-symbol', "'&' takes the address of a symbol only");
      return operand;
  }
}

/** Like C: narrow operands are widened to 64 bits, unsigned wins over signed, a plain number adapts. */
function binary(operator: string, left: Value, right: Value): Value {
  const signed = (isSigned(left.type) || isSigned(right.type)) && bothMaySign(left, right);
  const number = left.type === 'int' && right.type === 'int';
  const cut = (value: bigint): bigint =>
    signed || number ? BigInt.asIntN(64, value) : BigInt.asUintN(64, value);
  const a = number ? left.value : cut(left.value);
  const b = number ? right.value : cut(right.value);
  const result = (value: bigint): Value =>
    number && value >= 0n && BigInt.asUintN(64, value) === value
      ? { value, type: 'int' }
      : typed(value, signed || (number && value < 0n) ? 'i64' : 'u64');
  switch (operator) {
    case '+':
      return result(a + b);
    case '-':
      return result(a - b);
    case '*':
      return result(a * b);
    case '/':
    case '%':
      if (b === 0n) throw new CvmError('division-by-zero', 'division by zero');
      return result(operator === '/' ? a / b : a % b);
    case '&':
      return result(a & b);
    case '|':
      return result(a | b);
    case '^':
      return result(a ^ b);
    case '<<':
    case '>>': {
      if (b < 0n || b > 63n) return result(operator === '>>' && a < 0n ? -1n : 0n);
      return result(operator === '<<' ? BigInt.asUintN(64, a << b) : a >> b);
    }
    case '==':
      return truth(BigInt.asUintN(64, a) === BigInt.asUintN(64, b));
    case '!=':
      return truth(BigInt.asUintN(64, a) !== BigInt.asUintN(64, b));
    case '<':
      return truth(a < b);
    case '<=':
      return truth(a <= b);
    case '>':
      return truth(a > b);
    default:
      return truth(a >= b);
  }
}

const bothMaySign = (left: Value, right: Value): boolean =>
  (isSigned(left.type) || left.type === 'int') && (isSigned(right.type) || right.type === 'int');

/** How a value is written: hexadecimal for unsigned, decimal too where that is short. */
export function formatValue(value: Value, format = ''): string {
  const raw = BigInt.asUintN(typeBits(value.type), value.value);
  switch (format) {
    case 'x':
      return hex(raw);
    case 'd':
      return value.value.toString();
    case 'b':
      return `0b${raw.toString(2)}`;
    case 'o':
      return `0o${raw.toString(8)}`;
    case 'c':
      return `'${String.fromCharCode(Number(raw & 0xffn))}'`;
  }
  if (value.value < 0n) return `${value.value} (${hex(raw)})`;
  if (value.value < 10n) return value.value.toString();
  return value.value < 0x1_0000_0000n ? `${hex(value.value)} (${value.value})` : hex(value.value);
}
