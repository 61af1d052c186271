/** Reading configs of golden models with some keys changed. */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { UpcycleError } from "../../../../src/base/errors.js";
import { configFromSpec, specFromConfig } from "../../../../src/model/decoder/config.js";
import type { DecoderSpec, MoeFfn } from "../../../../src/model/decoder/types.js";

/** A parsed `config.json`. */
export type Config = Record<string, unknown>;

/** The config of a golden model, such as `dense/llama`. */
export const goldenConfig = (name: string): Config =>
  JSON.parse(readFileSync(new URL(`../../../golden/${name}/config.json`, import.meta.url), "utf8")) as Config;

/** The description of a config, which errors call m/config.json. */
export const read = (config: unknown): DecoderSpec => specFromConfig(config, "m/config.json");

/** The config of a description. */
export const write = (spec: DecoderSpec): Config => configFromSpec(spec, { dtype: "bfloat16" });

/** A config without some of its keys. */
export const without = (config: Config, ...keys: string[]): Config =>
  Object.fromEntries(Object.entries(config).filter(([key]) => !keys.includes(key)));

/** A spec whose mixtures of experts are all changed alike. */
export const withExperts = (spec: DecoderSpec, change: Partial<MoeFfn>): DecoderSpec => ({
  ...spec,
  layers: spec.layers.map((layer) =>
    layer.ffn.kind === "moe" ? { ...layer, ffn: { ...layer.ffn, ...change } } : layer,
  ),
});

/** The action fails with one line that contains `line`. */
export function refuses(action: () => unknown, line: string): void {
  let thrown: unknown;
  try {
    action();
  } catch (error) {
    thrown = error;
  }
  expect(thrown, line).toBeInstanceOf(UpcycleError);
  expect((thrown as UpcycleError).line).toContain(line);
  expect((thrown as UpcycleError).line).not.toContain("\n");
}
