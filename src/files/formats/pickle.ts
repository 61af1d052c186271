/**
 * A pickle machine that executes nothing: it builds lists, tuples, dictionaries and atoms, and asks its host what the
 * few named things stand for. An opcode or a name outside the list ends the reading. Pure, without recursion, linear
 * in the bytes. Source: CPython `Lib/pickletools.py` (opcodes of protocols 2 to 5); the same idea as torch's
 * `_weights_only_unpickler.py`. The file is long because every opcode has its case.
 */
import { at } from "../../base/at.js";
import { inputError, type UpcycleError } from "../../base/errors.js";

/** A value of a pickle, as plain data; nothing in it is ever executed. */
export type PickleValue<T> =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | { readonly kind: "global"; readonly name: string }
  | { readonly kind: "tuple" | "list"; readonly items: PickleValue<T>[] }
  | { readonly kind: "dict"; readonly entries: [PickleValue<T>, PickleValue<T>][] }
  | { readonly kind: "host"; readonly value: T };

/** What a pickle may name and call besides plain data. */
export interface PickleHost<T> {
  /** Whether a name such as `collections.OrderedDict` may occur. */
  knows(global: string): boolean;
  /** What calling a known name gives; null if it cannot be called so. */
  call(global: string, args: readonly PickleValue<T>[]): PickleValue<T> | null;
  /** What a persistent id stands for; null if it is none of the host's. */
  persistent(id: PickleValue<T>): PickleValue<T> | null;
  /**
   * What making an object of a known name gives. Only hosts that keep objects as records have this; for all others a
   * pickle may hold no objects, and none of the opcodes that only pickles of whole objects have.
   */
  create?(global: string, args: readonly PickleValue<T>[]): PickleValue<T>;
  /** Gives an object that `create` or `call` made its state; false: it takes none. */
  build?(object: PickleValue<T>, state: PickleValue<T>): boolean;
}

/** Opcodes of protocols 2 to 5 that files of weights have. */
const opcodes = {
  PROTO: 0x80,
  FRAME: 0x95,
  STOP: 0x2e,
  MARK: 0x28,
  NONE: 0x4e,
  NEWTRUE: 0x88,
  NEWFALSE: 0x89,
  BININT: 0x4a,
  BININT1: 0x4b,
  BININT2: 0x4d,
  LONG1: 0x8a,
  BINFLOAT: 0x47,
  BINUNICODE: 0x58,
  SHORT_BINUNICODE: 0x8c,
  BINUNICODE8: 0x8d,
  // Strings of Python 2.
  BINSTRING: 0x54,
  SHORT_BINSTRING: 0x55,
  BINBYTES: 0x42,
  SHORT_BINBYTES: 0x43,
  EMPTY_TUPLE: 0x29,
  TUPLE1: 0x85,
  TUPLE2: 0x86,
  TUPLE3: 0x87,
  TUPLE: 0x74,
  EMPTY_LIST: 0x5d,
  APPEND: 0x61,
  APPENDS: 0x65,
  EMPTY_DICT: 0x7d,
  SETITEM: 0x73,
  SETITEMS: 0x75,
  BINPUT: 0x71,
  LONG_BINPUT: 0x72,
  MEMOIZE: 0x94,
  BINGET: 0x68,
  LONG_BINGET: 0x6a,
  GLOBAL: 0x63,
  STACK_GLOBAL: 0x93,
  REDUCE: 0x52,
  BINPERSID: 0x51,
  BUILD: 0x62,
  NEWOBJ: 0x81,
} as const;

/** Opcodes that only pickles of whole objects have; every opcode that is in neither table is refused. */
const objectOpcodes = {
  POP: 0x30,
  POP_MARK: 0x31,
  DUP: 0x32,
  BINBYTES8: 0x8e,
  BYTEARRAY8: 0x96,
  EMPTY_SET: 0x8f,
  ADDITEMS: 0x90,
  FROZENSET: 0x91,
  NEWOBJ_EX: 0x92,
} as const;

/**
 * Reads one pickle. Throws inputError naming the opcode or name that is not allowed, or the byte where the data breaks
 * off.
 */
