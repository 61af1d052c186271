/** Which of several proposals is taken. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { graphCache } from "../../../src/engine/cache/graph-cache.js";
import { keptChoice, worthChoosing } from "../../../src/engine/cuda/tuning.js";
import { temporaryFolder } from "../../files/io/temporary.js";

describe("the choice among timed products", () => {
  it("stays with the first unless another is clearly faster", () => {
    expect(worthChoosing([10, 9.8, 11])).toBe(0);
    expect(worthChoosing([10, 9.6, 9.5])).toBe(2);
    expect(worthChoosing([10, Infinity])).toBe(0);
    expect(worthChoosing([10])).toBe(0);
  });
});

it("of commands that choose at the same time all take what was kept first", async () => {
  const cache = graphCache(join(temporaryFolder(), "tuned"));
  expect(await keptChoice(cache, "key", Uint8Array.of(1, 2))).toEqual(Uint8Array.of(1, 2));
  expect([...(await keptChoice(cache, "key", Uint8Array.of(3, 4)))]).toEqual([1, 2]);
  expect([...((await cache.read("key")) ?? [])]).toEqual([1, 2]);
});
