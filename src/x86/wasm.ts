/**
 * Writes WebAssembly modules: just the sections and instructions that the generated engine uses
 * (WebAssembly core specification 2.0, §5). Registry encoders are assemblers of text or whole
 * compilers; the engine needs a few hundred bytes of LEB128 in a hot path of its own.
 */
export const I32 = 0x7f;
export const I64 = 0x7e;
export const V128 = 0x7b;
export const EMPTY = 0x40;

export class ByteWriter {
  #bytes = new Uint8Array(1024);
  length = 0;

  byte(...values: number[]): this {
    for (const value of values) {
      if (this.length === this.#bytes.length) this.#grow(this.length * 2);
      this.#bytes[this.length++] = value;
    }
    return this;
  }
  append(other: ByteWriter): this {
    const size = this.length + other.length;
    if (size > this.#bytes.length) this.#grow(Math.max(size, this.#bytes.length * 2));
    this.#bytes.set(other.bytes(), this.length);
    this.length = size;
    return this;
  }
  unsigned(value: number): this {
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.byte((rest & 0x7f) | 0x80);
      rest >>>= 7;
    }
    return this.byte(rest);
  }
  signed(value: bigint): this {
    let rest = value;
    for (;;) {
      const low = Number(rest & 0x7fn);
      rest >>= 7n;
      const done = (rest === 0n && (low & 0x40) === 0) || (rest === -1n && (low & 0x40) !== 0);
      this.byte(done ? low : low | 0x80);
      if (done) return this;
    }
  }
  name(text: string): this {
    const encoded = new TextEncoder().encode(text);
    this.unsigned(encoded.length);
    return this.byte(...encoded);
  }
  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }
  #grow(size: number): void {
    const larger = new Uint8Array(size);
    larger.set(this.#bytes.subarray(0, this.length));
    this.#bytes = larger;
  }
}

/** Opcodes by their text-format names. */
export const OP = {
  unreachable: 0x00,
  br: 0x0c,
  brIf: 0x0d,
  return: 0x0f,
  drop: 0x1a,
  select: 0x1b,
  i32Load: 0x28,
  i64Load: 0x29,
  i32Load8U: 0x2d,
  i32Load16U: 0x2f,
  i64Load8U: 0x31,
  i64Load16U: 0x33,
  i64Load32S: 0x34,
  i64Load32U: 0x35,
  i32Store: 0x36,
  i64Store: 0x37,
  i64Store8: 0x3c,
  i64Store16: 0x3d,
  i64Store32: 0x3e,
  i32Eqz: 0x45,
  i32Eq: 0x46,
  i32And: 0x71,
  i32Or: 0x72,
  i32Xor: 0x73,
  i32Shl: 0x74,
  i32ShrU: 0x76,
  i32Add: 0x6a,
  i32Sub: 0x6b,
  i32Ne: 0x47,
  i64Eqz: 0x50,
  i64Eq: 0x51,
  i64Ne: 0x52,
  i64LtS: 0x53,
  i64LtU: 0x54,
  i64GtS: 0x55,
  i64GtU: 0x56,
  i64GeS: 0x59,
  i64Clz: 0x79,
  i64Ctz: 0x7a,
  i64Popcnt: 0x7b,
  i64Add: 0x7c,
  i64Sub: 0x7d,
  i64Mul: 0x7e,
  i64DivS: 0x7f,
  i64DivU: 0x80,
  i64RemS: 0x81,
  i64RemU: 0x82,
  i64And: 0x83,
  i64Or: 0x84,
  i64Xor: 0x85,
  i64Shl: 0x86,
  i64ShrS: 0x87,
  i64ShrU: 0x88,
  i64Rotl: 0x89,
  i64Rotr: 0x8a,
  i32WrapI64: 0xa7,
  i64ExtendI32U: 0xad,
  i64Extend8S: 0xc2,
  i64Extend16S: 0xc3,
  i64Extend32S: 0xc4,
} as const;

/** The body of one function: instructions, locals, and structured labels by depth. */
export class FunctionBody extends ByteWriter {
  readonly #parameters: number;
  readonly #locals: number[] = [];
  #depth = 0;

  constructor(parameters: number) {
    super();
    this.#parameters = parameters;
  }

