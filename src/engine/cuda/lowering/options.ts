/** How a graph is lowered, and for which GPU. */
import type { CacheLayout } from "./cache.js";

/** In what a program computes. */
export type Precision = "float32" | "tf32" | "bf16";

/** What lowering has to know of a GPU. */
export interface Chip {
  /** Compute capability, 90 for 9.0. */
  readonly capability: number;
  readonly multiprocessors: number;
}

/** The compute capability that has wgmma and TMA. */
const HOPPER = 90;

/** Whether kernels that use what compute capability 9.0 alone has run on a GPU. */
export const isHopper = (chip: Chip | undefined): chip is Chip => chip?.capability === HOPPER;

/** How a graph is lowered. */
export interface CudaLowerOptions {
  /**
   * `float32` (if left out); `tf32`: products round their operands to 10 bits of mantissa; `bf16`: products, and values
   * between them, in bfloat16, while norms' weights, routers, softmax, losses, sums and gradients of weights stay in
   * float32.
   */
  readonly precision?: Precision;
  /** Logits of a head with its loss that exist at once; tokens are cut into runs by it. */
  readonly mostLogits?: number;
  /** The GPU by which kernels are chosen; left out: kernels that every GPU from compute capability 8.0 on runs. */
  readonly chip?: Chip;
  /** Where inputs lie as bfloat16, and outputs, so that neighbours can be multiplied together. */
  readonly layout?: Layout;
  /** The cache of keys and values that the graph's new tokens join, in the precision of what lies between products. */
  readonly cache?: CacheLayout;
}

/** Places of inputs and outputs in the memory of whoever runs the program, in elements from a common beginning. */
export interface Layout {
  /** Of the inputs that are kept as bfloat16 beside their float32, by their place among the inputs. */
  readonly halves: ReadonlyMap<number, number>;
  /** Of outputs, by their place among the outputs. */
  readonly outputs: ReadonlyMap<number, number>;
}