export function readPickle<T>(bytes: Uint8Array, host: PickleHost<T>, where: string): PickleValue<T> {
  const reader = new ByteReader(bytes, where);
  const machine = new Machine(reader, host);
  for (;;) {
    const opcode = reader.uint(1);
    if (opcode === opcodes.STOP) return machine.result();
    if (runAtom(opcode, reader, machine) || runContainer(opcode, machine)) continue;
    if (host.create === undefined || !runObject(opcode, reader, machine)) runReference(opcode, reader, machine);
  }
}

/** Runs opcodes that push one value or none; false: the opcode is none of these. */
function runAtom<T>(opcode: number, reader: ByteReader, machine: Machine<T>): boolean {
  switch (opcode) {
    case opcodes.PROTO:
      if (reader.uint(1) > 5) throw reader.fail("protocol above 5");
      return true;
    case opcodes.FRAME:
      reader.bytes(8);
      return true;
    case opcodes.NONE:
      return machine.push(null);
    case opcodes.NEWTRUE:
      return machine.push(true);
    case opcodes.NEWFALSE:
      return machine.push(false);
    case opcodes.BININT:
      return machine.push(reader.int32());
    case opcodes.BININT1:
      return machine.push(reader.uint(1));
    case opcodes.BININT2:
      return machine.push(reader.uint(2));
    case opcodes.LONG1:
      return machine.push(reader.integer(reader.uint(1)));
    case opcodes.BINFLOAT:
      return machine.push(reader.float64());
    case opcodes.BINUNICODE:
    case opcodes.BINSTRING:
      return machine.push(reader.text(reader.uint(4)));
    case opcodes.SHORT_BINUNICODE:
    case opcodes.SHORT_BINSTRING:
      return machine.push(reader.text(reader.uint(1)));
    case opcodes.BINUNICODE8:
      return machine.push(reader.text(reader.length()));
    case opcodes.BINBYTES:
      return machine.push(reader.bytes(reader.uint(4)));
    case opcodes.SHORT_BINBYTES:
      return machine.push(reader.bytes(reader.uint(1)));
    default:
      return false;
  }
}

/** Runs opcodes that make and fill tuples, lists and dictionaries; false: the opcode is none of these. */
function runContainer<T>(opcode: number, machine: Machine<T>): boolean {
  switch (opcode) {
    case opcodes.MARK:
      return machine.mark();
    case opcodes.EMPTY_TUPLE:
      return machine.tuple(0);
    case opcodes.TUPLE1:
      return machine.tuple(1);
    case opcodes.TUPLE2:
      return machine.tuple(2);
    case opcodes.TUPLE3:
      return machine.tuple(3);
    case opcodes.TUPLE:
      return machine.push({ kind: "tuple", items: machine.sinceMark() });
    case opcodes.EMPTY_LIST:
      return machine.push({ kind: "list", items: [] });
    case opcodes.APPEND:
      return machine.append([machine.pop()]);
    case opcodes.APPENDS:
      return machine.append(machine.sinceMark());
    case opcodes.EMPTY_DICT:
      return machine.push({ kind: "dict", entries: [] });
    case opcodes.SETITEM:
      return machine.setItems([machine.pop(), machine.pop()].reverse());
    case opcodes.SETITEMS:
      return machine.setItems(machine.sinceMark());
    default:
      return false;
  }
}

/** Runs opcodes that only pickles of whole objects have; false: the opcode is none of these. */
function runObject<T>(opcode: number, reader: ByteReader, machine: Machine<T>): boolean {
  switch (opcode) {
    case objectOpcodes.POP:
      return machine.drop();
    case objectOpcodes.POP_MARK:
      machine.sinceMark();
      return true;
    case objectOpcodes.DUP:
      return machine.duplicate();
    case objectOpcodes.BINBYTES8:
    case objectOpcodes.BYTEARRAY8:
      return machine.push(reader.bytes(reader.length()));
    case objectOpcodes.EMPTY_SET:
      return machine.push({ kind: "list", items: [] });
    case objectOpcodes.ADDITEMS:
      return machine.append(machine.sinceMark());
    case objectOpcodes.FROZENSET:
      return machine.push({ kind: "list", items: machine.sinceMark() });
    case objectOpcodes.NEWOBJ_EX:
      // The keywords are left out.
      machine.pop();
      return machine.create();
    default:
      return false;
  }
}

