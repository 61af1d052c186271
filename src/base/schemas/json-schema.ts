/** JSON Schema of our YAML files, for editors and for the wording of errors. */
import { z } from "zod";

/** The parts of a JSON Schema that our schemas give rise to. */
export interface JsonSchema {
  readonly type?: string;
  readonly const?: unknown;
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly additionalProperties?: boolean | JsonSchema;
  readonly items?: JsonSchema;
  readonly anyOf?: readonly JsonSchema[];
  readonly oneOf?: readonly JsonSchema[];
  readonly minimum?: number;
  readonly exclusiveMinimum?: number;
  readonly maximum?: number;
  readonly exclusiveMaximum?: number;
  readonly minItems?: number;
  readonly pattern?: string;
  readonly description?: string;
}

/** The JSON Schema (draft 2020-12) of what a user may write: keys with a default are optional. */
export function jsonSchema(schema: z.ZodType): JsonSchema {
  return z.toJSONSchema(schema, { io: "input" }) as JsonSchema;
}

/**
 * The schemas that apply at `path`. Where a constant key (`kind`) decides between branches, only the branch that the
 * data names is followed, if it names one.
 */
export function schemasAt(root: JsonSchema, path: readonly PropertyKey[], data: unknown): JsonSchema[] {
  let here = branches(root, data);
  let value = data;
  for (const step of path) {
    value = child(value, step);
    here = here
      .flatMap((node): JsonSchema[] => {
        const property = node.properties?.[String(step)];
        if (property !== undefined) return [property];
        if (typeof step === "number" && node.items !== undefined) return [node.items];
        return typeof node.additionalProperties === "object" ? [node.additionalProperties] : [];
      })
      .flatMap((node) => branches(node, value));
  }
  return here;
}

/** `data[step]`; undefined where there is no such value or `data` is no object. */
export function child(data: unknown, step: PropertyKey): unknown {
  return typeof data === "object" && data !== null ? (data as Record<PropertyKey, unknown>)[step] : undefined;
}

function branches(node: JsonSchema, data: unknown): JsonSchema[] {
  const choices = node.oneOf ?? node.anyOf;
  if (choices === undefined) return [node];
  const fits = ([key, property]: [string, JsonSchema]): boolean =>
    property.const === undefined || property.const === child(data, key);
  const fitting = choices.filter((choice) => Object.entries(choice.properties ?? {}).every(fits));
  return (fitting.length > 0 ? fitting : choices).flatMap((choice) => branches(choice, data));
}

/** The fixed values that a schema accepts; empty if it is not a choice of words. */
export function wordsOf(nodes: readonly JsonSchema[]): unknown[] {
  return nodes.flatMap((node) => node.enum ?? (node.const === undefined ? [] : [node.const]));
}

/** What a schema accepts, in words: `a whole number of at least 1`, `one of "a", "b"`, `a block of keys`. */
export function describeExpected(nodes: readonly JsonSchema[]): string {
  const words = wordsOf(nodes);
  if (words.length === 1) return JSON.stringify(words[0]);
  if (words.length > 1) return `one of ${words.map((word) => JSON.stringify(word)).join(", ")}`;
  return [...new Set(nodes.map(describeType))].join(" or ");
}

function describeType(node: JsonSchema): string {
  switch (node.type) {
    case "integer":
      return `a whole number${range(node)}`;
    case "number":
      return `a number${range(node)}`;
    case "boolean":
      return "true or false";
    case "string":
      if (node.pattern === undefined || node.description === undefined) return "text";
      return `text (${node.description.replace(/\.$/, "")})`;
    case "array":
      return node.minItems === undefined ? "a list" : `a list of at least ${node.minItems}`;
    case "object":
      return "a block of keys";
    default:
      return "another value";
  }
}

function range({ minimum, exclusiveMinimum, maximum, exclusiveMaximum }: JsonSchema): string {
  // Safe-integer limits are zod's own, not ours: they tell a user nothing.
  const least = minimum === undefined || minimum <= Number.MIN_SAFE_INTEGER ? undefined : minimum;
  const most = maximum === undefined || maximum >= Number.MAX_SAFE_INTEGER ? undefined : maximum;
  if (least !== undefined && most !== undefined) return ` from ${least} to ${most}`;
  const limits = [
    least === undefined ? "" : `of at least ${least}`,
    exclusiveMinimum === undefined ? "" : `above ${exclusiveMinimum}`,
    most === undefined ? "" : `at most ${most}`,
    exclusiveMaximum === undefined ? "" : `below ${exclusiveMaximum}`,
  ].filter((limit) => limit !== "");
  return limits.length === 0 ? "" : ` ${limits.join(" and ")}`;
}
