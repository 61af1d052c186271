/** Columns of one kind of record, with as many rows as are worth their memory. */
import { Series, type Numbers } from "./series.js";
import { thinned } from "./thinning.js";

/**
 * Rows that are kept of one log at most, and those of its end that stay as they are: a run of millions of steps would
 * take the memory of hundreds of others.
 */
const mostRows = 1 << 18;
const wholeRows = 8192;

interface TableOptions<Name> {
  readonly singles?: ReadonlySet<Name>;
  readonly room?: number;
  readonly most?: number | undefined;
}

/** A table of rows that grow at their end, by step, tokens and hours. */
export class Table<Name extends string> {
  readonly step: Series;
  readonly tokens: Series;
  readonly hours: Series;
  readonly #columns: (Series | undefined)[];
  readonly #singles: ReadonlySet<Name>;
  readonly #room: number;
  readonly #most: number;
  /** Two rows of the first `#settled` stand for twice so many of the log. */
  #every = 1;
  #settled = 0;

  /**
   * `names` of its columns, the first of which decides what is kept of too many rows; those of `singles` have the
   * digits of a chart. `room`: rows that there will be, about. `most`: rows that are kept.
   */
  constructor(
    private readonly names: readonly Name[],
    { singles = new Set(), room = 0, most = mostRows }: TableOptions<Name> = {},
  ) {
    this.#columns = names.map(() => undefined);
    this.#singles = singles;
    this.#most = most;
    this.#room = Math.min(room, most);
    this.step = new Series("count", this.#room);
    this.tokens = new Series("double", this.#room);
    this.hours = new Series("single", this.#room);
  }

  /**
   * Adds a row; `values` are in the order of the names, those that are missing at the end are not measured. Returns
   * whether rows before it were let go.
   */
  add(
    at: { readonly step: number; readonly tokens: number; readonly hours: number },
    values: readonly number[],
  ): boolean {
    const { length } = this.step;
    this.step.push(at.step);
    this.tokens.push(at.tokens);
    this.hours.push(at.hours);
    for (let i = 0; i < this.#columns.length; i++) {
      const value = values[i] ?? NaN;
      const column = this.#columns[i];
      if (column !== undefined) column.push(value);
      // A measure that no record has takes no room.
      else if (!Number.isNaN(value)) this.#begin(i, length).push(value);
    }
    return this.#thin();
  }

  /** Lets rows go where there are too many: as many of every part of the log, so that its curve stays what it was. */
  #thin(): boolean {
    const end = this.step.length;
    const isFull = end > this.#most;
    if (!isFull && (this.#every === 1 || end - this.#settled < Math.max(wholeRows, 4 * this.#every))) return false;
    for (let every = 1; every < this.#every; every *= 2) this.#halve(this.#settled);
    if (isFull) {
      this.#halve(0);
      this.#every *= 2;
    }
    this.#settled = this.step.length;
    return true;
  }

  #halve(from: number): void {
    const kept = thinned((this.#columns[0] ?? this.step).values, from);
    for (const series of this.#all()) series.keep(from, kept);
  }

  /** A column that comes late: what is before it is not measured. */
  #begin(index: number, length: number): Series {
    const column = new Series(this.#singles.has(this.names[index]!) ? "single" : "double", this.#room);
    for (let i = 0; i < length; i++) column.push(NaN);
    this.#columns[index] = column;
    return column;
  }

  column(name: Name): Numbers | null {
    return this.#columns[this.names.indexOf(name)]?.values ?? null;
  }

  /** The measures that some record has. */
  get present(): readonly Name[] {
    return this.names.filter((_, i) => this.#columns[i] !== undefined);
  }

  truncate(length: number): void {
    for (const series of this.#all()) series.truncate(length);
    this.#settled = Math.min(this.#settled, length);
  }

  get bytes(): number {
    return this.#all().reduce((sum, series) => sum + series.bytes, 0);
  }

  release(): void {
    for (const series of this.#all()) series.release();
  }

  #all(): Series[] {
    return [this.step, this.tokens, this.hours, ...this.#columns.flatMap((column) => column ?? [])];
  }
}
