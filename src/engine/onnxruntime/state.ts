/**
 * Weights, moments and gradients of a training run, in WebAssembly memories: onnxruntime reads weights from and writes
 * gradients into the same bytes on which the optimizer kernels work, so nothing is copied in a step.
 */
import { elements } from "../../graph/ir/ir.js";
import { kernelMemory, type Kernels } from "../../files/numeric/kernels.js";
import type { ParamInfo } from "../../graph/programs/programs.js";
import { MUON_EPS, muonScale } from "../optimizer/muon.js";
import type { StateKind, StepSettings } from "../runtime/runtime.js";
import {
  keepsState,
  missingState,
  ratesOf,
  unknownParameter,
  usesMuon,
  type StateOptions,
} from "../optimizer/state.js";

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
  readonly offsets: Region["offsets"] & Readonly<Record<"weight" | "moment1" | "gradient", number>>;
}

interface Arena {
  readonly buffer: ArrayBuffer;
  readonly kernels: Kernels;
}

/** Floats per alignment unit: 64 bytes, one cache line. */
const ALIGN = 16;
/** A WebAssembly memory ends at 4 GiB; parameters beyond go to the next one. */
const ARENA_BYTES = 4 * 1024 ** 3 - 65536;

interface ArenaOptions extends StateOptions {
  readonly accumulate: boolean;
  readonly arenaBytes?: number;
}

const order = [
  "weight",
  "moment1",
  "moment2",
  "average",
  "gradient",
  "accumulated",
] as const satisfies readonly RegionKind[];

/** Whether a parameter has a region of this kind. */
function keeps(options: ArenaOptions, key: string, kind: RegionKind): boolean {
  if (kind === "gradient" || kind === "accumulated")
    return options.frozen?.has(key) !== true && (kind === "gradient" || options.accumulate);
  return keepsState(options, key, kind);
}

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
    private readonly options: ArenaOptions,
  ) {
    const { arenaBytes = ARENA_BYTES } = options;
    let waiting: Planned[] = [];
    let floats = 0;
    for (const param of params) {
      const kinds = order.filter((kind) => keeps(options, param.key, kind));
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
    this.trained = [...this.regions.values()].filter(
      (region): region is TrainedRegion => region.offsets.gradient !== undefined,
    );
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
    if (region === undefined) throw unknownParameter(key);
    if (kind === "accumulated" && !this.options.accumulate)
      throw new Error("this state was opened without accumulation");
    const offset = region.offsets[kind];
    if (offset === undefined) throw missingState(key, kind, region.offsets.gradient === undefined);
    return new Float32Array(region.arena.buffer, offset, region.count);
  }

  /** accumulated += gradient */
  addGradients(): void {
    for (const { arena, padded, offsets } of this.trained)
      arena.kernels.add(offsets.accumulated!, offsets.gradient, padded);
  }

  /** Norm over all trained parameters of `where`, times `scale`. */
  gradientNorm(where: "gradient" | "accumulated", scale: number): number {
    let sum = 0;
    for (const { arena, padded, offsets } of this.trained) sum += arena.kernels.sumSquares(offsets[where]!, padded);
    return Math.sqrt(sum) * scale;
  }

  /**
   * One update from the gradients in `where`, each first multiplied by `scale`; `orthogonalize` is for parameters of
   * Muon.
   */
  async update(
    where: "gradient" | "accumulated",
    scale: number,
    o: StepSettings,
    orthogonalize?: Orthogonalize,
  ): Promise<void> {
    for (const region of this.trained) {
      if (usesMuon(this.options, region.key)) await this.updateMuon(region, where, scale, o, orthogonalize!);
      else this.updateAdamW(region, where, scale, o);
      const { arena, padded, offsets } = region;
      if (o.averageDecay !== undefined)
        arena.kernels.blend(offsets.average!, offsets.weight, padded, o.averageDecay, 1 - o.averageDecay);
    }
  }

  private updateAdamW(region: TrainedRegion, where: "gradient" | "accumulated", scale: number, o: StepSettings): void {
    const { arena, padded, offsets } = region;
    const { rate, decay } = ratesOf(this.options, region, o);
    arena.kernels.adamw(
      offsets.weight,
      offsets.moment1,
      offsets.moment2!,
      offsets[where]!,
      padded,
      scale,
      o.beta1,
      1 - o.beta1,
      o.beta2,
      1 - o.beta2,
      rate / (1 - o.beta1 ** o.update),
      1 / Math.sqrt(1 - o.beta2 ** o.update),
      o.eps,
      1 - rate * decay,
    );
  }

  /**
   * As torch.optim.Muon: m = mu m + (1 - mu) g; u = (1 - mu) g + mu m, or m without Nesterov; p = p (1 - rate decay) -
   * rate factor NS(u / |u|).
   */
  private async updateMuon(
    region: TrainedRegion,
    where: "gradient" | "accumulated",
    scale: number,
    o: StepSettings,
    orthogonalize: Orthogonalize,
  ): Promise<void> {
    const {
      arena: { kernels, buffer },
      count,
      padded,
      shape,
      offsets,
    } = region;
    const { momentum, nesterov, scale: kind } = o.muon!;
    const { rate, decay } = ratesOf(this.options, region, o);
    const scratch = offsets[where]!;
    kernels.blend(offsets.moment1, scratch, padded, momentum, (1 - momentum) * scale);
    kernels.blend(scratch, offsets.moment1, padded, nesterov ? (1 - momentum) * scale : 0, nesterov ? momentum : 1);
    const norm = Math.max(Math.sqrt(kernels.sumSquares(scratch, padded)), MUON_EPS);
    kernels.blend(scratch, scratch, padded, 1 / norm, 0);
    const [rows, columns] = shape as [number, number];
    const view = new Float32Array(buffer, scratch, count);
    view.set(await orthogonalize(view, rows, columns));
    kernels.blend(offsets.weight, scratch, padded, 1 - rate * decay, -rate * muonScale(kind, rows, columns));
  }
}

/** Newton-Schulz iteration of a matrix of norm 1. */
export type Orthogonalize = (x: Float32Array, rows: number, columns: number) => Promise<Float32Array>;
