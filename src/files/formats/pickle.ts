/**
 * A pickle machine that executes nothing: it builds lists, tuples, dictionaries and atoms, and asks its host what the
 * few named things stand for. An opcode or a name outside the list ends the reading. Pure, without recursion, linear in
 * the bytes. Source: CPython `Lib/pickletools.py` (opcodes of protocols 2 to 5); the same idea as torch's
 * `_weights_only_unpickler.py`.
 */
import { inputError } from "../../base/errors.js";
import type { UpcycleError } from "../../base/errors.js";

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
   * Hosts that keep objects as records have both: what making an object of a known name gives, and giving it its
   * state (false: it takes none). Without them a pickle may hold no objects.
   */
  create?(global: string, args: readonly PickleValue<T>[]): PickleValue<T>;
  build?(object: PickleValue<T>, state: PickleValue<T>): boolean;
}

/**
 * Reads one pickle. Throws inputError naming the opcode or name that is not allowed, or the byte where the data breaks
 * off.
 */
export function readPickle<T>(bytes: Uint8Array, host: PickleHost<T>, where: string): PickleValue<T> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const stack: PickleValue<T>[] = [];
  const marks: number[] = [];
  const memo = new Map<number, PickleValue<T>>();
  let at = 0;

  const fail = (message: string): UpcycleError =>
    inputError(`pickle: ${message} (byte ${at})`, { where, hint: "nothing of it was executed" });
  const take = (count: number): number => {
    const start = at;
    if (count > bytes.byteLength - at) throw fail(`data breaks off, ${count} more bytes expected`);
    at += count;
    return start;
  };
  const uint = (size: 1 | 2 | 4): number => {
    const from = take(size);
    return size === 1 ? view.getUint8(from) : size === 2 ? view.getUint16(from, true) : view.getUint32(from, true);
  };
  const long = (): number => {
    const value = view.getBigUint64(take(8), true);
    if (value > BigInt(bytes.byteLength)) throw fail(`length is ${value}`);
    return Number(value);
  };
  const raw = (count: number): Uint8Array => bytes.subarray(take(count), at);
  const text = (count: number): string => new TextDecoder().decode(raw(count));
  const line = (): string => {
    const end = bytes.indexOf(0x0a, at);
    if (end < 0) throw fail("data breaks off in a name");
    const found = text(end - at);
    at++;
    return found;
  };
  const pop = (): PickleValue<T> => {
    // What lies below a mark belongs to the tuple, list or dictionary that was begun before it.
    if (stack.length <= (marks.at(-1) ?? 0)) throw fail("takes from an empty stack");
    return stack.pop()!;
  };
  const top = (): PickleValue<T> => {
    const value = pop();
    stack.push(value);
    return value;
  };
  const sinceMark = (): PickleValue<T>[] => {
    const mark = marks.pop();
    if (mark === undefined) throw fail("has no mark");
    return stack.splice(mark);
  };
  const remember = (index: number): void => void memo.set(index, top());
  const recall = (index: number): void => {
    const value = memo.get(index);
    if (value === undefined) throw fail(`recalls ${index}, which was never stored`);
    stack.push(value);
  };
  const tuple = (count: number): void => {
    const items = Array.from({ length: count }, pop).reverse();
    stack.push({ kind: "tuple", items });
  };
  const pushGlobal = (name: string): void => {
    if (!host.knows(name)) throw fail(`asks for ${JSON.stringify(name.slice(0, 100))}, which no file of weights needs`);
    stack.push({ kind: "global", name });
  };
  const append = (items: readonly PickleValue<T>[]): void => {
    const list = top();
    if (!is(list, "list")) throw fail("appends to something that is no list");
    for (const item of items) list.items.push(item);
  };
  const setItems = (items: readonly PickleValue<T>[]): void => {
    const dict = top();
    if (!is(dict, "dict") || items.length % 2 !== 0) throw fail("sets entries of something that is no dictionary");
    for (let i = 0; i < items.length; i += 2) dict.entries.push([items[i]!, items[i + 1]!]);
  };
  const call = (): void => {
    const args = pop();
    const callee = pop();
    // A record that is called gives another record.
    const name = is(callee, "global") ? callee.name : is(callee, "host") && host.create ? "a called record" : null;
    const result = name === null || !is(args, "tuple") ? null : host.call(name, args.items);
    if (result === null)
      throw fail(`calls ${name ?? "something that has no name"} in a way that no file of weights needs`);
    stack.push(result);
  };
  const create = (): void => {
    const [args, callee] = [pop(), pop()];
    if (host.create === undefined || !is(callee, "global") || !is(args, "tuple"))
      throw fail("makes an object, which no file of weights needs");
    stack.push(host.create(callee.name, args.items));
  };
  const integer = (count: number): number | bigint => {
    if (count > 8) throw fail(`integer of ${count} bytes`);
    let value = 0n;
    raw(count).forEach((byte, i) => (value |= BigInt(byte) << BigInt(8 * i)));
    const signed = BigInt.asIntN(8 * count, value);
    return Number.isSafeInteger(Number(signed)) ? Number(signed) : signed;
  };

  /** What only pickles of whole objects have; whether the opcode was one of these. */
  const objectOpcode = (opcode: number): boolean => {
    switch (opcode) {
      case 0x30:
        // POP, of a value or of a mark without values.
        if (stack.length > (marks.at(-1) ?? 0)) pop();
        else sinceMark();
        return true;
      case 0x31:
        sinceMark();
        return true; // POP_MARK
      case 0x32:
        stack.push(top());
        return true; // DUP
      case 0x8e:
      case 0x96:
        stack.push(raw(long()));
        return true; // BINBYTES8, BYTEARRAY8
      case 0x8f:
        stack.push({ kind: "list", items: [] });
        return true; // EMPTY_SET
      case 0x90:
        append(sinceMark());
        return true; // ADDITEMS
      case 0x91:
        stack.push({ kind: "list", items: sinceMark() });
        return true; // FROZENSET
      case 0x92:
        pop();
        create();
        return true; // NEWOBJ_EX, its keywords left out
      default:
        return false;
    }
  };

  for (;;) {
    const opcode = uint(1);
    switch (opcode) {
      case 0x80: // PROTO
        if (uint(1) > 5) throw fail("protocol above 5");
        break;
      case 0x95:
        take(8);
        break; // FRAME
      case 0x28:
        marks.push(stack.length);
        break; // MARK
      case 0x2e: {
        // STOP
        const result = pop();
        if (stack.length > 0 || at !== bytes.byteLength) throw fail("ends with something left over");
        return result;
      }
      case 0x4e:
        stack.push(null);
        break; // NONE
      case 0x88:
        stack.push(true);
        break; // NEWTRUE
      case 0x89:
        stack.push(false);
        break; // NEWFALSE
      case 0x4a:
        stack.push(view.getInt32(take(4), true));
        break; // BININT
      case 0x4b:
        stack.push(uint(1));
        break; // BININT1
      case 0x4d:
        stack.push(uint(2));
        break; // BININT2
      case 0x8a:
        stack.push(integer(uint(1)));
        break; // LONG1
      case 0x47:
        stack.push(view.getFloat64(take(8), false));
        break; // BINFLOAT
      case 0x58:
        stack.push(text(uint(4)));
        break; // BINUNICODE
      case 0x8c:
        stack.push(text(uint(1)));
        break; // SHORT_BINUNICODE
      case 0x8d:
        stack.push(text(long()));
        break; // BINUNICODE8
      case 0x54:
        stack.push(text(uint(4)));
        break; // BINSTRING, Python 2's
      case 0x55:
        stack.push(text(uint(1)));
        break; // SHORT_BINSTRING
      case 0x42:
        stack.push(raw(uint(4)));
        break; // BINBYTES
      case 0x43:
        stack.push(raw(uint(1)));
        break; // SHORT_BINBYTES
      case 0x29:
        tuple(0);
        break; // EMPTY_TUPLE
      case 0x85:
        tuple(1);
        break;
      case 0x86:
        tuple(2);
        break;
      case 0x87:
        tuple(3);
        break;
      case 0x74:
        stack.push({ kind: "tuple", items: sinceMark() });
        break; // TUPLE
      case 0x5d:
        stack.push({ kind: "list", items: [] });
        break; // EMPTY_LIST
      case 0x61:
        append([pop()]);
        break; // APPEND
      case 0x65:
        append(sinceMark());
        break; // APPENDS
      case 0x7d:
        stack.push({ kind: "dict", entries: [] });
        break; // EMPTY_DICT
      case 0x73:
        setItems([pop(), pop()].reverse());
        break; // SETITEM
      case 0x75:
        setItems(sinceMark());
        break; // SETITEMS
      case 0x71:
        remember(uint(1));
        break; // BINPUT
      case 0x72:
        remember(uint(4));
        break; // LONG_BINPUT
      case 0x94:
        remember(memo.size);
        break; // MEMOIZE
      case 0x68:
        recall(uint(1));
        break; // BINGET
      case 0x6a:
        recall(uint(4));
        break; // LONG_BINGET
      case 0x63:
        pushGlobal(`${line()}.${line()}`);
        break; // GLOBAL
      case 0x93: {
        // STACK_GLOBAL
        const [name, module] = [pop(), pop()];
        if (typeof name !== "string" || typeof module !== "string") throw fail("asks for something without a name");
        pushGlobal(`${module}.${name}`);
        break;
      }
      case 0x52:
        call();
        break; // REDUCE
      case 0x51: {
        // BINPERSID
        const found = host.persistent(pop());
        if (found === null) throw fail("refers to something outside that is no storage");
        stack.push(found);
        break;
      }
      case 0x62: {
        // BUILD: attributes of a dictionary, such as the versions in `_metadata`; nobody reads them.
        const state = pop();
        const object = top();
        if (!is(object, "dict") && host.build?.(object, state) !== true)
          throw fail("sets attributes of something that is no dictionary");
        break;
      }
      case 0x81:
        create();
        break; // NEWOBJ
      default:
        if (host.create !== undefined && objectOpcode(opcode)) break;
        throw fail(`opcode 0x${opcode.toString(16).padStart(2, "0")}, which no file of weights needs`);
    }
  }
}

/** Whether a value is of one kind. */
export function is<T, K extends "global" | "tuple" | "list" | "dict" | "host">(
  value: PickleValue<T> | undefined,
  kind: K,
): value is Extract<PickleValue<T>, { readonly kind: K | "tuple" | "list" }> & { readonly kind: K } {
  return typeof value === "object" && value !== null && "kind" in value && value.kind === kind;
}
