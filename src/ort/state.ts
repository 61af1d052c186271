/**
 * Weights, moments and gradients of a training run, in WebAssembly memories: onnxruntime reads weights from and writes gradients
 * into the same bytes on which the optimizer kernels work, so nothing is copied in a step.
 */
import { elements } from "../graph/ir.js";
import { kernelMemory, type Kernels } from "../numeric/kernels.js";
import type { ParamInfo } from "../step/programs.js";
import type { AdamW, StateKind } from "../step/runtime.js";

/** Regions of one parameter, each `padded` floats long; byte offsets into its arena. */
interface Region {
  readonly arena: Arena;
  readonly count: number;
  readonly padded: number;
  readonly shape: readonly number[];
  readonly offsets: Readonly<Record<StateKind | "gradient" | "accumulated", number>>;
}

interface Arena {
  readonly buffer: ArrayBuffer;
  readonly kernels: Kernels;
}

/** Floats per alignment unit: 64 bytes, one cache line. */
const ALIGN = 16;
/** A WebAssembly memory ends at 4 GiB; parameters beyond go to the next one. */
const ARENA_BYTES = 4 * 1024 ** 3 - 65536;

export class TrainState {
  private readonly regions = new Map<string, Region>();

  constructor(
    readonly params: readonly ParamInfo[],
    private readonly accumulate: boolean,
    arenaBytes = ARENA_BYTES,
  ) {
    const sections = accumulate ? 5 : 4;
    const padded = params.map(({ shape }) => Math.ceil(elements(shape) / ALIGN) * ALIGN);
    let first = 0;
    while (first < params.length) {
      let last = first;
      let floats = 0;
      while (last < params.length && (floats + padded[last]!) * sections * 4 <= arenaBytes) floats += padded[last++]!;
      if (last === first) throw new Error(`parameter ${params[first]!.key} alone exceeds one WebAssembly memory`);
      this.allocate(params.slice(first, last), padded.slice(first, last), floats, sections);
      first = last;
    }
  }

  private allocate(params: readonly ParamInfo[], padded: readonly number[], floats: number, sections: number): void {
    const arena = kernelMemory(floats * sections * 4);
    const section = floats * 4;
    let at = 0;
    params.forEach(({ key, shape }, i) => {
      this.regions.set(key, {
        arena,
        count: elements(shape),
        padded: padded[i]!,
        shape,
        offsets: { weight: at, moment1: section + at, moment2: 2 * section + at, gradient: 3 * section + at, accumulated: 4 * section + at },
      });
      at += padded[i]! * 4;
    });
  }

  view(kind: StateKind | "gradient" | "accumulated", key: string): Float32Array {
    const region = this.regions.get(key);
    if (region === undefined) throw new Error(`no parameter ${key}`);
    if (kind === "accumulated" && !this.accumulate) throw new Error("this state was opened without accumulation");
    return new Float32Array(region.arena.buffer, region.offsets[kind], region.count);
  }

  /** accumulated += gradient */
  addGradients(): void {
    for (const { arena, padded, offsets } of this.regions.values()) arena.kernels.add(offsets.accumulated, offsets.gradient, padded);
  }

  /** Norm over all parameters of `where`, times `scale`. */
  gradientNorm(where: "gradient" | "accumulated", scale: number): number {
    let sum = 0;
    for (const { arena, padded, offsets } of this.regions.values()) sum += arena.kernels.sumSquares(offsets[where], padded);
    return Math.sqrt(sum) * scale;
  }

  /** One AdamW update from the gradients in `where`, each first multiplied by `scale`. */
  update(where: "gradient" | "accumulated", scale: number, o: AdamW): void {
    const rate = o.learningRate / (1 - o.beta1 ** o.update);
    const correct = 1 / Math.sqrt(1 - o.beta2 ** o.update);
    for (const { arena, padded, shape, offsets } of this.regions.values()) {
      const decay = o.decayOn === "all" || shape.length > 1 ? o.weightDecay : 0;
      arena.kernels.adamw(
        offsets.weight, offsets.moment1, offsets.moment2, offsets[where], padded,
        scale, o.beta1, 1 - o.beta1, o.beta2, 1 - o.beta2, rate, correct, o.eps, 1 - o.learningRate * decay,
      );
    }
  }
}