  local(type: number): number {
    return this.#parameters + this.#locals.push(type) - 1;
  }
  get(local: number): this {
    return this.byte(0x20).unsigned(local);
  }
  set(local: number): this {
    return this.byte(0x21).unsigned(local);
  }
  tee(local: number): this {
    return this.byte(0x22).unsigned(local);
  }
  i32(value: number): this {
    return this.byte(0x41).signed(BigInt(value | 0));
  }
  i64(value: bigint): this {
    return this.byte(0x42).signed(BigInt.asIntN(64, value));
  }
  op(...opcodes: number[]): this {
    return this.byte(...opcodes);
  }
  /** A load or store with its static offset; alignment hint 0 everywhere. */
  memory(opcode: number, offset: number): this {
    return this.byte(opcode, 0).unsigned(offset);
  }
  /** A 0xfd-prefixed instruction. */
  simd(opcode: number): this {
    return this.byte(0xfd).unsigned(opcode);
  }
  simdMemory(opcode: number, offset: number): this {
    return this.simd(opcode).byte(0).unsigned(offset);
  }
  /** Opens a construct; returns its label, to be given to `br`. */
  block(type = EMPTY): number {
    this.byte(0x02, type);
    return ++this.#depth;
  }
  loop(type = EMPTY): number {
    this.byte(0x03, type);
    return ++this.#depth;
  }
  if(type = EMPTY): number {
    this.byte(0x04, type);
    return ++this.#depth;
  }
  else(): this {
    return this.byte(0x05);
  }
  end(): this {
    this.#depth--;
    return this.byte(0x0b);
  }
  br(label: number): this {
    return this.byte(OP.br).unsigned(this.#depth - label);
  }
  brIf(label: number): this {
    return this.byte(OP.brIf).unsigned(this.#depth - label);
  }
  brTable(labels: readonly number[], otherwise: number): this {
    this.byte(0x0e).unsigned(labels.length);
    for (const label of labels) this.unsigned(this.#depth - label);
    return this.unsigned(this.#depth - otherwise);
  }
  call(index: number): this {
    return this.byte(0x10).unsigned(index);
  }
  /** Calls the function of a type (`ModuleWriter.type`) at the table index on the stack. */
  callIndirect(type: number): this {
    return this.byte(0x11).unsigned(type).unsigned(0);
  }

  /** Locals, code and the final `end`. */
  encode(): ByteWriter {
    const out = new ByteWriter();
    out.unsigned(this.#locals.length);
    for (const type of this.#locals) out.unsigned(1).byte(type);
    return out.append(this).byte(0x0b);
  }
}

export interface FunctionType {
  readonly parameters: readonly number[];
  readonly results: readonly number[];
}

/**
 * A module that imports one memory (`env.memory`), functions (`env.*`) and maybe one table of
 * functions (`env.table`), and exports functions.
 */
export class ModuleWriter {
  /** Size of the imported table; 0 for none. */
  table = 0;
  readonly #types: FunctionType[] = [];
  readonly #imports: { name: string; type: number }[] = [];
  readonly #functions: { type: number; body: FunctionBody; exported?: string }[] = [];

  /** Number of a function type. */
  type(type: FunctionType): number {
    const same = (a: readonly number[], b: readonly number[]): boolean =>
      a.length === b.length && a.every((x, i) => x === b[i]);
    const found = this.#types.findIndex(
      (t) => same(t.parameters, type.parameters) && same(t.results, type.results),
    );
    return found >= 0 ? found : this.#types.push(type) - 1;
  }

  /** Declares an import; all imports come before the first function. Returns its index. */
  import(name: string, parameters: readonly number[], results: readonly number[]): number {
    if (this.#functions.length) throw new Error('imports come first');
    return this.#imports.push({ name, type: this.type({ parameters, results }) }) - 1;
  }
  /** Adds a function; returns its index. */
  function(type: FunctionType, body: FunctionBody, exported?: string): number {
    return this.#imports.length + this.#functions.push({ type: this.type(type), body, exported }) - 1;
  }

  encode(memoryPages: number): Uint8Array {
    const out = new ByteWriter().byte(0, 0x61, 0x73, 0x6d, 1, 0, 0, 0);
    const section = (id: number, fill: (body: ByteWriter) => void): void => {
      const body = new ByteWriter();
      fill(body);
      out.byte(id).unsigned(body.length).append(body);
    };
    section(1, (body) => {
      body.unsigned(this.#types.length);
      for (const { parameters, results } of this.#types)
        body
          .byte(0x60)
          .unsigned(parameters.length)
          .byte(...parameters)
          .unsigned(results.length)
          .byte(...results);
    });
    section(2, (body) => {
      body.unsigned(this.#imports.length + (this.table ? 2 : 1));
      body.name('env').name('memory').byte(2, 1).unsigned(memoryPages).unsigned(memoryPages);
      if (this.table) body.name('env').name('table').byte(1, 0x70, 0).unsigned(this.table);
      for (const { name, type } of this.#imports) body.name('env').name(name).byte(0).unsigned(type);
    });
    section(3, (body) => {
      body.unsigned(this.#functions.length);
      for (const { type } of this.#functions) body.unsigned(type);
    });
    section(7, (body) => {
      const exported = this.#functions
        .map((f, i) => ({ name: f.exported, index: this.#imports.length + i }))
        .filter((f) => f.name !== undefined);
      body.unsigned(exported.length);
      for (const { name, index } of exported) body.name(name!).byte(0).unsigned(index);
    });
    section(10, (body) => {
      body.unsigned(this.#functions.length);
      for (const { body: code } of this.#functions) {
        const encoded = code.encode();
        body.unsigned(encoded.length).append(encoded);
      }
    });
    return out.bytes().slice();
  }
}
