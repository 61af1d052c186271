/**
 * Balanced assignment: items go to clusters that each take equally many, at the smallest sum of costs. It is the
 * transportation problem, solved by successive shortest augmenting paths (Ahuja, Magnanti & Orlin 1993, "Network
 * Flows", section 9.7) on the clusters alone: an item that comes to a full cluster pushes another one on, along the
 * path of clusters that costs least. The sum is that of the assignment problem in which every cluster is there once for
 * each of its places (Jonker & Volgenant 1987), which would take the cube of the number of items.
 *
 * Letters: N items, K clusters.
 */
import { at } from "../../base/at.js";

/**
 * The cluster of each item [N]. `costs` [N, K] are finite; K divides N. Of assignments with one sum it is always the
 * same that comes out. Throws a plain error (a defect of the caller) if K does not divide N.
 */
export function balancedAssignment(costs: Float64Array, clusters: number): Int32Array {
  const items = costs.length / clusters;
  const places = items / clusters;
  if (!Number.isInteger(places)) throw new Error(`${items} items do not fill ${clusters} clusters equally`);
  const members = new Int32Array(items).fill(-1);
  const sizes = new Int32Array(clusters);
  const moves = new Moves(costs, clusters, members);
  for (let item = 0; item < items; item++) {
    const path = cheapestPath(costs, item, clusters, moves, sizes, places);
    // From the end: each cluster hands its item on before it gets another.
    for (let i = path.length - 1; i > 0; i--) moves.put(at(moves.from(at(path, i - 1), at(path, i)), 0), at(path, i));
    moves.put(item, at(path, 0));
    sizes[at(path, -1 + path.length)]! += 1;
  }
  return members;
}

/** For any two clusters, the item of the first that it costs least to move to the second. */
class Moves {
  /**
   * A heap of [extra cost, item] for each pair of clusters; items that have left their cluster stay until they are met.
   */
  private readonly heaps: Heap[];

  constructor(
    private readonly costs: Float64Array,
    private readonly clusters: number,
    private readonly members: Int32Array,
  ) {
    this.heaps = Array.from({ length: clusters * clusters }, () => new Heap());
  }

  /** Puts an item into a cluster. */
  put(item: number, cluster: number): void {
    this.members[item] = cluster;
    const start = item * this.clusters;
    for (let other = 0; other < this.clusters; other++) {
      if (other === cluster) continue;
      this.heaps[cluster * this.clusters + other]!.push(
        this.costs[start + other]! - this.costs[start + cluster]!,
        item,
      );
    }
  }

  /** The item and its extra cost; an infinite cost where the cluster is empty. */
  from(cluster: number, other: number): readonly [item: number, extra: number] {
    const heap = this.heaps[cluster * this.clusters + other]!;
    while (heap.item() >= 0 && this.members[heap.item()] !== cluster) heap.pop();
    return [heap.item(), heap.cost()];
  }
}

/** A binary heap of items by cost; of equal costs the smaller item comes first. */
class Heap {
  private readonly costs: number[] = [];
  private readonly items: number[] = [];

  /** The first item, -1 if there is none. */
  item(): number {
    return this.items[0] ?? -1;
  }

  cost(): number {
    return this.costs[0] ?? Infinity;
  }

  push(cost: number, item: number): void {
    let place = this.items.length;
    for (let above = (place - 1) >> 1; place > 0 && this.precedes(cost, item, above); above = (place - 1) >> 1) {
      this.set(place, this.costs[above]!, this.items[above]!);
      place = above;
    }
    this.set(place, cost, item);
  }

  pop(): void {
    const [cost, item] = [this.costs.pop()!, this.items.pop()!];
    const count = this.items.length;
    if (count === 0) return;
    let place = 0;
    for (let below = 1; below < count; below = 2 * place + 1) {
      if (below + 1 < count && this.precedes(this.costs[below + 1]!, this.items[below + 1]!, below)) below += 1;
      if (this.precedes(cost, item, below)) break;
      this.set(place, this.costs[below]!, this.items[below]!);
      place = below;
    }
    this.set(place, cost, item);
  }

  private precedes(cost: number, item: number, place: number): boolean {
    const other = this.costs[place]!;
    return cost < other || (cost === other && item < this.items[place]!);
  }

  private set(place: number, cost: number, item: number): void {
    this.costs[place] = cost;
    this.items[place] = item;
  }
}

/**
 * The clusters through which an item is taken in: it goes to the first, an item of the first to the second, and so on
 * to one with a free place. Extra costs may be negative, circles never are, because what is assigned already costs
 * least.
 */
function cheapestPath(
  costs: Float64Array,
  item: number,
  clusters: number,
  moves: Moves,
  sizes: Int32Array,
  places: number,
): number[] {
  const reached = Float64Array.from({ length: clusters }, (_, cluster) => costs[item * clusters + cluster]!);
  const before = new Int32Array(clusters).fill(-1);
  const extra = new Float64Array(clusters * clusters);
  for (let a = 0; a < clusters; a++)
    for (let b = 0; b < clusters; b++)
      // Only a full cluster hands items on.
      extra[a * clusters + b] = a === b || sizes[a]! < places ? Infinity : moves.from(a, b)[1];
  for (let changed = true, round = 0; changed && round < clusters; round++) {
    changed = false;
    for (let a = 0; a < clusters; a++) {
      for (let b = 0; b < clusters; b++) {
        const cost = reached[a]! + extra[a * clusters + b]!;
        // Rounding must not make a circle of two ways that cost the same.
        if (cost < reached[b]! - 1e-9 * Math.max(1, Math.abs(reached[b]!))) {
          reached[b] = cost;
          before[b] = a;
          changed = true;
        }
      }
    }
  }
  let end = -1;
  for (let cluster = 0; cluster < clusters; cluster++)
    if (sizes[cluster]! < places && (end < 0 || reached[cluster]! < reached[end]!)) end = cluster;
  const path: number[] = [];
  for (let cluster = end; cluster >= 0; cluster = before[cluster]!) path.unshift(cluster);
  return path;
}
