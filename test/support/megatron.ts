/** What Megatron-LM's routing functions gave, see `test/golden/README.md`. */
import { readFileSync } from "node:fs";

type Matrix = readonly (readonly number[])[];

interface Scored {
  readonly values: readonly number[];
  readonly gradient: readonly Matrix[];
}

export interface MegatronRouting {
  readonly sinkhorn: readonly {
    readonly k: number;
    readonly logits: Matrix;
    readonly matrix: Matrix;
    readonly chosen: Matrix;
    readonly weights: Matrix;
  }[];
  readonly drop: readonly {
    readonly k: number;
    readonly factor: number;
    readonly renormalised: boolean;
    readonly logits: Matrix;
    readonly capacity: number;
    readonly probs: Matrix;
    readonly position: Matrix;
  }[];
  /** `logits` by micro-batch, tokens in the order [batch, sequence]. */
  readonly loss: readonly {
    readonly score: "softmax" | "sigmoid";
    readonly batch: number;
    readonly k: number;
    readonly logits: readonly Matrix[];
    readonly layer: Scored;
    readonly sequence: Scored;
    readonly running: Scored;
  }[];
  readonly bias: readonly {
    readonly counts: readonly number[];
    readonly bias: readonly number[];
    readonly rate: number;
    readonly moved: readonly number[];
  }[];
}

export const megatronRouting = JSON.parse(
  readFileSync(new URL("../golden/routing/megatron.json", import.meta.url), "utf8"),
) as MegatronRouting;
