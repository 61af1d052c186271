/**
 * Opens a model folder (config.json and weight files) as a spec and its tensors. Everything that can be known
 * without reading weights is checked here, once, so that a run does not find out after an hour.
 */
import { stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { inputError } from "../../base/errors.js";
import { exists, previousName } from "../io/atomic.js";
import { requireNoDeadLink, withFsErrors } from "../io/fs-errors.js";
import { kindOf, sizeLimits } from "../io/open.js";
import type { RangeFile } from "../io/ranges.js";
import { readJson } from "../io/ranges.js";
import type { FloatDtype } from "../numeric/dtype.js";
import { floatBytes, storedPlace, toFloat32 } from "../numeric/dtype.js";
import { specFromConfig } from "../../model/decoder/config.js";
import { readQuantization } from "../../model/decoder/quantization.js";
import type { DecoderSpec } from "../../model/decoder/types.js";
import { isComputedBuffer, olderName } from "../../model/tensors/names.js";
import { isWholeTensor, placements, takeSlot, type Placement } from "../../model/tensors/placement.js";
import { adapterConfigFile, withAdapter } from "./adapter.js";
import type { Slot } from "../../model/tensors/slots.js";
import { locateTensors } from "./locate.js";
import { megatronFolder, openMegatronFolder, type MegatronReading } from "./open-megatron.js";
import { modelFolderOf, type ModelSource } from "./model-source.js";
import { dequantizedDtype, isActivationScale, withScales } from "./scales.js";
import { elements } from "../../base/shapes.js";
import type { Located } from "./stored.js";
import type { Checkpoint } from "./types.js";
import { openRectangleReader, type RectangleSource } from "./rectangle-reader.js";

export type { Adapter, Checkpoint } from "./types.js";
export type { ModelSource } from "./model-source.js";
export type { StoredTensor } from "./stored.js";

/**
 * Opens a model. Throws inputError, naming what was found and what was expected, if the folder is not a supported
 * model, a file is missing or cut short, or a tensor is missing, misshapen or not floating point; and for an adapter
 * that cannot be merged in.
 */
export async function openCheckpoint(source: ModelSource): Promise<Checkpoint> {
  const base = await openFolder(modelFolderOf(source));
  if (typeof source === "string") return base;
  try {
    return await withAdapter(base, source.adapter);
  } catch (cause) {
    await base.close();
    throw cause;
  }
}

/**
 * Opens a checkpoint of Megatron-Core with what the user says beside it: a folder of saves, or that of one. Throws
 * inputError like `openCheckpoint`.
 */
export async function openMegatron(dir: string, reading: MegatronReading = {}): Promise<Checkpoint> {
  await requireFolder(dir);
  const save = await megatronFolder(dir);
  if (save === null)
    throw inputError("this is no checkpoint of Megatron-Core", {
      where: dir,
      hint: "expected latest_checkpointed_iteration.txt, .metadata with metadata.json, or mp_rank_* folders",
    });
  const { spec, config, located, slots, files, notes } = await openMegatronFolder(save, reading);
  try {
    requireSlots(slots, located, save, spec, "the checkpoint's args");
    const opened = assemble(save, spec, config, located, slots, new Set(), files);
    // Optimizer states are no weights that a model leaves unread.
    const unused = opened.unused.filter(
      (name) => /^(embedding|decoder|output_layer)\./.test(name) && !isAlias(name, slots),
    );
    return { ...opened, unused, notes: [...opened.notes, ...notes] };
  } catch (cause) {
    await Promise.all(files.map((file) => file.close()));
    throw cause;
  }
}

/** The second name of a norm that is read under its first. */
function isAlias(name: string, slots: readonly Placement[]): boolean {
  const other = name.replace("pre_mlp_layernorm.", "mlp.linear_fc1.layer_norm_");
  return other !== name && slots.some((slot) => slot.name === other);
}

async function openFolder(dir: string): Promise<Checkpoint> {
  await requireFolder(dir);
  if ((await megatronFolder(dir)) !== null) return openMegatron(dir);
  const configPath = join(dir, "config.json");
  if (!(await exists(configPath))) {
    await requireNoDeadLink(configPath);
    const isAdapter = await exists(join(dir, adapterConfigFile));
    const hint = isAdapter
      ? "this is an adapter, which goes behind its model: MODEL+ADAPTER"
      : "expected a Hugging Face model folder";
    throw inputError("folder has no config.json", { where: dir, hint });
  }
  const config = await readJson(configPath, sizeLimits.settings);
  const spec = specFromConfig(config, configPath);
  const files: RangeFile[] = [];
  try {
    const slots = placements(spec);
    const wanted = new Set(slots.map(({ name }) => name));
    const stored = underCurrentNames(spec, wanted, await locateTensors(dir, files));
    const settings = config as Record<string, unknown>;
    const { tensors, scales } = withScales(
      stored,
      wanted,
      readQuantization(config, configPath),
      dequantizedDtype(settings),
      dir,
    );
    requireSlots(slots, tensors, dir, spec);
    return assemble(dir, spec, settings, tensors, slots, scales, files);
  } catch (cause) {
    await Promise.all(files.map((file) => file.close()));
    throw cause;
  }
}

/** The tensors of old files, whose names have changed since, under their names of today. */
function underCurrentNames(
  spec: DecoderSpec,
  wanted: ReadonlySet<string>,
  located: ReadonlyMap<string, Located>,
): ReadonlyMap<string, Located> {
  const renamed = new Map<string, string>();
  for (const name of wanted) {
    const older = olderName(spec, name);
    if (older !== null && !located.has(name)) renamed.set(older, name);
  }
  if (renamed.size === 0) return located;
  return new Map([...located].map(([name, tensor]) => [renamed.get(name) ?? name, tensor]));
}

/** A slot and the stored tensors that hold it, in the order of its rows. */
interface Held {
  readonly slot: Slot;
  /** The precision of all of them. */
  readonly dtype: FloatDtype;
  readonly parts: (RectangleSource & { readonly place: Placement })[];
}

function assemble(
  dir: string,
  spec: DecoderSpec,
  config: Record<string, unknown>,
  located: ReadonlyMap<string, Located>,
  slots: readonly Placement[],
  scales: ReadonlySet<string>,
  files: readonly RangeFile[],
): Checkpoint {
  const bySlot = new Map<string, Held>();
  for (const place of slots) {
    const tensor = located.get(place.name)!;
    const { presented, shape } = tensor;
    const read: RectangleSource["read"] = (start, count, into) => tensor.read(start, count, into);
    const held = bySlot.get(place.slot.key) ?? { slot: place.slot, dtype: presented!, parts: [] };
    held.parts.push({
      place,
      name: place.name,
      dtype: presented!,
      count: elements(shape),
      first: place.first,
      rows: place.count,
      layout: place.layout,
      read,
    });
    bySlot.set(place.slot.key, held);
  }
  const find = (slotKey: string): Held => {
    const held = bySlot.get(slotKey);
    if (held === undefined) throw new Error(`no slot ${slotKey} in ${dir}`);
    return held;
  };
  const readBytes = async (slotKey: string): Promise<{ dtype: FloatDtype; bytes: Uint8Array }> => {
    const { slot, dtype, parts } = find(slotKey);
    const [first] = parts;
    if (isWholeTensor(first!.place)) return { dtype, bytes: await first!.read(0, first!.count) };
    const size = floatBytes[dtype];
    const bytes = new Uint8Array(elements(slot.shape) * size);
    for (const { place, count, read } of parts) takeSlot(place, await read(0, count), bytes, size);
    return { dtype, bytes };
  };
  const readRectangle = openRectangleReader();
  const used = new Set(slots.map(({ name }) => name));
  const others = [...located.keys()]
    .filter((name) => !used.has(name) && !scales.has(name) && !isComputedBuffer(name))
    .sort();
  return {
    dir,
    adapter: null,
    spec,
    config,
    tensors: located,
    unused: others.filter((name) => !isActivationScale(name)),
    notes: notesOn(others.filter(isActivationScale)),
    dtype: dominantDtype([...bySlot.values()]),
    readBytes,
    dtypeOf: (slotKey) => find(slotKey).dtype,
    readRectangle: (rectangle, into) => readRectangle(find(rectangle.key).parts, rectangle, into),
    async readFloat32(slotKey) {
      const { dtype, bytes } = await readBytes(slotKey);
      return toFloat32(dtype, bytes);
    },
    async readRows(slotKey, start, count, memory) {
      const { slot, dtype, parts } = find(slotKey);
      const [rows = 1, ...rest] = slot.shape;
      if (!(start >= 0 && count >= 0 && start + count <= rows))
        throw new Error(`rows ${start} to ${start + count} of ${slotKey}, which has ${rows}`);
      const width = elements(rest);
      const room = memory !== undefined && memory.byteLength >= 4 * count * width ? memory : undefined;
      const into = room && storedPlace(dtype, count * width, room);
      const [first] = parts;
      if (isWholeTensor(first!.place))
        return toFloat32(dtype, await first!.read(start * width, count * width, into), room);
      const rectangle = {
        key: slotKey,
        rowStart: start,
        rowCount: count,
        columnStart: 0,
        columnCount: width,
        stride: width,
      };
      return toFloat32(dtype, (await readRectangle(parts, rectangle, into)).bytes, room);
    },
    async close() {
      await Promise.all(files.map((file) => file.close()));
    },
  };
}

function dominantDtype(slots: readonly Held[]): FloatDtype {
  const counts = new Map<FloatDtype, number>();
  for (const { slot, dtype } of slots) counts.set(dtype, (counts.get(dtype) ?? 0) + elements(slot.shape));
  return [...counts].reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

function notesOn(activationScales: readonly string[]): string[] {
  const [first] = activationScales;
  if (first === undefined) return [];
  const count =
    activationScales.length === 1 ? "1 tensor holds a scale" : `${activationScales.length} tensors hold scales`;
  return [`${count} of activations (such as ${first}), not read: activations are not quantized here`];
}

async function requireFolder(dir: string): Promise<void> {
  if (!(await withFsErrors(dir, "open model folder", () => exists(dir)))) {
    const previous = previousName(resolve(dir));
    const hint = (await exists(previous))
      ? `an interrupted replacement left the old version in ${basename(previous)} beside it; rename that back`
      : undefined;
    if (hint === undefined) await requireNoDeadLink(dir);
    throw inputError("no such folder", { where: dir, hint });
  }
  const info = await withFsErrors(dir, "open model folder", () => stat(dir));
  if (!info.isDirectory()) throw inputError(`this is ${kindOf(info)}, expected a model folder`, { where: dir });
}

function requireSlots(
  slots: readonly Placement[],
  located: ReadonlyMap<string, Located>,
  dir: string,
  spec: DecoderSpec,
  config = "config.json",
): void {
  const names = [...new Set(slots.map(({ name }) => name))];
  const missing = names.filter((name) => !located.has(name));
  if (missing.length > 0) {
    const more = missing.length === 1 ? "" : ` and ${missing.length - 1} more`;
    throw inputError(
      `tensor ${missing[0]}${more} missing, ${config} (${spec.family}, ${spec.layers.length} layers) asks ` +
        `for ${names.length}`,
      {
        where: dir,
        hint: "the weights do not belong to this config.json, or the download is incomplete",
      },
    );
  }
  const firstOf = new Map<string, Placement>();
  for (const place of slots) {
    const { slot, shape: wanted, name } = place;
    const { shape, dtype, presented, file } = located.get(name)!;
    const where = join(dir, file);
    if (shape.join() !== wanted.join()) {
      throw inputError(`tensor ${name} has shape [${shape.join(", ")}], ${config} asks for [${wanted.join(", ")}]`, {
        where,
        hint: "the weights do not belong to this config.json",
      });
    }
    if (presented === null) {
      throw inputError(`tensor ${name} is stored as ${dtype}, expected F32, BF16, F16, F64, F8_E4M3 or F8_E5M2`, {
        where,
        hint: "use the unquantized model it was made from",
      });
    }
    const first = firstOf.get(slot.key);
    if (first === undefined) firstOf.set(slot.key, place);
    else if (located.get(first.name)!.presented !== presented) {
      throw inputError(
        `tensor ${name} is stored as ${dtype}, ${first.name} as ${located.get(first.name)!.dtype}, expected ` +
          "one precision for both",
        { where },
      );
    }
  }
}