/** Runs opcodes that refer to something else; throws for one that is not known at all. */
function runReference<T>(opcode: number, reader: ByteReader, machine: Machine<T>): boolean {
  switch (opcode) {
    case opcodes.BINPUT:
      return machine.remember(reader.uint(1));
    case opcodes.LONG_BINPUT:
      return machine.remember(reader.uint(4));
    case opcodes.MEMOIZE:
      return machine.remember();
    case opcodes.BINGET:
      return machine.recall(reader.uint(1));
    case opcodes.LONG_BINGET:
      return machine.recall(reader.uint(4));
    case opcodes.GLOBAL:
      return machine.pushGlobal(`${reader.line()}.${reader.line()}`);
    case opcodes.STACK_GLOBAL:
      return machine.pushStackGlobal();
    case opcodes.REDUCE:
      return machine.call();
    case opcodes.BINPERSID:
      return machine.pushPersistent();
    case opcodes.BUILD:
      return machine.build();
    case opcodes.NEWOBJ:
      return machine.create();
    default:
      throw reader.fail(`opcode 0x${opcode.toString(16).padStart(2, "0")}, which no file of weights needs`);
  }
}

/** Numbers, texts and bytes, one after the other. */
class ByteReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #where: string;
  #at = 0;

  constructor(bytes: Uint8Array, where: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#where = where;
  }

  fail(message: string): UpcycleError {
    return inputError(`pickle: ${message} (byte ${this.#at})`, {
      where: this.#where,
      hint: "nothing of it was executed",
    });
  }

  get isAtEnd(): boolean {
    return this.#at === this.#bytes.byteLength;
  }

  /** Goes over `count` bytes and returns where they begin. */
  #skip(count: number): number {
    const start = this.#at;
    if (count > this.#bytes.byteLength - start) throw this.fail(`data breaks off, ${count} more bytes expected`);
    this.#at += count;
    return start;
  }

  uint(size: 1 | 2 | 4): number {
    const from = this.#skip(size);
    if (size === 1) return this.#view.getUint8(from);
    return size === 2 ? this.#view.getUint16(from, true) : this.#view.getUint32(from, true);
  }

  int32(): number {
    return this.#view.getInt32(this.#skip(4), true);
  }

  float64(): number {
    return this.#view.getFloat64(this.#skip(8), false);
  }

  /** A length in 8 bytes. */
  length(): number {
    const value = this.#view.getBigUint64(this.#skip(8), true);
    if (value > BigInt(this.#bytes.byteLength)) throw this.fail(`length is ${value}`);
    return Number(value);
  }

  bytes(count: number): Uint8Array {
    return this.#bytes.subarray(this.#skip(count), this.#at);
  }

  text(count: number): string {
    return new TextDecoder().decode(this.bytes(count));
  }

  /** Text up to a line feed. */
  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) throw this.fail("data breaks off in a name");
    const line = this.text(end - this.#at);
    this.#at++;
    return line;
  }

  /** A signed integer of at most 8 bytes, little-endian; a bigint where a number would not be exact. */
  integer(count: number): number | bigint {
    if (count > 8) throw this.fail(`integer of ${count} bytes`);
    let value = 0n;
    this.bytes(count).forEach((byte, i) => (value |= BigInt(byte) << BigInt(8 * i)));
    const signed = BigInt.asIntN(8 * count, value);
    return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
  }
}

/** The stack, marks and memo of a pickle. What changes them returns true: the opcode has been run. */
class Machine<T> {
  readonly #reader: ByteReader;
  readonly #host: PickleHost<T>;
  readonly #stack: PickleValue<T>[] = [];
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, PickleValue<T>>();

  constructor(reader: ByteReader, host: PickleHost<T>) {
    this.#reader = reader;
    this.#host = host;
  }

  push(value: PickleValue<T>): true {
    this.#stack.push(value);
    return true;
  }

  pop(): PickleValue<T> {
    // What lies below a mark belongs to the tuple, list or dictionary that was begun before it.
    const value = this.#stack.length > (this.#marks.at(-1) ?? 0) ? this.#stack.pop() : undefined;
    if (value === undefined) throw this.#reader.fail("takes from an empty stack");
    return value;
  }

