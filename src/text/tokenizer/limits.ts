/**
 * What tokenizers may take. Every number is many times what real ones take (encoding: a megabyte in one to three
 * seconds and some hundred bytes of memory per character; opening: a megabyte of the file in 0.1 s and 30 MB), so that
 * it is only met by what never ends.
 */
import { totalmem } from "node:os";
import { largestCarried } from "../../files/formats/model-files.js";
import type { CallBudget } from "./calls.js";

/** Most bytes of a `tokenizer.json`. */
export const LARGEST_FILE = largestCarried;

/** Most bytes of each file beside a `tokenizer.json`; they are small but for the lists of added tokens. */
export const LARGEST_FILE_BESIDE = 64e6;

/** Seconds of processor time that any call may take, whatever its size. */
export const PATIENCE = 20;

/** Bytes of memory that any call may take, whatever its size. */
export const MEMORY = 2e9;

/** What a call may take whatever its size: seconds of processor time, and bytes. */
export interface Leeway {
  /** Seconds. */
  readonly patience: number;
  /** Bytes. */
  readonly memory: number;
}

/**
 * Most bytes of any call. They leave a part of the machine to others: where memory runs out the system ends any
 * process, not the one that is to blame.
 */
function mostMemory(): number {
  const machine = totalmem();
  const allowed = process.constrainedMemory();
  return 0.75 * (allowed > 0 ? Math.min(machine, allowed) : machine);
}

const budget = ({ patience, memory }: Leeway, moreMs: number, moreBytes: number): CallBudget => ({
  processorMs: patience * 1000 + moreMs,
  memoryMB: Math.floor(Math.min(mostMemory(), memory + moreBytes) / 1e6),
});

/** The budget of opening a file of so many bytes. */
export const loadBudget = (leeway: Leeway, bytes: number): CallBudget => budget(leeway, bytes / 100, 100 * bytes);

/** The budget of encoding so many UTF-16 units. */
export const encodeBudget = (leeway: Leeway, units: number): CallBudget => budget(leeway, units / 10, 600 * units);

/** The budget of decoding so many tokens, or of looking one up. */
export const decodeBudget = (leeway: Leeway, tokens: number): CallBudget => budget(leeway, tokens, 1000 * tokens);
