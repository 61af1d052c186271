/**
 * Which hidden units of an FFN become which expert, by when they are active on text ("Analytical FFN-to-MoE
 * Restructuring via Activation Pattern Analysis", CMoE, arXiv 2502.04416, and the authors' code, JarvisPei/CMoE):
 *
 * 1. A unit is active for a token if its activation is among the `mostActive` largest of the token's, by size.
 * 2. The S units that are active for the most tokens are the shared expert.
 * 3. Of the others, the G that are active most are the first centres of G clusters of equal size. Units go to clusters
 *    so that the sum of their distances to the centres is smallest (`balancedAssignment`). The distance of two units is
 *    the number of tokens for which one is active and the other is not.
 * 4. A cluster's representative is the unit nearest to the cluster's mean; the router row is made of its weights.
 *
 * Letters: F hidden units, N tokens, S units of the shared expert, G clusters.
 */
import { balancedAssignment } from "./balanced.js";

/** How many units of a token are active, as in the authors' code. */
export const mostActive = 10;

/** For which tokens each unit is active. */
export interface ActivityOf {
  readonly units: number;
  /** Tokens that were noted. */
  readonly tokens: number;
  /** [F, ceil(N / 32)]: bit t mod 32 of word t / 32 says whether the unit is active for token t. */
  readonly bits: Uint32Array;
}

/** Notes token by token which units are active. */
export class Activity implements ActivityOf {
  tokens = 0;
  readonly bits: Uint32Array;
  private readonly words: number;

  constructor(
    readonly units: number,
    mostTokens: number,
  ) {
    this.words = Math.ceil(mostTokens / 32);
    this.bits = new Uint32Array(units * this.words);
  }

  /** Takes in the activations of one token [F]. */
  add(activations: Float32Array): void {
    const token = this.tokens++;
    for (const unit of largest(activations, Math.min(mostActive, this.units)))
      this.bits[unit * this.words + (token >> 5)]! |= 1 << (token & 31);
  }
}

/** The `count` places of the largest sizes; of equal ones the first. */
function largest(values: Float32Array, count: number): number[] {
  const places: number[] = [];
  for (let place = 0; place < values.length; place++) {
    const size = Math.abs(values[place]!);
    const last = places[count - 1];
    if (last !== undefined && size <= Math.abs(values[last]!)) continue;
    let i = Math.min(places.length, count - 1);
    for (; i > 0 && Math.abs(values[places[i - 1]!]!) < size; i--) places[i] = places[i - 1]!;
    places[i] = place;
  }
  return places;
}

/** How an FFN is split. */
export interface ActivationSplit {
  /** All units: those of the shared expert, then cluster by cluster; each part in ascending order [F]. */
  readonly order: Int32Array;
  /** The unit that stands for each cluster [G]. */
  readonly representatives: readonly number[];
  /** Share of the tokens for which a unit of the shared expert is active, in the mean; 0 without one. */
  readonly sharedRate: number;
  /** The same of the other units. */
  readonly routedRate: number;
}

/** Splits units into a shared expert of `shared` and `clusters` others. Throws a plain error if they do not divide. */
export function splitByActivity(activity: ActivityOf, shared: number, clusters: number): ActivationSplit {
  const { units, bits, tokens } = activity;
  const words = bits.length / units;
  const counts = Array.from({ length: units }, (_, unit) => onesIn(bits.subarray(unit * words, (unit + 1) * words)));
  const busiest = [...counts.keys()].sort((a, b) => counts[b]! - counts[a]! || a - b);
  const ascending = (list: readonly number[]): number[] => [...list].sort((a, b) => a - b);
  const common = ascending(busiest.slice(0, shared));
  const routed = ascending(busiest.slice(shared));
  const centres = busiest.slice(shared, shared + clusters);
  const costs = new Float64Array(routed.length * clusters);
  for (const [i, unit] of routed.entries())
    for (const [cluster, centre] of centres.entries())
      costs[i * clusters + cluster] = differing(bits, unit * words, centre * words, words);
  const members = balancedAssignment(costs, clusters);
  const groups = centres.map((_, cluster) => routed.filter((_, i) => members[i] === cluster));
  const rate = (list: readonly number[]): number =>
    list.length === 0 ? 0 : list.reduce((sum, unit) => sum + counts[unit]!, 0) / (list.length * tokens);
  return {
    order: Int32Array.from([...common, ...groups.flat()]),
    representatives: groups.map((group) => representative(group, activity, words)),
    sharedRate: rate(common),
    routedRate: rate(routed),
  };
}

function onesIn(bits: Uint32Array): number {
  let count = 0;
  for (const word of bits) count += ones(word);
  return count;
}

/** Ones among 32 bits. */
function ones(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** In how many places two runs of bits differ. */
function differing(bits: Uint32Array, a: number, b: number, words: number): number {
  let count = 0;
  for (let i = 0; i < words; i++) count += ones((bits[a + i]! ^ bits[b + i]!) >>> 0);
  return count;
}

/** The unit of a group whose distance to the group's mean is smallest; of equal ones the first. */
function representative(group: readonly number[], { bits, tokens }: ActivityOf, words: number): number {
  const isActive = (unit: number, token: number): boolean =>
    (bits[unit * words + (token >> 5)]! & (1 << (token & 31))) !== 0;
  // |1 - mean| where the unit is active and |0 - mean| elsewhere: up to a common sum, 1 - 2 mean over its active
  // tokens.
  const distances = new Float64Array(group.length);
  for (let token = 0; token < tokens; token++) {
    const active = group.map((unit) => isActive(unit, token));
    const mean = active.filter((one) => one).length / group.length;
    for (const [i, one] of active.entries()) if (one) distances[i]! += 1 - 2 * mean;
  }
  return group[distances.indexOf(Math.min(...distances))]!;
}
