/**
 * Spherical k-means (Dhillon & Modha 2001, "Concept decompositions for large sparse text data using clustering",
 * section 3): points are compared by their directions alone, and a centroid is the direction of its points' sum.
 *
 * The first centroids are drawn by k-means++ (Arthur & Vassilvitskii 2007): each next one is a point, drawn with a
 * probability that is proportional to its squared distance to the nearest centroid so far. Of points of length 1 that
 * distance is 2 - 2 cos.
 *
 * Letters: N points, W their width, K clusters. Sums are taken in double precision and in the order of the points, so
 * equal points and an equal seed give equal centroids everywhere.
 */
import type { RandomStream } from "../../base/random.js";

/** What became of N points. */
export interface Clusters {
  /** [K, W], each of length 1. */
  readonly centroids: Float64Array;
  /** The cluster of each point [N]. */
  readonly members: Int32Array;
  /** Points in each cluster [K]; none is empty. */
  readonly sizes: readonly number[];
  /** Mean over points of the cosine between a point and its centroid. */
  readonly cosine: number;
  /** How often points were assigned. */
  readonly rounds: number;
}

/** Points scaled to length 1; a point of length 0 stays as it is. */
export function directionsOf(points: Float32Array, width: number): Float64Array {
  const directions = Float64Array.from(points);
  for (let start = 0; start < directions.length; start += width) toLengthOne(directions.subarray(start, start + width));
  return directions;
}

/**
 * The rows [K] of `directions` [N, W] that the search for clusters begins with. Fewer than K come back where the points
 * have fewer than K directions.
 */
export function firstCentroids(
  directions: Float64Array,
  width: number,
  count: number,
  stream: RandomStream,
): readonly number[] {
  const points = directions.length / width;
  const distances = new Float64Array(points).fill(Infinity);
  const chosen: number[] = [];
  while (chosen.length < count) {
    const next =
      chosen.length === 0 ? firstPoint(directions, width, stream) : drawnBy(distances, stream, chosen.length);
    if (next === null) break;
    chosen.push(next);
    for (let point = 0; point < points; point++)
      distances[point] = Math.min(distances[point]!, squaredDistance(directions, point, next, width));
  }
  return chosen;
}

/** A point that has a direction, all of them equally likely; null if none has. */
function firstPoint(directions: Float64Array, width: number, stream: RandomStream): number | null {
  const points = directions.length / width;
  const has = Float64Array.from({ length: points }, (_, i) => (isZero(directions, i, width) ? 0 : 1));
  return drawnBy(has, stream, 0);
}

/** An index with a probability proportional to its weight, by number `index` of the stream; null if all are 0. */
function drawnBy(weights: Float64Array, stream: RandomStream, index: number): number | null {
  const sum = weights.reduce((a, b) => a + b, 0);
  if (!(sum > 0)) return null;
  let left = stream.uniformAt(index) * sum;
  let last: number | null = null;
  for (const [i, weight] of weights.entries()) {
    if (weight === 0) continue;
    if (left < weight) return i;
    left -= weight;
    last = i;
  }
  return last;
}

/** A vector of zeros has no direction, so it is at no distance from any and is never drawn. */
function squaredDistance(directions: Float64Array, point: number, other: number, width: number): number {
  if (isZero(directions, point, width)) return 0;
  let sum = 0;
  for (let i = 0; i < width; i++) sum += (directions[point * width + i]! - directions[other * width + i]!) ** 2;
  return sum;
}

function isZero(rows: Float64Array, row: number, width: number): boolean {
  for (let i = row * width; i < (row + 1) * width; i++) if (rows[i] !== 0) return false;
  return true;
}

/** Rounds after which the search ends where points still change their clusters. */
const mostRounds = 100;

/**
 * Clusters `directions` [N, W] (rows of length 1), beginning with the points `first` [K] as centroids. Points go to the
 * centroid of the largest cosine, of equal ones to the first; centroids become the direction of their points' sum;
 * until no point changes. A cluster that has lost all points gets the point that is farthest from its own centroid.
 */
