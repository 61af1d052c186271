/**
 * Published trainings with their GPU hours, beside what the speed model predicts for them: how far its times can be
 * trusted. `node bench/plan-times.mjs` computes the predictions, and a test holds them.
 */

import type { Precision } from "./layout-types.js";

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
  readonly precision: Precision;
  /** What is ours because it is not published, or left out; null: nothing. */
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
    precision: "bf16",
    assumed: null,
    published: 3456,
    predicted: 3987,
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
    precision: "bf16",
    assumed: "GPUs",
    published: 184320,
    predicted: 155900,
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
    precision: "bf16",
    assumed: "GPUs",
    published: 368640,
    predicted: 317100,
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
    precision: "bf16",
    assumed: "GPUs",
    published: 1720320,
    predicted: 1650000,
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
    precision: "bf16",
    assumed: "GPUs, batch",
    published: 1.3e6,
    predicted: 521600,
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
    precision: "bf16",
    assumed: "GPUs, batch",
    published: 6.4e6,
    predicted: 4594000,
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
    precision: "bf16",
    assumed: null,
    published: 2304 * 11.9 * 24,
    predicted: 514800,
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
    precision: "bf16",
    assumed: null,
    published: 256 * 10 * 24,
    predicted: 39290,
    source: "arXiv 2409.02060 (about 10 days), from notes about the paper",
  },
  {
    id: "deepseek-v3",
    title: "DeepSeek-V3 (MoE)",
    gpu: "h800-sxm",
    gpus: 2048,
    sequence: 4096,
    batchTokens: 15360 * 4096,
    tokens: 14.8e12,
    precision: "fp8",
    assumed: "no MTP",
    published: 2.664e6,
    predicted: 3171000,
    source:
      "README of github.com/deepseek-ai/DeepSeek-V3 (2.664M H800 GPU hours, 14.8T tokens); arXiv 2412.19437, " +
      "sections 3.1 and 4.2 (2,048 GPUs; 15,360 sequences a step after the first 469B tokens). Its layer for " +
      "multi-token prediction, trained along, is not counted here.",
  },
];
