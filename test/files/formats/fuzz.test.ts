import { spawnSync } from "node:child_process";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import { expect, it } from "vitest";
import { at } from "../../../src/base/at.js";
import { UpcycleError } from "../../../src/base/errors.js";
import { jsonText, shown } from "../../../src/base/shown.js";
import { encodeSafetensors } from "../../../src/files/formats/safetensors.js";
import { parseSafetensors } from "../../support/safetensors.js";

it("damaged headers, indexes, configs and archives end as a value or as bad input, in time and little memory", () => {
  const seed = at(fc.sample(fc.nat(1_000_000), 1), 0);
  const script = fileURLToPath(new URL("../../../bench/fuzz.mjs", import.meta.url));
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [script, "--cases", "3000", "--seed", String(seed), "--out", "-"],
    { encoding: "utf8" },
  );
  expect(stderr, `seed ${seed}`).toBe("");
  expect(status).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({ cases: 3000, failures: 0 });
});

it("values that nest too deeply for JSON are named in words", () => {
  const deep: unknown = JSON.parse(`${"[".repeat(100_000)}${"]".repeat(100_000)}`);
  expect(jsonText(deep)).toBe("a deeply nested list");
  expect(shown({ a: deep })).toBe("a deeply nested object");
  expect([shown(undefined), shown("x"), shown("y".repeat(100)).length]).toEqual(["missing", '"x"', 60]);
  const file = encodeSafetensors([{ name: "t", dtype: "U8", shape: [1], bytes: new Uint8Array(1) }]);
  const json = new TextEncoder().encode(`{"t":${"[".repeat(100_000)}${"]".repeat(100_000)}}`);
  const bad = new Uint8Array(8 + json.length + 1);
  new DataView(bad.buffer).setBigUint64(0, BigInt(json.length), true);
  bad.set(json, 8);
  expect(() => parseSafetensors(bad, "f")).toThrow(UpcycleError);
  expect(() => parseSafetensors(bad, "f")).toThrow("header: lists and objects are nested more than 500 levels deep");
  expect(parseSafetensors(file, "f").tensors.size).toBe(1);
});
