/** `--device`: what computes. */
import type { Command } from "commander";
import { inputError } from "../base/errors.js";
import { cudaBackend } from "../engine/cuda/backend.js";
import { firstGpu } from "../engine/cuda/usable.js";
import { onnxruntimeBackend } from "../engine/onnxruntime/backend.js";
import type { Backend } from "../engine/runtime/runtime.js";
import { visibleLine, mostQuoted } from "../base/shown.js";
import type { Terminal } from "./terminal.js";

/** The CPU, GPU number `ordinal`, or the first GPU where there is one that works. */
export type DeviceChoice =
  { readonly kind: "auto" } | { readonly kind: "cpu" } | { readonly kind: "cuda"; readonly ordinal: number };

/** Throws inputError for another word. */
export function deviceChoice(text: string): DeviceChoice {
  if (text === "auto" || text === "cpu") return { kind: text };
  const [, ordinal = "0"] = /^cuda(?::(\d{1,3}))?$/.exec(text) ?? [text, "?"];
  if (ordinal === "?")
    throw inputError(`"${visibleLine(text, mostQuoted)}" is no device`, {
      where: "--device",
      hint: "write auto, cpu, cuda or cuda:N; upcycle doctor says what there is",
    });
  return { kind: "cuda", ordinal: Number(ordinal) };
}

export interface DeviceFlags {
  readonly device?: DeviceChoice;
}

export function withDevice(command: Command): Command {
  return command.option(
    "--device <name>",
    "auto (a GPU that works, else the CPU), cpu, cuda or cuda:N (default: auto)",
    deviceChoice,
  );
}

/** A choice as `--device` takes it; undefined where none was made. */
export function deviceWord(choice: DeviceChoice | undefined): string | undefined {
  return choice?.kind === "cuda" ? `cuda:${choice.ordinal}` : choice?.kind;
}

/** The backend of a choice. A GPU that is there and cannot be used is said, once, where none was asked for. */
export async function chosenBackend(choice: DeviceChoice | undefined, terminal: Terminal): Promise<Backend> {
  if (choice?.kind === "cpu") return onnxruntimeBackend;
  if (choice?.kind === "cuda") return cudaBackend(choice.ordinal);
  const gpu = await firstGpu();
  if (gpu.usable) return cudaBackend(0);
  if (gpu.reason !== null) terminal.note(`the GPU is not used: ${gpu.reason} (--device cpu says so itself)`);
  return onnxruntimeBackend;
}
