/**
 * Typed access to the keys of a Hugging Face `config.json`. Every method throws inputError
 * `FILE: KEY is FOUND, expected EXPECTED` when the value is not what it asks for. A `fallback` stands in for an absent
 * key only; null is a value of its own in these files.
 */
import { inputError } from "../../../base/errors.js";
import type { UpcycleError } from "../../../base/errors.js";
import { shown } from "../../../base/shown.js";

interface IntRange {
  readonly min?: number;
  readonly max?: number;
}

/** Larger sizes than any model has; keeps a typing error from asking for gigabytes. */
const largestInt = 2 ** 31 - 1;

/** An object of a `config.json`, read key by key. */
export class ConfigReader {
  constructor(
    private readonly values: Readonly<Record<string, unknown>>,
    readonly where: string,
    /** Path of the enclosing object, with its dot: `rope_scaling.`. */
    private readonly prefix: string = "",
    /** The file's own spelling of some keys. */
    private readonly names: Readonly<Record<string, string>> = {},
  ) {}

  /** The same object, some of whose keys this family spells otherwise; objects inside it keep the usual names. */
  renamed(names: Readonly<Record<string, string>>): ConfigReader {
    return new ConfigReader(this.values, this.where, this.prefix, names);
  }

  /**
   * The same object with the entries of the objects under `keys` (outer ones first) as entries of its own:
   * `attn_config.clip_qkv`.
   */
  flattened(keys: readonly string[]): ConfigReader {
    const values: Record<string, unknown> = { ...this.values };
    for (const key of keys) {
      const inner = new ConfigReader(values, this.where).object(key);
      for (const [name, value] of Object.entries(inner?.values ?? {})) values[`${key}.${name}`] = value;
    }
    return new ConfigReader(values, this.where, this.prefix, this.names);
  }

  /** The same object with further or other entries. */
  with(entries: Readonly<Record<string, unknown>>): ConfigReader {
    return new ConfigReader({ ...this.values, ...entries }, this.where, this.prefix, this.names);
  }

  private spelled(key: string): string {
    return (Object.hasOwn(this.names, key) ? this.names[key] : undefined) ?? key;
  }

  /** The raw value; undefined if the key is absent. */
  get(key: string): unknown {
    const name = this.spelled(key);
    return Object.hasOwn(this.values, name) ? this.values[name] : undefined;
  }

  /** The file's own keys. */
  keys(): readonly string[] {
    return Object.keys(this.values);
  }

  /** True if the key is present and not null. */
  has(key: string): boolean {
    return this.get(key) !== undefined && this.get(key) !== null;
  }

  /** The error that a key's value is not what was expected. */
  fail(key: string, expected: string, hint?: string): UpcycleError {
    return inputError(`${this.prefix}${this.spelled(key)} is ${shown(this.get(key), 80)}, expected ${expected}`, {
      where: this.where,
      hint,
    });
  }

  /** An integer, at least 1 unless the range says otherwise. */
  int(key: string, fallback?: number, { min = 1, max = largestInt }: IntRange = {}): number {
    const value = this.get(key) ?? (this.get(key) === undefined ? fallback : undefined);
    if (typeof value !== "number" || !Number.isInteger(value) || value < min || value > max) {
      throw this.fail(key, `an integer from ${min} to ${max}`);
    }
    return value;
  }

  /** An integer, or null if the key is null. */
  intOrNull(key: string, fallback?: number | null, range: IntRange = {}): number | null {
    const value = this.get(key);
    if (value === null || (value === undefined && fallback === null)) return null;
    return this.int(key, fallback ?? undefined, range);
  }

  /** A finite number above zero, or from zero if `zero` is allowed. */
  positive(key: string, fallback?: number, { zero = false } = {}): number {
    const value = this.get(key) ?? (this.get(key) === undefined ? fallback : undefined);
    if (typeof value !== "number" || !Number.isFinite(value) || value < 0 || (value === 0 && !zero)) {
      throw this.fail(key, zero ? "a number from 0" : "a number above 0");
    }
    return value;
  }

  /** True or false. */
  bool(key: string, fallback: boolean): boolean {
    const value = this.get(key) === null ? false : (this.get(key) ?? fallback);
    if (typeof value !== "boolean") throw this.fail(key, "true or false");
    return value;
  }

  /** A list whose entries pass `isEntry`, or null if the key is absent or null. */
  list<T>(key: string, isEntry: (value: unknown) => value is T, expected: string): readonly T[] | null {
    if (!this.has(key)) return null;
    const value = this.get(key);
    if (!Array.isArray(value) || !value.every(isEntry)) throw this.fail(key, expected);
    return value;
  }

  /** The object under a key, or null if the key is absent or null. */
  object(key: string): ConfigReader | null {
    if (!this.has(key)) return null;
    const value = this.get(key);
    if (typeof value !== "object" || Array.isArray(value)) throw this.fail(key, "an object or null");
    return new ConfigReader(value as Record<string, unknown>, this.where, `${this.prefix}${key}.`);
  }
}

/** True for an integer that a double holds exactly. */
export function isInteger(value: unknown): value is number {
  return Number.isSafeInteger(value);
}

/** True for text. */
export function isString(value: unknown): value is string {
  return typeof value === "string";
}
