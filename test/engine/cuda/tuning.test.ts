/** Which of several proposals is taken. */
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { graphCache } from "../../../src/engine/cache/graph-cache.js";
import { choiceCache, keptChoice, worthChoosing } from "../../../src/engine/cuda/tuning.js";
import { temporaryFolder } from "../../files/io/temporary.js";

describe("the choice among timed products", () => {
  it("stays with the first unless another is clearly faster", () => {
    expect(worthChoosing([10, 9.8, 11])).toBe(0);
    expect(worthChoosing([10, 9.6, 9.5])).toBe(2);
    expect(worthChoosing([10, Infinity])).toBe(0);
    expect(worthChoosing([10])).toBe(0);
  });
});

describe("a choice that is kept", () => {
  const choice = Uint8Array.of(1, 2, 3);
  /** Fills the cache of graphs beyond its limit, as often as it takes to remove all that was there. */
  const fill = async (folder: string): Promise<void> => {
    const graphs = graphCache(folder, 4000);
    for (const name of ["a", "b", "c"]) await graphs.write(name, [new Uint8Array(3900)]);
  };

  it("stays when graphs fill the cache", async () => {
    const folder = join(temporaryFolder(), "filled");
    await keptChoice(choiceCache(folder), "key", choice);
    await fill(folder);
    expect([...((await choiceCache(folder).read("key")) ?? [])]).toEqual([...choice]);
  });

  it("stays too where an earlier version kept it among the graphs", async () => {
    const folder = join(temporaryFolder(), "earlier");
    await graphCache(folder).write("key", [choice]);
    expect([...(await keptChoice(choiceCache(folder), "key", Uint8Array.of(9, 9, 9)))]).toEqual([...choice]);
    await fill(folder);
    expect(await graphCache(folder).read("key")).toBeUndefined();
    expect([...((await choiceCache(folder).read("key")) ?? [])]).toEqual([...choice]);
  });
});

it("of commands that choose at the same time all take what was kept first", async () => {
  const cache = graphCache(join(temporaryFolder(), "tuned"));
  expect(await keptChoice(cache, "key", Uint8Array.of(1, 2))).toEqual(Uint8Array.of(1, 2));
  expect([...(await keptChoice(cache, "key", Uint8Array.of(3, 4)))]).toEqual([1, 2]);
  expect([...((await cache.read("key")) ?? [])]).toEqual([1, 2]);
});