export function cluster(directions: Float64Array, width: number, first: readonly number[]): Clusters {
  const points = directions.length / width;
  const count = first.length;
  let centroids = Float64Array.from(
    { length: count * width },
    (_, i) => directions[first[Math.floor(i / width)]! * width + (i % width)]!,
  );
  const members = new Int32Array(points).fill(-1);
  const cosines = new Float64Array(points);
  let rounds = 0;
  for (let changed = true; changed && rounds < mostRounds; rounds++) {
    changed = assign(directions, centroids, width, members, cosines);
    fillEmpty(members, cosines, count);
    if (changed) centroids = centroidsOf(directions, width, members, centroids);
  }
  const sizes = sizesOf(members, count);
  return { centroids, members, sizes, cosine: cosines.reduce((a, b) => a + b, 0) / points, rounds };
}

/** Points in each of `count` clusters. */
function sizesOf(members: Int32Array, count: number): number[] {
  const sizes = new Array<number>(count).fill(0);
  for (const cluster of members) sizes[cluster]! += 1;
  return sizes;
}

/** Puts every point into the cluster of its nearest centroid; whether any has changed. */
function assign(
  directions: Float64Array,
  centroids: Float64Array,
  width: number,
  members: Int32Array,
  cosines: Float64Array,
): boolean {
  const count = centroids.length / width;
  let changed = false;
  for (let point = 0; point < members.length; point++) {
    let [best, highest] = [0, -Infinity];
    for (let cluster = 0; cluster < count; cluster++) {
      const cosine = product(directions, point * width, centroids, cluster * width, width);
      if (cosine > highest) [best, highest] = [cluster, cosine];
    }
    changed ||= members[point] !== best;
    members[point] = best;
    cosines[point] = highest;
  }
  return changed;
}

/** Inner product of two rows; four sums at a time, because one would wait for itself. */
function product(a: Float64Array, aStart: number, b: Float64Array, bStart: number, width: number): number {
  let [s0, s1, s2, s3] = [0, 0, 0, 0];
  let i = 0;
  for (; i + 4 <= width; i += 4) {
    s0 += a[aStart + i]! * b[bStart + i]!;
    s1 += a[aStart + i + 1]! * b[bStart + i + 1]!;
    s2 += a[aStart + i + 2]! * b[bStart + i + 2]!;
    s3 += a[aStart + i + 3]! * b[bStart + i + 3]!;
  }
  for (; i < width; i++) s0 += a[aStart + i]! * b[bStart + i]!;
  return s0 + s1 + (s2 + s3);
}

/** Gives every empty cluster the point with the smallest cosine whose own cluster keeps others. */
function fillEmpty(members: Int32Array, cosines: Float64Array, count: number): void {
  const sizes = sizesOf(members, count);
  for (const [cluster, size] of sizes.entries()) {
    if (size > 0) continue;
    let farthest = -1;
    for (let point = 0; point < members.length; point++) {
      if (sizes[members[point]!]! < 2) continue;
      if (farthest < 0 || cosines[point]! < cosines[farthest]!) farthest = point;
    }
    sizes[members[farthest]!]! -= 1;
    sizes[cluster]! += 1;
    members[farthest] = cluster;
    cosines[farthest] = 1;
  }
}

/** The direction of each cluster's sum; where points cancel out the centroid stays as it was. */
function centroidsOf(
  directions: Float64Array,
  width: number,
  members: Int32Array,
  before: Float64Array,
): Float64Array<ArrayBuffer> {
  const sums = new Float64Array(before.length);
  for (const [point, cluster] of members.entries())
    for (let i = 0; i < width; i++) sums[cluster * width + i]! += directions[point * width + i]!;
  for (let start = 0; start < sums.length; start += width) {
    const sum = sums.subarray(start, start + width);
    if (!toLengthOne(sum)) sum.set(before.subarray(start, start + width));
  }
  return sums;
}

/** Scales a vector to length 1; false for one of length 0, which stays. */
function toLengthOne(vector: Float64Array): boolean {
  let squares = 0;
  for (const value of vector) squares += value * value;
  const length = Math.sqrt(squares);
  if (length === 0) return false;
  for (let i = 0; i < vector.length; i++) vector[i]! /= length;
  return true;
}
