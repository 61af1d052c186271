/** Spherical k-means, beside numpy's (test/external/make_clusters.py). */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { randomStream } from "../../../src/base/random.js";
import { cluster, directionsOf, firstCentroids } from "../../../src/surgery/planning/clusters.js";

interface KMeansCase {
  readonly width: number;
  readonly points: readonly number[];
  readonly first: readonly number[];
  readonly centroids: readonly number[];
  readonly members: readonly number[];
  readonly cosine: number;
}
const { kmeans } = JSON.parse(readFileSync(new URL("golden/clusters.json", import.meta.url), "utf8")) as {
  readonly kmeans: readonly KMeansCase[];
};

/**
 * Points about `centers` that are far apart, `each` of them for every centre, those of a centre one behind the other.
 */
function blobs(centers: number, each: number, width: number, spread: number): Float32Array {
  const points = new Float32Array(centers * each * width);
  randomStream(1, "blobs").normals(points, 0, 0, spread);
  for (let i = 0; i < centers * each; i++) points[i * width + Math.floor(i / each)]! += 1;
  return points;
}

describe("cluster", () => {
  it.each(kmeans)("finds numpy's centroids from the same first points ($width wide)", (golden) => {
    const directions = directionsOf(Float32Array.from(golden.points), golden.width);
    const { centroids, members, sizes, cosine } = cluster(directions, golden.width, golden.first);
    expect([...members]).toEqual(golden.members);
    golden.centroids.forEach((value, i) => expect(centroids[i]).toBeCloseTo(value, 12));
    expect(cosine).toBeCloseTo(golden.cosine, 12);
    expect(sizes.reduce((a, b) => a + b, 0)).toBe(golden.members.length);
  });

  it("leaves no cluster empty, though two begin at equal points", () => {
    const directions = directionsOf(Float32Array.of(1, 0, 2, 0, 0, 1, 0.1, 1, -1, -1), 2);
    const { sizes, members } = cluster(directions, 2, [0, 1, 2]);
    expect(Math.min(...sizes)).toBeGreaterThan(0);
    expect(sizes).toEqual([0, 1, 2].map((index) => members.filter((member) => member === index).length));
  });

  it("ends, though points cancel out", () => {
    const { centroids } = cluster(directionsOf(Float32Array.of(1, 0, -1, 0), 2), 2, [0]);
    expect([...centroids]).toEqual([1, 0]);
  });
});

describe("firstCentroids", () => {
  it("takes a point of each of several groups that are far apart, by the seed alone", () => {
    const directions = directionsOf(blobs(6, 20, 6, 1e-4), 6);
    for (let seed = 0; seed < 20; seed++) {
      const first = firstCentroids(directions, 6, 6, randomStream(seed, "first"));
      expect([...first].map((point) => Math.floor(point / 20)).sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5]);
      expect(firstCentroids(directions, 6, 6, randomStream(seed, "first"))).toEqual(first);
    }
    const of = (seed: number): number => firstCentroids(directions, 6, 1, randomStream(seed, "first"))[0]!;
    expect(new Set(Array.from({ length: 20 }, (_, seed) => of(seed))).size).toBeGreaterThan(5);
  });

  it("draws the second point in proportion to the squared distance from the first", () => {
    // From (1, 0): (0, 1) is at distance 2, (-1, 0) at distance 4; (3, 0) has the first one's direction.
    const directions = directionsOf(Float32Array.of(1, 0, 0, 1, -1, 0, 3, 0), 2);
    const counts = [0, 0, 0, 0];
    let draws = 0;
    for (let seed = 0; seed < 4000; seed++) {
      const [first, second] = firstCentroids(directions, 2, 2, randomStream(seed, "second"));
      if (first !== 0) continue;
      counts[second!]! += 1;
      draws += 1;
    }
    expect([counts[0], counts[3]]).toEqual([0, 0]);
    expect(counts[2]! / draws).toBeCloseTo(2 / 3, 1);
  });

  it("finds no more points than there are directions, and none without one", () => {
    const directions = directionsOf(Float32Array.of(1, 1, 2, 2, 0, 0, 0, 1), 2);
    expect(firstCentroids(directions, 2, 4, randomStream(0, "few"))).toHaveLength(2);
    expect(firstCentroids(new Float64Array(6), 2, 1, randomStream(0, "none"))).toEqual([]);
  });
});
