/** Balanced assignment, beside scipy's assignment problem (test/external/make_clusters.py). */
import { readFileSync } from "node:fs";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { balancedAssignment } from "../../../src/surgery/planning/balanced.js";

interface BalancedCase {
  readonly clusters: number;
  readonly costs: readonly number[];
  readonly sum: number;
}
const { balanced } = JSON.parse(readFileSync(new URL("golden/clusters.json", import.meta.url), "utf8")) as {
  readonly balanced: readonly BalancedCase[];
};

const sumOf = (costs: readonly number[], clusters: number, members: Iterable<number>): number =>
  [...members].reduce((sum, cluster, item) => sum + costs[item * clusters + cluster]!, 0);
const sizesOf = (members: Int32Array, clusters: number): number[] =>
  Array.from({ length: clusters }, (_, cluster) => members.filter((member) => member === cluster).length);

/** The smallest sum over all balanced assignments, by trying them. */
function smallest(costs: readonly number[], clusters: number, places: number): number {
  const left = new Array<number>(clusters).fill(places);
  const items = costs.length / clusters;
  const from = (item: number): number => {
    if (item === items) return 0;
    let best = Infinity;
    for (let cluster = 0; cluster < clusters; cluster++) {
      if (left[cluster] === 0) continue;
      left[cluster]! -= 1;
      best = Math.min(best, costs[item * clusters + cluster]! + from(item + 1));
      left[cluster]! += 1;
    }
    return best;
  };
  return from(0);
}

describe("balancedAssignment", () => {
  it.each(balanced)("costs what scipy's best assignment costs ($clusters clusters)", ({ clusters, costs, sum }) => {
    const members = balancedAssignment(Float64Array.from(costs), clusters);
    expect(sumOf(costs, clusters, members)).toBe(sum);
    expect(new Set(sizesOf(members, clusters)).size).toBe(1);
  });

  it("fills all clusters equally, at the smallest sum there is", () => {
    const problem = fc
      .tuple(fc.integer({ min: 1, max: 3 }), fc.integer({ min: 1, max: 3 }))
      .chain(([clusters, places]) =>
        fc.record({
          clusters: fc.constant(clusters),
          places: fc.constant(places),
          costs: fc.array(fc.integer({ min: -9, max: 9 }), {
            minLength: clusters * clusters * places,
            maxLength: clusters * clusters * places,
          }),
        }),
      );
    fc.assert(
      fc.property(problem, ({ clusters, places, costs }) => {
        const members = balancedAssignment(Float64Array.from(costs), clusters);
        expect(sizesOf(members, clusters)).toEqual(new Array<number>(clusters).fill(places));
        expect(sumOf(costs, clusters, members)).toBe(smallest(costs, clusters, places));
      }),
    );
  });

  it("refuses clusters that cannot be equally large", () => {
    expect(() => balancedAssignment(new Float64Array(10), 4)).toThrow("do not fill 4 clusters equally");
  });
});
