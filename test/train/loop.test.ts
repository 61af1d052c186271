import { expect, it } from "vitest";
import { stepsAhead } from "../../src/train/loop.js";

it("as many steps are asked for ahead as take 40 ms together: one at least, 16 at most", () => {
  expect([null, 1000, 40, 39, 20, 9, 2.33, 0].map(stepsAhead)).toEqual([1, 1, 1, 1, 2, 4, 16, 16]);
});
