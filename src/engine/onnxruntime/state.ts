/**
 * Weights, moments and gradients of a training run, in WebAssembly memories: onnxruntime reads weights from and writes
 * gradients into the same bytes on which the optimizer kernels work, so nothing is copied in a step.
 */
import { elements, matrixSizes } from "../../graph/ir/ir.js";
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

/** What a backend keeps of a parameter, an array of its size each. */
export type ArrayKind = StateKind | "gradient" | "accumulated";

/** Where gradients lie: those of the last micro-batch, or the sums over several. */
type GradientKind = "gradient" | "accumulated";

/** One parameter's arrays, each `padded` floats long; byte offsets into the memory that holds them. */
interface ParamArrays {
  readonly key: string;
  readonly arena: Arena;
  /** Floats that are the parameter's own. */
  readonly count: number;
  readonly padded: number;
  readonly shape: readonly number[];
  readonly offsets: Readonly<Partial<Record<ArrayKind, number>>>;
}

/** The arrays of a parameter that is trained. */
interface TrainedArrays extends ParamArrays {
  readonly offsets: ParamArrays["offsets"] & Readonly<Record<"weight" | "moment1" | "gradient", number>>;
}

/** A WebAssembly memory and the kernels that work on it. */
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

/** Arrays in the order in which a memory holds them. */
const order = [
  "weight",
  "moment1",
  "moment2",
  "average",
  "gradient",
  "accumulated",
] as const satisfies readonly ArrayKind[];

/** Whether a parameter has an array of this kind. */
function hasArray(options: ArenaOptions, key: string, kind: ArrayKind): boolean {
  if (kind === "gradient" || kind === "accumulated")
    return options.frozen?.has(key) !== true && (kind === "gradient" || options.accumulate);
  return keepsState(options, key, kind);
}

/** A parameter that waits for its place in a memory. */
interface WaitingParam {
  readonly param: ParamInfo;
  readonly padded: number;
  readonly kinds: readonly ArrayKind[];
}

/** A parameter with the offsets of its arrays, as they are given out. */
interface PlacedParam extends WaitingParam {
  readonly offsets: Partial<Record<ArrayKind, number>>;
}

const isTrained = (arrays: ParamArrays): arrays is TrainedArrays => arrays.offsets.gradient !== undefined;

/** Byte offset of an array that the run must have been opened with. Throws an Error where it has none. */
function offsetOf({ key, offsets }: ParamArrays, kind: ArrayKind): number {
  const offset = offsets[kind];
  if (offset === undefined) throw missingState(key, kind, offsets.gradient === undefined);
  return offset;
}

/**
 * Weights of all parameters, with moments, gradients and averages of those that are trained.
 * Throws an Error for a parameter whose arrays exceed one memory.
 */
export class TrainState {
  private readonly arrays = new Map<string, ParamArrays>();
  private readonly trained: readonly TrainedArrays[];

