import { describe, expect, it } from "vitest";
import { checkPoints } from "../../src/laws/check.js";
import { fitLaw } from "../../src/laws/fit.js";
import { publishedById } from "../../src/laws/published.js";
import { placesOf, predict, type Places, type Points } from "../../src/laws/types.js";
import { gridOf, law, spaced, upcyclingGrid } from "./data.js";

const table2 = Object.fromEntries([
  ...(["dense", "moe", "upcycled"] as const).flatMap((group) =>
    Object.entries(publishedById(`liew-${group}`)!.params).filter(([name]) => name !== "E").map(([name, value]) => [`${group}.${name}`, value])),
  ["E", 0.165],
]) as Record<string, number>;

function together(noise: (i: number) => number): Points {
  const scratch = gridOf({ N: spaced(1e8, 1e9, 4), D: spaced(1e9, 1e11, 5) });
  const parts: [string, Places][] = [["dense", scratch], ["moe", scratch], ["upcycled", upcyclingGrid]];
  const column = (name: string): number[] => parts.flatMap(([, { columns, n }]) => [...(columns[name] ?? new Float64Array(n).fill(NaN))]);
  const group = parts.flatMap(([name, { n }]) => new Array<string>(n).fill(name));
  const places = placesOf({ N: column("N"), D: column("D"), D1: column("D1"), D2: column("D2") }, group);
  return { ...places, group, loss: predict(law("upcycling-shared"), table2, places).map((value, i) => value * Math.exp(noise(i))) };
}

describe("dense, MoE and upcycled models with one E", () => {
  it("give back Table 2 from noiseless points", () => {
    const points = together(() => 0);
    expect(checkPoints(law("upcycling-shared"), points)).toEqual([]);
    const { params, status } = fitLaw(law("upcycling-shared"), points, { loss: { name: "mse", delta: 0 } });
    expect(status).toBe("converged");
    expect(Object.keys(params)).toHaveLength(15);
    for (const [name, value] of Object.entries(table2)) expect(Math.abs(params[name]! / value - 1), name).toBeLessThan(1e-8);
  });

  it("predict as each law does alone", () => {
    const places = placesOf({ N: [1e9], D: [5e10], D1: [NaN], D2: [NaN] }, ["dense"]);
    expect(predict(law("upcycling-shared"), table2, places)[0]).toBeCloseTo(2.2868, 4);
  });

  it("need to know which point is which", () => {
    const points = together(() => 0);
    const { group, ...without } = points;
    expect(() => checkPoints(law("upcycling-shared"), without)).toThrow("needs to know which points are dense, moe, upcycled");
    expect(() => checkPoints(law("upcycling-shared"), { ...points, group: group!.map((name, i) => (i === 3 ? "other" : name)) })).toThrow('point 4: group is "other"');
    expect(() => checkPoints(law("upcycling-shared"), { ...points, group: group!.map((name) => (name === "moe" ? "dense" : name)) })).toThrow("0 points of group moe");
  });
});
