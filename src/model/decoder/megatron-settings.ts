/** Settings of Megatron-Core as its `args` name them, and how they are read. Pure. */
import { inputError } from "../../base/errors.js";
import type { UpcycleError } from "../../base/errors.js";

/** A setting's value; what else a checkpoint holds is left out. */
export type MegatronValue = null | boolean | number | string | readonly (number | string)[];

/** Settings by the names of `args`. */
export type MegatronSettings = Readonly<Record<string, MegatronValue>>;

/** How the settings of a checkpoint are read. */
export class SettingsReader {
  readonly #settings: MegatronSettings;
  readonly #where: string;

  constructor(settings: MegatronSettings, where: string) {
    [this.#settings, this.#where] = [settings, where];
  }

  fail(name: string, expected: string): UpcycleError {
    const found = JSON.stringify(this.#settings[name] ?? null);
    return inputError(`setting ${name} is ${found}, expected ${expected}`, {
      where: this.#where,
      hint: "give the model's arguments of pretrain_gpt.py (--args) where the checkpoint does not hold them",
    });
  }

  get(...names: readonly string[]): MegatronValue {
    return names.map((name) => this.#settings[name]).find((value) => value != null) ?? null;
  }

  count(name: string, otherwise?: number): number {
    const value = this.get(name) ?? otherwise ?? null;
    if (typeof value === "number" && Number.isSafeInteger(value) && value > 0 && value < 2 ** 31) return value;
    throw this.fail(name, "a whole number above 0");
  }

  number(names: readonly string[], otherwise: number): number {
    const value = this.get(...names) ?? otherwise;
    if (typeof value === "number" && Number.isFinite(value)) return value;
    throw this.fail(names[0]!, "a number");
  }

  flag(...names: readonly string[]): boolean {
    return names.some((name) => this.#settings[name] === true);
  }

  word<Word extends string>(name: string, words: readonly Word[], otherwise: Word): Word {
    const value = this.get(name) ?? otherwise;
    const found = words.find((word) => word === value);
    if (found === undefined) throw this.fail(name, `one of ${words.join(", ")}`);
    return found;
  }

  /** For each layer 1 or 0: `every` of a number N, or the list itself. */
  pattern(name: string, layers: number, every: (layer: number, frequency: number) => boolean): boolean[] | null {
    const found = this.get(name);
    const value = typeof found === "string" ? listOf(found) : found;
    if (value === null) return null;
    if (typeof value === "number") return Array.from({ length: layers }, (_, layer) => every(layer, value));
    if (Array.isArray(value) && value.length === layers) return value.map((entry) => entry === 1);
    throw this.fail(name, `a number, or 1 or 0 for each of ${layers} layers`);
  }

  /** Refuses settings that change what is computed and that a description has no word for. */
  refuse(names: Readonly<Record<string, readonly MegatronValue[]>>): void {
    for (const [name, allowed] of Object.entries(names)) {
      const value = this.#settings[name] ?? null;
      if (value !== null && value !== false && !allowed.includes(value))
        throw this.fail(name, allowed.length === 0 ? "none" : allowed.join(" or "));
    }
  }
}

/** `([0]*1+[1]*23)` as Megatron's arguments spell patterns of layers; null for anything else. */
export function listOf(text: string): number | number[] | null {
  const plain = text.replace(/\s/g, "");
  if (/^\d+$/.test(plain)) return Number(plain);
  const body = /^\((.*)\)$/.exec(plain)?.[1] ?? plain;
  const list: number[] = [];
  for (const term of body.split("+")) {
    const inside = /^\(*(\[[01](?:,[01])*\])(?:\*(\d{1,4}))?\)*$/.exec(term);
    if (inside === null) return null;
    const values = JSON.parse(inside[1]!) as number[];
    for (let i = 0; i < Number(inside[2] ?? 1); i++) list.push(...values);
  }
  return list;
}