  constructor(
    readonly params: readonly ParamInfo[],
    private readonly options: ArenaOptions,
  ) {
    const { arenaBytes = ARENA_BYTES } = options;
    let waiting: WaitingParam[] = [];
    let floats = 0;
    for (const param of params) {
      const kinds = order.filter((kind) => hasArray(options, param.key, kind));
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
    this.trained = [...this.arrays.values()].filter(isTrained);
  }

  /** Gives parameters one memory, in which the arrays of one kind lie together. */
  private allocate(waiting: readonly WaitingParam[], floats: number): void {
    const arena = kernelMemory(floats * 4);
    const placed = waiting.map((each): PlacedParam => ({ ...each, offsets: {} }));
    let next = 0;
    for (const kind of order) {
      for (const { kinds, padded, offsets } of placed) {
        if (!kinds.includes(kind)) continue;
        offsets[kind] = next;
        next += padded * 4;
      }
    }
    for (const { param, padded, offsets } of placed) {
      const { key, shape } = param;
      this.arrays.set(key, { key, arena, count: elements(shape), padded, shape, offsets });
    }
  }

  /** A parameter's array, in place. Throws an Error for an unknown parameter and for an array that this run lacks. */
  view(kind: ArrayKind, key: string): Float32Array {
    const arrays = this.arrays.get(key);
    if (arrays === undefined) throw unknownParameter(key);
    if (kind === "accumulated" && !this.options.accumulate)
      throw new Error("this state was opened without accumulation");
    return new Float32Array(arrays.arena.buffer, offsetOf(arrays, kind), arrays.count);
  }

  /** accumulated += gradient */
  addGradients(): void {
    for (const arrays of this.trained) {
      const { arena, padded, offsets } = arrays;
      arena.kernels.add(offsetOf(arrays, "accumulated"), offsets.gradient, padded);
    }
  }

  /** Norm over all trained parameters of `where`, times `scale`. */
  gradientNorm(where: GradientKind, scale: number): number {
    let sum = 0;
    for (const arrays of this.trained) sum += arrays.arena.kernels.sumSquares(offsetOf(arrays, where), arrays.padded);
    return Math.sqrt(sum) * scale;
  }

  /**
   * One update from the gradients in `where`, each first multiplied by `scale`. Throws an Error where a parameter takes
   * Muon and `settings` has none, or nothing orthogonalizes.
   */
  async update(
    where: GradientKind,
    scale: number,
    settings: StepSettings,
    orthogonalize?: Orthogonalize,
  ): Promise<void> {
    for (const arrays of this.trained) {
      if (usesMuon(this.options, arrays.key)) await this.updateMuon(arrays, where, scale, settings, orthogonalize);
      else this.updateAdamW(arrays, where, scale, settings);
      const { arena, padded, offsets } = arrays;
      const { averageDecay: decay } = settings;
      if (decay !== undefined)
        arena.kernels.blend(offsetOf(arrays, "average"), offsets.weight, padded, decay, 1 - decay);
    }
  }

  private updateAdamW(arrays: TrainedArrays, where: GradientKind, scale: number, settings: StepSettings): void {
    const { arena, padded, offsets } = arrays;
    const { beta1, beta2, eps, update } = settings;
    const { rate, decay } = ratesOf(this.options, arrays, settings);
    arena.kernels.adamw(
      offsets.weight,
      offsets.moment1,
      offsetOf(arrays, "moment2"),
      offsetOf(arrays, where),
      padded,
      scale,
      beta1,
      1 - beta1,
      beta2,
      1 - beta2,
      rate / (1 - beta1 ** update),
      1 / Math.sqrt(1 - beta2 ** update),
      eps,
      1 - rate * decay,
    );
  }

  /**
   * As torch.optim.Muon: m = mu m + (1 - mu) g; u = (1 - mu) g + mu m, or m without Nesterov; p = p (1 - rate decay) -
   * rate factor NS(u / |u|).
   */
  private async updateMuon(
    arrays: TrainedArrays,
    where: GradientKind,
    gradientScale: number,
    settings: StepSettings,
    orthogonalize: Orthogonalize | undefined,
  ): Promise<void> {
    if (settings.muon === undefined || orthogonalize === undefined)
      throw new Error(`${arrays.key} takes Muon, but the update has no settings for it`);
    const { count, padded, offsets } = arrays;
    const { kernels, buffer } = arrays.arena;
    const { momentum, nesterov, scale } = settings.muon;
    const { rate, decay } = ratesOf(this.options, arrays, settings);
    const [rows, columns] = matrixSizes(arrays);
    const fresh = (1 - momentum) * gradientScale;
    // The gradient is not needed any more, so its array takes the direction.
    const direction = offsetOf(arrays, where);
    kernels.blend(offsets.moment1, direction, padded, momentum, fresh);
    kernels.blend(direction, offsets.moment1, padded, nesterov ? fresh : 0, nesterov ? momentum : 1);
    const norm = Math.max(Math.sqrt(kernels.sumSquares(direction, padded)), MUON_EPS);
    kernels.blend(direction, direction, padded, 1 / norm, 0);
    const view = new Float32Array(buffer, direction, count);
    view.set(await orthogonalize(view, rows, columns));
    kernels.blend(offsets.weight, direction, padded, 1 - rate * decay, -rate * muonScale(scale, rows, columns));
  }
}

/** Newton-Schulz iteration of a matrix of norm 1. */
export type Orthogonalize = (x: Float32Array, rows: number, columns: number) => Promise<Float32Array>;
