/** `--device`: what computes. */
import type { Command } from "commander";
import { inputError } from "../base/errors.js";
import { cudaBackend } from "../engine/cuda/backend.js";
import type { Precision } from "../engine/cuda/lowering/options.js";
import { firstGpu, requireGpu } from "../engine/cuda/usable.js";
import { onnxruntimeBackend } from "../engine/onnxruntime/backend.js";
import type { Backend } from "../engine/runtime/runtime.js";
import { visibleLine, mostQuoted } from "../base/shown.js";
import { oneOf } from "./options.js";
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

/** What several trainings at once compute on: one device, or several GPUs as `cuda:0,cuda:1`. */
type DeviceChoices = readonly [DeviceChoice, ...DeviceChoice[]];

/** Throws inputError for a word that is no device, for one that is named twice, and for a list of others than GPUs. */
export function deviceChoices(text: string): DeviceChoices {
  const [first, ...others] = text.split(",");
  const all: DeviceChoices = [deviceChoice(first ?? ""), ...others.map(deviceChoice)];
  if (all.length === 1) return all;
  const gpus = new Set(all.map((one) => (one.kind === "cuda" ? one.ordinal : null)));
  if (gpus.has(null) || gpus.size < all.length)
    throw inputError(`"${visibleLine(text, mostQuoted)}" is no list of different GPUs`, {
      where: "--device",
      hint: "write several GPUs as cuda:0,cuda:1",
    });
  return all;
}

/** The options that say where a command computes. */
export interface DeviceFlags {
  readonly device?: DeviceChoice;
}

/** Of commands that train, or run a model as it is. */
export interface PrecisionFlags extends DeviceFlags {
  readonly precision?: Precision;
}

const precisions = ["float32", "tf32", "bf16"] as const satisfies readonly Precision[];

/** Adds `--precision` to a command. */
export function withPrecision(command: Command): Command {
  return withPrecisionOption(withDevice(command));
}

function withPrecisionOption(command: Command): Command {
  return command.option(
    "--precision <name>",
    "on a GPU: float32, tf32, or bf16 (what a training updates, and all sums, in float32) (default: float32)",
    oneOf("--precision", precisions),
  );
}

/** The options of a command that trains several models at once. */
export interface DevicesFlags {
  readonly device?: DeviceChoices;
  readonly precision?: Precision;
}

/** Adds `--device`, which may name several GPUs, and `--precision`. */
export function withDevices(command: Command): Command {
  return withPrecisionOption(
    command.option(
      "--device <names>",
      "auto (a GPU that works, else the CPU), cpu, cuda or cuda:N; several GPUs as cuda:0,cuda:1 (default: auto)",
      deviceChoices,
    ),
  );
}

/** Adds `--device` to a command. */
export function withDevice(command: Command): Command {
  return command.option(
    "--device <name>",
    "auto (a GPU that works, else the CPU), cpu, cuda or cuda:N (default: auto)",
    deviceChoice,
  );
}

/** The flags as they were given: ` --device cuda:0 --precision bf16`; empty where none was. */
export function deviceWords({ device, precision }: PrecisionFlags | DevicesFlags): string {
  const choices = device === undefined || "kind" in device ? [device] : device;
  const name = device && choices.map((one) => (one?.kind === "cuda" ? `cuda:${one.ordinal}` : one?.kind)).join(",");
  const flag = (word: string, value: string | undefined): string => (value === undefined ? "" : ` ${word} ${value}`);
  return `${flag("--device", name)}${flag("--precision", precision)}`;
}

/**
 * The backend of a choice. A GPU that is there and cannot be used is said, once, where none was asked for. Throws
 * inputError for a GPU that was asked for and cannot be used, before a command begins its work.
 */
export async function chosenBackend(
  choice: DeviceChoice | undefined,
  terminal: Terminal,
  precision?: Precision,
): Promise<Backend> {
  if (choice?.kind === "cuda") {
    await requireGpu(choice.ordinal);
    return cudaBackend(choice.ordinal, { precision });
  }
  if (choice?.kind === "cpu") return onCpu(precision);
  const gpu = await firstGpu();
  if (gpu.usable) return cudaBackend(0, { precision });
  if (gpu.reason !== null) terminal.note(`the GPU is not used: ${gpu.reason} (--device cpu says so itself)`);
  return onCpu(precision);
}

/** The backends of several choices, in their order. Throws like `chosenBackend`. */
export async function chosenBackends(
  { device, precision }: DevicesFlags,
  terminal: Terminal,
): Promise<readonly [Backend, ...Backend[]]> {
  const [first, ...others] = device ?? [undefined];
  const backends: [Backend, ...Backend[]] = [await chosenBackend(first, terminal, precision)];
  for (const one of others) backends.push(await chosenBackend(one, terminal, precision));
  return backends;
}

/**
 * The backends of several choices without a look at what is there, for what is computed nowhere; the CPU where none was
 * made. Throws inputError for a precision that the CPU does not compute in.
 */
export function namedBackends({ device, precision }: DevicesFlags): readonly [Backend, ...Backend[]] {
  const named = (choice: DeviceChoice | undefined): Backend =>
    choice?.kind === "cuda" ? cudaBackend(choice.ordinal, { precision }) : onCpu(precision);
  const [first, ...others] = device ?? [undefined];
  return [named(first), ...others.map(named)];
}

/** Whether a backend computes on a GPU. */
export const isOnGpu = ({ name }: Pick<Backend, "name">): boolean => name.startsWith("cuda:");

/** Throws inputError for a precision that the CPU does not compute in. */
function onCpu(precision: Precision | undefined): Backend {
  if (precision !== undefined && precision !== "float32")
    throw inputError(`the CPU computes in float32, not in ${precision}`, {
      where: "--precision",
      hint: "leave it out, or compute on a GPU: upcycle doctor says what there is",
    });
  return onnxruntimeBackend;
}
