/** Reading configs of golden models with some keys changed. */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { UpcycleError } from "../../../../src/base/errors.js";
import { configFromSpec, specFromConfig } from "../../../../src/model/decoder/config.js";
import type { DecoderSpec, MoeFfn } from "../../../../src/model/decoder/types.js";

export type Config = Record<string, unknown>;

export const goldenConfig = (name: string): Config =>
  JSON.parse(readFileSync(new URL(`../../../golden/${name}/config.json`, import.meta.url), "utf8")) as Config;

export const read = (config: unknown): DecoderSpec => specFromConfig(config, "m/config.json");

export const write = (spec: DecoderSpec): Config => configFromSpec(spec, { dtype: "bfloat16" });

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
  let found: unknown;
  try {
    action();
  } catch (error) {
    found = error;
  }
  expect(found, line).toBeInstanceOf(UpcycleError);
  expect((found as UpcycleError).line).toContain(line);
  expect((found as UpcycleError).line).not.toContain("\n");
}
