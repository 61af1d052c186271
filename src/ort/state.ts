/**
 * Weights, moments and gradients of a training run, in WebAssembly memories: onnxruntime reads weights from and writes gradients
 * into the same bytes on which the optimizer kernels work, so nothing is copied in a step.
 */
import { elements } from "../graph/ir.js";
import { kernelMemory, type Kernels } from "../numeric/kernels.js";
import type { ParamInfo } from "../step/programs.js";
import type { AdamW, ParamTuning, StateKind } from "../step/runtime.js";

export type RegionKind = StateKind | "gradient" | "accumulated";

/** Regions of one parameter, each `padded` floats long; byte offsets into its arena. */
interface Region {
  readonly key: string;
  readonly arena: Arena;
  readonly count: number;
  readonly padded: number;
  readonly shape: readonly number[];
  readonly offsets: Readonly<Partial<Record<RegionKind, number>>>;
}

/** A region that is trained. */
interface TrainedRegion extends Region {
  readonly offsets: Region["offsets"] & Readonly<Record<"weight" | "moment1" | "moment2" | "gradient", number>>;
}

interface Arena {
  readonly buffer: ArrayBuffer;
  readonly kernels: Kernels;
}

/** Floats per alignment unit: 64 bytes, one cache line. */
const ALIGN = 16;
/** A WebAssembly memory ends at 4 GiB; parameters beyond go to the next one. */
const ARENA_BYTES = 4 * 1024 ** 3 - 65536;

export interface StateOptions {
  readonly accumulate: boolean;
  /** Keys that have weights only. */
  readonly frozen?: ReadonlySet<string>;
  readonly tuning?: Readonly<Record<string, ParamTuning>> | undefined;
  readonly arenaBytes?: number;
}

const order = ["weight", "moment1", "moment2", "gradient", "accumulated"] as const satisfies readonly RegionKind[];

interface Planned {
  readonly param: ParamInfo;
  readonly padded: number;
  readonly kinds: readonly RegionKind[];
}

export class TrainState {
  private readonly regions = new Map<string, Region>();
  private readonly trained: TrainedRegion[];

  constructor(
    readonly params: readonly ParamInfo[],
    private readonly options: StateOptions,
  ) {
    const { accumulate, frozen, arenaBytes = ARENA_BYTES } = options;
    let waiting: Planned[] = [];
    let floats = 0;
    for (const param of params) {
      const kinds = order.filter((kind) => kind === "weight" || (frozen?.has(param.key) !== true && (kind !== "accumulated" || accumulate)));
      const padded = Math.ceil(elements(param.shape) / ALIGN) * ALIGN;
      const size = padded * kinds.length;
      if (size * 4 > arenaBytes) throw new Error(`parameter ${param.key} alone exceeds one WebAssembly memory`);
      if ((floats + size) * 4 > arenaBytes) {
        this.allocate(waiting, floats);
        [waiting, floats] = [[], 0];
      }
      waiting.push({ param, padded, kinds });
      floats += size;
    }
    this.allocate(waiting, floats);
    this.trained = [...this.regions.values()].filter((region): region is TrainedRegion => region.offsets.gradient !== undefined);
  }

  /** One memory; regions of one kind lie together. */
  private allocate(planned: readonly Planned[], floats: number): void {
    const arena = kernelMemory(floats * 4);
    const offsets = planned.map((): Partial<Record<RegionKind, number>> => ({}));
    let at = 0;
    for (const kind of order) {
      planned.forEach(({ padded, kinds }, i) => {
        if (!kinds.includes(kind)) return;
        offsets[i]![kind] = at;
        at += padded * 4;
      });
    }
    planned.forEach(({ param: { key, shape }, padded }, i) => {
      this.regions.set(key, { key, arena, count: elements(shape), padded, shape, offsets: offsets[i]! });
    });
  }

  view(kind: RegionKind, key: string): Float32Array {
    const region = this.regions.get(key);
    if (region === undefined) throw new Error(`no parameter ${key}`);
    if (kind === "accumulated" && !this.options.accumulate) throw new Error("this state was opened without accumulation");
    const offset = region.offsets[kind];
    if (offset === undefined) throw new Error(`${key} is frozen and has no ${kind}`);
    return new Float32Array(region.arena.buffer, offset, region.count);
  }

  /** accumulated += gradient */
  addGradients(): void {
    for (const { arena, padded, offsets } of this.trained) arena.kernels.add(offsets.accumulated!, offsets.gradient, padded);
  }

  /** Norm over all trained parameters of `where`, times `scale`. */
  gradientNorm(where: "gradient" | "accumulated", scale: number): number {
    let sum = 0;
    for (const { arena, padded, offsets } of this.trained) sum += arena.kernels.sumSquares(offsets[where]!, padded);
    return Math.sqrt(sum) * scale;
  }

  /** One AdamW update from the gradients in `where`, each first multiplied by `scale`. */
  update(where: "gradient" | "accumulated", scale: number, o: AdamW): void {
    const correct = 1 / Math.sqrt(1 - o.beta2 ** o.update);
    for (const { key, arena, padded, shape, offsets } of this.trained) {
      const tuning = this.options.tuning?.[key];
      const learningRate = o.learningRate * (tuning?.rate ?? 1);
      const rate = learningRate / (1 - o.beta1 ** o.update);
      const decay = o.decayOn === "all" || shape.length > 1 ? (tuning?.decay ?? o.weightDecay) : 0;
      arena.kernels.adamw(
        offsets.weight, offsets.moment1, offsets.moment2, offsets[where]!, padded,
        scale, o.beta1, 1 - o.beta1, o.beta2, 1 - o.beta2, rate, correct, o.eps, 1 - learningRate * decay,
      );
    }
  }
}