  /** Drops the value on top of the stack, or a mark without values. */
  drop(): true {
    if (this.#stack.length > (this.#marks.at(-1) ?? 0)) this.pop();
    else this.sinceMark();
    return true;
  }

  duplicate(): true {
    return this.push(this.#top());
  }

  #top(): PickleValue<T> {
    const value = this.pop();
    this.#stack.push(value);
    return value;
  }

  /** The one value that is left when the data ends. */
  result(): PickleValue<T> {
    const value = this.pop();
    if (this.#stack.length > 0 || !this.#reader.isAtEnd) throw this.#reader.fail("ends with something left over");
    return value;
  }

  mark(): true {
    this.#marks.push(this.#stack.length);
    return true;
  }

  sinceMark(): PickleValue<T>[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw this.#reader.fail("has no mark");
    return this.#stack.splice(mark);
  }

  remember(index = this.#memo.size): true {
    this.#memo.set(index, this.#top());
    return true;
  }

  recall(index: number): true {
    const value = this.#memo.get(index);
    if (value === undefined) throw this.#reader.fail(`recalls ${index}, which was never stored`);
    return this.push(value);
  }

  tuple(count: number): true {
    const items = Array.from({ length: count }, () => this.pop()).reverse();
    return this.push({ kind: "tuple", items });
  }

  append(items: readonly PickleValue<T>[]): true {
    const list = this.#top();
    if (!is(list, "list")) throw this.#reader.fail("appends to something that is no list");
    for (const item of items) list.items.push(item);
    return true;
  }

  /** Sets entries of the dictionary on top of the stack from keys and values in turn. */
  setItems(items: readonly PickleValue<T>[]): true {
    const dict = this.#top();
    if (!is(dict, "dict") || items.length % 2 !== 0)
      throw this.#reader.fail("sets entries of something that is no dictionary");
    for (let i = 0; i < items.length; i += 2) dict.entries.push([at(items, i), at(items, i + 1)]);
    return true;
  }

  pushGlobal(name: string): true {
    if (!this.#host.knows(name))
      throw this.#reader.fail(`asks for ${JSON.stringify(name.slice(0, 100))}, which no file of weights needs`);
    return this.push({ kind: "global", name });
  }

  pushStackGlobal(): true {
    const [name, module] = [this.pop(), this.pop()];
    if (typeof name !== "string" || typeof module !== "string")
      throw this.#reader.fail("asks for something without a name");
    return this.pushGlobal(`${module}.${name}`);
  }

  call(): true {
    const args = this.pop();
    const callee = this.pop();
    const name = this.#calledName(callee);
    const result = name === null || !is(args, "tuple") ? null : this.#host.call(name, args.items);
    if (result !== null) return this.push(result);
    throw this.#reader.fail(`calls ${name ?? "something that has no name"} in a way that no file of weights needs`);
  }

  /** The name under which the host is asked for a call; null for what cannot be called. */
  #calledName(callee: PickleValue<T>): string | null {
    if (is(callee, "global")) return callee.name;
    // Where objects are kept as records, a record that is called gives another record.
    return is(callee, "host") && this.#host.create !== undefined ? "a called record" : null;
  }

  /** Makes an object of the class and the arguments on top of the stack, if the host keeps objects. */
  create(): true {
    const [args, callee] = [this.pop(), this.pop()];
    if (this.#host.create === undefined || !is(callee, "global") || !is(args, "tuple"))
      throw this.#reader.fail("makes an object, which no file of weights needs");
    return this.push(this.#host.create(callee.name, args.items));
  }

  pushPersistent(): true {
    const value = this.#host.persistent(this.pop());
    if (value === null) throw this.#reader.fail("refers to something outside that is no storage");
    return this.push(value);
  }

  /**
   * Gives an object its state, if the host keeps objects. Attributes of a dictionary, such as the versions in
   * `_metadata`, are dropped: nobody reads them.
   */
  build(): true {
    const state = this.pop();
    const object = this.#top();
    if (!is(object, "dict") && this.#host.build?.(object, state) !== true)
      throw this.#reader.fail("sets attributes of something that is no dictionary");
    return true;
  }
}

/** Whether a value is of one kind. */
export function is<T, K extends "global" | "tuple" | "list" | "dict" | "host">(
  value: PickleValue<T> | undefined,
  kind: K,
): value is Extract<PickleValue<T>, { readonly kind: K | "tuple" | "list" }> & { readonly kind: K } {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === kind;
}
