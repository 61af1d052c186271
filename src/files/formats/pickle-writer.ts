/**
 * Writes pickles of protocol 2, which every Python since 2.3 reads: plain data, names, calls and objects. Names and
 * texts that occur again refer to their first place. Pure. Source: CPython `Lib/pickletools.py`.
 */

/** A class or function by its module and name. */
export interface PickledGlobal {
  readonly global: readonly [module: string, name: string];
}

/** What is pickled. */
export type Picklable =
  | null
  | boolean
  | number
  | bigint
  | string
  | readonly Picklable[]
  | ReadonlyMap<Picklable, Picklable>
  | PickledGlobal
  | PickledFloat
  | { readonly tuple: readonly Picklable[] }
  /** `call` with these arguments. */
  | { readonly call: PickledGlobal; readonly args: readonly Picklable[] }
  /** An object of a class, made without arguments, and what it is given then; undefined: nothing. */
  | { readonly object: PickledGlobal; readonly state?: Picklable | undefined }
  /** What lies outside the pickle, such as a storage. */
  | { readonly persistent: readonly Picklable[] };

/** A name as a value. */
export const pickledGlobal = (module: string, name: string): PickledGlobal => ({ global: [module, name] });

/** A float that Python shall see as one even where it is a whole number. */
export interface PickledFloat {
  readonly float: number;
}

/** The bytes of a pickle. */
export function writePickle(value: Picklable): Uint8Array {
  const writer = new PickleWriter();
  writer.bytes(0x80, 2);
  writer.value(value);
  writer.bytes(0x2e);
  return writer.result();
}

class PickleWriter {
  #memory = new Uint8Array(1 << 12);
  #length = 0;
  readonly #memo = new Map<string, number>();

  result(): Uint8Array {
    return this.#memory.slice(0, this.#length);
  }

  bytes(...bytes: number[]): void {
    this.#makeRoom(bytes.length);
    for (const byte of bytes) this.#memory[this.#length++] = byte;
  }

  raw(bytes: Uint8Array): void {
    this.#makeRoom(bytes.length);
    this.#memory.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #makeRoom(count: number): void {
    if (this.#length + count <= this.#memory.length) return;
    const larger = new Uint8Array(Math.max(2 * this.#memory.length, this.#length + count));
    larger.set(this.#memory.subarray(0, this.#length));
    this.#memory = larger;
  }

  value(value: Picklable): void {
    if (value === null) this.bytes(0x4e);
    else if (typeof value === "boolean") this.bytes(value ? 0x88 : 0x89);
    else if (typeof value === "number" || typeof value === "bigint") this.#number(value);
    else if (typeof value === "string") this.#text(value);
    else if (value instanceof Map) this.#dictionary(value as ReadonlyMap<Picklable, Picklable>);
    else if (Array.isArray(value)) this.#list(value as readonly Picklable[]);
    else this.#compound(value);
  }

  #compound(value: Picklable): void {
    const found = value as Partial<
      PickledGlobal &
        PickledFloat & { tuple: Picklable[]; persistent: Picklable[] } & {
          call: PickledGlobal;
          args: Picklable[];
        } & { object: PickledGlobal; state: Picklable }
    >;
    if (found.global !== undefined) this.#global(found.global);
    else if (found.float !== undefined) this.#float(found.float);
    else if (found.tuple !== undefined) this.#tuple(found.tuple);
    else if (found.persistent !== undefined) {
      this.#tuple(found.persistent);
      this.bytes(0x51);
    } else if (found.call !== undefined) {
      this.value(found.call);
      this.#tuple(found.args!);
      this.bytes(0x52);
    } else {
      this.value(found.object!);
      this.bytes(0x29, 0x81);
      if (found.state === undefined) return;
      this.value(found.state);
      this.bytes(0x62);
    }
  }

  /** Writes once what has this name, and later refers to it. */
  #once(name: string, write: () => void): void {
    const known = this.#memo.get(name);
    if (known !== undefined) return known < 256 ? this.bytes(0x68, known) : this.#index(0x6a, known);
    write();
    const index = this.#memo.size;
    this.#memo.set(name, index);
    if (index < 256) this.bytes(0x71, index);
    else this.#index(0x72, index);
  }

  #index(opcode: number, index: number): void {
    this.bytes(opcode, index & 255, (index >>> 8) & 255, (index >>> 16) & 255, index >>> 24);
  }

  #global([module, name]: PickledGlobal["global"]): void {
    this.#once(`global ${module} ${name}`, () => this.raw(new TextEncoder().encode(`c${module}\n${name}\n`)));
  }

  #text(text: string): void {
    this.#once(`text ${text}`, () => {
      const bytes = new TextEncoder().encode(text);
      this.#index(0x58, bytes.length);
      this.raw(bytes);
    });
  }

  #number(value: number | bigint): void {
    if (typeof value === "number" && !Number.isSafeInteger(value)) return this.#float(value);
    if (value >= 0 && value < 256) this.bytes(0x4b, Number(value));
    else if (value >= -(2 ** 31) && value < 2 ** 31) this.#index(0x4a, Number(value) >>> 0);
    else {
      const long = new Uint8Array(8);
      new DataView(long.buffer).setBigInt64(0, BigInt(value), true);
      this.bytes(0x8a, 8);
      this.raw(long);
    }
  }

  #float(value: number): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setFloat64(0, value, false);
    this.bytes(0x47);
    this.raw(bytes);
  }

  #tuple(items: readonly Picklable[]): void {
    if (items.length === 0) return this.bytes(0x29);
    this.bytes(0x28);
    for (const item of items) this.value(item);
    this.bytes(0x74);
  }

  #list(items: readonly Picklable[]): void {
    this.bytes(0x5d);
    if (items.length === 0) return;
    this.bytes(0x28);
    for (const item of items) this.value(item);
    this.bytes(0x65);
  }

  #dictionary(entries: ReadonlyMap<Picklable, Picklable>): void {
    this.bytes(0x7d);
    if (entries.size === 0) return;
    this.bytes(0x28);
    for (const [key, value] of entries) {
      this.value(key);
      this.value(value);
    }
    this.bytes(0x75);
  }
}
