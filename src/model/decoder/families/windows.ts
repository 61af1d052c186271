/** Sliding-window settings: the same window on every layer (Mistral's way) or per layer (Qwen's way). */
import type { DecoderSpec, Rope } from "../types.js";
import type { ConfigReader } from "./reader.js";
import { isString } from "./reader.js";
import { refuse } from "./common.js";

/** Qwen classes look at `sliding_window` only if `use_sliding_window` is true; its class default is 4096. */
export function readQwenWindow(config: ConfigReader, fallback: number | null = 4096): number | null {
  return config.bool("use_sliding_window", false) ? config.intOrNull("sliding_window", fallback) : null;
}

/**
 * One window per layer from `layer_types`, or, when that is absent, from `isSliding(layer)`.
 */
export function readLayerWindows(
  config: ConfigReader,
  layers: number,
  isSliding: (layer: number) => boolean,
  window: number | null = readQwenWindow(config),
): (number | null)[] {
  const types = config.list("layer_types", isString, "a list of attention types, one per layer");
  if (types === null)
    return Array.from({ length: layers }, (_, layer) => (window !== null && isSliding(layer) ? window : null));
  if (types.length !== layers)
    throw config.fail("layer_types", `${layers} entries, one per layer (found ${types.length})`);
  return types.map((type) => {
    if (type === "full_attention") return null;
    if (type !== "sliding_attention") throw config.fail("layer_types", 'only "full_attention" and "sliding_attention"');
    if (window === null)
      throw config.fail("layer_types", 'only "full_attention", because sliding windows are switched off');
    return window;
  });
}

/**
 * Throws inputError where `layer_types` says another window of a layer than the class computes: a class that does not
 * know the key passes it over in transformers, while other programs may go by it. Types that are about something else
 * than the window (convolutions) are their own family's matter.
 */
export function requireSaidWindows(config: ConfigReader, { layers, family }: DecoderSpec): void {
  const types = config.get("layer_types");
  if (!Array.isArray(types)) return;
  const typeOf = (window: number | null): string => (window === null ? "full_attention" : "sliding_attention");
  const wrong = layers.findIndex(({ window }, layer) => {
    const type: unknown = types[layer];
    return (type === "full_attention" || type === "sliding_attention") && type !== typeOf(window);
  });
  if (wrong === -1) return;
  throw config.fail(
    "layer_types",
    `${JSON.stringify(typeOf(layers[wrong]?.window ?? null))} for layer ${wrong}`,
    `the class of ${family} does not read this key; remove it, or set the window that is meant`,
  );
}

/** The window shared by all layers. Throws inputError if they differ. */
export function uniformWindow(spec: DecoderSpec): number | null {
  const windows = new Set(spec.layers.map(({ window }) => window));
  if (windows.size > 1) throw refuse(spec, "different attention windows on different layers");
  return [...windows][0] ?? null;
}

/** Qwen's keys for per-layer windows; `max_window_layers` counts the full-attention layers that come first. */
export function writeLayerWindows(spec: DecoderSpec): Record<string, unknown> {
  const keys = writeLayerTypes(spec);
  const firstSliding = spec.layers.findIndex(({ window }) => window !== null);
  return {
    use_sliding_window: firstSliding !== -1,
    max_window_layers: firstSliding === -1 ? spec.layers.length : firstSliding,
    ...keys,
  };
}

/** One window size and which layers have it. Throws inputError if there are several sizes. */
export function writeLayerTypes(spec: DecoderSpec): Record<string, unknown> {
  const sizes = new Set(spec.layers.flatMap(({ window }) => (window === null ? [] : [window])));
  if (sizes.size > 1) throw refuse(spec, `attention windows of several sizes (${[...sizes].join(", ")})`);
  return {
    sliding_window: [...sizes][0] ?? null,
    layer_types: spec.layers.map(({ window }) => (window === null ? "full_attention" : "sliding_attention")),
  };
}

/**
 * The same for classes that compute a mask for sliding layers even if there are none, and fail without a size: `unused`
 * stands in.
 */
export function writeLayerTypesSized(spec: DecoderSpec, unused: number): Record<string, unknown> {
  const keys = writeLayerTypes(spec);
  return { ...keys, sliding_window: keys["sliding_window"] ?? unused };
}

/** In some families only layers with a sliding window have rope. */
export function slidingRopes(windows: readonly (number | null)[], rope: Rope): (Rope | null)[] {
  return windows.map((window) => (window === null ? null : rope));
}

/** Stands in for a window that no layer has: the class default of the families that call `writeSlidingRopes`. */
const unusedWindow = 4096;

/**
 * The window's keys of a family in which only layers with a sliding window have rope; or, with `everywhere`, all layers
 * have rope and none has a window. Throws inputError if another layer has rope, or one with a window has none.
 */
export function writeSlidingRopes(spec: DecoderSpec, everywhere: boolean): Record<string, unknown> {
  if (everywhere) return writeLayerTypes(spec);
  if (spec.layers.some(({ window, rope }) => (window === null) !== (rope === null)))
    throw refuse(spec, "rope on other layers than those with a sliding window");
  return writeLayerTypesSized(spec, unusedWindow);
}
