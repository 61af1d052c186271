/**
 * Published trainings with their GPU hours, beside what the speed model predicts for them: how far its times can be
 * trusted. `node bench/plan-times.mjs` computes the predictions, and a test holds them.
 */

/** One published training. */
export interface PublishedRun {
  readonly id: string;
  readonly title: string;
  /** Row of recipes/hardware.yaml. */
  readonly gpu: string;
  readonly gpus: number;
  readonly sequence: number;
  readonly batchTokens: number;
  readonly tokens: number;
  /** Which of GPUs and batch are ours because they are not published; null: none. */
  readonly assumed: string | null;
  /** GPU hours as published. */
  readonly published: number;
  /** GPU hours by the speed model, before it is calibrated. */
  readonly predicted: number;
  readonly source: string;
}

const llama2 = "model card of Llama 2 (GPU hours, 2.0T tokens, batch of 4M tokens)";
const llama3 = "model card of Llama 3 (GPU hours, 15T tokens)";

/** All of them, dense models first. */
export const publishedRuns: readonly PublishedRun[] = [
  {
    id: "tinyllama-1.1b",
    title: "TinyLlama 1.1B",
    gpu: "a100-40gb",
    gpus: 16,
    sequence: 2048,
    batchTokens: 2 ** 21,
    tokens: 3e11,
    assumed: null,
    published: 3456,
    predicted: 3961,
    source: "arXiv 2401.02385, table 2 (GPU hours for 300B tokens), from notes about the paper",
  },
  {
    id: "llama-2-7b",
    title: "Llama 2 7B",
    gpu: "a100-80gb",
    gpus: 512,
    sequence: 4096,
    batchTokens: 2 ** 22,
    tokens: 2e12,
    assumed: "GPUs",
    published: 184320,
    predicted: 155800,
    source: llama2,
  },
  {
    id: "llama-2-13b",
    title: "Llama 2 13B",
    gpu: "a100-80gb",
    gpus: 1024,
    sequence: 4096,
    batchTokens: 2 ** 22,
    tokens: 2e12,
    assumed: "GPUs",
    published: 368640,
    predicted: 314900,
    source: llama2,
  },
  {
    id: "llama-2-70b",
    title: "Llama 2 70B",
    gpu: "a100-80gb",
    gpus: 2048,
    sequence: 4096,
    batchTokens: 2 ** 22,
    tokens: 2e12,
    assumed: "GPUs",
    published: 1720320,
    predicted: 1635000,
    source: llama2,
  },
  {
    id: "llama-3-8b",
    title: "Llama 3 8B",
    gpu: "h100-sxm",
    gpus: 2048,
    sequence: 8192,
    batchTokens: 2 ** 24,
    tokens: 15e12,
    assumed: "GPUs, batch",
    published: 1.3e6,
    predicted: 518400,
    source: llama3,
  },
  {
    id: "llama-3-70b",
    title: "Llama 3 70B",
    gpu: "h100-sxm",
    gpus: 8192,
    sequence: 8192,
    batchTokens: 2 ** 24,
    tokens: 15e12,
    assumed: "GPUs, batch",
    published: 6.4e6,
    predicted: 4547000,
    source: llama3,
  },
  {
    id: "nemotron-4-15b",
    title: "Nemotron-4 15B",
    gpu: "h100-sxm",
    gpus: 2304,
    sequence: 4096,
    batchTokens: 1152 * 4096,
    tokens: 7.6e12,
    assumed: null,
    published: 2304 * 11.9 * 24,
    predicted: 508200,
    source: "arXiv 2402.16819, table 2, third stage (11.9 days)",
  },
  {
    id: "olmoe-1b-7b",
    title: "OLMoE 1B-7B (MoE)",
    gpu: "h100-sxm",
    gpus: 256,
    sequence: 4096,
    batchTokens: 2 ** 22,
    tokens: 5.133e12,
    assumed: null,
    published: 256 * 10 * 24,
    predicted: 39650,
    source: "arXiv 2409.02060 (about 10 days), from notes about the paper",
  },
];
