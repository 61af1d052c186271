/** Numbers of a log that grow at their end. */

export type Numbers = Float64Array | Float32Array | Uint32Array;

/** How numbers are kept: measures that only a chart shows need no more than seven digits. */
const kinds = { double: Float64Array, single: Float32Array, count: Uint32Array } as const;
type Kind = keyof typeof kinds;

/**
 * Arrays that nobody reads any more. They are used again: the collector lets as much memory gather as is in use before
 * it gives what was left back.
 */
const spare: Record<Kind, Numbers[]> = { double: [], single: [], count: [] };
const mostSpareBytes = 8e6;
let spareBytes = 0;

/** An array with room for so many numbers, or a few more, which may hold any others. */
function arrayFor(kind: Kind, room: number): Numbers {
  const at = spare[kind].findIndex(({ length }) => length >= room && length <= 1.25 * room);
  if (at < 0) return new kinds[kind](room);
  const [found] = spare[kind].splice(at, 1);
  spareBytes -= found!.byteLength;
  return found!;
}

/** Numbers that each differ by the same from the one before. */
interface Line {
  readonly first: number;
  readonly by: number;
}

/** Lines whose numbers were asked for last: runs that are compared mostly have the same steps and tokens. */
const lines = new Map<string, Numbers>();
const mostLines = 4;

function numbersOf({ first, by }: Line, kind: Kind, length: number): Numbers {
  const key = `${kind} ${first} ${by}`;
  let known = lines.get(key);
  lines.delete(key);
  if (known === undefined || known.length < length) {
    known = new kinds[kind](Math.ceil(1.25 * length));
    for (let i = 0; i < known.length; i++) known[i] = first + by * i;
  }
  lines.set(key, known);
  for (const oldest of lines.keys()) {
    if (lines.size <= mostLines) break;
    lines.delete(oldest);
  }
  return known.subarray(0, length);
}

/**
 * A series of numbers. Steps, tokens and whatever stays the same differ by as much from each number to the next: as
 * long as they do, only the first of them and the difference are kept.
 */
export class Series {
  #line: Line | null = { first: 0, by: 0 };
  /** Empty for a line. */
  #values: Numbers;
  #length = 0;

  /** `room`: how many there will be, about. */
  constructor(
    private readonly kind: Kind,
    private readonly room: number,
  ) {
    this.#values = new kinds[kind](0);
  }

  get length(): number {
    return this.#length;
  }

  /** The values as they are now, to be read: a view that later values may leave behind. */
  get values(): Numbers {
    return this.#line === null
      ? this.#values.subarray(0, this.#length)
      : numbersOf(this.#line, this.kind, this.#length);
  }

  /** The last value; undefined where there is none. */
  get last(): number | undefined {
    return this.#length === 0 ? undefined : this.values.at(-1);
  }

  push(value: number): void {
    if (this.#line !== null) {
      const line = lineWith(this.#line, this.#length, value);
      if (line !== null) {
        this.#line = line;
        this.#length++;
        return;
      }
      this.#spread(Math.max(64, this.room));
    }
    // A quarter more at a time: what a long log leaves free is memory that other logs could have.
    if (this.#length === this.#values.length) this.#spread(Math.ceil(1.25 * this.#length));
    this.#values[this.#length++] = value;
  }

  /** Gives every number its place, with room for so many of them. */
  #spread(room: number): void {
    const larger = arrayFor(this.kind, Math.max(room, this.#length + 1));
    larger.set(this.values);
    this.#values = larger;
    this.#line = null;
  }

  /** Takes back all but the first `length` values. */
  truncate(length: number): void {
    this.#length = Math.min(this.#length, length);
  }

  /** Leaves of the values from `from` on those at the ascending places `kept` alone. */
  keep(from: number, kept: readonly number[]): void {
    if (this.#line !== null && this.#line.by !== 0) this.#spread(this.#length);
    if (this.#line === null) for (let i = 0; i < kept.length; i++) this.#values[from + i] = this.#values[kept[i]!]!;
    this.#length = from + kept.length;
  }

  get bytes(): number {
    return this.#values.byteLength;
  }

  /** Lets others have the memory: nothing that was read of it may be used any more. */
  release(): void {
    const { byteLength } = this.#values;
    if (byteLength > 0 && spareBytes + byteLength <= mostSpareBytes) {
      spare[this.kind].push(this.#values);
      spareBytes += byteLength;
    }
    [this.#values, this.#length, this.#line] = [new kinds[this.kind](0), 0, { first: 0, by: 0 }];
  }
}

/** The line of `length` numbers that goes on with `value`; null where it does not. */
function lineWith(line: Line, length: number, value: number): Line | null {
  if (length === 0) return { first: value, by: 0 };
  const by = length === 1 ? value - line.first : line.by;
  // What is no number, and what rounding would change, is not on the line.
  return line.first + by * length === value ? { first: line.first, by } : null;
}
